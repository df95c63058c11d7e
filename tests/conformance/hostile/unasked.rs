//! The same in callbacks that no request's head or body brings: timers, answers, queues, trailers, connections. And bombs of other kinds.

use portcullis_tests::client::{Client, request};
use portcullis_tests::eventually;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::guests::Guest;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::raw::RawOrigin;

use super::{CONFIG, DEEP, KIND, Pair, TRAPS};
use crate::guest::{guest, pairs};

/// What brings each callback about, when a request comes.
fn brought() -> Vec<(&'static str, &'static str, String)> {
    let head = pairs(&[(":method", "GET"), (":path", "/call"), (":authority", "a")]);
    let none = pairs(&[]);
    vec![
        ("proxy_on_tick", "i32", "(drop (call $tick (i32.const 1)))".to_owned()),
        (
            "proxy_on_queue_ready",
            "i32 i32",
            "(drop (call $register 'q' (i32.const 32))) (drop (call $enqueue (i32.load (i32.const 32)) 'item'))"
                .to_owned(),
        ),
        (
            "proxy_on_http_call_response",
            "i32 i32 i32 i32 i32",
            format!("(drop (call $call 'origin' '{head}' '' '' (i32.const 5000) (i32.const 32)))"),
        ),
        (
            "proxy_on_grpc_close",
            "i32 i32 i32",
            format!("(drop (call $grpc_call 'h2' 's' 'm' '{none}' 'x' (i32.const 5000) (i32.const 32)))"),
        ),
        ("proxy_on_request_trailers", "i32 i32", String::new()),
        ("proxy_on_response_trailers", "i32 i32", String::new()),
    ]
}

/// A request with trailers, whose response has some too; whatever comes of it.
fn ask(gateway: &Gateway) {
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nhost: bad.test\r\ntransfer-encoding: chunked\r\nte: trailers\r\n\r\n");
    client.send("4\r\nbody\r\n0\r\nx-last: 1\r\n\r\n");
    let _whatever = client.0.message();
}

#[test]
fn whatever_kills_a_guest_that_no_request_waits_for_is_its_own_affair() {
    let config = CONFIG.replace(
        "upstreams: { origin: { endpoints: [\"{origin}\"] } }",
        "upstreams: { origin: { endpoints: [\"{origin}\"] }, h2: { endpoints: [\"{origin}\"], protocol: http2 } }",
    );
    assert_ne!(config, CONFIG);
    for (export, parameters, brings) in brought() {
        let returns = if export.ends_with("_trailers") { "(result i32)" } else { "" };
        for (harm, cause) in TRAPS {
            let what = format!("{export} {harm}");
            let hostile = guest(&format!(
                r#"{DEEP}(func (export "{export}") (param {parameters}) {returns} {harm} {})
                (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {brings} (i32.const 0))"#,
                if returns.is_empty() { "" } else { "(i32.const 0)" }
            ));
            let origin = Origin::start(|_| Answer::ok("ok").header("trailer", "x-last").trailers(&[("x-last", "1")]));
            let (path, kind) = (hostile.path().display().to_string(), guest(KIND));
            let gateway = Gateway::start(&config, &[("origin", &origin), ("hostile", &path), ("kind", &kind)]);
            let pair = Pair { gateway, origin, _guests: [hostile, kind] };
            pair.good(&what);
            ask(&pair.gateway);
            pair.good(&what);
            eventually(&what, || pair.counted("portcullis_filter_traps_total", &["hostile", "\"bad\"", cause]) >= 1.0);
            pair.good(&what);
            assert_eq!(pair.counted("portcullis_filter_traps_total", &["kind"]), 0.0, "{what}");
        }
    }
}

/// A `tcp` listener of the bad tenant's beside the requests of the good one.
const CONNECTIONS: &str = r#"
listeners:
  bytes: { bind: "127.0.0.1:0", protocol: tcp, upstream: echo, tenant: bad, filters: [{ plugin: hostile }] }
  requests: { bind: "127.0.0.1:0" }
upstreams:
  echo: { endpoints: ["{echo}"], protocol: tcp }
  origin: { endpoints: ["{origin}"] }
tenants:
  bad:
    hosts: [bad.test]
    plugins: { hostile: { module: "file:{hostile}", limits: { cpu: 20ms, memory: 2MiB } } }
  good:
    hosts: [good.test]
    plugins: { kind: {kind} }
    filters: [{ plugin: kind, config: "" }]
    routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#;

#[test]
fn whatever_kills_a_guest_that_sees_connections_is_its_own_affair() {
    for (export, parameters, returns) in [
        ("proxy_on_new_connection", "i32", "(result i32)"),
        ("proxy_on_downstream_data", "i32 i32 i32", "(result i32)"),
        ("proxy_on_upstream_data", "i32 i32 i32", "(result i32)"),
        ("proxy_on_downstream_connection_close", "i32 i32", ""),
        ("proxy_on_upstream_connection_close", "i32 i32", ""),
    ] {
        for (harm, cause) in TRAPS {
            let what = format!("{export} {harm}");
            let answer = if returns.is_empty() { "" } else { "(i32.const 0)" };
            let functions =
                format!(r#"{DEEP}(func (export "{export}") (param {parameters}) {returns} {harm} {answer})"#);
            let (hostile, kind, origin) = (guest(&functions), guest(KIND), Origin::plain());
            let echo = RawOrigin::start(|wire, _| _ = wire.some().and_then(|bytes| wire.write(bytes)));
            let path = hostile.path().display().to_string();
            let places: [(&str, &dyn std::fmt::Display); 4] =
                [("echo", &echo), ("origin", &origin), ("hostile", &path), ("kind", &kind)];
            let gateway = Gateway::start(CONNECTIONS, &places);
            let good = || {
                let mut client = Client::connect(gateway.listeners()[1]);
                client.send(request("GET", "/good", &[("host", "good.test")], ""));
                assert_eq!(client.0.message().unwrap().status(), 200, "{what}");
                assert_eq!(origin.last().get("x-kind"), Some("yes"), "{what}");
            };
            good();
            let mut client = gateway.client();
            client.send("hello");
            client.0.finish_sending();
            let _whatever = client.0.rest();
            good();
            eventually(&what, || {
                gateway.metric("portcullis_filter_traps_total", &["hostile", "\"bad\"", cause]) >= 1.0
            });
            good();
        }
    }
}

#[test]
fn bombs_of_other_kinds_are_bounded() {
    let grows = r#"(table 1 funcref)
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (loop $l (br_if $l (i32.ne (table.grow (ref.null func) (i32.const 1000)) (i32.const -1))))
            (if (i32.gt_u (table.size) (i32.const 65536)) (then unreachable))
            (i32.const 0))"#;
    let pair = Pair::of(grows);
    for _ in 0..3 {
        assert_eq!(pair.bad(), 200, "a table that grows no further");
        pair.good("a table that grows");
    }
    assert_eq!(pair.counted("portcullis_filter_traps_total", &["hostile"]), 0.0);

    let giant = r#"(module
        (import "env" "proxy_replace_header_map_value" (func $set (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_send_local_response" (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 192)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) (i32.const 1024))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (memory.fill (i32.const 2048) (i32.const 97) (i32.const 10485760))
            (drop (call $set (i32.const 0) (i32.const 2048) (i32.const 8) (i32.const 2048) (i32.const 10485760)))
            (drop (call $set (i32.const 0) (i32.const 2048) (i32.const 10485760) (i32.const 2048) (i32.const 8)))
            (i32.const 0))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
            (drop (call $set (i32.const 2) (i32.const 2048) (i32.const 8) (i32.const 2048) (i32.const 10485760)))
            (i32.const 0)))"#;
    let config = CONFIG.replace("cpu: 20ms, memory: 2MiB", "cpu: 200ms, memory: 16MiB");
    let (hostile, kind, origin) = (Guest::of_text(giant), guest(KIND), Origin::plain());
    let path = hostile.path().display().to_string();
    let gateway = Gateway::start(&config, &[("origin", &origin), ("hostile", &path), ("kind", &kind)]);
    let pair = Pair { gateway, origin, _guests: [hostile, kind] };
    for _ in 0..3 {
        let status = pair.bad();
        assert!([200, 400, 431, 500, 502, 503].contains(&status), "ten megabytes of a header: {status}");
        pair.good("ten megabytes of a header");
    }
    let longest = pair.origin.seen().iter().map(|seen| seen.get("aaaaaaaa").map_or(0, str::len)).max();
    assert!(longest < Some(1 << 20), "{longest:?}");
}
