//! A bootstrap for Envoy 1.40: what listens, what is routed where, what is called what.
//!
//! Only fields of Envoy's v3 API that are not deprecated in that version. Filters stand in every listener, switched off; routes
//! switch on theirs.

mod clusters;
mod filters;
mod listeners;
mod manager;
mod notes;
mod replies;
mod retries;
mod routes;
mod tls;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};

use super::Export;

impl Export<'_> {
    /// The whole bootstrap.
    pub(super) fn bootstrap(&mut self) -> Value {
        self.note_settings();
        self.name_clusters();
        let hosts = self.virtual_hosts();
        let listeners = self.listeners(&hosts);
        let all = self.snapshot.upstreams().map(|(index, _)| index);
        let reachable: Vec<_> = all.filter(|index| self.has_cluster(*index)).collect();
        let clusters: Vec<Value> = reachable.into_iter().map(|index| self.cluster(index)).collect();
        json!({
            "admin": self.admin(),
            "overload_manager": self.overload_manager(),
            "static_resources": { "listeners": listeners, "clusters": clusters },
        })
    }

    /// Clusters are called as filters call upstreams, wherever two upstreams do not claim the name.
    ///
    /// Where they do, the shared one has it, or nobody: no tenant's filter gets to another tenant's origins by name.
    pub(super) fn name_clusters(&mut self) {
        let mut claims: HashMap<&str, usize> = HashMap::new();
        for (_, upstream) in self.snapshot.upstreams() {
            *claims.entry(&upstream.name).or_default() += 1;
        }
        for (index, upstream) in self.snapshot.upstreams() {
            let contested = claims.get(&*upstream.name).is_some_and(|claims| *claims > 1);
            let prefixed = contested && upstream.tenant.is_some();
            let name = if prefixed { self.owned(upstream.tenant, &upstream.name) } else { upstream.name.to_string() };
            if prefixed && self.snapshot.filters().any(|(_, filter)| filter.tenant == upstream.tenant) {
                let (place, _) = self.places.upstream(index);
                let (own, owner) = (&upstream.name, &upstream.owner);
                let text =
                    format!("filters of tenant `{owner}` that call `{own}` do not find it: its cluster is `{name}`");
                self.notes.lost(place, text);
            }
            self.clusters.insert(index, name);
        }
    }

    fn admin(&self) -> Option<Value> {
        let admin = self.snapshot.admin.as_ref()?;
        let bind = if admin.bind.ip().is_loopback() {
            admin.bind
        } else {
            SocketAddr::from((Ipv4Addr::LOCALHOST, admin.bind.port()))
        };
        Some(json!({ "address": address(bind) }))
    }

    fn overload_manager(&self) -> Option<Value> {
        let most = self.snapshot.max_connections?;
        let config = typed(
            "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
            json!({ "max_active_downstream_connections": most }),
        );
        let name = "envoy.resource_monitors.global_downstream_max_connections";
        Some(json!({ "resource_monitors": [{ "name": name, "typed_config": config }] }))
    }
}

/// A message of Envoy's API as an `Any`.
fn typed(message: &str, mut fields: Value) -> Value {
    if let Value::Object(fields) = &mut fields {
        fields.insert("@type".to_owned(), format!("type.googleapis.com/{message}").into());
    }
    fields
}

fn address(at: SocketAddr) -> Value {
    json!({ "socket_address": { "address": at.ip().to_string(), "port_value": at.port() } })
}

/// A duration as protocol buffers write it in JSON.
fn seconds(time: Duration) -> String {
    match time.subsec_nanos() {
        0 => format!("{}s", time.as_secs()),
        nanos => format!("{}.{}s", time.as_secs(), format!("{nanos:09}").trim_end_matches('0')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_in_seconds() {
        for (millis, want) in [(0, "0s"), (1, "0.001s"), (1500, "1.5s"), (60_000, "60s")] {
            assert_eq!(seconds(Duration::from_millis(millis)), want);
        }
    }
}
