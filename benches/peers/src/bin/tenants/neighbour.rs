//! What a tenant notices of another one that uses up its processor time and crashes all the time, on the one worker they share.
//!
//! Both are asked equally often, which for the noisy one comes to several times the processor time that it has. The quiet one is asked
//! alone; beside a calm one that is asked as often as the noisy one, and let in as often, but whose filter returns at once; and beside
//! the noisy one. So what requests cost their neighbours is told from what filters do.
//!
//! A machine that is one of several on another has moments in which nothing runs, far longer than what is looked for here. So the
//! three have short turns, many times over. Those during which the kernel saw processors taken away do not count, and of the 99th
//! percentiles of the others the lower quartiles are compared: such a moment can only add to one. The medians are printed as well.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use portcullis_measure::process::stolen_time;
use portcullis_measure::target::Target;
use portcullis_measure::{lower_quartile, median};

use crate::load::{Outcome, Paced};
use crate::options::Options;
use crate::rig::{Gateway, Rig};
use crate::{files, judged};

const WORKERS: usize = 1;
const LIMIT_PERCENT: f64 = 10.0;
/// The processor time that the noisy tenant has in a second.
const BUDGET: Duration = Duration::from_millis(50);
/// What a callback of it takes, so that it asks for twice that and for twenty times as much. Nothing else runs on a worker meanwhile,
/// so it matters beyond what all take together.
const BURNS: [Duration; 2] = [Duration::from_micros(100), Duration::from_millis(1)];
const NOISY: &str = "noisy";
/// Asked as the noisy one is.
const CALM: &str = "calm";
const QUIET: &str = "quiet";
const CONNECTIONS: u32 = 4;
/// Requests per second to each of them, and to the noisy one's filter that crashes.
const RATE: u32 = 1_000;
const CRASHES: u32 = 20;
/// How long a turn is, how many that count each has in a round, and how many times as many are tried at most.
const TURN: Duration = Duration::from_millis(1500);
const TURNS: usize = 8;
const TRIES: usize = 3;
/// Until what the other tenant saved up is used.
const LEAD: Duration = Duration::from_millis(1200);

/// What the quiet tenant has beside it.
#[derive(Clone, Copy, Debug)]
enum Beside {
    Nobody,
    Calm,
    Noisy,
}

impl Beside {
    const ALL: [Self; 3] = [Self::Nobody, Self::Calm, Self::Noisy];
}

/// How the quiet tenant fared in those of its turns that count.
#[derive(Default)]
struct Fared {
    p99_ms: Vec<f64>,
    per_second: Vec<f64>,
}

/// What came of it.
struct Moved {
    /// The 99th percentile beside the noisy tenant, of that beside nobody.
    in_all_percent: f64,
    /// Of that beside the calm one.
    by_filters_percent: f64,
    failed: usize,
}

/// For each kind of noise.
pub(crate) fn run(rig: &Rig, options: &Options) -> Vec<Target> {
    let target = |burn: Duration| {
        let what = format!("neighbour that burns {burn:?} a callback");
        judged(
            &measure(rig, burn, options.rounds),
            [
                (format!("{what}: p99 moves by"), LIMIT_PERCENT, "%", |moved| moved.in_all_percent),
                (format!("{what}: p99 is moved by its filters by"), LIMIT_PERCENT, "%", |moved| {
                    moved.by_filters_percent
                }),
                (format!("{what}: requests that failed"), 0.0, "", |moved| moved.failed as f64),
            ],
        )
    };
    BURNS.into_iter().flat_map(target).collect()
}

fn measure(rig: &Rig, burn: Duration, rounds: usize) -> Result<Moved> {
    let files = rig.files("neighbour", WORKERS)?;
    files.tenant(QUIET, &files::tenant(QUIET), &[])?;
    files.tenant(CALM, &calm(burn), &[("calm.wasm", &returning()?)])?;
    let modules: [(&str, &[u8]); 2] = [("burn.wasm", &burning(burn)?), ("crash.wasm", &crashing()?)];
    files.tenant(NOISY, &noisy(), &modules)?;
    let gateway = rig.start(&files, QUIET)?;
    let quiet = Paced { address: gateway.public, tenant: QUIET, path: "/", connections: CONNECTIONS, rate: RATE };
    quiet.run_for(LEAD);
    let wanted = rounds * TURNS;
    let (mut fared, mut failed) = ([(); 3].map(|()| Fared::default()), 0);
    for attempt in 0..wanted * TRIES {
        let mut due: Vec<_> = Beside::ALL.into_iter().zip(&mut fared).collect();
        // There and back, since who comes later may find a warmer machine.
        if attempt % 2 == 1 {
            due.reverse();
        }
        for (beside, fared) in due.into_iter().filter(|(_, fared)| fared.p99_ms.len() < wanted) {
            let (outcome, stolen) = match beside {
                Beside::Nobody => turn(quiet)?,
                Beside::Calm => beside_calm(quiet, burn)?,
                Beside::Noisy => beside_noise(&gateway, quiet, burn)?,
            };
            let p99 = outcome.p99_ms().with_context(|| format!("the quiet tenant: {outcome}"))?;
            eprintln!(
                "neighbour, {burn:?}: p99 {p99:.3} ms beside {beside:?}, processors were taken away for {stolen:?}"
            );
            failed += outcome.failed();
            if stolen.is_zero() {
                fared.p99_ms.push(p99);
                fared.per_second.push(outcome.per_second());
            }
        }
    }
    let fewest = fared.iter().map(|fared| fared.p99_ms.len()).min().unwrap_or_default();
    ensure!(fewest * 2 >= wanted, "this machine's processors were taken away in all but {fewest} turns");
    moved(burn, fared, failed).context("there was no turn")
}

/// The quiet tenant's turn, and for how long processors were taken away meanwhile.
fn turn(quiet: Paced) -> Result<(Outcome, Duration)> {
    let before = stolen_time()?;
    let outcome = quiet.run_for(TURN);
    Ok((outcome, stolen_time()?.saturating_sub(before)))
}

/// What it comes to, if each had a turn.
fn moved(burn: Duration, [alone, calm, noisy]: [Fared; 3], failed: usize) -> Option<Moved> {
    let (without, with) = (median(alone.per_second)?, median(noisy.per_second)?);
    println!(
        "neighbour, {burn:?}: of {RATE} requests a second, {without:.0} answered without noise, {with:.0} with it"
    );
    let p99s = [alone.p99_ms, calm.p99_ms, noisy.p99_ms];
    let of_all = |which: &str, of: fn(Vec<f64>) -> Option<f64>| {
        let [alone, calm, noisy] = p99s.clone().map(of);
        let (alone, calm, noisy) = (alone?, calm?, noisy?);
        println!(
            "neighbour, {burn:?}: {which} of p99: {alone:.3} ms alone, {calm:.3} ms beside a calm one, {noisy:.3} ms beside noise"
        );
        Some([alone, calm].map(|without| (noisy / without - 1.0) * 100.0))
    };
    of_all("median", median)?;
    let [in_all_percent, by_filters_percent] = of_all("lower quartile", lower_quartile)?;
    Some(Moved { in_all_percent, by_filters_percent, failed })
}

/// The quiet tenant's turn while the calm one is asked too.
fn beside_calm(quiet: Paced, burn: Duration) -> Result<(Outcome, Duration)> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = scope.spawn(|| Paced { tenant: CALM, path: "/calm", ..quiet }.run(&stop));
        thread::sleep(LEAD);
        let turn = turn(quiet);
        stop.store(true, Ordering::Relaxed);
        let load = load.join().unwrap_or_default();
        eprintln!("neighbour, {burn:?}: the calm one's filter: {load}");
        // Otherwise it was not asked as the noisy one is.
        ensure!(load.good() > 0 && load.failed() > 0, "it was let in always or never: {load}");
        turn
    })
}

/// The quiet tenant's turn while the noisy one is asked too.
fn beside_noise(gateway: &Gateway, quiet: Paced, burn: Duration) -> Result<(Outcome, Duration)> {
    let stop = AtomicBool::new(false);
    let noise = |path, rate| Paced { tenant: NOISY, path, rate, ..quiet };
    thread::scope(|scope| {
        let burns = scope.spawn(|| noise("/burn", RATE).run(&stop));
        let crashes = scope.spawn(|| noise("/crash", CRASHES).run(&stop));
        thread::sleep(LEAD);
        let turn = turn(quiet);
        stop.store(true, Ordering::Relaxed);
        let [burns, crashes] = [burns, crashes].map(|load| load.join().unwrap_or_default());
        let traps = gateway.metric("portcullis_filter_traps_total", "plugin=\"crash\"")?;
        let noise = format!("its burning filter: {burns}; its crashing one: {crashes}, {traps} VMs ended");
        eprintln!("neighbour, {burn:?}: {noise}");
        // Otherwise nobody was noisy.
        ensure!(
            burns.good() > 0 && burns.failed() > 0 && traps > 0.0,
            "the budget was not used up, or nothing crashed; {noise}"
        );
        turn
    })
}

fn noisy() -> String {
    tenant(NOISY, &format!("cpu: {}ms/s", BUDGET.as_millis()), &["burn", "crash"])
}

/// Let in as often as the noisy one has time for.
fn calm(burn: Duration) -> String {
    tenant(CALM, &format!("requests: {}/s", BUDGET.as_micros() / burn.as_micros()), &["calm"])
}

/// A tenant with a limit, and with plugins that have a path each.
fn tenant(name: &str, limit: &str, plugins: &[&str]) -> String {
    let plugin = |name: &&str| format!(r#"{name}: {{ module: "file:{name}.wasm" }}"#);
    let route = |name: &&str| {
        format!("  - {{ name: {name}, match: {{ path: /{name} }}, upstream: shared, filters: [{{ plugin: {name} }}] }}")
    };
    let joined = |of: &dyn Fn(&&str) -> String, by: &str| plugins.iter().map(of).collect::<Vec<_>>().join(by);
    format!(
        r#"hosts: [{host}]
limits: {{ {limit} }}
plugins: {{ {plugins} }}
filters: [{{ plugin: banner, config: {{ header: {header}, value: {name} }} }}]
routes:
{routes}
"#,
        host = files::host(name),
        plugins = joined(&plugin, ", "),
        header = files::HEADER,
        routes = joined(&route, "\n"),
    )
}

/// A guest that keeps its worker busy for so long with each request's head.
fn burning(time: Duration) -> Result<Vec<u8>> {
    guest(&format!(
        r#"(local $until i64) (local $turns i32)
        (local.set $until (i64.add (call $now) (i64.const {})))
        (loop $look
            (local.set $turns (i32.const 1000))
            (loop $turn
                (br_if $turn (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
            (br_if $look (i64.lt_u (call $now) (local.get $until))))
        (i32.const 0)"#,
        time.as_nanos()
    ))
}

/// A guest that has nothing to do with a request's head.
fn returning() -> Result<Vec<u8>> {
    guest("(i32.const 0)")
}

/// A guest that traps with each request's head.
fn crashing() -> Result<Vec<u8>> {
    guest("(unreachable)")
}

fn guest(on_request_headers: &str) -> Result<Vec<u8>> {
    let text = format!(
        r#"(module
        (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
        (memory (export "memory") 2)
        (func $now (result i64)
            (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 8)))
            (i64.load (i32.const 8)))
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 65536))
        (func (export "proxy_on_context_create") (param i32 i32))
        (func (export "proxy_on_delete") (param i32))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        {on_request_headers}))"#
    );
    Ok(wat::parse_str(text)?)
}
