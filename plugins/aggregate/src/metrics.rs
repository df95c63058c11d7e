//! What is counted.

use portcullis_sdk::Host;
use portcullis_sdk::metric::Counter;

/// Counters of one filter.
#[derive(Debug)]
pub(crate) struct Metrics {
    host: Host,
    /// Replies out of all results.
    pub(crate) composed: Counter,
    /// Replies without the results of some calls.
    pub(crate) partial: Counter,
    /// Requests that a failed call refused, and those that were not fit.
    pub(crate) refused: Counter,
    /// Calls made again.
    pub(crate) retries: Counter,
    /// Calls that took another's answer.
    pub(crate) shared: Counter,
}

impl Metrics {
    pub(crate) fn new(host: &Host) -> Self {
        let counter = |name: &str| host.counter(&format!("aggregate_{name}"));
        Self {
            host: host.clone(),
            composed: counter("composed"),
            partial: counter("partial"),
            refused: counter("refused"),
            retries: counter("retries"),
            shared: counter("shared_calls"),
        }
    }

    /// A call failed: by its name, and by why, of which there are a dozen.
    pub(crate) fn failed(&self, call: &str, why: &str) {
        self.host.counter(&format!("aggregate_failed.{call}.{why}")).increment();
    }
}
