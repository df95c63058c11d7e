//! What tenants may use in all: their own limits, or else those of their tier, or else those of every tenant.

use portcullis_core::tenant;

use super::{Check, tiers};
use crate::config::file::{self, File, TenantLimits};
use crate::config::tree::{Key, Node};
use crate::config::written::{Rate, Text};
use crate::diagnostic::Diagnostic;

/// One of the limits, as it is found and compared.
struct Limit {
    key: &'static str,
    /// Whether the first asks for more than the second allows; not where one of them says nothing.
    is_more: fn(&TenantLimits, &TenantLimits) -> bool,
}

fn more<T, N: PartialOrd>(own: Option<&T>, most: Option<&T>, number: fn(&T) -> N) -> bool {
    own.zip(most).is_some_and(|(own, most)| number(own) > number(most))
}

/// More in the long run, or more at once.
fn more_often(own: Option<&Text<Rate>>, most: Option<&Text<Rate>>) -> bool {
    own.zip(most).is_some_and(|(Text(own), Text(most))| {
        let often = |one: &Rate, other: &Rate| u128::from(one.count) * other.per.as_nanos();
        own.count > most.count || often(own, most) > often(most, own)
    })
}

const LIMITS: [Limit; 8] = [
    Limit { key: "requests", is_more: |own, most| more_often(own.requests.as_ref(), most.requests.as_ref()) },
    Limit {
        key: "in_flight",
        is_more: |own, most| more(own.in_flight.as_ref(), most.in_flight.as_ref(), |count| *count),
    },
    Limit { key: "cpu", is_more: |own, most| more(own.cpu.as_ref(), most.cpu.as_ref(), |share| share.0.0) },
    Limit { key: "memory", is_more: |own, most| more(own.memory.as_ref(), most.memory.as_ref(), |size| size.0.0) },
    Limit { key: "callouts", is_more: |own, most| more_often(own.callouts.as_ref(), most.callouts.as_ref()) },
    Limit {
        key: "callouts_in_flight",
        is_more: |own, most| more(own.callouts_in_flight.as_ref(), most.callouts_in_flight.as_ref(), |count| *count),
    },
    Limit { key: "log", is_more: |own, most| more(own.log.as_ref(), most.log.as_ref(), |rate| rate.0.0.0) },
    Limit {
        key: "shared_data",
        is_more: |own, most| more(own.shared_data.as_ref(), most.shared_data.as_ref(), |size| size.0.0),
    },
];

impl Check<'_> {
    /// A tenant's limits. What a tenant sets itself is no more than its tier has, or else every tenant.
    pub(super) fn limits(
        &mut self,
        (tree, file): (&Node, &File),
        (key, node, tenant): (&Key, &Node, &file::Tenant),
    ) -> tenant::Limits {
        let levels: Vec<_> = tiers::levels(tree, file, &key.name).collect();
        let own = node.get("limits").filter(|node| node.is_tenants());
        for limit in LIMITS {
            let Some(place) = own.and_then(|own| own.get(limit.key)) else { continue };
            let bound = |(level, node): &(&file::TenantDefaults, &'_ Node)| {
                let bound = node.get("limits")?.get(limit.key)?;
                Some(((limit.is_more)(&tenant.limits, &level.limits), bound.span.clone()))
            };
            if let Some((true, bound)) = levels.iter().find_map(bound) {
                let problem = Diagnostic::error(format!("tenant `{}` sets itself more `{}`", key.name, limit.key))
                    .at(&place.span, "it can be tightened here, and not loosened")
                    .at(&bound, "this is the most");
                self.report(problem);
            }
        }
        limits(
            &std::iter::once(&tenant.limits).chain(levels.iter().map(|(level, _)| &level.limits)).collect::<Vec<_>>(),
        )
    }
}

/// Key by key what the first says that says something.
fn limits(levels: &[&TenantLimits]) -> tenant::Limits {
    fn first<'l, T>(levels: &[&'l TenantLimits], of: fn(&TenantLimits) -> &Option<T>) -> Option<&'l T> {
        levels.iter().find_map(|level| of(level).as_ref())
    }
    let rate = |rate: &Text<Rate>| (rate.0.count, rate.0.per);
    tenant::Limits {
        requests: first(levels, |limits| &limits.requests).map(rate),
        in_flight: first(levels, |limits| &limits.in_flight).copied(),
        cpu: first(levels, |limits| &limits.cpu).map(|share| share.0.0),
        memory: first(levels, |limits| &limits.memory).map(|size| size.0.0),
        callouts: first(levels, |limits| &limits.callouts).map(rate),
        callouts_in_flight: first(levels, |limits| &limits.callouts_in_flight).copied(),
        log: first(levels, |limits| &limits.log).map(|rate| rate.0.0.0),
        shared_data: first(levels, |limits| &limits.shared_data).map(|size| size.0.0),
    }
}
