//! Tenants of whose files nothing has changed: what an earlier snapshot has of them is taken over, not made anew.
//!
//! An index means something in its own snapshot only. The gateway's own come first in every list, and are the same where its files say
//! the same; a tenant's move as one block. **Invariant:** whoever takes tenants over knows that the gateway's files say the same.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use portcullis_core::route::{Owner, Rule};

use super::Check;
use super::sections::Made;
use crate::config::snapshot::{
    Filter, FilterIndex, PluginIndex, Route, RouteIndex, Share, Snapshot, Tenant, TenantIndex, Upstream, UpstreamIndex,
};

/// Tenants of an earlier snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) earlier: Arc<Snapshot>,
    /// By their names.
    pub(crate) names: BTreeSet<Arc<str>>,
}

/// How far a tenant's part of a list moves. What the gateway itself has stays where it is.
struct Move {
    shared: usize,
    from: usize,
    to: usize,
}

impl Move {
    fn of(shared: &Range<usize>, block: &Range<usize>, to: usize) -> Self {
        Self { shared: shared.end, from: block.start, to }
    }

    fn index(&self, index: usize) -> usize {
        if index < self.shared { index } else { index - self.from + self.to }
    }

    fn block(&self, block: &Range<usize>) -> Range<usize> {
        self.to..self.to + block.len()
    }
}

/// How far everything of one tenant moves.
struct Moves {
    tenant: TenantIndex,
    upstreams: Move,
    plugins: Move,
    filters: Move,
    routes: Move,
}

impl Moves {
    fn upstream(&self, index: UpstreamIndex) -> UpstreamIndex {
        UpstreamIndex(self.upstreams.index(index.0))
    }

    fn filters(&self, filters: &[FilterIndex]) -> Vec<FilterIndex> {
        filters.iter().map(|index| FilterIndex(self.filters.index(index.0))).collect()
    }

    fn rule(&self, rule: &Rule<RouteIndex>) -> Rule<RouteIndex> {
        let target = RouteIndex(self.routes.index(rule.target.0));
        Rule { name: target.0.to_string(), target, ..rule.clone() }
    }
}

impl Taken {
    /// Adds the tenants to what was made of the others. Nothing if the gateway's own part is not what it was.
    pub(super) fn add(&self, check: &mut Check<'_>, made: &mut Made<'_>, tenants: &mut Vec<Tenant>) -> Option<()> {
        let (shared, now) = (&self.earlier.share, made.gateway.as_ref()?);
        let blocks = |share: &Share| [&share.upstreams, &share.plugins, &share.filters].map(Range::clone);
        if blocks(shared) != blocks(now) {
            return None;
        }
        for tenant in self.earlier.tenants.iter().filter(|tenant| self.names.contains(&tenant.name)) {
            let share = &tenant.share;
            let moves = Moves {
                tenant: TenantIndex(tenants.len()),
                upstreams: Move::of(&shared.upstreams, &share.upstreams, check.upstreams.len()),
                plugins: Move::of(&shared.plugins, &share.plugins, check.plugins.len()),
                filters: Move::of(&shared.filters, &share.filters, check.filters.len()),
                routes: Move { shared: 0, from: share.routes.start, to: check.routes.len() },
            };
            self.add_lists(check, share, &moves);
            let tenant = moved(tenant, &moves);
            made.owners.push(Owner {
                name: made.owners.len().to_string(),
                id: Some(moves.tenant),
                hosts: tenant.hosts.clone(),
                rules: tenant.share.rules.clone(),
            });
            tenants.push(tenant);
        }
        Some(())
    }

    fn add_lists(&self, check: &mut Check<'_>, share: &Share, moves: &Moves) {
        let Snapshot { upstreams, plugins, filters, routes, .. } = &*self.earlier;
        let tenant = Some(moves.tenant);
        let upstreams = upstreams.get(share.upstreams.clone()).unwrap_or_default();
        check.upstreams.extend(upstreams.iter().map(|upstream| Upstream { tenant, ..upstream.clone() }));
        let plugins = plugins.get(share.plugins.clone()).unwrap_or_default();
        check.plugins.extend(plugins.iter().map(|plugin| plugin.moved_to(tenant)));
        let filters = filters.get(share.filters.clone()).unwrap_or_default();
        check.filters.extend(filters.iter().map(|filter| Filter {
            plugin: PluginIndex(moves.plugins.index(filter.plugin.0)),
            tenant,
            config: filter.config.clone(),
        }));
        let routes = routes.get(share.routes.clone()).unwrap_or_default();
        check.routes.extend(routes.iter().map(|route| Route {
            tenant,
            filters: moves.filters(&route.filters),
            upstream: moves.upstream(route.upstream),
            ..route.clone()
        }));
    }
}

fn moved(tenant: &Tenant, moves: &Moves) -> Tenant {
    let share = &tenant.share;
    Tenant {
        chain: moves.filters(&tenant.chain),
        own: tenant.own.iter().map(|(name, index)| (name.clone(), moves.upstream(*index))).collect(),
        share: Share {
            upstreams: moves.upstreams.block(&share.upstreams),
            plugins: moves.plugins.block(&share.plugins),
            filters: moves.filters.block(&share.filters),
            routes: moves.routes.block(&share.routes),
            rules: share.rules.iter().map(|rule| moves.rule(rule)).collect(),
            written: share.written.clone(),
            digest: share.digest,
        },
        ..tenant.clone()
    }
}
