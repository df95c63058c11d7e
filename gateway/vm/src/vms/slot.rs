//! One VM's place on a worker, what is in it, and how that comes and goes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use portcullis_core::context::Callout;
use portcullis_core::exchange::Exchanges;
use portcullis_core::filter::{NotOpened, VmIndex};
use portcullis_core::grpc::Wish;
use portcullis_core::throttle::Throttle;
use portcullis_core::time::Time;

use crate::cells::VmCells;
use crate::engine::Engine;
use crate::failure::{StartError, StartFailure};
use crate::image::Image;
use crate::instance::{Birth, Died, Instance, Role};
use crate::log::Rate;
use crate::plugin::VmSpec;
use crate::queues::{Inbox, Post};
use crate::shared::{Shared, Space};

/// A life of at least this length lets earlier failures be forgotten.
const GOOD_LIFE: Duration = Duration::from_secs(60);
/// How long a VM is left alone after its second failure in a row. Envoy's base interval.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest a VM is left alone.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How often it is logged at most that a copy failed.
const COPY_FAILURES: Duration = Duration::from_secs(1);

/// One VM's place.
pub(super) struct Slot {
    pub(super) spec: Arc<VmSpec>,
    /// How many revisions use it.
    pub(super) holders: u32,
    pub(super) cells: Arc<VmCells>,
    pub(super) space: Arc<Space>,
    pub(super) post: Arc<Post>,
    pub(super) state: State,
    /// What copies of it are made of, since one was made, if nothing has been told to it since.
    pub(super) image: Option<Box<Image>>,
    /// One for each exchange, where it is isolated by request, by their lives.
    pub(super) copies: HashMap<u32, Box<Instance>>,
    rate: Arc<Rate>,
    copy_failures: Throttle,
    /// Which life it is in, or was in last.
    pub(super) life: u32,
    pub(super) started: Time,
    /// Lives in a row that ended early.
    pub(super) failures: u32,
    /// When an exchange last began here.
    pub(super) used: Time,
    /// It is on a worker that serves its tenant only at times.
    pub(super) aside: bool,
}

pub(super) enum State {
    /// It starts when it is needed, but not before this; an exchange that comes earlier is told why.
    Down {
        until: Time,
        why: NotOpened,
    },
    Live(Box<Instance>),
}

/// A number that no other life in this process has: a place that is given to another VM knows none of the old one's contexts.
pub(super) fn next_life() -> u32 {
    static LIVES: AtomicU32 = AtomicU32::new(1);
    LIVES.fetch_add(1, Ordering::Relaxed)
}

/// A VM that was started away from the worker that will have it.
pub struct Newborn {
    pub(super) slot: Slot,
    pub(super) callouts: Vec<Callout>,
    pub(super) grpc: Vec<Wish>,
}

impl Newborn {
    /// Starts a VM for the place `vm`, on the thread this is called on.
    ///
    /// # Errors
    /// When it does not start: whose it is and why.
    pub fn start(
        engine: &Engine,
        shared: &Shared,
        vm: VmIndex,
        spec: Arc<VmSpec>,
        now: Time,
    ) -> Result<Self, StartError> {
        let mut exchanges = Exchanges::default();
        exchanges.now = now;
        let mut slot = Slot::new(spec, shared);
        slot.start(engine, vm, &mut exchanges)?;
        let (callouts, grpc) = (std::mem::take(&mut exchanges.callouts), std::mem::take(&mut exchanges.grpc));
        Ok(Self { slot, callouts, grpc })
    }

    /// Whether nothing will come to it but exchanges: one that started only to show that it can may as well be away until the first.
    #[must_use]
    pub fn can_rest(&self) -> bool {
        self.slot.spec.idle.is_some() && self.callouts.is_empty() && self.grpc.is_empty() && self.slot.awaits_nothing()
    }
}

/// A VM that nobody finds any more. Its end takes time: let it come on another thread than the worker's.
pub struct Retired {
    instance: Option<Box<Instance>>,
    cells: Arc<VmCells>,
}

impl Retired {
    /// Ends the VM. Roots that have not been told are, and get no time: nothing that they could wait for happens any more.
    pub fn end(self, now: Time) {
        let mut exchanges = Exchanges::default();
        exchanges.now = now;
        if let Some(mut instance) = self.instance
            && let Err(Died { function, fault, .. }) = instance.end(&mut exchanges)
        {
            let VmCells { tenant, plugin, .. } = &*self.cells;
            tracing::warn!(
                tenant = tenant.as_deref().unwrap_or_default(),
                plugin = &**plugin,
                callback = function,
                cause = fault.cause.as_str(),
                "a plugin failed at its end: {}",
                fault.message
            );
        }
    }
}

impl std::fmt::Debug for Retired {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Retired").field("plugin", &self.cells.plugin).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Newborn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Newborn").field("plugin", &self.slot.spec.name).finish_non_exhaustive()
    }
}

impl Slot {
    pub(super) fn new(spec: Arc<VmSpec>, shared: &Shared) -> Self {
        let space = shared.space(spec.tenant.as_ref(), spec.version, &spec.vm_id);
        space.hold_to(spec.account.as_ref());
        Self {
            holders: 0,
            cells: Arc::new(VmCells::new(spec.tenant.clone(), spec.name.clone(), space.metrics(&spec.name))),
            space,
            post: Arc::default(),
            state: State::Down { until: Time::default(), why: NotOpened::Failed },
            image: None,
            copies: HashMap::new(),
            rate: Arc::default(),
            copy_failures: Throttle::new(1, COPY_FAILURES),
            life: 0,
            started: Time::default(),
            failures: 0,
            used: Time::default(),
            aside: false,
            spec,
        }
    }

    /// The same, on the worker whose inbox this is.
    pub(super) fn at(self, inbox: &Arc<Inbox>) -> Self {
        self.post.leads_to(inbox);
        self
    }

    /// Begins a new life. Its timer is not set yet.
    pub(super) fn start(&mut self, engine: &Engine, vm: VmIndex, exchanges: &mut Exchanges) -> Result<(), StartError> {
        self.life = next_life();
        self.started = exchanges.now;
        self.image = None;
        let birth = self.birth(vm, self.life, if self.aside { Role::Aside } else { Role::Original });
        match Instance::start(engine, &self.spec, birth, exchanges) {
            Ok(instance) => {
                self.cells.starts.add(1);
                self.cells.runs();
                self.state = State::Live(Box::new(instance));
                Ok(())
            }
            Err((failure, said)) => {
                let VmSpec { tenant, name, .. } = &*self.spec;
                Err(StartError { tenant: tenant.clone(), plugin: name.clone(), failure, said })
            }
        }
    }

    /// What a life here begins with.
    pub(super) fn birth(&self, vm: VmIndex, life: u32, role: Role) -> Birth {
        let (cells, space, post) = (self.cells.clone(), self.space.clone(), self.post.clone());
        Birth { vm, life, cells, space, post, rate: self.rate.clone(), role }
    }

    /// The VM in this of its lives, or the copy whose life that is.
    pub(super) fn instance(&mut self, life: u32) -> Option<&mut Instance> {
        match &mut self.state {
            State::Live(instance) if life == self.life => Some(instance),
            State::Live(_) | State::Down { .. } => self.copies.get_mut(&life).map(Box::as_mut),
        }
    }

    /// Logs that a life has failed, and in which request if it was in one.
    pub(super) fn tell(&self, died: &Died, said: Option<&str>, exchanges: &Exchanges) {
        let Died { function, fault, exchange } = died;
        let facts = exchange.and_then(|id| exchanges.get(id)?.facts());
        // A TCP connection has no request.
        let is_known = |word: &&str| !word.is_empty();
        tracing::error!(
            request_id = facts.and_then(|facts| facts.request_id.to_str().ok()).filter(is_known),
            route = facts.map(|facts| &*facts.place.route).filter(is_known),
            tenant = self.cells.tenant.as_deref().unwrap_or_default(),
            plugin = &*self.cells.plugin,
            callback = function,
            cause = fault.cause.as_str(),
            backtrace = %fault.backtrace.join(" < "),
            said = said.unwrap_or_default(),
            "a plugin failed: {}",
            fault.message
        );
    }

    /// Logs that a copy has failed; once a second, since nothing else bounds how often copies fail.
    pub(super) fn tell_of_copy(&self, died: &Died, said: Option<&str>, exchanges: &Exchanges) {
        let Some(untold) = self.copy_failures.take(exchanges.now) else { return };
        self.tell(died, said, exchanges);
        if untold > 0 {
            let VmCells { tenant, plugin, .. } = &*self.cells;
            let tenant = tenant.as_deref().unwrap_or_default();
            tracing::error!(tenant, plugin = &**plugin, untold, "it has failed more often than was said");
        }
    }

    /// Counts a life that did not begin.
    pub(super) fn did_not_start(&mut self, failure: &StartFailure, now: Time) {
        self.cells.start_failures.add(1);
        let until = self.failed(now);
        self.cells.failed(&failure.word(), self.failures, until);
        self.state = State::Down { until, why: failure.met_by_exchanges() };
    }

    /// Whether nothing but a new exchange will ever be told to its guest: no exchange, timer, queue, call or stream is its.
    pub(super) fn awaits_nothing(&self) -> bool {
        match &self.state {
            State::Live(instance) => self.copies.is_empty() && instance.awaits_nothing(),
            State::Down { .. } => true,
        }
    }

    /// Takes its VM out of it. The next exchange starts another.
    pub(super) fn retire(&mut self) -> Retired {
        let instance =
            match std::mem::replace(&mut self.state, State::Down { until: Time::default(), why: NotOpened::Failed }) {
                State::Live(instance) => Some(instance),
                State::Down { .. } => None,
            };
        self.image = None;
        self.cells.is_gone();
        Retired { instance, cells: self.cells.clone() }
    }

    /// Counts a failure; until when the VM is to be left alone.
    pub(super) fn failed(&mut self, now: Time) -> Time {
        let good = now.saturating_since(self.started) >= GOOD_LIFE;
        self.failures = if good { 1 } else { self.failures.saturating_add(1) };
        match self.failures.checked_sub(2) {
            None => now,
            Some(doublings) => {
                let pause = (FIRST_PAUSE * (1 << doublings.min(6))).min(LONGEST_PAUSE);
                // VMs that failed together do not come back together.
                let part = self.life.wrapping_mul(0x9e37_79b1) >> 16;
                now + (pause - pause / 4 * part / (1 << 16))
            }
        }
    }
}

impl Drop for Slot {
    /// Whoever still reads the cells must not count this VM as live.
    fn drop(&mut self) {
        self.cells.is_gone();
    }
}
