//! Plugins that are isolated by request: each exchange has a copy of the VM that was started, and nothing of any other.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::context::CalloutResponse;
use portcullis_core::event::{End, Event};
use portcullis_core::filter::VmIndex;
use portcullis_core::tenant::{Account, Limits};
use portcullis_vm::{Cause, CompileLimits, EngineOptions, Isolation, VmCells, VmSpec, VmState, Vms};

use crate::abi::ENV;
use crate::harness::{Worker, engine, guest, logged, spec, wasm};

const BUSY: &str = "filter_busy";

/// The specification of a VM of this guest, of which every exchange gets a copy.
fn copied(functions: &str) -> VmSpec {
    let text = guest(functions);
    let module = engine().load_copyable("test", &wasm(&text), &CompileLimits::default()).unwrap();
    VmSpec { module, isolation: Isolation::Request, ..spec(&text) }
}

fn worker(functions: &str) -> Worker {
    Worker::of(vec![copied(functions)], &Arc::default())
}

fn cells(worker: &Worker) -> Arc<VmCells> {
    worker.vms.cells().remove(0)
}

/// One exchange from its beginning to its end.
fn exchange(worker: &mut Worker) -> String {
    let id = worker.request(End::Yes);
    let effects = worker.effects(id);
    worker.end(id);
    effects
}

/// A guest that counts in its memory and in a global, from 10 on, and logs both.
const COUNTS: &str = r#"
    (global $count (mut i64) (i64.const 0))
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (i32.store (i32.const 32) (i32.const 10))
        (global.set $count (i64.const 10))
        (i32.const 1))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (i32.store (i32.const 32) (i32.add (i32.load (i32.const 32)) (i32.const 1)))
        (global.set $count (i64.add (global.get $count) (i64.const 1)))
        (call $n (i32.load (i32.const 32))) (call $n (i32.wrap_i64 (global.get $count))) (call $end)
        (i32.const 0))"#;

#[test]
fn a_guest_that_counts_sees_every_request_as_the_first() {
    for (spec, want) in [(copied(COUNTS), "11 11 \n11 11 \n11 11 "), (spec(&guest(COUNTS)), "11 11 \n12 12 \n13 13 ")] {
        let log = logged(|| {
            let mut worker = Worker::of(vec![spec], &Arc::default());
            (0..3).for_each(|_| _ = exchange(&mut worker));
            assert_eq!(cells(&worker).starts.get(), 1);
        });
        assert_eq!(log, want);
    }
}

#[test]
fn exchanges_at_the_same_time_share_nothing_either() {
    let log = logged(|| {
        let mut worker = worker(COUNTS);
        let ids = [(); 3].map(|()| worker.request(End::Yes));
        ids.into_iter().for_each(|id| worker.end(id));
        assert_eq!(cells(&worker).copies.get(), 3);
    });
    assert_eq!(log, "11 11 \n11 11 \n11 11 ");
}

/// Looks for a secret where the guest before may have left it: in old memory, in memory that it grew, and further back on the heap.
const LEAVES_A_SECRET: &str = r#"
    (func $look (param $at i32)
        (if (i32.load (local.get $at)) (then (call $text 'found ') (call $n (local.get $at))))
        (i32.store (local.get $at) (i32.const 42)))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (call $text 'pages ') (call $n (memory.grow (i32.const 8)))
        (call $look (i32.const 48)) (call $look (i32.const 65532)) (call $look (i32.const 131000))
        (call $look (i32.const 190000)) (call $look (i32.const 640000))
        (; More than stays with a place in the pool. ;)
        (memory.fill (i32.const 196608) (i32.const 42) (i32.const 400000))
        (call $end) (i32.const 0))"#;

#[test]
fn what_one_exchange_leaves_in_memory_no_other_reads() {
    let log = logged(|| {
        let mut worker = worker(LEAVES_A_SECRET);
        (0..3).for_each(|_| _ = exchange(&mut worker));
    });
    assert_eq!(log, "pages 2 \npages 2 \npages 2 ");
}

#[test]
fn a_copy_begins_with_all_that_the_start_has_made() {
    let log = logged(|| {
        let mut worker = worker(
            r#"(global $started (mut i32) (i32.const 0))
            (func $start
                (global.set $started (i32.add (global.get $started) (i32.const 1)))
                (drop (memory.grow (i32.const 1)))
                (i32.store (i32.const 196000) (i32.const 7)))
            (start $start)
            (func (export "proxy_on_configure") (param i32 i32) (result i32)
                (drop (call $proxy_define_metric (i32.const 0) 'requests' (i32.const 64)))
                (call $text 'configured') (call $end) (i32.const 1))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (call $n (global.get $started)) (call $n (memory.size)) (call $n (i32.load (i32.const 196000)))
                (call $n (call $proxy_increment_metric (i32.load (i32.const 64)) (i64.const 1)))
                (call $end) (i32.const 0))"#,
        );
        (0..2).for_each(|_| _ = exchange(&mut worker));
        let metrics = cells(&worker).metrics.all();
        assert_eq!(metrics.len(), 1);
    });
    assert_eq!(log, "configured\n1 3 7 0 \n1 3 7 0 ");
}

#[test]
fn a_copy_that_fails_takes_nobody_along() {
    let fails = r#"(func (export "proxy_on_request_headers") (param $id i32) (param i32 i32) (result i32)
            (if (i32.eqz (call $proxy_get_shared_data 'fail' (i32.const 16) (i32.const 20) (i32.const 24)))
                (then (FAILS)))
            (i32.const 0))
        (func (export "proxy_on_log") (param i32)
            (drop (call $proxy_set_shared_data 'fail' '1' (i32.const 0))))"#;
    for (how, cause) in [("unreachable", Cause::Panic), ("loop $l (br $l)", Cause::Deadline)] {
        let mut worker = worker(&fails.replace("(FAILS)", &format!("({how})")));
        let (first, second) = (worker.request(End::Yes), worker.request(End::Yes));
        worker.end(first);
        // From now on all fail, and none rests.
        for n in 1..=3 {
            assert!(exchange(&mut worker).starts_with("response :status=503"), "{how}");
            assert_eq!(cells(&worker).traps(cause), n, "{how}");
        }
        assert_eq!(cells(&worker).state(worker.exchanges.now), VmState::Running, "{how}");
        assert_eq!((cells(&worker).starts.get(), cells(&worker).failures_in_a_row.get()), (1, 0), "{how}");
        assert!(worker.effects(second).starts_with("request :authority"), "{how}");
        worker.respond(second);
        assert!(worker.effects(second).contains("200"), "{how}");
        worker.end(second);
    }
}

#[test]
fn failures_of_copies_are_told_of_once_a_second() {
    let log = logged(|| {
        let mut worker =
            worker("(func (export \"proxy_on_request_headers\") (param i32 i32 i32) (result i32) unreachable)");
        (0..5).for_each(|_| _ = exchange(&mut worker));
        worker.wait(Duration::from_secs(1));
        exchange(&mut worker);
        assert_eq!(cells(&worker).traps(Cause::Panic), 6);
        assert_eq!(cells(&worker).last_failure().as_deref(), Some("panic in proxy_on_request_headers"));
    });
    assert_eq!(log.matches("a plugin failed").count(), 2, "{log}");
    assert!(log.contains("untold=4"), "{log}");
}

#[test]
fn where_there_is_no_room_for_a_copy_the_exchange_is_told_to_come_again() {
    let engine = portcullis_vm::Engine::new(EngineOptions { max_vms: 6, ..EngineOptions::default() }).unwrap();
    let text = guest(COUNTS);
    let module = engine.load_copyable("test", &wasm(&text), &CompileLimits::default()).unwrap();
    let spec = VmSpec { module, ..copied(COUNTS) };
    let mut worker = Worker::of(vec![spec.clone()], &Arc::default());
    worker.vms = Vms::new(engine, [spec].into(), Arc::default());
    let under_way = [(); 3].map(|()| worker.request(End::Yes));
    let refused = exchange(&mut worker);
    assert!(refused.starts_with("response :status=503") && refused.contains("retry-after=1"), "{refused}");
    assert!(refused.contains(BUSY), "{refused}");
    worker.end(under_way[0]);
    assert!(
        exchange(&mut worker).starts_with("request :authority"),
        "half of the pool is for copies, and one has gone"
    );
    assert_eq!(cells(&worker).state(worker.exchanges.now), VmState::Running);
}

#[test]
fn copies_are_their_tenants_memory() {
    let account = Arc::<Account>::default();
    let module = copied(COUNTS);
    // Two pages for the VM and for each copy, and a little for what is recorded.
    account.limit(&Limits { memory: Some(7 * (64 << 10)), ..Limits::default() });
    let mut worker = Worker::of(vec![VmSpec { account: Some(account.clone()), ..module }], &Arc::default());
    let (first, second) = (worker.request(End::Yes), worker.request(End::Yes));
    assert!(worker.effects(first).starts_with("request"));
    assert!(worker.effects(second).starts_with("request"));
    assert!(exchange(&mut worker).contains(BUSY));
    worker.end(first);
    assert!(exchange(&mut worker).starts_with("request"));
    worker.end(second);
    assert!(cells(&worker).cpu_nanos.get() > 0, "the time that copying takes is the tenant's");
}

#[test]
fn what_the_vm_learns_later_later_copies_know() {
    let log = logged(|| {
        let mut worker = worker(
            r#"(global $ticks (mut i32) (i32.const 0))
            (func (export "proxy_on_configure") (param i32 i32) (result i32)
                (drop (call $proxy_set_tick_period_milliseconds (i32.const 1000))) (i32.const 1))
            (func (export "proxy_on_tick") (param i32)
                (global.set $ticks (i32.add (global.get $ticks) (i32.const 1)))
                (call $text 'tick ') (call $n (global.get $ticks)) (call $end))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (call $n (global.get $ticks)) (call $end) (i32.const 0))"#,
        );
        let early = worker.request(End::Yes);
        worker.wait(Duration::from_millis(999));
        worker.vms.tick(&mut worker.exchanges);
        worker.wait(Duration::from_millis(1));
        // The copy has the VM's timer too, as long as it is there.
        worker.vms.tick(&mut worker.exchanges);
        worker.end(early);
        exchange(&mut worker);
        worker.wait(Duration::from_secs(1));
        worker.vms.tick(&mut worker.exchanges);
        exchange(&mut worker);
        assert_eq!(worker.vms.next_tick(), Some(worker.exchanges.now + Duration::from_secs(1)));
    });
    assert_eq!(log, "0 \ntick 1 \ntick 1 \n1 \ntick 2 \n2 ");
}

#[test]
fn copies_that_wait_for_what_the_vm_had_asked_for_hear_the_answer_too() {
    let (_, args) = ENV.iter().find(|(name, _)| *name == "proxy_http_call").unwrap();
    let Some(crate::abi::Arg::P(pairs)) = args.get(1) else { panic!("the second argument is a list") };
    let log = logged(|| {
        let mut worker = worker(&format!(
            r#"(global $known (mut i32) (i32.const 0))
            (func (export "proxy_on_configure") (param i32 i32) (result i32)
                (drop (call $proxy_http_call 'origin' '{pairs}' '' '' (i32.const 500) (i32.const 64)))
                (i32.const 1))
            (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
                (global.set $known (i32.const 1)) (call $text 'known') (call $end)
                (drop (call $proxy_set_effective_context (i32.const 2)))
                (drop (call $proxy_continue_stream (i32.const 0))))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (i32.eqz (global.get $known)))"#
        ));
        let early = worker.request(End::Yes);
        assert_eq!(worker.effects(early), "");
        let callout = worker.exchanges.callouts.pop().unwrap();
        worker.vms.deliver(&mut worker.exchanges, callout.root, callout.token, CalloutResponse::default());
        worker.feed(early, Event::Woken);
        assert!(worker.effects(early).starts_with("request"));
        worker.end(early);
        assert!(exchange(&mut worker).starts_with("request"));
        // Nobody is left to hear it.
        worker.vms.deliver(&mut worker.exchanges, callout.root, callout.token + 4, CalloutResponse::default());
    });
    assert_eq!(log, "known\nknown\nknown");
}

#[test]
fn a_queue_stays_the_vms_whatever_copies_register() {
    let log = logged(|| {
        let mut worker = worker(
            r#"(func $register (drop (call $proxy_register_shared_queue 'queue' (i32.const 64))))
            (func (export "proxy_on_configure") (param i32 i32) (result i32) (call $register) (i32.const 1))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (call $register)
                (call $n (call $proxy_enqueue_shared_queue (i32.load (i32.const 64)) 'item')) (call $end) (i32.const 0))
            (func (export "proxy_on_queue_ready") (param i32 i32) (call $text 'ready') (call $end))"#,
        );
        exchange(&mut worker);
        worker.vms.read_letter(&mut worker.exchanges);
    });
    assert_eq!(log, "0 \nready");
}

#[test]
fn a_vm_is_not_idle_while_there_are_copies_and_takes_them_along_when_it_goes() {
    let idle = Duration::from_secs(10);
    let mut worker = Worker::of(vec![VmSpec { idle: Some(idle), ..copied(COUNTS) }], &Arc::default());
    let id = worker.request(End::Yes);
    worker.wait(idle);
    assert_eq!(worker.vms.rest(&mut worker.exchanges).len(), 0);
    worker.end(id);
    worker.wait(idle);
    assert_eq!(worker.vms.rest(&mut worker.exchanges).len(), 1);
    let cut_off = worker.request(End::Yes);
    _ = worker.effects(cut_off);
    let spec = Arc::new(copied(COUNTS));
    worker.vms.hold(VmIndex(0), &spec);
    assert!(worker.vms.release(&mut worker.exchanges, VmIndex(0)).is_some());
    worker.feed(cut_off, Event::Woken);
    assert!(worker.effects(cut_off).starts_with("response :status=503"));
}

#[test]
fn only_a_full_pool_sends_others_to_rest() {
    let engine = portcullis_vm::Engine::new(EngineOptions { max_vms: 6, ..EngineOptions::default() }).unwrap();
    let text = guest(COUNTS);
    let (idle, limits) = (Some(Duration::from_secs(60)), CompileLimits::default());
    let copied =
        VmSpec { module: engine.load_copyable("test", &wasm(&text), &limits).unwrap(), idle, ..copied(COUNTS) };
    let other = VmSpec { module: engine.load("test", &wasm(&text)).unwrap(), idle, ..spec(&text) };
    let mut worker = Worker::of(vec![copied.clone()], &Arc::default());
    worker.vms = Vms::new(engine, [copied, other.clone(), other].into(), Arc::default());
    worker.vms.warm_up(&mut worker.exchanges).unwrap();
    let state = |worker: &Worker, at: usize| worker.vms.cells()[at].state(worker.exchanges.now);
    // Three that stay, and three copies, which is half: no more copies may be, and nobody has to go.
    let _under_way = [(); 3].map(|()| worker.request(End::Yes));
    assert!(exchange(&mut worker).contains(BUSY));
    assert_eq!([1, 2].map(|at| state(&worker, at)), [VmState::Running; 2]);
}

#[test]
fn a_full_pool_ends_what_is_idle_and_never_the_vm_that_is_copied() {
    let engine = portcullis_vm::Engine::new(EngineOptions { max_vms: 4, ..EngineOptions::default() }).unwrap();
    let text = guest(COUNTS);
    let (idle, limits) = (Some(Duration::from_secs(60)), CompileLimits::default());
    let copied =
        VmSpec { module: engine.load_copyable("test", &wasm(&text), &limits).unwrap(), idle, ..copied(COUNTS) };
    let other = VmSpec { module: engine.load("test", &wasm(&text)).unwrap(), idle, ..spec(&text) };
    let mut worker = Worker::of(vec![copied.clone()], &Arc::default());
    worker.vms = Vms::new(engine, [copied, other.clone(), other.clone(), other].into(), Arc::default());
    worker.vms.warm_up(&mut worker.exchanges).unwrap();
    let id = worker.request(End::Yes);
    assert!(worker.effects(id).starts_with("request :authority"));
    let running = |worker: &Worker| {
        let cells = worker.vms.cells();
        cells.iter().filter(|cells| cells.state(worker.exchanges.now) == VmState::Running).count()
    };
    assert_eq!(running(&worker), 3, "one of the others has made way");
    assert_eq!(cells(&worker).state(worker.exchanges.now), VmState::Running);
}
