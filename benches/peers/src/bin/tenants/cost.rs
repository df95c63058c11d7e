//! What a request costs with few tenants, and with many.
//!
//! The gateways run side by side and are asked in turns, a fixed number of requests each time, so a slow minute of the machine
//! falls on all of them. A ratio is taken within a round, and then its median over the rounds.

use anyhow::{Context as _, Result};
use portcullis_measure::median;
use portcullis_measure::target::Target;

use crate::options::Options;
use crate::rig::{Gateway, Rig};
use crate::{files, judged, load};

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
    let [few, rest @ ..] = options.sizes;
    let measured = measure(rig, options).map_err(|why| format!("{why:#}"));
    let target = |(size, index): (usize, usize)| {
        let ratio = match &measured {
            Ok(ratios) => ratios.get(index).copied().context("there was no round"),
            Err(why) => Err(anyhow::anyhow!("{why}")),
        };
        judged(format!("cost: CPU of a request with {size} tenants, of that with {few}"), LIMIT, "×", ratio)
    };
    rest.into_iter().zip(1..).map(target).collect()
}

/// The ratios for the same number of tenants asked. Those for all of them are printed: more are in use there, and memory is not free.
fn measure(rig: &Rig, options: &Options) -> Result<Vec<f64>> {
    let [few, ..] = options.sizes;
    let mut subjects: Vec<Subject> = Vec::new();
    for size in options.sizes {
        let files = rig.files(&format!("cost-{size}"), WORKERS)?;
        files.tenants(size)?;
        let gateway = rig.start(&files, &files::nth(0)).with_context(|| format!("with {size} tenants"))?;
        subjects.push(Subject { size, gateway, asked: Vec::new(), rounds: Vec::new() });
    }
    let same = rounds(&mut subjects, options.rounds, |_| few).context("a few of the tenants asked")?;
    report(&subjects, &format!("{few} of them asked"), &same);
    let all = rounds(&mut subjects, options.rounds, |size| size).context("all of the tenants asked")?;
    report(&subjects, "all of them asked", &all);
    Ok(same)
}

/// Measures all, and returns each one's cost as a part of the first one's.
fn rounds(subjects: &mut [Subject], rounds: usize, asked: impl Fn(usize) -> usize) -> Result<Vec<f64>> {
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
            let before = subject.gateway.process.cpu_seconds()?;
            subject.ask(REQUESTS)?;
            subject.rounds.push((subject.gateway.process.cpu_seconds()? - before) * 1e6 / REQUESTS as f64);
        }
    }
    let first = subjects.first().map(|subject| subject.rounds.clone()).unwrap_or_default();
    let ratio = |subject: &Subject| {
        median(subject.rounds.iter().zip(&first).map(|(cost, first)| cost / first).collect()).unwrap_or(f64::NAN)
    };
    Ok(subjects.iter().map(ratio).collect())
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
