//! The bulkhead: a worker of its own for tenants that are set apart ([`Apart`]).
//!
//! A callback cannot be left and come back to, so a worker whose guest takes long serves nobody else meanwhile. A tenant whose
//! callbacks often do is therefore served by a thread that others do not wait for: the worker with the connection looks at the
//! request, hands it over, and passes the answer on. The bulkhead has its own VMs and connections to upstreams, like any worker,
//! and no listeners; it runs when the machine has nothing else to do, and gives way at each step. Where there are many workers
//! there are several such threads, and a tenant's requests all go to the same. Tenants that share one have their requests begun
//! in [turn](Rota), whoever asks how often.
//!
//! What the two threads share they lock for moments: the HTTP/2 library's streams of a connection, shared data and queues. A
//! bulkhead that loses the processor in such a moment is waited for; on a machine with a processor to spare that is not long.
//!
//! **Invariant:** the client's connection stays where it is. What was under way on a worker before its tenant was set apart has
//! [turns](crate::worker) there.
//!
//! [`Apart`]: portcullis_core::tenant::Apart

mod rota;

use std::cell::RefCell;
use std::future::poll_fn;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::thread;

use bytes::Bytes;
use http::{Response, response};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use portcullis_core::reply::Failure;
use portcullis_core::tenant::Admitted;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, spawn_local, yield_now};

use self::rota::Rota;
use crate::listener::{Connection, Lane};
use crate::message::{Broken, ResponseBody};
use crate::serve::{self, Arrived, Diverted, Reply};
use crate::worker::Worker;

/// How many requests may wait for a thread to take note of them, and how many more to be begun; those beyond are refused.
const QUEUE: usize = 1024;
/// So many workers have a thread for those of their tenants that are set apart.
const WORKERS_PER_THREAD: usize = 4;
/// How many of a tenant's may be under way while it is set apart: others that are find room.
pub(crate) const MOST_OF_ONE: u32 = 256;

/// Where requests are handed over. Clones lead to the same threads.
#[derive(Clone)]
pub(crate) struct Entrance(Arc<[mpsc::Sender<Handed>]>);

/// Where those for one thread come out.
pub(crate) type Exit = mpsc::Receiver<Handed>;

/// The way into the bulkhead of so many workers, and for each of its threads the way out.
pub(crate) fn open(workers: usize) -> (Entrance, Vec<Exit>) {
    let (senders, exits): (Vec<_>, _) = (0..workers.div_ceil(WORKERS_PER_THREAD)).map(|_| mpsc::channel(QUEUE)).unzip();
    (Entrance(senders.into()), exits)
}

impl Entrance {
    /// A place in the queue that this tenant's requests wait in.
    pub(crate) fn reserve(&self, tenant: &str) -> Result<Place, NoPlace> {
        let mut hasher = DefaultHasher::new();
        tenant.hash(&mut hasher);
        let thread = hasher.finish() % self.0.len() as u64;
        let sender = self.0.get(usize::try_from(thread).unwrap_or_default()).ok_or(NoPlace::Closed)?;
        sender.clone().try_reserve_owned().map_err(|error| match error {
            TrySendError::Full(_) => NoPlace::Full,
            TrySendError::Closed(_) => NoPlace::Closed,
        })
    }
}

/// Why there is no place.
pub(crate) enum NoPlace {
    /// All are taken.
    Full,
    /// The thread has ended.
    Closed,
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

/// An answer, as far as it was there at once. Each message wakes the thread that waits for it, so most answers are one.
struct Carried {
    head: response::Parts,
    body: CarriedBody,
    is_bad: bool,
    /// Of an exchange that is over: it ends where this is dropped.
    _tether: Option<Tether>,
}

/// A body that has been through its exchange on another worker.
pub(crate) struct CarriedBody {
    /// What was there when the head was.
    pub(crate) first: Option<Piece>,
    /// Where the rest comes from; nowhere if that was all.
    pub(crate) rest: Option<mpsc::Receiver<Piece>>,
}

impl CarriedBody {
    /// Whether nothing of it is left.
    pub(crate) const fn is_over(&self) -> bool {
        self.first.is_none() && self.rest.is_none()
    }
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
    let Carried { head, body, is_bad, .. } = answered.await.unwrap_or(Err(Broken(Failure::UpstreamReset)))?;
    Ok(Reply { response: Response::from_parts(head, ResponseBody::carried(body)), is_bad })
}

/// One of its threads: serves what comes in, until nobody can hand over any more and all has been answered.
pub(crate) struct Bulkhead {
    worker: Rc<Worker>,
    exit: Exit,
    waiting: Rota<Handed>,
    serving: JoinSet<()>,
    /// There has been something to do: upstreams are asked for their health here too.
    running: bool,
}

impl Bulkhead {
    pub(crate) fn new(worker: Rc<Worker>, exit: Exit) -> Self {
        Self { worker, exit, waiting: Rota::default(), serving: JoinSet::new(), running: false }
    }

    /// Begins the next request, or waits for one; whether there will be others.
    pub(crate) async fn step(&mut self) -> bool {
        // Whoever waits is known before anyone is begun.
        while self.waiting.len() < QUEUE
            && let Ok(handed) = self.exit.try_recv()
        {
            self.take_note(handed);
        }
        if let Some(handed) = self.waiting.next() {
            self.begin(handed);
            // What is under way gets on before the next is begun.
            yield_now().await;
            while self.serving.try_join_next().is_some() {}
            return true;
        }
        tokio::select! {
            handed = self.exit.recv() => match handed {
                Some(handed) => self.take_note(handed),
                None => return false,
            },
            Some(_) = self.serving.join_next() => {}
        }
        true
    }

    fn take_note(&mut self, handed: Handed) {
        self.waiting.add(handed.admitted.account().clone(), handed);
    }

    fn begin(&mut self, handed: Handed) {
        if !std::mem::replace(&mut self.running, true) {
            self.worker.upstreams.run();
        }
        self.serving.spawn_local(giving_way(serve(self.worker.clone(), handed)));
    }

    /// Waits until all has been answered.
    pub(crate) async fn close(&mut self) {
        while self.step().await {}
        while self.serving.join_next().await.is_some() {}
    }
}

/// Lets others have the processor before each step of the work and after it.
///
/// The lowest priority is not enough: Linux (EEVDF) lets a thread that has just had more than its share wait, a worker say, and runs
/// whatever else there is meanwhile, for as long as that does not give way.
async fn giving_way<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        thread::yield_now();
        let polled = work.as_mut().poll(cx);
        thread::yield_now();
        polled
    })
    .await
}

async fn serve(worker: Rc<Worker>, Handed { arrived, admitted, mut answer, tether }: Handed) {
    let tether = Rc::new(tether);
    let served = tokio::select! {
        // First: nothing is begun for a client that has gone while its request waited.
        biased;
        () = answer.closed() => return,
        served = serve::serve_here(worker, tether.clone(), (arrived, admitted)) => served,
    };
    let Reply { response, is_bad } = match served {
        Ok(reply) => reply,
        Err(broken) => {
            let _gone = answer.send(Err(broken));
            return;
        }
    };
    let (head, mut body) = response.into_parts();
    let first = what_is_there(&mut body).await;
    let (pieces, received) = mpsc::channel(1);
    let has_more = !body.is_end_stream();
    let carried_body = CarriedBody { first, rest: has_more.then_some(received) };
    // Nobody else has it when the exchange is over.
    let carried = Carried { head, body: carried_body, is_bad, _tether: Rc::into_inner(tether) };
    if answer.send(Ok(carried)).is_ok() && has_more {
        pass_on(body, &pieces).await;
    }
}

/// The first part of a body, if that does not have to be waited for.
async fn what_is_there(body: &mut ResponseBody) -> Option<Piece> {
    if body.is_end_stream() {
        return None;
    }
    poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
        Poll::Ready(frame) => Poll::Ready(Some(frame.transpose())),
        Poll::Pending => Poll::Ready(None),
    })
    .await
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenants_requests_all_go_to_one_thread_and_tenants_to_all() {
        assert_eq!([1, 4, 5, 16].map(|workers| open(workers).1.len()), [1, 1, 2, 4]);
        let (entrance, exits) = open(16);
        let taken = || entrance.0.iter().map(|sender| QUEUE - sender.capacity()).collect::<Vec<_>>();
        let places = [(); 3].map(|()| entrance.reserve("acme").ok());
        let own = taken();
        assert!(places.iter().all(Option::is_some) && own.iter().filter(|taken| **taken == 3).count() == 1, "{own:?}");
        let others: Vec<_> = (0..100).map(|number| entrance.reserve(&format!("tenant-{number}")).ok()).collect();
        assert!(taken().iter().all(|taken| *taken > 10), "{:?}", taken());
        drop((places, others));
        assert_eq!(taken(), [0; 4]);
        drop(exits);
        assert!(matches!(entrance.reserve("acme"), Err(NoPlace::Closed)));
    }
}
