//! One worker's upstreams: an endpoint chosen, a connection leased, a request sent.
//!
//! What is chosen is `core::upstream`'s decision; this file and its children connect and wait. A request that was never written
//! because its kept-alive connection had died is sent again on another; once written, it is not.

mod connect;
mod pool;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{Method, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use portcullis_core::context::UpstreamId;
use portcullis_core::headers::{Headers, StartLine};
use portcullis_core::upstream::{Balancer, EndpointIndex};

pub(crate) use self::connect::LocalExecutor;
use self::pool::{Connection, Pool};
use crate::clock::Clock;
use crate::config::snapshot::{self, Protocol};
use crate::message::RequestBody;

/// How often a request is tried before the upstream counts as unreachable.
const ATTEMPTS: usize = 3;

/// Why there is no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SendError {
    /// No endpoint took a connection.
    #[error("no endpoint could be connected to")]
    Connect,
    /// The endpoint broke off, or answered what is not HTTP.
    #[error("the endpoint broke off before it had answered")]
    Reset,
    /// The request cannot be written as HTTP.
    #[error("the request cannot be written as HTTP")]
    BadRequest,
}

/// The head of a response, with its body to come and the connection it comes over.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    pub(crate) lease: Lease,
}

/// A connection on loan. Back to its pool when the response was read to its end, closed otherwise.
pub(crate) struct Lease {
    upstream: Rc<Upstream>,
    endpoint: EndpointIndex,
    connection: Option<Connection>,
}

impl Lease {
    /// The endpoint's address.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.connection.as_ref().map(Connection::address)
    }

    /// The response has been read to its end: the connection may be used again.
    pub(crate) fn done(mut self, clock: &Clock) {
        if let Some(connection) = self.connection.take() {
            self.upstream.pool(self.endpoint, |pool| pool.put(connection, clock.now()));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.upstream.balancer.borrow_mut().finished(self.endpoint);
    }
}

/// A named group of equal endpoints.
struct Upstream {
    spec: Arc<snapshot::Upstream>,
    balancer: RefCell<Balancer>,
    pools: Vec<RefCell<Pool>>,
}

impl Upstream {
    fn pool<T>(&self, endpoint: EndpointIndex, then: impl FnOnce(&mut Pool) -> T) -> Option<T> {
        self.pools.get(endpoint.get()).map(|pool| then(&mut pool.borrow_mut()))
    }

    /// A kept-alive connection, or a new one.
    async fn lease(self: &Rc<Self>, clock: &Clock) -> Result<(Lease, Origin), SendError> {
        let endpoint = self.balancer.borrow_mut().choose(clock.now()).ok_or(SendError::Connect)?;
        self.balancer.borrow_mut().started(endpoint);
        let mut lease = Lease { upstream: self.clone(), endpoint, connection: None };
        if let Some(connection) = self.pool(endpoint, Pool::take).flatten() {
            lease.connection = Some(connection);
            return Ok((lease, Origin::KeptAlive));
        }
        let target = self.spec.endpoints.get(endpoint.get()).ok_or(SendError::Connect)?;
        // Boxed, since it is rare and large, and every exchange would carry its state.
        match Box::pin(connect::connect(target, self.spec.protocol, self.spec.timeouts.connect)).await {
            Ok(connection) => {
                if let Some(shared) = connection.shared() {
                    // One HTTP/2 connection carries many exchanges at once: others may use it from now on.
                    self.pool(endpoint, |pool| pool.put(shared, clock.now()));
                }
                lease.connection = Some(connection);
                Ok((lease, Origin::New))
            }
            Err(error) => {
                tracing::debug!(upstream = %self.spec.name, endpoint = %target, %error, "connect failed");
                self.balancer.borrow_mut().failed(endpoint, clock.now());
                Err(SendError::Connect)
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    KeptAlive,
    New,
}

impl Upstream {
    /// Nothing connected yet. `seed` keeps workers from choosing in step.
    fn new(spec: Arc<snapshot::Upstream>, seed: u64) -> Rc<Self> {
        Rc::new(Self {
            balancer: RefCell::new(Balancer::new(spec.balance, spec.endpoints.len(), seed)),
            pools: spec.endpoints.iter().map(|_| RefCell::default()).collect(),
            spec,
        })
    }
}

/// An upstream at its place, and how many revisions of the configuration use it.
struct Held {
    upstream: Rc<Upstream>,
    holders: u32,
}

/// All upstreams of one worker, those of earlier revisions that still have exchanges included.
pub(crate) struct Upstreams {
    all: RefCell<Vec<Option<Held>>>,
    seed: u64,
}

impl Upstreams {
    pub(crate) fn new(seed: u64) -> Self {
        Self { all: RefCell::default(), seed }
    }

    /// Notes one more user of the place `id`. If it had none, there will be an upstream of this kind.
    pub(crate) fn hold(&self, id: UpstreamId, spec: &Arc<snapshot::Upstream>) {
        let (mut all, index) = (self.all.borrow_mut(), id.0 as usize);
        if all.len() <= index {
            all.resize_with(index + 1, || None);
        }
        if let Some(place) = all.get_mut(index) {
            let new = || Held { upstream: Upstream::new(spec.clone(), self.seed), holders: 0 };
            place.get_or_insert_with(new).holders += 1;
        }
    }

    /// Notes one user less of the place `id`. With the last, its idle connections are closed and the place is free.
    pub(crate) fn release(&self, id: UpstreamId) {
        let mut all = self.all.borrow_mut();
        let Some(place) = all.get_mut(id.0 as usize) else { return };
        if let Some(held) = place {
            held.holders = held.holders.saturating_sub(1);
        }
        place.take_if(|held| held.holders == 0);
    }

    fn get(&self, id: UpstreamId) -> Option<Rc<Upstream>> {
        self.all.borrow().get(id.0 as usize)?.as_ref().map(|held| held.upstream.clone())
    }

    /// Sends a request and waits for the head of the response.
    pub(crate) async fn send(
        &self,
        id: UpstreamId,
        headers: Headers,
        body: RequestBody,
        clock: &Clock,
    ) -> Result<Answer, SendError> {
        let upstream = self.get(id).ok_or(SendError::Connect)?;
        let mut request = request(headers, body, upstream.spec.protocol)?;
        let mut failure = SendError::Connect;
        for _ in 0..ATTEMPTS {
            let (mut lease, origin) = match upstream.lease(clock).await {
                Ok(leased) => leased,
                Err(error) => {
                    failure = error;
                    continue;
                }
            };
            let Some(connection) = lease.connection.as_mut() else { continue };
            match connection.send(request).await {
                Ok(response) => {
                    upstream.balancer.borrow_mut().answered(lease.endpoint);
                    return Ok(Answer { response, lease });
                }
                Err(mut error) => {
                    let stale = origin == Origin::KeptAlive;
                    let unsent = error.take_message();
                    tracing::debug!(upstream = %upstream.spec.name, error = %error.error(), stale, "exchange failed");
                    if !stale {
                        upstream.balancer.borrow_mut().failed(lease.endpoint, clock.now());
                    }
                    // The connection is not fit to be put back: the lease is dropped with it.
                    match unsent {
                        Some(unsent) => request = unsent,
                        None => return Err(SendError::Reset),
                    }
                    failure = SendError::Reset;
                }
            }
        }
        Err(failure)
    }

    /// Closes connections that have been idle for longer than their upstream allows.
    pub(crate) fn sweep(&self, clock: &Clock) {
        let now = clock.now();
        for Held { upstream, .. } in self.all.borrow().iter().flatten() {
            let idle: Duration = upstream.spec.timeouts.idle;
            upstream.pools.iter().for_each(|pool| pool.borrow_mut().sweep(now, idle));
        }
    }
}

/// The request as the wire library wants it: origin form with `Host` for HTTP/1.1, absolute form without for HTTP/2.
fn request(headers: Headers, body: RequestBody, protocol: Protocol) -> Result<Request<RequestBody>, SendError> {
    let (start, mut fields) = headers.into_parts();
    let StartLine::Request { method, scheme, path: Some(path) } = start else { return Err(SendError::BadRequest) };
    // For these the library would leave a body of unknown length out, unless it is told to send it.
    let chunked =
        matches!(method, Method::GET | Method::HEAD) && !body.is_end_stream() && body.size_hint().exact().is_none();
    let mut request = Request::new(body);
    *request.method_mut() = method;
    match protocol {
        Protocol::Http1 => {
            if !fields.contains_key(header::HOST) {
                // HTTP/1.1 has one, be it empty (RFC 9112 §3.2): HTTP/1.0 clients and filters may have left none.
                fields.insert(header::HOST, HeaderValue::from_static(""));
            }
            if chunked && !fields.contains_key(header::CONTENT_LENGTH) {
                fields.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
            *request.uri_mut() = path.into();
        }
        Protocol::Http2 => {
            let host = fields.remove(header::HOST).ok_or(SendError::BadRequest)?;
            let uri = http::Uri::builder().scheme(scheme.as_str()).authority(host.as_bytes()).path_and_query(path);
            *request.uri_mut() = uri.build().map_err(|_| SendError::BadRequest)?;
            *request.version_mut() = http::Version::HTTP_2;
        }
    }
    *request.headers_mut() = fields;
    Ok(request)
}
