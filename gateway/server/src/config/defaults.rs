//! The values that hold where a configuration says nothing. The JSON Schema shows them.

use std::time::Duration;

/// For a connection to an upstream. Envoy's default.
pub(crate) const CONNECT: Duration = Duration::from_secs(5);
/// For a response to begin. Envoy's default for a route.
pub(crate) const RESPONSE: Duration = Duration::from_secs(15);
/// For an unused connection to be kept. nginx's default.
pub(crate) const IDLE: Duration = Duration::from_secs(60);
/// Bytes of memory of one instance. A first-party filter needs about one mebibyte.
pub(crate) const PLUGIN_MEMORY: u64 = 16 << 20;
/// Processor time of one callback. A JWT with an RSA signature takes about one millisecond.
pub(crate) const PLUGIN_CPU: Duration = Duration::from_millis(10);
/// For requests under way to end once the gateway has stopped accepting. Kubernetes waits for 30 s before it kills.
pub(crate) const DRAIN: Duration = Duration::from_secs(20);
