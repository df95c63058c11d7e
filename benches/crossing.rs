//! The border between host and guest: callbacks, hostcalls, contexts, the start of a VM.
//!
//! A hostcall's figure is its own: many are made in one callback, whose cost vanishes among them. How much memory a VM takes is
//! for `src/bin/density.rs` to say, and what many starts in a row cost, each in memory never used before.

#![allow(missing_docs, reason = "the framework's macros make public functions without any")]

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis_benches::guests::{Crossing, Hostcall, Starter, wasm};
use portcullis_vm::Isolation;

/// Hostcalls in one callback.
const AT_ONCE: u32 = 10_000;

fn callbacks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("callback");
    let mut crossing = Crossing::new(Hostcall::Nothing);
    group.bench_function("empty", |bencher| bencher.iter(|| crossing.call(0)));
    group.bench_function("context_create_and_delete", |bencher| bencher.iter(|| crossing.create_and_delete()));
}

fn hostcalls(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hostcall");
    for hostcall in Hostcall::ALL {
        let mut crossing = Crossing::new(hostcall);
        group.bench_function(hostcall.name(), |bencher| {
            bencher.iter_custom(|calls| {
                let at_once = u64::from(AT_ONCE);
                let rest = u32::try_from(calls % at_once).unwrap_or(AT_ONCE);
                let start = Instant::now();
                (0..calls / at_once).for_each(|_| crossing.call(AT_ONCE));
                crossing.call(rest);
                start.elapsed()
            });
        });
    }
}

fn starts(criterion: &mut Criterion) {
    let mut starter = Starter::default();
    criterion.bench_function("vm/start", |bencher| {
        bencher.iter_custom(|starts| {
            let mut elapsed = Duration::ZERO;
            for _ in 0..starts {
                let mut place = starter.place();
                let start = Instant::now();
                starter.start(&mut place);
                elapsed += start.elapsed();
            }
            elapsed
        });
    });
}

/// What a context costs where exchanges share the VM, and where each has a copy of it.
fn isolation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("isolation");
    for (name, isolation) in [("vm", Isolation::Vm), ("request", Isolation::Request)] {
        let mut crossing = Crossing::of(&wasm(Hostcall::Nothing), isolation);
        group.bench_function(name, |bencher| bencher.iter(|| crossing.create_and_delete()));
    }
}

criterion_group!(benches, callbacks, hostcalls, starts, isolation);
criterion_main!(benches);
