//! `cargo xtask bench density`: what an idle VM weighs and how long one takes to start, ten thousand in one process, and what one of
//! Envoy's weighs.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::peer::{Filters, Peer, release_binary};
use super::rig::Rig;
use crate::plugins;

const OURS: usize = 10_000;
/// More of them take gigabytes.
const ENVOYS: usize = 200;

/// Weighs a guest that touches no memory, a filter that does nothing, and one made with the SDK.
///
/// # Errors
/// When something cannot be built or started, or takes more than it should. Without Envoy there are only our own figures.
pub(super) fn run() -> Result<()> {
    plugins::build()?;
    let density = release_binary("portcullis-benches", "density")?;
    let mut missed = false;
    for module in [None, Some("noop"), Some("one-header-sdk")] {
        println!("{}", module.unwrap_or("a guest that touches no memory"));
        let mut density = Command::new(&density);
        density.arg(OURS.to_string());
        density.args(module.map(|name| plugins::output_dir().join(format!("{name}.wasm"))));
        missed |= !density.status()?.success();
    }
    match Peer::Envoy.obtain() {
        Ok(program) => {
            let rig = Rig::prepare()?;
            let weigh = |vms: usize| -> Result<f64> {
                let gateway = rig.start(Peer::Envoy, &program, Filters::Vms(vms)).context("Envoy does not start")?;
                Ok(gateway.process.resident_mib())
            };
            let (one, all) = (weigh(1)?, weigh(ENVOYS + 1)?);
            let each = (all - one) * 1024.0 * 1024.0 / ENVOYS as f64;
            println!("Envoy, one worker, noop     {ENVOYS} VMs");
            println!("resident per VM          {each:.0} bytes, with the one that its main thread keeps for each");
        }
        Err(why) => eprintln!("Envoy is not weighed: {why:#}"),
    }
    ensure!(!missed, "a VM takes more than it should");
    Ok(())
}
