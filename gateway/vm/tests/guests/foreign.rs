//! Foreign functions (ABI reference §10), and what ABI 0.1.0 does differently (§1.2).

use std::sync::Arc;

use portcullis_core::event::End;

use crate::harness::{Worker, guest, logged, spec};

fn in_request_headers(calls: &str) -> String {
    logged(|| {
        Worker::new(&format!(
            r#"(func $ask (param $name i32) (param $len i32) (param $args i32) (param $args_len i32) (result i32)
                (call $proxy_call_foreign_function (local.get $name) (local.get $len) (local.get $args)
                    (local.get $args_len) (i32.const 16) (i32.const 20)))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {calls} (i32.const 0))"#
        ))
        .head();
    })
}

#[test]
fn what_is_compressed_comes_back() {
    let log = in_request_headers(
        "(call $n (call $ask 'compress' 'squeeze me'))
        (call $given (call $ask 'uncompress' (i32.load (i32.const 16)) (i32.load (i32.const 20))))
        (call $given (call $ask 'uncompress' 'nonsense'))",
    );
    assert_eq!(log, "0 0 [squeeze me]\n3 []");
}

#[test]
fn an_unknown_name_is_not_found_and_an_answer_that_is_not_wanted_is_dropped() {
    let log = in_request_headers(
        "(i32.store (i32.const 16) (i32.const 77))
        (call $n (call $ask 'make_coffee' ''))
        (call $n (i32.load (i32.const 16)))
        (call $n (call $proxy_call_foreign_function 'compress' 'x' (i32.const 0) (i32.const 0)))
        (call $n (call $proxy_call_foreign_function 'clear_route_cache' '' (i32.const 0) (i32.const 20)))
        (call $n (call $proxy_call_foreign_function 'compress' 'x' (i32.const 0x30000) (i32.const 20)))
        (call $end)",
    );
    assert_eq!(
        log,
        "# unknown foreign function `make_coffee` tenant=\"\" plugin=\"plugin\" hostcall=\"proxy_call_foreign_function\"\n1 77 0 0 6 "
    );
}

#[test]
fn filter_state_and_declared_properties_are_the_exchanges() {
    let log = in_request_headers(
        "(call $n (call $ask 'set_envoy_filter_state' '\\0a\\05a.key\\12\\05value'))
        (call $given (call $proxy_get_property 'filter_state\\00a.key' (i32.const 16) (i32.const 20)))
        (call $n (call $ask 'set_envoy_filter_state' '\\0a\\ff'))
        (call $n (call $ask 'declare_property' '\\0a\\04once\\10\\01'))
        (call $n (call $ask 'declare_property' '\\0a\\04once'))
        (call $n (call $ask 'declare_property' '\\0a\\05often'))
        (call $n (call $proxy_set_property 'once' '1'))
        (call $n (call $proxy_set_property 'once' '2'))
        (call $n (call $proxy_set_property 'often' '1'))
        (call $n (call $proxy_set_property 'often' '2'))
        (call $given (call $proxy_get_property 'once' (i32.const 16) (i32.const 20)))
        (call $given (call $proxy_get_property 'often' (i32.const 16) (i32.const 20)))",
    );
    assert_eq!(log, "0 0 [value]\n2 0 2 0 0 2 0 0 0 [1]\n0 [2]");
}

#[test]
fn expressions_see_the_exchange() {
    let log = in_request_headers(
        "(call $n (call $ask 'expr_create' 'request.method + \\22 \\22 + request.headers[\\22x-one\\22]'))
        (i32.store (i32.const 40) (i32.load (i32.load (i32.const 16))))
        (call $n (i32.load (i32.const 40)))
        (call $given (call $ask 'expr_evaluate' (i32.const 40) (i32.const 4)))
        (call $n (call $ask 'expr_delete' (i32.const 40) (i32.const 4)))
        (call $n (call $ask 'expr_evaluate' (i32.const 40) (i32.const 4)))
        (call $n (call $ask 'expr_create' '1 +'))
        (call $end)",
    );
    assert_eq!(log, "0 1 0 [GET 1]\n0 1 2 ");
}

/// A guest as the Rust SDK of the time of ABI 0.1.0 made them.
const OLD: &str = r#"
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (call $given (call $proxy_get_configuration (i32.const 16) (i32.const 20))) (i32.const 1))
    (func (export "proxy_on_request_headers") (param i32 i32) (result i32)
        (call $given (call $proxy_get_configuration (i32.const 16) (i32.const 20)))
        (call $given (call $proxy_get_header_map_value (i32.const 0) 'x-none' (i32.const 16) (i32.const 20)))
        (call $n (call $proxy_clear_route_cache)) (call $n (call $proxy_continue_request)) (call $end)
        (i32.const 1))"#;

#[test]
fn a_guest_of_abi_0_1_0_runs_as_it_did() {
    let text = guest(OLD).replace("proxy_abi_version_0_2_1", "proxy_abi_version_0_1_0");
    let log = logged(|| {
        let mut worker = Worker::of(vec![spec(&text)], &Arc::default());
        let id = worker.request(End::Yes);
        assert!(worker.effects(id).starts_with("request :authority"), "it was resumed in the callback that paused");
    });
    assert_eq!(log, "0 [settings]\n0 [vm!]\n0 []\n0 0 ");
    let log = logged(|| {
        Worker::new(&OLD.replace("(i32.const 1))\"#", "(i32.const 0))")).head();
    });
    assert!(log.contains("\n1 ["), "later versions tell what is absent: {log}");
}
