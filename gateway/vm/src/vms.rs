//! A worker's VMs: one place for each, started when first needed and replaced when it has failed.
//!
//! A VM that fails is replaced at its next use. One whose lives keep being short is left alone for a second, then for two, up to
//! a minute; what would use it fails meanwhile, and nobody else notices.
//!
//! A place is held by every revision of the configuration that uses it, and given up with the last: a VM that a new revision
//! uses unchanged simply goes on. New ones are started elsewhere ([`Newborn`]), so that no request waits for them.
//!
//! A VM that may rest ([`VmSpec::idle`]) is there while it is used: the first exchange starts it, and it goes when none has come for
//! that long and its guest waits for nothing else.
//!
//! **Invariant:** a life that has ended is never mistaken for its successor: its exchanges are told, and references to it fail.

mod copies;
mod leaving;
mod slot;

use std::collections::BTreeSet;
use std::sync::Arc;

use portcullis_core::context::{CalloutResponse, ContextRef, Owner};
use portcullis_core::exchange::Exchanges;
use portcullis_core::filter::{Callback, ChainFilter, Failed, Filters, NotOpened, VmIndex};
use portcullis_core::grpc::{News, Wish};
use portcullis_core::tenant::Account;
use portcullis_core::time::Time;
use portcullis_core::timing::{Outcome, Phase};

use self::leaving::Leaving;
pub use self::slot::{Newborn, Retired};
use self::slot::{Slot, State};
use crate::cells::{Occasion, VmCells};
use crate::engine::Engine;
use crate::failure::{StartError, StartFailure};
use crate::instance::{Died, Instance};
use crate::plugin::{Isolation, VmSpec};
use crate::queues::{Inbox, Letter};
use crate::shared::Shared;

/// The VMs of one worker.
pub struct Vms {
    engine: Arc<Engine>,
    shared: Arc<Shared>,
    slots: Vec<Option<Slot>>,
    inbox: Arc<Inbox>,
    leaving: Leaving,
    /// Which VM's timer fires next, and in which life, since copies have theirs.
    timers: BTreeSet<(Time, VmIndex, u32)>,
    /// When it is to be seen which VM has been idle for so long that it goes.
    rests: BTreeSet<(Time, VmIndex)>,
    clock: Option<Clock>,
    /// Whose VMs these are where some tenants are set apart.
    side: Side,
}

/// Whom a worker serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// Everybody.
    All,
    /// Whoever is not set apart.
    WithoutApart,
    /// Who is.
    Apart,
}

/// Tells the time.
type Clock = Box<dyn Fn() -> Time>;

/// Nobody wants to hear of a life's gRPC any more when it is over.
fn abandon_calls(exchanges: &mut Exchanges, instance: &Instance, life: u32) {
    if instance.contexts().has_grpc() {
        exchanges.grpc.push(Wish::Abandon(life));
    }
}

/// The exchanges of a life that is over are told.
fn orphan_exchanges(exchanges: &mut Exchanges, instance: &Instance) {
    instance.contexts().owners().for_each(|owner| exchanges.orphan(owner.exchange, owner.filter));
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

impl Vms {
    /// A worker's VMs, none of them started. A [`VmIndex`] is a place in `specs`.
    #[must_use]
    pub fn new(engine: Arc<Engine>, specs: Arc<[VmSpec]>, shared: Arc<Shared>) -> Self {
        let inbox = Arc::<Inbox>::default();
        let slot = |spec: &VmSpec| Some(Slot::new(Arc::new(spec.clone()), &shared).at(&inbox));
        let slots = specs.iter().map(slot).collect();
        let (leaving, timers, rests) = (Leaving::default(), BTreeSet::new(), BTreeSet::new());
        Self { engine, shared, slots, inbox, leaving, timers, rests, clock: None, side: Side::All }
    }

    /// For a worker whose tenants are served elsewhere while they are set apart: their timers wait for as long.
    #[must_use]
    pub fn without_those_apart(self) -> Self {
        Self { side: Side::WithoutApart, ..self }
    }

    /// For the worker that they are served on meanwhile: its VMs take no queue from those of others.
    #[must_use]
    pub fn of_those_apart(self) -> Self {
        Self { side: Side::Apart, ..self }
    }

    /// Who pays for what the VM in this place uses.
    #[must_use]
    pub fn account(&self, vm: VmIndex) -> Option<&Arc<Account>> {
        self.at(vm)?.spec.account.as_ref()
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
            let aside = self.side == Side::Apart;
            let slot = place.get_or_insert_with(|| Slot::new(spec.clone(), &self.shared).at(&self.inbox));
            slot.aside = aside;
            slot.holders += 1;
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
        let life = new.life;
        let inbox = self.inbox.clone();
        let Some(slot) = self.slot(vm) else { return };
        new.holders = slot.holders;
        *slot = new.at(&inbox);
        self.set_timer((vm, life), timer);
        self.may_rest(vm, exchanges.now);
        exchanges.timers_changed = true;
        exchanges.callouts.extend(callouts);
        exchanges.grpc.extend(grpc);
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

    /// The VMs that have been idle for long enough. Their guests have been told of their end, and got no time.
    pub fn rest(&mut self, exchanges: &mut Exchanges) -> Vec<Retired> {
        let mut resting = Vec::new();
        while let Some((_, vm)) = self.rests.first().filter(|(time, _)| *time <= exchanges.now).copied() {
            self.rests.pop_first();
            match self.idle_until(vm) {
                Some(until) if until <= exchanges.now => resting.extend(self.put_to_rest(exchanges, vm)),
                Some(until) => _ = self.rests.insert((until, vm)),
                None => {}
            }
        }
        resting
    }

    /// When a VM will have been idle for long enough, if it is live and may rest. One whose guest waits for something is asked again
    /// after as long.
    fn idle_until(&mut self, vm: VmIndex) -> Option<Time> {
        let slot = self.slot(vm)?;
        let (State::Live(_), Some(idle)) = (&slot.state, slot.spec.idle) else { return None };
        Some(slot.used.max(slot.started) + idle)
    }

    fn put_to_rest(&mut self, exchanges: &mut Exchanges, vm: VmIndex) -> Option<Retired> {
        let slot = self.slot(vm)?;
        if !slot.awaits_nothing() {
            slot.used = exchanges.now;
            self.may_rest(vm, exchanges.now);
            return None;
        }
        self.enter(exchanges, Entry::beside(vm), Instance::end).ok()?;
        self.call_off(exchanges, vm);
        self.slot(vm).map(Slot::retire)
    }

    /// Calls off what the guest of a VM that ends still waits for: its timer, its calls and streams.
    fn call_off(&mut self, exchanges: &mut Exchanges, vm: VmIndex) {
        let Some(life) = self.at(vm).map(|slot| slot.life) else { return };
        self.set_timer((vm, life), None);
        if let Some(State::Live(instance)) = self.at(vm).map(|slot| &slot.state) {
            abandon_calls(exchanges, instance, life);
        }
    }

    /// Notes when to see whether a VM that was just started is idle, if it may rest at all.
    fn may_rest(&mut self, vm: VmIndex, now: Time) {
        if let Some(idle) = self.slot(vm).and_then(|slot| slot.spec.idle) {
            self.rests.insert((now + idle, vm));
        }
    }

    /// Ends the VM here that has been idle for longest, to make room for what `vm` needs; whether there was one.
    fn make_room(&mut self, exchanges: &mut Exchanges, vm: VmIndex) -> bool {
        let others = self.rests.iter().map(|(_, other)| *other).filter(|other| *other != vm);
        let idle: Vec<VmIndex> = others.collect();
        let used = |vm: &VmIndex| {
            let slot = self.at(*vm)?;
            (matches!(slot.state, State::Live(_)) && slot.awaits_nothing()).then_some((slot.used, *vm))
        };
        let Some((_, vm)) = idle.iter().filter_map(used).min() else { return false };
        self.put_to_rest(exchanges, vm).is_some()
    }

    /// What is counted about the VM in the place `vm`, which somebody holds.
    #[must_use]
    pub fn cells_at(&self, vm: VmIndex) -> Option<Arc<VmCells>> {
        Some(self.at(vm)?.cells.clone())
    }

    /// What is counted about each VM, in the order of their places.
    #[must_use]
    pub fn cells(&self) -> Vec<Arc<VmCells>> {
        self.slots.iter().flatten().map(|slot| slot.cells.clone()).collect()
    }

    /// How many WebAssembly instructions the guest in the place `vm` has executed in this life, where the engine counts them.
    #[must_use]
    pub fn instructions(&self, vm: VmIndex) -> Option<u64> {
        match &self.at(vm)?.state {
            State::Live(instance) => instance.instructions(),
            State::Down { .. } => None,
        }
    }

    /// When [`Self::tick`] has something to do.
    #[must_use]
    pub fn next_tick(&self) -> Option<Time> {
        self.timers.first().map(|(time, ..)| *time)
    }

    /// Runs every timer that is due, or puts it off where its tenant has used up its processor time or is set apart. One that is late
    /// fires once, and starts anew when its callback has returned.
    pub fn tick(&mut self, exchanges: &mut Exchanges) {
        let now = exchanges.now;
        // A guest that sets a timer to nothing while it ticks gets its turn the next time.
        let due = self.timers.iter().take_while(|(time, ..)| *time <= now);
        let due: Vec<(VmIndex, u32)> = due.map(|(_, vm, life)| (*vm, *life)).collect();
        for (vm, life) in due {
            let spares_others = self.side == Side::WithoutApart;
            let waits = |account: &Account| {
                let apart = || account.apart.until(now).filter(|_| spares_others);
                account.out_of_cpu_until(now).or_else(apart)
            };
            match self.slot(vm).and_then(|slot| waits(slot.spec.account.as_deref()?)) {
                Some(until) => self.set_timer((vm, life), Some(until)),
                None => _ = self.enter(exchanges, Entry::beside(vm).in_life(life), Instance::tick),
            }
        }
    }

    /// Tells a root what came of its callout. If its VM's life is over there is nobody to tell.
    ///
    /// Copies of the VM that were made while it was under way hear of it too.
    pub fn deliver(&mut self, exchanges: &mut Exchanges, root: ContextRef, token: u32, response: CalloutResponse) {
        self.deliver_to_copies(exchanges, root, token, &response);
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
        if let Some(letter) = self.inbox.take() {
            self.read(exchanges, &letter);
        }
    }

    /// Tells one root of one item in its queue.
    pub fn read(&mut self, exchanges: &mut Exchanges, letter: &Letter) {
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

    fn at(&self, vm: VmIndex) -> Option<&Slot> {
        self.slots.get(vm.0 as usize)?.as_ref()
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
        let slot = self.slot(vm).ok_or(Failed)?;
        let life = life.unwrap_or(slot.life);
        let instance = slot.instance(life).ok_or(Failed)?;
        let called = call(instance, exchanges);
        let timer = if called.is_ok() { instance.changed_tick() } else { None };
        if let Some(occasion) = occasion {
            slot.cells.called(occasion, if called.is_ok() { Outcome::Next } else { Outcome::Fail });
        }
        let is_copy = life != slot.life;
        if !is_copy {
            // What it has become, copies are to begin with.
            slot.image = None;
        }
        match called {
            Ok(answer) => {
                if let Some(timer) = timer {
                    self.set_timer((vm, life), timer);
                }
                Ok(answer)
            }
            Err(died) if is_copy => {
                self.discard_copy(exchanges, (vm, life), &died);
                Err(Failed)
            }
            Err(died) => {
                self.discard(exchanges, vm, &died);
                Err(Failed)
            }
        }
    }

    fn set_timer(&mut self, (vm, life): (VmIndex, u32), timer: Option<Time>) {
        let Some(slot) = self.slots.get_mut(vm.0 as usize).and_then(Option::as_mut) else { return };
        let Some(instance) = slot.instance(life) else { return };
        if instance.timer != timer {
            if let Some(old) = instance.timer {
                self.timers.remove(&(old, vm, life));
            }
            self.timers.extend(timer.map(|time| (time, vm, life)));
            instance.timer = timer;
        }
    }

    /// Ends a life: its exchanges are told, and the store is dropped.
    fn discard(&mut self, exchanges: &mut Exchanges, vm: VmIndex, died: &Died) {
        let Some(life) = self.slot(vm).map(|slot| slot.life) else { return };
        self.set_timer((vm, life), None);
        let Some(slot) = self.slot(vm) else { return };
        let until = slot.failed(exchanges.now);
        let State::Live(instance) = std::mem::replace(&mut slot.state, State::Down { until, why: NotOpened::Failed })
        else {
            return;
        };
        orphan_exchanges(exchanges, &instance);
        abandon_calls(exchanges, &instance, life);
        slot.cells.trapped(died.fault.cause);
        slot.cells.failed(&died.in_words(), slot.failures, until);
        slot.tell(died, instance.last_words().as_deref(), exchanges);
    }

    /// Begins a new life.
    fn start(&mut self, exchanges: &mut Exchanges, vm: VmIndex) -> Result<(), StartError> {
        loop {
            let Some(slot) = self.slots.get_mut(vm.0 as usize).and_then(Option::as_mut) else { return Ok(()) };
            match slot.start(&self.engine, vm, exchanges) {
                Ok(()) => break,
                Err(error) if matches!(error.failure, StartFailure::NoRoom { .. }) && self.make_room(exchanges, vm) => {
                }
                Err(error) => {
                    let Some(slot) = self.slot(vm) else { return Err(error) };
                    slot.did_not_start(&error.failure, exchanges.now);
                    return Err(error);
                }
            }
        }
        self.may_rest(vm, exchanges.now);
        let Some(slot) = self.slot(vm) else { return Ok(()) };
        let State::Live(instance) = &mut slot.state else { return Ok(()) };
        let (timer, life) = (instance.changed_tick(), slot.life);
        self.set_timer((vm, life), timer.flatten());
        Ok(())
    }

    /// Makes sure that a VM is live, unless it is to be left alone.
    fn revive(&mut self, exchanges: &mut Exchanges, vm: VmIndex) -> Result<(), NotOpened> {
        match self.slot(vm).ok_or(NotOpened::Failed)?.state {
            State::Live(_) => Ok(()),
            State::Down { until, why } if until > exchanges.now => Err(why),
            State::Down { .. } => self.start(exchanges, vm).map_err(|error| {
                tracing::error!(
                    tenant = error.tenant.as_deref().unwrap_or_default(),
                    plugin = &*error.plugin,
                    "{error}"
                );
                error.failure.met_by_exchanges()
            }),
        }
    }
}

impl Filters for Vms {
    fn open(&mut self, exchanges: &mut Exchanges, filter: &ChainFilter, owner: Owner) -> Result<ContextRef, NotOpened> {
        let vm = filter.vm;
        if let Err(why) = self.revive(exchanges, vm) {
            if let Some(slot) = self.slot(vm) {
                slot.cells.called(Occasion::Create, Outcome::Fail);
            }
            return Err(why);
        }
        let slot = self.slot(vm).ok_or(Failed)?;
        slot.used = exchanges.now;
        let life = match slot.spec.isolation {
            Isolation::Vm => slot.life,
            Isolation::Request => self.copy(exchanges, vm)?,
        };
        let entry = Entry { vm, life: Some(life), occasion: Some(Occasion::Create) };
        let id = self.enter(exchanges, entry, |instance, exchanges| instance.open(exchanges, owner))?.ok_or(Failed)?;
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

    fn close(&mut self, exchanges: &mut Exchanges, context: ContextRef) {
        let Some(slot) = self.slot(context.vm) else { return };
        if slot.life != context.life {
            self.end_copy(exchanges, (context.vm, context.life));
        } else if let State::Live(instance) = &mut slot.state {
            instance.close(context.id);
        }
    }
}

impl std::fmt::Debug for Vms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vms").field("vms", &self.slots.len()).finish_non_exhaustive()
    }
}
