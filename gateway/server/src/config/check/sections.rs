//! One section after the other: what the share of the gateway and of each tenant is made of.

use std::sync::Arc;

use portcullis_core::route::{HostPattern, Owner};
use sha2::{Digest as _, Sha256};

use super::filters::Placed;
use super::routes::Owners;
use super::{Check, Hosts, Section};

impl Check<'_> {
    /// What every section defines by name. All of it comes before anything is used, so that a wrong name can be told from a foreign one.
    pub(super) fn define_all(&mut self, sections: &[Section<'_>]) {
        for section in sections {
            let scope = self.define(section);
            self.scopes.push(scope);
        }
        for (index, section) in sections.iter().enumerate() {
            let policies = self.policies(section, index);
            if let Some(scope) = self.scopes.get_mut(index) {
                scope.policies = policies;
            }
        }
    }

    /// Every section's filters and routes. Returns what the router is told, in the order of the sections.
    pub(super) fn make_all(&mut self, sections: &[Section<'_>], hosts: &[Hosts<'_>]) -> Owners {
        let mut owners = Owners::new();
        // The gateway's own filters, which every chain begins with.
        let mut gateways = Vec::new();
        for (scope, section) in sections.iter().enumerate() {
            let own = self.section_filters(section, scope);
            let outer: Vec<&Placed> = gateways.iter().chain(&own).collect();
            let chain = outer.iter().map(|placed| placed.filter).collect();
            let rules = self.section_routes(section, scope, &outer);
            let share = self.share_mut(section.tenant);
            share.chain = chain;
            share.written = Arc::new(written(section));
            let mut digest = Sha256::new_with_prefix(share.written.to_string());
            let candidates = share.plugins.iter().filter_map(|plugin| Some(&*plugin.rollout.as_ref()?.candidate));
            share.plugins.iter().chain(candidates).for_each(|plugin| digest.update(plugin.digest));
            share.digest = digest.finalize().into();
            let hosts = scope.checked_sub(1).and_then(|tenant| hosts.get(tenant));
            let hosts = hosts.map_or(vec![HostPattern::ANY], |own| own.iter().map(|(host, _)| host.clone()).collect());
            // Problems come back with numbers, because names need not be unique.
            owners.push(Owner { name: scope.to_string(), id: section.tenant, hosts, rules });
            if section.tenant.is_none() {
                gateways = own;
            }
        }
        owners
    }
}

/// A section as it was written; the gateway's without its tenants.
fn written(section: &Section<'_>) -> serde_json::Value {
    let entries = section.node.entries().filter(|(key, _)| section.tenant.is_some() || key.name != "tenants");
    serde_json::Value::Object(entries.map(|(key, node)| (key.name.clone(), node.written_json())).collect())
}
