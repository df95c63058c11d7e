//! The core alone: exchanges through chains of fakes, header maps, routing.
//!
//! Messages are made before the clock starts and dropped where a worker would drop them.

#![allow(missing_docs, reason = "the framework's macros make public functions without any")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use portcullis_benches::exchange::{Does, Worker};
use portcullis_benches::routes::Routes;
use portcullis_benches::traffic::{self, Traffic};

const MAX_FIELDS: usize = 256;

fn exchanges(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("exchange");
    let subjects = [
        ("0_filters", 0, Does::Pass),
        ("1_filter", 1, Does::Pass),
        ("3_filters", 3, Does::Pass),
        ("local_reply", 1, Does::Reply),
    ];
    for (name, filters, does) in subjects {
        let mut worker = Worker::new(filters, does);
        group.bench_function(name, |bencher| {
            bencher.iter_batched(Traffic::default, |traffic| worker.serve(traffic), BatchSize::SmallInput);
        });
    }
}

fn headers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("headers");
    let mut headers = traffic::request();
    for name in ["x-request-id", ":path", "x-absent"] {
        group.bench_function(format!("get/{name}"), |bencher| {
            bencher.iter(|| black_box(&headers).get(black_box(name.as_bytes())).map(<[u8]>::len));
        });
    }
    group.bench_function("iter/20", |bencher| bencher.iter(|| black_box(&headers).byte_size()));
    group.bench_function("replace", |bencher| {
        bencher.iter(|| headers.replace(black_box(b"x-request-id"), black_box(b"replaced"), MAX_FIELDS));
    });
    group.bench_function("add_and_remove", |bencher| {
        bencher.iter(|| {
            let added = headers.add(black_box(b"x-added"), black_box(b"value"), MAX_FIELDS);
            headers.remove(black_box(b"x-added"));
            added
        });
    });
}

fn routing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    let subjects = [("10", 1, 10), ("10000_of_one_tenant", 1, 10_000), ("10000_of_1000_tenants", 1000, 10)];
    for (name, tenants, routes_each) in subjects {
        let routes = Routes::new(tenants, routes_each);
        group.bench_function(name, |bencher| bencher.iter(|| black_box(&routes).find()));
    }
}

criterion_group!(benches, exchanges, headers, routing);
criterion_main!(benches);
