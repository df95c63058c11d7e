//! A worker's thread: its listeners, or its side of the bulkhead, and the orders it takes from the supervisor.

use std::io;
use std::rc::Rc;
use std::sync::{Arc, mpsc};

use portcullis_core::rollout::Rollout;
use tokio::net::TcpListener;
use tokio::sync::{mpsc::UnboundedReceiver, watch};
use tokio::task::{JoinHandle, spawn_local};

use super::{Phase, RunError, runtime};
use crate::bulkhead::{self, Bulkhead, Entrance, Exit};
use crate::clock;
use crate::config::snapshot::Listener;
use crate::listener::{self, Gate, Listening, Places, Room};
use crate::plan::Plan;
use crate::revision::{Prepared, Remains, Revision};
use crate::services::rate_limit;
use crate::sockets::{self, Key};
use crate::telemetry::Telemetry;
use crate::worker::Worker;

/// Sockets of one worker, with the listeners they belong to.
pub(super) type OwnSockets = Vec<sockets::Handle>;

/// The same, watched by the worker's runtime.
type Registered = Vec<(Key, TcpListener, Arc<Places>)>;

/// What the supervisor has a worker do.
pub(super) enum Order {
    /// Take a revision in, with the sockets of those listeners that are new; say when it could be served, or why not.
    TakeIn(Box<Prepared>, OwnSockets, mpsc::Sender<io::Result<()>>),
    /// Serve the revision that was taken in.
    Switch,
    /// Forget it.
    Forget,
    /// Say that it is there.
    Answer(mpsc::Sender<()>),
}

/// What a worker's thread begins with.
pub(super) struct Post {
    pub(super) number: usize,
    pub(super) plan: Arc<Plan>,
    pub(super) sockets: OwnSockets,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) room: Arc<Room>,
    /// Who counts limits that gateways share.
    pub(super) limits: Arc<rate_limit::Service>,
    pub(super) remains: mpsc::Sender<Remains>,
    /// Where roll-outs go about which something has been decided.
    pub(super) decided: mpsc::Sender<Arc<Rollout>>,
    pub(super) started: mpsc::Sender<Result<(), RunError>>,
    pub(super) orders: UnboundedReceiver<Order>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) side: Side,
}

/// On which side of the bulkhead a worker is.
pub(super) enum Side {
    /// It has clients, and hands requests over here.
    Clients(Entrance),
    /// It is the bulkhead, and takes them here.
    Bulkhead(Exit),
}

impl Post {
    /// Runs a worker from its start to its end, on this thread.
    pub(super) fn man(self) {
        let Self { number, plan, sockets, telemetry, room, limits, remains, decided, .. } = self;
        let (started, mut orders, mut phase, side) = (self.started, self.orders, self.phase, self.side);
        let (entrance, exit) = match side {
            Side::Clients(entrance) => (Some(entrance), None),
            Side::Bulkhead(exit) => (None, Some(exit)),
        };
        let ready = || -> Result<_, RunError> {
            let prepared = match exit {
                None => Prepared::new(&plan, number, None, clock::now())?,
                Some(_) => Prepared::cold(&plan, number, None),
            };
            let counted = (telemetry.worker(), limits);
            let outlets = (remains, decided);
            Ok((runtime()?, Worker::new((&plan, prepared), number as u64, counted, outlets, entrance)))
        };
        let (runtime, worker) = match ready() {
            Ok(ready) => ready,
            Err(error) => {
                // Nobody listens any more only when another worker has failed before.
                let _ = started.send(Err(error));
                return;
            }
        };
        drop(plan);
        let bulkhead = exit.map(|exit| Bulkhead::new(worker.clone(), exit));
        let is_bulkhead = bulkhead.is_some();
        let mut crew = Crew::new(worker.clone(), room, bulkhead);
        let _ = started.send(Ok(()));
        drop(started);
        if is_bulkhead {
            bulkhead::step_back();
        }
        runtime.block_on(async {
            // The sender lives as long as the gateway: an error means that it is gone, and so is the reason to serve.
            if phase.wait_for(|phase| *phase != Phase::Starting).await.is_ok_and(|phase| *phase == Phase::Serving) {
                crew.serve(sockets, &mut orders, &mut phase).await;
                let deadline = worker.revision().drain().deadline;
                tokio::select! {
                    () = crew.close() => {}
                    () = tokio::time::sleep(deadline) => {}
                    _ = phase.wait_for(|phase| *phase == Phase::Ended) => {}
                }
            }
        });
        let cut = worker.prepare_end();
        if cut > 0 {
            tracing::warn!(worker = number, exchanges = cut, "exchanges were cut off: their time was up");
        }
        // First the connections, and with them the exchanges; then the guests that would still hear of those.
        drop((crew, runtime));
        worker.telemetry.flush();
        worker.end_guests();
    }
}

/// A worker with its listeners.
struct Crew {
    worker: Rc<Worker>,
    room: Arc<Room>,
    listening: Vec<(Rc<Listening>, JoinHandle<()>)>,
    /// Listeners that were closed and may still have connections.
    closed: Vec<Rc<Listening>>,
    /// A revision that has been taken in and is not served yet, and its new sockets.
    taken_in: Option<(Rc<Revision>, Registered)>,
    /// It has no listeners, but this.
    bulkhead: Option<Bulkhead>,
}

impl Crew {
    fn new(worker: Rc<Worker>, room: Arc<Room>, bulkhead: Option<Bulkhead>) -> Self {
        Self { worker, room, listening: Vec::new(), closed: Vec::new(), taken_in: None, bulkhead }
    }

    /// Serves what the worker was built with, and takes orders, until the gateway closes or is gone.
    async fn serve(
        &mut self,
        sockets: OwnSockets,
        orders: &mut UnboundedReceiver<Order>,
        phase: &mut watch::Receiver<Phase>,
    ) {
        self.worker.run();
        match registered(sockets) {
            Ok(sockets) => self.listen(self.worker.revision().listeners(), sockets),
            Err(error) => tracing::error!(%error, "a worker cannot listen"),
        }
        loop {
            tokio::select! {
                // First of all: a request that was handed over under a revision finds it in use.
                biased;
                order = orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return,
                },
                () = step(&mut self.bulkhead) => {}
                _ = phase.wait_for(|phase| *phase > Phase::Draining) => return,
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::TakeIn(prepared, sockets, answer) => {
                let taken_in = registered(sockets).map(|sockets| {
                    self.forget();
                    self.taken_in = Some((self.worker.take_in(*prepared), sockets));
                });
                // The supervisor that does not wait any longer will order to forget it.
                let _ = answer.send(taken_in);
            }
            Order::Switch => {
                if let Some((revision, sockets)) = self.taken_in.take() {
                    self.worker.switch(revision.clone());
                    self.listen(revision.listeners(), sockets);
                }
            }
            Order::Forget => self.forget(),
            // Nobody waits for those that come too late.
            Order::Answer(answer) => _ = answer.send(()),
        }
    }

    fn forget(&mut self) {
        if let Some((revision, _)) = self.taken_in.take() {
            self.worker.discard(revision);
        }
    }

    /// Makes the listeners those of a revision.
    fn listen(&mut self, listeners: &[Arc<Listener>], sockets: Registered) {
        let wanted = |key: &Key| listeners.iter().find(|listener| Key::of(listener) == *key);
        for (listening, _) in self.listening.extract_if(.., |(listening, _)| wanted(&listening.key).is_none()) {
            listening.close();
            self.closed.push(listening);
        }
        self.closed.retain(|listening| !listening.is_over());
        for (listening, _) in &self.listening {
            if let Some(listener) = wanted(&listening.key) {
                listening.change(listener);
            }
        }
        for (key, socket, places) in sockets {
            let Some(listener) = wanted(&key) else { continue };
            let known = self.listening.iter().find(|(listening, _)| listening.key == key);
            let listening = known.map_or_else(
                || Listening::new(listener, self.worker.clone(), Gate::new(self.room.clone(), places)),
                |(listening, _)| listening.clone(),
            );
            let run = listener::run(socket, listening.clone());
            self.listening.push((listening, spawn_local(run)));
        }
    }

    /// Accepts nothing more, and waits until every connection has ended.
    async fn close(&mut self) {
        for (listening, task) in self.listening.drain(..) {
            listening.close();
            // It takes in what waits in the socket's queue before it ends.
            let _ended = task.await;
            self.closed.push(listening);
        }
        for listening in self.closed.drain(..) {
            listening.ended().await;
        }
        if let Some(bulkhead) = &mut self.bulkhead {
            bulkhead.close().await;
        }
    }
}

/// What a bulkhead has to do, if there is one.
async fn step(bulkhead: &mut Option<Bulkhead>) {
    if let Some(bulkhead) = bulkhead
        && bulkhead.step().await
    {
        return;
    }
    // Nothing comes any more.
    std::future::pending().await
}

/// Sockets that this thread's runtime watches.
fn registered(sockets: OwnSockets) -> io::Result<Registered> {
    sockets.into_iter().map(|(key, socket, places)| Ok((key, TcpListener::from_std(socket)?, places))).collect()
}
