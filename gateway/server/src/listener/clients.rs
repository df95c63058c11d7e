//! The open connections of one worker's socket: looked at now and then, and told when they shall end.
//!
//! They look at a flag when they are woken, rather than wait for a signal or a timer: a request must not pay for that.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use hyper::rt::Executor;
use portcullis_core::downstream::{Overdue, Patience, Stage, Turn};
use portcullis_core::time::Time;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{MissedTickBehavior, interval};

use super::watched::{Coarse, Stamps};
use crate::config::snapshot::Listener;
use crate::telemetry::WorkerTelemetry;
use crate::worker::Worker;

/// How long a connection that shall end may stay idle. A client that is about to send a request does so within this time.
const IDLE_GRACE: Duration = Duration::from_millis(500);

/// The bounds on how often connections are looked at: ten times within the shortest limit, else.
const MOST_OFTEN: Duration = Duration::from_millis(20);
const LEAST_OFTEN: Duration = Duration::from_millis(500);

/// After so long without a request a connection gives up what it can get again.
const RESTS: Duration = Duration::from_secs(1);
/// A connection without a request keeps its place for so long, whoever else wants one.
const SPARED: Duration = Duration::from_secs(1);
/// How many leave for others in one look: enough for those who come back, too few for a flood to empty the house.
const MOST_AT_ONCE: usize = 64;

/// How often connections with this much patience are looked at.
fn rhythm(patience: &Patience) -> Duration {
    (patience.shortest() / 10).clamp(MOST_OFTEN, LEAST_OFTEN)
}

/// What an exchange can be cut off with: an HTTP/1.1 connection, or one stream of an HTTP/2 connection.
#[derive(Debug)]
pub(crate) struct Lane {
    stamps: Arc<Stamps>,
    is_stream: bool,
    /// How many exchanges live in it: one, or another besides that is about to end elsewhere.
    serving: Cell<u32>,
    /// When a stream's task last ran.
    ran: Cell<Time>,
    cut: Cell<bool>,
    task: RefCell<Option<Waker>>,
}

impl Lane {
    fn new(stamps: Arc<Stamps>, is_stream: bool) -> Rc<Self> {
        let ran = Cell::new(stamps.now());
        Rc::new(Self {
            stamps,
            is_stream,
            serving: Cell::default(),
            ran,
            cut: Cell::default(),
            task: RefCell::default(),
        })
    }

    /// An exchange has begun.
    pub(crate) fn began(&self) {
        self.serving.update(|serving| serving.saturating_add(1));
        if !self.is_stream {
            self.stamps.serving();
        }
    }

    /// It has ended; what it left to be written may not have been.
    pub(crate) fn ended(&self) {
        self.serving.update(|serving| serving.saturating_sub(1));
        if !self.is_stream && self.serving.get() == 0 {
            self.stamps.idle();
        }
    }

    /// Ends the connection, or resets the stream, whatever it is at.
    pub(crate) fn cut(&self) {
        self.cut.set(true);
        if !self.is_stream {
            self.stamps.cut();
        }
        self.wake();
    }

    fn wake(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    /// Whether the client has not taken the last of a response in all that time.
    fn is_stuck(&self, patience: &Patience, now: Time) -> bool {
        self.serving.get() == 0 && !self.cut.get() && now.saturating_since(self.ran.get()) > patience.stream_idle
    }
}

/// One client's connection, as those see it who look after all.
#[derive(Debug)]
pub(crate) struct Client {
    pub(super) lane: Rc<Lane>,
    pub(super) stamps: Arc<Stamps>,
    streams: RefCell<Vec<Rc<Lane>>>,
    /// It has been idle for long enough to give up the HTTP library's buffers.
    resting: Cell<bool>,
    /// The lane of the request that the HTTP library has just handed over, until it starts the task for it.
    next: RefCell<Option<Rc<Lane>>>,
}

impl Client {
    /// The lane of a new HTTP/2 request.
    pub(super) fn lane_for_stream(&self) -> Rc<Lane> {
        let lane = Lane::new(self.stamps.clone(), true);
        self.next.replace(Some(lane.clone()));
        lane
    }

    fn opened(&self, lane: &Rc<Lane>) {
        self.streams.borrow_mut().push(lane.clone());
        self.stamps.serving();
    }

    fn closed(&self, lane: &Rc<Lane>) {
        let mut streams = self.streams.borrow_mut();
        if let Some(at) = streams.iter().position(|open| Rc::ptr_eq(open, lane)) {
            streams.swap_remove(at);
        }
        if streams.is_empty() {
            self.stamps.idle();
        }
    }

    /// Whether it has nothing to say at the moment, and has not had for some time.
    pub(super) fn rests(&self) -> bool {
        self.resting.get() && self.stamps.standing().is_quiet()
    }

    /// Something has come.
    pub(super) fn roused(&self) {
        self.resting.set(false);
    }

    /// Does what is overdue.
    fn look(&self, patience: &Patience, now: Time, telemetry: &WorkerTelemetry) {
        let standing = self.stamps.standing();
        match standing.overdue(patience, now) {
            None => {
                let rests = standing.is_quiet() && now.saturating_since(standing.since) > RESTS;
                if rests && !self.resting.replace(true) {
                    self.lane.wake();
                }
            }
            Some(Overdue::Idle) if standing.stage == Stage::Idle => {
                telemetry.timed_out(Overdue::Idle);
                self.stamps.leave();
                self.lane.wake();
            }
            Some(_) if self.stamps.is_cut() => {}
            Some(kind) => {
                if standing.stage != Stage::Leaving {
                    telemetry.timed_out(kind);
                }
                self.lane.cut();
            }
        }
        for lane in self.streams.borrow().iter().filter(|lane| lane.is_stuck(patience, now)) {
            telemetry.timed_out(Overdue::Stream);
            lane.cut();
        }
    }
}

/// Runs the HTTP/2 library's tasks, one per stream, on the worker's own thread, where each can be cut off.
#[derive(Clone, Debug)]
pub(super) struct Streams(pub(super) Rc<Client>);

impl<F: Future + 'static> Executor<F> for Streams {
    fn execute(&self, task: F) {
        let client = self.0.clone();
        let lane = client.next.take().unwrap_or_else(|| {
            // No request, but one half of a tunnel, whose exchange looks after itself.
            let lane = Lane::new(client.stamps.clone(), true);
            lane.serving.set(1);
            lane
        });
        client.opened(&lane);
        let stream = OpenStream { client, lane };
        spawn_local(async move {
            let mut task = pin!(task);
            poll_fn(|cx| {
                let lane = &stream.lane;
                if lane.cut.get() {
                    return Poll::Ready(());
                }
                lane.ran.set(lane.stamps.now());
                let mut waker = lane.task.borrow_mut();
                if waker.is_none() {
                    *waker = Some(cx.waker().clone());
                }
                drop(waker);
                task.as_mut().poll(cx).map(|_| ())
            })
            .await;
        });
    }
}

struct OpenStream {
    client: Rc<Client>,
    lane: Rc<Lane>,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.client.closed(&self.lane);
    }
}

/// How long a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lasts {
    /// As long as its client likes.
    On,
    /// To the end of the exchange that is under way, or else of the next: whoever is about to send a request is not cut off.
    ForOneMore,
    /// To the end of the exchange that is under way.
    ForThis,
}

/// Open connections that were accepted under the same settings.
#[derive(Debug)]
pub(super) struct Clients {
    pub(super) settings: Arc<Listener>,
    pub(super) clock: Arc<Coarse>,
    lasts: Cell<Lasts>,
    /// How many have been refused since the last look because there was no room.
    wanting: Cell<usize>,
    all: RefCell<HashMap<u64, Rc<Client>>>,
    closed: Notify,
}

impl Clients {
    /// None yet. They are looked after for as long as anyone holds them.
    pub(super) fn new(settings: Arc<Listener>, worker: &Rc<Worker>) -> Rc<Self> {
        let clients = Rc::new(Self {
            settings,
            clock: Arc::default(),
            lasts: Cell::new(Lasts::On),
            wanting: Cell::default(),
            all: RefCell::default(),
            closed: Notify::new(),
        });
        spawn_local(look_after(Rc::downgrade(&clients), worker.clone()));
        clients
    }

    pub(super) fn lasts(&self) -> Lasts {
        self.lasts.get()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.borrow().is_empty()
    }

    /// Adds a connection; the task that asks is the one that serves it.
    pub(super) async fn join(self: Rc<Self>, id: u64) -> Member {
        let task = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let stamps = Arc::new(Stamps::new(self.clock.clone()));
        let lane = Lane::new(stamps.clone(), false);
        lane.task.replace(Some(task));
        let client = Rc::new(Client {
            lane,
            stamps,
            streams: RefCell::default(),
            resting: Cell::default(),
            next: RefCell::default(),
        });
        self.all.borrow_mut().insert(id, client.clone());
        Member { clients: self, client, id }
    }

    /// Looks at every connection, and ends those that have taken too long.
    fn look(&self, now: Time, telemetry: &WorkerTelemetry) {
        self.clock.set(now);
        let all = self.all.borrow();
        all.values().for_each(|client| client.look(&self.settings.patience, now, telemetry));
        self.make_room(&all, now, telemetry);
    }

    /// Somebody was refused for want of room.
    pub(super) fn want_room(&self) {
        self.wanting.set(self.wanting.get() + 1);
    }

    /// Lets some of those without a request go before their time, whose turn it is.
    fn make_room(&self, all: &HashMap<u64, Rc<Client>>, now: Time, telemetry: &WorkerTelemetry) {
        let wanted = self.wanting.take();
        if wanted == 0 {
            return;
        }
        let standings = || all.values().map(|client| (client.stamps.standing(), client));
        let turns = standings().filter_map(|(standing, client)| Some((standing.turn(SPARED, now)?, client)));
        let mut turns: Vec<_> = turns.collect();
        turns.sort_unstable_by_key(|(turn, _)| *turn);
        let silent = standings().filter(|(standing, _)| standing.silent).count();
        let ready = turns.iter().filter(|(turn, _)| matches!(turn, Turn::Silent(_))).count();
        // Whoever is silent makes room in a moment, if not yet: the idle leave only for those for whom that is not enough.
        let leave = wanted.min(ready + wanted.saturating_sub(silent)).min(MOST_AT_ONCE);
        for (turn, client) in turns.into_iter().take(leave) {
            match turn {
                // There is nothing to say, and often nobody to say it to.
                Turn::Silent(_) => {
                    telemetry.timed_out(Overdue::SilentEarly);
                    client.lane.cut();
                }
                Turn::Idle(_) => {
                    telemetry.timed_out(Overdue::IdleEarly);
                    client.stamps.leave();
                    client.lane.wake();
                }
            }
        }
    }

    /// Lets every connection finish what it is at.
    pub(super) fn finish(self: Rc<Self>) {
        self.tell(Lasts::ForOneMore);
        spawn_local(async move {
            tokio::time::sleep(IDLE_GRACE).await;
            self.tell(Lasts::ForThis);
        });
    }

    fn tell(&self, lasts: Lasts) {
        self.lasts.set(lasts);
        self.all.borrow().values().for_each(|client| client.lane.wake());
    }

    /// Waits until there is none.
    pub(super) async fn ended(&self) {
        while !self.is_empty() {
            self.closed.notified().await;
        }
    }
}

async fn look_after(clients: Weak<Clients>, worker: Rc<Worker>) {
    let Some(rhythm) = clients.upgrade().map(|clients| rhythm(&clients.settings.patience)) else { return };
    let mut looks = interval(rhythm);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while let Some(clients) = clients.upgrade() {
        clients.look(worker.clock.now(), &worker.telemetry);
        drop(clients);
        looks.tick().await;
    }
}

/// One connection among [`Clients`], for as long as it lives.
pub(super) struct Member {
    pub(super) clients: Rc<Clients>,
    pub(super) client: Rc<Client>,
    id: u64,
}

impl Member {
    /// Whether the connection is to end, if it ends with those that last so long.
    pub(super) fn ends(&self, at: Lasts) -> bool {
        self.clients.lasts() >= at || self.client.stamps.is_leaving()
    }

    /// Does the work until it is done, or the connection is cut off. The work is polled once more then, to say what can be said.
    pub(super) async fn until_cut<T>(&self, mut work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if self.client.stamps.is_cut() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// What is waited for before there is a request; nothing once no more are taken.
    pub(super) async fn before_requests<T>(&self, mut work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if self.clients.lasts() == Lasts::ForThis => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.clients.all.borrow_mut().remove(&self.id);
        self.clients.closed.notify_one();
    }
}
