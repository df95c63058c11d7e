//! How much memory a gateway takes with many tenants, of which a tenth is in use.

use anyhow::Result;
use portcullis_measure::target::Target;

use crate::options::Options;
use crate::rig::Rig;
use crate::{files, judged, load};

const LIMIT_MIB: f64 = 1536.0;
const WORKERS: usize = 2;
/// The system spreads connections over the workers by chance; that one gets none of so many, happens once in 30,000 times.
const CONNECTIONS: usize = 16;

/// With the largest number of tenants.
pub(crate) fn run(rig: &Rig, options: &Options) -> Vec<Target> {
    let [_, _, size] = options.sizes;
    let used = size.div_ceil(10);
    let what = format!("density: {size} tenants, {used} of them in use, two workers: resident");
    judged(&measure(rig, size, used), [(what, LIMIT_MIB, "MiB", |mib| *mib)])
}

/// Each tenant that is used gets a request over every connection, so it has its VM on both workers.
fn measure(rig: &Rig, size: usize, used: usize) -> Result<f64> {
    let files = rig.files("density", WORKERS)?;
    files.tenants(size)?;
    let gateway = rig.start(&files, &files::nth(0))?;
    let vms = || gateway.metric("portcullis_filter_instances", "state=\"running\"");
    eprintln!("density: {:.0} MiB and {} VMs before use", gateway.process.resident_mib(), vms()?);
    load::hurried(gateway.public, &files::spread(used, size), CONNECTIONS, used * CONNECTIONS)?;
    let resident = gateway.process.resident_mib();
    eprintln!("density: {resident:.0} MiB and {} VMs in use", vms()?);
    Ok(resident)
}
