//! When a request is tried again.

use portcullis_core::retry::Policy;
use serde_json::{Value, json};

use super::seconds;
use std::time::Duration;

/// What may be repeated although it may have arrived (RFC 9110 §9.2.2).
const IDEMPOTENT: &str = "GET|HEAD|PUT|DELETE|OPTIONS|TRACE";

/// A route's policy. Envoy has no time for a response to begin; the time that a try may go without progress, of which that is a
/// part, is the nearest.
pub(super) fn retry_policy(policy: &Policy, response: Duration) -> Value {
    let Policy { attempts, on, per_try, backoff, budget: _ } = policy;
    let mut conditions = Vec::new();
    if on.connect_failure {
        conditions.push("connect-failure");
    }
    if on.reset || on.timeout {
        conditions.push("reset");
    }
    if on.server_error {
        conditions.push("5xx");
    }
    if !on.statuses.is_empty() {
        conditions.push("retriable-status-codes");
    }
    let careful = *attempts > 0 && policy.needs_copy();
    let methods = json!([{ "name": ":method", "string_match": { "safe_regex": { "regex": IDEMPOTENT } } }]);
    json!({
        "retry_on": if *attempts > 0 { conditions.join(",") } else { String::new() },
        "num_retries": attempts,
        "retriable_status_codes": (!on.statuses.is_empty()).then_some(&*on.statuses),
        "retriable_request_headers": careful.then_some(methods),
        "per_try_timeout": per_try.map(seconds),
        "per_try_idle_timeout": seconds(response),
        "retry_back_off": { "base_interval": seconds(backoff.base), "max_interval": seconds(backoff.max) },
    })
}
