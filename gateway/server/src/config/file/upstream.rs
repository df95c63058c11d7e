//! Upstreams as operators write them: where they are, and what happens when they fail.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tls::UpstreamTls;
use crate::config::defaults;
use crate::config::written::{Endpoint, Text};

/// A group of equal origins.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("oneOf" = [{ "required": ["endpoints"] }, { "required": ["service"] }]))]
pub(crate) struct Upstream {
    /// Where they listen: `host:port` each.
    #[schemars(length(min = 1))]
    pub(crate) endpoints: Vec<Text<Endpoint>>,
    /// A service of this very gateway in place of endpoints: filters' gRPC calls to it go through no connection.
    pub(crate) service: Option<Service>,
    /// How one of the endpoints is chosen for a request.
    pub(crate) balance: Balance,
    /// What is spoken to them.
    pub(crate) protocol: Protocol,
    /// How long to wait for them.
    pub(crate) timeouts: Timeouts,
    /// When a request is tried again. A route's `retries` replace these.
    pub(crate) retries: Retries,
    /// How much is asked of them at the same time. What is beyond that is answered with 503.
    pub(crate) limits: UpstreamLimits,
    /// When an endpoint that fails is left alone, and for how long.
    pub(crate) ejection: Ejection,
    /// A request that shows whether an endpoint is well. Default: none is made.
    pub(crate) health: Option<Health>,
    /// How often names of endpoints are looked up again.
    pub(crate) resolve: Resolve,
    /// How connections to them are encrypted; `{}` for the usual. Absent: not at all.
    #[schemars(extend("x-explicit" = true))]
    pub(crate) tls: Option<UpstreamTls>,
}

/// A service of this gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// The one of `services.rate_limit`.
    RateLimit,
}

/// How often names are looked up again.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Resolve(pub(crate) Text<Duration>);

/// How much is asked of an upstream at the same time. Each worker has its share of each limit.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct UpstreamLimits {
    /// Requests. Default: no limit.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) requests: Option<u32>,
    /// Connections. Default: no limit.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connections: Option<u32>,
    /// Requests that wait for one of the connections, for no longer than `timeouts.connect`.
    pub(crate) pending: u32,
}

/// When an endpoint that fails is left alone.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Ejection {
    /// After how many answers in a row that are 502, 503 or 504, or late. 0: these do not count. Connections that fail always do,
    /// each of them.
    pub(crate) errors: u32,
    /// For how long at first. It doubles each time it happens again.
    pub(crate) first: Text<Duration>,
    /// For how long at most.
    pub(crate) longest: Text<Duration>,
    /// With fewer usable endpoints than this share of all, in percent, all are used.
    #[schemars(range(max = 100))]
    pub(crate) panic: u32,
}

/// A request that shows whether an endpoint is well: `GET`, and a status below 400. Made by each worker for itself.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["path"]))]
pub(crate) struct Health {
    /// Its path, with a query if need be.
    pub(crate) path: String,
    /// Its host. Default: the endpoint's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<String>,
    /// The time between two.
    pub(crate) interval: Text<Duration>,
    /// How long it may take.
    pub(crate) timeout: Text<Duration>,
    /// How many in a row must go well before an endpoint is used again.
    #[schemars(range(min = 1))]
    pub(crate) healthy: u32,
    /// How many in a row must fail before an endpoint is no longer used.
    #[schemars(range(min = 1))]
    pub(crate) unhealthy: u32,
}

/// How one of several endpoints is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Balance {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// The one with the fewest requests in flight.
    LeastRequests,
}

/// What is spoken to an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1, with connections kept alive.
    #[default]
    Http1,
    /// HTTP/2, in the clear with prior knowledge.
    Http2,
    /// HTTP/2 where the upstream offers it by ALPN, else HTTP/1.1. Only with `tls`.
    Auto,
    /// Whatever the clients of a `tcp` listener speak. No route can send to it, and no plugin call it.
    Tcp,
}

/// How long to wait for an upstream.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Timeouts {
    /// For a connection to be made.
    pub(crate) connect: Text<Duration>,
    /// For a response to begin once the request has been sent. A route's `timeout` replaces it.
    pub(crate) response: Text<Duration>,
    /// How long an unused connection is kept.
    pub(crate) idle: Text<Duration>,
    /// How long an exchange may go on while nothing moves in either direction. A route's `timeouts.stream` replaces it.
    pub(crate) stream: Text<Duration>,
    /// For a whole exchange, to the end of the response. A route's `timeouts.request` replaces it. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request: Option<Text<Duration>>,
}

/// How long the exchanges of a route may take.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RouteTimeouts {
    /// While nothing moves in either direction. Default: the upstream's `timeouts.stream`.
    pub(crate) stream: Option<Text<Duration>>,
    /// In all, to the end of the response. Default: the upstream's `timeouts.request`.
    pub(crate) request: Option<Text<Duration>>,
}

/// When a request is tried again.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Retries {
    /// How often, after the first try.
    #[schemars(range(max = 10))]
    pub(crate) attempts: u32,
    /// After which failures. What may have arrived is repeated only for idempotent methods, with bodies of up to 64KiB.
    pub(crate) on: Vec<RetryOn>,
    /// After answers with these statuses, too.
    #[schemars(inner(range(min = 400, max = 599)))]
    pub(crate) statuses: Vec<u16>,
    /// How long one try may take to begin its answer. Default: no limit of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) per_try_timeout: Option<Text<Duration>>,
    /// How long to wait before the next try.
    pub(crate) backoff: Backoff,
    /// How much all retries together may add to the load of an upstream.
    pub(crate) budget: Budget,
}

/// A failure after which a request is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RetryOn {
    /// No connection was made.
    ConnectFailure,
    /// The connection broke before the answer began, or the answer was malformed.
    Reset,
    /// The try took longer than `per_try_timeout`.
    Timeout,
    /// The status is 502, 503 or 504.
    GatewayError,
    /// The status is 500 or above.
    #[serde(rename = "5xx")]
    ServerError,
}

/// How long to wait before the next try: a time drawn between zero and a bound.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Backoff {
    /// The bound before the second try. It doubles with each.
    pub(crate) base: Text<Duration>,
    /// The bound that is not exceeded.
    pub(crate) max: Text<Duration>,
}

/// How much all retries together may add.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Budget {
    /// How many of an upstream's active requests may be retries, in percent. Counted by each worker for itself.
    #[schemars(range(max = 100))]
    pub(crate) percent: u32,
    /// So many are allowed in any case.
    pub(crate) min: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Text(defaults::CONNECT),
            response: Text(defaults::RESPONSE),
            idle: Text(defaults::IDLE),
            stream: Text(defaults::STREAM),
            request: None,
        }
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts: defaults::RETRIES,
            on: vec![RetryOn::ConnectFailure],
            statuses: Vec::new(),
            per_try_timeout: None,
            backoff: Backoff::default(),
            budget: Budget::default(),
        }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Text(defaults::BACKOFF_BASE), max: Text(defaults::BACKOFF_MAX) }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self { percent: defaults::RETRY_BUDGET_PERCENT, min: defaults::RETRY_BUDGET_MIN }
    }
}

impl Default for Resolve {
    fn default() -> Self {
        Self(Text(defaults::RESOLVE))
    }
}

impl Default for UpstreamLimits {
    fn default() -> Self {
        Self { requests: None, connections: None, pending: defaults::PENDING }
    }
}

impl Default for Ejection {
    fn default() -> Self {
        let portcullis_core::upstream::Ejection { errors, first, longest, panic } = Default::default();
        Self { errors, first: Text(first), longest: Text(longest), panic }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self {
            path: String::new(),
            host: None,
            interval: Text(defaults::HEALTH_INTERVAL),
            timeout: Text(defaults::HEALTH_TIMEOUT),
            healthy: defaults::HEALTHY,
            unhealthy: defaults::UNHEALTHY,
        }
    }
}
