//! The whole gateway: its workers, its admin listener, its start and its end.
//!
//! Nothing is served before every module is compiled and every guest started and configured on every worker: what would fail
//! later fails here, with its reason.

mod control;
mod crew;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use portcullis_vm::StartError;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::watch;

use self::control::{Control, bind, for_worker};
use self::crew::Post;
use crate::admin::{self, AdminState, Readiness};
use crate::config::snapshot::{AccessLog, Snapshot};
use crate::plan::{Plan, PlanError};
use crate::revision;
use crate::telemetry::{AccessLogTarget, Telemetry};

/// Why the gateway did not start, or a revision of its configuration was not put into use.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A module could not be loaded.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A guest could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
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
    /// A worker ended before it had said whether it started.
    #[error("a worker ended while it was starting")]
    Lost,
    /// A worker did not answer.
    #[error("a worker did not answer within {0:?}")]
    Stuck(Duration),
}

/// What is not in the configuration.
#[derive(Debug, Default)]
pub struct Options {
    /// Where compiled modules are kept; nowhere if absent.
    pub cache: Option<PathBuf>,
    /// How many VMs there may be over all workers; the engine's default if absent.
    pub max_vms: Option<u32>,
}

/// A running gateway. Dropping it stops it.
#[derive(Debug)]
pub struct Gateway {
    /// Each listener's name and the address it has, as it was started.
    pub listeners: Vec<(String, SocketAddr)>,
    /// The admin listener's address.
    pub admin: Option<SocketAddr>,
    phase: watch::Sender<Phase>,
    workers: Vec<JoinHandle<()>>,
    /// Threads that go on until the workers have ended.
    others: Vec<JoinHandle<()>>,
    #[allow(clippy::disallowed_types, reason = "taken for a change of revision, which no request waits for")]
    control: std::sync::Mutex<Control>,
}

impl Gateway {
    /// Puts another configuration into use, and returns the number of its revision.
    ///
    /// Modules are compiled, guests started and addresses bound first. What is being served goes on as it is until every worker
    /// has all of it ready, and exchanges under way stay with the revision they began with. Blocks for as long as that takes.
    ///
    /// # Errors
    /// When a module cannot be loaded, a guest not started, or an address not bound; nothing has changed then.
    pub fn apply(&self, snapshot: Snapshot) -> Result<u64, RunError> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner).apply(Arc::new(snapshot))
    }

    /// Tells the gateway to stop, and waits until open exchanges have ended or their time is up.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let control = self.control.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Connections that wait in a queue are lost with its last handle: workers look there before they close theirs.
        control.sockets.clear();
        self.phase.send_replace(Phase::Closing);
        // A thread that panicked has said so on stderr.
        self.workers.drain(..).for_each(|thread| _ = thread.join());
        self.phase.send_replace(Phase::Ended);
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
    let target = match snapshot.access_log {
        AccessLog::Stdout => AccessLogTarget::Stdout,
        AccessLog::Off => AccessLogTarget::Off,
    };
    let telemetry = Telemetry::new(target);
    let plan = Arc::new(Plan::new(snapshot.clone(), options)?);
    let sockets = snapshot.listeners.iter().map(|listener| bind(listener, workers)).collect::<Result<Vec<_>, _>>()?;
    let names = snapshot.listeners.iter().map(|listener| listener.name.to_string());
    let listeners = names.zip(sockets.iter().map(|bound| bound.address)).collect();
    let readiness = Arc::<Readiness>::default();
    let (shown, showing) = watch::channel(Bytes::new());
    let (phase, _) = watch::channel(Phase::Starting);
    let (telemetry_shown, admin) = (telemetry.clone(), snapshot.admin);
    let control = Control { plan, revision: 1, sockets, workers: Vec::new(), telemetry, shown };
    control.show();
    let mut gateway =
        Gateway { listeners, admin: None, phase, workers: Vec::new(), others: Vec::new(), control: control.into() };
    if let Some(admin) = admin {
        let state = AdminState::new(telemetry_shown, readiness.clone(), showing, admin.bind);
        gateway.start_admin(admin.bind, state)?;
    }
    gateway.start_workers(workers)?;
    gateway.phase.send_replace(Phase::Serving);
    readiness.set_ready();
    Ok(gateway)
}

impl Gateway {
    /// Starts the workers, and waits until every one of them could serve.
    fn start_workers(&mut self, count: usize) -> Result<(), RunError> {
        let control = self.control.get_mut().unwrap_or_else(PoisonError::into_inner);
        let (remains, to_take_apart) = mpsc::channel();
        let take_apart = thread::Builder::new().name("take-apart".to_owned());
        self.others.push(take_apart.spawn(move || revision::take_apart(to_take_apart))?);
        let (started, starting) = mpsc::channel();
        for number in 0..count {
            let (orders, ordered) = unbounded_channel();
            control.workers.push(orders);
            let post = Post {
                number,
                plan: control.plan.clone(),
                sockets: for_worker(&control.sockets, number)?,
                telemetry: control.telemetry.clone(),
                remains: remains.clone(),
                started: started.clone(),
                orders: ordered,
                phase: self.phase.subscribe(),
            };
            self.workers.push(thread::Builder::new().name(format!("worker-{number}")).spawn(move || post.man())?);
        }
        drop(started);
        for _ in 0..count {
            starting.recv().map_err(|_| RunError::Lost)??;
        }
        Ok(())
    }

    fn start_admin(&mut self, address: SocketAddr, state: AdminState) -> Result<(), RunError> {
        let bind = |source| RunError::Bind { what: "the admin listener".to_owned(), address, source };
        let socket = std::net::TcpListener::bind(address).map_err(bind)?;
        socket.set_nonblocking(true).map_err(bind)?;
        self.admin = Some(socket.local_addr().map_err(bind)?);
        let mut phase = self.phase.subscribe();
        let serve = move || {
            let Ok(runtime) = runtime() else { return };
            runtime.block_on(async {
                let Ok(listener) = tokio::net::TcpListener::from_std(socket) else { return };
                tokio::select! {
                    () = admin::serve(listener, state) => {}
                    _ = phase.wait_for(|phase| *phase == Phase::Ended) => {}
                }
            });
        };
        self.others.push(thread::Builder::new().name("admin".to_owned()).spawn(serve)?);
        Ok(())
    }
}

fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_io().enable_time().build_local(LocalOptions::default())
}
