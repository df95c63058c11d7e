//! Timers, callouts, shared data, metrics, the log and the clock.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use portcullis_core::context::CalloutResponse;
use portcullis_core::event::End;
use portcullis_core::headers::Headers;
use portcullis_vm::Shared;

use crate::abi::ENV;
use crate::harness::{Worker, guest, logged, spec};

#[test]
fn a_timer_starts_anew_after_each_tick_and_does_not_catch_up() {
    let log = logged(|| {
        let mut worker = Worker::new(
            r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
                (call $n (call $proxy_set_tick_period_milliseconds (i32.const 100))) (call $end) (i32.const 1))
            (func (export "proxy_on_tick") (param $root i32)
                (call $text 'tick ') (call $n (local.get $root)) (call $end))"#,
        );
        worker.vms.warm_up(&mut worker.exchanges).unwrap();
        let start = worker.exchanges.now;
        assert_eq!(worker.vms.next_tick(), Some(start + Duration::from_millis(100)));
        worker.wait(Duration::from_millis(99));
        worker.vms.tick(&mut worker.exchanges);
        worker.wait(Duration::from_millis(901));
        worker.vms.tick(&mut worker.exchanges);
        assert_eq!(worker.vms.next_tick(), Some(start + Duration::from_millis(1100)));
        worker.vms.tick(&mut worker.exchanges);
    });
    assert_eq!(log, "0 \ntick 1 ");
}

#[test]
fn a_tick_may_change_its_period_or_stop() {
    let mut worker = Worker::new(
        r#"(global $left (mut i32) (i32.const 2))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
            (drop (call $proxy_set_tick_period_milliseconds (i32.const 10))) (i32.const 1))
        (func (export "proxy_on_tick") (param $root i32)
            (global.set $left (i32.sub (global.get $left) (i32.const 1)))
            (drop (call $proxy_set_tick_period_milliseconds (i32.mul (global.get $left) (i32.const 50)))))"#,
    );
    worker.vms.warm_up(&mut worker.exchanges).unwrap();
    worker.wait(Duration::from_millis(10));
    worker.vms.tick(&mut worker.exchanges);
    assert_eq!(worker.vms.next_tick(), Some(worker.exchanges.now + Duration::from_millis(50)));
    worker.wait(Duration::from_millis(50));
    worker.vms.tick(&mut worker.exchanges);
    assert_eq!(worker.vms.next_tick(), None);
}

/// A guest that makes a callout for each request and says what comes of it.
fn caller() -> Worker {
    let (_, args) = ENV.iter().find(|(name, _)| *name == "proxy_http_call").unwrap();
    let Some(crate::abi::Arg::P(pairs)) = args.get(1) else { panic!("the second argument is a list") };
    Worker::new(&format!(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (call $n (call $proxy_http_call 'origin' '{pairs}' 'ask' '' (i32.const 500) (i32.const 16)))
            (call $n (i32.load (i32.const 16)))
            (call $n (call $proxy_http_call 'secret' '{pairs}' '' '' (i32.const 500) (i32.const 16)))
            (call $n (i32.load (i32.const 16)))
            (call $n (call $proxy_http_call 'origin' '' '' '' (i32.const 500) (i32.const 16)))
            (call $end)
            (i32.const 1))
        (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
            (call $n (local.get 0)) (call $n (local.get 1)) (call $n (local.get 2)) (call $n (local.get 3))
            (call $n (local.get 4))
            (call $end)
            (call $given (call $proxy_get_header_map_value (i32.const 6) ':status' (i32.const 16) (i32.const 20)))
            (call $given
                (call $proxy_get_buffer_bytes (i32.const 4) (i32.const 0) (i32.const 99) (i32.const 16) (i32.const 20)))
            (call $n (call $proxy_get_status (i32.const 24) (i32.const 16) (i32.const 20)))
            (call $given (i32.load (i32.const 24)))
            (call $n (call $proxy_set_effective_context (i32.const 2)))
            (drop (call $proxy_continue_stream (i32.const 0)))
            (call $end))"#
    ))
}

#[test]
fn a_callout_is_started_and_its_response_delivered_to_the_root() {
    let log = logged(|| {
        let mut worker = caller();
        let id = worker.request(End::Yes);
        let callout = worker.exchanges.callouts.pop().unwrap();
        assert!(worker.exchanges.callouts.is_empty());
        assert_eq!((callout.upstream.0, &callout.body[..]), (7, &b"ask"[..]));
        assert_eq!(callout.timeout, Duration::from_millis(500));
        let response = CalloutResponse {
            headers: Some(Headers::response(StatusCode::OK, HeaderMap::new())),
            body: Bytes::from_static(b"answer"),
            trailers: None,
        };
        worker.vms.deliver(&mut worker.exchanges, callout.root, callout.token, response);
        assert_eq!(worker.exchanges.next_woken(), Some(id));
    });
    assert_eq!(log, "0 4 2 0 2 \n1 4 1 6 0 \n0 [200]\n0 [answer]\n0 0 []\n0 ");
}

#[test]
fn a_response_that_broke_off_has_no_headers_and_the_status_says_reset() {
    let log = logged(|| {
        let mut worker = caller();
        worker.request(End::Yes);
        let callout = worker.exchanges.callouts.pop().unwrap();
        worker.vms.deliver(&mut worker.exchanges, callout.root, callout.token, CalloutResponse::default());
    });
    assert_eq!(log, "0 4 2 0 2 \n1 4 0 0 0 \n1 []\n0 []\n0 11 [reset]\n0 ");
}

/// A guest that reads `key`, tries to replace it with the number it got, and says what became of it.
const SHARING: &str = r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (call $n (call $proxy_get_shared_data 'key' (i32.const 16) (i32.const 20) (i32.const 24)))
    (call $n (i32.load (i32.const 20)))
    (call $n (call $proxy_set_shared_data 'key' 'longer than before' (i32.load (i32.const 24))))
    (call $n (call $proxy_set_shared_data 'key' 'x' (i32.const 12345)))
    (call $end)
    (i32.const 0))"#;

#[test]
fn the_vms_of_a_tenant_share_data_on_all_workers_and_tenants_do_not() {
    let shared = Arc::new(Shared::default());
    let worker = |tenant: &str| {
        let mut spec = spec(&guest(SHARING));
        spec.tenant = Some(tenant.into());
        Worker::of(vec![spec], &shared)
    };
    let (mut one, mut two, mut stranger) = (worker("acme"), worker("acme"), worker("beta"));
    let log = logged(|| {
        one.head();
        two.head();
        stranger.head();
    });
    // status and length of the get, status of the two sets
    assert_eq!(log, "1 0 0 8 \n0 18 0 8 \n1 0 0 8 ");
}

#[test]
fn metrics_are_numbers_of_the_vm() {
    let log = logged(|| {
        Worker::new(
            r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (call $n (call $proxy_define_metric (i32.const 1) 'g' (i32.const 16)))
                (call $n (call $proxy_record_metric (i32.load (i32.const 16)) (i64.const 40)))
                (call $n (call $proxy_increment_metric (i32.load (i32.const 16)) (i64.const 2)))
                (call $n (call $proxy_get_metric (i32.load (i32.const 16)) (i32.const 24)))
                (call $n (i32.load (i32.const 24)))
                (call $n (call $proxy_define_metric (i32.const 3) 'g' (i32.const 16)))
                (call $n (call $proxy_get_metric (i32.const 100) (i32.const 24)))
                (call $end) (i32.const 0))"#,
        )
        .head();
    });
    assert_eq!(log, "0 0 0 0 42 2 1 ");
}

#[test]
fn streams_one_and_two_are_the_log_and_nothing_else_is_there() {
    let log = logged(|| {
        Worker::new(
            r#"(func $write (param $fd i32) (param $at i32) (param $size i32)
                (i32.store (i32.const 32) (local.get $at)) (i32.store (i32.const 36) (local.get $size))
                (i32.store (i32.const 40) (local.get $at)) (i32.store (i32.const 44) (local.get $size))
                (call $n (call $fd_write (local.get $fd) (i32.const 32) (i32.const 2) (i32.const 16)))
                (call $n (i32.load (i32.const 16))) (call $end))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (call $write (i32.const 1) 'ab\0a')
                (call $write (i32.const 3) 'ab')
                (call $write (i32.const 1) (i32.const -4) (i32.const 8))
                (call $n (call $environ_sizes_get (i32.const 16) (i32.const 20)))
                (call $n (i32.load (i32.const 16)))
                (call $n (call $fd_prestat_get (i32.const 3) (i32.const 16)))
                (call $n (call $path_open (i32.const 3) (i32.const 0) '/etc/passwd' (i32.const 0) (i64.const 0)
                    (i64.const 0) (i32.const 0) (i32.const 16)))
                (call $n (call $clock_time_get (i32.const 0) (i64.const 1) (i32.const 16)))
                (call $n (i64.gt_u (i64.load (i32.const 16)) (i64.const 1600000000000000000)))
                (call $n (call $clock_time_get (i32.const 2) (i64.const 1) (i32.const 16)))
                (i64.store (i32.const 16) (i64.const 0))
                (call $n (call $random_get (i32.const 16) (i32.const 8)))
                (call $n (i64.eqz (i64.load (i32.const 16))))
                (call $n (call $random_get (i32.const 16) (i32.const 65537)))
                (call $n (call $random_get (i32.const -4) (i32.const 8)))
                (call $n (call $poll_oneoff (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 16)))
                (call $n (call $fd_write (i32.const 1) (i32.const 32) (i32.const 1025) (i32.const 16)))
                (call $end) (i32.const 0))"#,
        )
        .head();
    });
    assert_eq!(log, "ab\\nab\n0 6 \n8 6 \n21 6 \n0 0 8 44 0 1 58 0 0 28 21 0 28 ");
}

#[test]
fn a_guests_words_cannot_forge_a_log_line() {
    let log = logged(|| {
        Worker::new(
            r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (drop (call $proxy_log (i32.const 4) 'one\0a2026 ERROR two\1b[0m'))
                (call $n (call $proxy_log (i32.const 6) 'x')) (call $end) (i32.const 0))"#,
        )
        .head();
    });
    assert_eq!(log, "one\\n2026 ERROR two\\u{1b}[0m\n2 ");
}
