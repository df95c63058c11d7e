//! The end of a VM that no revision uses any more: `proxy_on_done`, `proxy_done`, `proxy_on_delete` (ABI reference §7.2).

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::filter::VmIndex;

use crate::harness::{Worker, guest, logged, spec};

/// What a root says as it goes.
const DELETES: &str =
    r#"(func (export "proxy_on_delete") (param $id i32) (call $text 'delete ') (call $n (local.get 0)) (call $end))"#;

/// A worker whose VM is started and held by one revision, which then gives it up.
fn given_up(functions: &str, then: impl FnOnce(&mut Worker)) -> String {
    let spec = Arc::new(spec(&guest(&format!("{functions}{DELETES}"))));
    logged(|| {
        let mut worker = Worker::of(Vec::new(), &Arc::default());
        worker.vms.hold(VmIndex(0), &spec);
        worker.vms.warm_up(&mut worker.exchanges).unwrap();
        assert!(worker.vms.release(&mut worker.exchanges, VmIndex(0)).is_none(), "its guest is to be told");
        then(&mut worker);
    })
}

#[test]
fn a_root_that_is_done_is_deleted_at_once() {
    for (done, want) in [
        (
            r#"(func (export "proxy_on_done") (param i32) (result i32) (call $text 'done') (call $end) (i32.const 1))"#,
            "done\n",
        ),
        ("", ""),
    ] {
        let log = given_up(done, |worker| {
            assert!(worker.vms.end_next(&mut worker.exchanges).is_some());
            assert!(!worker.vms.has_leaving());
        });
        assert_eq!(log, format!("{want}delete 1 "));
    }
}

/// A root that asks for time and says it is done on its second tick.
const FLUSHES: &str = r#"
    (global $ticks (mut i32) (i32.const 0))
    (func (export "proxy_on_done") (param i32) (result i32)
        (call $n (call $proxy_done)) (call $end)
        (drop (call $proxy_set_tick_period_milliseconds (i32.const 10)))
        (i32.const 0))
    (func (export "proxy_on_tick") (param i32)
        (global.set $ticks (i32.add (global.get $ticks) (i32.const 1)))
        (if (i32.eq (global.get $ticks) (i32.const 2)) (then
            (call $n (call $proxy_done)) (call $n (call $proxy_done)) (call $end))))"#;

#[test]
fn a_root_that_asks_for_time_works_on_until_it_says_it_is_done() {
    let log = given_up(FLUSHES, |worker| {
        assert!(worker.vms.end_next(&mut worker.exchanges).is_none());
        for ticks in [1, 2] {
            assert!(worker.vms.end_awaited(&mut worker.exchanges).is_empty(), "before tick {ticks}");
            worker.wait(Duration::from_millis(10));
            worker.vms.tick(&mut worker.exchanges);
        }
        assert_eq!(worker.vms.end_awaited(&mut worker.exchanges).len(), 1);
        assert!(!worker.vms.has_leaving());
        assert_eq!(worker.vms.next_tick(), None);
    });
    assert_eq!(log, "1 \n0 1 \ndelete 1 ", "in `on_done` nothing is pending yet, and it can be said once");
}

#[test]
fn a_root_that_never_says_it_is_done_is_deleted_when_its_time_is_over() {
    let log = given_up(r#"(func (export "proxy_on_done") (param i32) (result i32) (i32.const 0))"#, |worker| {
        assert!(worker.vms.end_next(&mut worker.exchanges).is_none());
        worker.wait(worker.exchanges.limits.farewell - Duration::from_millis(1));
        assert!(worker.vms.end_awaited(&mut worker.exchanges).is_empty());
        worker.wait(Duration::from_millis(1));
        assert_eq!(worker.vms.end_awaited(&mut worker.exchanges).len(), 1);
    });
    assert_eq!(log, "delete 1 ");
}

#[test]
fn a_root_that_traps_at_its_end_is_over() {
    let log = given_up(r#"(func (export "proxy_on_done") (param i32) (result i32) unreachable)"#, |worker| {
        assert!(worker.vms.end_next(&mut worker.exchanges).is_some());
    });
    assert!(log.starts_with("# a plugin failed") && log.lines().count() == 1, "{log}");
}

#[test]
fn at_the_end_of_the_process_nobody_gets_time() {
    let log = given_up(FLUSHES, |worker| {
        assert!(worker.vms.end_next(&mut worker.exchanges).is_none());
        let now = worker.exchanges.now;
        worker.vms.end_all().into_iter().for_each(|vm| vm.end(now));
    });
    assert_eq!(log, "1 \ndelete 1 ");
}

#[test]
fn nothing_is_pending_while_a_root_is_in_use() {
    let log = logged(|| {
        Worker::new(
            r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (call $n (call $proxy_done)) (call $end) (i32.const 0))"#,
        )
        .head();
    });
    assert_eq!(log, "1 ");
}
