//! What one tenant's VMs share: bytes are copied in and handed out by count, and a lock is held only for that.
//!
//! Envoy lets shared data grow without end. Here a store has room for [`SPACE_BYTES`], or for what its tenant is bounded to. States of
//! limits that say nothing any more make room first, then what was written longest ago: SDKs abort on any status that says "full", and
//! the keys often come from clients, whose flood must not end the plugin.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use portcullis_abi::Status;
use portcullis_abi::limit::{self, Order, Verdict};
use portcullis_core::tenant::Account;

use super::shard::{Lasts, Room, Shard};
use super::{Realm, SPACE_BYTES, Space};
use crate::metrics::GuestMetrics;
use crate::queues::Queues;

const SHARDS: usize = 16;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One tenant's shared data, queues and metrics.
#[derive(Debug, Default)]
pub(super) struct Store {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
    /// What bounds it, where its tenant has a bound of its own.
    account: Mutex<Option<Arc<Account>>>,
    /// The tenant's queues.
    pub(super) queues: Arc<Queues>,
    /// By plugin; each kept by the VMs that count with it.
    metrics: Mutex<HashMap<Arc<str>, Weak<GuestMetrics>>>,
    /// By `vm_id`.
    spaces: Mutex<HashMap<Arc<str>, Weak<Space>>>,
    last_realm: AtomicU32,
}

impl Store {
    /// The space of this `vm_id`; made on first use.
    pub(super) fn space(self: &Arc<Self>, vm_id: &Arc<str>) -> Arc<Space> {
        let mut spaces = lock(&self.spaces);
        let slot = spaces.entry(vm_id.clone()).or_default();
        slot.upgrade().unwrap_or_else(|| {
            let realm = Realm(self.last_realm.fetch_add(1, Ordering::Relaxed).wrapping_add(1));
            let space = Arc::new(Space { realm, vm_id: vm_id.clone(), store: self.clone() });
            *slot = Arc::downgrade(&space);
            space
        })
    }

    /// The number of the space of this `vm_id`, if there is one.
    pub(super) fn realm(&self, vm_id: &[u8]) -> Option<Realm> {
        let vm_id = std::str::from_utf8(vm_id).ok()?;
        // Let go of first: a space that ends here asks for it.
        let space = lock(&self.spaces).get(vm_id).and_then(Weak::upgrade);
        space.map(|space| space.realm)
    }

    /// Forgets all that a space has had. There may be another with its `vm_id` by now, which keeps what is its own.
    pub(super) fn forget(&self, realm: Realm, vm_id: &str) {
        let mut spaces = lock(&self.spaces);
        if spaces.get(vm_id).is_some_and(|space| space.strong_count() == 0) {
            spaces.remove(vm_id);
        }
        drop(spaces);
        self.shards.iter().for_each(|shard| lock(shard).forget(realm));
        self.queues.forget(realm);
    }

    /// Holds it to its tenant's bound from now on.
    pub(super) fn hold_to(&self, account: Option<&Arc<Account>>) {
        *lock(&self.account) = account.cloned();
    }

    /// How much a shard has room for, and who hears when that is not enough.
    fn room(&self) -> Room {
        let account = lock(&self.account).clone();
        let bytes = account.as_ref().and_then(|account| account.shared_data());
        Room { bytes: bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(SPACE_BYTES) / SHARDS, account }
    }

    /// The metrics of a plugin; made on first use, and kept by those who hold them.
    pub(super) fn metrics(&self, plugin: &Arc<str>) -> Arc<GuestMetrics> {
        let mut all = lock(&self.metrics);
        all.retain(|_, metrics| metrics.strong_count() > 0);
        let slot = all.entry(plugin.clone()).or_default();
        slot.upgrade().unwrap_or_else(|| {
            let metrics = Arc::default();
            *slot = Arc::downgrade(&metrics);
            metrics
        })
    }

    fn place(&self, key: &[u8]) -> usize {
        usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0)
    }

    fn shard(&self, key: &[u8]) -> Option<MutexGuard<'_, Shard>> {
        self.shards.get(self.place(key)).map(lock)
    }

    /// See [`Space::get`].
    pub(super) fn get(&self, realm: Realm, key: &[u8]) -> Result<(Bytes, u32), Status> {
        self.shard(key).and_then(|shard| shard.get(realm, key)).ok_or(Status::NotFound)
    }

    /// See [`Space::set`].
    pub(super) fn set(&self, realm: Realm, (key, value): (&[u8], &[u8]), cas: u32) -> Result<(), Status> {
        let mut shard = self.shard(key).ok_or(Status::InternalFailure)?;
        if cas != 0 && shard.get(realm, key).is_some_and(|(_, ticket)| ticket != cas) {
            return Err(Status::CasMismatch);
        }
        shard.put(realm, (key, value), Lasts::UntilPushedOut, &self.room())
    }

    /// See [`Space::limit`].
    pub(super) fn limit(
        &self,
        realm: Realm,
        (order, entries): (Order, &[limit::Entry<'_>]),
        now: u64,
    ) -> Result<Vec<Verdict>, Status> {
        let places: Vec<usize> = entries.iter().map(|entry| self.place(entry.key)).collect();
        // In the order of their places, so that nobody waits for one who waits for him.
        let needed: BTreeSet<usize> = places.iter().copied().collect();
        let mut shards: BTreeMap<usize, MutexGuard<'_, Shard>> = BTreeMap::new();
        for place in needed {
            shards.insert(place, lock(self.shards.get(place).ok_or(Status::InternalFailure)?));
        }
        let state = |shards: &BTreeMap<usize, MutexGuard<'_, Shard>>, place: usize, key: &[u8]| {
            let (value, _) = shards.get(&place)?.get(realm, key)?;
            <[u8; 8]>::try_from(&*value).ok().map(u64::from_le_bytes)
        };
        let (mut verdicts, mut states) = (Vec::with_capacity(entries.len()), Vec::with_capacity(entries.len()));
        for (entry, place) in entries.iter().zip(&places) {
            let before = state(&shards, *place, entry.key);
            states.push(before);
            let verdict = match order {
                Order::Take => entry.limit.take(before, entry.cost.unsigned_abs(), now),
                Order::Settle => {
                    let after = entry.limit.settle(before, entry.cost, now);
                    Verdict { state: Some(after), ..entry.limit.take(Some(after), 0, now) }
                }
            };
            verdicts.push(verdict);
        }
        let refused = entries.iter().zip(&verdicts).any(|(entry, verdict)| !entry.shadow && verdict.state.is_none());
        if refused {
            for ((entry, verdict), before) in entries.iter().zip(&mut verdicts).zip(states) {
                *verdict = entry.limit.untouched(verdict, before, now);
            }
        } else {
            let room = self.room();
            for ((entry, place), verdict) in entries.iter().zip(&places).zip(&verdicts) {
                if let (Some(shard), Some(after)) = (shards.get_mut(place), verdict.state) {
                    let lasts = Lasts::Until { over: entry.limit.over(after), now };
                    shard.put(realm, (entry.key, &after.to_le_bytes()), lasts, &room)?;
                }
            }
        }
        Ok(verdicts)
    }

    /// How many bytes it holds.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).bytes()).sum()
    }
}
