//! The whole gateway: its workers, its admin listener, its start and its end.
//!
//! Nothing is served before every module is compiled and every guest started and configured on every worker: what would fail
//! later fails here, with its reason.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use portcullis_vm::StartError;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::watch;

use crate::admin::{self, AdminState, Readiness};
use crate::config::snapshot::{AccessLog, Snapshot};
use crate::listener;
use crate::plan::{Plan, PlanError};
use crate::telemetry::{AccessLogTarget, Telemetry, WorkerTelemetry};
use crate::worker::Worker;

/// How long open exchanges may go on after the gateway was told to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// Why the gateway did not start.
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
    /// Each listener's name and the address it has.
    pub listeners: Vec<(String, SocketAddr)>,
    /// The admin listener's address.
    pub admin: Option<SocketAddr>,
    phase: watch::Sender<Phase>,
    threads: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// Tells the gateway to stop, and waits until open exchanges have ended or their time is up.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.phase.send_replace(Phase::Stopping);
        for thread in self.threads.drain(..) {
            // A worker that panicked has said so on stderr.
            let _ended = thread.join();
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the gateway is at; all threads watch it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Guests are being started; connections wait.
    Starting,
    /// Requests are served.
    Serving,
    /// No new connections; open exchanges finish.
    Stopping,
}

/// A worker's sockets, with the proxies each of them trusts.
type Sockets = Vec<(std::net::TcpListener, Vec<ipnet::IpNet>)>;

/// Starts the gateway.
///
/// # Errors
/// When a module cannot be loaded, a guest not started, or an address not bound; nothing is left running then.
pub fn start(snapshot: Snapshot, options: Options) -> Result<Gateway, RunError> {
    let snapshot = Arc::new(snapshot);
    let processors = || thread::available_parallelism().map_or(1, usize::from);
    let workers = snapshot.workers.map_or_else(processors, usize::from);
    let target = match snapshot.access_log {
        AccessLog::Stdout => AccessLogTarget::Stdout,
        AccessLog::Off => AccessLogTarget::Off,
    };
    let telemetry = Telemetry::new(target);
    let plan = Arc::new(Plan::new(snapshot.clone(), options)?);
    let (phase, watched) = watch::channel(Phase::Starting);
    let mut gateway = Gateway { listeners: Vec::new(), admin: None, phase, threads: Vec::new() };
    let mut sockets: Vec<Sockets> = (0..workers).map(|_| Vec::new()).collect();
    for listener in &snapshot.listeners {
        let (address, bound) = listener::bind(listener.bind, workers).map_err(|source| RunError::Bind {
            what: format!("listener `{}`", listener.name),
            address: listener.bind,
            source,
        })?;
        gateway.listeners.push((listener.name.to_string(), address));
        for (socket, of_worker) in bound.into_iter().zip(&mut sockets) {
            of_worker.push((socket, listener.trusted_proxies.clone()));
        }
    }
    let readiness = Arc::new(Readiness::default());
    if let Some(admin) = &snapshot.admin {
        let state = AdminState::new(telemetry.clone(), readiness.clone(), snapshot.dump().clone(), admin.bind);
        let (address, thread) = start_admin(admin.bind, state, watched.clone())?;
        gateway.admin = Some(address);
        gateway.threads.push(thread);
    }
    let (started, starting) = mpsc::channel();
    for (number, sockets) in (0_u64..).zip(sockets) {
        let (plan, telemetry, started, watched) = (plan.clone(), telemetry.clone(), started.clone(), watched.clone());
        let body = move || run_worker(&plan, number, telemetry.worker(), sockets, &started, watched);
        gateway.threads.push(thread::Builder::new().name(format!("worker-{number}")).spawn(body)?);
    }
    drop(started);
    for _ in 0..workers {
        starting.recv().map_err(|_| RunError::Lost)??;
    }
    gateway.phase.send_replace(Phase::Serving);
    readiness.set_ready();
    Ok(gateway)
}

fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_io().enable_time().build_local(LocalOptions::default())
}

fn run_worker(
    plan: &Plan,
    number: u64,
    telemetry: WorkerTelemetry,
    sockets: Sockets,
    started: &mpsc::Sender<Result<(), RunError>>,
    mut phase: watch::Receiver<Phase>,
) {
    let ready = || -> Result<_, RunError> { Ok((runtime()?, Worker::start(plan, number, telemetry)?)) };
    let (runtime, worker) = match ready() {
        Ok(ready) => ready,
        Err(error) => {
            // Nobody listens any more only when another worker has failed before.
            let _ = started.send(Err(error));
            return;
        }
    };
    let _ = started.send(Ok(()));
    runtime.block_on(async {
        // The sender lives as long as the gateway: an error means that it is gone, and so is the reason to serve.
        if phase.wait_for(|phase| *phase != Phase::Starting).await.is_err() {
            return;
        }
        worker.run();
        let mut listeners = Vec::new();
        for (socket, trusted) in sockets {
            let serving = listener::run(worker.clone(), socket, Rc::from(trusted), phase.clone());
            listeners.push(tokio::task::spawn_local(serving));
        }
        let _ = phase.wait_for(|phase| *phase == Phase::Stopping).await;
        let _timed_out = tokio::time::timeout(DRAIN, async {
            for listener in listeners {
                let _ended = listener.await;
            }
        })
        .await;
    });
    worker.telemetry.flush();
}

fn start_admin(
    address: SocketAddr,
    state: AdminState,
    mut phase: watch::Receiver<Phase>,
) -> Result<(SocketAddr, JoinHandle<()>), RunError> {
    let bind = |source| RunError::Bind { what: "the admin listener".to_owned(), address, source };
    let socket = std::net::TcpListener::bind(address).map_err(bind)?;
    socket.set_nonblocking(true).map_err(bind)?;
    let bound = socket.local_addr().map_err(bind)?;
    let serve = move || {
        let Ok(runtime) = runtime() else { return };
        runtime.block_on(async {
            let Ok(listener) = tokio::net::TcpListener::from_std(socket) else { return };
            tokio::select! {
                () = admin::serve(listener, state) => {}
                _ = phase.wait_for(|phase| *phase == Phase::Stopping) => {}
            }
        });
    };
    Ok((bound, thread::Builder::new().name("admin".to_owned()).spawn(serve)?))
}
