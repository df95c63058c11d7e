//! Another process takes over: the program as it is on disk now, with the sockets of this one.

use std::future::pending;
use std::io::{self, Read as _};
use std::process::Child;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::inherited::Successor;
use crate::supervisor::Handle;

/// How long a successor may take to serve: it may have to compile every module.
const PATIENCE: Duration = Duration::from_secs(120);

/// A successor that is being started, if there is one.
#[derive(Default)]
pub(super) struct Succession(Option<Started>);

struct Started {
    process: Child,
    /// Gives whether it serves.
    serves: oneshot::Receiver<bool>,
    until: Instant,
}

impl Succession {
    /// Starts a successor, unless one is being started.
    pub(super) fn begin(&mut self, handle: &Handle) {
        if self.0.is_some() {
            tracing::warn!("a successor is being started already");
            return;
        }
        match start(handle) {
            Ok(started) => {
                tracing::info!(process = started.process.id(), "a successor is being started");
                self.0 = Some(started);
            }
            Err(error) => tracing::error!(%error, "a successor cannot be started; this process goes on"),
        }
    }

    /// Waits until a successor serves, and returns its process; or has failed, which is logged. Dropped early, it loses nothing.
    pub(super) async fn done(&mut self) -> Option<u32> {
        let serves = match &mut self.0 {
            Some(Started { serves, until, .. }) => timeout_at(*until, serves).await == Ok(Ok(true)),
            None => pending().await,
        };
        let Started { mut process, .. } = self.0.take()?;
        let id = process.id();
        if serves {
            return Some(id);
        }
        // It may go on without having said anything; two gateways must not.
        let _ended = process.kill();
        let status = process.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        tracing::error!(process = id, status, "the successor does not serve; this process goes on");
        None
    }
}

fn start(handle: &Handle) -> io::Result<Started> {
    let Successor { process, mut ready } = Successor::start(&handle.sockets_to_pass_on()?)?;
    let (said, serves) = oneshot::channel();
    thread::spawn(move || {
        let mut word = [0; 1];
        // Nobody waits any more when this process ends.
        let _ = said.send(ready.read(&mut word).is_ok_and(|read| read == 1));
    });
    Ok(Started { process, serves, until: Instant::now() + PATIENCE })
}
