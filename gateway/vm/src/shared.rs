//! Shared data, and what else of a tenant crosses workers: its queues and its plugins' metrics.
//!
//! Each tenant has a [`Store`] of its own. In it the VMs of one `vm_id` have a [`Space`], as on Envoy: they share data, and find each
//! other's queues by name alone. A space lives as long as a VM with its `vm_id` is configured, a store as long as a space of it; what
//! bounds a tenant bounds its spaces together, so that none has more for naming more of them.

mod shard;
mod store;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use portcullis_abi::Status;
use portcullis_abi::limit::{self, Order, Verdict};
use portcullis_core::context::ContextRef;
use portcullis_core::rollout::Version;
use portcullis_core::tenant::Account;

use self::store::Store;
use crate::instance::Role;
use crate::metrics::GuestMetrics;
use crate::queues::{Name, Post, Queues};

/// How many bytes of keys and values a tenant may share.
pub const SPACE_BYTES: usize = 16 << 20;

/// The shared data of all tenants.
#[derive(Debug, Default)]
pub struct Shared {
    stores: Mutex<Stores>,
}

#[derive(Debug, Default)]
struct Stores {
    /// By tenant, and whether it is that of its shadows: what a shadow writes, nobody else reads.
    known: HashMap<(Option<Arc<str>>, bool), Weak<Store>>,
    /// How many there may be before those that nobody has are looked for.
    sweep_at: usize,
}

impl Stores {
    /// Forgets those that nobody has, at a cost that stays the same for each that is made, however many there are.
    fn sweep(&mut self) {
        if self.known.len() >= self.sweep_at {
            self.known.retain(|_, store| store.strong_count() > 0);
            self.sweep_at = (self.known.len() * 2).max(64);
        }
    }
}

impl Shared {
    /// What a tenant's VMs with this `vm_id` share, or its shadows with it; made on first use, and kept by those who hold it.
    pub(crate) fn space(&self, tenant: Option<&Arc<str>>, version: Version, vm_id: &Arc<str>) -> Arc<Space> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        stores.sweep();
        let slot = stores.known.entry((tenant.cloned(), version == Version::Shadow)).or_default();
        let store = slot.upgrade().unwrap_or_else(|| {
            let store = Arc::<Store>::default();
            *slot = Arc::downgrade(&store);
            store
        });
        store.space(vm_id)
    }
}

/// States of limits that are no tenant's.
#[derive(Debug, Default)]
pub struct Limits(Store);

impl Limits {
    /// Takes from limits in one step: from all of them, or from none; a verdict for each. See [`Order`]. Times are nanoseconds since
    /// the Unix epoch.
    ///
    /// # Errors
    /// When a key is too large to be stored.
    pub fn order(&self, order: Order, entries: &[limit::Entry<'_>], now: u64) -> Result<Vec<Verdict>, Status> {
        self.0.limit(Realm::default(), (order, entries), now)
    }
}

/// A space's number in its tenant's store. Never given again: what a space that is gone leaves behind is nobody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Realm(u32);

/// What VMs of one tenant with one `vm_id` share.
#[derive(Debug)]
pub(crate) struct Space {
    realm: Realm,
    vm_id: Arc<str>,
    store: Arc<Store>,
}

impl Space {
    /// Holds the tenant to its bound from now on.
    pub(crate) fn hold_to(&self, account: Option<&Arc<Account>>) {
        self.store.hold_to(account);
    }

    /// The metrics of a plugin of the tenant, whatever its `vm_id`; made on first use, and kept by those who hold them.
    pub(crate) fn metrics(&self, plugin: &Arc<str>) -> Arc<GuestMetrics> {
        self.store.metrics(plugin)
    }

    /// The value at `key`, and the number to present for changing it.
    pub(crate) fn get(&self, key: &[u8]) -> Result<(Bytes, u32), Status> {
        self.store.get(self.realm, key)
    }

    /// Sets the value at `key`; with `cas` other than 0 only if nobody has since that number was given out. A key that is not
    /// there is created whatever `cas` is, as on Envoy.
    pub(crate) fn set(&self, key: &[u8], value: &[u8], cas: u32) -> Result<(), Status> {
        self.store.set(self.realm, (key, value), cas)
    }

    /// Takes from limits in one step: from all of them, or, where one that counts refuses, from none. What `order` settles is
    /// taken whatever they say.
    pub(crate) fn limit(&self, order: Order, entries: &[limit::Entry<'_>], now: u64) -> Result<Vec<Verdict>, Status> {
        self.store.limit(self.realm, (order, entries), now)
    }

    /// The tenant's queues. Their numbers mean the same to all its VMs.
    pub(crate) fn queues(&self) -> &Arc<Queues> {
        &self.store.queues
    }

    /// The number of its queue of this name, made if need be: see [`Queues::register_as`].
    pub(crate) fn register_queue(&self, role: Role, name: &[u8], root: ContextRef, post: &Arc<Post>) -> u32 {
        self.store.queues.register_as(role, Name { realm: self.realm, text: name }, root, post)
    }

    /// The number of the queue of this name that VMs with this `vm_id` have; with an empty one, its own. No other tenant's is found.
    pub(crate) fn resolve_queue(&self, vm_id: &[u8], name: &[u8]) -> Result<u32, Status> {
        let realm = if vm_id.is_empty() { Some(self.realm) } else { self.store.realm(vm_id) };
        self.store.queues.resolve(Name { realm: realm.ok_or(Status::NotFound)?, text: name })
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.store.forget(self.realm, &self.vm_id);
    }
}

#[cfg(test)]
mod tests {
    use portcullis_core::context::ContextId;
    use portcullis_core::filter::VmIndex;
    use portcullis_core::tenant::{Limit, Limits};

    use super::*;

    #[test]
    fn a_stale_number_is_refused_and_zero_always_wins() {
        let shared = Shared::default();
        let space = shared.space(None, Version::Current, &"".into());
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
        let [acme, beta, none] = ["acme", "beta", ""].map(Arc::<str>::from);
        let one = shared.space(Some(&acme), Version::Current, &none);
        one.set(b"k", b"v", 0).unwrap();
        assert_eq!(shared.space(Some(&acme), Version::Current, &none).get(b"k").unwrap().0, "v");
        assert_eq!(shared.space(Some(&beta), Version::Current, &none).get(b"k"), Err(Status::NotFound));
        assert_eq!(shared.space(None, Version::Current, &"".into()).get(b"k"), Err(Status::NotFound));
        drop(one);
        assert_eq!(shared.space(Some(&acme), Version::Current, &none).get(b"k"), Err(Status::NotFound));
    }

    #[test]
    fn spaces_of_one_tenant_are_told_apart_by_their_vm_ids_and_bounded_together() {
        let account = Arc::<Account>::default();
        account.limit(&Limits { shared_data: Some(64 << 10), ..Limits::default() });
        let shared = Shared::default();
        let acme = Arc::<str>::from("acme");
        let space = |vm_id: &str| shared.space(Some(&acme), Version::Current, &vm_id.into());
        let (one, other) = (space("one"), space("other"));
        one.hold_to(Some(&account));
        one.set(b"k", b"1", 0).unwrap();
        assert_eq!(other.get(b"k"), Err(Status::NotFound));
        other.set(b"k", b"2", 0).unwrap();
        assert_eq!((one.get(b"k").unwrap().0, space("one").get(b"k").unwrap().0), ("1".into(), "1".into()));
        for n in 0_u32..1000 {
            one.set(&n.to_le_bytes(), &[0; 100], 0).unwrap();
            other.set(&n.to_le_bytes(), &[0; 100], 0).unwrap();
        }
        assert!(one.store.bytes() <= 64 << 10, "{}", one.store.bytes());
        assert_eq!(one.get(b"k"), Err(Status::NotFound), "the oldest went, whosever it was");
        drop(one);
        assert_eq!(space("one").get(&999_u32.to_le_bytes()), Err(Status::NotFound), "its last VM is gone");
        assert!(other.get(&999_u32.to_le_bytes()).is_ok());
        drop(other);
        assert_eq!(space("none").store.bytes(), 0);
    }

    #[test]
    fn queues_are_found_by_the_vm_id_of_whose_they_are_and_go_with_it() {
        let (shared, post) = (Shared::default(), Arc::<Post>::default());
        let [acme, beta] = ["acme", "beta"].map(Arc::<str>::from);
        let space = |tenant, vm_id: &str| shared.space(Some(tenant), Version::Current, &vm_id.into());
        let root = ContextRef { vm: VmIndex(0), life: 1, id: ContextId(1) };
        let (own, jobs, stranger) = (space(&acme, ""), space(&acme, "jobs"), space(&beta, "jobs"));
        let register = |space: &Space| space.register_queue(Role::Original, b"q", root, &post);
        assert_eq!((register(&own), register(&jobs), register(&jobs)), (1, 2, 2));
        assert_eq!((own.resolve_queue(b"", b"q"), own.resolve_queue(b"jobs", b"q")), (Ok(1), Ok(2)));
        assert_eq!((jobs.resolve_queue(b"", b"q"), jobs.resolve_queue(b"jobs", b"q")), (Ok(2), Ok(2)));
        assert_eq!(own.resolve_queue(b"none", b"q"), Err(Status::NotFound));
        for vm_id in [&b""[..], b"jobs", b"acme", b"acme/jobs"] {
            assert_eq!(stranger.resolve_queue(vm_id, b"q"), Err(Status::NotFound), "another tenant's is never found");
        }
        assert!(own.queues().enqueue(2, b"by its number").is_ok());
        drop(jobs);
        assert_eq!(
            (own.resolve_queue(b"jobs", b"q"), own.queues().dequeue(2)),
            (Err(Status::NotFound), Err(Status::NotFound))
        );
        let again = space(&acme, "jobs");
        assert_eq!((register(&again), register(&own)), (3, 1), "no number is given twice");
    }

    #[test]
    fn a_flood_pushes_out_the_oldest_and_stays_within_its_bytes() {
        let space = Shared::default().space(None, Version::Current, &"".into());
        let value = vec![0; 64 << 10];
        for n in 0_u32..1000 {
            space.set(&n.to_le_bytes(), &value, 0).unwrap();
        }
        let bytes = space.store.bytes();
        assert!(bytes <= SPACE_BYTES, "{bytes}");
        assert!(space.get(&999_u32.to_le_bytes()).is_ok());
        assert_eq!(space.get(&0_u32.to_le_bytes()), Err(Status::NotFound));
        assert_eq!(space.set(b"k", &vec![0; SPACE_BYTES], 0), Err(Status::InternalFailure));
    }

    #[test]
    fn a_tenants_own_bound_holds_and_what_is_lost_is_counted() {
        let account = Arc::<Account>::default();
        account.limit(&Limits { shared_data: Some(64 << 10), ..Limits::default() });
        let space = Shared::default().space(None, Version::Current, &"".into());
        space.hold_to(Some(&account));
        for n in 0_u32..1000 {
            space.set(&n.to_le_bytes(), &[0; 100], 0).unwrap();
        }
        let bytes = space.store.bytes();
        let kept = (0_u32..1000).filter(|n| space.get(&n.to_le_bytes()).is_ok()).count();
        assert!(bytes <= 64 << 10 && kept > 100, "{bytes} {kept}");
        assert_eq!(account.refused(Limit::SharedData), 1000 - kept as u64);
        assert_eq!(space.set(b"k", &[0; 8 << 10], 0), Err(Status::InternalFailure));
    }

    #[test]
    fn states_of_limits_that_are_over_go_before_what_is_older() {
        let space = Shared::default().space(None, Version::Current, &"".into());
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
        let bytes = space.store.bytes();
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
        let space = Shared::default().space(None, Version::Current, &"".into());
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
            let space = shared.space(None, Version::Current, &"".into());
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
        let space = shared.space(None, Version::Current, &"".into());
        space.set(b"n", &0_u32.to_le_bytes(), 0).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| add(shared.clone()));
            }
        });
        assert_eq!(space.get(b"n").unwrap().0, &2000_u32.to_le_bytes()[..]);
    }
}
