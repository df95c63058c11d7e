//! One life of one VM: a store, its instance and its exports. Start it, lend it the worker's exchanges for a callback, discard
//! it when it has failed.
//!
//! **Invariants:** one callback runs at a time, and only the guest's allocator runs inside it. What is lent comes back on every
//! path out of a callback, a trap included. After a trap the store is never entered again.

mod inside;

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::context::{CalloutResponse, ContextId, Contexts, Entry, Farewell, Owner};
use portcullis_core::exchange::{ExchangeId, Exchanges};
use portcullis_core::filter::{Callback, VmIndex};
use portcullis_core::grpc::{Heard, News};
use portcullis_core::host::Host;
use portcullis_core::rollout::Version;
use portcullis_core::time::Time;
use wasmtime::{Extern, PoolConcurrencyLimitError, Store, UpdateDeadline};

use crate::budget::Budget;
use crate::callbacks::{Callbacks, Called, answer};
use crate::cells::VmCells;
use crate::engine::{CopyRoom, Engine};
use crate::failure::{Exited, Fault, StartFailure};
use crate::foreign::Expressions;
use crate::guest::{Guest, MemoryLimits, Taken, World};
use crate::log::{Rate, Voice};
use crate::metrics::Defined;
use crate::plugin::VmSpec;
use crate::queues::Post;
use crate::shared::Space;
use crate::trace;

/// How much processor time each function may take while a VM starts, if that is more than its budget: plugins parse their
/// configuration then, and languages with a runtime set it up.
const START_TIME: Duration = Duration::from_secs(1);

/// What is said to have failed where that did.
const START_SECTION: &str = "the start section";

/// What a life begins with.
#[derive(Clone)]
pub(crate) struct Birth {
    pub(crate) vm: VmIndex,
    pub(crate) life: u32,
    pub(crate) cells: Arc<VmCells>,
    pub(crate) space: Arc<Space>,
    pub(crate) post: Arc<Post>,
    pub(crate) rate: Arc<Rate>,
    pub(crate) role: Role,
}

/// What a life is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The VM itself.
    Original,
    /// The VM of a worker that serves its tenant only at times.
    Aside,
    /// One exchange's copy of it.
    Copy,
}

/// A callback that failed, and the life with it.
pub(crate) struct Died {
    pub(crate) function: &'static str,
    pub(crate) fault: Fault,
    /// The exchange that it was about, if it was about one.
    pub(crate) exchange: Option<ExchangeId>,
}

impl Died {
    /// A few words for it, of which none is the guest's.
    pub(crate) fn in_words(&self) -> String {
        format!("{} in {}", self.fault.cause.as_str(), self.function)
    }
}

/// One live VM.
pub(crate) struct Instance {
    store: Store<Guest>,
    instance: wasmtime::Instance,
    callbacks: Callbacks,
    /// When its first timer fires, as far as its worker knows.
    pub(crate) timer: Option<Time>,
    /// A copy's part of the pool.
    _room: Option<CopyRoom>,
}

/// A life that did not begin: why, and the errors its guest logged.
pub(crate) type NotStarted = (StartFailure, Option<Box<str>>);

impl Instance {
    /// Starts a VM: instantiates its module, runs its start functions, creates and configures its roots.
    pub(crate) fn start(
        engine: &Engine,
        spec: &VmSpec,
        birth: Birth,
        exchanges: &mut Exchanges,
    ) -> Result<Self, NotStarted> {
        let needs = spec.module.initial_memory();
        if needs > spec.memory {
            return Err((StartFailure::TooMuchMemory { needs, allowed: spec.memory }, None));
        }
        let mut instance = Self::blank(engine, spec, birth, exchanges.now)?;
        match instance.configure(spec, exchanges) {
            Ok(()) => {
                instance.store.data_mut().budget = Budget::new(spec.cpu, engine.ticker());
                Ok(instance)
            }
            Err(failure) => Err((failure, instance.last_words())),
        }
    }

    /// Makes the instance, which runs the module's start section; nothing of one that was made ready to be copied.
    pub(crate) fn blank(engine: &Engine, spec: &VmSpec, birth: Birth, now: Time) -> Result<Self, NotStarted> {
        let pre = spec.module.pre();
        let mut store = new_store(engine, spec, birth);
        store.data().voice.hear_time(now);
        let ticks = store.data_mut().budget.start(Called::Start(START_SECTION));
        store.set_epoch_deadline(ticks);
        let instance = pre.instantiate(&mut store).map_err(|error| not_instantiated(&error, engine, store.data()))?;
        let memory = instance.get_memory(&mut store, "memory");
        let mut callbacks = Callbacks::of(&instance, (&mut store).into(), spec.module.capabilities());
        let guest = store.data_mut();
        guest.count_time(now);
        guest.memory = memory;
        guest.allocator = callbacks.allocate.take();
        Ok(Self { store, instance, callbacks, timer: None, _room: None })
    }

    fn configure(&mut self, spec: &VmSpec, exchanges: &mut Exchanges) -> Result<(), StartFailure> {
        self.run_start_section(spec, exchanges)?;
        self.run_start_functions(exchanges)?;
        for root in &spec.roots {
            let (name, configuration) = (root.name.clone(), root.configuration.clone());
            let id = self.contexts_mut().add_root(name, configuration);
            let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
            let (vm_size, root_size) = (size(spec.configuration.len()), size(root.configuration.len()));
            self.begin(exchanges, Some(id), "proxy_on_context_create", |store, callbacks| {
                answer(callbacks.context_create.as_ref(), store, (id.0, 0))
            })?;
            self.says_yes(exchanges, id, "proxy_on_vm_start", |store, callbacks| {
                callbacks.vm_start.as_ref().map_or(Ok(1), |function| function.call(store, (id.0, vm_size)))
            })?;
            self.store.data_mut().configuring = true;
            self.says_yes(exchanges, id, "proxy_on_configure", |store, callbacks| {
                callbacks.configure.as_ref().map_or(Ok(1), |function| function.call(store, (id.0, root_size)))
            })?;
            self.store.data_mut().configuring = false;
        }
        Ok(())
    }

    /// Runs the module's start section, where it was made an export: instantiation has not run it then (`exposed.rs`).
    fn run_start_section(&mut self, spec: &VmSpec, exchanges: &mut Exchanges) -> Result<(), StartFailure> {
        let Some(start) = spec.module.start() else { return Ok(()) };
        let function = self.instance.get_module_export(&mut self.store, start).and_then(Extern::into_func);
        let Some(function) = function else { return Ok(()) };
        self.begin(exchanges, None, START_SECTION, |store, _| function.typed::<(), ()>(&store)?.call(store, ()))
    }

    /// In the reference host's order: a reactor's `_initialize`, then its `main`; else a command's `_start`.
    fn run_start_functions(&mut self, exchanges: &mut Exchanges) -> Result<(), StartFailure> {
        if self.callbacks.initialize.is_some() {
            self.begin(exchanges, None, "_initialize", |store, callbacks| {
                answer(callbacks.initialize.as_ref(), store, ())
            })?;
            return self.begin(exchanges, None, "main", |store, callbacks| match &callbacks.main {
                Some(main) => main.call(store, (0, 0)).map(|_ignored| ()),
                None => answer(callbacks.main_void.as_ref(), store, ()).map(|_ignored| ()),
            });
        }
        self.begin(exchanges, None, "_start", |store, callbacks| answer(callbacks.start.as_ref(), store, ()))
    }

    fn begin<R>(
        &mut self,
        exchanges: &mut Exchanges,
        id: Option<ContextId>,
        function: &'static str,
        call: impl FnOnce(&mut Store<Guest>, &Callbacks) -> wasmtime::Result<R>,
    ) -> Result<R, StartFailure> {
        let called = self.lend(exchanges, id, Called::Start(function), call);
        called.map_err(|Died { function, fault, .. }| StartFailure::Trapped { function, fault })
    }

    fn says_yes(
        &mut self,
        exchanges: &mut Exchanges,
        id: ContextId,
        function: &'static str,
        call: impl FnOnce(&mut Store<Guest>, &Callbacks) -> wasmtime::Result<u32>,
    ) -> Result<(), StartFailure> {
        match self.begin(exchanges, Some(id), function, call)? {
            0 => Err(StartFailure::Refused { function }),
            _ => Ok(()),
        }
    }

    /// Lends the guest the worker's exchanges for one callback, made about a context.
    fn lend<R>(
        &mut self,
        exchanges: &mut Exchanges,
        id: Option<ContextId>,
        function: Called,
        call: impl FnOnce(&mut Store<Guest>, &Callbacks) -> wasmtime::Result<R>,
    ) -> Result<R, Died> {
        let guest = self.store.data_mut();
        guest.limits.refused = false;
        guest.voice.forget_errors();
        guest.voice.hear_time(exchanges.now);
        let ticks = guest.budget.start(function);
        let world = guest.world.as_mut().expect("the world is in the store between hostcalls");
        std::mem::swap(&mut world.exchanges, exchanges);
        if let Some(id) = id {
            world.contexts.enter(id);
        }
        if trace::is_on() {
            trace::callback(function.name(), id);
        }
        self.store.set_epoch_deadline(ticks);
        let called = call(&mut self.store, &self.callbacks);
        let guest = self.store.data_mut();
        let world = guest.world.as_mut().expect("every hostcall puts the world back");
        std::mem::swap(&mut world.exchanges, exchanges);
        let concerned = called.as_ref().err().and_then(|_| world.contexts.concerned());
        world.contexts.leave();
        guest.count_time(exchanges.now);
        called.map_err(|error| {
            let exchange = match concerned {
                Some(Entry::Exchange(owner)) => Some(owner.exchange),
                Some(Entry::Root(_)) | None => None,
            };
            Died { function: function.name(), fault: Fault::of(&error, guest.limits.refused), exchange }
        })
    }

    /// Creates a context for an exchange.
    pub(crate) fn open(&mut self, exchanges: &mut Exchanges, owner: Owner) -> Result<Option<ContextId>, Died> {
        let Some((id, root)) = self.contexts_mut().add_exchange(owner) else { return Ok(None) };
        self.lend(exchanges, Some(id), Called::ContextCreate, |store, callbacks| {
            answer(callbacks.context_create.as_ref(), store, (id.0, root.0))
        })?;
        Ok(Some(id))
    }

    /// Makes a callback about an exchange.
    pub(crate) fn call(&mut self, exchanges: &mut Exchanges, id: ContextId, callback: Callback) -> Result<u32, Died> {
        let function = Called::About(callback.export());
        let answer =
            self.lend(exchanges, Some(id), function, |store, callbacks| callbacks.call(store, id.0, callback))?;
        if trace::is_on() {
            trace::answered(function.name(), id, callback, answer);
        }
        Ok(answer)
    }

    /// Tells a root what came of its callout.
    pub(crate) fn deliver(
        &mut self,
        exchanges: &mut Exchanges,
        root: ContextId,
        token: u32,
        response: CalloutResponse,
    ) -> Result<(), Died> {
        let (headers, body, trailers) = Host::callout_sizes(&response);
        let [headers, body, trailers] = [headers, body, trailers].map(|size| u32::try_from(size).unwrap_or(u32::MAX));
        self.contexts_mut().deliver(response);
        self.lend(exchanges, Some(root), Called::HttpCallResponse, |store, callbacks| {
            answer(callbacks.http_call_response.as_ref(), store, (root.0, token, headers, body, trailers))
        })
    }

    /// Tells a root what came of its gRPC call or stream.
    pub(crate) fn hear(
        &mut self,
        exchanges: &mut Exchanges,
        root: ContextId,
        token: u32,
        news: News,
    ) -> Result<(), Died> {
        let Some(heard) = self.contexts_mut().hear(token, news) else { return Ok(()) };
        let name = match heard {
            Heard::Began(_) => "proxy_on_grpc_receive_initial_metadata",
            Heard::Message(_) => "proxy_on_grpc_receive",
            Heard::Trailers(_) => "proxy_on_grpc_receive_trailing_metadata",
            Heard::Ended(_) => "proxy_on_grpc_close",
        };
        self.lend(exchanges, Some(root), Called::Grpc(name), |store, callbacks| {
            let (function, number) = match heard {
                Heard::Began(entries) => (&callbacks.grpc_initial_metadata, entries),
                Heard::Message(bytes) => (&callbacks.grpc_receive, bytes),
                Heard::Trailers(entries) => (&callbacks.grpc_trailing_metadata, entries),
                Heard::Ended(status) => (&callbacks.grpc_close, status),
            };
            answer(function.as_ref(), store, (root.0, token, number))
        })
    }

    /// Tells a root that there is something in its queue.
    pub(crate) fn queue_ready(&mut self, exchanges: &mut Exchanges, root: ContextId, queue: u32) -> Result<(), Died> {
        self.lend(exchanges, Some(root), Called::QueueReady, |store, callbacks| {
            answer(callbacks.queue_ready.as_ref(), store, (root.0, queue))
        })
    }

    /// Runs the timers that are due. Each starts anew when its callback has returned, unless that set or stopped it.
    pub(crate) fn tick(&mut self, exchanges: &mut Exchanges) -> Result<(), Died> {
        let now = exchanges.now;
        for index in 0..self.contexts().roots.len() {
            let Some(root) = self.contexts_mut().roots.get_mut(index) else { break };
            if root.next_tick.is_none_or(|due| due > now) {
                continue;
            }
            root.next_tick = None;
            let id = root.id;
            self.lend(exchanges, Some(id), Called::Tick, |store, callbacks| {
                answer(callbacks.tick.as_ref(), store, (id.0,))
            })?;
            if let Some(root) = self.contexts_mut().roots.get_mut(index)
                && root.next_tick.is_none()
            {
                root.next_tick = root.tick.map(|period| now + period);
            }
        }
        self.store.data_mut().timers_changed = true;
        Ok(())
    }

    /// Whether its guest wants to know of its end.
    pub(crate) fn hears_of_end(&self) -> bool {
        self.callbacks.done.is_some() || self.callbacks.delete.is_some()
    }

    /// Tells every root that its end has come, and deletes those that need no time (ABI reference §7.2).
    pub(crate) fn announce_end(&mut self, exchanges: &mut Exchanges) -> Result<(), Died> {
        for index in 0..self.contexts().roots.len() {
            let Some(root) = self.contexts().roots.get(index).filter(|root| root.farewell == Farewell::NotYet) else {
                continue;
            };
            let needs_time = self.callbacks.done.is_some() && self.call(exchanges, root.id, Callback::Done)? == 0;
            self.say_farewell(index, if needs_time { Farewell::Awaited } else { Farewell::Done });
        }
        self.delete_roots(exchanges, Farewell::Done)
    }

    /// Deletes the roots that have come so far.
    pub(crate) fn delete_roots(&mut self, exchanges: &mut Exchanges, so_far: Farewell) -> Result<(), Died> {
        for index in 0..self.contexts().roots.len() {
            let Some(root) = self.contexts().roots.get(index).filter(|root| root.farewell == so_far) else { continue };
            let id = root.id;
            self.say_farewell(index, Farewell::Deleted);
            self.call(exchanges, id, Callback::Delete)?;
        }
        Ok(())
    }

    /// Whether all its roots have been deleted.
    pub(crate) fn is_over(&self) -> bool {
        self.contexts().roots.iter().all(|root| root.farewell == Farewell::Deleted)
    }

    /// Ends it here and now: no root gets time.
    pub(crate) fn end(&mut self, exchanges: &mut Exchanges) -> Result<(), Died> {
        self.announce_end(exchanges)?;
        self.delete_roots(exchanges, Farewell::Awaited)
    }

    fn say_farewell(&mut self, index: usize, farewell: Farewell) {
        if let Some(root) = self.contexts_mut().roots.get_mut(index) {
            root.farewell = farewell;
        }
    }

    /// When the first timer fires, if that may have changed since this was last asked.
    pub(crate) fn changed_tick(&mut self) -> Option<Option<Time>> {
        let changed = std::mem::take(&mut self.store.data_mut().timers_changed);
        changed.then(|| self.contexts().next_tick())
    }

    /// Forgets an exchange's context.
    pub(crate) fn close(&mut self, id: ContextId) {
        self.contexts_mut().remove(id);
    }

    /// The VM's contexts.
    pub(crate) fn contexts(&self) -> &Contexts {
        &self.store.data().world.as_ref().expect("the world is in the store between hostcalls").contexts
    }

    fn contexts_mut(&mut self) -> &mut Contexts {
        &mut self.store.data_mut().world.as_mut().expect("the world is in the store between hostcalls").contexts
    }

    /// Whether nothing but a new exchange will ever be told to the guest: no exchange, timer, queue, call or stream is its.
    pub(crate) fn awaits_nothing(&self) -> bool {
        let guest = self.store.data();
        let contexts = self.contexts();
        !guest.consumes && contexts.awaits_nothing()
    }

    /// How many instructions its guest has executed, where they are counted.
    pub(crate) fn instructions(&self) -> Option<u64> {
        self.store.get_fuel().ok().map(|left| u64::MAX - left)
    }

    /// The errors the guest logged in the last callback.
    pub(crate) fn last_words(&self) -> Option<Box<str>> {
        self.store.data().voice.errors()
    }
}

fn new_store(engine: &Engine, spec: &VmSpec, birth: Birth) -> Store<Guest> {
    let Birth { vm, life, cells, space, post, rate, role } = birth;
    let mut contexts = Contexts::new(vm, life, spec.upstreams.clone(), spec.configuration.clone());
    contexts.vm_id = spec.vm_id.clone();
    contexts.shadow = spec.version == Version::Shadow;
    contexts.account.clone_from(&spec.account);
    let guest = Guest {
        world: Some(Box::new(World { exchanges: Exchanges::default(), contexts })),
        memory: None,
        allocator: None,
        limits: memory_limits(engine, spec, cells.clone(), role),
        budget: match role {
            // A start is rare and takes long.
            Role::Original | Role::Aside => Budget::of_start(spec.cpu.max(START_TIME), engine.ticker()),
            Role::Copy => Budget::new(spec.cpu, engine.ticker()),
        },
        metrics: Defined::none(cells.metrics.clone()),
        voice: Voice::new(cells, spec.account.clone(), rate),
        space,
        post,
        expressions: Expressions::default(),
        version: spec.module.version(),
        configuring: false,
        timers_changed: false,
        consumes: false,
        role,
    };
    let mut store = Store::new(spec.module.pre().module().engine(), guest);
    store.limiter(|guest| &mut guest.limits);
    if engine.counts_instructions() {
        // More than any guest lives to use up.
        let _counted = store.set_fuel(u64::MAX);
    }
    store.epoch_deadline_callback(|mut store| -> wasmtime::Result<UpdateDeadline> {
        Ok(store.data_mut().budget.expired())
    });
    store
}

fn memory_limits(engine: &Engine, spec: &VmSpec, cells: Arc<VmCells>, role: Role) -> MemoryLimits {
    let (memory, taken) = (spec.memory.min(engine.max_memory()), Taken::none(spec.account.clone()));
    MemoryLimits { memory, refused: false, cells, told: role != Role::Copy, taken }
}

fn not_instantiated(error: &wasmtime::Error, engine: &Engine, guest: &Guest) -> NotStarted {
    let failure = if error.is::<PoolConcurrencyLimitError>() {
        StartFailure::NoRoom { slots: engine.max_vms() }
    } else if error.is::<wasmtime::Trap>() || error.is::<Exited>() {
        StartFailure::Trapped { function: START_SECTION, fault: Fault::of(error, guest.limits.refused) }
    } else if guest.limits.refused {
        StartFailure::TenantMemory
    } else {
        StartFailure::Instantiate(error.root_cause().to_string())
    };
    (failure, guest.voice.errors())
}
