//! The values that hold where a configuration says nothing. The JSON Schema shows them.

use std::time::Duration;

/// For a connection to an upstream. Envoy's default.
pub(crate) const CONNECT: Duration = Duration::from_secs(5);
/// For a response to begin. Envoy's default for a route.
pub(crate) const RESPONSE: Duration = Duration::from_secs(15);
/// The share of traces that is recorded.
pub(crate) const TRACE_SHARE: f64 = 0.01;
/// What collectors call the gateway.
pub(crate) const SERVICE: &str = "portcullis";
/// For a client's TLS handshake: some seconds more than the slowest honest one takes.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(10);
/// For an unused connection to be kept. nginx's default.
pub(crate) const IDLE: Duration = Duration::from_secs(60);
/// For an upgraded connection to be silent. Envoy's stream idle timeout; WebSocket libraries that ping do so every minute or sooner.
pub(crate) const TUNNEL_IDLE: Duration = Duration::from_secs(300);
/// Bytes of memory of one instance. A first-party filter needs about one mebibyte.
pub(crate) const PLUGIN_MEMORY: u64 = 16 << 20;
/// Processor time of one callback. A JWT with an RSA signature takes about one millisecond.
pub(crate) const PLUGIN_CPU: Duration = Duration::from_millis(10);
/// For a VM that may rest to be unused. It takes less than 0.1 ms to start another.
pub(crate) const VM_IDLE: Duration = Duration::from_secs(60);
/// For requests under way to end once the gateway has stopped accepting. Kubernetes waits for 30 s before it kills.
pub(crate) const DRAIN: Duration = Duration::from_secs(20);
/// Without anything moving in an exchange. Envoy's default.
pub(crate) const STREAM: Duration = portcullis_core::limits::Limits::DEFAULT.exchange_idle;
/// Further tries. An upstream with three endpoints survives the loss of two.
pub(crate) const RETRIES: u32 = 2;
/// The first bound on the wait before a further try. Envoy's default.
pub(crate) const BACKOFF_BASE: Duration = Duration::from_millis(25);
/// The last bound: ten times the first, as with Envoy.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_millis(250);
/// The share of an upstream's requests that may be retries. Envoy's default for a retry budget.
pub(crate) const RETRY_BUDGET_PERCENT: u32 = 20;
/// How many retries are allowed in any case. Envoy's default.
pub(crate) const RETRY_BUDGET_MIN: u32 = 3;
/// Between two look-ups of a name. The system's resolver does not tell how long an answer holds; Envoy's default.
pub(crate) const RESOLVE: Duration = Duration::from_secs(5);
/// Requests that wait for a connection. Envoy's default.
pub(crate) const PENDING: u32 = 1024;
/// Between two health checks of an endpoint. As in HAProxy and nginx, within a factor.
pub(crate) const HEALTH_INTERVAL: Duration = Duration::from_secs(5);
/// For one health check.
pub(crate) const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// Health checks in a row that make an endpoint usable again. HAProxy's `rise`.
pub(crate) const HEALTHY: u32 = 2;
/// Health checks in a row that take an endpoint out. HAProxy's `fall`.
pub(crate) const UNHEALTHY: u32 = 3;
/// HTTP/2 streams a client may have open at once. RFC 9113 §6.5.2 advises against fewer.
pub(crate) const MAX_STREAMS: u32 = 100;

/// The field by which a request asks how long it takes.
pub(crate) const SERVER_TIMING: http::HeaderName = http::HeaderName::from_static("x-server-timing");
/// For all the fetching of modules that one reading of the configuration needs.
pub(crate) const FETCH: Duration = Duration::from_secs(30);
