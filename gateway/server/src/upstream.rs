//! One worker's upstreams: an endpoint chosen, a connection leased, a request sent.
//!
//! Which endpoint is `core::upstream`'s decision, whether a request is tried again `core::retry`'s; this file and its children
//! connect, keep what a further try would need (`replay`), and wait.

mod connect;
mod health;
mod lease;
mod pool;
mod raw;
pub(crate) mod reach;
mod replay;
mod resolve;
mod tries;
mod watched;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use portcullis_core::context::UpstreamId;
use portcullis_core::headers::{Headers, Scheme, StartLine};
use portcullis_core::health::Checks;
use portcullis_core::reply::Failure;
use portcullis_core::retry::{Budget, Policy};
use portcullis_core::throttle::Throttle;
use portcullis_core::time::Time;
use portcullis_core::upgrade;
use portcullis_core::upstream::{Balancer, EndpointIndex};
use tokio::sync::Notify;
use tokio::task::spawn_local;

pub(crate) use self::connect::LocalExecutor;
pub(crate) use self::lease::Lease;
use self::lease::{Active, Flight};
use self::pool::{Connection, Pool};
pub(crate) use self::raw::Raw;
pub(crate) use self::replay::Replay;
use self::resolve::Names;
pub(crate) use self::tries::Tries;
use self::tries::{Course, word_of};
use crate::clock::Clock;
use crate::config::snapshot::{self, Endpoint, UpstreamLimits};
use crate::message::RequestBody;
use crate::telemetry::{Standing, UpstreamCounts, UpstreamTelemetry};

/// A connection that has not been used for so long may have been closed at the other end without our knowing. Sooner, it would
/// have to be closed just then, and keeping a copy of every request for that case costs more than it saves.
const MAY_BE_STALE: Duration = Duration::from_millis(50);
/// How often it is logged at most that there is no secure connection to an upstream.
const TLS_FAILURES: Duration = Duration::from_secs(10);

/// Why there is no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SendError {
    /// No endpoint took a connection.
    #[error("no endpoint could be connected to")]
    Connect,
    /// No connection was made in time.
    #[error("no endpoint could be connected to in time")]
    ConnectTimeout,
    /// The last try took too long.
    #[error("the endpoint did not answer within the time of one try")]
    TryTimeout,
    /// The endpoint did not prove who it is, or would not have us.
    #[error("no secure connection could be made")]
    Tls,
    /// The endpoint broke off.
    #[error("the endpoint broke off before it had answered")]
    Reset,
    /// The endpoint answered what is not HTTP, or can be read in two ways.
    #[error("the endpoint's answer is malformed")]
    Protocol,
    /// The upstream has as many requests as it may have.
    #[error("the upstream has as many requests as it may have")]
    Overloaded,
    /// The endpoint does not take what opens a tunnel.
    #[error("the endpoint takes no extended CONNECT")]
    NoTunnel,
    /// The request cannot be written as HTTP.
    #[error("the request cannot be written as HTTP")]
    BadRequest,
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Connect => Self::UpstreamConnect,
            SendError::ConnectTimeout => Self::UpstreamConnectTimeout,
            SendError::TryTimeout => Self::UpstreamTryTimeout,
            SendError::Tls => Self::UpstreamTls,
            SendError::Reset => Self::UpstreamReset,
            SendError::Protocol => Self::UpstreamProtocol,
            SendError::Overloaded => Self::UpstreamOverloaded,
            SendError::NoTunnel => Self::UpgradeFailed,
            SendError::BadRequest => Self::BadRequest,
        }
    }
}

impl From<&hyper::Error> for SendError {
    fn from(error: &hyper::Error) -> Self {
        let malformed = error.is_parse() || watched::violation(error).is_some();
        if malformed { Self::Protocol } else { Self::Reset }
    }
}

/// What is said of a response that breaks off.
pub(crate) fn failure_of(error: &hyper::Error) -> Failure {
    SendError::from(error).into()
}

/// The head of a response, with its body to come and the connection it comes over.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    pub(crate) lease: Lease,
}

/// One endpoint: an address, with the connections to it that nobody uses.
struct Target {
    index: EndpointIndex,
    address: SocketAddr,
    /// What the configuration calls it; its name may have other addresses too.
    name: Rc<Endpoint>,
    /// Its name still has this address.
    is_here: bool,
    pool: Pool,
    flight: Option<Rc<Flight>>,
    checks: Checks,
}

impl Target {
    fn new(index: EndpointIndex, address: SocketAddr, name: Rc<Endpoint>) -> Self {
        Self { index, address, name, is_here: true, pool: Pool::default(), flight: None, checks: Checks::default() }
    }
}

/// A named group of equal endpoints.
struct Upstream {
    spec: Arc<snapshot::Upstream>,
    /// This worker's share.
    limits: UpstreamLimits,
    balancer: RefCell<Balancer>,
    /// In the places that the balancer's indices name.
    targets: RefCell<Vec<Target>>,
    names: Names,
    budget: RefCell<Budget>,
    open: Cell<u32>,
    pending: Cell<u32>,
    /// A connection was put back or closed.
    room: Notify,
    counts: Arc<UpstreamCounts>,
    tls_failures: Throttle,
}

impl Upstream {
    fn new(spec: Arc<snapshot::Upstream>, parts: usize, seed: u64, counts: Arc<UpstreamCounts>) -> Rc<Self> {
        let share = |limit: u32| limit.div_ceil(u32::try_from(parts).unwrap_or(u32::MAX));
        let UpstreamLimits { requests, connections, pending } = spec.limits;
        let upstream = Self {
            limits: UpstreamLimits {
                requests: requests.map(share),
                connections: connections.map(share),
                pending: share(pending),
            },
            balancer: RefCell::new(Balancer::new(spec.balance, spec.ejection, 0, seed)),
            targets: RefCell::default(),
            names: Names::of(&spec.endpoints),
            budget: RefCell::default(),
            open: Cell::default(),
            pending: Cell::default(),
            room: Notify::new(),
            counts,
            tls_failures: Throttle::new(1, TLS_FAILURES),
            spec,
        };
        upstream.set_addresses();
        Rc::new(upstream)
    }

    /// Starts looking names up, and health checks. Both end with the upstream.
    fn run(self: &Rc<Self>) {
        if !self.names.is_empty() {
            spawn_local(resolve::run(Rc::downgrade(self)));
        }
        if let Some(health) = &self.spec.health {
            spawn_local(health::run(Rc::downgrade(self), health.clone()));
        }
    }

    fn target<T>(&self, endpoint: EndpointIndex, then: impl FnOnce(&mut Target) -> T) -> Option<T> {
        self.targets.borrow_mut().get_mut(endpoint.get()).map(then)
    }

    fn endpoints(&self) -> Vec<EndpointIndex> {
        self.targets.borrow().iter().filter(|target| target.is_here).map(|target| target.index).collect()
    }

    fn take(&self, endpoint: EndpointIndex) -> Option<(Connection, Time)> {
        self.target(endpoint, |target| target.pool.take()).flatten()
    }

    fn put_back(&self, endpoint: EndpointIndex, connection: Connection, clock: &Clock) {
        self.target(endpoint, |target| {
            if target.is_here {
                target.pool.put(connection, clock.now());
            }
        });
        if self.limits.connections.is_some() {
            self.room.notify_one();
        }
    }

    /// Whether there is an endpoint that has not failed.
    fn has_other(&self, course: &Course, clock: &Clock) -> bool {
        self.balancer.borrow().has_other(clock.now(), &course.failed)
    }

    /// The endpoint answered.
    fn answered(&self, endpoint: EndpointIndex, status: StatusCode, clock: &Clock) {
        match status {
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                self.erred(endpoint, clock);
            }
            _ => self.balancer.borrow_mut().answered(endpoint),
        }
    }

    /// The endpoint answered with an error, or not in time.
    fn erred(&self, endpoint: EndpointIndex, clock: &Clock) {
        if self.balancer.borrow_mut().erred(endpoint, clock.now()) {
            self.counts.ejected();
        }
    }

    /// The endpoint broke off, or was not there.
    fn failed(&self, endpoint: EndpointIndex, clock: &Clock) {
        if self.balancer.borrow_mut().failed(endpoint, clock.now()) {
            self.counts.ejected();
        }
    }

    /// Tells the operator why there is no secure connection; not for every request.
    fn tell_of_tls(&self, endpoint: &dyn std::fmt::Display, error: &dyn std::fmt::Display, clock: &Clock) {
        if self.tls_failures.take(clock.now()).is_some() {
            tracing::warn!(upstream = %self.spec.name, %endpoint, %error, "no secure connection to the upstream");
        }
    }

    /// Closes what has been idle for too long, and notes what scrapes show.
    fn sweep(&self, now: Time) {
        let idle = self.spec.timeouts.idle;
        let mut waiting = 0;
        for target in self.targets.borrow_mut().iter_mut() {
            target.pool.sweep(now, idle);
            waiting += target.pool.unused();
        }
        let (endpoints, usable) = self.balancer.borrow().count(now);
        let (active, pending) = (self.budget.borrow().active(), self.pending.get());
        self.counts.stands(Standing { endpoints, usable, idle: waiting, active, pending });
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
    /// One in so many parts of what may be used of an upstream is this worker's.
    parts: usize,
    telemetry: UpstreamTelemetry,
    /// The runtime runs: what goes on beside the requests can be started.
    running: Cell<bool>,
}

impl Upstreams {
    /// `seed` keeps workers from choosing in step.
    pub(crate) fn new(seed: u64, parts: usize, telemetry: UpstreamTelemetry) -> Self {
        Self { all: RefCell::default(), seed, parts, telemetry, running: Cell::default() }
    }

    /// Notes one more user of the place `id`. If it had none, there will be an upstream of this kind.
    pub(crate) fn hold(&self, id: UpstreamId, spec: &Arc<snapshot::Upstream>) {
        let (mut all, index) = (self.all.borrow_mut(), id.0 as usize);
        if all.len() <= index {
            all.resize_with(index + 1, || None);
        }
        if let Some(place) = all.get_mut(index) {
            let held = place.get_or_insert_with(|| {
                let counts = self.telemetry.of(&spec.name, &spec.owner);
                let upstream = Upstream::new(spec.clone(), self.parts, self.seed, counts);
                if self.running.get() {
                    upstream.run();
                }
                Held { upstream, holders: 0 }
            });
            held.holders += 1;
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

    /// The name of an upstream, and of the tenant who alone sees it.
    pub(crate) fn names(&self, id: UpstreamId) -> Option<(Arc<str>, Arc<str>)> {
        self.get(id).map(|upstream| (upstream.spec.name.clone(), upstream.spec.owner.clone()))
    }

    /// The service of this gateway that an upstream is.
    pub(crate) fn service(&self, id: UpstreamId) -> Option<snapshot::Service> {
        self.get(id)?.spec.service
    }

    /// Starts what goes on beside the requests, now and for upstreams to come.
    pub(crate) fn run(&self) {
        self.running.set(true);
        self.all.borrow().iter().flatten().for_each(|held| held.upstream.run());
    }

    /// Sends a request and waits for the head of the response; tries again as `policy` says, or as the upstream's own does.
    pub(crate) async fn send(
        &self,
        id: UpstreamId,
        (headers, body): (Headers, RequestBody),
        policy: Option<&Policy>,
        tries: &Tries,
        clock: &Clock,
    ) -> Result<Answer, SendError> {
        let upstream = &self.get(id).ok_or(SendError::Connect)?;
        let policy = policy.unwrap_or(&upstream.spec.retry);
        let (request, scheme) = request(headers, body)?;
        tries.is_for(scheme);
        let active = Active::begin(upstream)?;
        let sent = match upstream.attempt(request, policy, &Course::default(), tries, clock).await {
            Ok(answer) => Ok(answer),
            // Boxed, since it is rare, and every exchange would carry its state.
            Err(miss) => Box::pin(upstream.further(*miss, policy, tries, clock)).await,
        };
        tries.ended(word_of(&sent), clock);
        let mut answer = sent?;
        answer.lease.active = Some(active);
        Ok(answer)
    }

    /// The last try of a request has been given up, because the response's time is over.
    pub(crate) fn timed_out(&self, id: UpstreamId, tries: &Tries, clock: &Clock) {
        if let (Some(upstream), Some(endpoint)) = (self.get(id), tries.endpoint()) {
            upstream.erred(endpoint, clock);
        }
    }

    /// Closes connections that have been idle for longer than their upstream allows.
    pub(crate) fn sweep(&self, clock: &Clock) {
        let now = clock.now();
        self.all.borrow().iter().flatten().for_each(|held| held.upstream.sweep(now));
    }
}

/// The request without what only one version of HTTP has: a path, and `Host`. Its scheme is beside it.
fn request(headers: Headers, body: RequestBody) -> Result<(Request<RequestBody>, Scheme), SendError> {
    let (start, fields) = headers.into_parts();
    let StartLine::Request { method, scheme, path: Some(path) } = start else { return Err(SendError::BadRequest) };
    if method == Method::CONNECT {
        // Only what was admitted as an upgrade opens a tunnel; a guest that writes this method does not.
        return Err(SendError::BadRequest);
    }
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = path.into();
    *request.headers_mut() = fields;
    Ok((request, scheme))
}

/// Puts a request into the form its connection wants: origin form with `Host`, or, for HTTP/2, absolute form without.
///
/// One that comes back unsent may go over another kind of connection the next time.
fn shape(request: &mut Request<RequestBody>, scheme: Scheme, connection: &Connection) -> Result<(), SendError> {
    let shaped_for_h2 = request.version() == Version::HTTP_2;
    match (connection.speaks_h2(), shaped_for_h2) {
        (true, true) => {}
        (true, false) => {
            let host = request.headers_mut().remove(header::HOST).ok_or(SendError::BadRequest)?;
            request.headers_mut().remove(header::TRANSFER_ENCODING);
            if let Some(protocol) = upgrade::take_protocol(request.headers_mut()) {
                *request.method_mut() = Method::CONNECT;
                let protocol = protocol.to_str().map_err(|_| SendError::BadRequest)?;
                request.extensions_mut().insert(hyper::ext::Protocol::from(protocol));
            }
            let mut uri = std::mem::take(request.uri_mut()).into_parts();
            uri.scheme = Some(scheme.as_str().parse().map_err(|_| SendError::BadRequest)?);
            uri.authority = Some(Authority::try_from(host.as_bytes()).map_err(|_| SendError::BadRequest)?);
            *request.uri_mut() = Uri::from_parts(uri).map_err(|_| SendError::BadRequest)?;
            *request.version_mut() = Version::HTTP_2;
        }
        // What asked for a tunnel over HTTP/2 has lost what it would ask with over HTTP/1.1.
        (false, true) if request.method() == Method::CONNECT => return Err(SendError::NoTunnel),
        (false, true) => {
            let uri = std::mem::take(request.uri_mut()).into_parts();
            let host = uri.authority.and_then(|host| HeaderValue::from_str(host.as_str()).ok());
            request.headers_mut().insert(header::HOST, host.ok_or(SendError::BadRequest)?);
            *request.uri_mut() = uri.path_and_query.ok_or(SendError::BadRequest)?.into();
            *request.version_mut() = Version::HTTP_11;
            frame(request);
        }
        (false, false) => frame(request),
    }
    Ok(())
}

/// What HTTP/1.1 needs and the library would leave out.
fn frame(request: &mut Request<RequestBody>) {
    // For these it would leave a body of unknown length out, unless it is told to send it.
    let body = request.body();
    let chunked = matches!(*request.method(), Method::GET | Method::HEAD)
        && !body.is_end_stream()
        && body.size_hint().exact().is_none();
    let fields = request.headers_mut();
    if !fields.contains_key(header::HOST) {
        // HTTP/1.1 has one, be it empty (RFC 9112 §3.2): HTTP/1.0 clients and filters may have left none.
        fields.insert(header::HOST, HeaderValue::from_static(""));
    }
    if chunked && !fields.contains_key(header::CONTENT_LENGTH) {
        fields.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}
