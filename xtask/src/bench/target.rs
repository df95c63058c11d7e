//! What must stay fast: the project's targets for requests, and whether they were met.
//!
//! A ratio is taken within a round and then its median over the rounds, so a slow minute of the machine falls on both
//! sides of it. It can differ in the last digit from the ratio of the medians in the table.

use portcullis_measure::median;
use portcullis_measure::target::Target;

use super::peer::{Filters, Peer};
use super::report::{Round, Subject};

/// Holds what was measured against every target.
pub(super) fn judge(subjects: &[Subject]) -> Vec<Target> {
    let rounds = |peer, filters| {
        let subject = subjects.iter().find(|subject| subject.peer == peer && subject.filters == filters);
        subject.map(|subject| subject.rounds.as_slice()).unwrap_or_default()
    };
    let ours = |filters| rounds(Peer::Portcullis, filters);
    let envoy = |filters| rounds(Peer::Envoy, filters);
    let (plain, three) = (ours(Filters::None), ours(Filters::ThreeHeaders));
    let cpu = |ours: &Round, theirs: &Round| ours.cpu_us / theirs.cpu_us;
    let added = |with: &Round, without: &Round| with.cpu_us - without.cpu_us;
    let target = |what: &str, unit, limit, measured| Target { what: what.to_owned(), unit, limit, measured };
    vec![
        target("no filter: CPU, of Envoy's", "×", 0.60, paired(plain, envoy(Filters::None), cpu)),
        target(
            "no filter: CPU, of bare hyper's",
            "×",
            1.10,
            paired(plain, rounds(Peer::BareHyper, Filters::None), cpu),
        ),
        target("a no-op filter adds", "µs", 0.8, paired(ours(Filters::Noop), plain, added)),
        target("a headers filter adds", "µs", 1.2, paired(ours(Filters::Headers), plain, added)),
        target("each of three headers filters adds", "µs", 1.2, paired(three, plain, |a, b| added(a, b) / 3.0)),
        target("three headers filters: CPU, of Envoy's", "×", 0.45, paired(three, envoy(Filters::ThreeHeaders), cpu)),
        target(
            "three headers filters: p99, of Envoy's",
            "×",
            0.6,
            paired(three, envoy(Filters::ThreeHeaders), |ours, theirs| ours.p99_ms / theirs.p99_ms),
        ),
    ]
}

fn paired(ours: &[Round], theirs: &[Round], figure: impl Fn(&Round, &Round) -> f64) -> Option<f64> {
    median(ours.iter().zip(theirs).map(|(ours, theirs)| figure(ours, theirs)).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use portcullis_measure::target::markdown;

    use super::*;

    fn subject(peer: Peer, filters: Filters, cpu_us: &[f64]) -> Subject {
        let round = |&cpu_us: &f64| Round {
            requests_per_second: 1.0,
            cpu_us,
            p50_ms: 1.0,
            p99_ms: 2.0,
            resident_mib: 1.0,
            others: 0.0,
        };
        let mut subject = Subject::new(peer, filters, Path::new("x"));
        subject.rounds = cpu_us.iter().map(round).collect();
        subject
    }

    #[test]
    fn a_ratio_is_taken_within_a_round_so_a_slow_round_does_not_shift_it() {
        let subjects = [
            subject(Peer::Portcullis, Filters::None, &[10.0, 30.0, 11.0]),
            subject(Peer::Envoy, Filters::None, &[20.0, 60.0, 22.0]),
        ];
        let targets = judge(&subjects);
        let first = targets.first().expect("there are targets");
        assert_eq!((first.measured, first.verdict()), (Some(0.5), "pass"));
    }

    #[test]
    fn a_target_without_its_peers_is_neither_met_nor_missed() {
        let targets = judge(&[subject(Peer::Portcullis, Filters::None, &[10.0])]);
        assert!(targets.iter().all(|target| target.verdict() == "not measured"));
    }

    #[test]
    fn a_figure_above_its_limit_is_a_miss() {
        let subjects =
            [subject(Peer::Portcullis, Filters::None, &[10.0]), subject(Peer::Portcullis, Filters::Noop, &[11.0])];
        let table = markdown(&judge(&subjects));
        assert!(table.contains("| a no-op filter adds | 0.80 µs | 1.00 µs | MISS |"), "{table}");
    }
}
