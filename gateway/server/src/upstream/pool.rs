//! Idle connections to one endpoint, last used first.

use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use portcullis_core::time::Time;
use tokio::task::AbortHandle;

use crate::message::RequestBody;

/// The most idle connections kept to one endpoint by one worker.
const MAX_IDLE: usize = 256;

/// Where requests are handed to the connection's task.
pub(super) enum Sender {
    Http1(http1::SendRequest<RequestBody>),
    Http2(http2::SendRequest<RequestBody>),
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
}

impl Connection {
    pub(super) fn new(sender: Sender, address: SocketAddr, driver: Option<Driver>) -> Self {
        Self { sender, address, _driver: driver }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Another handle on the same connection, where one connection carries many exchanges.
    pub(super) fn shared(&self) -> Option<Self> {
        match &self.sender {
            Sender::Http1(_) => None,
            Sender::Http2(sender) => Some(Self::new(Sender::Http2(sender.clone()), self.address, None)),
        }
    }

    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        match &mut self.sender {
            Sender::Http1(sender) => sender.try_send_request(request).await,
            Sender::Http2(sender) => sender.try_send_request(request).await,
        }
    }

    /// Whether it can take a request now. One that is still busy with an earlier one is not worth waiting for.
    fn is_ready(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        let ready = match &mut self.sender {
            Sender::Http1(sender) => sender.poll_ready(&mut context),
            Sender::Http2(sender) => sender.poll_ready(&mut context),
        };
        matches!(ready, Poll::Ready(Ok(())))
    }
}

/// Idle connections to one endpoint.
#[derive(Default)]
pub(super) struct Pool {
    idle: Vec<(Connection, Time)>,
}

impl Pool {
    /// A connection that can take a request; those that cannot are closed on the way.
    pub(super) fn take(&mut self) -> Option<Connection> {
        loop {
            let (connection, _) = self.idle.last_mut()?;
            if connection.is_ready() {
                return connection.shared().or_else(|| self.idle.pop().map(|(connection, _)| connection));
            }
            self.idle.pop();
        }
    }

    pub(super) fn put(&mut self, connection: Connection, now: Time) {
        let already_here = matches!(connection.sender, Sender::Http2(_)) && !self.idle.is_empty();
        if !already_here && self.idle.len() < MAX_IDLE {
            self.idle.push((connection, now));
        }
    }

    pub(super) fn sweep(&mut self, now: Time, limit: Duration) {
        self.idle.retain(|(_, since)| now.saturating_since(*since) < limit);
    }
}
