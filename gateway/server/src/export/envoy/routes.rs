//! Hosts and routes. Envoy takes the first route that matches, so they stand in the order in which the gateway tries them.
//!
//! **Invariant:** the last route of every host takes what no other did: the filters of whoever has the host see it, and the answer
//! is that there is no route.

use std::collections::BTreeMap;
use std::time::Duration;

use portcullis_core::reply::Failure;
use portcullis_core::route::Conditions;
use serde_json::{Map, Value, json};

use super::filters::{LOCAL_RATE_LIMIT, TENANTS_LIMIT};
use super::replies::direct;
use super::retries::retry_policy;
use super::{Export, seconds, typed};
use crate::config::snapshot::{Route, RouteIndex, TenantIndex};
use crate::export::paths::{Path, literal, written};

/// Hosts of one owner for which the same routes are tried.
type Group<'r> = (Option<TenantIndex>, Vec<(&'r Conditions, RouteIndex)>);

impl Export<'_> {
    /// The virtual hosts of every listener.
    pub(super) fn virtual_hosts(&mut self) -> Vec<Value> {
        let mut groups: Vec<(Group<'_>, Vec<String>)> = Vec::new();
        let mut known: BTreeMap<(Option<TenantIndex>, Vec<RouteIndex>), usize> = BTreeMap::new();
        for listed in self.snapshot.router.listed() {
            let routes = listed.rules.iter().map(|(_, route)| *route).collect();
            let index = *known.entry((listed.owner, routes)).or_insert(groups.len());
            let host = listed.host.to_string();
            match groups.get_mut(index) {
                Some((_, hosts)) => hosts.push(host),
                None => groups.push(((listed.owner, listed.rules), vec![host])),
            }
        }
        let mut named: BTreeMap<Option<TenantIndex>, usize> = BTreeMap::new();
        let mut hosts = Vec::new();
        for ((owner, rules), domains) in groups {
            let number = named.entry(owner).or_default();
            *number += 1;
            let name = self.tenant_name(owner).unwrap_or("gateway");
            let name = if *number == 1 { name.to_owned() } else { format!("{name}#{number}") };
            hosts.push(self.virtual_host(&name, (owner, rules), &domains));
        }
        named.iter().filter(|(_, hosts)| **hosts > 1).for_each(|(owner, _)| self.note_split_limit(*owner));
        hosts
    }

    /// Envoy counts for a virtual host, not for a tenant.
    fn note_split_limit(&mut self, owner: Option<TenantIndex>) {
        let Some(tenant) = owner else { return };
        if self.snapshot.tenant(tenant).limits.requests.is_some() {
            let (place, node) = self.places.tenant(tenant);
            let place = node.get("limits").and_then(|limits| limits.get("requests")).map_or(place, |node| &node.span);
            let text =
                "the tenant's hosts have different routes, and may each have as many requests as all of them should";
            self.notes.differs(place, text);
        }
    }

    fn virtual_host(&mut self, name: &str, (owner, rules): Group<'_>, domains: &[String]) -> Value {
        let mut routes: Vec<Value> =
            rules.into_iter().map(|(conditions, index)| self.route(conditions, index)).collect();
        let chain = &self.snapshot.share(owner).chain;
        routes.push(json!({
            "match": { "prefix": "/" },
            "direct_response": direct(Failure::NoRoute),
            "typed_per_filter_config": self.switched_on(chain),
        }));
        json!({
            "name": name,
            "domains": domains,
            "routes": routes,
            "typed_per_filter_config": owner.and_then(|tenant| self.tenants_limit(tenant)),
        })
    }

    /// Holds a tenant to its requests in a time.
    fn tenants_limit(&self, tenant: TenantIndex) -> Option<Value> {
        let tenant = self.snapshot.tenant(tenant);
        let (count, per) = tenant.limits.requests?;
        let always = json!({ "default_value": { "numerator": 100, "denominator": "HUNDRED" } });
        let limit = json!({
            "stat_prefix": &*tenant.name,
            "token_bucket": { "max_tokens": count, "tokens_per_fill": count, "fill_interval": seconds(per) },
            "filter_enabled": always,
            "filter_enforced": always,
            "response_headers_to_add": [{ "header": { "key": "retry-after", "value": "1" } }],
        });
        Some(Value::Object(Map::from_iter([(TENANTS_LIMIT.to_owned(), typed(LOCAL_RATE_LIMIT, limit))])))
    }

    fn route(&mut self, conditions: &Conditions, index: RouteIndex) -> Value {
        let route = self.snapshot.route(index);
        let upgrades: Vec<Value> =
            route.tunnels.allowed.iter().map(|upgrade| json!({ "upgrade_type": upgrade.as_str() })).collect();
        let most = (route.times.request != Duration::MAX).then(|| seconds(route.times.request));
        let action = json!({
            "cluster": self.cluster_name(route.upstream),
            // Responses that go on for longer than they take to begin are not cut off.
            "timeout": "0s",
            "idle_timeout": seconds(route.times.idle),
            "max_stream_duration": most.map(|most| json!({ "max_stream_duration": most })),
            "retry_policy": retry_policy(&route.retry, route.times.response),
            "upgrade_configs": (!upgrades.is_empty()).then_some(upgrades),
        });
        json!({
            "name": &*route.name,
            "match": self.matched(route, conditions, index),
            "route": action,
            // For the access log.
            "metadata": { "filter_metadata": { "portcullis": {
                "tenant": self.tenant_name(route.tenant),
                "path": &*route.pattern,
            } } },
            "typed_per_filter_config": self.switched_on(&route.filters),
        })
    }

    fn matched(&mut self, route: &Route, conditions: &Conditions, index: RouteIndex) -> Value {
        let node = self.places.route(index).get("match");
        let mut headers: Vec<Value> = Vec::new();
        if let [method] = conditions.methods.as_slice() {
            headers.push(json!({ "name": ":method", "string_match": { "exact": method.as_str() } }));
        } else if !conditions.methods.is_empty() {
            let any = conditions.methods.iter().map(|method| literal(method.as_str())).collect::<Vec<_>>().join("|");
            headers.push(json!({ "name": ":method", "string_match": { "safe_regex": { "regex": any } } }));
        }
        for (name, value) in &conditions.headers {
            let value = self.secrets.condition(value, written(node, "headers", name.as_str()), &mut self.notes);
            headers.push(json!({ "name": name.as_str(), "string_match": { "exact": value } }));
        }
        let mut query: Vec<Value> = Vec::new();
        for (name, value) in &conditions.query {
            let value = self.secrets.condition(value, written(node, "query", name), &mut self.notes);
            query.push(json!({ "name": name, "string_match": { "exact": value } }));
        }
        let mut matched = path(&route.pattern);
        matched.insert("headers".to_owned(), (!headers.is_empty()).then_some(headers).into());
        matched.insert("query_parameters".to_owned(), (!query.is_empty()).then_some(query).into());
        Value::Object(matched)
    }
}

/// How Envoy is told of a path pattern.
fn path(pattern: &str) -> Map<String, Value> {
    let (form, value) = match Path::of(pattern) {
        Path::Exact(path) => ("path", path.into()),
        Path::Below("") => ("prefix", "/".into()),
        Path::Below(path) => ("path_separated_prefix", path.into()),
        Path::Like(regex) => ("safe_regex", json!({ "regex": regex })),
    };
    Map::from_iter([(form.to_owned(), value)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_patterns_are_what_envoy_calls_them() {
        for (pattern, want) in [
            ("/", json!({ "path": "/" })),
            ("/*", json!({ "prefix": "/" })),
            ("/a/b", json!({ "path": "/a/b" })),
            ("/a/", json!({ "path": "/a/" })),
            ("/a/*", json!({ "path_separated_prefix": "/a" })),
            ("/a/{id}", json!({ "safe_regex": { "regex": "/a/[^/]+" } })),
            ("/a.b/{id}/*", json!({ "safe_regex": { "regex": r"/a\.b/[^/]+(/.*)?" } })),
        ] {
            assert_eq!(Value::Object(path(pattern)), want, "{pattern}");
        }
    }
}
