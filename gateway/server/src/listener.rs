//! Accepting connections, and speaking HTTP/1.1 or HTTP/2 on them.
//!
//! Each worker has its own socket for every listener, and the kernel spreads connections over them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use ipnet::IpNet;
use portcullis_core::forward::{Peer, Trust};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::spawn_local;

use crate::serve::serve;
use crate::supervisor::Phase;
use crate::upstream::LocalExecutor;
use crate::worker::Worker;

/// Connections waiting to be accepted, per socket.
const BACKLOG: i32 = 1024;
/// How long to wait when the process has run out of file descriptors.
const EXHAUSTED: Duration = Duration::from_millis(50);
/// HTTP/2 streams a client may have open at once on one connection.
const MAX_STREAMS: u32 = 100;

/// A client's connection.
pub(crate) struct Connection {
    pub(crate) id: u64,
    pub(crate) address: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) peer: Peer,
}

/// Binds one socket per worker to an address.
///
/// The kernel would let a second gateway share the address in silence; so the address is first bound alone, which fails when
/// somebody has it.
pub(crate) fn bind(address: SocketAddr, workers: usize) -> io::Result<(SocketAddr, Vec<std::net::TcpListener>)> {
    let alone = std::net::TcpListener::bind(address)?;
    let address = alone.local_addr()?;
    drop(alone);
    let sockets = (0..workers).map(|_| bind_shared(address)).collect::<io::Result<Vec<_>>>()?;
    Ok((address, sockets))
}

fn bind_shared(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The open connections of one worker's socket, to be told when the gateway stops.
///
/// They look at a flag when they are woken, rather than wait for a signal: a request must not pay for that.
#[derive(Default)]
struct Open {
    stopping: Cell<bool>,
    tasks: RefCell<HashMap<u64, Waker>>,
    closed: Notify,
}

impl Open {
    /// Lets every connection finish what it is at, and waits for that.
    async fn stop(&self) {
        self.stopping.set(true);
        self.tasks.borrow().values().for_each(Waker::wake_by_ref);
        while !self.tasks.borrow().is_empty() {
            self.closed.notified().await;
        }
    }
}

/// One connection among [`Open`], for as long as it lives.
struct Member {
    open: Rc<Open>,
    id: u64,
}

impl Member {
    async fn join(open: Rc<Open>, id: u64) -> Self {
        let task = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        open.tasks.borrow_mut().insert(id, task);
        Self { open, id }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.open.tasks.borrow_mut().remove(&self.id);
        self.open.closed.notify_one();
    }
}

/// Accepts and serves connections until the gateway stops, then lets those open finish what they are at.
pub(crate) async fn run(
    worker: Rc<Worker>,
    listener: std::net::TcpListener,
    trusted: Rc<[IpNet]>,
    mut phase: watch::Receiver<Phase>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let open = Rc::new(Open::default());
    let mut next_id = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = phase.wait_for(|phase| *phase == Phase::Stopping) => break,
        };
        match accepted {
            Ok((stream, address)) => {
                next_id += 1;
                let Ok(local) = stream.local_addr() else { continue };
                let peer = Peer::new(address.ip(), trust(&trusted, address.ip()));
                let connection = Rc::new(Connection { id: next_id, address, local, peer });
                spawn_local(serve_connection(worker.clone(), open.clone(), stream, connection));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
    drop(listener);
    open.stop().await;
    Ok(())
}

async fn serve_connection(worker: Rc<Worker>, open: Rc<Open>, stream: TcpStream, connection: Rc<Connection>) {
    // Small answers must not wait for the client's acknowledgement of the ones before.
    let _best_effort = stream.set_nodelay(true);
    let (id, peer) = (connection.id, connection.address);
    let _member = Member::join(open.clone(), id).await;
    let _counted = worker.telemetry.connection();
    let service = service_fn(move |request| serve(worker.clone(), connection.clone(), request));
    let builder = builder();
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut told = false;
    let ended = poll_fn(|cx| {
        if open.stopping.get() && !std::mem::replace(&mut told, true) {
            served.as_mut().graceful_shutdown();
        }
        served.as_mut().poll(cx)
    });
    if let Err(error) = ended.await {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

fn builder() -> auto::Builder<LocalExecutor> {
    let mut builder = auto::Builder::new(LocalExecutor);
    // Not `pipeline_flush`: with it, responses pile up here while their client does not read.
    builder.http1().half_close(false).keep_alive(true);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS);
    builder
}

fn trust(trusted: &[IpNet], peer: IpAddr) -> Trust {
    let peer = peer.to_canonical();
    if trusted.iter().any(|net| net.contains(&peer)) { Trust::Trusted } else { Trust::Stranger }
}
