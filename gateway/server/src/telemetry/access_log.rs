//! The access log: one JSON line per request or TCP connection, encoded by the worker that served it.
//!
//! A line is built straight in the worker's buffer: no value tree, no allocation per line. Buffers are handed to
//! [`super::log_writer`] when they are full or when the worker flushes. Everything a client or guest can influence is escaped
//! and cut to a length, so that no request can forge a line, break a terminal or fill a disk.
//! **Invariant:** values of query parameters, header values other than `Host`, `User-Agent`, the request id and those that were chosen,
//! and bodies are never written.

mod connections;

use std::cell::{Cell, RefCell};
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;
use portcullis_core::filter::Chain;
use portcullis_core::time::Time;
use portcullis_core::timing::Timings;
use portcullis_core::trace::Trace;

pub(crate) use self::connections::ConnectionRecord;
use super::Record;
use super::choice::{Choice, Chosen, REDACTED, Secrecy};
use super::log_writer::{Batch, LogWriter, Refused};

/// A buffer of this many bytes is handed over: large enough that the hand-over is rare, small enough to stay in cache.
const FULL: usize = 32 << 10;
/// Room for the line that makes a buffer full.
const ROOM: usize = FULL + (8 << 10);
/// The most bytes of a client's or guest's words in one field.
const MAX_WORDS: usize = 256;
/// The most bytes of a request's target.
const MAX_TARGET: usize = 2048;

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
    match record.upstream_wait {
        None => null(out),
        Some(wait) => millis(out, wait),
    }
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
    match record.upstream_address {
        None => null(out),
        Some(upstream) => address(out, upstream),
    }
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
    if choice.filters
        && let Some(timings) = record.timings
    {
        filters(out, record.chain, timings);
    }
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

/// What each filter did.
fn filters(out: &mut Vec<u8>, chain: &Chain, timings: &Timings) {
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

/// The trace and the gateway's span in it, as `traceparent` has them.
fn ids(out: &mut Vec<u8>, trace: &Trace) {
    let text = trace.text();
    out.extend_from_slice(b",\"trace_id\":\"");
    out.extend_from_slice(text.get(3..35).unwrap_or_default());
    out.extend_from_slice(b"\",\"span_id\":\"");
    out.extend_from_slice(text.get(36..52).unwrap_or_default());
    out.push(b'"');
}

fn null(out: &mut Vec<u8>) {
    out.extend_from_slice(b"null");
}

fn integer(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// A number below 100 in two digits.
fn two_digits(number: u64) -> [u8; 2] {
    let digit = |value: u64| b'0' + u8::try_from(value % 10).unwrap_or_default();
    [digit(number / 10), digit(number)]
}

/// A number below 1000 in three digits.
fn three_digits(number: u64) -> [u8; 3] {
    let ([_, hundreds], [tens, ones]) = (two_digits(number / 100), two_digits(number % 100));
    [hundreds, tens, ones]
}

/// Milliseconds to three decimals.
fn millis(out: &mut Vec<u8>, duration: Duration) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    integer(out, micros / 1000);
    let [a, b, c] = three_digits(micros % 1000);
    out.extend_from_slice(&[b'.', a, b, c]);
}

/// RFC 3339, UTC, to the millisecond.
fn timestamp(out: &mut Vec<u8>, time: Time) {
    let seconds = time.as_nanos() / 1_000_000_000;
    let (year, month, day) = civil(seconds / 86_400);
    let of_day = seconds % 86_400;
    let [[y1, y2], [y3, y4]] = [two_digits(year / 100), two_digits(year % 100)];
    let [[m1, m2], [d1, d2]] = [two_digits(month), two_digits(day)];
    let [[h1, h2], [n1, n2], [s1, s2]] = [of_day / 3600, of_day / 60 % 60, of_day % 60].map(two_digits);
    let [a, b, c] = three_digits(time.as_nanos() / 1_000_000 % 1000);
    out.extend_from_slice(&[
        y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, b':', n1, n2, b':', s1, s2, b'.', a, b, c, b'Z',
    ]);
}

/// The Gregorian date of a day counted from 1970-01-01.
///
/// Years are taken to begin in March, so that the leap day is the last one; 400 of them always have 146,097 days.
fn civil(days_since_epoch: u64) -> (u64, u64, u64) {
    let days = days_since_epoch + 719_468; // from 0000-03-01
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// An address as text; without a port where none is known.
fn address(out: &mut Vec<u8>, address: SocketAddr) {
    out.push(b'"');
    match address {
        // Written out because the standard formatter costs as much as half a line.
        SocketAddr::V4(v4) => {
            let [first, rest @ ..] = v4.ip().octets();
            integer(out, u64::from(first));
            for octet in rest {
                out.push(b'.');
                integer(out, u64::from(octet));
            }
            if v4.port() != 0 {
                out.push(b':');
                integer(out, u64::from(v4.port()));
            }
        }
        SocketAddr::V6(v6) => {
            let written = if v6.port() == 0 { write!(out, "{}", v6.ip()) } else { write!(out, "{v6}") };
            debug_assert!(written.is_ok(), "a vector takes everything");
        }
    }
    out.push(b'"');
}

/// A name from the configuration; `null` where there is none.
fn name(out: &mut Vec<u8>, name: &str) {
    if name.is_empty() {
        return null(out);
    }
    out.push(b'"');
    words(out, name.as_bytes(), MAX_WORDS);
    out.push(b'"');
}

/// A request's target: its path as it came, its query without the values.
fn target(out: &mut Vec<u8>, target: &str) {
    let mut halves = target.as_bytes().splitn(2, |byte| *byte == b'?');
    words(out, halves.next().unwrap_or_default(), MAX_TARGET);
    let Some(query) = halves.next() else { return };
    let begin = out.len();
    let mut mark = b'?';
    for parameter in query.split(|byte| *byte == b'&') {
        out.push(mark);
        mark = b'&';
        if out.len() - begin > MAX_TARGET {
            return out.extend_from_slice("…".as_bytes());
        }
        // A parameter without `=` may be a secret just as well as a name.
        if let Some(equals) = parameter.iter().position(|byte| *byte == b'=') {
            words(out, parameter.get(..equals).unwrap_or_default(), MAX_WORDS);
            out.push(b'=');
        }
        if !parameter.is_empty() {
            out.extend_from_slice(REDACTED.as_bytes());
        }
    }
}

/// What stands between two quotes: at most `max` bytes, escaped, and a sign where more were left out.
fn words(out: &mut Vec<u8>, bytes: &[u8], max: usize) {
    match bytes.get(..max) {
        Some(kept) if kept.len() < bytes.len() => {
            escape(out, kept);
            out.extend_from_slice("…".as_bytes());
        }
        Some(_) | None => escape(out, bytes),
    }
}

fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    // Without a branch for each byte: nearly everything is plain.
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') & (byte != b'"') & (byte != b'\\');
    if bytes.iter().fold(true, |plain, byte| plain & is_plain(*byte)) {
        return out.extend_from_slice(bytes);
    }
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            escape_char(out, letter);
        }
        if !chunk.invalid().is_empty() {
            escape_char(out, char::REPLACEMENT_CHARACTER);
        }
    }
}

fn escape_char(out: &mut Vec<u8>, letter: char) {
    match letter {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        // JSON demands it below U+0020; the rest would move a terminal's cursor, or end a line for some readers.
        letter if letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}') => {
            out.extend_from_slice(b"\\u");
            for shift in [12, 8, 4, 0] {
                let digit = char::from_digit(u32::from(letter) >> shift & 15, 16).unwrap_or('0');
                out.extend_from_slice(digit.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        letter => out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
    }
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
    fn no_control_character_is_written_as_it_is() {
        let all: String = (0..0x2100).filter_map(char::from_u32).collect();
        let mut out = Vec::new();
        escape(&mut out, all.as_bytes());
        let written = String::from_utf8(out).unwrap();
        assert!(!written.contains(|c: char| c.is_control() || c == '\u{2028}' || c == '\u{2029}'));
        assert_eq!(serde_json::from_str::<String>(&format!("\"{written}\"")).unwrap(), all);
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

    #[test]
    fn times_are_dates() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000Z"),
            (1_709_251_200, "2024-03-01T00:00:00.000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            let mut out = Vec::new();
            timestamp(&mut out, Time::from_nanos(seconds * 1_000_000_000));
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
    }
}
