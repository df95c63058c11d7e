//! What is counted, and what the log is told once.

use std::cell::RefCell;
use std::collections::BTreeSet;

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
    /// The upstreams that the log has been told to be unknown.
    unknown: RefCell<BTreeSet<String>>,
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
            unknown: RefCell::default(),
        }
    }

    /// A call failed: by its name, and by why, of which there are a dozen.
    pub(crate) fn failed(&self, call: &str, why: &str) {
        self.host.counter(&format!("aggregate_failed.{call}.{why}")).increment();
    }

    /// A call cannot be made for as long as the configuration is what it is: once by upstream, that is an error.
    pub(crate) fn unknown_upstream(&self, call: &str, upstream: &str) {
        if self.unknown.borrow_mut().insert(upstream.to_owned()) {
            log::error!(
                "the call {call} can never be made: the gateway knows no upstream `{upstream}` that this filter may call; define it \
                 under `upstreams` (Envoy: as a cluster), or correct the call's `upstream`"
            );
        }
    }
}
