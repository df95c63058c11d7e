//! What is sent to a collector, by OTLP over HTTP: spans of requests that are sampled, and, if asked, a record of every request.
//!
//! Workers build what is sent and hand it over without waiting; a thread of its own puts it together and sends it, through an
//! upstream like any other. **Invariants:** what waits is bounded, and what finds no room is dropped and counted; a collector
//! that is slow, broken or gone costs no request anything.

mod spans;
mod wire;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use portcullis_core::context::UpstreamId;
use portcullis_core::headers::{Headers, Scheme};
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use self::wire::{
    ExportLogs, ExportTraces, Exported, KeyValue, LogRecord, Resource, ResourceLogs, ResourceSpans, Scope, ScopeLogs,
    ScopeSpans, Span,
};
use super::UpstreamTelemetry;
use super::exposition::Exposition;
use crate::clock::Clock;
use crate::config::snapshot::{Snapshot, Upstream};
use crate::message::RequestBody;
use crate::upstream::{Tries, Upstreams};

pub(crate) use self::spans::Attempt;
pub(super) use self::spans::{log, log_connection, of, of_callout};

/// Exchanges and records that may wait to be sent. At a hundred sampled requests a second, some twenty seconds of them.
const WAITING: usize = 2048;
/// So much is sent at once; collectors' own default.
const BATCH: usize = 512;
/// How long a batch waits for more.
const LINGER: Duration = Duration::from_secs(1);
/// For one batch to be taken. OTLP's default.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a batch is sent if the collector says that it cannot take it now.
const TRIES: u32 = 3;
/// Between the first two of those; then twice as long.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause a collector may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// For what is left, when the gateway ends.
const LAST_CALL: Duration = Duration::from_secs(2);
/// Bytes of a collector's answer that are read.
const ANSWER: usize = 64 << 10;
/// Which conventions the attributes follow.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.30.0";

/// What is handed over.
#[derive(Debug)]
pub(super) enum Item {
    Spans(Vec<Span>),
    Log(Box<LogRecord>),
}

/// What became of items: cells of one kind of item.
#[derive(Debug, Default)]
struct Fates {
    sent: AtomicU64,
    /// No room.
    dropped: AtomicU64,
    /// The collector could not be told.
    failed: AtomicU64,
    /// The collector would not have them.
    rejected: AtomicU64,
}

#[derive(Debug, Default)]
struct Tally {
    spans: Fates,
    logs: Fates,
}

impl Tally {
    fn of(&self, item: &Item) -> (&Fates, u64) {
        match item {
            Item::Spans(spans) => (&self.spans, spans.len() as u64),
            Item::Log(_) => (&self.logs, 1),
        }
    }
}

/// The workers' side of the hand-over.
#[derive(Debug)]
pub(super) struct Exports {
    queue: mpsc::Sender<Item>,
    /// Where the sender's side is until somebody sends.
    #[allow(clippy::disallowed_types, reason = "taken once, when the first collector is configured")]
    queued: std::sync::Mutex<Option<mpsc::Receiver<Item>>>,
    /// There is a collector.
    on: AtomicBool,
    tally: Arc<Tally>,
}

impl Default for Exports {
    fn default() -> Self {
        let (queue, queued) = mpsc::channel(WAITING);
        Self { queue, queued: Some(queued).into(), on: AtomicBool::new(false), tally: Arc::default() }
    }
}

impl Exports {
    /// Whether there is a collector.
    pub(super) fn are_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Hands something over, or counts that there was no room.
    pub(super) fn offer(&self, item: Item) {
        if let Err(unsent) = self.queue.try_send(item) {
            let (fates, count) = self.tally.of(match &unsent {
                mpsc::error::TrySendError::Full(item) | mpsc::error::TrySendError::Closed(item) => item,
            });
            fates.dropped.fetch_add(count, Ordering::Relaxed);
        }
    }

    pub(super) fn render(&self, text: &mut Exposition) {
        let name = "portcullis_otlp_items_total";
        text.family(name, "counter", "Spans and log records for the collector, by what became of them.");
        for (signal, fates) in [("traces", &self.tally.spans), ("logs", &self.tally.logs)] {
            let all = [
                ("sent", &fates.sent),
                ("dropped", &fates.dropped),
                ("failed", &fates.failed),
                ("rejected", &fates.rejected),
            ];
            for (result, count) in all {
                text.sample(name, &[("signal", signal), ("result", result)], count.load(Ordering::Relaxed));
            }
        }
    }

    fn take_queue(&self) -> Option<mpsc::Receiver<Item>> {
        self.queued.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }
}

/// Where to send.
#[derive(Debug)]
struct Collector {
    upstream: Arc<Upstream>,
    headers: Vec<(HeaderName, HeaderValue)>,
    service: Arc<str>,
}

impl Collector {
    fn of(snapshot: &Snapshot) -> Option<Self> {
        let otlp = snapshot.otlp.as_ref()?;
        let upstream = Arc::new(snapshot.upstream(otlp.upstream).clone());
        Some(Self { upstream, headers: otlp.headers.clone(), service: otlp.service.clone() })
    }

    /// Whether what is sent goes to the same place in the same way, so that connections can stay.
    fn is_like(&self, other: &Self) -> bool {
        self.upstream.is_same(&other.upstream) && (&self.headers, &self.service) == (&other.headers, &other.service)
    }
}

/// What the sending thread is told.
#[derive(Clone, Debug)]
enum Order {
    Send(Option<Arc<Collector>>),
    End,
}

/// The thread that sends.
#[derive(Debug)]
pub(crate) struct Exporter {
    exports: Arc<Exports>,
    order: watch::Sender<Order>,
    thread: Option<JoinHandle<()>>,
    telemetry: Option<UpstreamTelemetry>,
}

impl Exporter {
    /// Sends nothing yet.
    pub(super) fn new(exports: Arc<Exports>, telemetry: UpstreamTelemetry) -> Self {
        Self { exports, order: watch::Sender::new(Order::Send(None)), thread: None, telemetry: Some(telemetry) }
    }

    /// Sends to the collector that the configuration names, if it names one.
    pub(crate) fn follow(&mut self, snapshot: &Snapshot) -> std::io::Result<()> {
        let collector = Collector::of(snapshot).map(Arc::new);
        if collector.is_some() && self.thread.is_none() {
            self.start()?;
        }
        self.exports.on.store(collector.is_some(), Ordering::Relaxed);
        self.order.send_replace(Order::Send(collector));
        Ok(())
    }

    fn start(&mut self) -> std::io::Result<()> {
        let (Some(queued), Some(telemetry)) = (self.exports.take_queue(), self.telemetry.take()) else { return Ok(()) };
        let (order, tally) = (self.order.subscribe(), self.exports.tally.clone());
        let runtime = crate::supervisor::runtime;
        let body = move || match runtime() {
            Ok(runtime) => runtime.block_on(async {
                let upstreams = Upstreams::new(0, 1, telemetry);
                upstreams.run();
                Sender { upstreams, clock: Clock::start(), tally, collector: None, place: 0 }.run(queued, order).await;
            }),
            Err(error) => tracing::error!(%error, "nothing can be sent to the collector"),
        };
        self.thread = Some(std::thread::Builder::new().name("otlp".to_owned()).spawn(body)?);
        Ok(())
    }

    /// Sends what is left, within a deadline.
    pub(crate) fn end(&mut self) {
        self.exports.on.store(false, Ordering::Relaxed);
        self.order.send_replace(Order::End);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so on stderr.
            _ = thread.join();
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.end();
    }
}

/// What waits to be sent together.
#[derive(Debug, Default)]
struct Batch {
    spans: Vec<Span>,
    logs: Vec<LogRecord>,
}

impl Batch {
    fn take(&mut self, item: Item) {
        match item {
            Item::Spans(spans) => self.spans.extend(spans),
            Item::Log(log) => self.logs.push(*log),
        }
    }

    fn is_empty(&self) -> bool {
        self.spans.is_empty() && self.logs.is_empty()
    }

    fn is_full(&self) -> bool {
        self.spans.len() + self.logs.len() >= BATCH
    }
}

/// Takes in what there is, until it is enough or nothing has come for a while. Not if the order changes first.
async fn gather(batch: &mut Batch, queued: &mut mpsc::Receiver<Item>, order: &mut watch::Receiver<Order>) -> bool {
    let mut due = Instant::now() + LINGER;
    while !batch.is_full() {
        tokio::select! {
            _ = order.changed() => return false,
            item = queued.recv() => match item {
                Some(item) => {
                    if batch.is_empty() {
                        due = Instant::now() + LINGER;
                    }
                    batch.take(item);
                }
                // Nobody is left to send anything; the order to end is on its way.
                None => std::future::pending().await,
            },
            () = sleep_until(due), if !batch.is_empty() => return true,
        }
    }
    true
}

struct Sender {
    upstreams: Upstreams,
    clock: Clock,
    tally: Arc<Tally>,
    collector: Option<Arc<Collector>>,
    /// Which of the upstreams it is.
    place: u32,
}

/// What came of sending.
enum Sent {
    /// The collector has it, but for so many.
    Taken { rejected: u64 },
    /// It would not have it, and never will.
    Refused(StatusCode),
    /// It may have it later.
    Later(Option<Duration>),
}

impl Sender {
    async fn run(mut self, mut queued: mpsc::Receiver<Item>, mut order: watch::Receiver<Order>) {
        let mut batch = Batch::default();
        loop {
            let now = order.borrow_and_update().clone();
            match now {
                Order::Send(collector) => self.turn_to(collector),
                Order::End => break,
            }
            if !gather(&mut batch, &mut queued, &mut order).await {
                continue;
            }
            let mut sending = pin!(self.send(std::mem::take(&mut batch), TRIES));
            tokio::select! {
                () = &mut sending => {}
                // The end waits for what is under way, but not for long.
                _ = order.wait_for(|order| matches!(order, Order::End)) => {
                    let _too_late = timeout(LAST_CALL, sending).await;
                }
            }
            self.upstreams.sweep(&self.clock);
        }
        queued.close();
        while let Ok(item) = queued.try_recv() {
            batch.take(item);
        }
        let _too_late = timeout(LAST_CALL, self.send(batch, 1)).await;
    }

    fn turn_to(&mut self, collector: Option<Arc<Collector>>) {
        if self.collector.as_deref().zip(collector.as_deref()).is_some_and(|(before, now)| before.is_like(now)) {
            return;
        }
        if self.collector.is_some() {
            self.upstreams.release(UpstreamId(self.place));
            self.place += 1;
        }
        if let Some(collector) = &collector {
            self.upstreams.hold(UpstreamId(self.place), &collector.upstream);
        }
        self.collector = collector;
    }

    async fn send(&self, batch: Batch, tries: u32) {
        let Batch { spans, logs } = batch;
        let (span_count, log_count) = (spans.len() as u64, logs.len() as u64);
        let Some(collector) = &self.collector else {
            self.tally.spans.dropped.fetch_add(span_count, Ordering::Relaxed);
            self.tally.logs.dropped.fetch_add(log_count, Ordering::Relaxed);
            return;
        };
        let (resource, scope, schema_url) = (Some(resource(collector)), Some(scope()), SCHEMA.to_owned());
        if span_count > 0 {
            let scope_spans = vec![ScopeSpans { scope: scope.clone(), spans }];
            let resource_spans =
                ResourceSpans { resource: resource.clone(), scope_spans, schema_url: schema_url.clone() };
            let body = ExportTraces { resource_spans: vec![resource_spans] }.encode_to_vec();
            self.deliver(collector, "/v1/traces", body.into(), tries, (&self.tally.spans, span_count)).await;
        }
        if log_count > 0 {
            let scope_logs = vec![ScopeLogs { scope, log_records: logs }];
            let body =
                ExportLogs { resource_logs: vec![ResourceLogs { resource, scope_logs, schema_url }] }.encode_to_vec();
            self.deliver(collector, "/v1/logs", body.into(), tries, (&self.tally.logs, log_count)).await;
        }
    }

    /// Sends one body, again where the collector asks for that, and counts what became of it.
    async fn deliver(
        &self,
        collector: &Collector,
        path: &'static str,
        body: Bytes,
        tries: u32,
        (fates, count): (&Fates, u64),
    ) {
        let mut pause = PAUSE;
        for left in (0..tries).rev() {
            let sent = timeout(PATIENCE, self.post(collector, path, body.clone())).await;
            match sent.unwrap_or(Sent::Later(None)) {
                Sent::Taken { rejected } => {
                    fates.sent.fetch_add(count.saturating_sub(rejected), Ordering::Relaxed);
                    fates.rejected.fetch_add(rejected, Ordering::Relaxed);
                    return;
                }
                Sent::Refused(status) => {
                    tracing::warn!(%status, path, "the collector refused what it was sent");
                    fates.rejected.fetch_add(count, Ordering::Relaxed);
                    return;
                }
                Sent::Later(asked) if left > 0 => {
                    tokio::time::sleep(asked.unwrap_or(pause).min(LONGEST_PAUSE)).await;
                    pause *= 2;
                }
                Sent::Later(_) => {}
            }
        }
        tracing::warn!(path, count, "the collector could not be told");
        fates.failed.fetch_add(count, Ordering::Relaxed);
    }

    async fn post(&self, collector: &Collector, path: &'static str, body: Bytes) -> Sent {
        let scheme = if collector.upstream.tls.is_some() { Scheme::Https } else { Scheme::Http };
        let headers = Headers::request(Method::POST, scheme, PathAndQuery::from_static(path), fields(collector, &body));
        let place = UpstreamId(self.place);
        let body = RequestBody::Whole(Some(body), None);
        let sent = self.upstreams.send(place, (headers, body), None, &Tries::default(), &self.clock).await;
        let Ok(answer) = sent else { return Sent::Later(None) };
        let status = answer.response.status();
        let asked =
            answer.response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = Limited::new(answer.response.into_body(), ANSWER).collect().await;
        if body.is_ok() {
            answer.lease.done(&self.clock);
        }
        match status.as_u16() {
            200..300 => {
                let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                let partial = Exported::decode(body).ok().and_then(|exported| exported.partial_success);
                Sent::Taken { rejected: partial.and_then(|part| part.rejected.try_into().ok()).unwrap_or(0) }
            }
            429 | 502 | 503 | 504 => Sent::Later(asked.map(Duration::from_secs)),
            _ => Sent::Refused(status),
        }
    }
}

fn fields(collector: &Collector, body: &Bytes) -> HeaderMap {
    let mut fields: HeaderMap = collector.headers.iter().cloned().collect();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    let host =
        collector.upstream.endpoints.first().and_then(|endpoint| HeaderValue::try_from(endpoint.to_string()).ok());
    if let Some(host) = host {
        fields.entry(header::HOST).or_insert(host);
    }
    let agent = concat!("portcullis/", env!("CARGO_PKG_VERSION"));
    fields.entry(header::USER_AGENT).or_insert(HeaderValue::from_static(agent));
    fields
}

fn resource(collector: &Collector) -> Resource {
    let text = |key, value: &str| KeyValue::text(key, value);
    let mut attributes = vec![
        text("service.name", &collector.service),
        text("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::number("process.pid", u64::from(std::process::id())),
    ];
    let host = rustix::system::uname();
    attributes.extend(host.nodename().to_str().ok().map(|name| text("host.name", name)));
    Resource { attributes }
}

fn scope() -> Scope {
    Scope { name: "portcullis".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
}
