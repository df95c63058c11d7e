//! Idle connections to one endpoint, last used first.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use portcullis_core::answer::Asked;
use portcullis_core::time::Time;
use tokio::task::AbortHandle;

use super::watched::Line;
use crate::message::RequestBody;
use crate::tls::client::Known;

/// The most idle connections kept to one endpoint by one worker.
const MAX_IDLE: usize = 256;
/// How often a new HTTP/2 connection is looked at for its settings before it counts as one that takes no tunnels: for a second.
const LOOKS: u32 = 200;
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// Where requests are handed to the connection's task.
pub(super) enum Sender {
    Http1(http1::SendRequest<RequestBody>, Arc<Line>),
    Http2(http2::SendRequest<RequestBody>, Rc<Streams>),
}

/// How many exchanges an HTTP/2 connection carries, how many its endpoint allows, and whether it takes tunnels.
pub(super) struct Streams {
    used: Cell<usize>,
    allowed: Cell<usize>,
    /// Whether the endpoint takes extended CONNECT. It must have said so before it is asked (RFC 8441 §3); its settings come
    /// before its first response.
    tunnels: Cell<Option<bool>>,
    /// A response has come in.
    answered: Cell<bool>,
    /// The task that can look. It does not run when settings come in.
    driver: RefCell<Option<Waker>>,
}

impl Default for Streams {
    /// So many are given to a connection before its endpoint has said (RFC 9113 §6.5.2 recommends no less).
    fn default() -> Self {
        Self {
            used: Cell::default(),
            allowed: Cell::new(100),
            tunnels: Cell::default(),
            answered: Cell::default(),
            driver: RefCell::default(),
        }
    }
}

impl Streams {
    pub(super) fn allow(&self, streams: usize) {
        self.allowed.set(streams);
    }

    fn has_room(&self) -> bool {
        self.used.get() < self.allowed.get()
    }

    /// Looks whether the endpoint has said that it takes tunnels, for as long as that is not known.
    pub(super) fn look(&self, driver: &Context<'_>, taken: impl FnOnce() -> bool) {
        if self.tunnels.get().is_some() {
            return;
        }
        if taken() {
            self.tunnels.set(Some(true));
        } else if self.answered.get() {
            self.tunnels.set(Some(false));
        } else {
            self.driver.replace(Some(driver.waker().clone()));
        }
    }

    async fn take_tunnels(&self) -> bool {
        for _ in 0..LOOKS {
            if let Some(taken) = self.tunnels.get() {
                return taken;
            }
            if let Some(driver) = self.driver.take() {
                driver.wake();
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        self.tunnels.get().unwrap_or_default()
    }
}

/// One exchange on an HTTP/2 connection.
struct Stream(Rc<Streams>);

impl Stream {
    fn begin(streams: &Rc<Streams>) -> Self {
        streams.used.set(streams.used.get() + 1);
        Self(streams.clone())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.used.set(self.0.used.get() - 1);
    }
}

/// The task that drives a connection which only one exchange at a time uses. It ends with that use: left alone, a task that is
/// stuck writing to an endpoint that does not read would hold the client's body, and with it the client's connection.
pub(super) struct Driver(AbortHandle);

impl Driver {
    pub(super) fn new(task: AbortHandle) -> Self {
        Self(task)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An open connection.
pub(super) struct Connection {
    sender: Sender,
    address: SocketAddr,
    _driver: Option<Driver>,
    /// Absent in the pool.
    _stream: Option<Stream>,
    tls: Option<Arc<Known>>,
}

impl Connection {
    pub(super) fn new(sender: Sender, address: SocketAddr, driver: Option<Driver>, tls: Option<Arc<Known>>) -> Self {
        let _stream = match &sender {
            Sender::Http1(..) => None,
            Sender::Http2(_, streams) => Some(Stream::begin(streams)),
        };
        Self { sender, address, _driver: driver, _stream, tls }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn speaks_h2(&self) -> bool {
        matches!(self.sender, Sender::Http2(..))
    }

    /// The endpoint has answered over it.
    pub(super) fn answered(&self) {
        if let Some(tls) = &self.tls {
            tls.answered();
        }
    }

    /// Why it broke before the endpoint had answered, where that has to do with TLS.
    pub(super) fn fault(&self) -> Option<String> {
        self.tls.as_ref()?.fault()
    }

    /// Another handle on the same connection, where one connection carries many exchanges.
    pub(super) fn shared(&self) -> Option<Self> {
        match &self.sender {
            Sender::Http1(..) => None,
            Sender::Http2(sender, streams) => {
                Some(Self::new(Sender::Http2(sender.clone(), streams.clone()), self.address, None, self.tls.clone()))
            }
        }
    }

    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        match &mut self.sender {
            Sender::Http1(sender, line) => {
                line.ask(asked(&request));
                sender.try_send_request(request).await
            }
            Sender::Http2(sender, streams) => {
                let response = sender.try_send_request(request).await;
                if response.is_ok() {
                    streams.answered.set(true);
                }
                response
            }
        }
    }

    /// Whether the endpoint takes what opens a tunnel. Over HTTP/1.1 its answer says so.
    pub(super) async fn takes_tunnels(&self) -> bool {
        match &self.sender {
            Sender::Http1(..) => true,
            Sender::Http2(_, streams) => streams.take_tunnels().await,
        }
    }

    fn is_over(&self, streams: &Rc<Streams>) -> bool {
        matches!(&self.sender, Sender::Http2(_, own) if Rc::ptr_eq(own, streams))
    }

    fn is_in_use(&self) -> bool {
        matches!(&self.sender, Sender::Http2(_, streams) if streams.used.get() > 0)
    }

    /// Whether it can take a request now. One that is still busy with an earlier one is not worth waiting for.
    fn is_ready(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        let ready = match &mut self.sender {
            Sender::Http1(_, line) if !line.is_sound() => return false,
            Sender::Http1(sender, _) => sender.poll_ready(&mut context),
            Sender::Http2(sender, _) => sender.poll_ready(&mut context),
        };
        matches!(ready, Poll::Ready(Ok(())))
    }
}

fn asked(request: &Request<RequestBody>) -> Asked {
    match request.method() {
        &http::Method::HEAD => Asked::Head,
        // Clients' own `Upgrade` ends at the gateway: this one is the gateway's.
        _ if request.headers().contains_key(http::header::UPGRADE) => Asked::Upgrade,
        _ => Asked::Plain,
    }
}

/// Idle connections to one endpoint; and those of HTTP/2, idle or not.
#[derive(Default)]
pub(super) struct Pool {
    idle: Vec<(Connection, Time)>,
}

impl Pool {
    /// A connection that can take a request, and since when it has been here; those that cannot any more are closed on the way.
    pub(super) fn take(&mut self) -> Option<(Connection, Time)> {
        let mut next = self.idle.len();
        while let Some(at) = next.checked_sub(1) {
            next = at;
            let (connection, since) = self.idle.get_mut(at)?;
            if !connection.is_ready() {
                self.idle.remove(at);
                continue;
            }
            match &connection.sender {
                Sender::Http1(..) => return Some(self.idle.remove(at)),
                Sender::Http2(_, streams) if streams.has_room() => {
                    let since = *since;
                    return connection.shared().map(|connection| (connection, since));
                }
                Sender::Http2(..) => {}
            }
        }
        None
    }

    /// How many connections nobody uses.
    pub(super) fn unused(&self) -> usize {
        let is_unused = |connection: &Connection| match &connection.sender {
            Sender::Http1(..) => true,
            Sender::Http2(_, streams) => streams.used.get() == 0,
        };
        self.idle.iter().filter(|(connection, _)| is_unused(connection)).count()
    }

    /// An HTTP/2 connection that has as many exchanges as it may: what is sent over it waits there.
    pub(super) fn take_full(&mut self) -> Option<Connection> {
        let full = self.idle.iter().min_by_key(|(connection, _)| match &connection.sender {
            Sender::Http1(..) => usize::MAX,
            Sender::Http2(_, streams) => streams.used.get(),
        });
        full?.0.shared()
    }

    pub(super) fn put(&mut self, mut connection: Connection, now: Time) {
        connection._stream = None;
        let is_known = match &connection.sender {
            Sender::Http1(..) => false,
            Sender::Http2(_, streams) => self.idle.iter().any(|(known, _)| known.is_over(streams)),
        };
        if !is_known && self.idle.len() < MAX_IDLE {
            self.idle.push((connection, now));
        }
    }

    pub(super) fn sweep(&mut self, now: Time, limit: Duration) {
        self.idle.retain_mut(|(connection, since)| {
            if connection.is_in_use() {
                *since = now;
            }
            now.saturating_since(*since) < limit
        });
    }
}
