//! §7.1 and §7.2: which callbacks come, in which order; §11: what becomes of an exchange whose guest fails.

use crate::case::Part::{After, Data};
use crate::case::{Case, Version, case, get, post, reply};

const SECTION: &str = "§7.2";
const TRACE: &str = "trace: end";

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![
        case(SECTION, "callbacks-of-a-request", TRACE),
        case(SECTION, "callbacks-of-a-request-with-a-body", TRACE).ask(post("body")),
        case(SECTION, "callbacks-of-a-request-with-trailers", TRACE)
            .ask(super::headers::trailers())
            .origin(super::headers::trailing()),
        case(SECTION, "callbacks-of-a-request-over-http2", TRACE).ask(get("/").version(Version::Http2)),
        case(SECTION, "callbacks-of-a-request-with-a-body-over-http2", TRACE)
            .ask(post("body").path("/h2/").version(Version::Http2)),
        case(SECTION, "callbacks-of-two-filters", TRACE).then(TRACE).ask(post("body")),
        case(SECTION, "callbacks-of-a-response-without-content", TRACE).origin(reply(204, "")),
        case(SECTION, "callbacks-of-head", TRACE).ask(get("/").method("HEAD")),
        case(
            SECTION,
            "callbacks-when-a-client-leaves",
            "trace: end | \
             request_headers: return 1",
        )
        .ask(get("/").leaves("request_headers: end")),
        case(SECTION, "callbacks-when-a-client-leaves-a-response", TRACE)
            .ask(get("/").leaves("response_body: more"))
            .origin(reply(200, "").parts(&[Data("ab"), After("gone"), Data("cd")])),
        case(
            SECTION,
            "callbacks-when-an-upstream-refuses",
            "request_headers: end | response_headers: end | \
             response_body#1: end | log: end | done: end",
        )
        .ask(get("/refuses/")),
        case(
            SECTION,
            "ids-count-up",
            "context_create: args | request_headers: set_effective_context 1; \
             set_effective_context 2; set_effective_context 3",
        )
        .alone(),
        case(SECTION, "on-done-may-ask-for-time-in-vain", "done: return 1 | log: get_property response.code"),
        case(
            SECTION,
            "what-log-can-read",
            "log: get_header_map_value 0 :path; get_header_map_value 2 :status; \
             get_header_map_value 0 x-none; get_header_map_value 2 x-none; get_property request.path; \
             get_property response.code; get_buffer_bytes 0 0 9; get_buffer_bytes 1 0 9",
        )
        .ask(get("/told")),
        case(
            SECTION,
            "what-done-can-read",
            "done: get_header_map_pairs 0 %none; get_header_map_pairs 2 %none; \
             get_buffer_bytes 0 0 9; get_property plugin_name %none",
        ),
        case(SECTION, "done-reads-no-map", "done: get_header_map_value 0 :path; get_property request.path"),
        case(
            SECTION,
            "a-context-that-is-created-has-no-maps",
            "context_create: get_header_map_pairs 0 %pairs; \
             get_buffer_bytes 0 0 9",
        ),
        case(
            SECTION,
            "a-context-that-is-deleted-has-no-maps",
            "delete: get_header_map_pairs 0 %pairs; \
             get_header_map_pairs 2 %pairs; add_header_map_value 0 a 1",
        ),
    ];
    cases.extend(failures());
    cases.extend(restrictions());
    cases
}

/// What a module may not use.
fn restrictions() -> Vec<Case> {
    const REQUEST: &[&str] = &["proxy_on_request_headers"];
    let calls = "request_headers: get_header_map_value 0 :method; add_header_map_value 0 x-a 1; set_header_map_pairs 0 {a=1}; \
         remove_header_map_value 0 x-b; get_property request.path; set_property a 1; get_current_time_nanoseconds; \
         set_tick_period_milliseconds 5; set_effective_context $root; get_status; get_log_level; \
         send_local_response 200 '' no '' -1; continue_stream 0; close_stream 0; \
         http_call origin {:method=GET :path=/call :authority=a} '' '' 1000; grpc_call h2 a b '' '' 1000; \
         set_shared_data capable 1 0; get_shared_data capable; register_shared_queue capable; define_metric 0 capable; \
         call_foreign_function compress a; done";
    let wasi = r#"(module
        (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "clock_res_get" (func $precision (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
        (memory (export "memory") 2)
        (func (export "malloc") (param i32) (result i32) (i32.const 32768))
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_delete") (param i32) (drop (call $log (i32.const 2) 'LABEL|gone')))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (call $log (i32.const 2) 'LABEL|begins'))
            (if (i32.eq (call $precision (i32.const 0) (i32.const 16)) (i32.const 76))
                (then (drop (call $log (i32.const 2) 'LABEL|no precision'))))
            (if (i32.eqz (call $clock (i32.const 0) (i64.const 0) (i32.const 16)))
                (then (drop (call $log (i32.const 2) 'LABEL|a time'))))
            (i32.const 0)))"#;
    vec![
        case(SECTION, "hostcalls-that-are-not-granted", calls).granted(REQUEST),
        case(SECTION, "a-hostcall-that-is-granted", calls)
            .granted(&["proxy_on_request_headers", "proxy_get_header_map_value", "proxy_get_property"]),
        case(
            SECTION,
            "callbacks-that-are-not-granted",
            "request_headers: end | request_body: end | response_headers: end | response_body: end | log: end | done: end",
        )
        .ask(post("body"))
        .granted(&["proxy_on_request_headers", "proxy_on_log"]),
        case(SECTION, "a-callback-that-is-not-granted-cannot-pause", "request_headers: return 1 | log: end")
            .granted(&["proxy_on_log"]),
        case(SECTION, "functions-of-wasi-that-are-not-granted", "")
            .module(wasi.to_owned())
            .granted(&["proxy_on_request_headers", "clock_time_get"]),
    ]
}

fn failures() -> Vec<Case> {
    let failing = |name: &'static str, script: &'static str| case("§11", name, script).alone().ends(0);
    vec![
        failing("a-trap-in-request-headers", "request_headers: trap"),
        failing("a-trap-in-a-request-body", "request_body: trap").ask(post("body")).breaks_off(),
        failing("a-trap-in-response-headers", "response_headers: trap"),
        failing("a-trap-in-a-response-body", "response_body: trap")
            .origin(reply(200, "").parts(&[Data("ab"), After("never")])),
        failing("a-trap-in-log", "log: trap"),
        failing("a-trap-in-done", "done: trap"),
        failing("an-exit-in-request-headers", "request_headers: exit"),
        failing(
            "a-trap-in-the-second-of-two",
            "request_headers: end | response_headers: get_header_map_value 2 :status | log: end",
        )
        .then("request_headers: trap")
        .ends(0),
    ]
}
