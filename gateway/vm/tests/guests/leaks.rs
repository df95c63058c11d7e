//! Failing, and being replaced, leaves nothing behind.

use std::time::Duration;

use portcullis_core::event::End;

use crate::harness::{Worker, resident};

/// What a guest starts before it fails: all of it must go with it.
const STARTS: &str = r#"
    (drop (call $proxy_set_shared_data 'key' 'value' (i32.const 0)))
    (drop (call $proxy_define_metric (i32.const 0) 'm' (i32.const 16)))
    (drop (call $proxy_register_shared_queue 'q' (i32.const 16)))
    (drop (call $proxy_enqueue_shared_queue (i32.const 1) 'item'))
    (drop (call $proxy_set_tick_period_milliseconds (i32.const 1000)))
    (drop (call $proxy_set_property 'a' 'b'))
    (drop (call $proxy_grpc_stream 'origin' 's' 'm' '\00\00\00\00' (i32.const 16)))
    (drop (call $proxy_call_foreign_function 'expr_create' '1 + 1' (i32.const 16) (i32.const 20)))"#;

const HARMS: [&str; 4] = [
    "unreachable",
    "(drop (call $deep (i32.const 0)))",
    "(drop (i32.load (i32.const -1)))",
    "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable",
];

/// Between two failures: so long a life lets earlier failures be forgotten.
const GOOD_LIFE: Duration = Duration::from_secs(61);
const FAILURES: usize = 10_000;
/// What the allocator may keep for itself: less than two kibibytes for each failure.
const SLACK: u64 = 16 << 20;

fn fail(workers: &mut [Worker], times: usize) {
    for nth in 0..times {
        let kinds = workers.len();
        let worker = workers.get_mut(nth % kinds).unwrap();
        let id = worker.request(End::Yes);
        let shown = worker.effects(id);
        assert!(shown.contains("filter_failed"), "{shown}");
        worker.end(id);
        worker.vms.read_letter(&mut worker.exchanges);
        worker.exchanges.callouts.clear();
        worker.exchanges.grpc.clear();
        worker.wait(GOOD_LIFE);
    }
}

#[test]
fn ten_thousand_failures_leave_nothing_behind() {
    let guest = |harm: &&str| {
        Worker::new(&format!(
            r#"(func $deep (param i32) (result i32) (i32.add (call $deep (local.get 0)) (i32.const 1)))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {STARTS} {harm} (i32.const 0))"#
        ))
    };
    let mut workers: Vec<Worker> = HARMS.iter().map(guest).collect();
    fail(&mut workers, FAILURES / 10);
    let before = resident();
    fail(&mut workers, FAILURES);
    let grown = resident().saturating_sub(before);
    assert!(grown < SLACK, "{FAILURES} failures left {grown} bytes behind");
}
