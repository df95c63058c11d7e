//! The whole gateway: its workers, its admin listener, its start and its end.
//!
//! Nothing is served before every module is compiled and every guest started and configured on every worker: what would fail
//! later fails here, with its reason.

mod control;
mod crew;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use portcullis_vm::Compiler;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::watch;

pub use self::control::{Applied, Shown};
use self::control::{Control, Crews, Workers};
use self::crew::{Order, Post, Side};
use crate::admin::{self, AdminState, Readiness};
use crate::bulkhead;
use crate::config::Node;
use crate::config::snapshot::{Drain, Snapshot};
use crate::config::standing::Unusable;
use crate::decisions::Decisions;
use crate::inherited::Inherited;
use crate::plan::{NotStarted, Plan, PlanError};
use crate::revision;
use crate::sockets::Sockets;
use crate::telemetry::Telemetry;
use crate::tryout;

/// Why the gateway did not start, or a revision of its configuration was not put into use.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A module could not be loaded.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A guest could not be started.
    #[error(transparent)]
    Start(#[from] NotStarted),
    /// An address could not be bound.
    #[error("{what} cannot listen on {address}: {source}")]
    Bind {
        /// Which listener.
        what: String,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A thread or runtime could not be started.
    #[error("a worker could not be started: {0}")]
    Worker(#[from] io::Error),
    /// The access log's file could not be opened.
    #[error("the access log cannot be written: {0}")]
    AccessLog(#[source] io::Error),
    /// A worker ended before it had said whether it started.
    #[error("a worker ended while it was starting")]
    Lost,
    /// A worker did not answer.
    #[error("a worker did not answer within {0:?}")]
    Stuck(Duration),
}

impl RunError {
    /// The tenant for whose sake it happened, if it is one's.
    #[must_use]
    pub fn tenant(&self) -> Option<&Arc<str>> {
        match self {
            Self::Plan(PlanError::Load { tenant, .. }) => tenant.as_ref(),
            Self::Start(error) => error.tenant(),
            Self::Plan(PlanError::Engine(_))
            | Self::Bind { .. }
            | Self::Worker(_)
            | Self::AccessLog(_)
            | Self::Lost
            | Self::Stuck(_) => None,
        }
    }
}

impl Unusable<RunError> {
    /// What keeps a configuration from being used that was written there.
    pub(crate) fn written(why: RunError, tree: &Node) -> Self {
        Self { tenant: why.tenant().cloned(), problems: tryout::located(&why, tree), why: Box::new(why) }
    }
}

/// What is not in the configuration.
#[derive(Debug, Default)]
pub struct Options {
    /// Where compiled modules are kept; nowhere if absent.
    pub cache: Option<PathBuf>,
    /// How many VMs there may be over all workers; the engine's default if absent.
    pub max_vms: Option<u32>,
    /// Where modules are compiled; in this process if absent.
    pub compiler: Option<Compiler>,
    /// Who reads the configuration anew when the admin listener is asked for it; nobody if absent.
    pub reloads: Option<UnboundedSender<admin::Request>>,
    /// Sockets to accept on instead of binding new ones.
    pub inherited: Inherited,
    /// Where decisions about roll-outs are kept for the next start; nowhere if absent.
    pub decisions: Option<PathBuf>,
}

/// A running gateway. Dropping it stops it.
#[derive(Debug)]
pub struct Gateway {
    /// Each listener's name and the address it has, as it was started.
    pub listeners: Vec<(String, SocketAddr)>,
    /// The admin listener's address.
    pub admin: Option<SocketAddr>,
    /// Where its rate-limit service listens, if it has one.
    pub rate_limit: Option<SocketAddr>,
    handle: Handle,
    workers: Vec<JoinHandle<()>>,
    /// Threads that go on until the workers have ended.
    others: Vec<JoinHandle<()>>,
}

/// What can be done to a running gateway, from any thread.
#[derive(Clone, Debug)]
pub struct Handle {
    phase: watch::Sender<Phase>,
    readiness: Arc<Readiness>,
    #[allow(clippy::disallowed_types, reason = "taken for a change of revision, which no request waits for")]
    control: Arc<std::sync::Mutex<Control>>,
    // Beside the lock, since a change may hold it for as long as compiling takes.
    workers: Workers,
    sockets: Sockets,
    shown: watch::Receiver<Shown>,
    decisions: Arc<Decisions>,
    /// The admin listener's socket, until a successor has it.
    admin: watch::Sender<Option<Arc<std::net::TcpListener>>>,
}

impl Handle {
    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts another configuration into use.
    ///
    /// Modules are compiled, guests started and addresses bound first. What is being served goes on as it is until every worker
    /// has all of it ready, and exchanges under way stay with the revision they began with. Blocks for as long as that takes.
    ///
    /// # Errors
    /// When a module cannot be loaded, a guest not started, or an address not bound; nothing has changed then.
    pub fn apply(&self, snapshot: Snapshot) -> Result<Applied, RunError> {
        self.control().apply(snapshot)
    }

    /// Does all of [`Self::apply`] that can fail, and leaves everything as it is.
    ///
    /// # Errors
    /// When a module cannot be loaded, or a guest not started.
    pub fn rehearse(&self, snapshot: Snapshot) -> Result<Arc<Snapshot>, RunError> {
        self.control().rehearse(snapshot)
    }

    /// The configuration that is served.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shown.borrow().snapshot.clone()
    }

    /// The directory of the tenants that are changed over the admin listener, if there is one.
    pub(crate) fn tenants_folder(&self) -> Option<PathBuf> {
        self.shown.borrow().admin.as_ref()?.tenants.clone()
    }

    /// Notes that a configuration was refused, for operators to see why.
    pub fn refused(&self, why: &str) {
        self.control().refused(why);
    }

    /// Goes on as before, but says that it is not ready, so that nobody begins to send requests.
    pub fn drain(&self) {
        self.readiness.set_draining();
        self.advance(Phase::Draining);
    }

    /// Accepts nothing more, and lets open exchanges end until the configured deadline.
    pub fn close(&self) {
        self.readiness.set_draining();
        // Connections that wait in a queue are lost with its last handle: workers look there before they close theirs.
        self.sockets.close();
        self.advance(Phase::Closing);
    }

    /// Handles on all sockets, for a successor.
    pub(crate) fn sockets_to_pass_on(&self) -> io::Result<Vec<OwnedFd>> {
        let mut sockets = self.sockets.to_pass_on()?;
        if let Some(admin) = &*self.admin.borrow() {
            sockets.push(admin.try_clone()?.into());
        }
        Ok(sockets)
    }

    /// Leaves to a successor what only one process can have: the admin listener, and what is kept on disk.
    pub(crate) fn make_way(&self) {
        self.admin.send_replace(None);
        self.decisions.leave();
    }

    /// Cuts off what is still open.
    pub fn cut_off(&self) {
        self.advance(Phase::Ended);
    }

    /// How the configuration that is served says that the gateway should end.
    #[must_use]
    pub fn how_to_drain(&self) -> Drain {
        self.shown.borrow().drain
    }

    /// Has every worker with clients answer, and returns where the answers come.
    pub(crate) fn call_roll(&self) -> (usize, mpsc::Receiver<()>) {
        let (answer, answers) = mpsc::channel();
        (control::send_to_workers(&self.workers, || Order::Answer(answer.clone())), answers)
    }

    /// Phases are never gone back to.
    fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let is_ahead = *phase < to;
            *phase = to.max(*phase);
            is_ahead
        });
    }
}

impl Gateway {
    /// What can be done to it from other threads.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Tells the gateway to stop, and waits until open exchanges have ended or their time is up.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.handle.close();
        // A thread that panicked has said so on stderr.
        self.workers.drain(..).for_each(|thread| _ = thread.join());
        let mut control = self.handle.control();
        control.exporter.end();
        control.rate_limit.end();
        drop(control);
        self.handle.advance(Phase::Ended);
        self.others.drain(..).for_each(|thread| _ = thread.join());
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the gateway is at; all threads watch it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Guests are being started; connections wait.
    Starting,
    /// Requests are served.
    Serving,
    /// They still are, but others are asked not to send any more.
    Draining,
    /// No new connections; open exchanges finish.
    Closing,
    /// Nothing is served any more.
    Ended,
}

/// Starts the gateway.
///
/// # Errors
/// When a module cannot be loaded, a guest not started, or an address not bound; nothing is left running then.
pub fn start(snapshot: Snapshot, options: &Options) -> Result<Gateway, RunError> {
    let snapshot = Arc::new(snapshot);
    let processors = || thread::available_parallelism().map_or(1, usize::from);
    let workers = snapshot.workers.map_or_else(processors, usize::from);
    let telemetry = Telemetry::new(&snapshot.access_log).map_err(RunError::AccessLog)?;
    let plan = Arc::new(Plan::new(snapshot.clone(), options)?);
    let decisions = plan.decisions().clone();
    let sockets = Sockets::default();
    let bound = control::bind_new(&sockets, &snapshot, workers, &options.inherited)?;
    let names = snapshot.listeners.iter().map(|listener| listener.name.to_string());
    let listeners = names.zip(bound.iter().map(|bound| bound.address)).collect();
    sockets.add(bound);
    let orders = Workers::default();
    let control = Control::new(plan, orders.clone(), sockets.clone(), telemetry.clone())?;
    let rate_limit = control.rate_limit_address;
    let shown = control.shown.subscribe();
    let handle = Handle {
        phase: watch::Sender::new(Phase::Starting),
        readiness: Arc::default(),
        control: Arc::new(control.into()),
        workers: orders,
        sockets,
        shown: shown.clone(),
        decisions: decisions.clone(),
        admin: watch::Sender::new(None),
    };
    let mut gateway = Gateway { listeners, admin: None, rate_limit, handle, workers: Vec::new(), others: Vec::new() };
    if let Some(admin) = &snapshot.admin {
        let readiness = gateway.handle.readiness.clone();
        gateway.start_admin(
            AdminState::new(telemetry, readiness, shown, options.reloads.clone()).keeping(decisions),
            admin.bind,
            &options.inherited,
        )?;
    }
    options.inherited.close_rest();
    gateway.start_workers(workers)?;
    gateway.handle.advance(Phase::Serving);
    gateway.handle.readiness.set_ready();
    Ok(gateway)
}

impl Gateway {
    /// Starts the workers and the bulkhead, and waits until every one of them could serve.
    fn start_workers(&mut self, count: usize) -> Result<(), RunError> {
        let (remains, to_take_apart) = mpsc::channel();
        let take_apart = thread::Builder::new().name("take-apart".to_owned());
        self.others.push(take_apart.spawn(move || revision::take_apart(to_take_apart))?);
        let (decide, decided) = mpsc::channel();
        let decisions = self.handle.decisions.clone();
        let keep = thread::Builder::new().name("decisions".to_owned());
        self.others.push(keep.spawn(move || decisions.attend(decided))?);
        let (started, starting) = mpsc::channel();
        let (entrance, exits) = bulkhead::open(count);
        let clients = (0..count).map(|number| (format!("worker-{number}"), Side::Clients(entrance.clone())));
        let bulkhead =
            exits.into_iter().enumerate().map(|(number, exit)| (format!("bulkhead-{number}"), Side::Bulkhead(exit)));
        let sides: Vec<_> = clients.chain(bulkhead).collect();
        drop(entrance);
        let threads = sides.len();
        let mut crews = Crews::default();
        for (number, (name, side)) in sides.into_iter().enumerate() {
            let (order, ordered) = unbounded_channel();
            match side {
                Side::Clients(_) => crews.workers.push(order),
                Side::Bulkhead(_) => crews.bulkhead.push(order),
            }
            let control = self.handle.control();
            let post = Post {
                number,
                plan: control.plan.clone(),
                sockets: self.handle.sockets.for_worker(number)?,
                telemetry: control.telemetry.clone(),
                room: control.room.clone(),
                limits: control.rate_limit.service().clone(),
                remains: remains.clone(),
                decided: decide.clone(),
                started: started.clone(),
                orders: ordered,
                phase: self.handle.phase.subscribe(),
                side,
            };
            drop(control);
            self.workers.push(thread::Builder::new().name(name).spawn(move || post.man())?);
        }
        drop(started);
        // Set once only: these are the workers there will ever be.
        let _ = self.handle.workers.set(crews);
        for _ in 0..threads {
            starting.recv().map_err(|_| RunError::Lost)??;
        }
        Ok(())
    }

    fn start_admin(&mut self, state: AdminState, address: SocketAddr, inherited: &Inherited) -> Result<(), RunError> {
        let bind = |source| RunError::Bind { what: "the admin listener".to_owned(), address, source };
        let inherited = inherited.take(address, "admin").pop();
        let socket = inherited.map_or_else(|| std::net::TcpListener::bind(address), Ok).map_err(bind)?;
        socket.set_nonblocking(true).map_err(bind)?;
        self.admin = Some(socket.local_addr().map_err(bind)?);
        self.handle.admin.send_replace(Some(Arc::new(socket.try_clone().map_err(bind)?)));
        let (mut phase, mut own) = (self.handle.phase.subscribe(), self.handle.admin.subscribe());
        let serve = move || {
            let Ok(runtime) = runtime() else { return };
            runtime.block_on(async {
                let Ok(listener) = tokio::net::TcpListener::from_std(socket) else { return };
                tokio::select! {
                    () = admin::serve(listener, state) => {}
                    _ = phase.wait_for(|phase| *phase == Phase::Ended) => {}
                    _ = own.wait_for(Option::is_none) => {}
                }
            });
        };
        self.others.push(thread::Builder::new().name("admin".to_owned()).spawn(serve)?);
        Ok(())
    }
}

pub(crate) fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_io().enable_time().build_local(LocalOptions::default())
}
