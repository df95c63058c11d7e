//! How large the text of all metrics may become: below 5 MB, whatever configurations, clients and guests do.
//!
//! Each kind of metrics has a part of that to itself, and a tenant a share of the part, so that one leaves room for the others. What
//! finds none is counted together, under [`OVERFLOW`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What stands for the names of series that found no room.
pub(super) const OVERFLOW: &str = "_overflow";

/// A part of the text.
#[derive(Debug)]
pub(super) struct Part {
    /// What is in it, for the log.
    what: &'static str,
    /// Its bytes.
    bytes: usize,
    /// The most of them that are for one tenant.
    per_tenant: usize,
}

const fn part(what: &'static str, bytes: usize, shares: usize) -> Part {
    Part { what, bytes, per_tenant: bytes / shares }
}

/// Requests by their status and the like.
pub(super) static KINDS: Part = part("requests", 1_810_000, 2);
/// Requests by where they go.
pub(super) static TARGETS: Part = part("routes", 900_000, 2);
/// Plugins.
pub(super) static FILTERS: Part = part("plugins", 1_200_000, 2);
/// What guests count.
pub(super) static GUESTS: Part = part("guests' own metrics", 400_000, 4);
/// Upstreams.
pub(super) static UPSTREAMS: Part = part("upstreams", 300_000, 2);
/// Roll-outs of plugins' next versions.
pub(super) static ROLLOUTS: Part = part("roll-outs", 40_000, 4);
/// Tenants.
pub(super) static TENANTS: Part = part("tenants", 150_000, 1);
/// Files with certificates.
pub(super) static TLS_FILES: Part = part("TLS files", 100_000, 1);

/// Who has how much of a part.
#[derive(Debug)]
pub(super) struct Ledger {
    part: &'static Part,
    taken: usize,
    of_tenants: HashMap<Arc<str>, usize>,
    overflowed: bool,
}

impl Ledger {
    pub(super) fn of(part: &'static Part) -> Self {
        Self { part, taken: 0, of_tenants: HashMap::new(), overflowed: false }
    }

    /// Whether there is room for so many bytes more; if so, they are taken. What belongs to no tenant has no share to keep to.
    pub(super) fn take(&mut self, tenant: &Arc<str>, bytes: usize) -> bool {
        let Part { what, bytes: all, per_tenant } = self.part;
        let of_tenant = self.of_tenants.get(tenant).copied().unwrap_or_default();
        if self.taken + bytes <= *all && (tenant.is_empty() || of_tenant + bytes <= *per_tenant) {
            self.taken += bytes;
            self.of_tenants.insert(tenant.clone(), of_tenant + bytes);
            return true;
        }
        if !std::mem::replace(&mut self.overflowed, true) {
            tracing::warn!(tenant = %tenant, "too many metric series of {what}; further ones are counted as {OVERFLOW}");
        }
        false
    }

    pub(super) fn give_back(&mut self, tenant: &Arc<str>, bytes: usize) {
        self.taken = self.taken.saturating_sub(bytes);
        if let Some(of_tenant) = self.of_tenants.get_mut(tenant) {
            *of_tenant = of_tenant.saturating_sub(bytes);
        }
        self.of_tenants.retain(|_, bytes| *bytes > 0);
    }
}

/// Those that have series of their own. Whoever is among them stays: a counter must not move to another series.
#[derive(Debug)]
pub(super) struct Roster<N> {
    admitted: BTreeMap<N, (Arc<str>, usize)>,
    ledger: Ledger,
}

impl<N: Ord> Roster<N> {
    pub(super) fn of(part: &'static Part) -> Self {
        Self { admitted: BTreeMap::new(), ledger: Ledger::of(part) }
    }

    /// Whether it is among them, or there is room for it.
    pub(super) fn admits(&mut self, name: N, tenant: &Arc<str>, bytes: usize) -> bool {
        if self.admitted.contains_key(&name) {
            return true;
        }
        let has_room = self.ledger.take(tenant, bytes);
        if has_room {
            self.admitted.insert(name, (tenant.clone(), bytes));
        }
        has_room
    }

    /// Makes room by letting go of those that are no more.
    pub(super) fn keep_only(&mut self, is_there: impl Fn(&N) -> bool) {
        for (_, (tenant, bytes)) in self.admitted.extract_if(.., |name, _| !is_there(name)) {
            self.ledger.give_back(&tenant, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static SMALL: Part = part("tests", 100, 2);

    #[test]
    fn a_tenant_leaves_room_for_the_others_and_nobody_loses_a_place() {
        let mut roster = Roster::<u32>::of(&SMALL);
        let [acme, calm, nobody]: [Arc<str>; 3] = ["acme".into(), "calm".into(), "".into()];
        let greedy: Vec<bool> = (0..9).map(|number| roster.admits(number, &acme, 10)).collect();
        assert_eq!(greedy.iter().filter(|admitted| **admitted).count(), 5);
        assert!(roster.admits(20, &calm, 10) && roster.admits(0, &acme, 10));
        let rest: Vec<bool> = (30..39).map(|number| roster.admits(number, &nobody, 10)).collect();
        assert_eq!(rest, [true, true, true, true, false, false, false, false, false]);
        roster.keep_only(|number| *number != 0);
        assert!(roster.admits(39, &nobody, 10) && !roster.admits(0, &acme, 10));
    }

    #[test]
    fn all_parts_together_stay_below_what_is_promised() {
        let parts = [&KINDS, &TARGETS, &FILTERS, &GUESTS, &UPSTREAMS, &ROLLOUTS, &TENANTS, &TLS_FILES];
        // What is left is for metrics whose labels are all words of this program.
        assert!(parts.iter().map(|part| part.bytes).sum::<usize>() <= 4_900_000);
    }
}
