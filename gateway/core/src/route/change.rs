//! A router after a change of some of its owners: what the others have is shared with the router before it.

use std::sync::Arc;

use super::build::own;
use super::host::HostTable;
use super::{HostPattern, Owned, Owner, Router};

impl<O: Copy, T> Router<O, T> {
    /// The same without those who own the hosts given up, all of each one's, and with these owners.
    ///
    /// It is what [`Router::build`] makes of everybody, and nothing where that would refuse. It costs what these owners cost, a look
    /// at the rules of those inside whose wildcards they claim hosts, and a copy of the list of hosts.
    #[must_use]
    pub fn changed<'h>(
        &self,
        given_up: impl IntoIterator<Item = &'h HostPattern>,
        owners: Vec<Owner<O, T>>,
    ) -> Option<Self> {
        let mut table = self.owners.clone();
        for host in given_up {
            table.remove(host);
        }
        // Rules are looked at when all hosts have been claimed. Until then this stands for what is made of them.
        let stand_ins: Vec<_> = owners.iter().map(|owner| Arc::new(Owned::without_rules(owner.id))).collect();
        let mut narrowed = Vec::new();
        for (owner, stand_in) in owners.iter().zip(&stand_ins) {
            for host in &owner.hosts {
                narrowed.extend(table.covering(host).cloned());
                if !Arc::ptr_eq(table.slot(host, || stand_in.clone()), stand_in) {
                    return None;
                }
            }
        }
        let mut problems = Vec::new();
        for (owner, stand_in) in owners.into_iter().zip(&stand_ins) {
            let hosts = owner.hosts.clone();
            let check = |host: &HostPattern| if owns(&table, stand_in, host) { Ok(()) } else { Err(None) };
            let made = Arc::new(own(owner, check, &mut problems));
            for host in &hosts {
                *table.slot(host, || made.clone()) = made.clone();
            }
        }
        // Whoever has a wildcard may name hosts inside it, as long as nobody claims those.
        let mut narrowed =
            narrowed.iter().filter(|owner| !stand_ins.iter().any(|stand_in| Arc::ptr_eq(owner, stand_in)));
        let is_sound = problems.is_empty()
            && narrowed.all(|owner| owner.levels.patterns().all(|(host, _)| owns(&table, owner, &host)));
        is_sound.then_some(Self { owners: table })
    }
}

impl<O, T> Owned<O, T> {
    fn without_rules(id: O) -> Self {
        Self { id, levels: HostTable::default(), rules: Vec::new() }
    }
}

/// Whether rules of an owner may name a host. `*` is every host of the owner, whoever that is.
fn owns<O, T>(table: &HostTable<Arc<Owned<O, T>>>, owner: &Arc<Owned<O, T>>, host: &HostPattern) -> bool {
    *host == HostPattern::ANY || table.covering(host).is_some_and(|holder| Arc::ptr_eq(holder, owner))
}
