//! A worker: one thread with its exchanges, VMs, upstream connections and timers.
//!
//! Whatever happens to an exchange goes through [`Worker::feed`], which runs the chain to its end before anything else runs on
//! this thread. What that leads to elsewhere (another exchange resumed, a callout started, a timer set) is seen to before
//! `feed` returns, so no event is ever left lying.

mod exchanges;
mod revisions;
mod ticket;
mod turns;

use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::task::{Context, Waker};
use std::time::Duration;

use portcullis_core::chain;
use portcullis_core::context::{CalloutResponse, ContextRef};
use portcullis_core::downstream::Overdue;
use portcullis_core::event::{Direction, Event};
use portcullis_core::exchange::{ExchangeId, Exchanges, Wants};
use portcullis_core::grpc::News;
use portcullis_core::reply::Failure;
use portcullis_core::rollout::Rollout;
use portcullis_core::tenant::Account;
use portcullis_core::time::Time;
use portcullis_vm::{Letter, Vms};
use tokio::sync::Notify;
use tokio::task::{spawn_local, yield_now};

pub(crate) use self::ticket::{Described, LetIn, Opening, Ticket, Tie};
use crate::bulkhead::Entrance;
use crate::callout;
use crate::clock::Clock;
use crate::grpc;
use crate::plan::Plan;
use crate::revision::{Earlier, Prepared, Remains, Revision};
use crate::services::rate_limit;
use crate::telemetry::{Attempt, WorkerTelemetry};
use crate::upstream::Upstreams;

/// How often idle connections, overdue exchanges and full log buffers are looked for.
const HOUSEKEEPING: Duration = Duration::from_millis(100);
/// Overdue for so many looks, an exchange is cut off: whoever should take what it was told does not.
const HOPELESS: u8 = 10;
/// The bulkhead has one part in so many of what a worker may use of an upstream.
const BULKHEAD_PARTS: usize = 5;

/// What the chain works on; lent to guests for each callback.
struct State {
    exchanges: Exchanges,
    vms: Vms,
}

/// Who waits for an exchange: the side that sends its request on, and the side that sends its response.
#[derive(Default)]
struct Waiting {
    request: Option<Waker>,
    response: Option<Waker>,
    /// Where the exchange can be cut off, should neither side move any more.
    tie: Option<Tie>,
    /// For how many looks it has been overdue.
    overdue: u8,
    /// Who pays for what its filters use.
    account: Option<Arc<Account>>,
    /// The tries at an upstream, where they are recorded.
    attempts: Vec<Attempt>,
}

impl Waiting {
    fn side(&mut self, direction: Direction) -> &mut Option<Waker> {
        match direction {
            Direction::Request => &mut self.request,
            Direction::Response => &mut self.response,
        }
    }
}

/// One thread's share of the gateway.
pub(crate) struct Worker {
    state: RefCell<State>,
    waiting: RefCell<Vec<Waiting>>,
    /// Exchanges whose bodies wait for processor time.
    held_up: RefCell<Vec<ExchangeId>>,
    timers: Notify,
    /// Shadows have something to do.
    shadows: Notify,
    /// What new exchanges begin with.
    revision: RefCell<Rc<Revision>>,
    /// Those before it that may still have exchanges.
    earlier: RefCell<Earlier>,
    remains: mpsc::Sender<Remains>,
    decided: mpsc::Sender<Arc<Rollout>>,
    /// What is left of revisions whose guests are at their end and have not all finished.
    leaving: RefCell<Vec<Remains>>,
    /// Nothing new is begun on behalf of guests: the runtime is about to end.
    ending: Cell<bool>,
    /// Where the requests of tenants that are set apart are served; nowhere else, where this is it.
    bulkhead: Option<Entrance>,
    /// Until when guests of tenants that are set apart are called no more for what was under way before.
    next_turn: Cell<Time>,
    /// Exchanges whose bodies wait for that, and the one of them whose turn it is.
    waiting_for_turn: RefCell<VecDeque<ExchangeId>>,
    turn: Cell<Option<ExchangeId>>,
    pub(crate) upstreams: Upstreams,
    /// Guests' gRPC calls and streams.
    pub(crate) grpc: grpc::Streams,
    /// Who counts limits that gateways share, for upstreams that are this process.
    pub(crate) limits: Arc<rate_limit::Service>,
    pub(crate) clock: Clock,
    pub(crate) telemetry: WorkerTelemetry,
}

impl Worker {
    /// Builds a worker that serves this revision. What is left of it in the end goes to `remains`, what is decided about roll-outs to
    /// `decided`.
    pub(crate) fn new(
        (plan, prepared): (&Plan, Prepared),
        number: u64,
        (telemetry, limits): (WorkerTelemetry, Arc<rate_limit::Service>),
        (remains, decided): (mpsc::Sender<Remains>, mpsc::Sender<Arc<Rollout>>),
        bulkhead: Option<Entrance>,
    ) -> Rc<Self> {
        let clock = Clock::start();
        let mut exchanges = Exchanges::default();
        exchanges.now = clock.now();
        let vms = plan.no_vms().with_clock(move || clock.now());
        let mut vms = if bulkhead.is_some() { vms.without_those_apart() } else { vms.of_those_apart() };
        let workers = plan.snapshot().worker_count();
        // What the bulkhead may use of an upstream comes on top: it is little.
        let parts = if bulkhead.is_some() { workers } else { workers * BULKHEAD_PARTS };
        let upstreams = Upstreams::new(number + 1, parts, telemetry.upstreams());
        let revision = Revision::take_places(prepared, &mut exchanges, &mut vms, &upstreams);
        telemetry.add_filter_cells(revision.new_cells(&vms));
        Rc::new(Self {
            state: RefCell::new(State { exchanges, vms }),
            waiting: RefCell::default(),
            held_up: RefCell::default(),
            timers: Notify::new(),
            shadows: Notify::new(),
            revision: RefCell::new(revision),
            earlier: RefCell::default(),
            remains,
            decided,
            leaving: RefCell::default(),
            ending: Cell::new(false),
            bulkhead,
            next_turn: Cell::default(),
            waiting_for_turn: RefCell::default(),
            turn: Cell::default(),
            upstreams,
            grpc: grpc::Streams::default(),
            limits,
            clock,
            telemetry,
        })
    }

    /// Starts what runs beside the exchanges: guests' timers and housekeeping. Also sees to what guests asked for at their start. The
    /// bulkhead does not ask upstreams for their health before there is something to do.
    pub(crate) fn run(self: &Rc<Self>) {
        self.see_to_rest(&mut self.state.borrow_mut());
        if self.bulkhead.is_some() {
            self.upstreams.run();
        }
        spawn_local(self.clone().run_timers());
        spawn_local(self.clone().read_letters());
        spawn_local(self.clone().run_shadows());
        spawn_local(self.clone().keep_house());
    }

    async fn run_timers(self: Rc<Self>) {
        loop {
            let next = self.state.borrow().vms.next_tick();
            let wait = next.map(|at| at.saturating_since(self.clock.now()));
            let changed = self.timers.notified();
            match wait {
                Some(wait) => _ = tokio::time::timeout(wait, changed).await,
                None => changed.await,
            }
            self.act(|State { exchanges, vms }| vms.tick(exchanges));
        }
    }

    /// Shows shadows what their exchanges were shown: one part at a time, so that nobody else waits for long.
    async fn run_shadows(self: Rc<Self>) {
        loop {
            self.shadows.notified().await;
            while self.act(|State { exchanges, vms }| chain::play_shadow(exchanges, vms)) {
                yield_now().await;
            }
        }
    }

    /// Tells guests of what others have put into their queues: one at a time, so that nobody else waits for long.
    async fn read_letters(self: Rc<Self>) {
        let inbox = self.state.borrow().vms.inbox();
        loop {
            poll_fn(|cx| inbox.poll(cx)).await;
            let Some(letter) = inbox.take() else { continue };
            if self.waits_for_turn(letter.vm()).is_none() {
                self.read(&letter);
            } else {
                let worker = self.clone();
                spawn_local(async move {
                    worker.turn_of_vm(letter.vm()).await;
                    worker.read(&letter);
                });
            }
            yield_now().await;
        }
    }

    fn read(self: &Rc<Self>, letter: &Letter) {
        self.act(|state| {
            state.vms.read(&mut state.exchanges, letter);
            self.vm_had_turn(state, letter.vm());
        });
    }

    async fn keep_house(self: Rc<Self>) {
        let mut every = tokio::time::interval(HOUSEKEEPING);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            self.upstreams.sweep(&self.clock);
            self.telemetry.flush();
            self.act(|state| {
                for (id, failure) in state.exchanges.expired() {
                    if !self.is_told(id, failure) {
                        chain::feed(&mut state.exchanges, &mut state.vms, id, Event::Deadline(failure));
                        self.wake_both(id);
                    }
                }
                self.held_up.take().into_iter().for_each(|id| self.wake_both(id));
                self.give_turn(state);
                self.free_revisions(state);
                self.rest_vms(state);
            });
        }
    }

    /// Whether an exchange without progress has been told so before. After some time it is cut off: a client that does not read
    /// leaves nobody to take in what happened.
    fn is_told(&self, id: ExchangeId, failure: Failure) -> bool {
        if !matches!(failure, Failure::Idle | Failure::RequestTimeout | Failure::ClientSlow) {
            return false;
        }
        let mut waiting = self.waiting.borrow_mut();
        let Some(waiting) = waiting.get_mut(id.index()) else { return false };
        waiting.overdue = waiting.overdue.saturating_add(1);
        if waiting.overdue == HOPELESS
            && let Some(tie) = &waiting.tie
        {
            self.telemetry.timed_out(Overdue::Stream);
            tie.cut();
        }
        waiting.overdue > 1
    }

    /// Feeds an event to an exchange, and sees to everything that comes of it.
    pub(crate) fn feed(self: &Rc<Self>, id: ExchangeId, event: Event) {
        // Whoever feeds a direction looks at it again at once, so only the other one needs to be woken.
        let other = match event {
            Event::Request(_) | Event::Accepted => Direction::Response,
            Event::Response(_) | Event::Connected(_) | Event::UpstreamFailed(_) | Event::Deadline(_) | Event::Woken => {
                Direction::Request
            }
        };
        self.act(|State { exchanges, vms }| {
            chain::feed(exchanges, vms, id, event);
            self.had_turn(id, exchanges.now);
            let concerns_other = exchanges.get(id).is_none_or(|exchange| {
                exchange.has_effects(other) || exchange.wants(other, &exchanges.limits) == Wants::Closed
            });
            if concerns_other {
                self.wake(id, other);
            }
        });
    }

    /// Hands a callout's outcome to the guest that asked.
    pub(crate) fn deliver(self: &Rc<Self>, root: ContextRef, token: u32, response: CalloutResponse) {
        self.act(|state| {
            state.vms.deliver(&mut state.exchanges, root, token, response);
            self.vm_had_turn(state, root.vm);
        });
    }

    /// Tells a guest what came of its gRPC call or stream; whether there still is one to tell.
    pub(crate) fn hear(self: &Rc<Self>, root: ContextRef, token: u32, news: News) -> bool {
        self.act(|state| {
            let heard = state.vms.hear(&mut state.exchanges, root, token, news);
            self.vm_had_turn(state, root.vm);
            heard
        })
    }

    /// Whether nothing new is begun on behalf of guests.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.get()
    }

    /// Does something to exchanges or guests at the present time, and sees to everything that comes of it.
    fn act<T>(self: &Rc<Self>, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.present();
        let done = act(&mut state);
        self.see_to_rest(&mut state);
        done
    }

    /// What was done leads to more: other exchanges go on, callouts begin, timers are set.
    fn see_to_rest(self: &Rc<Self>, state: &mut State) {
        let State { exchanges, vms } = state;
        while let Some(id) = exchanges.next_woken() {
            chain::feed(exchanges, vms, id, Event::Woken);
            self.wake_both(id);
        }
        for callout in exchanges.callouts.drain(..).filter(|_| !self.ending.get()) {
            spawn_local(callout::run(self.clone(), callout));
        }
        for wish in exchanges.grpc.drain(..) {
            grpc::grant(self, wish);
        }
        if !exchanges.shadowed.is_empty() {
            self.shadows.notify_one();
        }
        // Where nobody takes it, the process is about to end.
        exchanges.decided.drain(..).for_each(|rollout| _ = self.decided.send(rollout));
        if std::mem::take(&mut exchanges.timers_changed) {
            self.timers.notify_one();
        }
    }

    /// The state, with its time set to now.
    fn present(&self) -> RefMut<'_, State> {
        let mut state = self.state.borrow_mut();
        state.exchanges.now = self.clock.now();
        state
    }

    fn wake_both(&self, id: ExchangeId) {
        self.wake(id, Direction::Request);
        self.wake(id, Direction::Response);
    }

    fn wake(&self, id: ExchangeId, direction: Direction) {
        if let Some(waker) =
            self.waiting.borrow_mut().get_mut(id.index()).and_then(|waiting| waiting.side(direction).take())
        {
            waker.wake();
        }
    }

    /// Notes who is to be woken when there is news for this direction.
    pub(crate) fn wait(&self, id: ExchangeId, direction: Direction, cx: &Context<'_>) {
        if let Some(waiting) = self.waiting.borrow_mut().get_mut(id.index()) {
            match waiting.side(direction) {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
        }
    }

    /// The most bytes a callout's response may have.
    pub(crate) fn callout_limit(&self) -> usize {
        self.state.borrow().exchanges.limits.callout_response_bytes
    }
}
