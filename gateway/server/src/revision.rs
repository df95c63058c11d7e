//! One revision of the configuration on one worker: what an exchange keeps from its beginning to its end.
//!
//! An exchange holds its revision by `Rc`; so do both its directions, its filters and its callouts see one revision only,
//! whatever the worker switches to meanwhile. VMs and upstreams live in the worker, since revisions share what did not change;
//! a revision *holds* their places, and gives them up when its last exchange has ended.
//! **Invariant:** a worker does nothing for a change of revision that takes time: it is handed what was made elsewhere, and hands
//! on what is to be taken apart.

use std::rc::Rc;
use std::sync::{Arc, mpsc};

use portcullis_core::exchange::Exchanges;
use portcullis_core::filter::VmIndex;
use portcullis_core::time::Time;
use portcullis_vm::{Newborn, Retired, StartError, VmCells, Vms};

use crate::clock::Clock;
use crate::config::snapshot::{Drain, Listener};
use crate::plan::{Plan, Table};
use crate::upstream::Upstreams;

/// A revision made ready for one worker, on whatever thread: everything that takes time or can fail has been done.
pub(crate) struct Prepared {
    plan: Arc<Plan>,
    table: Table,
    vms: Vec<(VmIndex, Newborn)>,
}

impl Remains {
    /// VMs whose places others will have.
    pub(crate) fn of(vms: Vec<Retired>) -> Self {
        Self { _kept: None, vms }
    }

    /// Another VM that is to be taken apart.
    pub(crate) fn add(&mut self, vms: impl IntoIterator<Item = Retired>) {
        self.vms.extend(vms);
    }
}

impl Prepared {
    /// Makes the routing table, and starts and configures the VMs that no earlier revision has.
    ///
    /// # Errors
    /// When a guest cannot be started or refuses its configuration.
    pub(crate) fn new(plan: &Arc<Plan>, now: Time) -> Result<Self, StartError> {
        Ok(Self { vms: plan.start_vms(now)?, ..Self::cold(plan) })
    }

    /// Makes the routing table. VMs start when they are needed.
    pub(crate) fn cold(plan: &Arc<Plan>) -> Self {
        Self { vms: Vec::new(), table: plan.table(), plan: plan.clone() }
    }
}

/// What is left of a revision on a worker.
pub(crate) struct Remains {
    /// What kept their places; nothing where those are still in use.
    _kept: Option<(Table, Arc<Plan>)>,
    vms: Vec<Retired>,
}

/// Takes apart what workers have no use for. Runs until nobody hands anything over.
pub(crate) fn take_apart(remains: mpsc::Receiver<Remains>) {
    for Remains { vms, .. } in remains {
        vms.into_iter().for_each(|vm| vm.end(Clock::start().now()));
    }
}

/// One worker's share of a revision.
pub(crate) struct Revision {
    pub(crate) table: Table,
    plan: Arc<Plan>,
}

impl Revision {
    /// Takes the places the revision needs, and puts its new VMs there. No request sees any of it yet.
    pub(crate) fn take_places(
        prepared: Prepared,
        exchanges: &mut Exchanges,
        vms: &mut Vms,
        upstreams: &Upstreams,
    ) -> Rc<Self> {
        let Prepared { plan, table, vms: new } = prepared;
        plan.upstreams().for_each(|(place, upstream)| upstreams.hold(place, upstream));
        plan.vms().for_each(|(place, vm)| vms.hold(place, vm));
        for (place, vm) in new {
            vms.settle(exchanges, place, vm);
        }
        Rc::new(Self { table, plan })
    }

    /// What is counted about the VMs that no earlier revision has.
    pub(crate) fn new_cells(&self, vms: &Vms) -> Vec<Arc<VmCells>> {
        self.plan.new_places().filter_map(|place| vms.cells_at(place)).collect()
    }

    /// The listeners there are in this revision.
    pub(crate) fn listeners(&self) -> &[Arc<Listener>] {
        &self.plan.snapshot().listeners
    }

    /// How the gateway ends while this revision is served.
    pub(crate) fn drain(&self) -> Drain {
        self.plan.snapshot().drain
    }

    /// Gives the places up, and returns what no other revision holds.
    pub(crate) fn give_up(self, exchanges: &mut Exchanges, vms: &mut Vms, upstreams: &Upstreams) -> Remains {
        let Self { table, plan } = self;
        let retired = plan.vms().filter_map(|(place, _)| vms.release(exchanges, place)).collect();
        plan.upstreams().for_each(|(place, _)| upstreams.release(place));
        Remains { _kept: Some((table, plan)), vms: retired }
    }
}
