//! Metric series: which there are, and what each worker has counted in them.
//!
//! A worker joins a series once, on this module's slow path, and then counts in cells of its own. How many there can be [`super::room`]
//! says; what comes too late is counted under `_overflow`.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use super::room::{Ledger, OVERFLOW, Part};

/// Where requests go. Its names come from the configuration only.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Target {
    /// The tenant; empty outside any.
    pub(super) tenant: Arc<str>,
    /// The route's path pattern; empty where no route matched.
    pub(super) pattern: Arc<str>,
    /// The upstream; empty where there is none.
    pub(super) upstream: Arc<str>,
}

/// What tells the requests of a target apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Kind {
    pub(super) target: Target,
    /// A known method, or `_OTHER`.
    pub(super) method: &'static str,
    /// 0: no response was sent.
    pub(super) status: u16,
    /// The protocol's version.
    pub(super) version: &'static str,
    pub(super) error: Fault,
}

/// What went wrong with a request: the label `error_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// The upstream answered with an error.
    Status,
    /// A filter refused the request. Its own words are not bounded, and stay out of metrics.
    Filter,
    /// The gateway ended it: the failure's code word.
    Gateway(&'static str),
}

/// The labels of a series.
pub(super) trait Labels: Clone + Eq + Hash + Ord {
    /// Whose it is.
    fn tenant(&self) -> &Arc<str>;
    /// The series that counts in its stead when there is no room: one of a few.
    fn overflow(&self) -> Self;
    /// The most bytes of its text.
    fn bytes(&self) -> usize;
}

impl Labels for Target {
    fn tenant(&self) -> &Arc<str> {
        &self.tenant
    }

    fn overflow(&self) -> Self {
        let name: Arc<str> = OVERFLOW.into();
        Self { tenant: name.clone(), pattern: name.clone(), upstream: name }
    }

    fn bytes(&self) -> usize {
        super::metrics::bytes_of_target(self)
    }
}

impl Labels for Kind {
    fn tenant(&self) -> &Arc<str> {
        &self.target.tenant
    }

    /// Keeps what tells good from bad: the class of the status, as its lowest, and the error.
    fn overflow(&self) -> Self {
        let status = self.status / 100 * 100;
        Self { target: self.target.overflow(), method: super::metrics::OTHER, status, version: "", error: self.error }
    }

    fn bytes(&self) -> usize {
        super::metrics::bytes_of_kind(self)
    }
}

/// Which worker; its number is never given to another.
pub(super) type WorkerNumber = u64;

/// The series of a metric, and each worker's cells in them.
#[derive(Debug)]
pub(super) struct Series<L, C> {
    cells: HashMap<L, Vec<(WorkerNumber, Arc<C>)>>,
    ledger: Ledger,
}

impl<L: Labels, C: Default> Series<L, C> {
    /// None yet; their text has its place there.
    pub(super) fn in_part(part: &'static Part) -> Self {
        Self { cells: HashMap::new(), ledger: Ledger::of(part) }
    }

    /// The cells in which this worker counts what has these labels. The same again for the same labels: a new revision of the
    /// configuration goes on with the series of the old.
    pub(super) fn join(&mut self, labels: &L, worker: WorkerNumber) -> Arc<C> {
        let labels = self.admit(labels);
        let cells = self.cells.entry(labels).or_default();
        if let Some((_, own)) = cells.iter().find(|(number, _)| *number == worker) {
            return own.clone();
        }
        let own = Arc::<C>::default();
        cells.push((worker, own.clone()));
        own
    }

    fn admit(&mut self, labels: &L) -> L {
        let has_room = self.cells.contains_key(labels) || self.ledger.take(labels.tenant(), labels.bytes());
        if has_room { labels.clone() } else { labels.overflow() }
    }

    /// Every series with what `sum` makes of its cells, in order.
    pub(super) fn collect<S>(&self, sum: impl Fn(&mut dyn Iterator<Item = &C>) -> S) -> Vec<(L, S)> {
        let add = |(labels, cells): (&L, &Vec<(WorkerNumber, Arc<C>)>)| {
            (labels.clone(), sum(&mut cells.iter().map(|(_, cells)| cells.as_ref())))
        };
        let mut all: Vec<_> = self.cells.iter().map(add).collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::cells::Count;
    use crate::telemetry::room::TARGETS;

    fn target(tenant: &str, pattern: String) -> Target {
        Target { tenant: tenant.into(), pattern: pattern.into(), upstream: "u".into() }
    }

    #[test]
    fn a_worker_has_one_cell_per_series_and_shares_it_with_nobody() {
        let mut series = Series::<Target, Count>::in_part(&TARGETS);
        let first = series.join(&target("a", "/x".to_owned()), 0);
        let again = series.join(&target("a", "/x".to_owned()), 0);
        let other = series.join(&target("a", "/x".to_owned()), 1);
        assert!(Arc::ptr_eq(&first, &again) && !Arc::ptr_eq(&first, &other));
        first.add(1);
        other.add(2);
        assert_eq!(series.collect(|cells| cells.map(Count::get).sum::<u64>()), [(target("a", "/x".to_owned()), 3)]);
    }

    #[test]
    fn series_are_bounded_and_a_tenant_leaves_room_for_the_others() {
        let mut series = Series::<Target, Count>::in_part(&TARGETS);
        for tenant in ["greedy", "calm", "late"] {
            for number in 0..1000 {
                series.join(&target(tenant, format!("/{number}")), 0).add(1);
            }
        }
        let all = series.collect(|cells| cells.map(Count::get).sum::<u64>());
        let count = |tenant: &str| all.iter().filter(|(labels, _)| *labels.tenant == *tenant).count();
        let [greedy, calm, late] = ["greedy", "calm", "late"].map(count);
        assert!(greedy > 100 && calm.abs_diff(greedy) < 10 && late < 10, "{greedy}, {calm}, {late}");
        assert_eq!(count(OVERFLOW), 1);
        assert_eq!(all.iter().map(|(_, count)| count).sum::<u64>(), 3000, "nothing is lost");
    }

    #[test]
    fn overflowing_requests_still_tell_good_from_bad() {
        let target = target("a", "/x".to_owned());
        let kind = Kind { target, method: "GET", status: 503, version: "2", error: Fault::Gateway("filter_failed") };
        let folded = kind.overflow();
        assert_eq!((folded.target.pattern.as_ref(), folded.method, folded.status), ("_overflow", "_OTHER", 500));
        assert_eq!((folded.error, folded.version), (Fault::Gateway("filter_failed"), ""));
    }
}
