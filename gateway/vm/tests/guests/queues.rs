//! Shared queues between VMs and workers (ABI reference §9.5).

use std::sync::Arc;

use portcullis_core::event::End;
use portcullis_core::timing::Outcome;
use portcullis_vm::{Occasion, QUEUE_ITEMS, Shared, VmSpec};

use crate::harness::{Worker, guest, logged, spec};

/// A guest that registers a queue, puts each request's path into it, and takes out what it is told of.
const CONSUMER: &str = r#"
    (global $id (mut i32) (i32.const 0))
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (call $n (call $proxy_register_shared_queue 'jobs' (i32.const 16))) (call $n (i32.load (i32.const 16))) (call $end)
        (global.set $id (i32.load (i32.const 16)))
        (i32.const 1))
    (func (export "proxy_on_queue_ready") (param $root i32) (param $queue i32)
        (call $text 'ready ') (call $n (local.get $root)) (call $n (local.get $queue))
        (call $given (call $proxy_dequeue_shared_queue (local.get $queue) (i32.const 16) (i32.const 20))))"#;

/// A guest that finds a queue by its name and puts two items into it.
const PRODUCER: &str = r#"
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (call $n (call $proxy_resolve_shared_queue '' 'jobs' (i32.const 16))) (call $n (i32.load (i32.const 16)))
        (call $n (call $proxy_enqueue_shared_queue (i32.load (i32.const 16)) 'one'))
        (call $n (call $proxy_enqueue_shared_queue (i32.load (i32.const 16)) ''))
        (call $n (call $proxy_enqueue_shared_queue (i32.const 77) 'x'))
        (call $n (call $proxy_resolve_shared_queue '' 'none' (i32.const 16)))
        (call $end) (i32.const 0))"#;

fn worker(functions: &str, tenant: &str, shared: &Arc<Shared>) -> Worker {
    let mut spec = spec(&guest(functions));
    spec.tenant = Some(tenant.into());
    Worker::of(vec![spec], shared)
}

fn read_all(worker: &mut Worker) {
    for _ in 0..10 {
        worker.vms.read_letter(&mut worker.exchanges);
    }
}

#[test]
fn a_consumer_on_another_worker_is_told_once_for_each_item() {
    let shared = Arc::new(Shared::default());
    let log = logged(|| {
        let mut consumer = worker(CONSUMER, "acme", &shared);
        consumer.vms.warm_up(&mut consumer.exchanges).unwrap();
        let mut producer = worker(PRODUCER, "acme", &shared);
        producer.head();
        read_all(&mut producer);
        read_all(&mut consumer);
    });
    assert_eq!(log, "0 1 \n0 1 0 0 1 1 \nready 1 1 0 [one]\nready 1 1 0 []");
}

#[test]
fn a_queue_is_found_by_the_vm_id_of_its_consumer() {
    let shared = Arc::new(Shared::default());
    let log = logged(|| {
        let asks = PRODUCER.replace("'' 'jobs'", "'jobs-vm' 'jobs'");
        let [mut consumer, mut producer] = [(CONSUMER, "jobs-vm"), (&asks, "other-vm")].map(|(functions, vm_id)| {
            let spec = VmSpec { tenant: Some("acme".into()), vm_id: vm_id.into(), ..spec(&guest(functions)) };
            Worker::of(vec![spec], &shared)
        });
        consumer.vms.warm_up(&mut consumer.exchanges).unwrap();
        producer.head();
        read_all(&mut consumer);
        worker(PRODUCER, "acme", &shared).head();
    });
    assert_eq!(log, "0 1 \n0 1 0 0 1 1 \nready 1 1 0 [one]\nready 1 1 0 []\n1 0 1 1 1 1 ", "the last asks without it");
}

/// Row 10 of the threat model.
#[test]
fn another_tenants_queue_is_not_found_by_name_nor_by_number() {
    let shared = Arc::new(Shared::default());
    let log = logged(|| {
        let mut consumer = worker(CONSUMER, "acme", &shared);
        consumer.vms.warm_up(&mut consumer.exchanges).unwrap();
        let mut stranger = worker(
            r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (call $n (call $proxy_resolve_shared_queue 'acme' 'jobs' (i32.const 16)))
                (call $n (call $proxy_enqueue_shared_queue (i32.const 1) 'forged'))
                (call $n (call $proxy_dequeue_shared_queue (i32.const 1) (i32.const 16) (i32.const 20)))
                (call $end) (i32.const 0))"#,
            "beta",
            &shared,
        );
        stranger.head();
        read_all(&mut consumer);
    });
    assert_eq!(log, "0 1 \n1 1 1 ");
}

#[test]
fn an_item_for_a_vm_that_failed_is_announced_to_its_successor() {
    let shared = Arc::new(Shared::default());
    let log = logged(|| {
        let dies = format!(
            r#"{CONSUMER}(func (export "proxy_on_request_headers") (param $id i32) (param i32 i32) (result i32)
                (if (i32.eq (local.get $id) (i32.const 2)) (then
                    (drop (call $proxy_enqueue_shared_queue (global.get $id) 'left behind')) unreachable))
                (i32.const 0))"#
        )
        .replace(
            "(i32.eq (local.get $id) (i32.const 2))",
            "(call $proxy_get_shared_data 'seen' (i32.const 16) (i32.const 20) (i32.const 24))",
        )
        .replace("unreachable))", "(drop (call $proxy_set_shared_data 'seen' '' (i32.const 0))) unreachable))");
        let mut worker = worker(&dies, "acme", &shared);
        worker.head();
        read_all(&mut worker);
        worker.head();
        read_all(&mut worker);
    });
    let said: Vec<&str> = log.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(said, ["0 1 ", "0 1 ", "ready 1 1 0 [left behind]"]);
}

/// Row 11 of the threat model.
#[test]
fn a_flood_is_dropped_with_a_word_and_counted() {
    let mut items = 0;
    let log = logged(|| {
        let mut worker = Worker::new(&format!(
            r#"{CONSUMER}(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (local $left i32) (local.set $left (i32.const {}))
                (loop $more
                    (if (call $proxy_enqueue_shared_queue (i32.const 1) 'x') (then unreachable))
                    (br_if $more (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
                (i32.const 0))"#,
            QUEUE_ITEMS + 3
        ));
        let id = worker.request(End::Yes);
        assert!(worker.effects(id).starts_with("request"));
        assert_eq!(worker.vms.cells().remove(0).queue_items_dropped.get(), 3);
        let calls = |worker: &Worker| worker.vms.cells().remove(0).calls(Occasion::Background, Outcome::Next);
        while {
            let before = calls(&worker);
            worker.vms.read_letter(&mut worker.exchanges);
            calls(&worker) > before
        } {
            items += 1;
        }
    });
    assert_eq!((items, log.matches("the queue is full").count()), (QUEUE_ITEMS, 3));
}

#[test]
fn a_root_that_has_no_name_yet_has_no_queue_and_too_many_have_none_either() {
    let log = logged(|| {
        Worker::new(
            r#"(func (export "_initialize")
                (call $n (call $proxy_register_shared_queue 'early' (i32.const 16))) (call $end))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (local $n i32)
                (loop $more
                    (i32.store (i32.const 40) (local.get $n))
                    (if (call $proxy_register_shared_queue (i32.const 40) (i32.const 4) (i32.const 16)) (then unreachable))
                    (local.set $n (i32.add (local.get $n) (i32.const 1)))
                    (br_if $more (i32.lt_u (local.get $n) (i32.const 257))))
                (call $n (i32.load (i32.const 16)))
                (call $n (call $proxy_enqueue_shared_queue (i32.load (i32.const 16)) 'x')) (call $end)
                (i32.const 0))"#,
        )
        .head();
    });
    assert!(log.starts_with("10 \n# there are too many queues") && log.ends_with("\n0 1 "), "{log}");
}
