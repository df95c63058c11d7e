//! Accepting connections, and speaking HTTP/1.1 or HTTP/2 on them.
//!
//! Each worker has its own socket for every listener, and the kernel spreads connections over them.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use ipnet::IpNet;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
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
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    /// The peer is one of the listener's trusted proxies.
    pub(crate) trusts_peer: bool,
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

/// Accepts and serves connections until the gateway stops, then lets those open finish what they are at.
pub(crate) async fn run(
    worker: Rc<Worker>,
    listener: std::net::TcpListener,
    trusted: Rc<[IpNet]>,
    mut phase: watch::Receiver<Phase>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let open = Rc::new(Cell::new(0_usize));
    let mut next_id = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopping(&mut phase) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                next_id += 1;
                open.set(open.get() + 1);
                let open = open.clone();
                let served = connection(worker.clone(), stream, peer, next_id, trusted.clone(), phase.clone());
                spawn_local(async move {
                    served.await;
                    open.set(open.get() - 1);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
    drop(listener);
    while open.get() > 0 {
        tokio::time::sleep(EXHAUSTED).await;
    }
    Ok(())
}

async fn connection(
    worker: Rc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    id: u64,
    trusted: Rc<[IpNet]>,
    mut phase: watch::Receiver<Phase>,
) {
    let Ok(local) = stream.local_addr() else { return };
    // Small answers must not wait for the client's acknowledgement of the ones before.
    let _best_effort = stream.set_nodelay(true);
    let trusts_peer = is_trusted(&trusted, peer.ip());
    let connection = Rc::new(Connection { id, peer, local, trusts_peer });
    let telemetry = worker.telemetry.connection();
    let service = service_fn(move |request| serve(worker.clone(), connection.clone(), request));
    let builder = builder();
    let mut served = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = stopping(&mut phase) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended");
    }
    drop(telemetry);
}

/// Waits until the gateway stops, or is gone.
async fn stopping(phase: &mut watch::Receiver<Phase>) {
    let _gone = phase.wait_for(|phase| *phase == Phase::Stopping).await;
}

fn builder() -> auto::Builder<LocalExecutor> {
    let mut builder = auto::Builder::new(LocalExecutor);
    builder.http1().half_close(false).keep_alive(true).pipeline_flush(true);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS);
    builder
}

fn is_trusted(trusted: &[IpNet], peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    trusted.iter().any(|net| net.contains(&peer))
}
