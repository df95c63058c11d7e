//! Envoy Gateway's form: for every route an `HTTPRoute` with its `Backend`, and an `EnvoyExtensionPolicy` with the route's whole chain.

use std::collections::BTreeMap;
use std::net::IpAddr;

use portcullis_core::filter::OnFailure;
use portcullis_core::route::Conditions;
use serde_json::{Value, json};

use super::kubernetes::{GATEWAY, GATEWAY_API, object, object_name};
use super::paths::{Path, written};
use super::{Export, Format, hex};
use crate::config::snapshot::{Endpoint, FilterIndex, Route, RouteIndex, UpstreamIndex};

/// The version of Envoy Gateway's own resources.
const VERSION: &str = "gateway.envoyproxy.io/v1alpha1";

/// As many filters as one policy may have.
const MOST_FILTERS: usize = 16;

impl Export<'_> {
    /// Every resource: backends, then each route with its policy.
    pub(super) fn gateway_resources(&mut self) -> Vec<Value> {
        self.note_kubernetes(Format::EnvoyGateway);
        let root = &self.places.root.span;
        self.notes.differs(root, format!("make a Gateway called `{GATEWAY}`: the routes are for it"));
        self.notes.lost(root, "requests that no route takes pass no filter");
        self.name_clusters();
        let snapshot = self.snapshot;
        let mut all: Vec<Value> = snapshot.upstreams().map(|(index, _)| self.backend(index)).collect();
        let mut routes: BTreeMap<RouteIndex, (Vec<String>, &Conditions)> = BTreeMap::new();
        for listed in snapshot.router.listed() {
            for (conditions, route) in listed.rules {
                routes.entry(route).or_insert((Vec::new(), conditions)).0.push(listed.host.to_string());
            }
        }
        for (index, (hosts, conditions)) in routes {
            let route = snapshot.route(index);
            all.push(self.http_route(route, index, &hosts, conditions));
            all.extend(self.policy(route, index));
        }
        all
    }

    fn backend(&self, index: UpstreamIndex) -> Value {
        let endpoint = |Endpoint { host, port }: &Endpoint| match host.parse::<IpAddr>() {
            Ok(_) => json!({ "ip": { "address": host, "port": port } }),
            Err(_) => json!({ "fqdn": { "hostname": host, "port": port } }),
        };
        let endpoints: Vec<Value> = self.snapshot.upstream(index).endpoints.iter().map(endpoint).collect();
        object(VERSION, "Backend", self.cluster_name(index), json!({ "endpoints": endpoints }))
    }

    fn http_route(&mut self, route: &Route, index: RouteIndex, hosts: &[String], conditions: &Conditions) -> Value {
        let hosts: Option<Vec<&String>> = hosts.iter().map(|host| (host != "*").then_some(host)).collect();
        let base = self.resource_match(route, conditions, index);
        let matches: Vec<Value> = if conditions.methods.is_empty() {
            vec![base]
        } else {
            let with = |method: &http::Method| {
                let mut with = base.clone();
                with.as_object_mut().map(|fields| fields.insert("method".to_owned(), method.as_str().into()));
                with
            };
            conditions.methods.iter().map(with).collect()
        };
        let backend = object_name(self.cluster_name(route.upstream));
        let spec = json!({
            "parentRefs": [{ "name": GATEWAY }],
            "hostnames": hosts,
            "rules": [{
                "matches": matches,
                "backendRefs": [{ "group": "gateway.envoyproxy.io", "kind": "Backend", "name": backend }],
            }],
        });
        object(&format!("{GATEWAY_API}/v1"), "HTTPRoute", &self.owned(route.tenant, &route.name), spec)
    }

    fn resource_match(&mut self, route: &Route, conditions: &Conditions, index: RouteIndex) -> Value {
        let node = self.places.route(index).get("match");
        let mut fields = |section: &str, pairs: &mut dyn Iterator<Item = (&str, &String)>| {
            let field = |(name, value): (&str, &String)| {
                let value = self.secrets.condition(value, written(node, section, name), &mut self.notes);
                json!({ "type": "Exact", "name": name, "value": value })
            };
            let fields: Vec<Value> = pairs.map(field).collect();
            (!fields.is_empty()).then_some(fields)
        };
        let headers = fields("headers", &mut conditions.headers.iter().map(|(name, value)| (name.as_str(), value)));
        let query = fields("query", &mut conditions.query.iter().map(|(name, value)| (name.as_str(), value)));
        json!({ "path": path(&route.pattern), "headers": headers, "queryParams": query })
    }

    fn policy(&mut self, route: &Route, index: RouteIndex) -> Option<Value> {
        if route.filters.is_empty() {
            return None;
        }
        if route.filters.len() > MOST_FILTERS {
            let text = format!("a policy has at most {MOST_FILTERS} filters: Kubernetes refuses this one");
            self.notes.lost(&self.places.route(index).span, text);
        }
        let name = self.owned(route.tenant, &route.name);
        let filters: Vec<Value> = route.filters.iter().map(|filter| self.wasm_extension(*filter)).collect();
        let target = json!({ "group": GATEWAY_API, "kind": "HTTPRoute", "name": object_name(&name) });
        let spec = json!({ "targetRefs": [target], "wasm": filters });
        Some(object(VERSION, "EnvoyExtensionPolicy", &name, spec))
    }

    fn wasm_extension(&mut self, filter: FilterIndex) -> Value {
        let name = self.filter_name(filter);
        let (filter, plugin) = self.plugin_of(filter);
        let url = self.url(plugin);
        let code = match url.strip_prefix("oci://") {
            Some(image) => json!({ "type": "Image", "image": { "url": image } }),
            None => json!({ "type": "HTTP", "http": { "url": url, "sha256": hex(&plugin.digest) } }),
        };
        json!({
            "name": name,
            "rootID": &*plugin.name,
            "code": code,
            "config": self.object_configuration(filter),
            "failOpen": plugin.on_failure == OnFailure::Open,
        })
    }
}

/// How Gateway API is told of a path pattern.
fn path(pattern: &str) -> Value {
    let (form, value) = match Path::of(pattern) {
        Path::Exact(path) => ("Exact", path.to_owned()),
        Path::Below("") => ("PathPrefix", "/".to_owned()),
        Path::Below(path) => ("PathPrefix", path.to_owned()),
        Path::Like(regex) => ("RegularExpression", regex),
    };
    json!({ "type": form, "value": value })
}
