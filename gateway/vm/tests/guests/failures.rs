//! What ends a VM's life, and what comes after.

use std::time::{Duration, Instant};

use portcullis_core::event::{End, Event};
use portcullis_core::filter::VmIndex;
use portcullis_vm::{Cause, EngineOptions, VmCells, VmState, Vms};

use crate::harness::{Worker, guest, logged, spec};

/// What the worker's only VM has come to.
fn cells(worker: &Worker) -> std::sync::Arc<VmCells> {
    worker.vms.cells().remove(0)
}

/// A guest that runs `fails` on its first request only, by a number that outlives it: the shared data.
fn fails_once(fails: &str) -> String {
    format!(
        r#"(func $deep (param i32) (result i32) (i32.add (call $deep (local.get 0)) (i32.const 1)))
        (func (export "proxy_on_request_headers") (param $id i32) (param i32 i32) (result i32)
            (if (call $proxy_get_shared_data 'done' (i32.const 16) (i32.const 20) (i32.const 24))
                (then (drop (call $proxy_set_shared_data 'done' '1' (i32.const 0))) {fails}))
            (i32.const 0))"#
    )
}

const UNAVAILABLE: &str = "response :status=503";

#[test]
fn whatever_kills_a_guest_costs_its_request_a_503_and_the_next_is_served_by_a_fresh_vm() {
    for (fails, cause) in [
        ("(unreachable)", Cause::Panic),
        ("(call $proc_exit (i32.const 3))", Cause::Panic),
        ("(loop $l (br $l))", Cause::Deadline),
        ("(drop (i32.load (i32.const -1)))", Cause::Memory),
        ("(if (i32.eq (memory.grow (i32.const 1000)) (i32.const -1)) (then unreachable))", Cause::OutOfMemory),
        ("(drop (call $deep (i32.const 0)))", Cause::Stack),
        ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", Cause::Other),
    ] {
        let mut worker = Worker::new(&fails_once(fails));
        assert!(worker.head().starts_with(UNAVAILABLE), "{fails}");
        let cells = cells(&worker);
        assert_eq!(
            (cells.traps(cause), cells.state(worker.exchanges.now), cells.memory.get()),
            (1, VmState::Failed, 0),
            "{fails}"
        );
        assert!(worker.head().starts_with("request :authority"), "{fails}");
        assert_eq!(
            (cells.starts.get(), cells.state(worker.exchanges.now), cells.memory.get()),
            (2, VmState::Running, 128 << 10),
            "{fails}"
        );
    }
}

#[test]
fn a_guest_that_loops_is_ended_within_its_budget() {
    let mut worker = Worker::new(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (loop $l (drop (call $proxy_get_current_time_nanoseconds (i32.const 16))) (br $l)) (i32.const 0))"#,
    );
    worker.vms.warm_up(&mut worker.exchanges).unwrap();
    let start = Instant::now();
    assert!(worker.head().starts_with(UNAVAILABLE));
    // 20 ms of processor time; the wall is not ours alone.
    assert!(start.elapsed() > Duration::from_millis(9), "{:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    assert_eq!(cells(&worker).traps(Cause::Deadline), 1);
}

#[test]
fn a_failure_is_logged_once_with_all_that_explains_it() {
    let log = logged(|| {
        Worker::new(
            r#"(func $_ZN5probe5inner17h0123456789abcdefE unreachable)
            (func $outer (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (drop (call $proxy_log (i32.const 5) 'index out of range')) (call $_ZN5probe5inner17h0123456789abcdefE) (i32.const 0))"#,
        )
        .head();
    });
    assert_eq!(
        log,
        "index out of range\n# a plugin failed: wasm `unreachable` instruction executed request_id=\"id\" route=\"route\" \
         tenant=\"\" plugin=\"plugin\" callback=\"proxy_on_request_headers\" cause=\"panic\" backtrace=probe::inner < outer said=\"index out of range\""
    );
}

#[test]
fn a_failure_names_the_request_that_the_guest_was_at_and_none_where_there_is_none() {
    let timed = |tick: &str| {
        logged(|| {
            let mut worker = Worker::new(&format!(
                r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
                    (drop (call $proxy_set_tick_period_milliseconds (i32.const 5))) (i32.const 1))
                (func (export "proxy_on_tick") (param i32) {tick} unreachable)"#,
            ));
            worker.request(End::No);
            worker.wait(Duration::from_millis(5));
            worker.vms.tick(&mut worker.exchanges);
            assert_eq!(cells(&worker).traps(Cause::Panic), 1);
        })
    };
    let log = timed("(drop (call $proxy_set_effective_context (i32.const 2)))");
    assert!(log.contains("request_id=\"id\" route=\"route\" tenant"), "{log}");
    let log = timed("");
    assert!(log.contains("executed tenant"), "{log}");
}

#[test]
fn every_exchange_of_a_vm_that_dies_is_told() {
    let mut worker = Worker::new(
        r#"(func (export "proxy_on_request_headers") (param $id i32) (param i32 i32) (result i32)
            (if (i32.eq (local.get $id) (i32.const 3)) (then unreachable)) (i32.const 1))"#,
    );
    let paused = worker.request(End::Yes);
    assert_eq!(worker.effects(paused), "");
    assert!(worker.head().starts_with(UNAVAILABLE));
    while let Some(id) = worker.exchanges.next_woken() {
        worker.feed(id, Event::Woken);
    }
    assert!(worker.effects(paused).starts_with(UNAVAILABLE));
    // The new life begins to count anew.
    let next = worker.request(End::Yes);
    assert_eq!(worker.effects(next), "");
    worker.end(paused);
    worker.end(next);
}

#[test]
fn a_vm_that_keeps_failing_is_left_alone_for_longer_each_time() {
    let mut worker =
        Worker::new(r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) unreachable)"#);
    let cells = cells(&worker);
    let starts = |worker: &mut Worker| {
        assert!(worker.head().starts_with(UNAVAILABLE));
        cells.starts.get()
    };
    assert_eq!((starts(&mut worker), starts(&mut worker)), (1, 2), "the first failure costs no time");
    let mut lives = 2;
    for seconds in [1, 2, 4, 8, 16, 32] {
        assert_eq!(starts(&mut worker), lives, "it is left alone");
        // By up to a quarter of it less, so that those that failed together do not come back together.
        let pause = Duration::from_secs(seconds);
        worker.wait(pause * 3 / 4 - Duration::from_millis(1));
        assert_eq!(starts(&mut worker), lives, "it is left alone for {seconds} s");
        assert!(matches!(cells.state(worker.exchanges.now), VmState::Resting(_)));
        worker.wait(pause / 4 + Duration::from_millis(1));
        lives += 1;
        assert_eq!(starts(&mut worker), lives);
    }
    worker.wait(Duration::from_secs(60));
    assert_eq!(starts(&mut worker), lives + 1, "never for more than a minute");
}

#[test]
fn a_timer_that_kills_its_vm_runs_again_once_the_vm_is_needed() {
    let mut worker = Worker::new(
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
            (drop (call $proxy_set_tick_period_milliseconds (i32.const 5))) (i32.const 1))
        (func (export "proxy_on_tick") (param i32) unreachable)"#,
    );
    worker.vms.warm_up(&mut worker.exchanges).unwrap();
    worker.wait(Duration::from_millis(5));
    worker.vms.tick(&mut worker.exchanges);
    assert_eq!((cells(&worker).traps(Cause::Panic), worker.vms.next_tick()), (1, None));
    assert!(worker.head().starts_with("request"));
    assert_eq!(worker.vms.next_tick(), Some(worker.exchanges.now + Duration::from_millis(5)));
}

#[test]
fn a_good_life_lets_earlier_failures_be_forgotten() {
    let mut worker = Worker::new(
        r#"(global $calls (mut i32) (i32.const 0))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
            (if (i32.eq (global.get $calls) (i32.const 2)) (then unreachable)) (i32.const 0))"#,
    );
    for _ in 0..5 {
        assert!(worker.head().starts_with("request"));
        worker.wait(Duration::from_secs(60));
        assert!(worker.head().starts_with(UNAVAILABLE));
    }
    assert_eq!(cells(&worker).traps(Cause::Panic), 5);
}

#[test]
fn a_response_to_a_callout_of_an_earlier_life_is_dropped() {
    let mut worker = Worker::new(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) unreachable)
        (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32) unreachable)"#,
    );
    worker.vms.warm_up(&mut worker.exchanges).unwrap();
    let root =
        portcullis_core::context::ContextRef { vm: VmIndex(0), life: 99, id: portcullis_core::context::ContextId(1) };
    worker.vms.deliver(&mut worker.exchanges, root, 4, Default::default());
    assert_eq!(cells(&worker).traps(Cause::Panic), 0);
}

fn start(functions: &str) -> String {
    let mut spec = spec(&guest(functions));
    spec.tenant = Some("acme".into());
    let mut worker = Worker::of(vec![spec], &Default::default());
    let error = worker.vms.warm_up(&mut worker.exchanges).unwrap_err();
    let cells = cells(&worker);
    assert_eq!((cells.start_failures.get(), cells.state(worker.exchanges.now)), (1, VmState::Failed));
    error.to_string().strip_prefix("plugin `plugin` of tenant `acme` did not start: ").unwrap().to_owned()
}

#[test]
fn a_vm_that_does_not_start_says_why() {
    for (functions, want) in [
        (
            r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
                (drop (call $proxy_log (i32.const 4) 'no issuer')) (i32.const 0))"#,
            "proxy_on_configure returned false: the plugin refuses its configuration; it said: no issuer",
        ),
        (
            r#"(func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 0))"#,
            "proxy_on_vm_start returned false: the plugin refuses its configuration",
        ),
        (
            r#"(func $parse (export "proxy_on_configure") (param i32 i32) (result i32) unreachable)"#,
            "proxy_on_configure failed: wasm `unreachable` instruction executed in parse",
        ),
        (
            r#"(func $run (export "_initialize") (call $proc_exit (i32.const 7)))"#,
            "_initialize failed: the guest exited with code 7 in run",
        ),
        (
            r#"(func $begin (drop (call $proxy_log (i32.const 4) 'no')) unreachable) (start $begin)"#,
            "the start section failed: wasm `unreachable` instruction executed in begin; it said: no",
        ),
        (
            r#"(func $hoard (loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable)
                (start $hoard)"#,
            "the start section failed: it gave up when it was refused memory in hoard",
        ),
    ] {
        assert_eq!(start(functions), want);
    }
}

#[test]
fn a_vm_that_loops_while_it_starts_is_ended() {
    let start_time = Instant::now();
    assert!(start(r#"(func (export "_initialize") (loop $l (br $l)))"#).starts_with("_initialize failed: it used up"));
    assert!(start_time.elapsed() > Duration::from_millis(500), "parsing a configuration may take its time");
}

#[test]
fn a_memory_that_begins_larger_than_its_limit_does_not_start() {
    let mut spec = spec(&guest(""));
    spec.memory = 100_000;
    let mut worker = Worker::of(vec![spec], &Default::default());
    let error = worker.vms.warm_up(&mut worker.exchanges).unwrap_err();
    assert_eq!(
        error.to_string(),
        "plugin `plugin` did not start: its module starts with 131072 bytes of memory and may have 100000; raise its \
         memory limit"
    );
}

#[test]
fn more_vms_than_there_is_room_for_are_refused_by_name() {
    let engine = portcullis_vm::Engine::new(EngineOptions { max_vms: 1, ..EngineOptions::default() }).unwrap();
    let mut spec = spec(&guest(""));
    spec.module = engine.load("test", &crate::harness::wasm(&guest(""))).unwrap();
    let mut vms = Vms::new(engine, vec![spec.clone(), spec].into(), Default::default());
    let error = vms.warm_up(&mut Default::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "plugin `plugin` did not start: all 1 VMs this gateway has room for are running; raise the limit on VMs"
    );
}

#[test]
fn an_allocator_that_lies_is_refused_and_one_that_traps_ends_the_life() {
    for (allocator, want) in [
        ("(i32.const 0)", "6 0 "),
        ("(i32.const 0x7fffffff)", "6 0 "),
        ("(i32.const -1)", "6 0 "),
        // Over the very addresses that it is told by, and at odds with every alignment.
        ("(i32.const 19)", "0 1 "),
        ("(i32.const 70001)", "0 1 "),
        // It may use what needs no context, and nothing that would run it again.
        (
            "(drop (call $proxy_log (i32.const 2) 'in')) \
             (call $n (call $proxy_get_header_map_value (i32.const 0) 'x-one' (i32.const 48) (i32.const 52))) \
             (call $n (call $proxy_get_shared_data 'key' (i32.const 48) (i32.const 52) (i32.const 56))) \
             (i32.const 70000)",
            "in\n10 10 0 1 ",
        ),
        ("unreachable", ""),
        ("(loop $l (br $l)) (i32.const 1)", ""),
    ] {
        let functions = format!(
            r#"(func (export "proxy_on_memory_allocate") (param i32) (result i32) {allocator})
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (drop (call $proxy_set_shared_data 'key' 'value' (i32.const 0)))
                (call $n (call $proxy_get_header_map_value (i32.const 0) 'x-one' (i32.const 16) (i32.const 20)))
                (call $n (i32.load (i32.const 20))) (call $end) (i32.const 0))"#
        );
        let mut head = String::new();
        let log = logged(|| head = Worker::new(&functions).head());
        if want.is_empty() {
            assert!(head.starts_with(UNAVAILABLE) && log.contains("a plugin failed"), "{allocator}");
        } else {
            assert_eq!(log, want, "{allocator}");
        }
    }
}

#[test]
fn memory_grows_up_to_the_limit_and_no_further() {
    let log = logged(|| {
        let mut worker = Worker::new(
            r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (call $n (memory.grow (i32.const 14)))
                (call $n (i32.eq (memory.grow (i32.const 1)) (i32.const -1))) (call $end) (i32.const 0))"#,
        );
        worker.head();
        assert_eq!(cells(&worker).memory.get(), 1 << 20);
    });
    assert_eq!(log, "2 1 ");
}
