//! Lines about TCP connections, among those about requests: what applies of the same fields, and the listener.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use portcullis_core::filter::Chain;
use portcullis_core::time::Time;
use portcullis_core::timing::Timings;

use super::values::{MAX_WORDS, address, integer, millis, name, or_null, timestamp, words};
use super::{AccessLog, filters, properties};
use crate::telemetry::choice::Choice;

/// What is said of a TCP connection when it has ended.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionRecord<'a> {
    /// The tenant's name; empty outside any.
    pub(crate) tenant: &'a Arc<str>,
    /// The listener's name.
    pub(crate) listener: &'a Arc<str>,
    /// The upstream's name.
    pub(crate) upstream: &'a Arc<str>,
    /// The endpoint that it was connected to.
    pub(crate) upstream_address: Option<SocketAddr>,
    /// The client; port 0 where it is not known.
    pub(crate) source: SocketAddr,
    /// Why it was broken off: the gateway's code word; nothing where both sides have ended.
    pub(crate) failure: Option<&'a str>,
    /// Bytes that the client sent.
    pub(crate) received: u64,
    /// Bytes that it was sent.
    pub(crate) sent: u64,
    /// From its first byte, or before, to its end.
    pub(crate) duration: Duration,
    /// How long it took until the upstream was connected to; absent when it never was.
    pub(crate) upstream_wait: Option<Duration>,
    /// When it could begin to speak.
    pub(crate) time: Time,
    /// What its filters have left in properties, by name.
    pub(crate) properties: &'a [(Bytes, Bytes)],
    /// Its filters.
    pub(crate) chain: &'a Chain,
    /// What they did, if that was noted.
    pub(crate) timings: Option<&'a Timings>,
}

impl ConnectionRecord<'_> {
    /// The word for how it ended.
    pub(in crate::telemetry) fn reason(&self) -> &str {
        self.failure.unwrap_or("via_upstream")
    }
}

impl AccessLog {
    pub(in crate::telemetry) fn write_connection(&self, record: &ConnectionRecord<'_>, choice: &Choice) {
        self.append(|out| line(out, record, choice));
    }
}

fn line(out: &mut Vec<u8>, record: &ConnectionRecord<'_>, choice: &Choice) {
    out.extend_from_slice(b"{\"time\":\"");
    timestamp(out, record.time);
    out.extend_from_slice(b"\",\"tenant\":");
    name(out, record.tenant);
    out.extend_from_slice(b",\"listener\":");
    name(out, record.listener);
    out.extend_from_slice(b",\"reason\":\"");
    words(out, record.reason().as_bytes(), MAX_WORDS);
    out.extend_from_slice(b"\",\"duration_ms\":");
    millis(out, record.duration);
    out.extend_from_slice(b",\"upstream_wait_ms\":");
    or_null(out, record.upstream_wait, millis);
    out.extend_from_slice(b",\"request_bytes\":");
    integer(out, record.received);
    out.extend_from_slice(b",\"response_bytes\":");
    integer(out, record.sent);
    out.extend_from_slice(b",\"source\":");
    address(out, record.source);
    out.extend_from_slice(b",\"protocol\":\"TCP\",\"upstream\":");
    name(out, record.upstream);
    out.extend_from_slice(b",\"upstream_address\":");
    or_null(out, record.upstream_address, address);
    properties(out, record.properties, choice);
    filters(out, record.chain, record.timings, choice);
    out.extend_from_slice(b"}\n");
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::snapshot::{self, LogTarget};

    #[test]
    fn a_line_says_what_became_of_a_connection() {
        let (tenant, listener, upstream) = ("".into(), "red\"is".into(), "redis".into());
        let record = ConnectionRecord {
            tenant: &tenant,
            listener: &listener,
            upstream: &upstream,
            upstream_address: Some(([127, 0, 0, 1], 6379).into()),
            source: ([192, 0, 2, 7], 40312).into(),
            failure: None,
            received: 14,
            sent: 5,
            duration: Duration::from_millis(12),
            upstream_wait: Some(Duration::from_micros(250)),
            time: Time::from_nanos(1_772_368_496_789_000_000),
            properties: &[("guard.said".into(), "\x07no".into()), ("own".into(), "".into())],
            chain: &Chain::default(),
            timings: None,
        };
        let mut settings = snapshot::AccessLog::to(LogTarget::Stdout);
        settings.properties.push("guard.said".to_owned());
        let choice = Choice::of(&settings);
        let parsed = |record: &ConnectionRecord<'_>| -> Value {
            let mut out = Vec::new();
            line(&mut out, record, &choice);
            assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1, "one line, one line break");
            serde_json::from_slice(&out).unwrap()
        };
        let mut want = json!({
            "time": "2026-03-01T12:34:56.789Z", "tenant": null, "listener": "red\"is", "reason": "via_upstream",
            "duration_ms": 12.0, "upstream_wait_ms": 0.25, "request_bytes": 14, "response_bytes": 5,
            "source": "192.0.2.7:40312", "protocol": "TCP", "upstream": "redis", "upstream_address": "127.0.0.1:6379",
            "properties": { "guard.said": "\u{7}no" },
        });
        assert_eq!(parsed(&record), want);
        let failed = ConnectionRecord {
            failure: Some("upstream_connect"),
            upstream_address: None,
            upstream_wait: None,
            properties: &[],
            ..record
        };
        want["reason"] = json!("upstream_connect");
        (want["upstream_address"], want["upstream_wait_ms"]) = (Value::Null, Value::Null);
        want.as_object_mut().unwrap().remove("properties");
        assert_eq!(parsed(&failed), want);
    }
}
