//! A part of a tenant's shared data, behind a lock of its own: what is in it, and what goes when there is no more room.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use portcullis_abi::Status;
use portcullis_core::tenant::Account;

use super::Realm;

/// What an entry costs beyond its bytes.
const ENTRY_BYTES: usize = 160;

#[derive(Debug, Default)]
pub(super) struct Shard {
    entries: HashMap<Realm, HashMap<Bytes, Entry>>,
    /// Keys by version: the oldest write first.
    ages: BTreeMap<u64, (Realm, Bytes)>,
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

/// How long a value is of use.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lasts {
    UntilPushedOut,
    /// A limit's state. Times are nanoseconds since the Unix epoch.
    Until {
        over: u64,
        now: u64,
    },
}

/// What a shard may hold.
pub(super) struct Room {
    pub(super) bytes: usize,
    pub(super) account: Option<Arc<Account>>,
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
    fn entry(&self, realm: Realm, key: &[u8]) -> Option<&Entry> {
        self.entries.get(&realm)?.get(key)
    }

    /// A value, and its number.
    pub(super) fn get(&self, realm: Realm, key: &[u8]) -> Option<(Bytes, u32)> {
        let entry = self.entry(realm, key)?;
        Some((entry.value.clone(), ticket(entry.version)))
    }

    /// Stores a value. What is over makes room, then what was written longest ago.
    pub(super) fn put(
        &mut self,
        realm: Realm,
        (key, value): (&[u8], &[u8]),
        lasts: Lasts,
        room: &Room,
    ) -> Result<(), Status> {
        let size = cost(key, value);
        if size > room.bytes {
            room.is_short();
            return Err(Status::InternalFailure);
        }
        self.remove(realm, key);
        let (over, now) = match lasts {
            Lasts::UntilPushedOut => (None, 0),
            Lasts::Until { over, now } => (Some(over), now),
        };
        while self.bytes + size > room.bytes {
            let Some((realm, key)) = self.first_to_go(now) else { break };
            if self.entry(realm, &key).is_some_and(|entry| entry.over.is_none_or(|over| over > now)) {
                room.is_short();
            }
            self.remove(realm, &key);
        }
        self.last += 1;
        // A number of 0 would mean "whatever is there".
        self.last += u64::from(ticket(self.last) == 0);
        let (version, key) = (self.last, Bytes::copy_from_slice(key));
        self.bytes += size;
        self.ages.insert(version, (realm, key.clone()));
        self.ends.extend(over.map(|over| (over, version)));
        let entry = Entry { value: Bytes::copy_from_slice(value), version, over };
        self.entries.entry(realm).or_default().insert(key, entry);
        Ok(())
    }

    fn first_to_go(&self, now: u64) -> Option<(Realm, Bytes)> {
        let ended = self.ends.first().filter(|(over, _)| *over <= now).and_then(|(_, version)| self.ages.get(version));
        ended.or_else(|| Some(self.ages.first_key_value()?.1)).cloned()
    }

    fn remove(&mut self, realm: Realm, key: &[u8]) {
        if let Some(old) = self.entries.get_mut(&realm).and_then(|entries| entries.remove(key)) {
            self.forget_entry(key, &old);
        }
    }

    fn forget_entry(&mut self, key: &[u8], old: &Entry) {
        self.bytes -= cost(key, &old.value);
        self.ages.remove(&old.version);
        if let Some(over) = old.over {
            self.ends.remove(&(over, old.version));
        }
    }

    /// Forgets all that a space has here.
    pub(super) fn forget(&mut self, realm: Realm) {
        for (key, old) in self.entries.remove(&realm).unwrap_or_default() {
            self.forget_entry(&key, &old);
        }
    }

    /// How many bytes it holds.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

fn cost(key: &[u8], value: &[u8]) -> usize {
    ENTRY_BYTES + key.len() + value.len()
}

/// A version as the ABI has room for it.
fn ticket(version: u64) -> u32 {
    u32::try_from(version & u64::from(u32::MAX)).unwrap_or(0)
}
