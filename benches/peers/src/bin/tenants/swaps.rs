//! Whether a tenant's module can be swapped again and again while requests are answered, and what that leaves behind.
//!
//! Two variants of the module take turns; they differ by a custom section, and so by digest. Meanwhile that tenant and another one
//! are asked at an even rate, and no answer may be missing or somebody else's. Memory is the median over the swaps of a window:
//! one after the warm-up, one at the end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use portcullis_measure::median;
use portcullis_measure::target::Target;

use crate::load::{Outcome, Paced};
use crate::options::Options;
use crate::rig::{Gateway, Rig};
use crate::{files, judged};

const WORKERS: usize = 2;
const LIMIT: f64 = 1.05;
/// What the allocator keeps for later, and what runs twice while one takes over from the other, is there after these.
const WARM_UP: usize = 500;
/// Swaps over which memory is looked at.
const WINDOW: usize = 100;
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
    let mut window = |count: usize| -> Result<f64> {
        let mut resident = Vec::new();
        for (number, module) in turn.by_ref().take(count).enumerate() {
            gateway.admin.put(&path, module)?;
            if number + WINDOW >= count {
                resident.push(gateway.process.resident_mib());
            }
        }
        median(resident).context("there was no swap")
    };
    let before = window(WARM_UP)?;
    eprintln!("swaps: {before:.1} MiB after {WARM_UP} for warming up");
    let (began, part) = (Instant::now(), swaps.div_ceil(10));
    let (mut done, mut after) = (0, before);
    while done < swaps {
        let count = part.min(swaps - done);
        after = window(count)?;
        done += count;
        eprintln!("swaps: {after:.1} MiB after {done}");
    }
    println!(
        "swaps: {before:.1} MiB before, {after:.1} MiB after; {:.1?} for each",
        began.elapsed() / u32::try_from(swaps)?
    );
    Ok(after / before)
}

/// The module with a custom section behind it: kind 0, then its length, in which a name of one byte with its own length.
fn variant(module: &[u8], name: u8) -> Vec<u8> {
    [module, &[0, 2, 1, name]].concat()
}
