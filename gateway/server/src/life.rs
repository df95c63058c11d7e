//! A gateway's life as a process: signals, changes of its files, requests to read them anew, and its end.
//!
//! One thread waits for all of them and never does what takes time: a configuration is read and put into use on another, one at
//! a time, so that the order to end is heard meanwhile.

mod files;

use std::io;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

pub(crate) use self::files::Files;
use self::files::Reloader;
use crate::admin::Reload;
use crate::supervisor::{Gateway, Handle};
use crate::systemd::Manager;

/// How long the end may take beyond the deadline that exchanges have.
const LAST: Duration = Duration::from_secs(5);
/// How long the end may take once everything has been cut off.
const HURRIED: Duration = Duration::from_secs(1);

/// Lives until it is told to end.
///
/// # Errors
/// When signals cannot be heard.
pub(crate) fn live(gateway: Gateway, files: Files, requests: UnboundedReceiver<Reload>) -> io::Result<ExitCode> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let manager = Rc::new(Manager::of_this_process());
        manager.ready("serving");
        if let Some(period) = manager.watchdog() {
            spawn_local(watch_over(gateway.handle().clone(), manager.clone(), period));
        }
        serve(&gateway, files, requests, &mut signals, &manager).await;
        Ok(end(gateway, &mut signals, &manager).await)
    })
}

/// What operators say.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
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
    mut requests: UnboundedReceiver<Reload>,
    signals: &mut Signals,
    manager: &Manager,
) {
    let mut reloader = Reloader::new(files, gateway.handle().clone());
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return,
            _ = signals.interrupt.recv() => return,
            _ = signals.hang_up.recv() => reloader.ask(None),
            Some(Reload { answer }) = requests.recv() => reloader.ask(Some(answer)),
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
async fn end(gateway: Gateway, signals: &mut Signals, manager: &Manager) -> ExitCode {
    let handle = gateway.handle().clone();
    let how = handle.how_to_drain();
    tracing::info!(delay = ?how.delay, deadline = ?how.deadline, "draining");
    manager.stopping();
    handle.drain();
    let mut hurried = tokio::select! {
        () = sleep(how.delay) => false,
        () = signals.end() => true,
    };
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
