//! §7.2, the life of contexts: which callbacks come, and in which order.

use portcullis_tests::eventually;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};

use crate::guest::gateway;

/// A guest that notes a letter for every callback, and tells its trail in answer to `/trail`.
const TRACING: &str = r#"
    (func (export "proxy_on_context_create") (param $id i32) (param $parent i32)
        (if (local.get $parent) (then (call $note (i32.const 99)))))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (drop (call $get_value (i32.const 0) ':path' out))
        (if (i32.eq (i32.load (i32.const 20)) (i32.const 6))
            (then (drop (call $reply (i32.const 200) '' '' '' (i32.const -1))) (return (i32.const 1))))
        (call $note (i32.const 72)) (i32.const 0))
    (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
        (if (local.get 2) (then (call $note (i32.const 66)))) (i32.const 0))
    (func (export "proxy_on_request_trailers") (param i32 i32) (result i32) (call $note (i32.const 84)) (i32.const 0))
    (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
        (call $tell (i32.const 2)) (call $note (i32.const 104)) (i32.const 0))
    (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
        (if (local.get 2) (then (call $note (i32.const 98)))) (i32.const 0))
    (func (export "proxy_on_response_trailers") (param i32 i32) (result i32) (call $note (i32.const 116)) (i32.const 0))
    (func (export "proxy_on_log") (param i32) (call $note (i32.const 108)))
    (func (export "proxy_on_done") (param i32) (result i32) (call $note (i32.const 100)) (i32.const 1))
    (func (export "proxy_on_delete") (param i32) (call $note (i32.const 120)))
"#;

/// The trail so far: context, request, response, log, done, delete are `c H B T h b t l d x`.
fn trail(gateway: &Gateway) -> String {
    gateway.get("/trail").get("x-trail").unwrap_or_default().to_owned()
}

#[test]
fn callbacks_come_in_envoys_order_and_each_once() {
    for (path, body, want) in [
        ("/", "", "cHhbldx"),
        ("/", "body", "cHBhbldx"),
        ("/204", "", "cHhldx"),
        ("/h2/", "", "cHhbldx"),
        ("/h2/", "body", "cHBhbldx"),
    ] {
        let origin = Origin::start(|seen| {
            Answer::status(if seen.uri.path() == "/204" { 204 } else { 200 }).data(match seen.uri.path() {
                "/204" => "",
                _ => "ok",
            })
        });
        let gateway = gateway(&origin, TRACING);
        let method = if body.is_empty() { "GET" } else { "POST" };
        assert!(gateway.ask(method, path, &[], body).status() < 300);
        eventually("the exchange has ended", || gateway.metric("http_server_active_requests", &[]) == 0.0);
        // The asking request's own context comes last.
        assert_eq!(trail(&gateway), format!("{want}c"), "{method} {path}");
    }
}

#[test]
fn trailers_are_the_end_where_there_are_any() {
    let origin = Origin::always(Answer::status(200).data("ok").trailers(&[("x-a", "1")]));
    let gateway = gateway(&origin, TRACING);
    assert_eq!(gateway.h2().get("/h2/").status, 200);
    eventually("the exchange has ended", || gateway.metric("http_server_active_requests", &[]) == 0.0);
    assert_eq!(trail(&gateway), "cHhtldxc");
}

#[test]
fn a_client_that_leaves_is_logged_and_its_context_deleted() {
    let origin = Origin::always(Answer::ok("late").after(&portcullis_tests::pieces::Gate::default()));
    let gateway = gateway(&origin, TRACING);
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
    origin.wait_for(1);
    drop(client);
    eventually("the exchange has ended", || gateway.metric("http_server_active_requests", &[]) == 0.0);
    assert_eq!(trail(&gateway), "cHldxc");
}

#[test]
fn the_configuration_is_there_when_it_is_asked_for() {
    let guest = r#"
        (global $size (mut i32) (i32.const 0))
        (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
        (func (export "proxy_on_configure") (param $root i32) (param $size i32) (result i32)
            (global.set $size (local.get $size)) (i32.const 1))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (call $digit (i32.const 0) 'x-size' (global.get $size))
            (drop (call $get_buffer (i32.const 7) (i32.const 0) (i32.const 100) out))
            (call $set (i32.const 0) 'x-config' (i32.load (i32.const 16)) (i32.load (i32.const 20)))
            (i32.const 0))"#;
    let origin = Origin::plain();
    assert_eq!(gateway(&origin, guest).get("/").status(), 200);
    let seen = origin.last();
    // §12.6: in any callback, where Envoy has it only while it configures.
    assert_eq!((seen.get("x-size"), seen.get("x-config")), (Some("8"), Some("settings")));
}
