//! How long it takes from the beginning of a new tenant's `PUT` to its first answer, and to the refusal of one that claims a host of
//! another's.

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

/// In milliseconds.
struct Took {
    served: f64,
    refused: f64,
}

/// With each number of tenants. The module is in use already: it is the shared one.
pub(crate) fn run(rig: &Rig, options: &Options) -> Vec<Target> {
    let target = |size: usize| {
        let what = |end| format!("add: a tenant beside {size} others, to its {end}");
        judged(
            &measure(rig, size, options.rounds),
            [
                (what("first answer"), LIMIT_MS, "ms", |took| took.served),
                (what("refusal"), LIMIT_MS, "ms", |took| took.refused),
            ],
        )
    };
    options.sizes.into_iter().flat_map(target).collect()
}

/// The tenant goes away after each round, so that the next one finds as many.
fn measure(rig: &Rig, size: usize, rounds: usize) -> Result<Took> {
    let files = rig.files("add", WORKERS)?;
    files.tenants(size)?;
    let gateway = rig.start(&files, &files::nth(0))?;
    let mut connection = Connection::open(gateway.public)?;
    let (mut took, mut refusals) = (Vec::new(), Vec::new());
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
        let taken = files::tenant(&files::nth(size / 2));
        let began = Instant::now();
        gateway.admin.put_in_vain(&name, taken.as_bytes())?;
        refusals.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let [served, refused] = [took, refusals].map(median);
    let (served, refused) = served.zip(refused).context("there was no round")?;
    Ok(Took { served, refused })
}
