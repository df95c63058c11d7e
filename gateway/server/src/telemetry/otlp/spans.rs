//! An exchange as a collector sees it: a span for the request, one for every try at an upstream, one for every part a filter took.
//!
//! Attributes are OpenTelemetry's for HTTP where there is one, `portcullis.*` otherwise. Made only of what is recorded, so it
//! may allocate. **Invariant:** values of query parameters are not in it.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Method;
use portcullis_core::time::Time;
use portcullis_core::timing::{Outcome, Share};
use portcullis_core::trace::{SpanId, Trace};

use super::wire::{AnyValue, CLIENT, ERROR, INTERNAL, KeyValue, LogRecord, SERVER, Span, Status, Value};
use crate::telemetry::choice::{Choice, Chosen, shown_target, shown_value};
use crate::telemetry::metrics::{OTHER, method as known_method};
use crate::telemetry::{ConnectionRecord, Record};

/// The most bytes of a client's words in one attribute.
const MAX_WORDS: usize = 1024;

/// One try at an upstream.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) span: SpanId,
    /// Where it went, if it got so far.
    pub(crate) address: Option<SocketAddr>,
    /// `http`, `https`.
    pub(crate) scheme: &'static str,
    pub(crate) begun: Time,
    pub(crate) ended: Time,
    /// What came of it: a status, or why there is none.
    pub(crate) outcome: Result<u16, &'static str>,
}

/// Every span of an exchange that has ended.
pub(in crate::telemetry) fn of(record: &Record<'_>, trace: &Trace) -> Vec<Span> {
    let mut spans = vec![server(record, trace)];
    let answered = record.response_is_upstreams();
    let last = record.tries.len().checked_sub(1);
    for (resends, attempt) in record.tries.iter().enumerate() {
        let mut span = client(trace, attempt, record.method, record.upstream, resends);
        span.attributes.push(KeyValue::text("url.full", full(record, attempt)));
        if answered && Some(resends) == last {
            // Its response was read until then.
            span.end_time_unix_nano = (record.time + record.duration).as_nanos();
        }
        spans.push(span);
    }
    let shares = record.timings.map_or(&[][..], |timings| timings.shares());
    spans.extend(shares.iter().map(|share| filter(record, trace, share)));
    spans
}

/// The spans of a callout's tries.
pub(in crate::telemetry) fn of_callout(
    trace: &Trace,
    attempts: &[Attempt],
    method: &Method,
    (upstream, tenant): (&str, &str),
) -> Vec<Span> {
    let one = |(resends, attempt)| {
        let mut span = client(trace, attempt, method, upstream, resends);
        span.attributes.push(KeyValue::text("portcullis.callout", "true"));
        names(&mut span.attributes, &[("portcullis.tenant", tenant)]);
        span
    };
    attempts.iter().enumerate().map(one).collect()
}

fn blank(trace: &Trace, id: SpanId, parent: Option<SpanId>, (begun, ended): (Time, Time)) -> Span {
    Span {
        trace_id: trace.id.to_bytes().into(),
        span_id: id.to_bytes().into(),
        parent_span_id: parent.map(|parent| parent.to_bytes().into()).unwrap_or_default(),
        start_time_unix_nano: begun.as_nanos(),
        end_time_unix_nano: ended.as_nanos(),
        flags: u32::from(trace.flags()),
        ..Span::default()
    }
}

fn server(record: &Record<'_>, trace: &Trace) -> Span {
    let mut span = blank(trace, trace.span, trace.parent, (record.time, record.time + record.duration));
    span.kind = SERVER;
    span.name = match &**record.pattern {
        "" => known_method(record.method).to_owned(),
        pattern => format!("{} {pattern}", known_method(record.method)),
    };
    span.attributes = about(record);
    if record.status >= 500 || record.status == 0 {
        span.status = Some(Status { code: ERROR, message: clipped(record.reason.as_bytes()) });
    }
    span
}

/// What is said of a request, on its span and in its log record.
fn about(record: &Record<'_>) -> Vec<KeyValue> {
    let target = shown_target(record.path);
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut all = method(record.method);
    let version = record.protocol.strip_prefix("HTTP/").unwrap_or(record.protocol);
    all.extend([
        KeyValue::text("url.path", path),
        KeyValue::text("url.scheme", record.scheme),
        KeyValue::text("network.protocol.version", version),
        KeyValue::text("client.address", record.source.ip().to_string()),
        KeyValue::number("http.request.body.size", record.request_bytes),
        KeyValue::number("http.response.body.size", record.response_bytes),
        KeyValue::text("portcullis.reason", clipped(record.reason.as_bytes())),
        KeyValue::text("portcullis.request_id", clipped(record.request_id)),
    ]);
    if record.source.port() != 0 {
        all.push(KeyValue::number("client.port", u64::from(record.source.port())));
    }
    host(&mut all, record.host);
    if record.status > 0 {
        all.push(KeyValue::number("http.response.status_code", u64::from(record.status)));
    }
    names(
        &mut all,
        &[
            ("url.query", query),
            ("http.route", record.pattern),
            ("portcullis.tenant", record.tenant),
            ("portcullis.route", record.route),
            ("portcullis.upstream", record.upstream),
            ("user_agent.original", &clipped(record.user_agent)),
            ("error.type", &record.error_type()),
        ],
    );
    all
}

fn method(method: &Method) -> Vec<KeyValue> {
    let known = known_method(method);
    let mut all = vec![KeyValue::text("http.request.method", known)];
    if known == OTHER {
        all.push(KeyValue::text("http.request.method_original", clipped(method.as_str().as_bytes())));
    }
    all
}

/// The host a client asked for, and its port if it named one.
fn host(all: &mut Vec<KeyValue>, host: &[u8]) {
    let host = clipped(host);
    let port = host.rsplit_once(':').and_then(|(name, port)| Some((name, port.parse::<u16>().ok()?)));
    let (name, port) = port.map_or((&*host, None), |(name, port)| (name, Some(port)));
    names(all, &[("server.address", name.trim_matches(['[', ']']))]);
    all.extend(port.map(|port| KeyValue::number("server.port", u64::from(port))));
}

fn client(trace: &Trace, attempt: &Attempt, asked: &Method, upstream: &str, resends: usize) -> Span {
    let mut span = blank(trace, attempt.span, Some(trace.span), (attempt.begun, attempt.ended));
    span.kind = CLIENT;
    span.name = known_method(asked).to_owned();
    span.attributes = method(asked);
    names(&mut span.attributes, &[("portcullis.upstream", upstream)]);
    if let Some(address) = attempt.address {
        let ip = address.ip().to_string();
        span.attributes.push(KeyValue::text("server.address", &*ip));
        span.attributes.push(KeyValue::text("network.peer.address", ip));
        span.attributes.push(KeyValue::number("server.port", u64::from(address.port())));
    }
    if resends > 0 {
        span.attributes.push(KeyValue::number("http.request.resend_count", resends as u64));
    }
    let error = match attempt.outcome {
        Ok(status) => {
            span.attributes.push(KeyValue::number("http.response.status_code", u64::from(status)));
            if status < 400 { String::new() } else { status.to_string() }
        }
        Err(word) => word.to_owned(),
    };
    if !error.is_empty() {
        span.attributes.push(KeyValue::text("error.type", &*error));
        span.status = Some(Status { code: ERROR, message: error });
    }
    span
}

fn full(record: &Record<'_>, attempt: &Attempt) -> String {
    let authority = match attempt.address {
        Some(address) => address.to_string(),
        None => record.upstream.to_string(),
    };
    format!("{}://{authority}{}", attempt.scheme, shown_target(record.path))
}

fn filter(record: &Record<'_>, trace: &Trace, share: &Share) -> Span {
    let id = SpanId::fresh(&mut || fastrand::u64(..));
    let plugin = record.chain.version(share.filter, share.version).map_or("", |filter| &filter.name);
    let mut span = blank(trace, id, Some(trace.span), (share.begun, share.ended));
    span.kind = INTERNAL;
    span.name = format!("filter {plugin} {}", share.phase.as_str());
    span.attributes = vec![
        KeyValue::text("portcullis.plugin", plugin),
        KeyValue::text("portcullis.filter.phase", share.phase.as_str()),
        KeyValue::text("portcullis.decision", share.outcome.as_str()),
        KeyValue::number("portcullis.filter.index", share.filter as u64),
        KeyValue::double("portcullis.filter.busy", share.busy.as_secs_f64()),
    ];
    names(&mut span.attributes, &[("portcullis.tenant", record.tenant)]);
    if share.outcome == Outcome::Fail {
        span.attributes.push(KeyValue::text("error.type", "filter_failed"));
        span.status = Some(Status { code: ERROR, message: "filter_failed".to_owned() });
    }
    span
}

/// A line of the access log, for the same collector.
pub(in crate::telemetry) fn log(record: &Record<'_>, choice: &Choice) -> LogRecord {
    let failed = record.status >= 500 || record.status == 0;
    let mut attributes = about(record);
    attributes.push(KeyValue::double("http.server.request.duration", record.duration.as_secs_f64()));
    fields(&mut attributes, "http.request.header.", &choice.request, record.request_fields);
    fields(&mut attributes, "http.response.header.", &choice.response, record.response_fields);
    properties(&mut attributes, choice, record.properties);
    let line = format!("{} {} {}", known_method(record.method), shown_target(record.path), record.status);
    let sampled = record.trace;
    LogRecord {
        flags: sampled.map_or(0, |trace| u32::from(trace.flags())),
        trace_id: sampled.map(|trace| trace.id.to_bytes().into()).unwrap_or_default(),
        span_id: sampled.map(|trace| trace.span.to_bytes().into()).unwrap_or_default(),
        event_name: "http.server.request".to_owned(),
        ..logged((record.time + record.duration).as_nanos(), failed, line, attributes)
    }
}

/// The same of a TCP connection.
pub(in crate::telemetry) fn log_connection(record: &ConnectionRecord<'_>, choice: &Choice) -> LogRecord {
    let mut attributes = vec![
        KeyValue::text("network.transport", "tcp"),
        KeyValue::text("client.address", record.source.ip().to_string()),
        KeyValue::number("portcullis.connection.received", record.received),
        KeyValue::number("portcullis.connection.sent", record.sent),
        KeyValue::double("portcullis.connection.duration", record.duration.as_secs_f64()),
        KeyValue::text("portcullis.reason", record.reason()),
    ];
    if record.source.port() != 0 {
        attributes.push(KeyValue::number("client.port", u64::from(record.source.port())));
    }
    names(
        &mut attributes,
        &[
            ("portcullis.tenant", record.tenant),
            ("portcullis.listener", record.listener),
            ("portcullis.upstream", record.upstream),
            ("error.type", record.failure.unwrap_or_default()),
        ],
    );
    properties(&mut attributes, choice, record.properties);
    let line = format!("{} {}", record.listener, record.reason());
    LogRecord {
        event_name: "portcullis.connection".to_owned(),
        ..logged((record.time + record.duration).as_nanos(), record.failure.is_some(), line, attributes)
    }
}

/// A line that ends at this time.
fn logged(end: u64, failed: bool, line: String, attributes: Vec<KeyValue>) -> LogRecord {
    LogRecord {
        time_unix_nano: end,
        observed_time_unix_nano: end,
        // `SEVERITY_NUMBER_ERROR` and `SEVERITY_NUMBER_INFO`.
        severity_number: if failed { 17 } else { 9 },
        severity_text: if failed { "ERROR" } else { "INFO" }.to_owned(),
        body: Some(AnyValue { value: Some(Value::Text(line)) }),
        attributes,
        ..LogRecord::default()
    }
}

fn properties(all: &mut Vec<KeyValue>, choice: &Choice, left: &[(Bytes, Bytes)]) {
    for (name, value) in choice.properties(left) {
        all.push(KeyValue::text(&format!("portcullis.property.{name}"), clipped(value)));
    }
}

fn fields(all: &mut Vec<KeyValue>, prefix: &str, names: &[http::HeaderName], chosen: &Chosen) {
    for (name, values) in chosen.by_name(names) {
        let shown: Vec<String> = values.map(|value| shown_value(name, value)).collect();
        all.push(KeyValue::text(&format!("{prefix}{name}"), clipped(shown.join(", ").as_bytes())));
    }
}

/// Those that say something.
fn names(all: &mut Vec<KeyValue>, pairs: &[(&str, &str)]) {
    let said = pairs.iter().filter(|(_, value)| !value.is_empty());
    all.extend(said.map(|(key, value)| KeyValue::text(key, *value)));
}

fn clipped(words: &[u8]) -> String {
    String::from_utf8_lossy(words.get(..MAX_WORDS).unwrap_or(words)).into_owned()
}
