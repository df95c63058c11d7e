//! The bulkhead: a worker of its own for tenants that are set apart ([`Account::is_apart`]).
//!
//! A callback cannot be left and come back to, so a worker whose guest takes long serves nobody else meanwhile. A tenant whose
//! callbacks often do is therefore served by a thread that others do not wait for: the worker with the connection looks at the
//! request, hands it over, and passes the answer on. The bulkhead has its own VMs and connections to upstreams, like any worker, and no
//! listeners; it runs when the machine has nothing else to do. Tenants that are set apart wait for each other.
//!
//! What the two threads share they lock for moments: the HTTP/2 library's streams of a connection, shared data and queues. A bulkhead that
//! loses the processor in such a moment is waited for; on a machine with a processor to spare that is not long.
//!
//! **Invariant:** the client's connection stays where it is. What was under way on a worker before its tenant was set apart has
//! [turns](crate::worker) there.
//!
//! [`Account::is_apart`]: portcullis_core::tenant::Account::is_apart

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use http::{Response, response};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use portcullis_core::reply::Failure;
use portcullis_core::tenant::Admitted;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, spawn_local};

use crate::listener::{Connection, Lane};
use crate::message::{Broken, ResponseBody};
use crate::serve::{self, Arrived, Diverted, Reply};
use crate::worker::Worker;

/// How many requests may wait to be begun; those beyond are refused.
const QUEUE: usize = 1024;
/// How many of a tenant's may be under way while it is set apart: others that are find room.
pub(crate) const MOST_OF_ONE: u32 = 256;

/// Where requests are handed over. Clones lead to the same place.
pub(crate) type Entrance = mpsc::Sender<Handed>;

/// Where they come out.
pub(crate) type Exit = mpsc::Receiver<Handed>;

/// A way into the bulkhead.
pub(crate) fn open() -> (Entrance, Exit) {
    mpsc::channel(QUEUE)
}

/// A place in the queue.
pub(crate) type Place = mpsc::OwnedPermit<Handed>;

/// A request on its way.
pub(crate) struct Handed {
    arrived: Arrived,
    admitted: Admitted,
    answer: oneshot::Sender<Result<Carried, Broken>>,
    tether: Tether,
}

/// The head of the answer, and where its body comes from; nowhere if it has none.
struct Carried {
    head: response::Parts,
    body: Option<mpsc::Receiver<Piece>>,
    is_bad: bool,
}

/// A part of a body, or its end. A channel that closes without one has been broken off.
pub(crate) type Piece = Result<Option<Frame<Bytes>>, Broken>;

/// What holds an exchange to its client's connection: lives as long as the exchange, and can have the connection cut.
#[derive(Debug)]
pub(crate) struct Tether(RefCell<Option<oneshot::Sender<()>>>);

impl Tether {
    /// Ends the connection, or resets the stream.
    pub(crate) fn cut(&self) {
        if let Some(cut) = self.0.take() {
            // Nobody minds where the connection is gone already.
            let _gone = cut.send(());
        }
    }
}

/// Has the bulkhead serve a request, and passes its answer on.
pub(crate) async fn hand_over(connection: Rc<Connection>, lane: Rc<Lane>, diverted: Diverted) -> Result<Reply, Broken> {
    let (answer, answered) = oneshot::channel();
    let (cut, tethered) = oneshot::channel();
    lane.began();
    let (arrived, admitted, place) = *diverted;
    place.send(Handed { arrived, admitted, answer, tether: Tether(RefCell::new(Some(cut))) });
    spawn_local(async move {
        if tethered.await.is_ok() {
            lane.cut();
        }
        lane.ended();
        // It counts as open for as long as its tunnel is.
        drop(connection);
    });
    let Carried { head, body, is_bad } = answered.await.unwrap_or(Err(Broken(Failure::UpstreamReset)))?;
    let body = body.map_or_else(ResponseBody::none, ResponseBody::carried);
    Ok(Reply { response: Response::from_parts(head, body), is_bad })
}

/// Serves what comes in, until nobody can hand over any more and all has been answered.
pub(crate) struct Bulkhead {
    worker: Rc<Worker>,
    exit: Exit,
    serving: JoinSet<()>,
    /// There has been something to do: upstreams are asked for their health here too.
    running: bool,
}

impl Bulkhead {
    pub(crate) fn new(worker: Rc<Worker>, exit: Exit) -> Self {
        Self { worker, exit, serving: JoinSet::new(), running: false }
    }

    /// Takes the next request in; whether there will be others.
    pub(crate) async fn step(&mut self) -> bool {
        tokio::select! {
            handed = self.exit.recv() => match handed {
                Some(handed) => self.take_in(handed),
                None => return false,
            },
            Some(_) = self.serving.join_next() => {}
        }
        true
    }

    fn take_in(&mut self, handed: Handed) {
        if !std::mem::replace(&mut self.running, true) {
            self.worker.upstreams.run();
        }
        self.serving.spawn_local(serve(self.worker.clone(), handed));
    }

    /// Waits until all has been answered.
    pub(crate) async fn close(&mut self) {
        while self.step().await {}
        while self.serving.join_next().await.is_some() {}
    }
}

async fn serve(worker: Rc<Worker>, Handed { arrived, admitted, mut answer, tether }: Handed) {
    let served = tokio::select! {
        // First: nothing is begun for a client that has gone while its request waited.
        biased;
        () = answer.closed() => return,
        served = serve::serve_here(worker, tether, (arrived, admitted)) => served,
    };
    let Reply { response, is_bad } = match served {
        Ok(reply) => reply,
        Err(broken) => {
            let _gone = answer.send(Err(broken));
            return;
        }
    };
    let (head, body) = response.into_parts();
    let (pieces, received) = mpsc::channel(1);
    let has_body = !body.is_end_stream();
    let carried = Carried { head, body: has_body.then_some(received), is_bad };
    if answer.send(Ok(carried)).is_ok() && has_body {
        pass_on(body, &pieces).await;
    }
}

/// Passes a body on, as fast as it is taken. Dropped early, its exchange ends.
async fn pass_on(mut body: ResponseBody, pieces: &mpsc::Sender<Piece>) {
    loop {
        let Ok(place) = pieces.reserve().await else { return };
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = pieces.closed() => return,
        };
        let is_last = frame.as_ref().is_none_or(Result::is_err);
        place.send(frame.transpose());
        if is_last {
            return;
        }
    }
}

/// Lets this thread run only when the machine has nothing else to do, where it can be had.
pub(crate) fn step_back() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to a live `sched_param`, which is only read; 0 names the calling thread.
    #[allow(unsafe_code, reason = "no library offers this call")]
    let set = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
    if set != 0 {
        let error = std::io::Error::last_os_error();
        tracing::warn!(%error, "tenants that are set apart have the priority of all others");
    }
}
