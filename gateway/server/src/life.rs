//! A gateway's life as a process: signals, changes of its files, requests to read them anew, and its end.
//!
//! One thread waits for all of them and never does what takes time: a configuration is read and put into use on another, one at
//! a time, so that the order to end is heard meanwhile.

mod files;
mod succession;
pub(crate) mod tenants;

use std::io;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use self::files::Reloader;
pub(crate) use self::files::{Files, keep, tell_held};
use self::succession::Succession;
use crate::admin::{Asked, Request};
use crate::inherited::Predecessor;
use crate::supervisor::{Gateway, Handle};
use crate::systemd::Manager;

/// How long the end may take beyond the deadline that exchanges have.
const LAST: Duration = Duration::from_secs(5);
/// How long the end may take once everything has been cut off.
const HURRIED: Duration = Duration::from_secs(1);

/// A process that hears signals. Until there is one, they end it at once.
pub(crate) struct Life {
    runtime: LocalRuntime,
    signals: Signals,
}

impl Life {
    /// Hears signals from now on.
    ///
    /// # Errors
    /// When that cannot be done.
    pub(crate) fn begin() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
        let signals = runtime.block_on(async { Signals::new() })?;
        Ok(Self { runtime, signals })
    }

    /// Lives until it is told to end.
    pub(crate) fn live(
        self,
        gateway: Gateway,
        files: Files,
        requests: UnboundedReceiver<Request>,
        predecessor: Option<Predecessor>,
    ) -> ExitCode {
        let Self { runtime, mut signals } = self;
        runtime.block_on(async {
            let manager = Rc::new(Manager::of_this_process());
            manager.ready("serving");
            if let Some(predecessor) = predecessor {
                predecessor.dismiss();
            }
            if let Some(period) = manager.watchdog() {
                spawn_local(watch_over(gateway.handle().clone(), manager.clone(), period));
            }
            let why = serve(&gateway, files, requests, &mut signals, &manager).await;
            end(gateway, why, &mut signals, &manager).await
        })
    }
}

/// What operators say.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    upgrade: Signal,
}

/// Why the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// Somebody gave the order.
    Told,
    /// Another process serves in place of this one.
    Succeeded,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the order to end.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Follows the configuration until the order to end.
async fn serve(
    gateway: &Gateway,
    files: Files,
    mut requests: UnboundedReceiver<Request>,
    signals: &mut Signals,
    manager: &Manager,
) -> Why {
    let mut succession = Succession::default();
    let mut reloader = Reloader::new(files, gateway.handle().clone());
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return Why::Told,
            _ = signals.interrupt.recv() => return Why::Told,
            _ = signals.upgrade.recv() => succession.begin(gateway.handle()),
            successor = succession.done() => {
                if let Some(process) = successor {
                    manager.succeeded_by(process);
                    return Why::Succeeded;
                }
            }
            _ = signals.hang_up.recv() => reloader.ask(None),
            Some(request) = requests.recv() => match request {
                Request(Asked::Reread(answer)) => reloader.ask(Some(answer)),
                Request(Asked::Change(change, answer)) => reloader.change(*change, answer),
            },
            news = reloader.news() => {
                if let Some(status) = news {
                    manager.ready(&status);
                }
            }
        }
        if reloader.begin() {
            manager.reloading();
        }
    }
}

/// Drains and stops. Another order to end cuts that short.
async fn end(gateway: Gateway, why: Why, signals: &mut Signals, manager: &Manager) -> ExitCode {
    let handle = gateway.handle().clone();
    let how = handle.how_to_drain();
    let mut hurried = false;
    match why {
        Why::Told => {
            tracing::info!(delay = ?how.delay, deadline = ?how.deadline, "draining");
            manager.stopping();
            handle.drain();
            hurried = tokio::select! {
                () = sleep(how.delay) => false,
                () = signals.end() => true,
            };
        }
        // The other process accepts on the same sockets, and answers for whether the gateway is ready.
        Why::Succeeded => {
            tracing::info!(deadline = ?how.deadline, "another process has taken over; draining");
            handle.make_way();
        }
    }
    let (done, mut ended) = oneshot::channel();
    handle.close();
    thread::spawn(move || {
        gateway.stop();
        // The one who waits may have lost patience.
        let _ = done.send(());
    });
    if !hurried {
        hurried = tokio::select! {
            stopped = timeout(how.deadline + LAST, &mut ended) => stopped.is_err(),
            () = signals.end() => true,
        };
    }
    if hurried {
        tracing::warn!("ending at once: what is still open is cut off");
        handle.cut_off();
        let _lost = timeout(HURRIED, ended).await;
        return ExitCode::FAILURE;
    }
    tracing::info!("ended");
    ExitCode::SUCCESS
}

/// Tells the manager that all is well as long as every worker answers between two calls.
async fn watch_over(handle: Handle, manager: Rc<Manager>, period: Duration) {
    loop {
        let (workers, answers) = handle.call_roll();
        sleep(period).await;
        if count(&answers) >= workers {
            manager.alive();
        } else {
            tracing::error!("a worker does not answer");
        }
    }
}

fn count(answers: &Receiver<()>) -> usize {
    std::iter::from_fn(|| match answers.try_recv() {
        Ok(()) => Some(()),
        Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
    })
    .count()
}
