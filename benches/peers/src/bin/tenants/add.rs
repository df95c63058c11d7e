//! How long it takes from the beginning of a new tenant's `PUT` to its first answer.

use std::time::Instant;

use anyhow::{Context as _, Result};
use portcullis_measure::median;
use portcullis_measure::target::Target;

use crate::client::Connection;
use crate::options::Options;
use crate::rig::{Rig, served};
use crate::{files, judged};

const LIMIT_MS: f64 = 50.0;
const WORKERS: usize = 2;

/// With each number of tenants. The module is in use already: it is the shared one.
pub(crate) fn run(rig: &Rig, options: &Options) -> Vec<Target> {
    let target = |size: usize| {
        let what = format!("add: a tenant beside {size} others, to its first answer");
        judged(&measure(rig, size, options.rounds), [(what, LIMIT_MS, "ms", |ms| *ms)])
    };
    options.sizes.into_iter().flat_map(target).collect()
}

/// The tenant goes away after each round, so that the next one finds as many.
fn measure(rig: &Rig, size: usize, rounds: usize) -> Result<f64> {
    let files = rig.files("add", WORKERS)?;
    files.tenants(size)?;
    let gateway = rig.start(&files, &files::nth(0))?;
    let mut connection = Connection::open(gateway.public)?;
    let mut took = Vec::new();
    for round in 0..rounds {
        let name = format!("new{round}");
        let began = Instant::now();
        gateway.admin.put(&name, files::tenant(&name).as_bytes())?;
        let put = began.elapsed();
        served(&mut connection, &name)?;
        let all = began.elapsed();
        eprintln!("add, {size} tenants: {all:.1?}, of which {put:.1?} until the change was confirmed");
        took.push(all.as_secs_f64() * 1e3);
        gateway.admin.delete(&name)?;
    }
    median(took).context("there was no round")
}
