//! The access log: one JSON line per request or TCP connection, encoded by the worker that served it.
//!
//! A line is built straight in the worker's buffer: no value tree, no allocation per line. Buffers are handed to
//! [`super::log_writer`] when they are full or when the worker flushes. Everything a client or guest can influence is escaped
//! and cut to a length, so that no request can forge a line, break a terminal or fill a disk.
//! **Invariant:** values of query parameters, header values other than `Host`, `User-Agent`, the request id and those that were chosen,
//! and bodies are never written.

mod connections;
mod values;

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::mpsc;

use bytes::Bytes;
use http::HeaderName;
use portcullis_core::filter::Chain;
use portcullis_core::timing::Timings;

pub(crate) use self::connections::ConnectionRecord;
use self::values::{MAX_WORDS, address, ids, integer, millis, name, null, or_null, target, timestamp, words};
use super::Record;
use super::choice::{Choice, Chosen, REDACTED, Secrecy};
use super::log_writer::{Batch, LogWriter, Refused};

/// A buffer of this many bytes is handed over: large enough that the hand-over is rare, small enough to stay in cache.
const FULL: usize = 32 << 10;
/// Room for the line that makes a buffer full.
const ROOM: usize = FULL + (8 << 10);

/// One worker's lines that have not been handed over.
#[derive(Debug)]
pub(super) struct AccessLog {
    writer: Arc<LogWriter>,
    buffer: RefCell<Vec<u8>>,
    lines: Cell<u64>,
    back: mpsc::Sender<Vec<u8>>,
    recycled: mpsc::Receiver<Vec<u8>>,
}

impl AccessLog {
    pub(super) fn new(writer: Arc<LogWriter>) -> Self {
        let (back, recycled) = mpsc::channel();
        Self { writer, buffer: RefCell::default(), lines: Cell::new(0), back, recycled }
    }

    pub(super) fn write(&self, record: &Record<'_>, choice: &Choice) {
        self.append(|out| line(out, record, choice));
    }

    fn append(&self, line: impl FnOnce(&mut Vec<u8>)) {
        let mut buffer = self.buffer.borrow_mut();
        if buffer.capacity() == 0 {
            *buffer = self.recycled.try_recv().unwrap_or_else(|_| Vec::with_capacity(ROOM));
        }
        line(&mut buffer);
        self.lines.set(self.lines.get() + 1);
        if buffer.len() >= FULL
            && let Err(Refused(batch)) = self.writer.offer(self.take(&mut buffer))
        {
            self.writer.count_dropped(batch.lines);
            *buffer = batch.bytes;
            buffer.clear();
        }
    }

    /// Hands over what there is. While the writer is behind, lines stay here until the buffer is full.
    pub(super) fn flush(&self) {
        let mut buffer = self.buffer.borrow_mut();
        if buffer.is_empty() {
            return;
        }
        if let Err(Refused(batch)) = self.writer.offer(self.take(&mut buffer)) {
            *buffer = batch.bytes;
            self.lines.set(batch.lines);
        }
    }

    fn take(&self, buffer: &mut Vec<u8>) -> Batch {
        Batch { bytes: std::mem::take(buffer), lines: self.lines.take(), back: self.back.clone() }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        let mut buffer = self.buffer.take();
        if !buffer.is_empty() {
            self.writer.push(self.take(&mut buffer));
        }
    }
}

fn line(out: &mut Vec<u8>, record: &Record<'_>, choice: &Choice) {
    out.extend_from_slice(b"{\"time\":\"");
    timestamp(out, record.time);
    out.push(b'"');
    if let Some(trace) = record.trace {
        ids(out, trace);
    }
    out.extend_from_slice(b",\"request_id\":\"");
    words(out, record.request_id, MAX_WORDS);
    out.extend_from_slice(b"\",\"tenant\":");
    name(out, record.tenant);
    out.extend_from_slice(b",\"route\":");
    name(out, record.route);
    out.extend_from_slice(b",\"method\":\"");
    words(out, record.method.as_str().as_bytes(), MAX_WORDS);
    out.extend_from_slice(b"\",\"path\":");
    name(out, record.pattern);
    out.extend_from_slice(b",\"target\":\"");
    target(out, record.path);
    out.extend_from_slice(b"\",\"host\":\"");
    words(out, record.host, MAX_WORDS);
    out.extend_from_slice(b"\",\"status\":");
    match record.status {
        0 => null(out),
        status => integer(out, u64::from(status)),
    }
    out.extend_from_slice(b",\"reason\":\"");
    words(out, record.reason.as_bytes(), MAX_WORDS);
    out.extend_from_slice(b"\",\"duration_ms\":");
    millis(out, record.duration);
    out.extend_from_slice(b",\"upstream_wait_ms\":");
    or_null(out, record.upstream_wait, millis);
    out.extend_from_slice(b",\"request_bytes\":");
    integer(out, record.request_bytes);
    out.extend_from_slice(b",\"response_bytes\":");
    integer(out, record.response_bytes);
    out.extend_from_slice(b",\"source\":");
    address(out, record.source);
    out.extend_from_slice(b",\"protocol\":\"");
    out.extend_from_slice(record.protocol.as_bytes());
    out.extend_from_slice(b"\",\"upstream\":");
    name(out, record.upstream);
    out.extend_from_slice(b",\"upstream_address\":");
    or_null(out, record.upstream_address, address);
    out.extend_from_slice(b",\"user_agent\":\"");
    words(out, record.user_agent, MAX_WORDS);
    out.extend_from_slice(b"\",\"attempts\":");
    integer(out, u64::from(record.attempts));
    chosen(out, record, choice);
    out.extend_from_slice(b"}\n");
}

/// What is logged only where it is asked for.
fn chosen(out: &mut Vec<u8>, record: &Record<'_>, choice: &Choice) {
    fields(out, b",\"request_headers\":{", &choice.request, record.request_fields);
    fields(out, b",\"response_headers\":{", &choice.response, record.response_fields);
    properties(out, record.properties, choice);
    filters(out, record.chain, record.timings, choice);
}

/// Fields that were chosen; nothing where none was.
fn fields(out: &mut Vec<u8>, opening: &[u8], names: &[HeaderName], chosen: &Chosen) {
    if names.is_empty() {
        return;
    }
    out.extend_from_slice(opening);
    let mut mark = "";
    for (name, values) in chosen.by_name(names) {
        out.extend_from_slice(mark.as_bytes());
        mark = ",";
        out.push(b'"');
        words(out, name.as_str().as_bytes(), MAX_WORDS);
        out.extend_from_slice(b"\":\"");
        let mut comma: &[u8] = b"";
        for value in values {
            out.extend_from_slice(comma);
            comma = b", ";
            match Secrecy::of(name) {
                Secrecy::Credential => out.extend_from_slice(REDACTED.as_bytes()),
                Secrecy::Address => target(out, &String::from_utf8_lossy(value.as_bytes())),
                Secrecy::None => words(out, value.as_bytes(), MAX_WORDS),
            }
        }
        out.push(b'"');
    }
    out.push(b'}');
}

/// What filters have left in properties that were chosen; nothing where there is none.
fn properties(out: &mut Vec<u8>, left: &[(Bytes, Bytes)], choice: &Choice) {
    let mut opening: &[u8] = b",\"properties\":{\"";
    let mut closing: &[u8] = b"";
    for (name, value) in choice.properties(left) {
        out.extend_from_slice(opening);
        (opening, closing) = (b",\"", b"}");
        words(out, name.as_bytes(), MAX_WORDS);
        out.extend_from_slice(b"\":\"");
        words(out, value, MAX_WORDS);
        out.push(b'"');
    }
    out.extend_from_slice(closing);
}

/// What each filter did, where that is asked for and known.
fn filters(out: &mut Vec<u8>, chain: &Chain, timings: Option<&Timings>, choice: &Choice) {
    let Some(timings) = timings.filter(|_| choice.filters) else { return };
    out.extend_from_slice(b",\"filters\":[");
    let mut mark = "";
    for share in timings.shares() {
        out.extend_from_slice(mark.as_bytes());
        mark = ",";
        out.extend_from_slice(b"{\"plugin\":");
        name(out, chain.version(share.filter, share.version).map_or("", |filter| &filter.name));
        out.extend_from_slice(b",\"phase\":\"");
        out.extend_from_slice(share.phase.as_str().as_bytes());
        out.extend_from_slice(b"\",\"outcome\":\"");
        out.extend_from_slice(share.outcome.as_str().as_bytes());
        out.extend_from_slice(b"\",\"busy_ms\":");
        millis(out, share.busy);
        out.push(b'}');
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method};
    use serde_json::{Value, json};

    use super::*;
    use crate::config::snapshot::{AccessLog, LogTarget};
    use crate::telemetry::tests::Sample;

    fn plain() -> Choice {
        Choice::of(&AccessLog::to(LogTarget::Stdout))
    }

    fn parsed<'a>(sample: &'a Sample, change: impl FnOnce(&mut Record<'a>)) -> Value {
        parsed_with(&plain(), sample, change)
    }

    fn parsed_with<'a>(choice: &Choice, sample: &'a Sample, change: impl FnOnce(&mut Record<'a>)) -> Value {
        let mut record = sample.record();
        change(&mut record);
        let mut out = Vec::new();
        line(&mut out, &record, choice);
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1, "one line, one line break");
        assert_eq!(out.last(), Some(&b'\n'));
        serde_json::from_slice(&out).expect("a line is JSON")
    }

    #[test]
    fn a_line_says_what_happened() {
        assert_eq!(
            parsed(&Sample::new(), |_| {}),
            json!({
                "time": "2026-03-01T12:34:56.789Z", "request_id": "id-1", "tenant": "acme", "route": "orders", "method": "GET",
                "path": "/v1/orders/{id}", "target": "/v1/orders/7?expand=REDACTED", "host": "acme.example.com", "status": 200,
                "reason": "via_upstream", "duration_ms": 3.25, "upstream_wait_ms": 3.0, "request_bytes": 0,
                "response_bytes": 512, "source": "192.0.2.7:40312", "protocol": "HTTP/1.1", "upstream": "orders",
                "upstream_address": "127.0.0.1:9001", "user_agent": "curl/8.5", "attempts": 1,
            })
        );
    }

    #[test]
    fn chosen_fields_are_written_but_for_what_is_secret() {
        let names = |names: &[&'static str]| names.iter().map(|name| HeaderName::from_static(name)).collect();
        let settings = AccessLog {
            request_headers: names(&["authorization", "x-many", "x-absent", "referer", "cookie"]),
            response_headers: names(&["set-cookie", "location", "x-own"]),
            ..AccessLog::to(LogTarget::Stdout)
        };
        let choice = Choice::of(&settings);
        let fields = |given: &[(&'static str, &'static str)]| {
            let given = given.iter().copied();
            let pair = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
            given.map(pair).collect::<http::HeaderMap>()
        };
        let request = fields(&[
            ("authorization", "Bearer s3cret"),
            ("x-many", "one\"\\"),
            ("x-other", "unasked"),
            ("x-many", "two"),
            ("referer", "https://a.test/x?token=s3cret"),
            ("cookie", "session=s3cret"),
        ]);
        let response = fields(&[("set-cookie", "s=s3cret"), ("location", "/done?code=s3cret#x"), ("x-own", "1")]);
        let mut sample = Sample::new();
        sample.request = Chosen::of(&choice.request, &request);
        sample.response = Chosen::of(&choice.response, &response);
        let value = parsed_with(&choice, &sample, |_| {});
        assert_eq!(
            (&value["request_headers"], &value["response_headers"]),
            (
                &json!({
                    "authorization": "REDACTED", "x-many": "one\"\\, two", "referer": "https://a.test/x?token=REDACTED",
                    "cookie": "REDACTED",
                }),
                &json!({ "set-cookie": "REDACTED", "location": "/done?code=REDACTED", "x-own": "1" })
            )
        );
    }

    #[test]
    fn what_is_not_known_is_null() {
        let (none, sample) = (Arc::from(""), Sample::new());
        let value = parsed(&sample, |record| {
            (record.tenant, record.route, record.pattern, record.upstream) = (&none, &none, &none, &none);
            (record.status, record.upstream_wait, record.upstream_address) = (0, None, None);
            record.source = "[2001:db8::7]:0".parse().unwrap();
        });
        for field in ["tenant", "route", "path", "upstream", "upstream_address", "upstream_wait_ms", "status"] {
            assert_eq!(value[field], Value::Null, "{field}");
        }
        assert_eq!(value["source"], "2001:db8::7");
    }

    #[test]
    fn hostile_bytes_stay_inside_their_field() {
        let every_byte: Vec<u8> = (0..=255).collect();
        let method = Method::from_bytes(b"BREW'~").unwrap();
        let value = parsed(&Sample::new(), |record| {
            record.host = b"a\",\"status\":999,\"x\":\"\\";
            record.user_agent = &every_byte;
            record.request_id = b"\xff\xfe\xe2\x82\n{}";
            record.path = "/\u{1b}[2J\u{2028}\u{85}\u{7f}é";
            record.reason = "no \"reason\"\n";
            record.method = &method;
        });
        assert_eq!(value["host"], "a\",\"status\":999,\"x\":\"\\");
        assert_eq!(value["user_agent"], String::from_utf8_lossy(&every_byte).as_ref());
        assert_eq!(value["request_id"], "\u{fffd}\u{fffd}\u{fffd}\n{}");
        assert_eq!(value["target"], "/\u{1b}[2J\u{2028}\u{85}\u{7f}é");
        assert_eq!(value["reason"], "no \"reason\"\n");
        assert_eq!((&value["method"], &value["status"]), (&json!("BREW'~"), &json!(200)));
    }

    #[test]
    fn query_values_are_redacted_and_names_kept() {
        for (path, want) in [
            ("/a", "/a"),
            ("/a?", "/a?"),
            ("/a?secret", "/a?REDACTED"),
            ("/a?token=s3cret&page=2", "/a?token=REDACTED&page=REDACTED"),
            ("/a?t=s3=cret;u=s3cret&&\"=x", "/a?t=REDACTED&&\"=REDACTED"),
            ("/a?b=?token=s3cret", "/a?b=REDACTED"),
        ] {
            assert_eq!(parsed(&Sample::new(), |record| record.path = path)["target"], want);
        }
    }

    #[test]
    fn a_line_is_bounded_whatever_was_sent() {
        let sample = Sample::new();
        let (mut record, mut out) = (sample.record(), Vec::new());
        let long = "\u{1}".repeat(1 << 20);
        let path = format!("/{long}?{long}={long}&{}", "a&".repeat(1 << 16));
        (record.path, record.host, record.user_agent, record.reason) = (&path, long.as_bytes(), long.as_bytes(), &long);
        line(&mut out, &record, &plain());
        assert!(out.len() < 32 << 10, "{}", out.len());
        let value: Value = serde_json::from_slice(&out).unwrap();
        assert!(value["host"].as_str().unwrap().ends_with('…'));
    }
}
