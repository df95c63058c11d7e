//! What both forms for Kubernetes have in common: names, where modules are fetched from, what neither can say.

use portcullis_core::filter::HeadersPause;
use serde_json::{Value, json};

use super::{Export, Format, hex};
use crate::config::Node;
use crate::config::snapshot::{Filter, Plugin};

/// The API group of Gateway API.
pub(super) const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// The Gateway for hosts that no tenant owns, and of whoever has no other.
pub(super) const GATEWAY: &str = "portcullis";

impl Export<'_> {
    /// Where a module is fetched from: where the configuration says, or the registry that it is to be pushed to.
    pub(super) fn url(&mut self, plugin: &Plugin) -> String {
        let (_, node) = self.places.plugin_named(self.snapshot, plugin);
        let module = node.get("module").map_or("", Node::written);
        if module.starts_with("oci://") || module.starts_with("https://") {
            return module.to_owned();
        }
        let file = self.module(plugin);
        let url = format!("oci://{}/{}:{}", self.registry, object_name(&plugin.name), hex(&plugin.digest[..6]));
        self.notes.differs(&node.span, format!("push {file} to {url}"));
        url
    }

    /// What a filter is configured with, as the object that resources hold.
    pub(super) fn object_configuration(&mut self, filter: &Filter) -> Option<Value> {
        let text = self.configuration(filter);
        if text.is_empty() {
            return None;
        }
        let config = serde_json::from_str(&text).ok().filter(Value::is_object);
        if config.is_none() {
            let (place, _) = self.places.plugin(filter.plugin);
            self.notes.lost(place, "its configuration is no mapping, and only mappings can be passed on");
        }
        config
    }

    /// Notes what neither form says.
    pub(super) fn note_kubernetes(&mut self, format: Format) {
        let root = &self.places.root.span;
        for text in [
            "listeners, TLS, the admin listener, access log and traces are those of the mesh or of its Gateway",
            "timeouts, retries, limits, ejection and health checks of upstreams and routes are not written",
            "the limits of plugins and tenants, and the tenants' isolation, are not there",
        ] {
            self.notes.lost(root, text);
        }
        let clusters = match format {
            Format::Istio => "outbound|PORT||HOST",
            Format::Envoy | Format::EnvoyGateway => "httproute/NAMESPACE/NAME/rule/0",
        };
        if self.snapshot.filters().next().is_some() {
            let text = format!("filters that call upstreams find them by the names of clusters there, as `{clusters}`");
            self.notes.lost(root, text);
        }
        for (_, plugin) in
            self.snapshot.plugins().filter(|(_, plugin)| plugin.headers_pause == HeadersPause::HoldsHeaders)
        {
            let (place, _) = self.places.plugin_named(self.snapshot, plugin);
            self.notes.lost(place, "it cannot hold back headers alone: while it waits, the body waits with them");
        }
        for (_, plugin) in self.snapshot.plugins() {
            let (_, node) = self.places.plugin_named(self.snapshot, plugin);
            for word in ["vm_id", "vm_config"] {
                if let Some(place) = node.get(word) {
                    self.notes.lost(&place.span, format!("there is no `{word}` in these resources"));
                }
            }
        }
    }
}

/// A resource.
pub(super) fn object(version: &str, kind: &str, name: &str, spec: Value) -> Value {
    json!({ "apiVersion": version, "kind": kind, "metadata": { "name": object_name(name) }, "spec": spec })
}

/// A name that Kubernetes takes: lower-case letters, digits and hyphens.
pub(super) fn object_name(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let name: String = lower.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    name.trim_matches('-').to_owned()
}
