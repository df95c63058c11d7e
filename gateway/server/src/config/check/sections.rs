//! One section after the other: what the gateway and each tenant define, and which part of the snapshot's lists that is.

use std::ops::Range;
use std::sync::Arc;

use portcullis_core::route::{HostPattern, Owner};
use sha2::{Digest as _, Sha256};

use super::filters::Placed;
use super::{Check, Hosts, Section};
use crate::config::snapshot::{FilterIndex, RouteIndex, Share, TenantIndex};
use crate::config::tree::Node;

/// What became of the sections.
pub(super) struct Made<'t> {
    /// For the router, in the order of the sections, and the nodes of their routes in the order of [`RouteIndex`].
    pub(super) owners: Vec<Owner<Option<TenantIndex>, RouteIndex>>,
    pub(super) nodes: Vec<&'t Node>,
    /// The gateway's own filters, which every chain begins with.
    pub(super) outer: Vec<Placed>,
    pub(super) gateway: Option<Share>,
    /// Of each tenant the chain of its hosts, and its share.
    pub(super) tenants: Vec<(Vec<FilterIndex>, Share)>,
}

/// How much of the lists one section's definitions take.
pub(super) struct Defined {
    upstreams: Range<usize>,
    plugins: Range<usize>,
}

impl Check<'_> {
    /// What every section defines by name. All of it comes before anything is used, so that a wrong name can be told from a foreign one.
    pub(super) fn define_all(&mut self, sections: &[Section<'_>]) -> Vec<Defined> {
        let mut defined = Vec::with_capacity(sections.len());
        for section in sections {
            let (upstreams, plugins) = (self.upstreams.len(), self.plugins.len());
            let scope = self.define(section);
            self.scopes.push(scope);
            defined.push(Defined { upstreams: upstreams..self.upstreams.len(), plugins: plugins..self.plugins.len() });
        }
        for (index, section) in sections.iter().enumerate() {
            let policies = self.policies(section, index);
            if let Some(scope) = self.scopes.get_mut(index) {
                scope.policies = policies;
            }
        }
        defined
    }

    /// Every section's filters and routes.
    pub(super) fn make_all<'n>(
        &mut self,
        sections: &[Section<'n>],
        hosts: &[Hosts<'_>],
        defined: Vec<Defined>,
    ) -> Made<'n> {
        let mut made =
            Made { owners: Vec::new(), nodes: Vec::new(), outer: Vec::new(), gateway: None, tenants: Vec::new() };
        for ((scope, section), Defined { upstreams, plugins }) in sections.iter().enumerate().zip(defined) {
            let (filters, routes) = (self.filters.len(), self.routes.len());
            let own = self.section_filters(section, scope);
            let outer: Vec<&Placed> = made.outer.iter().chain(&own).collect();
            let chain = outer.iter().map(|placed| placed.filter).collect();
            let (rules, nodes) = self.section_routes(section, scope, &outer);
            made.nodes.extend(nodes);
            let written = Arc::new(written(section));
            let mut digest = Sha256::new_with_prefix(written.to_string());
            let code = self.plugins.get(plugins.clone()).unwrap_or_default();
            let candidates = code.iter().filter_map(|plugin| Some(&*plugin.rollout.as_ref()?.candidate));
            code.iter().chain(candidates).for_each(|plugin| digest.update(plugin.digest));
            let share = Share {
                upstreams,
                plugins,
                filters: filters..self.filters.len(),
                routes: routes..self.routes.len(),
                rules: rules.clone(),
                written,
                digest: digest.finalize().into(),
            };
            let hosts = scope.checked_sub(1).and_then(|tenant| hosts.get(tenant));
            let hosts = hosts.map_or(vec![HostPattern::ANY], |own| own.iter().map(|(host, _)| host.clone()).collect());
            // Problems come back with numbers, because names need not be unique.
            made.owners.push(Owner { name: scope.to_string(), id: section.tenant, hosts, rules });
            match section.tenant {
                None => (made.outer, made.gateway) = (own, Some(share)),
                Some(_) => made.tenants.push((chain, share)),
            }
        }
        made
    }
}

/// A section as it was written; the gateway's without its tenants.
fn written(section: &Section<'_>) -> serde_json::Value {
    let entries = section.node.entries().filter(|(key, _)| section.tenant.is_some() || key.name != "tenants");
    serde_json::Value::Object(entries.map(|(key, node)| (key.name.clone(), node.written_json())).collect())
}
