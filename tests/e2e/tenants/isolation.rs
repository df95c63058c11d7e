//! A VM for each request: what one leaves behind no other finds, and what befalls one is nobody else's.

use portcullis_tests::eventually;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::guests::{Guest, with_strings};
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::pieces::Gate;
use portcullis_tests::wire::Message;

use crate::plugins::{bearer, code};

const ISOLATED: &str = r#"
workers: 2
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins:
  untrusted: { module: "file:{module}", isolation: {isolation}, limits: { cpu: 20ms } }
tenants:
  acme:
    hosts: [acme.test]
    limits: {limits}
    filters: [{ plugin: untrusted }]
    routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
  globex:
    hosts: [globex.test]
    routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#;

/// A guest that keeps the query of the last request in its memory, counts there, and tells both. `/trap` and `/loop` do that.
fn keeps() -> Guest {
    Guest::of_text(&with_strings(
        r#"(module
        (import "env" "proxy_get_header_map_value" (func $value (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 2)
        (global $len (mut i32) (i32.const 1))
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 65536))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
            (i32.store8 (i32.const 512) (i32.const 48)) (i32.store8 (i32.const 600) (i32.const 45)) (i32.const 1))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (i32.store8 (i32.const 512) (i32.add (i32.load8_u (i32.const 512)) (i32.const 1)))
            (drop (call $add (i32.const 0) 'x-count' (i32.const 512) (i32.const 1)))
            (drop (call $add (i32.const 0) 'x-kept' (i32.const 600) (global.get $len)))
            (drop (call $value (i32.const 0) ':path' out))
            (if (i32.eq (i32.load8_u (i32.const 65537)) (i32.const 33)) (then unreachable))
            (if (i32.eq (i32.load8_u (i32.const 65537)) (i32.const 42)) (then (loop $l (br $l))))
            (memory.copy (i32.const 600) (i32.load (i32.const 16)) (i32.load (i32.const 20)))
            (global.set $len (i32.load (i32.const 20)))
            (i32.const 0)))"#,
    ))
}

fn isolated(origin: &Origin, isolation: &str, limits: &str) -> (Gateway, Guest) {
    let guest = keeps();
    let module = guest.path().display().to_string();
    let places = [("isolation", &isolation as &dyn std::fmt::Display), ("limits", &limits), ("module", &module)];
    (Gateway::start(ISOLATED, &[&[("origin", origin as &dyn std::fmt::Display)][..], &places].concat()), guest)
}

fn ask(gateway: &Gateway, host: &str, path: &str) -> Message {
    gateway.ask("GET", path, &[("host", host)], "")
}

/// What the origin was told of the guest's memory.
fn told(origin: &Origin) -> (String, String) {
    let seen = origin.last();
    let of = |name: &str| seen.get(name).unwrap_or_default().to_owned();
    (of("x-count"), of("x-kept"))
}

#[test]
fn every_request_finds_the_guest_as_it_was_started() {
    let origin = Origin::plain();
    let (gateway, _guest) = isolated(&origin, "request", "{}");
    for n in 0..20 {
        // Connections go to either worker.
        assert_eq!(ask(&gateway, "acme.test", &format!("/secret-{n}")).status(), 200);
        assert_eq!(told(&origin), ("1".to_owned(), "-".to_owned()), "request {n}");
    }
    let copies = gateway.metric("portcullis_filter_copies_total", &["\"untrusted\""]);
    assert_eq!(copies, 20.0);
    assert!(
        gateway.metric("portcullis_filter_starts_total", &["\"untrusted\""]) <= 3.0,
        "one for each worker, one to try"
    );
}

#[test]
fn where_requests_share_the_vm_they_find_what_others_left() {
    let origin = Origin::plain();
    let (gateway, _guest) = isolated(&origin, "vm", "{}");
    let mut client = gateway.client();
    for (n, kept) in ["-", "/secret-0", "/secret-1"].into_iter().enumerate() {
        client.ask("GET", &format!("/secret-{n}"), &[("host", "acme.test")], "");
        assert_eq!(told(&origin), ((n + 1).to_string(), kept.to_owned()));
    }
}

#[test]
fn guests_that_trap_or_loop_end_with_their_request_and_never_rest() {
    let origin = Origin::plain();
    let (gateway, _guest) = isolated(&origin, "request", "{}");
    for (path, cause) in [("/!", "\"panic\""), ("/*", "\"deadline\"")] {
        for _ in 0..8 {
            assert_eq!(code(&ask(&gateway, "acme.test", path)), (503, "filter_failed".to_owned()));
            // A VM that requests share would be left alone by now.
            assert_eq!(ask(&gateway, "acme.test", "/good").status(), 200);
            assert_eq!(ask(&gateway, "globex.test", "/").status(), 200);
        }
        assert_eq!(gateway.metric("portcullis_filter_traps_total", &["\"untrusted\"", cause]), 8.0);
    }
    assert_eq!(gateway.metric("portcullis_filter_instances", &["\"untrusted\"", "\"resting\""]), 0.0);
}

#[test]
fn what_has_no_room_for_its_vm_is_told_to_come_again() {
    let gate = Gate::default();
    let origin = Origin::always(Answer::status(200).data("begun").wait(&gate).data(" and done"));
    // A mebibyte is 16 pages: two for the VM of each worker, two for each copy.
    let (gateway, _guest) = isolated(&origin, "request", "{ memory: 1MiB }");
    let mut waiting = Vec::new();
    let refused = loop {
        assert!(waiting.len() < 9, "each takes two pages of sixteen");
        let mut client = gateway.client();
        client.send("GET /slow HTTP/1.1\r\nhost: acme.test\r\n\r\n");
        let head = client.0.head().unwrap();
        match head.status() {
            200 => waiting.push((client, head)),
            503 => break client.0.body(head),
            other => panic!("{other}"),
        }
    };
    assert_eq!(code(&refused), (503, "filter_busy".to_owned()));
    assert_eq!(refused.get("retry-after"), Some("1"));
    assert!(waiting.len() >= 2, "{}", waiting.len());
    gate.open();
    for (mut client, head) in waiting {
        assert!(client.0.body(head).complete);
    }
    eventually("there is room again", || ask(&gateway, "acme.test", "/").status() == 200);
}

#[test]
fn what_a_plugin_fetches_for_all_its_requests_each_of_them_has() {
    let rotated = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = rotated.clone();
    let idp = Origin::start(move |_| {
        let second = seen.load(std::sync::atomic::Ordering::SeqCst);
        let key = if second { crate::plugins::SECOND_KEY } else { crate::plugins::FIRST_KEY };
        Answer::ok(format!("{{\"keys\":[{key}]}}"))
    });
    let origin = Origin::plain();
    let gateway = Gateway::start(
        r#"
workers: 2
upstreams: { origin: { endpoints: ["{origin}"] }, idp: { endpoints: ["{idp}"] } }
plugins: { auth: { module: "file:{file:auth}", isolation: request, limits: { cpu: 1s } } }
filters:
  - plugin: auth
    config: { issuer: https://idp.test, audience: api, jwks: { upstream: idp, path: /jwks.json, refresh: 1s } }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", &origin), ("idp", &idp)],
    );
    let answer = bearer(&gateway, crate::plugins::FIRST);
    assert_eq!(answer.status(), 200, "a request that comes before the keys waits for them");
    assert_eq!(code(&bearer(&gateway, crate::plugins::SECOND)).0, 401);
    rotated.store(true, std::sync::atomic::Ordering::SeqCst);
    eventually("the new key counts", || bearer(&gateway, crate::plugins::SECOND).status() == 200);
}
