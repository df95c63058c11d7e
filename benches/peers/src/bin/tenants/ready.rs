//! How long a gateway takes from its start until it is ready and a tenant is answered.

use anyhow::{Context as _, Result};
use portcullis_measure::median;
use portcullis_measure::target::Target;

use crate::options::Options;
use crate::rig::Rig;
use crate::{files, judged};

const LIMIT_SECONDS: f64 = 2.0;
const WORKERS: usize = 2;

/// With the middle number of tenants.
pub(crate) fn run(rig: &Rig, options: &Options) -> Vec<Target> {
    let [_, size, _] = options.sizes;
    let what = format!("ready: {size} tenants, from the start to the first answer");
    judged(&measure(rig, size, options.rounds), [(what, LIMIT_SECONDS, "s", |seconds| *seconds)])
}

/// A first start, which is not counted, compiles the module and leaves it in the cache.
fn measure(rig: &Rig, size: usize, rounds: usize) -> Result<f64> {
    let files = rig.files("ready", WORKERS)?;
    files.tenants(size)?;
    rig.start(&files, &files::nth(0))?;
    let mut took = Vec::new();
    for tenant in files::spread(rounds, size).iter().cycle().take(rounds) {
        let gateway = rig.start(&files, tenant)?;
        eprintln!("ready, {size} tenants: {:.1?}", gateway.took);
        took.push(gateway.took.as_secs_f64());
    }
    median(took).context("there was no round")
}
