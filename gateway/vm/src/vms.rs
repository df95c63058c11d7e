//! A worker's VMs: one place for each, started when first needed and replaced when it has failed.
//!
//! A VM that fails is replaced at its next use. One whose lives keep being short is left alone for a second, then for two, up to
//! a minute; what would use it fails meanwhile, and nobody else notices.
//!
//! A place is held by every revision of the configuration that uses it, and given up with the last: a VM that a new revision
//! uses unchanged simply goes on. New ones are started elsewhere ([`Newborn`]), so that no request waits for them.
//!
//! **Invariant:** a life that has ended is never mistaken for its successor: its exchanges are told, and references to it fail.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use portcullis_core::context::{Callout, CalloutResponse, ContextRef, Farewell, Owner};
use portcullis_core::exchange::Exchanges;
use portcullis_core::filter::{Callback, ChainFilter, Failed, Filters, VmIndex};
use portcullis_core::grpc::{News, Wish};
use portcullis_core::time::Time;
use portcullis_core::timing::{Outcome, Phase};

use crate::cells::{Occasion, VmCells};
use crate::engine::Engine;
use crate::failure::StartError;
use crate::instance::{Birth, Died, Instance};
use crate::plugin::VmSpec;
use crate::queues::{Inbox, Post};
use crate::shared::{Shared, Space};

/// A life of at least this length lets earlier failures be forgotten.
const GOOD_LIFE: Duration = Duration::from_secs(60);
/// How long a VM is left alone after its second failure in a row. Envoy's base interval.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest a VM is left alone.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The VMs of one worker.
pub struct Vms {
    engine: Arc<Engine>,
    shared: Arc<Shared>,
    slots: Vec<Option<Slot>>,
    inbox: Arc<Inbox>,
    leaving: Leaving,
    /// Which VM's timer fires next.
    timers: BTreeSet<(Time, VmIndex)>,
    clock: Option<Clock>,
}

/// Tells the time.
type Clock = Box<dyn Fn() -> Time>;

/// VMs that no revision uses any more.
#[derive(Debug, Default)]
struct Leaving {
    /// Those whose guests do not know it yet.
    untold: VecDeque<VmIndex>,
    /// Those that asked for time, and how long they get.
    awaited: Vec<(VmIndex, Time)>,
}

/// One VM's place.
struct Slot {
    spec: Arc<VmSpec>,
    /// How many revisions use it.
    holders: u32,
    cells: Arc<VmCells>,
    space: Arc<Space>,
    post: Arc<Post>,
    state: State,
    /// Which life it is in, or was in last.
    life: u32,
    started: Time,
    /// Lives in a row that ended early.
    failures: u32,
    timer: Option<Time>,
}

enum State {
    /// It starts when it is needed, but not before this.
    Down {
        until: Time,
    },
    Live(Box<Instance>),
}

/// Nobody wants to hear of a life's gRPC any more when it is over.
fn abandon_calls(exchanges: &mut Exchanges, instance: &Instance, life: u32) {
    if instance.contexts().has_grpc() {
        exchanges.grpc.push(Wish::Abandon(life));
    }
}

/// A way into a VM.
struct Entry {
    vm: VmIndex,
    /// Only in this one of its lives.
    life: Option<u32>,
    /// What the call counts as; nothing where somebody else counts it.
    occasion: Option<Occasion>,
}

impl Entry {
    /// For what no exchange waits for.
    fn beside(vm: VmIndex) -> Self {
        Self { vm, life: None, occasion: Some(Occasion::Background) }
    }

    fn in_life(self, life: u32) -> Self {
        Self { life: Some(life), ..self }
    }
}

/// A number that no other life in this process has: a place that is given to another VM knows none of the old one's contexts.
fn next_life() -> u32 {
    static LIVES: AtomicU32 = AtomicU32::new(1);
    LIVES.fetch_add(1, Ordering::Relaxed)
}

/// A VM that was started away from the worker that will have it.
pub struct Newborn {
    slot: Slot,
    callouts: Vec<Callout>,
    grpc: Vec<Wish>,
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

    /// What is counted about it.
    #[must_use]
    pub fn cells(&self) -> Arc<VmCells> {
        self.slot.cells.clone()
    }
}

/// A VM that no revision uses any more, and nobody finds. Its end takes time: let it come on another thread than the worker's.
pub struct Retired(Slot);

impl Retired {
    /// Ends the VM. Roots that have not been told are, and get no time: nothing that they could wait for happens any more.
    pub fn end(mut self, now: Time) {
        let mut exchanges = Exchanges::default();
        exchanges.now = now;
        if let State::Live(instance) = &mut self.0.state
            && let Err(Died { function, fault }) = instance.end(&mut exchanges)
        {
            let VmCells { tenant, plugin, .. } = &*self.0.cells;
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
        f.debug_struct("Retired").field("plugin", &self.0.spec.name).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Newborn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Newborn").field("plugin", &self.slot.spec.name).finish_non_exhaustive()
    }
}

impl Vms {
    /// A worker's VMs, none of them started. A [`VmIndex`] is a place in `specs`.
    #[must_use]
    pub fn new(engine: Arc<Engine>, specs: Arc<[VmSpec]>, shared: Arc<Shared>) -> Self {
        let inbox = Arc::<Inbox>::default();
        let slot = |spec: &VmSpec| Some(Slot::new(Arc::new(spec.clone()), &shared).at(&inbox));
        let slots = specs.iter().map(slot).collect();
        Self { engine, shared, slots, inbox, leaving: Leaving::default(), timers: BTreeSet::new(), clock: None }
    }

    /// With a clock, for whoever wants to know how long calls take.
    #[must_use]
    pub fn with_clock(self, clock: impl Fn() -> Time + 'static) -> Self {
        Self { clock: Some(Box::new(clock)), ..self }
    }

    /// Notes one more user of the place `vm`. If it had none, a VM of this kind will be there, started when it is needed.
    pub fn hold(&mut self, vm: VmIndex, spec: &Arc<VmSpec>) {
        let index = vm.0 as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        if let Some(place) = self.slots.get_mut(index) {
            place.get_or_insert_with(|| Slot::new(spec.clone(), &self.shared).at(&self.inbox)).holders += 1;
        }
    }

    /// Puts a VM into the place `vm`, which it was started for and which somebody holds. What its guest asked for at its start
    /// is now for the worker to see to.
    pub fn settle(&mut self, exchanges: &mut Exchanges, vm: VmIndex, newborn: Newborn) {
        let Newborn { slot: mut new, callouts, grpc } = newborn;
        let timer = match &mut new.state {
            State::Live(instance) => instance.changed_tick().flatten(),
            State::Down { .. } => None,
        };
        let inbox = self.inbox.clone();
        let Some(slot) = self.slot(vm) else { return };
        new.holders = slot.holders;
        *slot = new.at(&inbox);
        self.set_timer(vm, timer);
        exchanges.timers_changed = true;
        exchanges.callouts.extend(callouts);
        exchanges.grpc.extend(grpc);
    }

    /// Notes one user less of the place `vm`. With the last, the VM that was there is returned and the place is free; or, if its
    /// guest wants to know of its end, it is for [`Self::end_next`] to tell it. Nobody may take the place while that goes on.
    pub fn release(&mut self, exchanges: &mut Exchanges, vm: VmIndex) -> Option<Retired> {
        let slot = self.slot(vm)?;
        slot.holders = slot.holders.saturating_sub(1);
        if slot.holders > 0 {
            return None;
        }
        if let State::Live(instance) = &slot.state {
            // Revisions are kept until their last exchange has ended; this is for exchanges that were cut off.
            for owner in instance.contexts().owners() {
                exchanges.orphan(owner.exchange, owner.filter);
            }
            if instance.hears_of_end() {
                self.leaving.untold.push_back(vm);
                return None;
            }
        }
        self.take(exchanges, vm)
    }

    /// Whether some VM that nobody uses is still here.
    #[must_use]
    pub fn has_leaving(&self) -> bool {
        !self.leaving.untold.is_empty() || !self.leaving.awaited.is_empty()
    }

    /// Tells one guest that its end has come. One that asks for time keeps its place, its timers and its callouts for as long as
    /// [`portcullis_core::limits::Limits::farewell`]; the end of the others is returned.
    pub fn end_next(&mut self, exchanges: &mut Exchanges) -> Option<Retired> {
        let vm = self.leaving.untold.pop_front()?;
        let _failed = self.enter(exchanges, Entry::beside(vm), Instance::announce_end);
        if self.is_over(vm) {
            return self.take(exchanges, vm);
        }
        self.leaving.awaited.push((vm, exchanges.now + exchanges.limits.farewell));
        None
    }

    /// Whether there are guests that have not been told of their end.
    #[must_use]
    pub fn has_untold(&self) -> bool {
        !self.leaving.untold.is_empty()
    }

    /// The VMs that had asked for time and are done, or have had enough of it.
    pub fn end_awaited(&mut self, exchanges: &mut Exchanges) -> Vec<Retired> {
        let mut over = Vec::new();
        for (vm, until) in std::mem::take(&mut self.leaving.awaited) {
            let _failed = self.enter(exchanges, Entry::beside(vm), |instance, exchanges| {
                instance.delete_roots(exchanges, Farewell::Done)?;
                if until <= exchanges.now { instance.delete_roots(exchanges, Farewell::Awaited) } else { Ok(()) }
            });
            if self.is_over(vm) {
                over.extend(self.take(exchanges, vm));
            } else {
                self.leaving.awaited.push((vm, until));
            }
        }
        over
    }

    /// All VMs that nobody uses, whether they are done or not.
    pub fn end_all(&mut self) -> Vec<Retired> {
        let Leaving { untold, awaited } = std::mem::take(&mut self.leaving);
        let all = untold.into_iter().chain(awaited.into_iter().map(|(vm, _)| vm));
        all.filter_map(|vm| self.slots.get_mut(vm.0 as usize)?.take().map(Retired)).collect()
    }

    fn is_over(&mut self, vm: VmIndex) -> bool {
        self.slot(vm).is_none_or(|slot| match &slot.state {
            State::Live(instance) => instance.is_over(),
            State::Down { .. } => true,
        })
    }

    fn take(&mut self, exchanges: &mut Exchanges, vm: VmIndex) -> Option<Retired> {
        self.set_timer(vm, None);
        if let Some(slot) = self.slot(vm)
            && let State::Live(instance) = &slot.state
        {
            abandon_calls(exchanges, instance, slot.life);
        }
        self.slots.get_mut(vm.0 as usize)?.take().map(Retired)
    }

    /// Starts every VM, so that no exchange waits for one.
    ///
    /// # Errors
    /// At the first that does not start: whose it is and why. The others may have started.
    pub fn warm_up(&mut self, exchanges: &mut Exchanges) -> Result<(), StartError> {
        for vm in (0..self.slots.len()).filter_map(|index| u32::try_from(index).ok()).map(VmIndex) {
            let is_down = self.slot(vm).is_some_and(|slot| matches!(slot.state, State::Down { .. }));
            if is_down {
                self.start(exchanges, vm)?;
            }
        }
        Ok(())
    }

    /// What is counted about each VM, in the order of their places.
    #[must_use]
    pub fn cells(&self) -> Vec<Arc<VmCells>> {
        self.slots.iter().flatten().map(|slot| slot.cells.clone()).collect()
    }

    /// How many WebAssembly instructions the guest in the place `vm` has executed in this life, where the engine counts them.
    #[must_use]
    pub fn instructions(&self, vm: VmIndex) -> Option<u64> {
        match &self.slots.get(vm.0 as usize)?.as_ref()?.state {
            State::Live(instance) => instance.instructions(),
            State::Down { .. } => None,
        }
    }

    /// When [`Self::tick`] has something to do.
    #[must_use]
    pub fn next_tick(&self) -> Option<Time> {
        self.timers.first().map(|(time, _)| *time)
    }

    /// Runs every timer that is due, or, where its tenant has used up its processor time, puts it off. One that is late fires once, and starts anew when its callback has returned.
    pub fn tick(&mut self, exchanges: &mut Exchanges) {
        let now = exchanges.now;
        // A guest that sets a timer to nothing while it ticks gets its turn the next time.
        let due: Vec<VmIndex> = self.timers.iter().take_while(|(time, _)| *time <= now).map(|(_, vm)| *vm).collect();
        for vm in due {
            match self.slot(vm).and_then(|slot| slot.spec.account.as_ref()?.out_of_cpu_until(now)) {
                Some(until) => self.set_timer(vm, Some(until)),
                None => _ = self.enter(exchanges, Entry::beside(vm), Instance::tick),
            }
        }
    }

    /// Tells a root what came of its callout. If its VM's life is over there is nobody to tell.
    pub fn deliver(&mut self, exchanges: &mut Exchanges, root: ContextRef, token: u32, response: CalloutResponse) {
        let _failed = self.enter(exchanges, Entry::beside(root.vm).in_life(root.life), |instance, exchanges| {
            instance.deliver(exchanges, root.id, token, response)
        });
    }

    /// Where news from other workers comes in: when there is some, [`Self::read_letter`] has something to do.
    #[must_use]
    pub fn inbox(&self) -> Arc<Inbox> {
        self.inbox.clone()
    }

    /// Tells one root of one item in its queue, if there is news of one.
    pub fn read_letter(&mut self, exchanges: &mut Exchanges) {
        let Some(letter) = self.inbox.take() else { return };
        letter.arrived();
        let (root, queue) = (letter.root, letter.queue);
        // One that is meant for a life that is over has nobody to read it.
        let _failed = self.enter(exchanges, Entry::beside(root.vm).in_life(root.life), |instance, exchanges| {
            instance.queue_ready(exchanges, root.id, queue)
        });
    }

    /// Tells a root what came of its gRPC call or stream; whether its VM still lives.
    pub fn hear(&mut self, exchanges: &mut Exchanges, root: ContextRef, token: u32, news: News) -> bool {
        let heard = self.enter(exchanges, Entry::beside(root.vm).in_life(root.life), |instance, exchanges| {
            instance.hear(exchanges, root.id, token, news)
        });
        heard.is_ok()
    }

    fn slot(&mut self, vm: VmIndex) -> Option<&mut Slot> {
        self.slots.get_mut(vm.0 as usize).and_then(Option::as_mut)
    }

    /// Runs something in a live VM.
    fn enter<R>(
        &mut self,
        exchanges: &mut Exchanges,
        Entry { vm, life, occasion }: Entry,
        call: impl FnOnce(&mut Instance, &mut Exchanges) -> Result<R, Died>,
    ) -> Result<R, Failed> {
        let slot = self.slots.get_mut(vm.0 as usize).and_then(Option::as_mut).ok_or(Failed)?;
        if life.is_some_and(|life| life != slot.life) {
            return Err(Failed);
        }
        let State::Live(instance) = &mut slot.state else { return Err(Failed) };
        let called = call(instance, exchanges);
        if let Some(occasion) = occasion {
            slot.cells.called(occasion, if called.is_ok() { Outcome::Next } else { Outcome::Fail });
        }
        match called {
            Ok(answer) => {
                if let Some(timer) = instance.changed_tick() {
                    self.set_timer(vm, timer);
                }
                Ok(answer)
            }
            Err(died) => {
                self.discard(exchanges, vm, &died);
                Err(Failed)
            }
        }
    }

    fn set_timer(&mut self, vm: VmIndex, timer: Option<Time>) {
        let Some(slot) = self.slots.get_mut(vm.0 as usize).and_then(Option::as_mut) else { return };
        if slot.timer != timer {
            if let Some(old) = slot.timer {
                self.timers.remove(&(old, vm));
            }
            self.timers.extend(timer.map(|time| (time, vm)));
            slot.timer = timer;
        }
    }

    /// Ends a life: its exchanges are told, and the store is dropped.
    fn discard(&mut self, exchanges: &mut Exchanges, vm: VmIndex, died: &Died) {
        self.set_timer(vm, None);
        let Some(slot) = self.slot(vm) else { return };
        let (until, life) = (slot.failed(exchanges.now), slot.life);
        let State::Live(instance) = std::mem::replace(&mut slot.state, State::Down { until }) else { return };
        for owner in instance.contexts().owners() {
            exchanges.orphan(owner.exchange, owner.filter);
        }
        abandon_calls(exchanges, &instance, life);
        let Died { function, fault } = died;
        slot.cells.trapped(fault.cause);
        slot.cells.failed(&format!("{} in {function}", fault.cause.as_str()), slot.failures, until);
        tracing::error!(
            tenant = slot.cells.tenant.as_deref().unwrap_or_default(),
            plugin = &*slot.cells.plugin,
            callback = function,
            cause = fault.cause.as_str(),
            backtrace = %fault.backtrace.join(" < "),
            said = instance.last_words().as_deref().unwrap_or_default(),
            "a plugin failed: {}",
            fault.message
        );
    }

    /// Begins a new life.
    fn start(&mut self, exchanges: &mut Exchanges, vm: VmIndex) -> Result<(), StartError> {
        let Some(slot) = self.slots.get_mut(vm.0 as usize).and_then(Option::as_mut) else { return Ok(()) };
        slot.start(&self.engine, vm, exchanges)?;
        let State::Live(instance) = &mut slot.state else { return Ok(()) };
        let timer = instance.changed_tick();
        self.set_timer(vm, timer.flatten());
        Ok(())
    }

    /// Makes sure that a VM is live, unless it is to be left alone.
    fn revive(&mut self, exchanges: &mut Exchanges, vm: VmIndex) -> Result<(), Failed> {
        match self.slot(vm).ok_or(Failed)?.state {
            State::Live(_) => Ok(()),
            State::Down { until } if until > exchanges.now => Err(Failed),
            State::Down { .. } => self.start(exchanges, vm).map_err(|error| {
                tracing::error!(
                    tenant = error.tenant.as_deref().unwrap_or_default(),
                    plugin = &*error.plugin,
                    "{error}"
                );
                Failed
            }),
        }
    }
}

impl Slot {
    fn new(spec: Arc<VmSpec>, shared: &Shared) -> Self {
        let space = shared.space(spec.tenant.as_ref());
        Self {
            holders: 0,
            cells: Arc::new(VmCells::new(spec.tenant.clone(), spec.name.clone(), space.metrics(&spec.name))),
            space,
            post: Arc::default(),
            state: State::Down { until: Time::default() },
            life: 0,
            started: Time::default(),
            failures: 0,
            timer: None,
            spec,
        }
    }

    /// The same, on the worker whose inbox this is.
    fn at(self, inbox: &Arc<Inbox>) -> Self {
        self.post.leads_to(inbox);
        self
    }

    /// Begins a new life. Its timer is not set yet.
    fn start(&mut self, engine: &Engine, vm: VmIndex, exchanges: &mut Exchanges) -> Result<(), StartError> {
        self.life = next_life();
        self.started = exchanges.now;
        let (cells, space, post) = (self.cells.clone(), self.space.clone(), self.post.clone());
        let birth = Birth { vm, life: self.life, cells, space, post };
        match Instance::start(engine, &self.spec, birth, exchanges) {
            Ok(instance) => {
                self.cells.starts.add(1);
                self.cells.runs();
                self.state = State::Live(Box::new(instance));
                Ok(())
            }
            Err((failure, said)) => {
                self.cells.start_failures.add(1);
                let until = self.failed(exchanges.now);
                self.cells.failed(&failure.word(), self.failures, until);
                self.state = State::Down { until };
                let VmSpec { tenant, name, .. } = &*self.spec;
                Err(StartError { tenant: tenant.clone(), plugin: name.clone(), failure, said })
            }
        }
    }

    /// Counts a failure; until when the VM is to be left alone.
    fn failed(&mut self, now: Time) -> Time {
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

impl Filters for Vms {
    fn open(&mut self, exchanges: &mut Exchanges, filter: &ChainFilter, owner: Owner) -> Result<ContextRef, Failed> {
        let vm = filter.vm;
        if let Err(failed) = self.revive(exchanges, vm) {
            if let Some(slot) = self.slot(vm) {
                slot.cells.called(Occasion::Create, Outcome::Fail);
            }
            return Err(failed);
        }
        let entry = Entry { vm, life: None, occasion: Some(Occasion::Create) };
        let id = self.enter(exchanges, entry, |instance, exchanges| instance.open(exchanges, owner))?.ok_or(Failed)?;
        let life = self.slot(vm).ok_or(Failed)?.life;
        Ok(ContextRef { vm, life, id })
    }

    fn call(&mut self, exchanges: &mut Exchanges, context: ContextRef, callback: Callback) -> Result<u32, Failed> {
        // What came of it is the chain's to say: see `count`.
        let entry = Entry { vm: context.vm, life: Some(context.life), occasion: None };
        self.enter(exchanges, entry, |instance, exchanges| instance.call(exchanges, context.id, callback))
    }

    fn count(&mut self, context: ContextRef, phase: Phase, outcome: Outcome) {
        if let Some(slot) = self.slot(context.vm) {
            slot.cells.called(phase.into(), outcome);
        }
    }

    fn now(&self) -> Option<Time> {
        self.clock.as_ref().map(|clock| clock())
    }

    fn close(&mut self, context: ContextRef) {
        if let Some(slot) = self.slot(context.vm)
            && slot.life == context.life
            && let State::Live(instance) = &mut slot.state
        {
            instance.close(context.id);
        }
    }
}

impl Drop for Slot {
    /// Whoever still reads the cells must not count this VM as live.
    fn drop(&mut self) {
        self.cells.is_gone();
    }
}

impl std::fmt::Debug for Vms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vms").field("vms", &self.slots.len()).finish_non_exhaustive()
    }
}
