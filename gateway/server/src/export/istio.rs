//! Istio's form: a `WasmPlugin` for each filter.
//!
//! A `WasmPlugin` is for a whole Gateway. So whoever has filters of their own, the gateway, a tenant or a route, is given a Gateway of
//! that name to be made, and each filter names the Gateways that it is for: none runs where it should not.

use portcullis_core::filter::OnFailure;
use serde_json::{Value, json};

use super::kubernetes::{GATEWAY, GATEWAY_API, object, object_name};
use super::{Export, Format};
use crate::config::snapshot::FilterIndex;

/// As many targets as one resource may have.
const MOST_TARGETS: usize = 16;

/// A Gateway to be made, and the filters that stand before it.
struct Scope {
    gateway: String,
    filters: Vec<String>,
}

impl Export<'_> {
    /// Every `WasmPlugin`.
    pub(super) fn wasm_plugins(&mut self) -> Vec<Value> {
        self.note_kubernetes(Format::Istio);
        let scopes = self.scopes();
        let slots = self.order.slots().to_vec();
        let mut plugins = Vec::new();
        for (index, slot) in slots.iter().enumerate() {
            let targets: Vec<Value> = scopes
                .iter()
                .filter(|scope| scope.filters.contains(&slot.name))
                .map(|scope| json!({ "group": GATEWAY_API, "kind": "Gateway", "name": scope.gateway }))
                .collect();
            for (part, targets) in targets.chunks(MOST_TARGETS).enumerate() {
                let name = if part == 0 { slot.name.clone() } else { format!("{}-part-{}", slot.name, part + 1) };
                // The highest comes first.
                plugins.push(self.wasm_plugin(&name, slot.filter, targets, slots.len() - index));
            }
        }
        plugins
    }

    fn wasm_plugin(&mut self, name: &str, filter: FilterIndex, targets: &[Value], priority: usize) -> Value {
        let (filter, plugin) = self.plugin_of(filter);
        let spec = json!({
            "targetRefs": targets,
            "url": self.url(plugin),
            "phase": "AUTHN",
            "priority": priority,
            "pluginName": &*plugin.name,
            "pluginConfig": self.object_configuration(filter),
            "failStrategy": match plugin.on_failure {
                OnFailure::Closed => "FAIL_RELOAD",
                OnFailure::Open => "FAIL_OPEN",
            },
            "type": "HTTP",
        });
        object("extensions.istio.io/v1alpha1", "WasmPlugin", name, spec)
    }

    /// Who has filters: the gateway, each tenant, and each route whose chain is not that of its owner.
    fn scopes(&mut self) -> Vec<Scope> {
        let snapshot = self.snapshot;
        let mut chains = vec![(GATEWAY.to_owned(), &snapshot.gateway.chain)];
        chains.extend(snapshot.tenants.iter().map(|tenant| (object_name(&tenant.name), &tenant.share.chain)));
        for (index, route) in snapshot.routes() {
            let outer = &snapshot.share(route.tenant).chain;
            if route.filters == *outer {
                continue;
            }
            let gateway = object_name(&self.owned(route.tenant, &route.name));
            let place = &self.places.route(index).span;
            let text = format!("Istio has no filters for one route: give it a Gateway of its own, called `{gateway}`");
            self.notes.lost(place, text);
            chains.push((gateway, &route.filters));
        }
        for (place, tenant) in snapshot.tenants.placed() {
            let (place, _) = self.places.tenant(place);
            let gateway = object_name(&tenant.name);
            let text = format!("give the tenant a Gateway of its own, called `{gateway}`, with its hosts");
            self.notes.differs(place, text);
        }
        chains.into_iter().map(|(gateway, chain)| Scope { gateway, filters: self.placed(chain) }).collect()
    }
}
