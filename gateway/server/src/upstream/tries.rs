//! The tries of one request: the first, and those that follow where that is safe.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use http::{HeaderValue, Request};
use portcullis_core::exchange::Reached;
use portcullis_core::headers::Scheme;
use portcullis_core::limits::Limits;
use portcullis_core::reply::Failure;
use portcullis_core::retry::{self, Cause, Policy, Reason, Tried, Verdict};
use portcullis_core::trace::{SpanId, TRACEPARENT, Trace};
use portcullis_core::upstream::EndpointIndex;

use super::replay::Spare;
use super::{Answer, Connection, SendError, Upstream, shape};
use crate::clock::Clock;
use crate::config::snapshot::Protocol;
use crate::message::RequestBody;
use crate::telemetry::Attempt;

/// What has been tried of a request; to be looked at while it is being sent, and after.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    made: Cell<u32>,
    endpoint: Cell<Option<EndpointIndex>>,
    address: Cell<Option<SocketAddr>>,
    reached: Cell<Option<Reached>>,
    /// What its client speaks; HTTP/2 says so to upstreams.
    scheme: Cell<Option<Scheme>>,
    /// Where each is a span.
    traced: Option<Box<Traced>>,
}

/// The tries of a request that is recorded.
#[derive(Debug)]
struct Traced {
    trace: Trace,
    attempts: RefCell<Vec<Attempt>>,
}

impl Tries {
    /// Each of which is a span, if the request is recorded.
    pub(crate) fn traced(trace: Option<Trace>) -> Self {
        let sampled = trace.filter(Trace::is_sampled);
        let traced = sampled.map(|trace| Box::new(Traced { trace, attempts: RefCell::default() }));
        Self { traced, ..Self::default() }
    }

    /// What is recorded of them, where something is.
    pub(crate) fn take_attempts(&self, clock: &Clock) -> Option<Vec<Attempt>> {
        let traced = self.traced.as_ref()?;
        // Whoever gave a try up before it had come to anything has had no time to say so.
        self.ended(Err("given_up"), clock);
        Some(traced.attempts.take())
    }

    /// Counts one more. Begins its span, and tells whoever the request is sent to.
    fn begins(&self, request: &mut Request<RequestBody>, scheme: &'static str, clock: &Clock) {
        self.made.set(self.made.get() + 1);
        let Some(traced) = &self.traced else { return };
        let span = SpanId::fresh(&mut || fastrand::u64(..));
        if let Ok(value) = HeaderValue::from_bytes(&traced.trace.text_of(span)) {
            request.headers_mut().insert(TRACEPARENT, value);
        }
        let begun = clock.now();
        self.address.set(None);
        traced.attempts.borrow_mut().push(Attempt {
            span,
            address: None,
            scheme,
            begun,
            ended: begun,
            outcome: Err(""),
        });
    }

    /// Ends the span of the last one, unless it has ended.
    pub(super) fn ended(&self, outcome: Result<u16, &'static str>, clock: &Clock) {
        let Some(traced) = &self.traced else { return };
        if let Some(last) = traced.attempts.borrow_mut().last_mut()
            && last.outcome == Err("")
        {
            (last.outcome, last.ended, last.address) = (outcome, clock.now(), self.address.get());
        }
    }

    /// How many there were.
    pub(crate) fn made(&self) -> u32 {
        self.made.get()
    }

    /// Where the last one went.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address.get()
    }

    /// How the last one came to where it went.
    pub(crate) fn reached(&self) -> Option<Reached> {
        self.reached.get()
    }

    pub(super) fn has_reached(&self, endpoints: usize, waited: Duration) {
        self.reached.set(Some(Reached { endpoints, waited }));
    }

    pub(super) fn is_for(&self, scheme: Scheme) {
        self.scheme.set(Some(scheme));
    }

    pub(super) fn endpoint(&self) -> Option<EndpointIndex> {
        self.endpoint.get()
    }

    pub(super) fn goes_to(&self, endpoint: EndpointIndex) {
        self.endpoint.set(Some(endpoint));
    }
}

/// How a try came by its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It was made for it.
    New,
    /// It was used a moment ago.
    InUse,
    /// It had been unused for some time.
    Kept,
}

/// What those before it have taught a try.
#[derive(Default)]
pub(super) struct Course {
    /// Endpoints to stay away from.
    pub(super) failed: Vec<EndpointIndex>,
    /// A kept connection was of no use: make a new one.
    pub(super) fresh: bool,
    /// Tries that do not count.
    free: u32,
}

/// A try that may not be the last.
pub(super) struct Miss {
    cause: Cause,
    /// What is made of it if it is.
    outcome: Result<Answer, SendError>,
    left: Left,
}

/// What is left of a request.
enum Left {
    /// All of it.
    Unsent(Box<Request<RequestBody>>),
    /// What was kept of it, if something was.
    Spare(Option<Box<Spare>>),
}

impl Left {
    fn is_idempotent(&self) -> bool {
        let method = match self {
            Self::Unsent(request) => Some(request.method()),
            Self::Spare(spare) => spare.as_ref().map(|spare| spare.method()),
        };
        method.is_some_and(retry::is_idempotent)
    }

    fn is_whole(&self) -> bool {
        match self {
            Self::Unsent(_) => true,
            Self::Spare(spare) => spare.as_ref().is_some_and(|spare| spare.is_whole()),
        }
    }

    fn into_request(self) -> Option<Request<RequestBody>> {
        match self {
            Self::Unsent(request) => Some(*request),
            Self::Spare(spare) => spare?.again(),
        }
    }
}

/// A request that is being tried again.
struct Retrying<'a>(&'a Upstream);

impl<'a> Retrying<'a> {
    fn begin(upstream: &'a Upstream) -> Self {
        upstream.budget.borrow_mut().begin_retrying();
        Self(upstream)
    }
}

impl Drop for Retrying<'_> {
    fn drop(&mut self) {
        self.0.budget.borrow_mut().end_retrying();
    }
}

impl Upstream {
    /// Tries once.
    pub(super) async fn attempt(
        self: &Rc<Self>,
        mut request: Request<RequestBody>,
        policy: &Policy,
        course: &Course,
        tries: &Tries,
        clock: &Clock,
    ) -> Result<Answer, Box<Miss>> {
        tries.begins(&mut request, if self.spec.tls.is_some() { "https" } else { "http" }, clock);
        let (mut lease, origin) = match self.lease(course, tries, clock).await {
            Ok(leased) => leased,
            Err(error) => return Err(unsent(error, request)),
        };
        let Some(connection) = lease.connection() else {
            return Err(unsent(SendError::Connect, request));
        };
        if let Err(error) = fit(&mut request, tries.scheme.get().unwrap_or(Scheme::Http), connection).await {
            return Err(unsent(error, request));
        }
        let (request, spare) = self.with_spare(request, policy, origin);
        tries.address.set(Some(connection.address()));
        let sent = match policy.per_try {
            None => Ok(connection.send(request).await),
            // Boxed, or every exchange would carry a timer.
            Some(limit) => Box::pin(tokio::time::timeout(limit, connection.send(request))).await,
        };
        let left = Left::Spare(spare);
        let (cause, outcome, left) = match sent {
            Ok(Ok(response)) if response.headers().len() > Limits::DEFAULT.response_head_fields => {
                // Over HTTP/1 it would not have come so far.
                (Cause::Reset, Err(SendError::Protocol), left)
            }
            Ok(Ok(response)) => {
                let status = response.status();
                connection.answered();
                self.answered(lease.endpoint(), status, clock);
                let answer = Answer { response, lease };
                if !policy.is_failure(status) {
                    return Ok(answer);
                }
                (Cause::Status(status.as_u16()), Ok(answer), left)
            }
            Ok(Err(mut error)) => {
                let unsent = error.take_message();
                let error = error.error();
                let cause = cause(unsent.is_some(), error, origin);
                // A connection that has served before breaks for other reasons.
                let fault = if origin == Origin::New { connection.fault() } else { None };
                let outcome = match fault {
                    Some(fault) => {
                        self.tell_of_tls(&connection.address(), &fault, clock);
                        SendError::Tls
                    }
                    None => error.into(),
                };
                tracing::debug!(upstream = %self.spec.name, %error, ?cause, "try failed");
                match blame(error, cause, origin) {
                    Blame::Nobody => {}
                    Blame::Answer => self.erred(lease.endpoint(), clock),
                    Blame::Endpoint => self.failed(lease.endpoint(), clock),
                }
                // The connection is not fit to be put back: the lease is dropped with it.
                (cause, Err(outcome), unsent.map_or(left, |request| Left::Unsent(Box::new(request))))
            }
            Err(_elapsed) => {
                self.erred(lease.endpoint(), clock);
                (Cause::Timeout, Err(SendError::TryTimeout), left)
            }
        };
        Err(Box::new(Miss { cause, outcome, left }))
    }

    /// Keeps what a further try would need, where there may be one after the request has been sent.
    fn with_spare(
        &self,
        request: Request<RequestBody>,
        policy: &Policy,
        origin: Origin,
    ) -> (Request<RequestBody>, Option<Box<Spare>>) {
        // Over HTTP/2 an endpoint can say that it has not processed a request, whatever its method.
        let is_h2 = self.spec.protocol != Protocol::Http1;
        let safe = is_h2 || retry::is_idempotent(request.method());
        let likely = is_h2 || policy.needs_copy() || origin == Origin::Kept;
        if !(safe && likely) {
            return (request, None);
        }
        let (request, spare) = Spare::of(request);
        (request, Some(Box::new(spare)))
    }

    /// Tries again for as long as that is asked for, safe, and within the budget.
    pub(super) async fn further(
        self: &Rc<Self>,
        mut miss: Miss,
        policy: &Policy,
        tries: &Tries,
        clock: &Clock,
    ) -> Result<Answer, SendError> {
        let mut course = Course::default();
        let mut retrying = None;
        loop {
            tries.ended(word_of(&miss.outcome), clock);
            let wait = match self.judge(&miss, policy, &mut course, tries, clock) {
                Verdict::Free => None,
                Verdict::After(wait) => {
                    retrying.get_or_insert_with(|| Retrying::begin(self));
                    Some(wait).filter(|wait| !wait.is_zero())
                }
                Verdict::Enough(reason) => {
                    if reason == Reason::Budget {
                        self.counts.budget_exhausted();
                    }
                    return miss.outcome;
                }
            };
            let Some(request) = miss.left.into_request() else { return miss.outcome };
            self.counts.retry(miss.cause);
            if let Ok(Answer { response, lease }) = miss.outcome
                && http_body::Body::is_end_stream(response.body())
            {
                lease.done(clock);
            }
            if let Some(wait) = wait {
                tokio::time::sleep(wait).await;
            }
            match self.attempt(request, policy, &course, tries, clock).await {
                Ok(answer) => return Ok(answer),
                Err(again) => miss = *again,
            }
        }
    }

    fn judge(&self, miss: &Miss, policy: &Policy, course: &mut Course, tries: &Tries, clock: &Clock) -> Verdict {
        match miss.cause {
            // It is the connection's fault, not the endpoint's.
            Cause::Stale | Cause::Unprocessed => course.fresh = self.spec.protocol != Protocol::Http2,
            Cause::Overloaded => {}
            Cause::Connect | Cause::Reset | Cause::Timeout | Cause::Status(_) => course.failed.extend(tries.endpoint()),
        }
        let tried = Tried {
            made: tries.made(),
            free: course.free,
            idempotent: miss.left.is_idempotent(),
            replayable: miss.left.is_whole(),
            elsewhere: self.has_other(course, clock),
        };
        let verdict = retry::judge(policy, tried, miss.cause, &self.budget.borrow(), fastrand::u64(..));
        if verdict == Verdict::Free {
            course.free += 1;
        }
        verdict
    }
}

/// What is recorded of how a try ended.
pub(super) fn word_of(outcome: &Result<Answer, SendError>) -> Result<u16, &'static str> {
    match outcome {
        Ok(answer) => Ok(answer.response.status().as_u16()),
        Err(error) => Err(Failure::from(*error).code()),
    }
}

/// Makes a request one that its connection can carry.
async fn fit(request: &mut Request<RequestBody>, scheme: Scheme, connection: &Connection) -> Result<(), SendError> {
    shape(request, scheme, connection)?;
    let opens_tunnel = request.method() == http::Method::CONNECT;
    if opens_tunnel && !connection.takes_tunnels().await { Err(SendError::NoTunnel) } else { Ok(()) }
}

fn unsent(error: SendError, request: Request<RequestBody>) -> Box<Miss> {
    // A line that is full now is full elsewhere too: it is one line for the whole upstream.
    let cause = if error == SendError::Overloaded { Cause::Overloaded } else { Cause::Connect };
    Box::new(Miss { cause, outcome: Err(error), left: Left::Unsent(Box::new(request)) })
}

/// What a failed try says about the request.
fn cause(unsent: bool, error: &hyper::Error, origin: Origin) -> Cause {
    if unsent || was_refused(error) {
        return Cause::Unprocessed;
    }
    // What comes back from a connection that is closed is nothing at all; an answer that begins and breaks off is another matter.
    let silent = error.is_incomplete_message() || error.is_closed() || error.is_canceled() || is_reset(error);
    if origin != Origin::New && silent { Cause::Stale } else { Cause::Reset }
}

/// Whose fault it is that a try failed.
enum Blame {
    /// The client's, or that of a connection that had been closed.
    Nobody,
    /// The endpoint is there, but its answer is no good. One malformed resource must not take it out for all others.
    Answer,
    /// The endpoint broke off.
    Endpoint,
}

fn blame(error: &hyper::Error, cause: Cause, origin: Origin) -> Blame {
    let ours = match std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>()) {
        // Not what came from the other end or from the socket: a stream that was reset here, because its body broke off.
        Some(error) => !(error.is_remote() || error.is_io() || error.is_library()),
        None => error.is_user(),
    };
    // Or clients could take endpoints out by breaking off what they upload.
    if ours {
        Blame::Nobody
    } else if SendError::from(error) == SendError::Protocol {
        Blame::Answer
    } else if cause == Cause::Reset || origin == Origin::New {
        Blame::Endpoint
    } else {
        Blame::Nobody
    }
}

/// Whether an HTTP/2 endpoint said that it has not processed the request (RFC 9113 §8.7).
fn was_refused(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    source.is_some_and(|error| {
        error.is_remote()
            && match error.reason() {
                Some(h2::Reason::REFUSED_STREAM) => error.is_reset(),
                // Only streams above the last one that it names are ended with it.
                Some(h2::Reason::NO_ERROR) => error.is_go_away(),
                _ => false,
            }
    })
}

fn is_reset(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    source.is_some_and(|error| {
        matches!(error.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe)
    })
}
