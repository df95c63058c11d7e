//! Whether a tenant's module can be swapped again and again while requests are answered, and what that leaves behind.
//!
//! Two variants of the module take turns; they differ by a custom section, and so by digest. Meanwhile that tenant and another one
//! are asked all the time, and no answer may be missing or somebody else's. Memory is looked at while nothing is swapped, after the
//! warm-up and at the end: with what the allocator keeps for later it goes up and down by several MiB, so each is the median of a few
//! rests with some swaps between them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use portcullis_measure::median;
use portcullis_measure::target::Target;

use crate::load::{Outcome, Paced};
use crate::options::Options;
use crate::rig::{Gateway, Rig};
use crate::{files, judged};

const WORKERS: usize = 2;
const LIMIT: f64 = 1.05;
/// What the allocator keeps for later is there after these.
const WARM_UP: usize = 4000;
/// How often it rests before and after, and how many swaps there are between two rests: so many that the allocator has moved on.
const RESTS: usize = 5;
const BETWEEN: usize = 1000;
/// Until the last of what was swapped has gone.
const REST: Duration = Duration::from_secs(3);
/// How often memory is looked at then, and how many times.
const LOOK: Duration = Duration::from_millis(100);
const LOOKS: usize = 20;
/// After each of so many parts of the swaps it is told.
const PARTS: usize = 5;
/// The tenant whose module is swapped, and another one.
const SWAPPED: &str = "swapped";
const OTHER: &str = "other";
const CONNECTIONS: u32 = 4;
/// Requests per second to each of the two.
const RATE: u32 = 400;
const MODULE: &str = "policy.wasm";

/// What came of it.
struct Swapped {
    failed: usize,
    /// Memory after, of that before.
    grown: f64,
}

/// Both come from the same swaps.
pub(crate) fn run(rig: &Rig, options: &Options) -> Vec<Target> {
    let swaps = options.swaps;
    judged(
        &measure(rig, swaps),
        [
            (format!("swaps: requests that failed over {swaps}"), 0.0, "", |swapped| swapped.failed as f64),
            (format!("swaps: resident after {swaps}, of before"), LIMIT, "×", |swapped| swapped.grown),
        ],
    )
}

fn measure(rig: &Rig, swaps: usize) -> Result<Swapped> {
    let banner = rig.banner()?;
    let files = rig.files("swaps", WORKERS)?;
    files.tenant(OTHER, &files::tenant(OTHER), &[])?;
    let own = format!("plugins: {{ policy: {{ module: \"file:{MODULE}\" }} }}\n{}", files::tenant(SWAPPED));
    files.tenant(SWAPPED, &own.replace("plugin: banner", "plugin: policy"), &[(MODULE, &banner)])?;
    let gateway = rig.start(&files, SWAPPED)?;
    let stop = AtomicBool::new(false);
    let load = |tenant| Paced { address: gateway.public, tenant, path: "/", connections: CONNECTIONS, rate: RATE };
    thread::scope(|scope| {
        let loads = [SWAPPED, OTHER].map(|tenant| (tenant, scope.spawn(|| load(tenant).run(&stop))));
        let swapped = swap(&gateway, &banner, swaps);
        stop.store(true, Ordering::Relaxed);
        let mut failed = 0;
        for (tenant, load) in loads {
            let outcome: Outcome = load.join().map_err(|_| anyhow!("the load's thread panicked"))?;
            println!("swaps: `{tenant}` was answered: {outcome}");
            failed += outcome.failed();
        }
        Ok(Swapped { failed, grown: swapped? })
    })
}

/// Swaps for the warm-up, and then as often as is judged; by what memory has grown.
fn swap(gateway: &Gateway, banner: &[u8], swaps: usize) -> Result<f64> {
    let variants = [variant(banner, b'a'), variant(banner, b'b')];
    let path = format!("{SWAPPED}/modules/{MODULE}");
    let mut turn = variants.iter().cycle();
    let mut swap = |count: usize| turn.by_ref().take(count).try_for_each(|module| gateway.admin.put(&path, module));
    swap(WARM_UP)?;
    let before = settled(gateway, &mut swap)?;
    let mut took = Duration::ZERO;
    let part = swaps.div_ceil(PARTS);
    for done in (0..swaps).step_by(part) {
        let (count, began) = (part.min(swaps - done), Instant::now());
        swap(count)?;
        took += began.elapsed();
        eprintln!("swaps: {:.1} MiB after {}", at_rest(gateway)?, done + count);
    }
    let after = settled(gateway, &mut swap)?;
    println!("swaps: {before:.1} MiB before, {after:.1} MiB after; {:.1?} for each", took / u32::try_from(swaps)?);
    Ok(after / before)
}

/// What is resident at several rests, in the middle.
fn settled(gateway: &Gateway, swap: &mut impl FnMut(usize) -> Result<()>) -> Result<f64> {
    let mut rest = |_| {
        swap(BETWEEN)?;
        at_rest(gateway)
    };
    let rests: Vec<f64> = (0..RESTS).map(&mut rest).collect::<Result<_>>()?;
    eprintln!("swaps: {rests:.1?} MiB at {RESTS} rests");
    median(rests).context("it never rested")
}

/// What is resident while nothing is swapped.
fn at_rest(gateway: &Gateway) -> Result<f64> {
    thread::sleep(REST);
    let look = |_| {
        thread::sleep(LOOK);
        gateway.process.resident_mib()
    };
    median((0..LOOKS).map(look).collect()).context("it was not looked at")
}

/// The module with a custom section behind it: kind 0, then its length, in which a name of one byte with its own length.
fn variant(module: &[u8], name: u8) -> Vec<u8> {
    [module, &[0, 2, 1, name]].concat()
}
