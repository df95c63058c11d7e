//! §9.4 to §9.6: shared data, queues, metrics.

use crate::case::{Case, case, plain};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = plain(
        "§9.4",
        &[
            ("shared-data-that-is-none", "request_headers: get_shared_data d-none; get_shared_data ''"),
            (
                "shared-data-is-kept",
                "request_headers: set_shared_data d-kept 'a\\0b' 0; get_shared_data d-kept =d; log 2 $label | \
                     response_headers: get_shared_data d-kept %none",
            ),
            (
                "shared-data-may-be-empty",
                "request_headers: set_shared_data d-empty '' 0; \
                 get_shared_data d-empty %len",
            ),
            (
                "shared-data-is-set-by-its-number",
                "request_headers: set_shared_data d-cas a 0; set_shared_data d-cas b 987654; \
                     get_shared_data d-cas %none; set_shared_data d-cas c 0",
            ),
            (
                "shared-data-that-is-none-is-set-by-any-number",
                "request_headers: set_shared_data d-any a 987654; get_shared_data d-any %none",
            ),
        ],
    );
    cases.push(
        case(
            "§9.4",
            "shared-data-has-numbers",
            "request_headers: set_shared_data a 1 0; \
         get_shared_data a; set_shared_data a 2 1; get_shared_data a; set_shared_data a 3 1; \
         set_shared_data b 1 0; get_shared_data b",
        )
        .alone(),
    );
    cases.extend(plain(
        "§9.5",
        &[
            (
                "a-queue-that-is-none",
                "request_headers: resolve_shared_queue '' q-none; \
             enqueue_shared_queue 987654 x; dequeue_shared_queue 987654; enqueue_shared_queue 0 x; \
             dequeue_shared_queue 0",
            ),
            (
                "a-queue-is-found-by-name",
                "request_headers: register_shared_queue q-found =q; \
             enqueue_shared_queue $q one; enqueue_shared_queue $q ''; enqueue_shared_queue $q two; \
             dequeue_shared_queue $q; dequeue_shared_queue $q; dequeue_shared_queue $q; dequeue_shared_queue $q; \
             resolve_shared_queue '' q-found %none",
            ),
            (
                "a-queue-is-registered-again",
                "request_headers: register_shared_queue q-again =q; \
             enqueue_shared_queue $q one; register_shared_queue q-again =r; dequeue_shared_queue $r; \
             dequeue_shared_queue $q",
            ),
            (
                "a-queue-announces-its-items",
                "request_headers: register_shared_queue q-told =q; \
             enqueue_shared_queue $q one; return 1 | queue_ready: dequeue_shared_queue $q; \
             set_effective_context $ctx; continue_stream 0",
            ),
            (
                "a-queue-announces-each-item",
                "request_headers: register_shared_queue q-each =q; \
             enqueue_shared_queue $q one; enqueue_shared_queue $q two; return 1 | \
             queue_ready: dequeue_shared_queue $q | queue_ready#2: set_effective_context $ctx; continue_stream 0",
            ),
            (
                "a-queue-announces-what-is-gone",
                "request_headers: register_shared_queue q-gone =q; \
             enqueue_shared_queue $q one; dequeue_shared_queue $q; return 1 | \
             queue_ready: dequeue_shared_queue $q; set_effective_context $ctx; continue_stream 0",
            ),
            ("a-queue-of-another-vm", "request_headers: resolve_shared_queue no-such-vm q-found %none"),
        ],
    ));
    cases.push(
        case(
            "§9.5",
            "queues-have-numbers",
            "request_headers: register_shared_queue a; \
         register_shared_queue b; register_shared_queue a; resolve_shared_queue '' b",
        )
        .alone(),
    );
    cases.extend(vms());
    cases.extend(plain(
        "§9.6",
        &[
            (
                "a-counter",
                "request_headers: define_metric 0 m.counter =m; get_metric $m; increment_metric $m 5; \
             get_metric $m; increment_metric $m 0; increment_metric $m -1; get_metric $m; record_metric $m 7; \
             get_metric $m",
            ),
            (
                "a-gauge",
                "request_headers: define_metric 1 m.gauge =m; get_metric $m; increment_metric $m 5; \
             increment_metric $m -2; get_metric $m; record_metric $m 7; get_metric $m; increment_metric $m 0; \
             get_metric $m",
            ),
            (
                "a-gauge-below-zero",
                "request_headers: define_metric 1 m.below =m; record_metric $m 2; \
             increment_metric $m -3; get_metric $m",
            ),
            (
                "a-histogram",
                "request_headers: define_metric 2 m.histogram =m; record_metric $m 5; \
             increment_metric $m 1; get_metric $m",
            ),
            ("a-metric-of-no-kind", "request_headers: define_metric 3 m.none; define_metric -1 m.none"),
            (
                "a-metric-that-is-none",
                "request_headers: get_metric 40000; increment_metric 40000 1; \
             record_metric 40000 1; get_metric 40001; increment_metric 40001 1; record_metric 40001 1; \
             get_metric 40002; increment_metric 40002 1; record_metric 40002 1; get_metric 40003; \
             increment_metric 40003 1; record_metric 40003 1",
            ),
            (
                "a-metric-is-defined-again",
                "request_headers: define_metric 0 m.again =m; increment_metric $m 1; \
             define_metric 0 m.again =n; increment_metric $n 1; get_metric $m; get_metric $n",
            ),
        ],
    ));
    cases.push(
        case(
            "§9.6",
            "metrics-have-numbers",
            "request_headers: define_metric 0 m.a; define_metric 0 m.b; \
         define_metric 1 m.c; define_metric 2 m.d; define_metric 0 m.a",
        )
        .alone(),
    );
    cases
}

/// Filters whose VMs have ids: what they share, and what they do not.
fn vms() -> Vec<Case> {
    let puts = "request_headers: set_shared_data d-vm mine 0";
    let gets = "request_headers: get_shared_data d-vm %none; set_shared_data d-vm theirs 0; get_shared_data d-vm %none";
    let consumes = "request_headers: register_shared_queue q-vm =q | response_headers: return 1 | \
         queue_ready: dequeue_shared_queue $q; set_effective_context $ctx; continue_stream 1";
    let registers = "request_headers: register_shared_queue q-vm =q";
    vec![
        case("§9.4", "shared-data-of-one-vm-id", puts).then(gets).vms(&[("d-one", "a"), ("d-one", "b")]),
        case("§9.4", "shared-data-of-two-vm-ids", puts).then(gets).vms(&[("d-two", ""), ("d-other", "")]),
        case("§9.5", "a-queue-of-one-vm-id", registers)
            .then("request_headers: resolve_shared_queue '' q-vm %none")
            .vms(&[("q-one", "a"), ("q-one", "b")]),
        case("§9.5", "a-queue-of-two-vm-ids", registers)
            .then(
                "request_headers: resolve_shared_queue '' q-vm %none; resolve_shared_queue q-two q-vm =q; \
                 enqueue_shared_queue $q one; dequeue_shared_queue $q; resolve_shared_queue q-other q-vm %none; \
                 register_shared_queue q-vm =n; resolve_shared_queue q-other q-vm %none",
            )
            .vms(&[("q-two", ""), ("q-other", "")]),
        case("§9.5", "a-queue-announces-what-another-vm-put-in", consumes)
            .then("response_headers: resolve_shared_queue q-told q-vm =q; enqueue_shared_queue $q one")
            .vms(&[("q-told", ""), ("q-tells", "")]),
    ]
}
