//! Changes of revision: made ready first, then put into use everywhere, or not at all.
//!
//! Everything that takes time or can fail happens on the thread that asks for the change: compiling, starting guests, binding
//! addresses, making every worker's routing table. Workers are handed what is ready, say that they have it, and then switch
//! between two requests. **Invariant:** until all of them have said so, nothing that is served has changed.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, SystemTime};

use portcullis_core::rollout::Rollout;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use super::RunError;
use super::crew::{Order, OwnSockets};
use crate::clock;
use crate::config::snapshot::{Admin, Drain, Snapshot};
use crate::config::standing::Held;
use crate::inherited::Inherited;
use crate::listener::Room;
use crate::plan::Plan;
use crate::revision::Prepared;
use crate::services::rate_limit;
use crate::sockets::{Bound, Key, Sockets};
use crate::telemetry::{Exporter, Telemetry};
use crate::tls::{self, watch::Watch};

/// How long a worker may take to take a revision in. All that takes time has been done before.
const TAKE_IN: Duration = Duration::from_secs(10);

/// Where the workers take their orders, once all have started.
pub(super) type Workers = Arc<OnceLock<Crews>>;

/// Where each takes its orders.
#[derive(Debug, Default)]
pub(super) struct Crews {
    /// Those with clients.
    pub(super) workers: Vec<UnboundedSender<Order>>,
    /// Nobody waits for these to obey: they get what processor time others leave. They do before they take the next request in.
    pub(super) bulkhead: Vec<UnboundedSender<Order>>,
}

impl Crews {
    /// All of them; the bulkhead first, so that no request is handed over under a revision that it has not been told of.
    fn all(&self) -> impl Iterator<Item = &UnboundedSender<Order>> {
        self.bulkhead.iter().chain(&self.workers)
    }
}

/// What a change of revision needs.
pub(super) struct Control {
    /// What is served.
    pub(super) plan: Arc<Plan>,
    workers: Workers,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) shown: watch::Sender<Shown>,
    sockets: Sockets,
    _tls_files: Watch,
    pub(super) room: Arc<Room>,
    pub(super) exporter: Exporter,
    pub(super) rate_limit: rate_limit::Host,
    /// Where its service listened when the gateway started.
    pub(super) rate_limit_address: Option<SocketAddr>,
}

/// What the gateway tells of its configuration.
#[derive(Clone, Debug)]
pub struct Shown {
    /// How many revisions there were since the start, the one that is served included.
    pub revision: u64,
    /// The same wherever the same is configured.
    pub digest: String,
    /// When it was put into use.
    pub since: SystemTime,
    /// The configuration.
    pub snapshot: Arc<Snapshot>,
    /// The admin listener's own.
    pub admin: Option<Admin>,
    /// How the gateway ends.
    pub drain: Drain,
    /// When the last change was refused, and why; absent when it was not.
    pub refused: Option<(SystemTime, Arc<str>)>,
    /// The tenants whose files are not in use.
    pub held: Arc<Held>,
    /// The roll-outs of plugins' next versions.
    pub rollouts: Arc<[Arc<Rollout>]>,
}

impl Shown {
    fn new(revision: u64, plan: &Plan) -> Self {
        let snapshot = plan.snapshot();
        Self {
            revision,
            digest: snapshot.digest(),
            since: SystemTime::now(),
            snapshot: snapshot.clone(),
            admin: snapshot.admin.clone(),
            drain: snapshot.drain,
            refused: None,
            held: snapshot.held.clone(),
            rollouts: plan.rollouts().into(),
        }
    }
}

/// A change of the configuration that has been put into use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The number of the revision.
    pub revision: u64,
    /// The keys whose new values hold only once the gateway starts anew.
    pub at_next_start: Vec<&'static str>,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("shown", &self.shown).finish_non_exhaustive()
    }
}

impl Control {
    /// What the first revision begins with; the workers are still to come.
    pub(super) fn new(
        plan: Arc<Plan>,
        workers: Workers,
        sockets: Sockets,
        telemetry: Arc<Telemetry>,
    ) -> Result<Self, RunError> {
        let mut rate_limit = rate_limit::Host::new(telemetry.rate_limit());
        let socket = rate_limit.bind(plan.snapshot())?;
        let rate_limit_address = socket.address();
        rate_limit.follow(plan.snapshot(), socket)?;
        plan.set_limits();
        plan.decisions().follow(plan.rollouts(), &plan.snapshot().held);
        let shown = Shown::new(1, &plan);
        tell(&telemetry, &plan, &shown);
        let _tls_files = Watch::start(plan.snapshot())?;
        let room = Arc::new(Room::survey());
        room.allow(plan.snapshot().max_connections);
        let mut exporter = telemetry.exporter();
        exporter.follow(plan.snapshot())?;
        let shown = watch::Sender::new(shown);
        Ok(Self {
            plan,
            workers,
            telemetry,
            shown,
            sockets,
            _tls_files,
            room,
            exporter,
            rate_limit,
            rate_limit_address,
        })
    }

    pub(super) fn apply(&mut self, mut snapshot: Snapshot) -> Result<Applied, RunError> {
        snapshot.keep_tls_of(self.plan.snapshot());
        let snapshot = Arc::new(snapshot);
        let tls_files = Watch::start(&snapshot)?;
        let plan = Arc::new(self.plan.next(snapshot.clone())?);
        let workers = self.workers.get().map_or(0, |crews| crews.workers.len());
        let new = bind_new(&self.sockets, &snapshot, workers, &Inherited::default())?;
        let rate_limit_socket = self.rate_limit.bind(&snapshot)?;
        let mut prepared = Vec::new();
        for number in 0..workers {
            let own = new.iter().map(|bound| bound.for_worker(number)).collect::<Result<Vec<_>, _>>()?;
            prepared.push((
                Prepared::new(&plan, number, Some(&self.plan), clock::now())?,
                own.into_iter().flatten().collect(),
            ));
        }
        if let Err(error) = self.take_in(&plan, prepared) {
            self.order(|| Order::Forget);
            return Err(error);
        }
        self.sockets.keep(&snapshot.listeners);
        self.sockets.add(new);
        self._tls_files = tls_files;
        self.room.allow(snapshot.max_connections);
        if let Err(error) = self.exporter.follow(&snapshot) {
            tracing::error!(%error, "nothing can be sent to the collector");
        }
        if let Err(error) = self.rate_limit.follow(&snapshot, rate_limit_socket) {
            tracing::error!(%error, "the rate-limit service cannot run");
        }
        plan.set_limits();
        plan.decisions().follow(plan.rollouts(), &snapshot.held);
        self.order(|| Order::Switch);
        let at_next_start = self.plan.snapshot().only_at_start(&snapshot);
        self.plan = plan;
        let revision = self.shown.borrow().revision + 1;
        let shown = Shown::new(revision, &self.plan);
        tell(&self.telemetry, &self.plan, &shown);
        self.shown.send_replace(shown);
        Ok(Applied { revision, at_next_start })
    }

    /// Compiles modules and starts guests as for a change, and ends them again.
    pub(super) fn rehearse(&self, snapshot: Snapshot) -> Result<Arc<Snapshot>, RunError> {
        let snapshot = Arc::new(snapshot);
        let plan = Arc::new(self.plan.next(snapshot.clone())?);
        plan.start_vms(clock::now())?;
        Ok(snapshot)
    }

    pub(super) fn refused(&self, why: &str) {
        self.telemetry.refused_revision();
        self.shown.send_modify(|shown| shown.refused = Some((SystemTime::now(), why.into())));
    }

    /// Has every worker take in what was made ready for it, and the bulkhead what it needs of the plan.
    fn take_in(&self, plan: &Arc<Plan>, prepared: Vec<(Prepared, OwnSockets)>) -> Result<(), RunError> {
        let Some(crews) = self.workers.get() else { return Ok(()) };
        let (answer, answers) = mpsc::channel();
        for (worker, (prepared, sockets)) in crews.workers.iter().zip(prepared) {
            let order = Order::TakeIn(Box::new(prepared), sockets, answer.clone());
            worker.send(order).map_err(|_| RunError::Lost)?;
        }
        drop(answer);
        for (number, worker) in (crews.workers.len()..).zip(&crews.bulkhead) {
            let prepared = Prepared::cold(plan, number, Some(&self.plan));
            let (answer, _unread) = mpsc::channel();
            // One that has ended gets no more requests.
            let _gone = worker.send(Order::TakeIn(Box::new(prepared), Vec::new(), answer));
        }
        for _ in &crews.workers {
            answers.recv_timeout(TAKE_IN).map_err(|error| match error {
                mpsc::RecvTimeoutError::Timeout => RunError::Stuck(TAKE_IN),
                mpsc::RecvTimeoutError::Disconnected => RunError::Lost,
            })??;
        }
        Ok(())
    }

    fn order(&self, order: impl Fn() -> Order) {
        for crew in self.workers.get().into_iter().flat_map(Crews::all) {
            // One that has ended serves nothing, and needs no orders.
            let _gone = crew.send(order());
        }
    }
}

/// Has scrapes show what is served now.
fn tell(telemetry: &Telemetry, plan: &Plan, shown: &Shown) {
    telemetry.show_tenants(plan.accounts(), shown.held.clone());
    telemetry.show_rollouts(plan.rollouts());
    telemetry.set_revision(shown.revision, &shown.digest);
    telemetry.show_tls_files(tls::watch::shown(&shown.snapshot));
}

/// Orders every worker with clients to do something; returns how many there are.
pub(super) fn send_to_workers(workers: &Workers, order: impl Fn() -> Order) -> usize {
    let workers = workers.get().map_or(&[][..], |crews| crews.workers.as_slice());
    for worker in workers {
        // One that has ended does not answer, which is what is asked.
        let _gone = worker.send(order());
    }
    workers.len()
}

/// Sockets for those listeners that have none yet.
pub(super) fn bind_new(
    sockets: &Sockets,
    snapshot: &Snapshot,
    workers: usize,
    inherited: &Inherited,
) -> Result<Vec<Bound>, RunError> {
    let new = snapshot.listeners.iter().filter(|listener| !sockets.has(&Key::of(listener)));
    new.map(|listener| {
        Bound::new(listener, workers, inherited).map_err(|source| RunError::Bind {
            what: format!("listener `{}`", listener.name),
            address: listener.bind,
            source,
        })
    })
    .collect()
}
