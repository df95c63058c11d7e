//! Which callbacks are made, in which order, with which arguments.

use bytes::Bytes;
use portcullis_core::event::{End, Event, Part};

use crate::harness::{Worker, guest, logged, spec, wasm};

/// Exports that log their name and arguments, and answer 1 or nothing.
pub(crate) fn loggers(exports: &[(&str, usize, &str)]) -> String {
    let one = |(name, params, answer): &(&str, usize, &str)| {
        let args: String = (0..*params).map(|index| format!("(call $n (local.get {index}))")).collect();
        let params = " i32".repeat(*params);
        let result = if answer.is_empty() { "" } else { "(result i32)" };
        format!(
            "(func (export \"{name}\") (param{params}) {result} (call $text '{name} ') {args} (call $end) {answer})\n"
        )
    };
    exports.iter().map(one).collect()
}

const ONE: &str = "(i32.const 1)";
const ZERO: &str = "(i32.const 0)";

const STREAM: &[(&str, usize, &str)] = &[
    ("proxy_on_context_create", 2, ""),
    ("proxy_on_vm_start", 2, ONE),
    ("proxy_on_configure", 2, ONE),
    ("proxy_on_request_headers", 3, ZERO),
    ("proxy_on_request_body", 3, ZERO),
    ("proxy_on_request_trailers", 2, ZERO),
    ("proxy_on_response_headers", 3, ZERO),
    ("proxy_on_response_body", 3, ZERO),
    ("proxy_on_response_trailers", 2, ZERO),
    ("proxy_on_log", 1, ""),
    ("proxy_on_done", 1, ONE),
    ("proxy_on_delete", 1, ""),
];

#[test]
fn callbacks_come_in_the_abis_order_with_their_arguments() {
    let functions = loggers(&[("_initialize", 0, ""), ("main", 2, ZERO), ("_start", 0, "")]) + &loggers(STREAM);
    let log = logged(|| {
        let mut worker = Worker::new(&functions);
        worker.vms.warm_up(&mut worker.exchanges).unwrap();
        let id = worker.request(End::No);
        worker.feed(id, Event::Request(Part::Body(Bytes::from_static(b"hello"), End::No)));
        let mut trailers = http::HeaderMap::new();
        trailers.insert("t", http::HeaderValue::from_static("1"));
        worker.feed(id, Event::Request(Part::Trailers(trailers)));
        worker.respond(id);
        worker.end(id);
    });
    assert_eq!(
        log,
        "_initialize \nmain 0 0 \n\
         proxy_on_context_create 1 0 \nproxy_on_vm_start 1 3 \nproxy_on_configure 1 8 \n\
         proxy_on_context_create 2 1 \nproxy_on_request_headers 2 8 0 \nproxy_on_request_body 2 5 0 \n\
         proxy_on_request_trailers 2 1 \nproxy_on_response_headers 2 1 1 \n\
         proxy_on_log 2 \nproxy_on_done 2 \nproxy_on_delete 2 "
    );
}

#[test]
fn a_module_without_initialize_is_started_by_start() {
    let log = logged(|| {
        let mut worker = Worker::new(&loggers(&[("_start", 0, ""), ("main", 2, ZERO)]));
        worker.vms.warm_up(&mut worker.exchanges).unwrap();
    });
    assert_eq!(log, "_start ");
}

#[test]
fn headers_callbacks_may_lack_the_third_parameter() {
    let log = logged(|| {
        let exports = [("proxy_on_request_headers", 2, ZERO), ("proxy_on_response_headers", 2, ZERO)];
        let mut worker = Worker::new(&loggers(&exports));
        let id = worker.request(End::Yes);
        worker.respond(id);
    });
    assert_eq!(log, "proxy_on_request_headers 2 8 \nproxy_on_response_headers 2 1 ");
}

#[test]
fn each_root_is_created_and_configured_in_turn_before_any_exchange() {
    let log = logged(|| {
        let mut spec = spec(&guest(&loggers(STREAM)));
        let mut second = spec.roots[0].clone();
        second.configuration = Bytes::new();
        spec.roots.push(second);
        let mut worker = Worker::of(vec![spec], &std::sync::Arc::default());
        worker.request(End::Yes);
    });
    assert_eq!(
        log,
        "proxy_on_context_create 1 0 \nproxy_on_vm_start 1 3 \nproxy_on_configure 1 8 \n\
         proxy_on_context_create 2 0 \nproxy_on_vm_start 2 3 \nproxy_on_configure 2 0 \n\
         proxy_on_context_create 3 1 \nproxy_on_request_headers 3 8 1 "
    );
}

#[test]
fn a_module_with_no_callbacks_at_all_lets_everything_pass() {
    let mut worker = Worker::new("");
    assert!(worker.head().starts_with("request :authority=acme.test"));
}

#[test]
fn a_modules_exports_are_told_from_its_code() {
    let module = crate::harness::engine().load("named", &wasm(&guest(&loggers(&STREAM[3..5])))).unwrap();
    use portcullis_core::filter::{Export, Exports};
    assert_eq!(module.exports(), Exports::default().with(Export::RequestHeaders).with(Export::RequestBody));
    assert_eq!((module.name(), module.version().as_str()), ("named", "0.2.1"));
}
