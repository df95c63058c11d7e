//! Metrics about upstreams: what each worker counts of them, added up over workers.
//!
//! **Invariant:** every label but the upstream's and the tenant's name is a word of this program's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_core::answer::Violation;
use portcullis_core::retry::Cause;

use super::cells::Count;
use super::exposition::Exposition;
use super::metrics::named;
use super::room::{OVERFLOW, Roster};
use super::stats::Table;

/// What one worker counts of one upstream.
#[derive(Debug)]
pub(crate) struct UpstreamCounts {
    name: Arc<str>,
    tenant: Arc<str>,
    retries: [Count; Cause::WORDS.len()],
    budget_exhausted: Count,
    violations: [Count; Violation::ALL.len()],
    connects: Count,
    connect_failures: Count,
    open: Count,
    idle: Count,
    active: Count,
    pending: Count,
    overloaded: [Count; OVERLOADED.len()],
    ejections: Count,
    check_failures: Count,
    endpoints: Count,
    usable: Count,
}

/// How an upstream stands, as one worker sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// The endpoints there are, and those of them that are usable.
    pub(crate) endpoints: usize,
    pub(crate) usable: usize,
    /// Connections that wait for a request.
    pub(crate) idle: usize,
    /// Requests that have begun and not ended, and those of them that wait for a connection.
    pub(crate) active: u32,
    pub(crate) pending: u32,
}

/// The limits that can be hit.
const OVERLOADED: [&str; 3] = ["requests", "pending", "connections"];

impl UpstreamCounts {
    pub(super) fn new(name: &str, tenant: &str) -> Self {
        Self {
            name: name.into(),
            tenant: tenant.into(),
            retries: Default::default(),
            budget_exhausted: Count::default(),
            violations: Default::default(),
            connects: Count::default(),
            connect_failures: Count::default(),
            open: Count::default(),
            idle: Count::default(),
            active: Count::default(),
            pending: Count::default(),
            overloaded: Default::default(),
            ejections: Count::default(),
            check_failures: Count::default(),
            endpoints: Count::default(),
            usable: Count::default(),
        }
    }

    pub(super) fn is_of(&self, name: &str, tenant: &str) -> bool {
        *self.name == *name && *self.tenant == *tenant
    }

    /// A request is tried again.
    pub(crate) fn retry(&self, cause: Cause) {
        if let Some(count) = self.retries.get(cause.number()) {
            count.add(1);
        }
    }

    /// A request would have been tried again, had there been room in the budget.
    pub(crate) fn budget_exhausted(&self) {
        self.budget_exhausted.add(1);
    }

    /// An answer was malformed.
    pub(crate) fn violation(&self, violation: Violation) {
        let number = Violation::ALL.iter().position(|known| *known == violation);
        if let Some(count) = number.and_then(|number| self.violations.get(number)) {
            count.add(1);
        }
    }

    /// A connection was made.
    pub(crate) fn connected(&self) {
        self.connects.add(1);
    }

    /// A connection is being made.
    pub(crate) fn opened(&self) {
        self.open.add(1);
    }

    /// A connection was closed, or not made after all.
    pub(crate) fn closed(&self) {
        self.open.subtract(1);
    }

    /// A request was refused because of this limit.
    pub(crate) fn overloaded(&self, limit: &str) {
        let number = OVERLOADED.iter().position(|known| *known == limit);
        if let Some(count) = number.and_then(|number| self.overloaded.get(number)) {
            count.add(1);
        }
    }

    /// An endpoint is left alone for a while.
    pub(crate) fn ejected(&self) {
        self.ejections.add(1);
    }

    /// A health check failed.
    pub(crate) fn check_failed(&self) {
        self.check_failures.add(1);
    }

    /// How it stands at this moment.
    pub(crate) fn stands(&self, standing: Standing) {
        let Standing { endpoints, usable, idle, active, pending } = standing;
        self.endpoints.set(endpoints as u64);
        self.usable.set(usable as u64);
        self.idle.set(idle as u64);
        self.active.set(active.into());
        self.pending.set(pending.into());
    }

    /// A connection could not be made.
    pub(crate) fn connect_failed(&self) {
        self.connect_failures.add(1);
    }
}

/// What is counted, and its labels: a word for each number, or an empty one.
type Numbers = Vec<(&'static str, u64)>;

/// A metric about upstreams.
struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    /// The label that the words are of.
    label: &'static str,
    of: fn(&UpstreamCounts) -> Numbers,
}

fn one(count: &Count) -> Numbers {
    vec![("", count.get())]
}

fn those_seen(words: impl Iterator<Item = &'static str>, counts: &[Count]) -> Numbers {
    words.zip(counts.iter().map(Count::get)).filter(|(_, count)| *count > 0).collect()
}

const METRICS: [Metric; 12] = [
    Metric {
        name: "portcullis_upstream_retries_total",
        kind: "counter",
        help: "Requests that were tried again, by why the try before had failed.",
        label: "reason",
        of: |counts| Cause::WORDS.into_iter().zip(counts.retries.iter().map(Count::get)).collect(),
    },
    Metric {
        name: "portcullis_upstream_retry_budget_exhausted_total",
        kind: "counter",
        help: "Requests that were not tried again because the upstream had as many retries as it may have.",
        label: "",
        of: |counts| one(&counts.budget_exhausted),
    },
    Metric {
        name: "portcullis_upstream_violations_total",
        kind: "counter",
        help: "Malformed answers, by what was wrong with them.",
        label: "violation",
        of: |counts| those_seen(Violation::ALL.iter().map(|violation| violation.word()), &counts.violations),
    },
    Metric {
        name: "portcullis_upstream_overloaded_total",
        kind: "counter",
        help: "Requests refused because a limit was hit.",
        label: "limit",
        of: |counts| those_seen(OVERLOADED.into_iter(), &counts.overloaded),
    },
    Metric {
        name: "portcullis_upstream_connections_total",
        kind: "counter",
        help: "Connections made.",
        label: "",
        of: |counts| one(&counts.connects),
    },
    Metric {
        name: "portcullis_upstream_connect_failures_total",
        kind: "counter",
        help: "Connections that could not be made.",
        label: "",
        of: |counts| one(&counts.connect_failures),
    },
    Metric {
        name: "portcullis_upstream_connections_open",
        kind: "gauge",
        help: "Connections that are open or being made.",
        label: "",
        of: |counts| one(&counts.open),
    },
    Metric {
        name: "portcullis_upstream_connections_idle",
        kind: "gauge",
        help: "Connections that wait in pools for a request.",
        label: "",
        of: |counts| one(&counts.idle),
    },
    Metric {
        name: "portcullis_upstream_requests_active",
        kind: "gauge",
        help: "Requests whose response has not ended.",
        label: "",
        of: |counts| one(&counts.active),
    },
    Metric {
        name: "portcullis_upstream_requests_pending",
        kind: "gauge",
        help: "Requests that wait for a connection.",
        label: "",
        of: |counts| one(&counts.pending),
    },
    Metric {
        name: "portcullis_upstream_ejections_total",
        kind: "counter",
        help: "Times an endpoint was left alone for a while because it failed.",
        label: "",
        of: |counts| one(&counts.ejections),
    },
    Metric {
        name: "portcullis_upstream_health_check_failures_total",
        kind: "counter",
        help: "Health checks that failed.",
        label: "",
        of: |counts| one(&counts.check_failures),
    },
];

/// Every worker's counts, by tenant and upstream.
type Groups<'a> = BTreeMap<(&'a str, &'a str), Vec<&'a UpstreamCounts>>;

/// The lines there are of one upstream, at most.
const LINES: usize = METRICS.len() + 2 + Cause::WORDS.len() + Violation::ALL.len() + OVERLOADED.len();
/// The most bytes of one, but for its names.
const LINE_BYTES: usize = 120;

/// An upstream's name and its tenant's.
pub(super) type Name = (Arc<str>, Arc<str>);

/// Those that have no series of their own are shown together.
pub(super) fn admit(roster: &mut Roster<Name>, counts: &UpstreamCounts) -> bool {
    let UpstreamCounts { name, tenant, .. } = counts;
    roster.admits((name.clone(), tenant.clone()), tenant, LINES * (LINE_BYTES + name.len() + tenant.len()))
}

/// Each is with whether it has series of its own.
fn groups(all: &[(Arc<UpstreamCounts>, bool)]) -> Groups<'_> {
    let mut groups = Groups::new();
    for (counts, is_admitted) in all {
        let name: (&str, &str) = if *is_admitted { (&counts.tenant, &counts.name) } else { (OVERFLOW, OVERFLOW) };
        groups.entry(name).or_default().push(counts);
    }
    groups
}

pub(super) fn render(text: &mut Exposition, all: &[(Arc<UpstreamCounts>, bool)]) {
    let groups = groups(all);
    for Metric { name, kind, help, label, of } in METRICS {
        text.family(name, kind, help);
        for ((tenant, upstream), group) in &groups {
            let mut sums = BTreeMap::<&str, u64>::new();
            for (word, count) in group.iter().flat_map(|counts| of(counts)) {
                *sums.entry(word).or_default() += count;
            }
            for (word, sum) in sums {
                let labels = [("portcullis_upstream", *upstream), ("portcullis_tenant", *tenant), (label, word)];
                text.sample(name, &labels, sum);
            }
        }
    }
    render_endpoints(text, &groups);
}

pub(super) fn table(all: &[(Arc<UpstreamCounts>, bool)]) -> Table<9> {
    let groups = groups(all);
    let line = |((tenant, upstream), group): (&(&str, &str), &Vec<&UpstreamCounts>)| {
        let sum = |of: fn(&UpstreamCounts) -> u64| group.iter().map(|counts| of(counts)).sum::<u64>();
        let endpoints = group.iter().min_by_key(|counts| counts.usable.get());
        let endpoints = endpoints.map(|least| format!("{} of {}", least.usable.get(), least.endpoints.get()));
        let connections = sum(|counts| counts.connects.get());
        let line = [
            named(upstream),
            named(tenant),
            endpoints.unwrap_or_default(),
            sum(|counts| counts.active.get()).to_string(),
            sum(|counts| counts.pending.get()).to_string(),
            sum(|counts| counts.open.get()).to_string(),
            sum(|counts| counts.connect_failures.get()).to_string(),
            sum(|counts| counts.retries.iter().map(Count::get).sum()).to_string(),
            sum(|counts| counts.overloaded.iter().map(Count::get).sum()).to_string(),
        ];
        (connections, line)
    };
    let columns =
        ["UPSTREAM", "TENANT", "USABLE", "ACTIVE", "PENDING", "CONNECTIONS", "NOT CONNECTED", "RETRIES", "OVERLOADED"];
    Table { columns, lines: groups.iter().map(line).collect() }
}

/// Workers do not compare notes, so the least that one of them sees is shown: a sum would mean nothing.
fn render_endpoints(text: &mut Exposition, groups: &Groups<'_>) {
    let name = "portcullis_upstream_endpoints";
    text.family(name, "gauge", "Endpoints, as the worker sees them that sees fewest usable ones.");
    for ((tenant, upstream), group) in groups {
        let Some(least) = group.iter().min_by_key(|counts| counts.usable.get()) else { continue };
        for (state, count) in [("all", &least.endpoints), ("usable", &least.usable)] {
            let labels = [("portcullis_upstream", *upstream), ("portcullis_tenant", *tenant), ("state", state)];
            text.sample(name, &labels, count.get());
        }
    }
}
