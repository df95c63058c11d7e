//! Shared data, and what else of a tenant crosses workers: its queues and its plugins' metrics.
//!
//! Each tenant has a space of its own, which all its VMs share, as plugins with the same `vm_id` do on Envoy; there is no
//! `vm_id` to tell spaces of one tenant apart yet. A space lives as long as a VM of its tenant is configured. Bytes are copied
//! in and handed out by count, and a lock is held only for that.
//!
//! Envoy lets shared data grow without end. Here a space has room for [`SPACE_BYTES`], or for what its tenant is bounded to. States of limits that say nothing any
//! more make room first, then what was written longest ago: SDKs abort on any status that says "full", and the keys often come
//! from clients, whose flood must not end the plugin.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use portcullis_abi::Status;
use portcullis_abi::limit::{self, Order, Verdict};
use portcullis_core::rollout::Version;
use portcullis_core::tenant::Account;

use crate::metrics::GuestMetrics;
use crate::queues::Queues;

/// How many bytes of keys and values a tenant may share.
pub const SPACE_BYTES: usize = 16 << 20;
const SHARDS: usize = 16;
/// What an entry costs beyond its bytes.
const ENTRY_BYTES: usize = 160;

/// The shared data of all tenants.
#[derive(Debug, Default)]
pub struct Shared {
    spaces: Mutex<Spaces>,
}

#[derive(Debug, Default)]
struct Spaces {
    /// By tenant, and whether it is that of its shadows: what a shadow writes, nobody else reads.
    known: HashMap<(Option<Arc<str>>, bool), Weak<Space>>,
    /// How many there may be before those that nobody has are looked for.
    sweep_at: usize,
}

impl Spaces {
    /// Forgets those that nobody has, at a cost that stays the same for each that is made, however many there are.
    fn sweep(&mut self) {
        if self.known.len() >= self.sweep_at {
            self.known.retain(|_, space| space.strong_count() > 0);
            self.sweep_at = (self.known.len() * 2).max(64);
        }
    }
}

impl Shared {
    /// A tenant's space, or that of its shadows; made on first use, and kept by those who hold it.
    pub(crate) fn space(&self, tenant: Option<&Arc<str>>, version: Version) -> Arc<Space> {
        let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        spaces.sweep();
        let slot = spaces.known.entry((tenant.cloned(), version == Version::Shadow)).or_default();
        slot.upgrade().unwrap_or_else(|| {
            let space = Arc::new(Space::new());
            *slot = Arc::downgrade(&space);
            space
        })
    }
}

/// States of limits that are no tenant's.
#[derive(Debug)]
pub struct Limits(Space);

impl Default for Limits {
    fn default() -> Self {
        Self(Space::new())
    }
}

impl Limits {
    /// Takes from limits in one step: from all of them, or from none; a verdict for each. See [`Order`]. Times are nanoseconds since
    /// the Unix epoch.
    ///
    /// # Errors
    /// When a key is too large to be stored.
    pub fn order(&self, order: Order, entries: &[limit::Entry<'_>], now: u64) -> Result<Vec<Verdict>, Status> {
        self.0.limit(order, entries, now)
    }
}

/// One tenant's shared data.
#[derive(Debug)]
pub(crate) struct Space {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
    /// What bounds it, where its tenant has a bound of its own.
    account: Mutex<Option<Arc<Account>>>,
    /// The tenant's queues.
    pub(crate) queues: Arc<Queues>,
    /// By plugin; each kept by the VMs that count with it.
    metrics: Mutex<HashMap<Arc<str>, Weak<GuestMetrics>>>,
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<Bytes, Entry>,
    /// Keys by version: the oldest write first.
    ages: BTreeMap<u64, Bytes>,
    /// When states of limits are over, with their versions: the soonest first.
    ends: BTreeSet<(u64, u64)>,
    bytes: usize,
    last: u64,
}

#[derive(Debug)]
struct Entry {
    value: Bytes,
    version: u64,
    /// When it says nothing any more, if that is known.
    over: Option<u64>,
}

impl Space {
    fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: Default::default(),
            account: Mutex::default(),
            queues: Arc::default(),
            metrics: Mutex::default(),
        }
    }

    /// Holds it to its tenant's bound from now on.
    pub(crate) fn hold_to(&self, account: Option<&Arc<Account>>) {
        *self.account.lock().unwrap_or_else(PoisonError::into_inner) = account.cloned();
    }

    /// How much a shard has room for, and who hears when that is not enough.
    fn room(&self) -> Room {
        let account = self.account.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let bytes = account.as_ref().and_then(|account| account.shared_data());
        Room { bytes: bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(SPACE_BYTES) / SHARDS, account }
    }

    /// The metrics of a plugin; made on first use, and kept by those who hold them.
    pub(crate) fn metrics(&self, plugin: &Arc<str>) -> Arc<GuestMetrics> {
        let mut all = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
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
        let shard = self.shards.get(self.place(key))?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The value at `key`, and the number to present for changing it.
    pub(crate) fn get(&self, key: &[u8]) -> Result<(Bytes, u32), Status> {
        let shard = self.shard(key).ok_or(Status::NotFound)?;
        let entry = shard.entries.get(key).ok_or(Status::NotFound)?;
        Ok((entry.value.clone(), ticket(entry.version)))
    }

    /// Sets the value at `key`; with `cas` other than 0 only if nobody has since that number was given out. A key that is not
    /// there is created whatever `cas` is, as on Envoy.
    pub(crate) fn set(&self, key: &[u8], value: &[u8], cas: u32) -> Result<(), Status> {
        let mut shard = self.shard(key).ok_or(Status::InternalFailure)?;
        if cas != 0 && shard.entries.get(key).is_some_and(|entry| ticket(entry.version) != cas) {
            return Err(Status::CasMismatch);
        }
        shard.put(key, value, Lasts::UntilPushedOut, &self.room())
    }

    /// Takes from limits in one step: from all of them, or, where one that counts refuses, from none. What `order` settles is
    /// taken whatever they say.
    pub(crate) fn limit(&self, order: Order, entries: &[limit::Entry<'_>], now: u64) -> Result<Vec<Verdict>, Status> {
        let places: Vec<usize> = entries.iter().map(|entry| self.place(entry.key)).collect();
        // In the order of their places, so that nobody waits for one who waits for him.
        let needed: BTreeSet<usize> = places.iter().copied().collect();
        let mut shards: BTreeMap<usize, MutexGuard<'_, Shard>> = BTreeMap::new();
        for place in needed {
            let shard = self.shards.get(place).ok_or(Status::InternalFailure)?;
            shards.insert(place, shard.lock().unwrap_or_else(PoisonError::into_inner));
        }
        let state = |shards: &BTreeMap<usize, MutexGuard<'_, Shard>>, place: usize, key: &[u8]| {
            let entry = shards.get(&place)?.entries.get(key)?;
            <[u8; 8]>::try_from(&*entry.value).ok().map(u64::from_le_bytes)
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
                    shard.put(entry.key, &after.to_le_bytes(), lasts, &room)?;
                }
            }
        }
        Ok(verdicts)
    }
}

/// How long a value is of use.
#[derive(Clone, Copy, Debug)]
enum Lasts {
    UntilPushedOut,
    /// A limit's state. Times are nanoseconds since the Unix epoch.
    Until {
        over: u64,
        now: u64,
    },
}

/// What a shard may hold.
struct Room {
    bytes: usize,
    account: Option<Arc<Account>>,
}

impl Room {
    /// Tells the tenant's account that something was lost.
    fn is_short(&self) {
        if let Some(account) = &self.account {
            account.ran_out_of_shared_data();
        }
    }
}

impl Shard {
    /// Stores a value. What is over makes room, then what was written longest ago.
    fn put(&mut self, key: &[u8], value: &[u8], lasts: Lasts, room: &Room) -> Result<(), Status> {
        let size = cost(key, value);
        if size > room.bytes {
            room.is_short();
            return Err(Status::InternalFailure);
        }
        self.remove(key);
        let (over, now) = match lasts {
            Lasts::UntilPushedOut => (None, 0),
            Lasts::Until { over, now } => (Some(over), now),
        };
        while self.bytes + size > room.bytes {
            let Some(goes) = self.first_to_go(now) else { break };
            if self.entries.get(&goes).is_some_and(|entry| entry.over.is_none_or(|over| over > now)) {
                room.is_short();
            }
            self.remove(&goes);
        }
        self.last += 1;
        // A number of 0 would mean "whatever is there".
        self.last += u64::from(ticket(self.last) == 0);
        let (version, key) = (self.last, Bytes::copy_from_slice(key));
        self.bytes += size;
        self.ages.insert(version, key.clone());
        self.ends.extend(over.map(|over| (over, version)));
        self.entries.insert(key, Entry { value: Bytes::copy_from_slice(value), version, over });
        Ok(())
    }

    fn first_to_go(&self, now: u64) -> Option<Bytes> {
        let ended = self.ends.first().filter(|(over, _)| *over <= now).and_then(|(_, version)| self.ages.get(version));
        ended.or_else(|| Some(self.ages.first_key_value()?.1)).cloned()
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(old) = self.entries.remove(key) {
            self.bytes -= cost(key, &old.value);
            self.ages.remove(&old.version);
            if let Some(over) = old.over {
                self.ends.remove(&(over, old.version));
            }
        }
    }
}

fn cost(key: &[u8], value: &[u8]) -> usize {
    ENTRY_BYTES + key.len() + value.len()
}

/// A version as the ABI has room for it.
fn ticket(version: u64) -> u32 {
    u32::try_from(version & u64::from(u32::MAX)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use portcullis_core::tenant::{Limit, Limits};

    use super::*;

    #[test]
    fn a_stale_number_is_refused_and_zero_always_wins() {
        let shared = Shared::default();
        let space = shared.space(None, Version::Current);
        assert_eq!(space.get(b"k"), Err(Status::NotFound));
        assert_eq!(space.set(b"k", b"1", 77), Ok(()), "a missing key is created whatever the number");
        let (value, first) = space.get(b"k").unwrap();
        assert_eq!(value, "1");
        assert_ne!(first, 0);
        assert_eq!(space.set(b"k", b"2", first), Ok(()));
        assert_eq!(space.set(b"k", b"3", first), Err(Status::CasMismatch));
        assert_eq!(space.set(b"k", b"", 0), Ok(()));
        let (value, last) = space.get(b"k").unwrap();
        assert!(value.is_empty() && last > first);
    }

    #[test]
    fn tenants_do_not_see_each_other_and_a_space_lives_while_it_is_held() {
        let shared = Shared::default();
        let (acme, beta): (Arc<str>, Arc<str>) = ("acme".into(), "beta".into());
        let one = shared.space(Some(&acme), Version::Current);
        one.set(b"k", b"v", 0).unwrap();
        assert_eq!(shared.space(Some(&acme), Version::Current).get(b"k").unwrap().0, "v");
        assert_eq!(shared.space(Some(&beta), Version::Current).get(b"k"), Err(Status::NotFound));
        assert_eq!(shared.space(None, Version::Current).get(b"k"), Err(Status::NotFound));
        drop(one);
        assert_eq!(shared.space(Some(&acme), Version::Current).get(b"k"), Err(Status::NotFound));
    }

    #[test]
    fn a_flood_pushes_out_the_oldest_and_stays_within_its_bytes() {
        let space = Shared::default().space(None, Version::Current);
        let value = vec![0; 64 << 10];
        for n in 0_u32..1000 {
            space.set(&n.to_le_bytes(), &value, 0).unwrap();
        }
        let bytes: usize = space.shards.iter().map(|shard| shard.lock().unwrap().bytes).sum();
        assert!(bytes <= SPACE_BYTES, "{bytes}");
        assert!(space.get(&999_u32.to_le_bytes()).is_ok());
        assert_eq!(space.get(&0_u32.to_le_bytes()), Err(Status::NotFound));
        assert_eq!(space.set(b"k", &vec![0; SPACE_BYTES], 0), Err(Status::InternalFailure));
    }

    #[test]
    fn a_tenants_own_bound_holds_and_what_is_lost_is_counted() {
        let account = Arc::<Account>::default();
        account.limit(&Limits { shared_data: Some(64 << 10), ..Limits::default() });
        let space = Shared::default().space(None, Version::Current);
        space.hold_to(Some(&account));
        for n in 0_u32..1000 {
            space.set(&n.to_le_bytes(), &[0; 100], 0).unwrap();
        }
        let bytes: usize = space.shards.iter().map(|shard| shard.lock().unwrap().bytes).sum();
        let kept = (0_u32..1000).filter(|n| space.get(&n.to_le_bytes()).is_ok()).count();
        assert!(bytes <= 64 << 10 && kept > 100, "{bytes} {kept}");
        assert_eq!(account.refused(Limit::SharedData), 1000 - kept as u64);
        assert_eq!(space.set(b"k", &[0; 8 << 10], 0), Err(Status::InternalFailure));
    }

    #[test]
    fn states_of_limits_that_are_over_go_before_what_is_older() {
        let space = Shared::default().space(None, Version::Current);
        let rate = |burst| limit::Limit::Rate(limit::Rate { interval: limit::SECOND, burst });
        let take = |key: &[u8], cost: u64, now_s: u64| {
            let entry = limit::Entry { key, limit: rate(3600), cost: cost.cast_signed(), shadow: false };
            space.limit(Order::Take, &[entry], now_s * limit::SECOND).unwrap().remove(0).remaining
        };
        space.set(b"oldest", b"of all", 0).unwrap();
        assert_eq!(take(b"owes an hour", 3600, 1), 0);
        // Each is over a second later: far more of them than there is room for.
        for n in 0_u64..200_000 {
            take(&n.to_le_bytes(), 1, 2 + n / 20_000);
        }
        assert_eq!(take(b"owes an hour", 0, 20), 19);
        assert_eq!(space.get(b"oldest").unwrap().0, "of all");
        let bytes: usize = space.shards.iter().map(|shard| shard.lock().unwrap().bytes).sum();
        assert!(bytes <= SPACE_BYTES, "{bytes}");
        // Where none is over, the oldest write goes, whatever it is.
        for n in 0_u64..200_000 {
            take(&n.to_be_bytes(), 3600, 20);
        }
        assert_eq!(space.get(b"oldest"), Err(Status::NotFound));
        assert_eq!(take(b"owes an hour", 0, 20), 3600);
    }

    #[test]
    fn limits_are_taken_from_together_or_not_at_all() {
        let space = Shared::default().space(None, Version::Current);
        let quota = |count| limit::Limit::Quota(limit::Quota { count, ends: 60 * limit::SECOND });
        let entry = |key, count, shadow| limit::Entry { key, limit: quota(count), cost: 1, shadow };
        let remaining = |verdicts: Vec<Verdict>| verdicts.iter().map(|verdict| verdict.remaining).collect::<Vec<_>>();
        let take = |entries: &[limit::Entry<'_>]| space.limit(Order::Take, entries, limit::SECOND).unwrap();
        let (wide, narrow) = (entry(&b"wide"[..], 10, false), entry(&b"narrow"[..], 1, false));
        assert_eq!(remaining(take(&[wide, narrow])), [9, 0]);
        let refused = take(&[wide, narrow]);
        assert_eq!((refused[0].state.is_some(), refused[1].state), (true, None));
        assert_eq!(remaining(refused), [9, 0]);
        assert_eq!(remaining(take(&[wide])), [8], "what the other refused cost nothing");
        let shadow = limit::Entry { shadow: true, ..narrow };
        assert_eq!(remaining(take(&[wide, shadow])), [7, 0], "one that only counts refuses nobody");
        let settled = space.limit(Order::Settle, &[limit::Entry { cost: -2, ..wide }], limit::SECOND).unwrap();
        assert_eq!(remaining(settled), [9]);
        assert_eq!(space.get(b"wide").unwrap().0.len(), 8, "it is shared data like any other");
    }

    #[test]
    fn workers_count_together_without_losing_any() {
        let shared = Arc::new(Shared::default());
        let add = |shared: Arc<Shared>| {
            let space = shared.space(None, Version::Current);
            for _ in 0..500 {
                loop {
                    let (count, cas) = match space.get(b"n") {
                        Ok((value, cas)) => (u32::from_le_bytes(value[..].try_into().unwrap()), cas),
                        Err(_) => (0, 0),
                    };
                    if space.set(b"n", &(count + 1).to_le_bytes(), cas).is_ok() {
                        break;
                    }
                }
            }
        };
        let space = shared.space(None, Version::Current);
        space.set(b"n", &0_u32.to_le_bytes(), 0).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| add(shared.clone()));
            }
        });
        assert_eq!(space.get(b"n").unwrap().0, &2000_u32.to_le_bytes()[..]);
    }
}
