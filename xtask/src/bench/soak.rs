//! `cargo xtask bench soak`: whether memory stays flat over very many requests through three filters.

use anyhow::{Context as _, Result, bail, ensure};

use super::peer::{Filters, Peer};
use super::rig::Rig;
use crate::plugins;

const REQUESTS: f64 = 1_000_000.0;
/// Seconds between two looks at the gateway's memory.
const SLICE: u32 = 5;
/// What the last look may show above the first: an allocator's caches settle late.
const SLACK_MIB: f64 = 4.0;

/// Sends a million requests, or as many as are asked for, and prints what the gateway weighs on the way.
///
/// # Errors
/// When a request fails, or the gateway has grown.
pub(super) fn run(args: &[String]) -> Result<()> {
    let requests = match args {
        [] => REQUESTS,
        [flag, value] if flag == "--requests" => value.parse().context("`--requests` takes a number")?,
        _ => bail!("{}", super::USAGE),
    };
    plugins::build()?;
    let program = Peer::Portcullis.obtain()?;
    let rig = Rig::prepare()?;
    let mut gateway = rig.start(Peer::Portcullis, &program, Filters::ThreeHeaders)?;
    let (mut sent, mut looks) = (0.0, Vec::new());
    while sent < requests {
        sent += rig.load(&mut gateway, SLICE)?.requests;
        let resident = gateway.process.resident_mib();
        println!("{sent:>9.0} requests  {resident:.1} MiB");
        looks.push(resident);
    }
    let (first, last) = looks.first().zip(looks.last()).context("nothing was sent")?;
    let grown = last - first;
    ensure!(grown <= SLACK_MIB, "the gateway has grown by {grown:.1} MiB");
    println!("flat: {grown:+.1} MiB from the first look to the last");
    Ok(())
}
