//! What a request costs with few tenants, and with many.
//!
//! The gateways run side by side and are asked in turns, a fixed number of requests each time, so a slow minute of the machine
//! falls on all of them. A ratio is taken within a round, and then its median over the rounds.

use std::time::Instant;

use anyhow::{Context as _, Result};
use portcullis_measure::median;
use portcullis_measure::process::core_seconds;
use portcullis_measure::target::Target;

use crate::options::Options;
use crate::rig::{Gateway, Rig};
use crate::{Row, files, judged, load};

const LIMIT: f64 = 1.05;
const WORKERS: usize = 1;
const CONNECTIONS: usize = 16;
/// The kernel counts processor time in hundredths of a second: so many that one of them is below a hundredth of the whole.
const REQUESTS: usize = 50_000;

/// A gateway, and those of its tenants that are asked.
struct Subject {
    size: usize,
    gateway: Gateway,
    asked: Vec<String>,
    /// Microseconds of processor time for a request, by round.
    rounds: Vec<f64>,
}

/// With each number of tenants, of that with the smallest.
pub(crate) fn run(rig: &Rig, options: &Options) -> Vec<Target> {
    let [few, some, many] = options.sizes;
    let what = |size| format!("cost: CPU of a request with {size} tenants, of that with {few}");
    let rows: [Row<[f64; 3]>; 2] =
        [(what(some), LIMIT, "×", |[_, ratio, _]| *ratio), (what(many), LIMIT, "×", |[_, _, ratio]| *ratio)];
    judged(&measure(rig, options), rows)
}

/// The ratios for the same number of tenants asked. Those for all of them are printed: more are in use there, and memory is not free.
fn measure(rig: &Rig, options: &Options) -> Result<[f64; 3]> {
    let [few, some, many] = options.sizes;
    let mut subjects = [start(rig, few)?, start(rig, some)?, start(rig, many)?];
    let same = rounds(&mut subjects, options.rounds, |_| few).context("a few of the tenants asked")?;
    report(&subjects, &format!("{few} of them asked"), &same);
    let all = rounds(&mut subjects, options.rounds, |size| size).context("all of the tenants asked")?;
    report(&subjects, "all of them asked", &all);
    Ok(same)
}

fn start(rig: &Rig, size: usize) -> Result<Subject> {
    let files = rig.files(&format!("cost-{size}"), WORKERS)?;
    files.tenants(size)?;
    let gateway = rig.start(&files, &files::nth(0)).with_context(|| format!("with {size} tenants"))?;
    Ok(Subject { size, gateway, asked: Vec::new(), rounds: Vec::new() })
}

/// Measures all, and returns each one's cost as a part of the first one's.
fn rounds(subjects: &mut [Subject; 3], rounds: usize, asked: impl Fn(usize) -> usize) -> Result<[f64; 3]> {
    let mut others = Vec::new();
    for subject in &mut *subjects {
        subject.asked = files::spread(asked(subject.size), subject.size);
        subject.rounds.clear();
        // Each has its VM, and the gateway its buffers, before it counts.
        subject.ask(subject.asked.len().max(REQUESTS / 5))?;
    }
    for round in 0..rounds {
        // There and back, since who comes later may find a warmer machine.
        let mut turn: Vec<_> = subjects.iter_mut().collect();
        if round % 2 == 1 {
            turn.reverse();
        }
        for subject in turn {
            let (began, core, before) = (Instant::now(), core_seconds()?, subject.gateway.process.cpu_seconds()?);
            subject.ask(REQUESTS)?;
            let used = subject.gateway.process.cpu_seconds()? - before;
            subject.rounds.push(used * 1e6 / REQUESTS as f64);
            others.push((core_seconds()? - core - used).max(0.0) / began.elapsed().as_secs_f64() * 100.0);
        }
    }
    println!("cost: others on the gateway's core: {:.0} % of the time", median(others).unwrap_or(f64::NAN));
    let [first, ..] = &*subjects;
    let ratio = |subject: &Subject| {
        median(subject.rounds.iter().zip(&first.rounds).map(|(cost, first)| cost / first).collect()).unwrap_or(f64::NAN)
    };
    Ok(subjects.each_ref().map(ratio))
}

impl Subject {
    /// At least so many requests, evenly over the connections.
    fn ask(&self, requests: usize) -> Result<()> {
        load::hurried(self.gateway.public, &self.asked, CONNECTIONS, requests.next_multiple_of(CONNECTIONS))
    }
}

fn report(subjects: &[Subject], asked: &str, ratios: &[f64]) {
    for (subject, ratio) in subjects.iter().zip(ratios) {
        let cost = median(subject.rounds.clone()).unwrap_or(f64::NAN);
        println!("cost: {:>6} tenants, {asked}: CPU {cost:.2} µs/request, {ratio:.3} ×", subject.size);
    }
}
