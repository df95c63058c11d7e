//! `cargo xtask bench proxy`: gateways side by side.
//!
//! The gateway has one core, the origin and the load generator share another. A round measures every subject once, each
//! freshly started, before the next round begins: when the machine's speed drifts, it drifts for all of them. The figure
//! to trust is processor time per request; rates and latencies also depend on what the load generator can do.

use std::fs;
use std::time::Instant;

use anyhow::{Result, ensure};
use portcullis_measure::process::core_seconds;
use portcullis_measure::target::markdown;

use super::options::Options;
use super::peer::Peer;
use super::report::{self, Round, Subject};
use super::rig::Rig;
use super::target;
use crate::plugins;

const WARM_UP_SECONDS: u32 = 1;

/// Measures, prints the tables and leaves the raw figures as JSON.
pub(super) fn run(options: &Options) -> Result<()> {
    let rig = Rig::prepare()?;
    let mut subjects = subjects(&options.peers)?;
    ensure!(!subjects.is_empty(), "there is nothing to measure");
    for round in 1..=options.rounds {
        subjects.retain_mut(|subject| match measure(&rig, subject, options.seconds) {
            Ok(figures) => {
                eprintln!("round {round}/{}  {subject}  {figures}", options.rounds);
                subject.rounds.push(figures);
                true
            }
            Err(why) => {
                eprintln!("{subject} is left out: {why:#}");
                false
            }
        });
    }
    let targets = target::judge(&subjects);
    println!("\n{}\n{}", report::markdown(&subjects), markdown(&targets));
    println!("{}\n", report::disturbance(&subjects));
    let json = rig.output.join("proxy.json");
    fs::write(&json, report::json(&subjects, options.seconds))?;
    println!("raw figures: {}", json.display());
    Ok(())
}

/// Everything that can be measured here, in order. A peer that is missing is named and passed over.
fn subjects(peers: &[Peer]) -> Result<Vec<Subject>> {
    if peers.iter().any(|peer| peer.cases().len() > 1) {
        plugins::build()?;
    }
    let mut subjects = Vec::new();
    for &peer in peers {
        match peer.obtain() {
            Ok(program) => subjects.extend(peer.cases().iter().map(|&case| Subject::new(peer, case, &program))),
            Err(why) => eprintln!("{} is left out: {why:#}", peer.name()),
        }
    }
    Ok(subjects)
}

/// One round of one subject, from its start to its end.
fn measure(rig: &Rig, subject: &Subject, seconds: u32) -> Result<Round> {
    let mut gateway = rig.start(subject.peer, &subject.program, subject.filters)?;
    rig.load(&mut gateway, WARM_UP_SECONDS)?;
    let (began, core_before, before) = (Instant::now(), core_seconds()?, gateway.process.cpu_seconds()?);
    let load = rig.load(&mut gateway, seconds)?;
    let used = gateway.process.cpu_seconds()? - before;
    let others = (core_seconds()? - core_before - used).max(0.0) / began.elapsed().as_secs_f64();
    Ok(Round {
        requests_per_second: load.requests_per_second,
        cpu_us: used * 1e6 / load.requests,
        p50_ms: load.p50_ms,
        p99_ms: load.p99_ms,
        resident_mib: gateway.process.resident_mib(),
        others,
    })
}
