//! §6.5, §6.7, §9: callouts, properties, shared data, timers.

use portcullis_tests::eventually;
use portcullis_tests::origin::{Answer, Origin};

use crate::guest::{gateway, pairs};

#[test]
fn a_callouts_answer_comes_to_the_root_which_can_become_the_exchange() {
    let head = pairs(&[(":method", "POST"), (":path", "/side"), (":authority", "side"), ("x-own", "1")]);
    let trailers = pairs(&[]);
    let guest = format!(
        r#"(global $id (mut i32) (i32.const 0))
        (func (export "proxy_on_request_headers") (param $id i32) (param i32 i32) (result i32)
            (global.set $id (local.get $id))
            (drop (call $call 'origin' '{head}' 'asked' '{trailers}' (i32.const 5000) (i32.const 32)))
            (i32.const 1))
        (func (export "proxy_on_http_call_response") (param $root i32) (param $token i32) (param i32 i32 i32)
            (drop (call $become (global.get $id)))
            (call $digit (i32.const 0) 'x-same-token' (i32.eq (local.get $token) (i32.load (i32.const 32))))
            (drop (call $get_value (i32.const 6) ':status' out))
            (call $set (i32.const 0) 'x-status' (i32.load (i32.const 16)) (i32.load (i32.const 20)))
            (drop (call $get_buffer (i32.const 4) (i32.const 0) (i32.const 100) out))
            (call $set (i32.const 0) 'x-said' (i32.load (i32.const 16)) (i32.load (i32.const 20)))
            (drop (call $continue (i32.const 0))))"#
    );
    let origin = Origin::start(|seen| match seen.uri.path() {
        "/side" => Answer::status(203).data(format!("{} {:?}", seen.get("x-own").unwrap_or("-"), seen.body)),
        _ => Answer::ok("ok"),
    });
    let gateway = gateway(&origin, &guest);
    assert_eq!(gateway.get("/").text(), "ok");
    let seen = origin.last();
    let told = ["x-same-token", "x-status", "x-said"].map(|name| seen.get(name));
    assert_eq!(told, [Some("1"), Some("203"), Some("1 b\"asked\"")]);
}

#[test]
fn a_callout_that_cannot_be_made_says_so_at_once() {
    let head = pairs(&[(":method", "GET"), (":path", "/"), (":authority", "a")]);
    let headless = pairs(&[(":path", "/")]);
    let call = |name: &str, upstream: &str, head: &str| {
        format!(
            "(call $digit (i32.const 0) '{name}' (call $call '{upstream}' '{head}' '' '' (i32.const 100) (i32.const 32)))"
        )
    };
    let body = [call("x-nowhere", "nowhere", &head), call("x-headless", "origin", &headless)].concat();
    let guest =
        format!(r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {body} (i32.const 0))"#);
    let origin = Origin::plain();
    assert_eq!(gateway(&origin, &guest).get("/").status(), 200);
    let seen = origin.last();
    assert_eq!((seen.get("x-nowhere"), seen.get("x-headless")), (Some("2"), Some("2")));
}

#[test]
fn what_one_callback_sets_as_a_property_a_later_one_reads() {
    let guest = r#"
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (call $set_property 'my\00own' 'value')) (i32.const 0))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
            (drop (call $get_property 'my\00own' out))
            (call $set (i32.const 2) 'x-own' (i32.load (i32.const 16)) (i32.load (i32.const 20)))
            (drop (call $get_property 'request\00path' out))
            (call $set (i32.const 2) 'x-path' (i32.load (i32.const 16)) (i32.load (i32.const 20)))
            (call $digit (i32.const 2) 'x-none' (call $get_property 'my\00other' out))
            (call $digit (i32.const 2) 'x-object' (call $get_property 'request' out))
            (i32.const 0))"#;
    let origin = Origin::plain();
    let answer = gateway(&origin, guest).get("/a?b");
    let told = ["x-own", "x-path", "x-none", "x-object"].map(|name| answer.get(name));
    assert_eq!(told, [Some("value"), Some("/a?b"), Some("1"), Some("3")]);
}

#[test]
fn shared_data_compares_before_it_swaps() {
    let guest = r#"
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (call $digit (i32.const 0) 'x-absent' (call $get_shared 'k' out (i32.const 24)))
            (call $digit (i32.const 0) 'x-first' (call $set_shared 'k' 'one' (i32.const 0)))
            (drop (call $get_shared 'k' out (i32.const 24)))
            (call $digit (i32.const 0) 'x-right' (call $set_shared 'k' 'two' (i32.load (i32.const 24))))
            (call $digit (i32.const 0) 'x-stale' (call $set_shared 'k' 'three' (i32.load (i32.const 24))))
            (drop (call $get_shared 'k' out (i32.const 24)))
            (call $set (i32.const 0) 'x-value' (i32.load (i32.const 16)) (i32.load (i32.const 20)))
            (i32.const 0))"#;
    let origin = Origin::plain();
    assert_eq!(gateway(&origin, guest).get("/").status(), 200);
    let seen = origin.last();
    let told = ["x-absent", "x-first", "x-right", "x-stale", "x-value"].map(|name| seen.get(name));
    assert_eq!(told, [Some("1"), Some("0"), Some("0"), Some("8"), Some("two")]);
}

#[test]
fn a_tick_can_call_out_too() {
    let head = pairs(&[(":method", "GET"), (":path", "/tick"), (":authority", "a")]);
    let guest = format!(
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32) (drop (call $tick (i32.const 5))) (i32.const 1))
        (func (export "proxy_on_tick") (param i32)
            (drop (call $call 'origin' '{head}' '' '' (i32.const 1000) (i32.const 32))))"#
    );
    let origin = Origin::plain();
    let _gateway = gateway(&origin, &guest);
    eventually("several ticks called", || origin.seen().iter().filter(|seen| seen.target() == "/tick").count() >= 3);
}

#[test]
fn what_any_worker_puts_into_a_queue_reaches_the_one_that_registered_it() {
    let head = pairs(&[(":method", "GET"), (":path", "/queued"), (":authority", "a")]);
    let guest = format!(
        r#"(global $queue (mut i32) (i32.const 0))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
            (drop (call $register 'jobs' (i32.const 32))) (global.set $queue (i32.load (i32.const 32))) (i32.const 1))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (call $enqueue (global.get $queue) 'job')) (i32.const 0))
        (func (export "proxy_on_queue_ready") (param $root i32) (param $queue i32)
            (if (call $dequeue (local.get $queue) out) (then unreachable))
            (drop (call $call 'origin' '{head}' (i32.load (i32.const 16)) (i32.load (i32.const 20)) '' (i32.const 5000)
                (i32.const 32))))"#
    );
    let origin = Origin::plain();
    let guest = crate::guest::guest(&guest);
    let config = format!("workers: 2\n{}", crate::guest::CONFIG);
    let gateway = portcullis_tests::gateway::Gateway::start(&config, &[("origin", &origin), ("wat", &guest)]);
    for _ in 0..40 {
        assert_eq!(gateway.get("/").status(), 200);
    }
    let jobs = || origin.seen().iter().filter(|seen| seen.target() == "/queued" && seen.body == "job").count();
    eventually("every item was seen once", || jobs() == 40);
}

#[test]
fn a_root_that_asks_for_time_at_its_end_can_still_call_out() {
    let head = pairs(&[(":method", "GET"), (":path", "/bye"), (":authority", "a")]);
    let guest = format!(
        r#"(func (export "proxy_on_done") (param $id i32) (result i32)
            (if (i32.ne (local.get $id) (i32.const 1)) (then (return (i32.const 1))))
            (drop (call $call 'origin' '{head}' 'last words' '' (i32.const 5000) (i32.const 32)))
            (i32.const 0))
        (global $answers (mut i32) (i32.const 0))
        (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
            (global.set $answers (i32.add (global.get $answers) (i32.const 1)))
            (if (i32.eq (global.get $answers) (i32.const 1))
                (then (drop (call $call 'origin' '{head}' 'answered' '' (i32.const 5000) (i32.const 32))))
                (else (if (call $done) (then unreachable)))))"#
    );
    let origin = Origin::plain();
    let gateway = gateway(&origin, &guest);
    assert_eq!(gateway.get("/").status(), 200);
    let without = "upstreams: { origin: { endpoints: [\"{origin}\"] } }\n\
                   routes: [{ name: all, match: { path: \"/*\" }, upstream: origin }]";
    gateway.apply(without, &[("origin", &origin)]).unwrap();
    let said = || origin.seen().iter().filter(|seen| seen.target() == "/bye").map(|seen| seen.body.clone()).collect();
    eventually("it says its last words, hears of the answer and is done", || {
        let said: Vec<_> = said();
        said == ["last words", "answered"]
    });
    assert_eq!(gateway.get("/").status(), 200);
}
