//! What was measured, as a table for people and as JSON for programs.

use std::fmt::{self, Display, Formatter, Write as _};
use std::path::{Path, PathBuf};

use portcullis_measure::median;

use super::peer::{Filters, Peer};

/// A gateway with a filter chain, and its rounds so far.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) peer: Peer,
    pub(super) filters: Filters,
    pub(super) program: PathBuf,
    pub(super) rounds: Vec<Round>,
}

/// The figures of one round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    pub(super) requests_per_second: f64,
    pub(super) cpu_us: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) resident_mib: f64,
    /// The part of the gateway's core that others used meanwhile, of 1.
    pub(super) others: f64,
}

impl Subject {
    /// Not measured yet.
    pub(super) fn new(peer: Peer, filters: Filters, program: &Path) -> Self {
        Self { peer, filters, program: program.to_path_buf(), rounds: Vec::new() }
    }

    fn each(&self, figure: impl Fn(&Round) -> f64) -> Vec<f64> {
        self.rounds.iter().map(figure).collect()
    }
}

impl Display for Subject {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:<10} {:<9}", self.peer.name(), self.filters.describe())
    }
}

impl Display for Round {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { requests_per_second, cpu_us, p50_ms, p99_ms, resident_mib, others: _ } = self;
        write!(f, "{requests_per_second:>7.0}/s {cpu_us:>6.2} µs  p50 {p50_ms:.2} ms  p99 {p99_ms:.2} ms  ")?;
        write!(f, "{resident_mib:.1} MiB")
    }
}

/// A row per subject: medians, and the range of the figure that matters most.
pub(super) fn markdown(subjects: &[Subject]) -> String {
    let mut table = String::from(
        "| gateway | filters | requests/s | CPU µs/request | (min–max) | p50 ms | p99 ms | RSS MiB |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for subject in subjects {
        let middle = |figure: fn(&Round) -> f64| median(subject.each(figure)).unwrap_or(f64::NAN);
        let cpu = subject.each(|round| round.cpu_us);
        let least = cpu.iter().copied().fold(f64::INFINITY, f64::min);
        let most = cpu.iter().copied().fold(0.0, f64::max);
        let row = format!(
            "| {} | {} | {:.0} | {:.2} | {least:.2}–{most:.2} | {:.2} | {:.2} | {:.1} |\n",
            subject.peer.name(),
            subject.filters.describe(),
            middle(|round| round.requests_per_second),
            middle(|round| round.cpu_us),
            middle(|round| round.p50_ms),
            middle(|round| round.p99_ms),
            middle(|round| round.resident_mib),
        );
        table.push_str(&row);
    }
    table
}

/// How far the figures can be trusted: a quiet machine stays below a few percent.
pub(super) fn disturbance(subjects: &[Subject]) -> String {
    let shares: Vec<f64> = subjects.iter().flat_map(|subject| subject.each(|round| round.others)).collect();
    let most = shares.iter().copied().fold(0.0, f64::max) * 100.0;
    let middle = median(shares).unwrap_or(f64::NAN) * 100.0;
    format!("others on the gateway's core: {middle:.0} % of the time in the median round, {most:.0} % in the worst")
}

/// Every round of every subject. Written by hand: names without special characters, and numbers.
pub(super) fn json(subjects: &[Subject], seconds: u32) -> String {
    let subjects: Vec<String> = subjects.iter().map(json_subject).collect();
    format!("{{\n  \"seconds_per_round\": {seconds},\n  \"subjects\": [\n{}\n  ]\n}}\n", subjects.join(",\n"))
}

fn json_subject(subject: &Subject) -> String {
    let (peer, filters) = (subject.peer.name(), subject.filters.describe());
    let mut text = format!("    {{ \"gateway\": \"{peer}\", \"filters\": \"{filters}\", \"rounds\": [");
    for (index, round) in subject.rounds.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let Round { requests_per_second, cpu_us, p50_ms, p99_ms, resident_mib, others } = round;
        let written = write!(
            text,
            "{comma}\n      {{ \"requests_per_second\": {requests_per_second}, \"cpu_us_per_request\": {cpu_us:.3}, \
             \"p50_ms\": {p50_ms:.3}, \"p99_ms\": {p99_ms:.3}, \"resident_mib\": {resident_mib:.2}, \"others\": {others:.3} }}"
        );
        written.expect("a string takes whatever is written to it");
    }
    text.push_str("\n    ] }");
    text
}
