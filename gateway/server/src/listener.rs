//! Accepting connections, and speaking HTTP/1.1 or HTTP/2 on them.
//!
//! Each worker has its own socket for every listener, and the kernel spreads connections over them. A connection is accepted, its
//! encryption agreed on where there is any (see [`crate::tls::server`]), and what the client sends is looked at before it is parsed
//! (see [`strict`]).

mod strict;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use http::Version;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use ipnet::IpNet;
use portcullis_core::admission::Rules;
use portcullis_core::forward::{Peer, Trust};
use portcullis_core::headers::Scheme;
use portcullis_core::limits;
use portcullis_core::tls::{self, Forwarded, Tls};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::spawn_local;

use self::strict::{Answers, Strict};
use crate::config::ForwardedCertificate;
use crate::config::snapshot::Listener;
use crate::serve::serve;
use crate::sockets::Key;
use crate::telemetry::OpenConnection;
use crate::tls::server::{Accepted, Server};
use crate::upstream::LocalExecutor;
use crate::worker::Worker;

/// How long to wait when the process has run out of file descriptors.
const EXHAUSTED: Duration = Duration::from_millis(50);
/// How long a connection that shall end may stay idle. A client that is about to send a request does so within this time.
const IDLE_GRACE: Duration = Duration::from_millis(500);
/// HTTP/2 streams a client may have open at once on one connection.
const MAX_STREAMS: u32 = 100;
/// Bytes of one HTTP/2 request that may wait here for an upstream that does not read.
const STREAM_WINDOW: u32 = 64 << 10;
/// Bytes that may wait here of all requests of a connection together: one that is stuck does not stop the others.
const CONNECTION_WINDOW: u32 = 1 << 20;

/// Bytes of a head over HTTP/2; over HTTP/1 the inspector counts.
#[expect(clippy::cast_possible_truncation, reason = "the constant is small")]
const MAX_HEAD: u32 = limits::HEAD_BYTES as u32;

/// A client's connection. It counts as open for as long as anyone holds this: its requests, or its tunnel.
pub(crate) struct Connection {
    pub(crate) id: u64,
    pub(crate) address: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) peer: Peer,
    /// What is known of its encryption; nothing when it has none.
    pub(crate) tls: Option<Arc<Tls>>,
    open: Rc<Open>,
    is_http2: Cell<bool>,
    pub(crate) rules: Rules,
    pub(crate) answers: Arc<Answers>,
    counted: OnceCell<(Member, OpenConnection)>,
}

impl Connection {
    pub(crate) fn scheme(&self) -> Scheme {
        if self.tls.is_some() { Scheme::Https } else { Scheme::Http }
    }

    /// Notes a request's version; whether the connection ends with its response.
    pub(crate) fn ends_with(&self, version: Version) -> bool {
        if version == Version::HTTP_2 {
            self.is_http2.set(true);
            return false;
        }
        self.open.lasts.get() != Lasts::On
    }
}

/// What a connection speaks.
#[derive(Clone, Copy)]
enum Speaks {
    /// HTTP/2 when it begins with that preface, else HTTP/1.1.
    Either,
    Http1,
    Http2,
}

/// One of a worker's listeners: a socket that is accepted on, under settings that a revision of the configuration may change.
pub(crate) struct Listening {
    pub(crate) key: Key,
    /// The connections accepted under the settings that hold now.
    open: RefCell<Rc<Open>>,
    /// Those of earlier settings.
    former: RefCell<Vec<Rc<Open>>>,
    closing: Cell<bool>,
    closed: Notify,
}

impl Listening {
    pub(crate) fn new(settings: &Arc<Listener>) -> Rc<Self> {
        let open = RefCell::new(Open::new(settings.clone()));
        Rc::new(Self {
            key: Key::of(settings),
            open,
            former: RefCell::default(),
            closing: Cell::default(),
            closed: Notify::new(),
        })
    }

    /// Accepts the next connections under these settings; those that are open finish what they are at and end.
    pub(crate) fn change(&self, settings: &Arc<Listener>) {
        if self.open.borrow().settings == *settings {
            return;
        }
        let before = self.open.replace(Open::new(settings.clone()));
        before.clone().finish();
        let mut former = self.former.borrow_mut();
        former.retain(|open| !open.is_empty());
        former.push(before);
    }

    /// Accepts no more connections than those that wait already; all finish what they are at and end.
    pub(crate) fn close(&self) {
        self.open.borrow().clone().finish();
        self.closing.set(true);
        self.closed.notify_waiters();
    }

    /// Whether no connection is left.
    pub(crate) fn is_over(&self) -> bool {
        self.open.borrow().is_empty() && self.former.borrow().iter().all(|open| open.is_empty())
    }

    /// Waits until every connection has ended.
    pub(crate) async fn ended(&self) {
        let mut all = self.former.take();
        all.push(self.open.borrow().clone());
        for open in all {
            open.ended().await;
        }
    }
}

/// How long a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lasts {
    /// As long as its client likes.
    On,
    /// To the end of the exchange that is under way, or else of the next: whoever is about to send a request is not cut off.
    ForOneMore,
    /// To the end of the exchange that is under way.
    ForThis,
}

/// Open connections that were accepted under the same settings, to be told when they shall end.
///
/// They look at a flag when they are woken, rather than wait for a signal: a request must not pay for that.
pub(crate) struct Open {
    settings: Arc<Listener>,
    lasts: Cell<Lasts>,
    tasks: RefCell<HashMap<u64, Waker>>,
    closed: Notify,
}

impl Open {
    fn new(settings: Arc<Listener>) -> Rc<Self> {
        let (lasts, tasks, closed) = (Cell::new(Lasts::On), RefCell::default(), Notify::new());
        Rc::new(Self { settings, lasts, tasks, closed })
    }

    fn is_empty(&self) -> bool {
        self.tasks.borrow().is_empty()
    }

    fn tell(&self, lasts: Lasts) {
        self.lasts.set(lasts);
        self.tasks.borrow().values().for_each(Waker::wake_by_ref);
    }

    /// Lets every connection finish what it is at.
    fn finish(self: Rc<Self>) {
        self.tell(Lasts::ForOneMore);
        spawn_local(async move {
            tokio::time::sleep(IDLE_GRACE).await;
            self.tell(Lasts::ForThis);
        });
    }

    async fn ended(&self) {
        while !self.is_empty() {
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

/// Accepts and serves connections until the listener is closed.
pub(crate) async fn run(worker: Rc<Worker>, socket: TcpListener, listening: Rc<Listening>) {
    let mut next_id = 0;
    let mut serve = |stream: TcpStream, address: SocketAddr| {
        next_id += 1;
        let Ok(local) = stream.local_addr() else { return };
        let open = listening.open.borrow().clone();
        let peer = Peer::new(address.ip(), trust(&open.settings.trusted_proxies, address.ip()));
        let (rules, answers) = (open.settings.rules, Arc::default());
        let (of, is_http2, counted, tls) = (open.clone(), Cell::new(false), OnceCell::new(), None);
        let connection =
            Connection { id: next_id, address, local, peer, tls, rules, answers, open: of, is_http2, counted };
        spawn_local(serve_connection(worker.clone(), open, stream, connection));
    };
    while !listening.closing.get() {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = listening.closed.notified() => break,
        };
        match accepted {
            Ok((stream, address)) => serve(stream, address),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
    // Clients whose connections wait here believe that they are served: the socket must not close on them.
    let Ok(socket) = socket.into_std() else { return };
    while let Ok((stream, address)) = socket.accept() {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            serve(stream, address);
        }
    }
}

/// A connection from its first byte to its last.
async fn serve_connection(worker: Rc<Worker>, open: Rc<Open>, stream: TcpStream, mut connection: Connection) {
    // Small answers must not wait for the client's acknowledgement of the ones before.
    let _best_effort = stream.set_nodelay(true);
    let member = Member::join(open.clone(), connection.id).await;
    let _set_once = connection.counted.set((member, worker.telemetry.connection()));
    let settings = &open.settings;
    match &settings.tls {
        None => {
            connection.peer = connection.peer.with_certificate(forwarded(settings, None));
            speak(worker, &open, stream, connection, Speaks::Either).await;
        }
        Some(server) => {
            // Boxed, since it is large and over soon, and every connection would carry its state.
            let accepted = Box::pin(encrypt(&worker, &open, server, stream, connection.address)).await;
            let Some(Accepted { stream, tls, speaks_h2, .. }) = accepted else { return };
            connection.peer = connection.peer.with_certificate(forwarded(settings, Some(&tls)));
            connection.tls = Some(tls);
            let speaks = if speaks_h2 { Speaks::Http2 } else { Speaks::Http1 };
            // Boxed too: connections in the clear must not pay for the size of this.
            Box::pin(speak(worker, &open, stream, connection, speaks)).await;
        }
    }
}

/// The handshake; nothing when it fails, or the gateway stops first.
async fn encrypt(
    worker: &Worker,
    open: &Open,
    server: &Server,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<Accepted<TcpStream>> {
    let mut handshake = pin!(server.accept(stream));
    let ended = poll_fn(|cx| match open.lasts.get() {
        Lasts::On | Lasts::ForOneMore => handshake.as_mut().poll(cx).map(Some),
        Lasts::ForThis => Poll::Ready(None),
    });
    let ended = ended.await?;
    worker.telemetry.handshake(&ended);
    ended.inspect_err(|error| tracing::debug!(%peer, %error, "TLS handshake failed")).ok()
}

/// Serves the requests of a connection.
async fn speak<S>(worker: Rc<Worker>, open: &Open, stream: S, connection: Connection, speaks: Speaks)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (peer, connection) = (connection.address, Rc::new(connection));
    let stream = Strict::new(stream, connection.answers.clone());
    let builder = builder(speaks, worker.revision().table.has_tunnels());
    let asked = connection.clone();
    let service = service_fn(move |request| serve(worker.clone(), asked.clone(), request));
    let mut served = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let mut told = false;
    let ended = poll_fn(|cx| {
        let ends = match open.lasts.get() {
            Lasts::On => false,
            // GOAWAY names the last stream that is served, so it cuts nobody off. HTTP/1.1 says it with a response.
            Lasts::ForOneMore => connection.is_http2.get(),
            Lasts::ForThis => true,
        };
        if ends && !std::mem::replace(&mut told, true) {
            served.as_mut().graceful_shutdown();
        }
        served.as_mut().poll(cx)
    });
    if let Err(error) = ended.await {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

/// What upstreams are told of the client's certificate.
fn forwarded(settings: &Listener, tls: Option<&Tls>) -> Forwarded {
    let element = || {
        let tls = tls?;
        tls::element(tls.peer.as_ref()?, tls.own(), settings.forwarded_pem)
    };
    match settings.forwarded_certificate {
        ForwardedCertificate::Strip => Forwarded::Strip,
        ForwardedCertificate::Keep => Forwarded::Keep,
        ForwardedCertificate::Set => element().map_or(Forwarded::Strip, Forwarded::Set),
        ForwardedCertificate::Append => element().map_or(Forwarded::Keep, Forwarded::Append),
    }
}

fn builder(speaks: Speaks, has_tunnels: bool) -> auto::Builder<LocalExecutor> {
    let mut builder = auto::Builder::new(LocalExecutor);
    // Not `pipeline_flush`: with it, responses pile up here while their client does not read.
    builder.http1().half_close(false).keep_alive(true);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS).max_header_list_size(MAX_HEAD);
    builder.http2().initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
    if has_tunnels {
        // Told of it, browsers open WebSockets over HTTP/2; otherwise over a connection of their own (RFC 8441 §3).
        builder.http2().enable_connect_protocol();
    }
    match speaks {
        Speaks::Either => builder,
        Speaks::Http1 => builder.http1_only(),
        Speaks::Http2 => builder.http2_only(),
    }
}

fn trust(trusted: &[IpNet], peer: IpAddr) -> Trust {
    let peer = peer.to_canonical();
    if trusted.iter().any(|net| net.contains(&peer)) { Trust::Trusted } else { Trust::Stranger }
}
