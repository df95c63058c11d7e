//! The hot paths of `chain.rs` and `crossing.rs` as instructions under valgrind: the same on a busy machine as on an idle one.
//!
//! What is done [`TIMES`] times is reported as a whole: a thousand instructions are one each. The guest's machine code is
//! counted with the rest, the compiler that made it is not.

#![allow(missing_docs, reason = "the framework's macros make public functions without any")]

use std::hint::black_box;

use gungraun::prelude::*;
use http::uri::PathAndQuery;
use portcullis_benches::exchange::{Does, Worker};
use portcullis_benches::guests::{Crossing, Hostcall, Starter};
use portcullis_benches::routes::Routes;
use portcullis_benches::traffic::{self, Traffic};
use portcullis_core::headers::Headers;
use portcullis_core::path::{Slashes, normalise};
use portcullis_core::route::Match;
use portcullis_core::wire::Inspector;
use portcullis_vm::Vms;

const TIMES: u32 = 1000;

fn worker(filters: usize, does: Does) -> (Worker, Traffic) {
    (Worker::new(filters, does), Traffic::default())
}

#[library_benchmark(setup = worker)]
#[bench::no_filter(0, Does::Pass)]
#[bench::one_filter(1, Does::Pass)]
#[bench::three_filters(3, Does::Pass)]
#[bench::local_reply(1, Does::Reply)]
fn one_exchange((mut worker, traffic): (Worker, Traffic)) -> Worker {
    worker.serve(traffic);
    worker
}

fn named(name: &'static str) -> (Headers, &'static str) {
    (traffic::request(), name)
}

#[library_benchmark(setup = named)]
#[bench::field("x-request-id")]
#[bench::pseudo(":path")]
#[bench::absent("x-absent")]
fn a_thousand_header_reads((headers, name): (Headers, &'static str)) -> Headers {
    for _ in 0..TIMES {
        black_box(black_box(&headers).get(black_box(name.as_bytes())));
    }
    headers
}

#[library_benchmark(setup = named)]
#[bench::field("x-request-id")]
fn a_thousand_header_writes((mut headers, name): (Headers, &'static str)) -> Headers {
    for _ in 0..TIMES {
        _ = black_box(headers.replace(black_box(name.as_bytes()), black_box(b"replaced"), 256));
    }
    headers
}

#[library_benchmark(setup = Routes::new)]
#[bench::ten(1, 10)]
#[bench::ten_thousand_of_one_tenant(1, 10_000)]
#[bench::ten_thousand_of_a_thousand_tenants(1000, 10)]
fn one_route(routes: Routes) -> (Routes, Match<u32, u32>) {
    let found = routes.find();
    (routes, found)
}

/// As `curl` sends it.
const HEAD: &[u8] =
    b"GET /api/v1/orders/1234567890?expand=items HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: curl/8.5.0\r\n\
    Accept: */*\r\nX-Request-Id: 0123456789abcdef\r\n\r\n";

#[library_benchmark(setup = Inspector::default)]
#[bench::of_150_bytes()]
fn a_thousand_heads_inspected(mut inspector: Inspector) -> Inspector {
    for _ in 0..TIMES {
        black_box(inspector.inspect(black_box(HEAD)));
    }
    inspector
}

fn target() -> PathAndQuery {
    PathAndQuery::from_static("/api/v1/orders/1234567890?expand=items")
}

#[library_benchmark(setup = target)]
#[bench::normal_already()]
fn a_thousand_paths(target: PathAndQuery) -> PathAndQuery {
    for _ in 0..TIMES {
        _ = black_box(normalise(black_box(&target), Slashes::Reject));
    }
    target
}

/// A crossing that has been made once.
fn crossing(hostcall: Hostcall) -> Crossing {
    let mut crossing = Crossing::new(hostcall);
    crossing.call(1);
    crossing.create_and_delete();
    crossing
}

#[library_benchmark(setup = crossing)]
#[bench::empty(Hostcall::Nothing)]
fn a_thousand_callbacks(mut crossing: Crossing) -> Crossing {
    for _ in 0..TIMES {
        crossing.call(0);
    }
    crossing
}

#[library_benchmark(setup = crossing)]
#[bench::create_and_delete(Hostcall::Nothing)]
fn a_thousand_contexts(mut crossing: Crossing) -> Crossing {
    for _ in 0..TIMES {
        crossing.create_and_delete();
    }
    crossing
}

#[library_benchmark(setup = crossing)]
#[bench::nothing(Hostcall::Nothing)]
#[bench::get_log_level(Hostcall::LogLevel)]
#[bench::get_header_map_value(Hostcall::Value)]
#[bench::get_header_map_value_path(Hostcall::Path)]
#[bench::replace_header_map_value(Hostcall::Replace)]
#[bench::get_header_map_pairs_20(Hostcall::Pairs)]
fn a_thousand_hostcalls(mut crossing: Crossing) -> Crossing {
    crossing.call(TIMES);
    crossing
}

/// A VM's place in a process that has had a VM before.
fn place() -> (Starter, Vms) {
    let mut starter = Starter::default();
    starter.start(&mut starter.place());
    let place = starter.place();
    (starter, place)
}

#[library_benchmark]
#[bench::start(place())]
fn one_vm((mut starter, mut place): (Starter, Vms)) -> (Starter, Vms) {
    starter.start(&mut place);
    (starter, place)
}

library_benchmark_group!(
    name = chain,
    benchmarks = [
        one_exchange,
        a_thousand_header_reads,
        a_thousand_header_writes,
        a_thousand_heads_inspected,
        a_thousand_paths,
        one_route
    ]
);
library_benchmark_group!(
    name = border,
    benchmarks = [a_thousand_callbacks, a_thousand_contexts, a_thousand_hostcalls, one_vm]
);
main!(library_benchmark_groups = chain, border);
