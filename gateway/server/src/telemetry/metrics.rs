//! Metrics about requests and connections: what a worker counts, and what a scrape makes of it.
//!
//! Counting a request costs one look-up by the addresses of its names and a few plain stores. Only a combination a worker has
//! never seen takes the lock. Names follow OpenTelemetry's conventions for HTTP.
//! **Invariant:** no label is made of what a client or a guest sends: methods, statuses and failures are from fixed sets, names
//! from the configuration.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use http::Method;
use portcullis_core::reply::Failure;

use super::Record;
use super::cells::{Count, Distribution, Histogram, OVERHEAD_BOUNDS, REQUEST_BOUNDS};
use super::connections::{self, ConnectionEnds};
use super::exposition::Exposition;
use super::room::{KINDS, TARGETS};
use super::series::{Fault, Kind, Series, Target, WorkerNumber};
use super::stats::{Table, mean};

/// What stands for methods that are not known.
pub(super) const OTHER: &str = "_OTHER";
/// What a worker remembers of the series it joined. A bound on memory only: forgetting costs another look under the lock.
const MAX_KNOWN: usize = 4096;
const MILLISECOND: Duration = Duration::from_millis(1);
/// The reason of a request that the upstream answered.
const VIA_UPSTREAM: &str = "via_upstream";

/// How long requests of a kind took.
#[derive(Debug)]
struct KindCells {
    duration: Histogram<14>,
}

impl Default for KindCells {
    fn default() -> Self {
        Self { duration: Histogram::new(&REQUEST_BOUNDS) }
    }
}

/// What is counted of a target's requests, whatever came of them.
#[derive(Debug)]
struct TargetCells {
    overhead: Histogram<12>,
    requests: Count,
    request_bytes: Count,
    response_bytes: Count,
}

impl Default for TargetCells {
    fn default() -> Self {
        let overhead = Histogram::new(&OVERHEAD_BOUNDS);
        Self { overhead, requests: Count::default(), request_bytes: Count::default(), response_bytes: Count::default() }
    }
}

/// What a worker has at this moment, and its connections so far.
#[derive(Debug, Default)]
pub(super) struct WorkerCells {
    pub(super) active_requests: Count,
    pub(super) open_connections: Count,
    pub(super) connections: Count,
    pub(super) handshakes: Count,
    pub(super) resumed_handshakes: Count,
    pub(super) failed_handshakes: Count,
    pub(super) ends: ConnectionEnds,
}

#[derive(Debug)]
struct Registry {
    kinds: Series<Kind, KindCells>,
    targets: Series<Target, TargetCells>,
    workers: Vec<Arc<WorkerCells>>,
}

impl Default for Registry {
    fn default() -> Self {
        let (kinds, targets) = (Series::in_part(&KINDS), Series::in_part(&TARGETS));
        Self { kinds, targets, workers: Vec::new() }
    }
}

/// What all workers count.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    #[allow(
        clippy::disallowed_types,
        reason = "taken for a series a worker has never counted in, and by scrapes to add up"
    )]
    registry: std::sync::Mutex<Registry>,
    next_worker: AtomicU64,
}

impl Metrics {
    pub(super) fn worker(self: &Arc<Self>) -> WorkerMetrics {
        let cells = Arc::<WorkerCells>::default();
        self.registry().workers.push(cells.clone());
        let number = self.next_worker.fetch_add(1, Ordering::Relaxed);
        WorkerMetrics { shared: self.clone(), number, cells, known: RefCell::default() }
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are, and were, of what people ask about first.
    pub(super) fn now(&self) -> Now {
        let workers = self.registry().workers.clone();
        let sum = |of: fn(&WorkerCells) -> u64| workers.iter().map(|cells| of(cells)).sum();
        Now {
            active: sum(|cells| cells.active_requests.get()),
            open: sum(|cells| cells.open_connections.get()),
            accepted: sum(|cells| cells.connections.get()),
            refused: sum(|cells| cells.ends.all_refused()),
            timed_out: sum(|cells| cells.ends.all_timed_out()),
            floods: sum(|cells| cells.ends.all_floods()),
        }
    }

    /// Requests by where they went, and all of them by the class of their status, from 2xx on; the last had none.
    pub(super) fn by_route(&self) -> (Table<7>, [u64; 5]) {
        let (kinds, targets) = {
            let registry = self.registry();
            (registry.kinds.collect(KindSums::of), registry.targets.collect(TargetSums::of))
        };
        let (mut classes, mut failed) = ([0; 5], HashMap::<&Target, u64>::new());
        let mut whole = HashMap::<&Target, (u64, u64)>::new();
        for (kind, sums) in &kinds {
            let count = sums.duration.count();
            let class = match kind.status {
                0 => 4,
                100..300 => 0,
                300..400 => 1,
                400..500 => 2,
                _ => 3,
            };
            if let Some(sum) = classes.get_mut(class) {
                *sum += count;
            }
            if class >= 3 {
                *failed.entry(&kind.target).or_default() += count;
            }
            let (requests, nanos) = whole.entry(&kind.target).or_default();
            *requests += count;
            *nanos += sums.duration.nanos;
        }
        let line = |(target, sums): &(Target, TargetSums)| {
            let (requests, nanos) = whole.get(target).copied().unwrap_or_default();
            let line = [
                named(&target.pattern),
                named(&target.tenant),
                named(&target.upstream),
                sums.requests.to_string(),
                failed.get(target).copied().unwrap_or_default().to_string(),
                mean(nanos, requests, MILLISECOND),
                mean(sums.overhead.nanos, sums.requests, MILLISECOND),
            ];
            (sums.requests, line)
        };
        let columns = ["ROUTE", "TENANT", "UPSTREAM", "REQUESTS", "FAILED", "MEAN ms", "HERE ms"];
        (Table { columns, lines: targets.iter().map(line).collect() }, classes)
    }

    pub(super) fn render(&self, text: &mut Exposition) {
        // Added up under the lock, put into words after it: a worker may be waiting.
        let (kinds, targets, workers) = {
            let registry = self.registry();
            (registry.kinds.collect(KindSums::of), registry.targets.collect(TargetSums::of), registry.workers.clone())
        };
        render_kinds(text, &kinds);
        render_targets(text, &targets);
        render_workers(text, &workers);
    }
}

/// What people ask about first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) active: u64,
    pub(super) open: u64,
    pub(super) accepted: u64,
    pub(super) refused: u64,
    pub(super) timed_out: u64,
    pub(super) floods: u64,
}

/// A name in a table.
pub(super) fn named(name: &str) -> String {
    if name.is_empty() { "-".to_owned() } else { name.to_owned() }
}

/// One worker's way to its cells.
#[derive(Debug)]
pub(super) struct WorkerMetrics {
    shared: Arc<Metrics>,
    number: WorkerNumber,
    pub(super) cells: Arc<WorkerCells>,
    known: RefCell<HashMap<Key, Known>>,
}

impl WorkerMetrics {
    pub(super) fn record(&self, record: &Record<'_>) {
        let key = Key::of(record);
        let mut known = self.known.borrow_mut();
        if let Some(known) = known.get(&key) {
            return known.count(record);
        }
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.entry(key).or_insert(self.join(&key, record)).count(record);
    }

    fn join(&self, key: &Key, record: &Record<'_>) -> Known {
        let (tenant, pattern, upstream) = (record.tenant.clone(), record.pattern.clone(), record.upstream.clone());
        let target = Target { tenant, pattern, upstream };
        let version = version(record.protocol);
        let kind = Kind { target: target.clone(), method: key.method, status: key.status, version, error: key.error };
        let mut registry = self.shared.registry();
        let of_kind = registry.kinds.join(&kind, self.number);
        let of_target = registry.targets.join(&target, self.number);
        Known { of_kind, of_target, _target: target }
    }
}

/// A kind of request, by the addresses of its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    tenant: usize,
    pattern: usize,
    upstream: usize,
    method: &'static str,
    status: u16,
    protocol: &'static str,
    error: Fault,
}

impl Key {
    fn of(record: &Record<'_>) -> Self {
        let address = |name: &Arc<str>| Arc::as_ptr(name).addr();
        Self {
            tenant: address(record.tenant),
            pattern: address(record.pattern),
            upstream: address(record.upstream),
            method: method(record.method),
            status: record.status,
            protocol: record.protocol,
            error: fault(record),
        }
    }
}

/// Folded to one word first: the standard hasher pays for each piece it is given. What is left out decides nothing often.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let words = [self.tenant, self.pattern, self.upstream, self.method.as_ptr().addr(), usize::from(self.status)];
        let fold = |sum: usize, word: usize| (sum.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        state.write_usize(words.into_iter().fold(0, fold));
    }
}

/// Where requests of a kind are counted.
#[derive(Debug)]
struct Known {
    of_kind: Arc<KindCells>,
    of_target: Arc<TargetCells>,
    /// Keeps the names' addresses from being given to other names.
    _target: Target,
}

impl Known {
    fn count(&self, record: &Record<'_>) {
        self.of_kind.duration.observe(record.duration);
        let target = &self.of_target;
        target.overhead.observe(record.duration.saturating_sub(record.upstream_wait.unwrap_or_default()));
        target.requests.add(1);
        target.request_bytes.add(record.request_bytes);
        target.response_bytes.add(record.response_bytes);
    }
}

/// The method, if it is one that OpenTelemetry knows.
pub(super) fn method(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or(OTHER)
}

fn version(protocol: &'static str) -> &'static str {
    protocol.strip_prefix("HTTP/").unwrap_or(protocol)
}

fn fault(record: &Record<'_>) -> Fault {
    let is_error = record.status >= 500 || record.status == 0;
    if record.reason == VIA_UPSTREAM {
        return if is_error { Fault::Status } else { Fault::None };
    }
    match Failure::ALL.iter().map(|failure| failure.code()).find(|code| *code == record.reason) {
        Some(code) => Fault::Gateway(code),
        None if is_error || record.status >= 400 => Fault::Filter,
        None => Fault::None,
    }
}

impl Fault {
    /// The word for it, of a request with this status.
    fn word<'s>(&self, status: &'s str) -> &'s str {
        match *self {
            Self::None => "",
            Self::Status if status.is_empty() => OTHER,
            Self::Status => status,
            Self::Filter => "filter_reply",
            Self::Gateway(code) => code,
        }
    }
}

impl Record<'_> {
    /// What went wrong, in a word; empty where nothing did.
    pub(super) fn error_type(&self) -> String {
        let status = if self.status == 0 { String::new() } else { self.status.to_string() };
        fault(self).word(&status).to_owned()
    }

    /// Whether the client was sent the upstream's response.
    pub(super) fn response_is_upstreams(&self) -> bool {
        self.reason == VIA_UPSTREAM
    }
}

struct KindSums {
    duration: Distribution<14>,
}

impl KindSums {
    fn of(cells: &mut dyn Iterator<Item = &KindCells>) -> Self {
        let mut duration = Distribution::new(&REQUEST_BOUNDS);
        cells.for_each(|cells| duration.add(&cells.duration));
        Self { duration }
    }
}

struct TargetSums {
    overhead: Distribution<12>,
    requests: u64,
    request_bytes: u64,
    response_bytes: u64,
}

impl TargetSums {
    fn of(cells: &mut dyn Iterator<Item = &TargetCells>) -> Self {
        let overhead = Distribution::new(&OVERHEAD_BOUNDS);
        let mut sums = Self { overhead, requests: 0, request_bytes: 0, response_bytes: 0 };
        for cells in cells {
            sums.overhead.add(&cells.overhead);
            sums.requests += cells.requests.get();
            sums.request_bytes += cells.request_bytes.get();
            sums.response_bytes += cells.response_bytes.get();
        }
        sums
    }
}

impl Target {
    fn labels(&self) -> [(&'static str, &str); 3] {
        [
            ("http_route", self.pattern.as_ref()),
            ("portcullis_tenant", self.tenant.as_ref()),
            ("portcullis_upstream", self.upstream.as_ref()),
        ]
    }
}

/// The most bytes of its text.
pub(super) fn bytes_of_kind(kind: &Kind) -> usize {
    let mut text = Exposition::default();
    render_kinds(&mut text, &[(kind.clone(), KindSums::of(&mut std::iter::empty()))]);
    text.most_bytes()
}

/// The same.
pub(super) fn bytes_of_target(target: &Target) -> usize {
    let mut text = Exposition::default();
    render_targets(&mut text, &[(target.clone(), TargetSums::of(&mut std::iter::empty()))]);
    text.most_bytes()
}

fn render_kinds(text: &mut Exposition, kinds: &[(Kind, KindSums)]) {
    let name = "http_server_request_duration_seconds";
    text.family(name, "histogram", "How long requests took, from their head to the last byte of the response.");
    for (kind, sums) in kinds {
        let status = if kind.status == 0 { String::new() } else { kind.status.to_string() };
        let error = kind.error.word(&status);
        let [route, tenant, upstream] = kind.target.labels();
        let own = [
            ("http_request_method", kind.method),
            ("http_response_status_code", &status),
            ("network_protocol_version", kind.version),
            ("error_type", error),
        ];
        let [method, status, version, error] = own;
        text.histogram(name, &[method, status, route, error, version, tenant, upstream], &sums.duration);
    }
}

fn render_targets(text: &mut Exposition, targets: &[(Target, TargetSums)]) {
    let name = "portcullis_request_overhead_seconds";
    text.family(name, "histogram", "The gateway's share of a request's time: all of it but the wait for the upstream.");
    for (target, sums) in targets {
        text.histogram(name, &target.labels(), &sums.overhead);
    }
    let name = "http_server_request_body_size_bytes";
    text.family(name, "summary", "Bytes of request bodies received.");
    for (target, sums) in targets {
        text.sum(name, &target.labels(), sums.request_bytes, sums.requests);
    }
    let name = "http_server_response_body_size_bytes";
    text.family(name, "summary", "Bytes of response bodies sent.");
    for (target, sums) in targets {
        text.sum(name, &target.labels(), sums.response_bytes, sums.requests);
    }
}

fn render_workers(text: &mut Exposition, workers: &[Arc<WorkerCells>]) {
    let sum = |of: fn(&WorkerCells) -> &Count| workers.iter().map(|cells| of(cells).get()).sum::<u64>();
    text.family("http_server_active_requests", "gauge", "Requests being served.");
    text.sample("http_server_active_requests", &[], sum(|cells| &cells.active_requests));
    text.family("portcullis_connections_open", "gauge", "Connections of clients that are open.");
    text.sample("portcullis_connections_open", &[], sum(|cells| &cells.open_connections));
    text.family("portcullis_connections_total", "counter", "Connections accepted from clients.");
    text.sample("portcullis_connections_total", &[], sum(|cells| &cells.connections));
    let name = "portcullis_tls_handshakes_total";
    text.family(name, "counter", "TLS handshakes with clients.");
    text.sample(name, &[("result", "full")], sum(|cells| &cells.handshakes));
    text.sample(name, &[("result", "resumed")], sum(|cells| &cells.resumed_handshakes));
    text.sample(name, &[("result", "failed")], sum(|cells| &cells.failed_handshakes));
    connections::render(text, workers);
}
