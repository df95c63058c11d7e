//! What a module is not granted, as Envoy's capability restriction has it (ABI reference §7.1).

use portcullis_core::filter::{Export, Exports};
use portcullis_vm::{Capabilities, VmSpec};

use crate::abi;
use crate::callbacks::loggers;
use crate::harness::{Worker, engine, guest, logged, spec};

/// What every guest here needs to show anything.
const SHOWN: [&str; 2] = ["proxy_log", "proxy_on_request_headers"];

fn granted(functions: &str, names: &[&str]) -> VmSpec {
    let spec = spec(&guest(functions));
    let granted = Capabilities::only(names.iter().chain(&SHOWN).copied());
    VmSpec { module: engine().restrict(&spec.module, &granted).unwrap(), ..spec }
}

fn in_request_headers(calls: &str, names: &[&str]) -> String {
    let functions =
        format!(r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {calls} (i32.const 0))"#);
    logged(|| {
        Worker::of(vec![granted(&functions, names)], &Default::default()).head();
    })
}

#[test]
fn what_is_not_granted_answers_as_on_envoy() {
    let calls = r"
        (call $n (call $proxy_set_shared_data 'key' 'value' (i32.const 0)))
        (call $n (call $proxy_get_shared_data 'key' (i32.const 16) (i32.const 20) (i32.const 24)))
        (call $n (call $proxy_set_tick_period_milliseconds (i32.const 5)))
        (call $n (call $fd_write (i32.const 1) (i32.const 16) (i32.const 0) (i32.const 24)))
        (call $n (call $clock_time_get (i32.const 0) (i64.const 0) (i32.const 24)))
        (call $end)";
    let log = in_request_headers(calls, &["proxy_set_shared_data", "clock_time_get"]);
    let notes: Vec<&str> = log.lines().filter(|line| line.starts_with("# ")).collect();
    assert_eq!(log.lines().last(), Some("0 10 10 76 0 "));
    assert_eq!(notes.len(), 3, "{log}");
    assert!(notes[0].contains("not granted") && notes[0].contains("proxy_get_shared_data"), "{log}");
}

#[test]
fn every_hostcall_that_can_be_granted_is_refused_without() {
    let names: Vec<&str> = Capabilities::names().collect();
    for (name, _) in abi::ENV.iter().filter(|(name, _)| name.starts_with("proxy_")) {
        assert!(names.contains(name), "{name} cannot be granted");
    }
    let calls: String = abi::ENV
        .iter()
        .filter(|(name, _)| name.starts_with("proxy_") && *name != "proxy_log")
        .map(|(name, args)| abi::call(name, args, 0, None))
        .collect();
    let log = in_request_headers(&calls, &[]);
    let said: Vec<&str> = log.lines().filter(|line| !line.starts_with("# ")).collect();
    assert_eq!(said.len(), abi::ENV.iter().filter(|(name, _)| name.starts_with("proxy_")).count() - 1);
    assert!(said.iter().all(|line| line.ends_with(" 10 0 ")), "{said:?}");
}

#[test]
fn a_callback_that_is_not_granted_is_never_called() {
    let functions = loggers(&[
        ("proxy_on_vm_start", 2, "(i32.const 0)"),
        ("proxy_on_request_headers", 3, "(i32.const 0)"),
        ("proxy_on_request_body", 3, "(i32.const 0)"),
        ("proxy_on_log", 1, ""),
    ]);
    let spec = granted(&functions, &["proxy_on_log"]);
    let exports = Exports::default().with(Export::RequestHeaders).with(Export::Log);
    assert_eq!(spec.module.exports(), exports, "bodies cost nothing where no filter may see them");
    let log = logged(|| {
        let mut worker = Worker::of(vec![spec], &Default::default());
        let id = worker.request(portcullis_core::event::End::Yes);
        worker.end(id);
    });
    assert_eq!(log, "proxy_on_request_headers 2 8 1 \nproxy_on_log 2 ");
}

#[test]
fn grants_are_narrowed_and_never_widened() {
    let spec = spec(&guest(""));
    let one = Capabilities::only(["proxy_log", "proxy_get_property"]);
    let two = Capabilities::only(["proxy_log", "proxy_http_call"]);
    let both = Capabilities::only(["proxy_log"]);
    assert_eq!(one.and(&two), both);
    assert_eq!(one.and(&Capabilities::All), one);
    let narrowed = engine().restrict(&spec.module, &one).unwrap();
    assert_eq!(*engine().restrict(&narrowed, &two).unwrap().capabilities(), both);
    assert!(!VmSpec { module: narrowed, ..spec.clone() }.is_same(&spec), "a VM with more is not as good");
}
