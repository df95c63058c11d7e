//! What is known of an exchange before anything comes of it: who asks, and where it was routed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use crate::downstream::Patience;
use crate::limits::Limits;
use crate::retry;
use crate::tls::Tls;
use crate::trace::Trace;

/// What is known of an exchange from the start, for properties, logs and metrics.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The client, as the gateway believes it.
    pub source: SocketAddr,
    /// Our side of the client's connection.
    pub destination: SocketAddr,
    /// `HTTP/1.1`, `HTTP/2`.
    pub protocol: &'static str,
    /// The connection's number.
    pub connection_id: u64,
    /// `x-request-id`.
    pub request_id: HeaderValue,
    /// The client's connection, if it is encrypted.
    pub tls: Option<Arc<Tls>>,
    /// Where it was routed.
    pub place: Arc<Place>,
    /// How long its client may take.
    pub patience: Patience,
    /// Its place in a trace, where requests are traced.
    pub trace: Option<Trace>,
}

/// Where a request was routed; the same for every request of a route.
#[derive(Clone, Debug)]
pub struct Place {
    /// The route's name; empty when no route matched.
    pub route: Arc<str>,
    /// The route's path pattern, for metrics.
    pub pattern: Arc<str>,
    /// The upstream's name; empty when there is none.
    pub upstream: Arc<str>,
    /// The tenant's name; empty when there is none.
    pub tenant: Arc<str>,
    /// How long its exchanges may take.
    pub times: Times,
    /// When its requests are tried again.
    pub retry: retry::Policy,
}

/// How long the exchanges of a route may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// For the upstream to begin its response, from the last that it was sent; over all tries together.
    pub response: Duration,
    /// Without anything moving in either direction.
    pub idle: Duration,
    /// In all, from the request's head to the response's end.
    pub request: Duration,
}

impl Times {
    /// So long for the response to begin, and what is usual for the rest.
    #[must_use]
    pub const fn with_response(response: Duration) -> Self {
        Self { response, idle: Limits::DEFAULT.exchange_idle, request: Duration::MAX }
    }
}
