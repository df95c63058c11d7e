//! Whether thousands of tenants fit into one gateway: what `cargo xtask bench tenants` runs.
//!
//! `tenants GATEWAY ORIGIN MODULES OUTPUT [OPTIONS]`: each figure starts gateways of its own, with tenants in the directory
//! `admin.tenants`, and changes them over the admin listener as a control plane would. This program, its threads and the origin
//! stay on one core. A gateway of one worker has the other; one of two workers has both, and shares one of them.
//!
//! It measures to the end whatever is missed, and then fails when something was.

mod add;
mod client;
mod cost;
mod density;
mod files;
mod isolation;
mod load;
mod neighbour;
mod options;
mod ready;
mod rig;
mod swaps;

use std::process::ExitCode;

use anyhow::Result;
use portcullis_measure::target::{Target, markdown};

use crate::options::{Figure, Options};
use crate::rig::Rig;

fn main() -> Result<ExitCode> {
    let (paths, options) = options::parse(std::env::args().skip(1))?;
    let rig = Rig::prepare(paths)?;
    let targets: Vec<Target> = options.figures.iter().flat_map(|figure| measure(&rig, *figure, &options)).collect();
    println!("\n{}", markdown(&targets));
    let missed = targets.iter().filter(|target| !target.met()).count();
    if missed == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    println!("not met: {missed} of {}", targets.len());
    Ok(ExitCode::FAILURE)
}

fn measure(rig: &Rig, figure: Figure, options: &Options) -> Vec<Target> {
    match figure {
        Figure::Add => add::run(rig, options),
        Figure::Ready => ready::run(rig, options),
        Figure::Swaps => swaps::run(rig, options),
        Figure::Density => density::run(rig, options),
        Figure::Cost => cost::run(rig, options),
        Figure::Isolation => isolation::run(rig, options),
        Figure::Neighbour => neighbour::run(rig, options),
    }
}

/// What is judged, the most it may be and in which unit, and where it stands in what was measured.
type Row<T> = (String, f64, &'static str, fn(&T) -> f64);

/// Targets for what was measured at once. What could not be is said now, and counts as missed.
fn judged<T, const ROWS: usize>(measured: &Result<T>, rows: [Row<T>; ROWS]) -> Vec<Target> {
    if let (Err(why), [(what, ..), ..]) = (measured, rows.as_slice()) {
        eprintln!("not measured: {what}: {why:#}");
    }
    let measured = measured.as_ref().ok();
    let target = |(what, limit, unit, figure): Row<T>| Target { what, unit, limit, measured: measured.map(figure) };
    rows.into_iter().map(target).collect()
}
