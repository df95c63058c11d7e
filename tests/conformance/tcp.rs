//! TCP filters (reference §7.6): connections through a `tcp` listener.

use std::io::{ErrorKind, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use portcullis_tests::client::Client;
use portcullis_tests::eventually;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::guests::Guest;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::raw::RawOrigin;

use crate::guest::guest;

const CONFIG: &str = r#"
listeners:
  bytes: { bind: "127.0.0.1:0", protocol: tcp, upstream: echo, filters: {filters}, timeouts: {timeouts} }
  requests: { bind: "127.0.0.1:0" }
upstreams:
  echo: { endpoints: ["{echo}"], protocol: tcp, timeouts: { connect: 1s } }
  origin: { endpoints: ["{origin}"] }
plugins: { guest: {wat} }
routes: [{ name: all, match: { path: "/*" }, upstream: origin, filters: [{ plugin: guest, config: "" }] }]
"#;

/// An upstream that says what it is told, and closes when it has been told all.
fn echo() -> RawOrigin {
    RawOrigin::start(|wire, _| {
        while let Ok(bytes) = wire.some() {
            if bytes.is_empty() || wire.write(bytes).is_err() {
                return;
            }
        }
    })
}

/// A gateway before an upstream that echoes, and one for requests.
struct Stage {
    gateway: Gateway,
    _guest: Guest,
    _echo: RawOrigin,
    origin: Origin,
}

impl Stage {
    fn of(functions: &str) -> Self {
        Self::with(functions, echo(), r#"[{ plugin: guest, config: "" }]"#, "{}")
    }

    fn with(functions: &str, echo: RawOrigin, filters: &str, timeouts: &str) -> Self {
        let guest = guest(functions);
        let origin = Origin::start(|_| Answer::ok("ok"));
        let gateway = Gateway::start(
            CONFIG,
            &[("echo", &echo), ("origin", &origin), ("wat", &guest), ("filters", &filters), ("timeouts", &timeouts)],
        );
        Self { gateway, _guest: guest, _echo: echo, origin }
    }

    fn connect(&self) -> Client {
        self.gateway.client()
    }

    /// What a guest has noted, as its response callback tells it.
    fn trail(&self) -> String {
        let requests = self.gateway.listeners()[1];
        Client::connect(requests).get("/").get("x-trail").unwrap_or_default().to_owned()
    }
}

/// Tells the trail to whoever asks by a request.
const TELLS: &str = r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
    (call $tell (i32.const 2)) (i32.const 0))"#;

#[test]
fn without_filters_bytes_pass_both_ways_and_each_way_closes_by_itself() {
    let stage = Stage::with("", echo(), "[]", "{}");
    let mut client = stage.connect();
    client.send("hello");
    assert_eq!(client.0.exactly(5).unwrap(), b"hello");
    client.send("bye");
    client.0.finish_sending();
    assert_eq!(client.0.rest(), b"bye", "what the upstream says after the client's end still arrives");
}

#[test]
fn every_callback_is_made_in_its_order() {
    let note = |export: &str, parameters: &str, letter: char, returns: &str| {
        let result = if returns.is_empty() { "" } else { "(result i32)" };
        let code = u32::from(letter);
        format!(
            r#"(func (export "proxy_on_{export}") (param {parameters}) {result} (call $note (i32.const {code})) {returns})"#
        )
    };
    let functions = [
        note("new_connection", "i32", 'N', "(i32.const 0)"),
        note("downstream_data", "i32 i32 i32", 'D', "(i32.const 0)"),
        note("upstream_data", "i32 i32 i32", 'U', "(i32.const 0)"),
        // Who closed it: 1 the gateway, 2 the client; of the upstream it is not known, which is 0.
        r#"(func (export "proxy_on_downstream_connection_close") (param i32 i32)
            (call $note (i32.add (i32.const 48) (local.get 1))))"#
            .to_owned(),
        r#"(func (export "proxy_on_upstream_connection_close") (param i32 i32)
            (call $note (i32.add (i32.const 97) (local.get 1))))"#
            .to_owned(),
        note("done", "i32", 'O', "(i32.const 1)"),
        note("log", "i32", 'L', ""),
        TELLS.to_owned(),
    ];
    let stage = Stage::of(&functions.concat());
    let mut client = stage.connect();
    client.send("one");
    assert_eq!(client.0.exactly(3).unwrap(), b"one");
    client.0.finish_sending();
    assert!(client.0.is_closed());
    // The end of each direction is data too; then the upstream's end, the client's, and the last callbacks.
    eventually("all has been noted", || stage.trail().starts_with("NDUDUa2OL"));
}

#[test]
fn data_is_held_and_changed_on_both_ways() {
    // Up to a full stop the client's words are held, and then replaced; what comes down is put in brackets.
    let stage = Stage::of(
        r#"(func (export "proxy_on_downstream_data") (param $id i32) (param $size i32) (param $end i32) (result i32)
            (if (i32.eqz (local.get $size)) (then (return (i32.const 0))))
            (drop (call $get_buffer (i32.const 2) (i32.sub (local.get $size) (i32.const 1)) (i32.const 1) out))
            (if (i32.ne (i32.load8_u (i32.load (i32.const 16))) (i32.const 46)) (then (return (i32.const 1))))
            (drop (call $set_buffer (i32.const 2) (i32.const 0) (i32.const 3) 'NEW'))
            (i32.const 0))
        (func (export "proxy_on_upstream_data") (param $id i32) (param $size i32) (param $end i32) (result i32)
            (if (i32.eqz (local.get $size)) (then (return (i32.const 0))))
            (drop (call $set_buffer (i32.const 3) (i32.const 0) (i32.const 0) '['))
            (drop (call $set_buffer (i32.const 3) (i32.const -1) (i32.const 0) ']'))
            (i32.const 0))"#,
    );
    let mut client = stage.connect();
    client.send("old ");
    client.send("wor");
    client.send("ds.");
    let mut got = Vec::new();
    while got.iter().filter(|byte| **byte != b'[' && **byte != b']').count() < 10 {
        got.extend(client.0.some().unwrap());
    }
    let text = String::from_utf8(got).unwrap();
    assert!(text.starts_with('[') && text.ends_with(']'), "{text}");
    assert_eq!(text.replace(['[', ']'], ""), "NEW words.");
}

#[test]
fn a_connection_that_is_stopped_reaches_the_upstream_when_a_callout_has_let_it() {
    let head = crate::guest::pairs(&[(":method", "GET"), (":path", "/may-it"), (":authority", "a")]);
    let stage = Stage::of(&format!(
        r#"(global $who (mut i32) (i32.const 0))
        (func (export "proxy_on_new_connection") (param i32) (result i32)
            (global.set $who (local.get 0))
            (drop (call $call 'origin' '{head}' '' '' (i32.const 5000) (i32.const 32)))
            (i32.const 1))
        (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
            (drop (call $become (global.get $who)))
            (drop (call $continue (i32.const 2))))"#
    ));
    let mut client = stage.connect();
    client.send("hello");
    assert_eq!(client.0.exactly(5).unwrap(), b"hello");
    assert_eq!(stage.origin.last().target(), "/may-it");
}

#[test]
fn closing_ends_both_connections_and_what_has_passed_has_arrived() {
    let stage = Stage::of(
        r#"(func (export "proxy_on_downstream_data") (param i32 i32 i32) (result i32)
            (if (i32.eq (local.get 1) (i32.const 3)) (then (drop (call $close (i32.const 2))))) (i32.const 0))"#,
    );
    let mut client = stage.connect();
    client.send("hello");
    assert_eq!(client.0.exactly(5).unwrap(), b"hello");
    client.send("bye");
    assert_eq!(client.0.rest(), b"", "what was not let pass goes nowhere");
    let stage = Stage::of(
        r#"(func (export "proxy_on_new_connection") (param i32) (result i32)
            (drop (call $close (i32.const 2))) (i32.const 1))"#,
    );
    assert_eq!(stage.connect().0.rest(), b"");
}

#[test]
fn what_is_of_requests_means_nothing_to_a_connection_and_the_other_way_round() {
    // A letter for each answer: `A` and its status.
    let answers = |calls: &[&str]| {
        let note = |call: &&str| format!("(call $note (i32.add (i32.const 65) {call}))");
        calls.iter().map(note).collect::<String>()
    };
    let of_connection = answers(&[
        "(call $get_value (i32.const 0) ':path' out)",
        "(call $replace_value (i32.const 0) 'x' 'y')",
        "(call $get_buffer (i32.const 0) (i32.const 0) (i32.const 9) out)",
        "(call $set_buffer (i32.const 0) (i32.const 0) (i32.const 9) 'z')",
        "(call $continue (i32.const 0))",
        "(call $continue (i32.const 3))",
        "(call $close (i32.const 0))",
        "(call $reply (i32.const 200) '' 'no' '' (i32.const -1))",
        "(call $get_property 'request\\00path' out)",
        "(call $get_property 'source\\00address' out)",
        "(call $get_property 'upstream\\00address' out)",
        "(call $get_property 'connection\\00id' out)",
    ]);
    let of_request = answers(&[
        "(call $set_buffer (i32.const 2) (i32.const 0) (i32.const 9) 'z')",
        "(call $continue (i32.const 2))",
        "(call $close (i32.const 2))",
    ]);
    let stage = Stage::of(&format!(
        r#"(func (export "proxy_on_downstream_data") (param i32 i32 i32) (result i32)
            (if (local.get 1) (then {of_connection})) (i32.const 0))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {of_request} (i32.const 0))
        {TELLS}"#
    ));
    let mut client = stage.connect();
    client.send("hello");
    assert_eq!(client.0.exactly(5).unwrap(), b"hello");
    assert_eq!(stage.trail(), "BCACAMAABAAACAA");
}

#[test]
fn a_trap_costs_its_connection_and_the_next_gets_a_fresh_vm() {
    let stage = Stage::of(
        r#"(func (export "proxy_on_downstream_data") (param i32 i32 i32) (result i32)
            (if (i32.eq (local.get 1) (i32.const 4)) (then unreachable)) (i32.const 0))"#,
    );
    let mut other = stage.connect();
    let mut client = stage.connect();
    client.send("trap");
    assert_eq!(client.0.rest(), b"");
    assert_eq!(other.0.rest(), b"", "a connection whose filter is gone is not passed on without it");
    let mut next = stage.connect();
    next.send("hello");
    assert_eq!(next.0.exactly(5).unwrap(), b"hello");
    assert_eq!(stage.gateway.metric("portcullis_filter_traps_total", &["guest", "panic"]), 1.0);
}

#[test]
fn what_a_filter_holds_is_bounded_by_not_reading() {
    let stage =
        Stage::of(r#"(func (export "proxy_on_downstream_data") (param i32 i32 i32) (result i32) (i32.const 1))"#);
    let mut stream = TcpStream::connect(stage.gateway.address()).unwrap();
    // Whoever waits for so long can send no more.
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let (piece, mut sent) = (vec![0; 64 << 10], 0);
    let stopped = loop {
        match stream.write(&piece) {
            Ok(bytes) => sent += bytes,
            Err(error) => break error,
        }
        assert!(sent < 64 << 20, "nothing keeps the gateway from holding more and more");
    };
    assert!(matches!(stopped.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{stopped}");
}

#[test]
fn a_silent_connection_ends_at_its_time() {
    let stage = Stage::with("", echo(), "[]", "{ stream_idle: 3s }");
    let mut client = stage.connect();
    client.send("hello");
    assert_eq!(client.0.rest(), b"hello");
}
