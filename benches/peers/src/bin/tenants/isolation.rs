//! What it costs a request to have a VM of its own.
//!
//! Two tenants of one gateway have the same module with the same settings, one of them with `isolation: request`. They are asked in
//! turns, a fixed number of requests each time. A ratio is taken within a round, and then its median over the rounds.

use anyhow::{Context as _, Result, ensure};
use portcullis_measure::median;
use portcullis_measure::target::Target;

use crate::options::Options;
use crate::rig::{Gateway, Rig};
use crate::{files, judged, load};

const LIMIT: f64 = 4.0;
const WORKERS: usize = 1;
const CONNECTIONS: usize = 16;
/// The kernel counts processor time in hundredths of a second: so many that one of them is below a hundredth of the whole.
const REQUESTS: usize = 50_000;
const MODULE: &str = "policy.wasm";
const SHARED: &str = "shared";
const ALONE: &str = "alone";

/// Of the plugin `banner`.
pub(crate) fn run(rig: &Rig, options: &Options) -> Vec<Target> {
    let what = "isolation: CPU of a request with a VM of its own, of one without".to_owned();
    judged(&measure(rig, options.rounds), [(what, LIMIT, "×", |ratio| *ratio)])
}

fn measure(rig: &Rig, rounds: usize) -> Result<f64> {
    let banner = rig.banner()?;
    let files = rig.files("isolation", WORKERS)?;
    for (name, isolation) in [(SHARED, "vm"), (ALONE, "request")] {
        let plugin = format!("plugins: {{ policy: {{ module: \"file:{MODULE}\", isolation: {isolation} }} }}");
        let text = files::tenant(name).replace("plugin: banner", "plugin: policy");
        files.tenant(name, &format!("{plugin}\n{text}"), &[(MODULE, &banner)])?;
    }
    let gateway = rig.start(&files, SHARED)?;
    // Each has its VM, and the gateway its buffers, before it counts.
    [SHARED, ALONE].iter().try_for_each(|tenant| ask(&gateway, tenant, REQUESTS / 5))?;
    let (mut costs, mut ratios) = ([Vec::new(), Vec::new()], Vec::new());
    for round in 0..rounds {
        // There and back, since who comes later may find a warmer machine.
        let (shared, alone) = if round % 2 == 0 {
            let shared = cost(&gateway, SHARED)?;
            (shared, cost(&gateway, ALONE)?)
        } else {
            let alone = cost(&gateway, ALONE)?;
            (cost(&gateway, SHARED)?, alone)
        };
        ratios.push(alone / shared);
        costs.iter_mut().zip([shared, alone]).for_each(|(costs, cost)| costs.push(cost));
    }
    let copies = gateway.metric("portcullis_filter_copies_total", &format!("tenant=\"{ALONE}\""))?;
    ensure!(copies >= (rounds * REQUESTS) as f64, "only {copies} requests had a VM of their own");
    let [shared, alone] = costs.map(|costs| median(costs).unwrap_or(f64::NAN));
    println!("isolation: CPU {shared:.2} µs/request in a VM that is shared, {alone:.2} in one of its own");
    median(ratios).context("there was no round")
}

/// Microseconds of processor time for a request.
fn cost(gateway: &Gateway, tenant: &str) -> Result<f64> {
    let before = gateway.process.cpu_seconds()?;
    ask(gateway, tenant, REQUESTS)?;
    Ok((gateway.process.cpu_seconds()? - before) * 1e6 / REQUESTS as f64)
}

fn ask(gateway: &Gateway, tenant: &str, requests: usize) -> Result<()> {
    load::hurried(gateway.public, &[tenant.to_owned()], CONNECTIONS, requests)
}
