//! Changes of revision: made ready first, then put into use everywhere, or not at all.
//!
//! Everything that takes time or can fail happens on the thread that asks for the change: compiling, starting guests, binding
//! addresses, making every worker's routing table. Workers are handed what is ready, say that they have it, and then switch
//! between two requests. **Invariant:** until all of them have said so, nothing that is served has changed.

use std::fmt;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use super::RunError;
use super::crew::{Order, Sockets};
use crate::clock::Clock;
use crate::config::snapshot::{Listener, Snapshot};
use crate::plan::Plan;
use crate::revision::Prepared;
use crate::sockets::{Bound, Key};
use crate::telemetry::Telemetry;

/// How long a worker may take to take a revision in. All that takes time has been done before.
const TAKE_IN: Duration = Duration::from_secs(10);

/// What a change of revision needs.
pub(super) struct Control {
    /// What is served.
    pub(super) plan: Arc<Plan>,
    /// How many revisions there were, this one included.
    pub(super) revision: u64,
    pub(super) sockets: Vec<Bound>,
    pub(super) workers: Vec<UnboundedSender<Order>>,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) shown: watch::Sender<Bytes>,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("revision", &self.revision).finish_non_exhaustive()
    }
}

impl Control {
    pub(super) fn apply(&mut self, snapshot: Arc<Snapshot>) -> Result<u64, RunError> {
        let plan = Arc::new(self.plan.next(snapshot.clone())?);
        let new = self.bind_new(&snapshot)?;
        let mut prepared = Vec::new();
        for number in 0..self.workers.len() {
            prepared.push((Prepared::new(&plan, Clock::start().now())?, for_worker(&new, number)?));
        }
        if let Err(error) = self.take_in(prepared) {
            self.order(|| Order::Forget);
            return Err(error);
        }
        self.sockets.retain(|bound| snapshot.listeners.iter().any(|listener| Key::of(listener) == bound.key));
        self.sockets.extend(new);
        self.order(|| Order::Switch);
        self.plan = plan;
        self.revision += 1;
        self.show();
        Ok(self.revision)
    }

    /// Sockets for those listeners that have none yet.
    fn bind_new(&self, snapshot: &Snapshot) -> Result<Vec<Bound>, RunError> {
        let is_new = |listener: &&Arc<Listener>| !self.sockets.iter().any(|bound| bound.key == Key::of(listener));
        snapshot.listeners.iter().filter(is_new).map(|listener| bind(listener, self.workers.len())).collect()
    }

    /// Has every worker take in what was made ready for it.
    fn take_in(&self, prepared: Vec<(Prepared, Sockets)>) -> Result<(), RunError> {
        let (answer, answers) = mpsc::channel();
        for (worker, (prepared, sockets)) in self.workers.iter().zip(prepared) {
            let order = Order::TakeIn(Box::new(prepared), sockets, answer.clone());
            worker.send(order).map_err(|_| RunError::Lost)?;
        }
        drop(answer);
        for _ in &self.workers {
            answers.recv_timeout(TAKE_IN).map_err(|error| match error {
                mpsc::RecvTimeoutError::Timeout => RunError::Stuck(TAKE_IN),
                mpsc::RecvTimeoutError::Disconnected => RunError::Lost,
            })??;
        }
        Ok(())
    }

    fn order(&self, order: impl Fn() -> Order) {
        for worker in &self.workers {
            // A worker that has ended serves nothing, and needs no orders.
            let _gone = worker.send(order());
        }
    }

    /// Tells what is served.
    pub(super) fn show(&self) {
        self.shown.send_replace(format!("{:#}\n", self.plan.snapshot().dump()).into());
        self.telemetry.set_revision(&self.revision.to_string());
    }
}

/// A listener's sockets.
pub(super) fn bind(listener: &Listener, workers: usize) -> Result<Bound, RunError> {
    Bound::new(listener, workers).map_err(|source| RunError::Bind {
        what: format!("listener `{}`", listener.name),
        address: listener.bind,
        source,
    })
}

/// A worker's share of these sockets.
pub(super) fn for_worker(bound: &[Bound], number: usize) -> Result<Sockets, RunError> {
    bound.iter().map(|bound| Ok((bound.key.clone(), bound.for_worker(number)?))).collect()
}
