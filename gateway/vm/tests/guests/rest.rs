//! VMs that come with their first exchange and go when they have been idle.

use std::time::Duration;

use portcullis_core::event::End;
use portcullis_vm::{EngineOptions, VmSpec, VmState, Vms};

use crate::harness::{Worker, guest, logged, resident, spec, wasm};

const IDLE: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_millis(1);

/// A guest that tells of its start and its end.
fn idles(more: &str) -> VmSpec {
    let tells = r#"
        (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (call $text 'start') (call $end) (i32.const 1))
        (func (export "proxy_on_delete") (param i32)
            (if (i32.eq (local.get 0) (i32.const 1)) (then (call $text 'end') (call $end))))"#;
    VmSpec { idle: Some(IDLE), ..spec(&guest(&format!("{tells}{more}"))) }
}

fn worker(more: &str) -> Worker {
    Worker::of(vec![idles(more)], &Default::default())
}

fn state(worker: &Worker) -> VmState {
    worker.vms.cells().first().unwrap().state(worker.exchanges.now)
}

fn exchange(worker: &mut Worker) {
    let id = worker.request(End::Yes);
    worker.end(id);
}

/// Lets so much time pass; how many VMs went.
fn pass(worker: &mut Worker, time: Duration) -> usize {
    worker.wait(time);
    worker.vms.rest(&mut worker.exchanges).len()
}

#[test]
fn a_vm_comes_with_an_exchange_and_goes_when_it_has_been_idle_for_long_enough() {
    let log = logged(|| {
        let mut worker = worker("");
        assert_eq!(state(&worker), VmState::Absent);
        for _ in 0..2 {
            exchange(&mut worker);
            assert_eq!(pass(&mut worker, IDLE - MOMENT), 0);
            exchange(&mut worker);
            assert_eq!(pass(&mut worker, IDLE - MOMENT), 0, "it has been used since");
            assert_eq!((state(&worker), pass(&mut worker, MOMENT)), (VmState::Running, 1));
            assert_eq!((state(&worker), pass(&mut worker, IDLE * 2)), (VmState::Absent, 0));
        }
        assert_eq!(worker.vms.cells().first().unwrap().starts.get(), 2);
    });
    assert_eq!(log, "start\nend\nstart\nend");
}

#[test]
fn a_vm_stays_as_long_as_its_guest_waits_for_something() {
    let on_start = |what: &str| {
        format!(r#"(func (export "proxy_on_configure") (param i32 i32) (result i32) {what} (i32.const 1))"#)
    };
    for what in [
        "(drop (call $proxy_set_tick_period_milliseconds (i32.const 60000)))",
        "(drop (call $proxy_register_shared_queue 'queue' (i32.const 16)))",
    ] {
        let mut worker = worker(&on_start(what));
        exchange(&mut worker);
        assert_eq!((pass(&mut worker, IDLE), pass(&mut worker, IDLE)), (0, 0), "{what}");
        assert_eq!(state(&worker), VmState::Running, "{what}");
    }
    let mut worker = worker("");
    let id = worker.request(End::Yes);
    assert_eq!((pass(&mut worker, IDLE), pass(&mut worker, IDLE)), (0, 0), "an exchange is under way");
    worker.end(id);
    assert_eq!(pass(&mut worker, IDLE), 1);
}

#[test]
fn a_timer_that_was_stopped_keeps_nothing() {
    let mut worker = worker(
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
            (drop (call $proxy_set_tick_period_milliseconds (i32.const 60000)))
            (drop (call $proxy_set_tick_period_milliseconds (i32.const 0)))
            (i32.const 1))"#,
    );
    exchange(&mut worker);
    assert_eq!(pass(&mut worker, IDLE), 1);
}

#[test]
fn where_there_is_no_room_the_one_that_has_been_idle_for_longest_goes() {
    let engine = portcullis_vm::Engine::new(EngineOptions { max_vms: 2, ..EngineOptions::default() }).unwrap();
    let module = engine.load("test", &wasm(&guest(""))).unwrap();
    let spec = VmSpec { module, ..idles("") };
    let mut vms = Vms::new(engine, vec![spec.clone(), spec.clone(), spec].into(), Default::default());
    let mut worker = worker("");
    vms.warm_up(&mut worker.exchanges).unwrap();
    let states: Vec<VmState> = vms.cells().iter().map(|cells| cells.state(worker.exchanges.now)).collect();
    assert_eq!(states, [VmState::Absent, VmState::Running, VmState::Running]);
    let failures: u64 = vms.cells().iter().map(|cells| cells.failures_in_a_row.get()).sum();
    assert_eq!(failures, 0, "whoever found no room at first has not failed");
}

#[test]
fn where_there_is_no_room_and_nobody_idle_an_exchange_is_told_to_come_again() {
    let engine = portcullis_vm::Engine::new(EngineOptions { max_vms: 1, ..EngineOptions::default() }).unwrap();
    let module = engine.load("test", &wasm(&guest(""))).unwrap();
    let stays = VmSpec { module, ..spec(&guest("")) };
    let mut worker = Worker::of(vec![stays.clone(), stays.clone()], &Default::default());
    worker.vms = Vms::new(engine, vec![stays.clone(), stays].into(), Default::default());
    for what in ["it finds no room", "it is left alone for a while, for the same reason"] {
        let id = worker.request(End::Yes);
        let effects = worker.effects(id);
        worker.end(id);
        assert!(effects.contains("503") && effects.contains("retry-after=1"), "{what}: {effects}");
        assert!(effects.contains("filter_busy"), "{what}: {effects}");
    }
}

#[test]
fn a_guest_that_fails_at_its_end_harms_nothing() {
    let mut worker = worker(
        r#"(func (export "proxy_on_done") (param i32) (result i32)
            (if (i32.eq (local.get 0) (i32.const 1)) (then unreachable))
            (i32.const 1))"#,
    );
    exchange(&mut worker);
    let log = logged(|| assert_eq!(pass(&mut worker, IDLE), 0));
    assert!(log.contains("a plugin failed") && log.contains("proxy_on_done"), "{log}");
    assert!(!worker.head().contains("503"));
}

#[test]
fn a_vm_that_goes_gives_its_memory_back() {
    const VMS: u64 = 32;
    const WRITTEN: u64 = 192 << 10;
    let writes = idles(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (memory.grow (i32.const 4)))
            (memory.fill (i32.const 131072) (i32.const 1) (i32.const 196608))
            (i32.const 0))"#,
    );
    let mut worker = Worker::of((0..VMS).map(|_| writes.clone()).collect(), &Default::default());
    let before = resident();
    exchange(&mut worker);
    let grown = resident().saturating_sub(before);
    assert!(grown > VMS * WRITTEN, "{grown}");
    assert_eq!(pass(&mut worker, IDLE), 32);
    let left = resident().saturating_sub(before);
    assert!(left < grown / 4, "{left} of {grown}");
}
