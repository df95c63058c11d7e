//! What the gateway says of itself: the access log, metrics, and its own log.
//!
//! Each worker has a [`WorkerTelemetry`] and writes to nothing that another worker writes to: it counts in cells of its own and
//! encodes log lines into a buffer of its own. [`Telemetry`] holds what they have in common and adds it up for a scrape. What
//! is recorded is decided elsewhere: a [`Record`] arrives complete, when its exchange has ended.
//! **Invariant:** recording never waits and never allocates, but for the first request of its kind on a worker.

mod access_log;
mod cells;
mod choice;
mod connections;
mod exposition;
mod filters;
mod guests;
mod log_file;
mod log_writer;
mod logging;
mod metrics;
mod otlp;
mod rate_limit;
mod rollouts;
mod room;
mod series;
mod server_timing;
mod stats;
pub(crate) mod tenants;
mod tls_files;
mod told;
mod traces;
mod upstreams;

use std::cell::RefCell;
use std::io::{self, Write};
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::Method;
use http::header::HeaderMap;
use portcullis_core::downstream::{Overdue, Refusal};
use portcullis_core::filter::Chain;
use portcullis_core::forward::Trust;
use portcullis_core::frames::Flood;
use portcullis_core::rollout::Rollout;
use portcullis_core::time::Time;
use portcullis_core::timing::Timings;
use portcullis_core::trace::{Policy, SpanId, Trace};
use portcullis_vm::VmCells;

use access_log::AccessLog;
pub(crate) use access_log::ConnectionRecord;
use choice::Choice;
pub(crate) use choice::Chosen;
use exposition::Exposition;
use log_file::LogFile;
use log_writer::LogWriter;
pub use logging::init_logging;
pub(crate) use logging::{LOG_VARIABLE, LogFilterError, log_filter, set_log_filter};
use metrics::{Metrics, WorkerCells, WorkerMetrics};
pub(crate) use otlp::{Attempt, Exporter};
use otlp::{Exports, Item};
pub(crate) use rate_limit::{Configured, CountedBy, RateLimitCounts, StoreError};
pub(crate) use rollouts::log_decision;
pub(crate) use server_timing::server_timing;
use told::{Told, since_epoch};
use traces::TraceParents;
pub(crate) use upstreams::{Standing, UpstreamCounts};

use crate::config::snapshot::{self as settings, LogTarget};
use crate::config::standing::Held;
use crate::tls::files::Shown;
use crate::tls::server::{Accepted, HandshakeError};

/// What is said of one exchange when it has ended.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// The tenant's name; empty outside any.
    pub tenant: &'a Arc<str>,
    /// The route's name; empty when none matched.
    pub route: &'a Arc<str>,
    /// The route's path pattern; metrics have it in place of the path.
    pub pattern: &'a Arc<str>,
    /// The upstream's name; empty when there is none.
    pub upstream: &'a Arc<str>,
    /// The endpoint that was chosen.
    pub upstream_address: Option<SocketAddr>,
    /// The request's method.
    pub method: &'a Method,
    /// The request's host, as it came.
    pub host: &'a [u8],
    /// The request's path and query, as they came. The log has the query without its values.
    pub path: &'a str,
    /// `HTTP/1.1`, `HTTP/2`.
    pub protocol: &'static str,
    /// The client; port 0 where it is not known.
    pub source: SocketAddr,
    /// `x-request-id`.
    pub request_id: &'a [u8],
    /// The status sent; 0 when none was.
    pub status: u16,
    /// `via_upstream`, the gateway's code word, or a filter's own words.
    pub reason: &'a str,
    /// Bytes of the request's body received.
    pub request_bytes: u64,
    /// Bytes of the response's body sent.
    pub response_bytes: u64,
    /// From the request's head to the end.
    pub duration: Duration,
    /// How much of it was spent waiting for the upstream; absent when it never answered.
    pub upstream_wait: Option<Duration>,
    /// When the request's head came in.
    pub time: Time,
    /// The request's `User-Agent`, as it came.
    pub user_agent: &'a [u8],
    /// Its place in a trace.
    pub trace: Option<&'a Trace>,
    /// `http`, `https`.
    pub scheme: &'static str,
    /// The tries at an upstream, where they are recorded.
    pub(crate) tries: &'a [Attempt],
    /// How often an endpoint was tried.
    pub attempts: u32,
    /// The request's fields that are to be logged.
    pub request_fields: &'a Chosen,
    /// Those of the response.
    pub response_fields: &'a Chosen,
    /// What its filters have left in properties, by name.
    pub properties: &'a [(Bytes, Bytes)],
    /// Its filters.
    pub chain: &'a Chain,
    /// What they did, if that was noted.
    pub timings: Option<&'a Timings>,
}

/// What all workers' telemetry has in common. When the last holder lets go, the access log is written to its end.
#[derive(Debug)]
pub struct Telemetry {
    metrics: Arc<Metrics>,
    log: Option<Arc<LogWriter>>,
    choice: Choice,
    exports: Arc<Exports>,
    rate_limit: Arc<RateLimitCounts>,
    started: SystemTime,
    #[allow(clippy::disallowed_types, reason = "taken at start, at reload and by scrapes")]
    told: std::sync::Mutex<Told>,
}

impl Telemetry {
    /// Begins to count, and to write the access log.
    ///
    /// # Errors
    /// When its file cannot be opened.
    pub fn new(access_log: &settings::AccessLog) -> io::Result<Arc<Self>> {
        Ok(match &access_log.to {
            LogTarget::Off => Self::with_log(access_log, None::<io::Sink>),
            LogTarget::Stdout => Self::with_log(access_log, Some(io::stdout())),
            LogTarget::File(path) => Self::with_log(access_log, Some(LogFile::open(path)?)),
        })
    }

    fn with_log(settings: &settings::AccessLog, out: Option<impl Write + Send + 'static>) -> Arc<Self> {
        let log = out.map(|out| Arc::new(LogWriter::start(out)));
        let (choice, exports) = (Choice::of(settings), Arc::default());
        Arc::new(Self {
            metrics: Arc::default(),
            log,
            choice,
            exports,
            rate_limit: Arc::default(),
            started: SystemTime::now(),
            told: Told::default().into(),
        })
    }

    /// What sends to a collector; as yet to none.
    pub(crate) fn exporter(self: &Arc<Self>) -> Exporter {
        let counts = UpstreamTelemetry { shared: Arc::downgrade(self), own: RefCell::default() };
        Exporter::new(self.exports.clone(), counts)
    }

    /// Where the rate-limit service counts.
    pub(crate) fn rate_limit(&self) -> Arc<RateLimitCounts> {
        self.rate_limit.clone()
    }

    /// A worker's share; to be made by the worker itself.
    #[must_use]
    pub fn worker(self: &Arc<Self>) -> WorkerTelemetry {
        WorkerTelemetry {
            metrics: self.metrics.worker(),
            log: self.log.clone().map(AccessLog::new),
            shared: self.clone(),
            trace_parents: TraceParents::default(),
        }
    }

    /// Also shows what is counted of these VMs.
    pub fn add_filter_cells(&self, vms: Vec<Arc<VmCells>>) {
        self.told().add_vms(vms);
    }

    /// The configuration's revision that is now served: its number since the start, and its digest.
    pub fn set_revision(&self, number: u64, digest: &str) {
        self.told().set_revision(number, digest);
    }

    /// A change of the configuration was refused.
    pub fn refused_revision(&self) {
        self.told().refused_revision();
    }

    /// The accounts of those who are tenants now, and whose files are not in use.
    pub(crate) fn show_tenants(&self, accounts: Vec<tenants::Named>, held: Arc<Held>) {
        let mut told = self.told();
        (told.accounts, told.held) = (accounts, held);
    }

    /// The roll-outs of plugins' next versions there are now.
    pub(crate) fn show_rollouts(&self, rollouts: Vec<Arc<Rollout>>) {
        self.told().rollouts = rollouts;
    }

    /// The TLS files that are now in use.
    pub(crate) fn show_tls_files(&self, files: Vec<Arc<Shown>>) {
        self.told().tls_files = files;
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the gateway fares, on one screen for people.
    #[must_use]
    pub fn stats(&self) -> String {
        let sight = self.told().look();
        stats::page(&self.metrics, &sight, self.started)
    }

    /// All metrics, as Prometheus reads them (text format 0.0.4).
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = Exposition::default();
        self.metrics.render(&mut text);
        let sight = self.told().look();
        sight.render(&mut text);
        self.exports.render(&mut text);
        self.rate_limit.render(&mut text);
        text.family("portcullis_access_log_dropped_total", "counter", "Access log lines that were not written.");
        let dropped = self.log.as_ref().map_or(0, |log| log.dropped());
        text.sample("portcullis_access_log_dropped_total", &[], dropped);
        text.family("portcullis_build_info", "gauge", "The gateway's version.");
        text.sample("portcullis_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
        text.family(
            "process_start_time_seconds",
            "gauge",
            "When the gateway started, in seconds since the Unix epoch.",
        );
        text.sample("process_start_time_seconds", &[], since_epoch(self.started));
        text.into_text()
    }
}

/// One worker's telemetry. Dropping it hands over its last log lines.
#[derive(Debug)]
pub struct WorkerTelemetry {
    metrics: WorkerMetrics,
    log: Option<AccessLog>,
    shared: Arc<Telemetry>,
    trace_parents: TraceParents,
}

impl WorkerTelemetry {
    /// Counts and logs an exchange that has ended.
    pub fn record(&self, record: &Record<'_>) {
        self.metrics.record(record);
        if let Some(log) = &self.log
            && self.shared.choice.keeps(record)
        {
            log.write(record, &self.shared.choice);
        }
        if self.shared.exports.are_on() {
            self.export(record);
        }
    }

    /// Logs a TCP connection that has ended.
    pub(crate) fn record_connection(&self, record: &ConnectionRecord<'_>) {
        let Telemetry { choice, exports, .. } = &*self.shared;
        if !choice.keeps_connection(record) {
            return;
        }
        if let Some(log) = &self.log {
            log.write_connection(record, choice);
        }
        if exports.are_on() && choice.otlp {
            exports.offer(Item::Log(Box::new(otlp::log_connection(record, choice))));
        }
    }

    /// Whether every request's filters are logged.
    pub(crate) fn logs_filters(&self) -> bool {
        self.shared.choice.filters
    }

    /// The fields of a request that are to be logged.
    pub(crate) fn chosen_of_request(&self, fields: &HeaderMap) -> Chosen {
        Chosen::of(&self.shared.choice.request, fields)
    }

    /// The fields of a response that are to be logged.
    pub(crate) fn chosen_of_response(&self, fields: &HeaderMap) -> Chosen {
        Chosen::of(&self.shared.choice.response, fields)
    }

    /// Hands over what a collector is to be told.
    #[cold]
    fn export(&self, record: &Record<'_>) {
        let Telemetry { choice, exports, .. } = &*self.shared;
        if let Some(trace) = record.trace.filter(|trace| trace.is_sampled()) {
            exports.offer(Item::Spans(otlp::of(record, trace)));
        }
        if choice.otlp && choice.keeps(record) {
            exports.offer(Item::Log(Box::new(otlp::log(record, choice))));
        }
    }

    /// Hands over the tries of a callout.
    pub(crate) fn export_callout(
        &self,
        trace: &Trace,
        attempts: &[Attempt],
        method: &Method,
        upstream: &str,
        tenant: &str,
    ) {
        if self.shared.exports.are_on() {
            self.shared.exports.offer(Item::Spans(otlp::of_callout(trace, attempts, method, (upstream, tenant))));
        }
    }

    /// Gives a request its place in a trace, and tells whoever it is sent to.
    pub(crate) fn join_trace(&self, fields: &mut HeaderMap, policy: &Policy, trust: Trust) -> Trace {
        self.trace_parents.join(fields, policy, trust)
    }

    /// Begins a span within a trace, and tells whoever the request is sent to.
    pub(crate) fn begin_span(&self, fields: &mut HeaderMap, trace: &Trace) -> SpanId {
        self.trace_parents.begin(fields, trace)
    }

    /// An exchange has begun.
    pub fn began(&self) {
        self.metrics.cells.active_requests.add(1);
    }

    /// An exchange has ended.
    pub fn ended(&self) {
        self.metrics.cells.active_requests.subtract(1);
    }

    /// Counts a connection, as open for as long as the answer lives.
    #[must_use]
    pub fn connection(&self) -> OpenConnection {
        let cells = self.metrics.cells.clone();
        cells.connections.add(1);
        cells.open_connections.add(1);
        OpenConnection { cells, _of_this_thread: PhantomData }
    }

    /// Counts a handshake with a client.
    pub(crate) fn handshake<S>(&self, ended: &Result<Accepted<S>, HandshakeError>) {
        let cells = &self.metrics.cells;
        let count = match ended {
            Ok(accepted) if accepted.resumed => &cells.resumed_handshakes,
            Ok(_) => &cells.handshakes,
            Err(_) => &cells.failed_handshakes,
        };
        count.add(1);
    }

    /// A connection was closed before anything was said on it.
    pub fn refused(&self, reason: Refusal) {
        self.metrics.cells.ends.refused(reason);
    }

    /// A connection, or a stream of one, took too long.
    pub fn timed_out(&self, kind: Overdue) {
        self.metrics.cells.ends.timed_out(kind);
    }

    /// A connection was ended because of a flood of HTTP/2 frames.
    pub fn flooded(&self, kind: Flood) {
        self.metrics.cells.ends.flooded(kind);
    }

    /// Hands over log lines that were not many enough yet. For the worker's timer, a few times a second.
    pub fn flush(&self) {
        if let Some(log) = &self.log {
            log.flush();
        }
    }

    /// Where this worker counts what it has to do with upstreams.
    pub(crate) fn upstreams(&self) -> UpstreamTelemetry {
        UpstreamTelemetry { shared: Arc::downgrade(&self.shared), own: RefCell::default() }
    }

    /// Also shows what is counted of this worker's VMs.
    pub fn add_filter_cells(&self, vms: Vec<Arc<VmCells>>) {
        self.shared.add_filter_cells(vms);
    }
}

/// One worker's way to where it counts what it has to do with upstreams.
#[derive(Debug)]
pub(crate) struct UpstreamTelemetry {
    shared: Weak<Telemetry>,
    own: RefCell<Vec<Arc<UpstreamCounts>>>,
}

impl UpstreamTelemetry {
    /// The same again for the same names: a later revision of the configuration goes on counting.
    pub(crate) fn of(&self, name: &str, tenant: &str) -> Arc<UpstreamCounts> {
        let mut own = self.own.borrow_mut();
        if let Some(counts) = own.iter().find(|counts| counts.is_of(name, tenant)) {
            return counts.clone();
        }
        let counts = Arc::new(UpstreamCounts::new(name, tenant));
        if let Some(shared) = self.shared.upgrade() {
            shared.told().add_upstream(counts.clone());
        }
        own.push(counts.clone());
        counts
    }
}

/// A connection that is open. It stays on its worker's thread, which alone writes to the worker's cells.
#[derive(Debug)]
pub struct OpenConnection {
    cells: Arc<WorkerCells>,
    _of_this_thread: PhantomData<*const ()>,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.cells.open_connections.subtract(1);
    }
}

#[cfg(test)]
mod tests;
