//! One revision of the configuration on one worker: what an exchange keeps from its beginning to its end.
//!
//! An exchange holds its revision by `Rc`; so do both its directions, its filters and its callouts see one revision only,
//! whatever the worker switches to meanwhile. VMs and upstreams live in the worker, since revisions share what did not change; the
//! gateway's share and each tenant's *hold* their places for as long as there is a revision that has them. Only what revisions do not
//! have in common is looked at, so that a change of one tenant is as quick among thousands.
//! **Invariant:** a worker does nothing for a change of revision that takes time: it is handed what was made elsewhere, and hands
//! on what is to be taken apart.

use std::rc::Rc;
use std::sync::{Arc, mpsc};

use portcullis_core::exchange::Exchanges;
use portcullis_core::filter::VmIndex;
use portcullis_core::time::Time;
use portcullis_vm::{Newborn, Retired, VmCells, Vms};

use crate::clock;
use crate::config::snapshot::{Drain, Listener};
use crate::plan::{Laid, NotStarted, Plan, Table};
use crate::upstream::Upstreams;

/// A revision made ready for one worker, on whatever thread: everything that takes time or can fail has been done.
pub(crate) struct Prepared {
    plan: Arc<Plan>,
    table: Arc<Table>,
    vms: Vec<(VmIndex, Newborn)>,
}

impl Prepared {
    /// Makes the routing table of the worker of this number, and starts and configures the VMs that `before` does not have.
    ///
    /// # Errors
    /// When a guest cannot be started or refuses its configuration.
    pub(crate) fn new(plan: &Arc<Plan>, worker: usize, before: Option<&Plan>, now: Time) -> Result<Self, NotStarted> {
        Ok(Self { vms: plan.start_vms(now)?, ..Self::cold(plan, worker, before) })
    }

    /// Makes the routing table. VMs start when they are needed.
    pub(crate) fn cold(plan: &Arc<Plan>, worker: usize, before: Option<&Plan>) -> Self {
        Self { vms: Vec::new(), table: plan.table(worker, before), plan: plan.clone() }
    }
}

/// What is left of revisions on a worker.
pub(crate) struct Remains {
    /// What kept the VMs' places, and what takes time to free; nothing where those places are still in use.
    _kept: (Vec<Revision>, Vec<Arc<Laid>>),
    vms: Vec<Retired>,
}

impl Remains {
    /// VMs whose places are still in use.
    pub(crate) fn of(vms: Vec<Retired>) -> Self {
        Self { _kept: (Vec::new(), Vec::new()), vms }
    }

    /// Adds VMs that are to be taken apart.
    pub(crate) fn add(&mut self, vms: impl IntoIterator<Item = Retired>) {
        self.vms.extend(vms);
    }
}

/// Takes apart what workers have no use for. Runs until nobody hands anything over.
pub(crate) fn take_apart(remains: mpsc::Receiver<Remains>) {
    for Remains { vms, .. } in remains {
        vms.into_iter().for_each(|vm| vm.end(clock::now()));
    }
}

/// One worker's share of a revision.
pub(crate) struct Revision {
    pub(crate) table: Arc<Table>,
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
        for share in plan.new_shares() {
            share.upstreams().for_each(|(place, upstream)| upstreams.hold(place, upstream));
            share.vms().for_each(|(place, vm)| vms.hold(place, vm));
        }
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
}

/// Revisions of a worker that new exchanges do not begin with, and may still have exchanges.
#[derive(Default)]
pub(crate) struct Earlier {
    revisions: Vec<Rc<Revision>>,
    shares: Vec<Leaving>,
}

/// A share that only earlier revisions have: those of plans with these numbers.
struct Leaving {
    share: Arc<Laid>,
    first: u64,
    last: u64,
}

impl Earlier {
    /// Adds a revision that another has followed.
    pub(crate) fn followed(&mut self, before: Rc<Revision>, next: &Revision) {
        let last = before.plan.number();
        let gone = next.plan.gone_shares();
        self.shares.extend(gone.map(|share| Leaving { first: share.since(), share, last }));
        self.revisions.push(before);
    }

    /// Adds a revision that was taken in and never served.
    pub(crate) fn forgotten(&mut self, revision: Rc<Revision>) {
        let only = revision.plan.number();
        let new = revision.plan.new_shares().iter();
        self.shares.extend(new.map(|share| Leaving { share: share.clone(), first: only, last: only }));
        self.revisions.push(revision);
    }

    /// Adds the revision that is served, in the end.
    pub(crate) fn ended(&mut self, revision: Rc<Revision>) {
        let last = revision.plan.number();
        self.shares.extend(revision.plan.shares().map(|share| Leaving {
            share: share.clone(),
            first: share.since(),
            last,
        }));
        self.revisions.push(revision);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.revisions.is_empty()
    }

    /// Gives up the places that only revisions without exchanges held, and returns what is left of those; nothing where all have some.
    pub(crate) fn give_up(
        &mut self,
        exchanges: &mut Exchanges,
        vms: &mut Vms,
        upstreams: &Upstreams,
    ) -> Option<Remains> {
        let over = self.revisions.extract_if(.., |revision| Rc::strong_count(revision) == 1);
        let over: Vec<Revision> = over.filter_map(Rc::into_inner).collect();
        if over.is_empty() {
            return None;
        }
        let numbers: Vec<u64> = self.revisions.iter().map(|revision| revision.plan.number()).collect();
        let is_over =
            |leaving: &mut Leaving| !numbers.iter().any(|number| (leaving.first..=leaving.last).contains(number));
        let shares: Vec<_> = self.shares.extract_if(.., is_over).map(|leaving| leaving.share).collect();
        let places = shares.iter().flat_map(|share| share.vms());
        let retired = places.filter_map(|(place, _)| vms.release(exchanges, place)).collect();
        shares.iter().flat_map(|share| share.upstreams()).for_each(|(place, _)| upstreams.release(place));
        Some(Remains { _kept: (over, shares), vms: retired })
    }
}
