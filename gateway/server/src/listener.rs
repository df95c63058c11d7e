//! Accepting connections, and speaking HTTP/1.1 or HTTP/2 on them.
//!
//! Each worker has its own socket for every listener, and the kernel spreads connections over them. A connection passes [`gate`],
//! gives its PROXY protocol header if it has one ([`proxied`]), is encrypted if it shall be ([`crate::tls::server`]), and speaks
//! HTTP under watch ([`watched`]), HTTP/1.1 only as far as it is [`strict`], or is passed on ([`tcp`]). [`clients`] keeps an eye
//! on all that are open.

mod clients;
mod gate;
mod proxied;
mod strict;
mod tcp;
mod watched;

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{HeaderMap, Version};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use portcullis_core::admission::Rules;
use portcullis_core::downstream::{Patience, Refusal};
use portcullis_core::forward::{Peer, Trust};
use portcullis_core::headers::Scheme;
use portcullis_core::limits;
use portcullis_core::proxy_protocol::Proxied;
use portcullis_core::tls::{self, Forwarded, Tls};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::spawn_local;

pub(crate) use self::clients::Lane;
use self::clients::{Client, Clients, Lasts, Member, Streams};
use self::gate::{EXHAUSTED, Permit, is_exhausted};
pub(crate) use self::gate::{Gate, Places, Room};
use self::proxied::ProxyError;
use self::strict::{Answers, Strict};
use self::watched::{Spoken, Transport, Watched};
use crate::config::ForwardedCertificate;
use crate::config::snapshot::{Http2, Listener, ProxyProtocol, ServerTiming, Speaks};
use crate::serve::serve;
use crate::sockets::Key;
use crate::telemetry::OpenConnection;
use crate::tls::server::{Accepted, Server};
use crate::worker::Worker;

/// What is read ahead, and what may wait to be written, on an HTTP/1.1 connection; a request's head must fit in it.
const BUFFER: usize = 64 << 10;
/// How much of a body a client may send ahead of its being read: on a stream, and on a connection.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// The least that RFC 9113 §4.2 allows: larger frames only make streams wait for each other.
const FRAME: u32 = 16 << 10;
/// Streams that a client may make the gateway reset by its mistakes before its connection ends (CVE-2025-8671).
const MISTAKES: usize = 100;
/// Streams taken back by the client before they were looked at; the library's default.
const UNSEEN_RESETS: usize = 20;
/// How long a client may take to answer a PING.
const PONG: Duration = Duration::from_secs(20);

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
    clients: Rc<Clients>,
    pub(crate) rules: Rules,
    pub(crate) answers: Arc<Answers>,
    counted: OnceCell<(Rc<Member>, OpenConnection)>,
}

impl Connection {
    pub(crate) fn scheme(&self) -> Scheme {
        if self.tls.is_some() { Scheme::Https } else { Scheme::Http }
    }

    /// Whether the connection ends with the response to a request of this version.
    pub(crate) fn ends_with(&self, version: Version) -> bool {
        version != Version::HTTP_2 && self.clients.lasts() != Lasts::On
    }

    /// Whether what this address says of others is believed.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        is_among(&self.clients.settings.trusted_proxies, address)
    }

    /// Whether a request asks how long it takes, and may. Nobody else learns that it did.
    pub(crate) fn tells_times(&self, fields: &mut HeaderMap) -> bool {
        let Some(ServerTiming { header, from_anyone }) = &self.clients.settings.server_timing else { return false };
        let asks = fields.remove(header).is_some();
        asks && (*from_anyone || self.peer.trust == Trust::Trusted)
    }

    /// How long its client may take.
    pub(crate) fn patience(&self) -> Patience {
        self.clients.settings.patience
    }
}

/// One of a worker's listeners: a socket that is accepted on, under settings that a revision of the configuration may change.
pub(crate) struct Listening {
    pub(crate) key: Key,
    worker: Rc<Worker>,
    gate: Gate,
    /// The connections accepted under the settings that hold now.
    clients: RefCell<Rc<Clients>>,
    /// Those of earlier settings.
    former: RefCell<Vec<Rc<Clients>>>,
    closing: Cell<bool>,
    closed: Notify,
    next_id: Cell<u64>,
}

impl Listening {
    pub(crate) fn new(settings: &Arc<Listener>, worker: Rc<Worker>, gate: Gate) -> Rc<Self> {
        Rc::new(Self {
            key: Key::of(settings),
            clients: RefCell::new(Clients::new(settings.clone(), &worker)),
            worker,
            gate,
            former: RefCell::default(),
            closing: Cell::default(),
            closed: Notify::new(),
            next_id: Cell::default(),
        })
    }

    /// Accepts the next connections under these settings; those that are open finish what they are at and end.
    pub(crate) fn change(&self, settings: &Arc<Listener>) {
        if self.clients().settings == *settings {
            return;
        }
        let before = self.clients.replace(Clients::new(settings.clone(), &self.worker));
        before.clone().finish();
        let mut former = self.former.borrow_mut();
        former.retain(|clients| !clients.is_empty());
        former.push(before);
    }

    /// Accepts no more connections than those that wait already; all finish what they are at and end.
    pub(crate) fn close(&self) {
        self.clients().finish();
        self.closing.set(true);
        self.closed.notify_waiters();
    }

    /// Whether no connection is left.
    pub(crate) fn is_over(&self) -> bool {
        self.clients().is_empty() && self.former.borrow().iter().all(|clients| clients.is_empty())
    }

    /// Waits until every connection has ended.
    pub(crate) async fn ended(&self) {
        let mut all = self.former.take();
        all.push(self.clients());
        for clients in all {
            clients.ended().await;
        }
    }

    fn clients(&self) -> Rc<Clients> {
        self.clients.borrow().clone()
    }
}

/// Accepts and serves connections until the listener is closed.
pub(crate) async fn run(socket: TcpListener, listening: Rc<Listening>) {
    while !listening.closing.get() {
        tokio::select! {
            accepted = socket.accept() => listening.accepted(&socket, accepted).await,
            () = listening.closed.notified() => break,
        }
    }
    // Clients whose connections wait here believe that they are served: the socket must not close on them.
    let Ok(socket) = socket.into_std() else { return };
    while let Ok((stream, address)) = socket.accept() {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            listening.arrived(stream, address);
        }
    }
}

impl Listening {
    async fn accepted(&self, socket: &TcpListener, accepted: io::Result<(TcpStream, SocketAddr)>) {
        match accepted {
            Ok((stream, address)) => self.arrived(stream, address),
            Err(error) if is_exhausted(&error) => {
                self.refuse(&self.clients(), Refusal::Descriptors);
                self.gate.turn_away(socket).await;
                tokio::time::sleep(EXHAUSTED).await;
            }
            // It was gone before it could be taken: nobody else's business.
            Err(error) => tracing::debug!(%error, "a connection could not be accepted"),
        }
    }

    fn arrived(&self, stream: TcpStream, address: SocketAddr) {
        let (clients, now) = (self.clients(), self.worker.clock.now());
        let settings = &clients.settings;
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let required = settings.proxy_protocol == ProxyProtocol::Required;
        let admitted = match self.gate.admit(&stream, settings.max_connections) {
            Ok(_) if required && !is_among(&settings.trusted_proxies, address.ip()) => Err(Refusal::Stranger),
            admitted => admitted,
        };
        match admitted {
            Ok(permit) => {
                clients.clock.set(now);
                let id = self.next_id.get() + 1;
                self.next_id.set(id);
                spawn_local(serve_connection(self.worker.clone(), clients, Arrived { stream, address, id, permit }));
            }
            Err(reason) => self.refuse(&clients, reason),
        }
    }

    fn refuse(&self, clients: &Clients, reason: Refusal) {
        self.worker.telemetry.refused(reason);
        if reason.is_for_room() {
            clients.want_room();
        }
        self.gate.log(&clients.settings.name, reason, self.worker.clock.now());
    }
}

/// A connection that was let in.
struct Arrived {
    stream: TcpStream,
    address: SocketAddr,
    id: u64,
    permit: Permit,
}

/// A connection's life, from when it was let in.
async fn serve_connection(worker: Rc<Worker>, clients: Rc<Clients>, arrived: Arrived) {
    // Small answers must not wait for the client's acknowledgement of the ones before.
    let _best_effort = arrived.stream.set_nodelay(true);
    let member = Rc::new(clients.join(arrived.id).await);
    let counted = worker.telemetry.connection();
    let peer = arrived.address;
    if let Some(Err(error)) = member.until_cut(pin!(pipeline(&worker, &member, arrived, counted))).await {
        tracing::debug!(%peer, %error, "connection ended");
    }
    if let Some(flood) = member.client.stamps.flood() {
        worker.telemetry.flooded(flood);
        tracing::debug!(%peer, kind = flood.word(), "connection ended: too many frames");
    }
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// What a connection passes through: the PROXY protocol's header, encryption, then HTTP.
async fn pipeline(worker: &Rc<Worker>, member: &Rc<Member>, arrived: Arrived, counted: OpenConnection) -> Ended {
    let Arrived { mut stream, address, id, permit } = arrived;
    let settings = &member.clients.settings;
    let ends = match member.before_requests(pin!(ends(settings, &mut stream, address))).await {
        Some(Ok(ends)) => ends,
        Some(Err(error)) => {
            worker.telemetry.refused(Refusal::ProxyProtocol);
            return Err(error.into());
        }
        None => return Ok(()),
    };
    let mut connection = connection(&member.clients, id, ends);
    let _set_once = connection.counted.set((member.clone(), counted));
    match &settings.tls {
        None if settings.speaks == Speaks::Tcp => {
            Box::pin(tcp::serve(worker, member, stream, connection, permit)).await
        }
        None => {
            connection.peer = connection.peer.with_certificate(forwarded(settings, None));
            http(worker, member, stream, connection, (permit, None)).await
        }
        Some(server) => {
            // Boxed, since it is large and over soon, and every connection would carry its state.
            let Some(accepted) = Box::pin(encrypt(worker, member, server, stream, address)).await else {
                return Ok(());
            };
            connection.peer = connection.peer.with_certificate(forwarded(settings, Some(&accepted.tls)));
            connection.tls = Some(accepted.tls);
            if settings.speaks == Speaks::Tcp {
                return Box::pin(tcp::serve(worker, member, accepted.stream, connection, permit)).await;
            }
            // Boxed too: connections in the clear must not pay for the size of this.
            let agreed = if accepted.speaks_h2 { Spoken::Http2 } else { Spoken::Http1 };
            Box::pin(http(worker, member, accepted.stream, connection, (permit, Some(agreed)))).await
        }
    }
}

/// The handshake; nothing when it fails, or no more requests are taken.
async fn encrypt(
    worker: &Worker,
    member: &Member,
    server: &Server,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<Accepted<TcpStream>> {
    let ended = member.before_requests(pin!(server.accept(stream))).await?;
    worker.telemetry.handshake(&ended);
    ended.inspect_err(|error| tracing::debug!(%peer, %error, "TLS handshake failed")).ok()
}

/// Who is at the other end, and what they think they have reached.
async fn ends(
    settings: &Listener,
    stream: &mut TcpStream,
    address: SocketAddr,
) -> Result<(SocketAddr, SocketAddr), ProxyError> {
    let local = stream.local_addr()?;
    let proxied = match settings.proxy_protocol {
        ProxyProtocol::Required => Some(proxied::read(stream).await?),
        // From anyone else the header is what it looks like: a malformed request.
        ProxyProtocol::Optional if is_among(&settings.trusted_proxies, address.ip()) => {
            proxied::read_if_there(stream).await?
        }
        ProxyProtocol::Optional | ProxyProtocol::Off => None,
    };
    Ok(match proxied {
        Some(Proxied::For { source, destination }) => {
            (SocketAddr::new(source.ip().to_canonical(), source.port()), destination)
        }
        Some(Proxied::Local) | None => (address, local),
    })
}

fn connection(clients: &Rc<Clients>, id: u64, (address, local): (SocketAddr, SocketAddr)) -> Connection {
    let settings = &clients.settings;
    let trusted = is_among(&settings.trusted_proxies, address.ip());
    let trust = if trusted { Trust::Trusted } else { Trust::Stranger };
    let peer = Peer::new(address.ip(), trust, settings.forwarding);
    let (rules, answers, clients) = (settings.rules, Arc::default(), clients.clone());
    let (tls, counted) = (None, OnceCell::new());
    Connection { id, address, local, peer, tls, clients, rules, answers, counted }
}

/// Speaks HTTP, in the version the client begins with: over TLS, that is the one that was agreed on.
async fn http<S: Transport>(
    worker: &Rc<Worker>,
    member: &Member,
    stream: S,
    connection: Connection,
    (permit, agreed): (Permit, Option<Spoken>),
) -> Ended {
    let (worker, client, connection) = (worker.clone(), member.client.clone(), Rc::new(connection));
    let mut stream = Watched::new(stream, client.stamps.clone(), permit);
    let spoken = member.before_requests(pin!(stream.spoken())).await.transpose()?;
    match spoken.map(|spoken| agreed.unwrap_or(spoken)) {
        None => {}
        Some(Spoken::Http1) => http1(worker, member, stream, connection).await?,
        Some(Spoken::Http2) => {
            let builder = http2_builder(&client, member.clients.settings.http2, worker.revision().table.has_tunnels());
            let service =
                service_fn(move |request| serve(worker.clone(), connection.clone(), client.lane_for_stream(), request));
            // Boxed: those who speak HTTP/1.1 must not pay for its size.
            let mut served = Box::pin(builder.serve_connection(TokioIo::new(stream), service));
            // GOAWAY names the last stream that is served, so it cuts nobody off.
            let told_at = Lasts::ForOneMore;
            drive(member, told_at, served.as_mut(), |served| served.graceful_shutdown(), || false).await.transpose()?;
        }
    }
    Ok(())
}

/// Speaks HTTP/1.1. While the client is silent there is no more than its stream: the HTTP library's buffers would weigh more than all
/// else.
async fn http1<S: Transport>(
    worker: Rc<Worker>,
    member: &Member,
    stream: Watched<S>,
    connection: Rc<Connection>,
) -> Result<(), hyper::Error> {
    let (client, lane) = (&member.client, member.client.lane.clone());
    let answers = connection.answers.clone();
    let mut stream = Strict::new(stream, answers.clone());
    let mut service = service_fn(move |request| serve(worker.clone(), connection.clone(), lane.clone(), request));
    let mut builder = http1::Builder::new();
    // Not `pipeline_flush`: with it, responses pile up here while their client does not read.
    builder.half_close(false).keep_alive(true).max_buf_size(BUFFER);
    // It is told with a response that the connection ends, while another may still come.
    let told_at = Lasts::ForThis;
    loop {
        let mut served = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let pauses = || client.rests() && !answers.are_over();
        let driven = drive(member, told_at, Pin::new(&mut served), |served| served.graceful_shutdown(), pauses);
        if let Some(ended) = driven.await {
            return ended;
        }
        let Some(parts) = served.into_parts() else { return Ok(()) };
        (stream, service) = (parts.io.into_inner(), parts.service);
        stream.put_back(parts.read_buf);
        poll_fn(|cx| if member.ends(told_at) { Poll::Ready(()) } else { stream.poll_rest(cx) }).await;
        client.roused();
    }
}

/// Drives a connection to its end, and tells it once when that is wanted: when it lasts no longer than `told_at`. Without output where
/// it pauses.
async fn drive<C: Future>(
    member: &Member,
    told_at: Lasts,
    mut served: Pin<&mut C>,
    tell: fn(Pin<&mut C>),
    pauses: impl Fn() -> bool,
) -> Option<C::Output> {
    let mut is_told = false;
    poll_fn(|cx| {
        if member.ends(told_at) && !std::mem::replace(&mut is_told, true) {
            tell(served.as_mut());
        }
        let polled = served.as_mut().poll(cx);
        if polled.is_pending() && pauses() { Poll::Ready(None) } else { polled.map(Some) }
    })
    .await
}

fn http2_builder(client: &Rc<Client>, settings: Http2, has_tunnels: bool) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(Streams(client.clone()));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(MAX_HEAD)
        .max_send_buf_size(BUFFER)
        .max_local_error_reset_streams(MISTAKES)
        .max_pending_accept_reset_streams(UNSEEN_RESETS)
        .keep_alive_interval(settings.ping)
        .keep_alive_timeout(PONG);
    if has_tunnels {
        // Told of it, browsers open WebSockets over HTTP/2; otherwise over a connection of their own (RFC 8441 §3).
        builder.enable_connect_protocol();
    }
    builder
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

fn is_among(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}
