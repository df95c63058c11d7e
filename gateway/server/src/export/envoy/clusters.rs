//! Upstreams as clusters.

use std::net::IpAddr;

use portcullis_core::upstream::Balance;
use serde_json::{Value, json};

use super::{Export, seconds, typed};
use crate::config::Node;
use crate::config::snapshot::{Endpoint, Health, Protocol, Upstream, UpstreamIndex};

/// A limit that is none. Envoy's own defaults are 1024.
const UNLIMITED: u32 = u32::MAX;

impl Export<'_> {
    /// Whether an upstream is somewhere that Envoy can reach.
    pub(super) fn has_cluster(&self, index: UpstreamIndex) -> bool {
        self.snapshot.upstream(index).service.is_none()
    }

    pub(super) fn cluster(&mut self, index: UpstreamIndex) -> Value {
        let upstream = self.snapshot.upstream(index);
        let (_, node) = self.places.upstream(index);
        self.note_resolved(node);
        let name = self.cluster_name(index).to_owned();
        let by_address = upstream.endpoints.iter().all(|endpoint| endpoint.host.parse::<IpAddr>().is_ok());
        let endpoints: Vec<Value> = upstream.endpoints.iter().map(endpoint).collect();
        let http = upstream.protocol != Protocol::Tcp;
        json!({
            "name": name,
            "type": by_address.then_some("STATIC"),
            "cluster_type": (!by_address).then(|| by_name(upstream)),
            "connect_timeout": seconds(upstream.timeouts.connect),
            "lb_policy": match upstream.balance {
                Balance::RoundRobin => "ROUND_ROBIN",
                Balance::LeastRequests => "LEAST_REQUEST",
            },
            "common_lb_config": { "healthy_panic_threshold": { "value": upstream.ejection.panic } },
            "circuit_breakers": { "thresholds": [thresholds(upstream)] },
            "outlier_detection": outlier_detection(upstream),
            "health_checks": upstream.health.as_ref().map(|health| [health_check(health, upstream.protocol)]),
            "transport_socket": self.upstream_tls(upstream, node),
            "typed_extension_protocol_options": http.then(|| protocol_options(upstream)),
            "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": endpoints }] },
        })
    }

    /// Says where an address came from the environment or a file: it is written as it is now.
    fn note_resolved(&mut self, node: &Node) {
        for endpoint in node.get("endpoints").map_or(&[][..], Node::list) {
            if endpoint.has_secret() {
                let text = format!("`{}` is written as what it is now", endpoint.written());
                self.notes.differs(&endpoint.span, text);
            }
        }
    }
}

/// Endpoints that are looked up, each address for itself.
fn by_name(upstream: &Upstream) -> Value {
    let dns = json!({ "dns_refresh_rate": seconds(upstream.resolve), "dns_lookup_family": "ALL" });
    let dns = typed("envoy.extensions.clusters.dns.v3.DnsCluster", dns);
    json!({ "name": "envoy.clusters.dns", "typed_config": dns })
}

fn endpoint(endpoint: &Endpoint) -> Value {
    let Endpoint { host, port } = endpoint;
    let name = host.parse::<IpAddr>().is_err().then_some(host);
    json!({ "endpoint": {
        "hostname": name,
        "address": { "socket_address": { "address": host, "port_value": port } },
    } })
}

fn thresholds(upstream: &Upstream) -> Value {
    let limits = &upstream.limits;
    let budget = upstream.retry.budget;
    json!({
        "max_requests": limits.requests.unwrap_or(UNLIMITED),
        "max_connections": limits.connections.unwrap_or(UNLIMITED),
        // Envoy counts those that wait for any connection to be made, not only for one of the connections there may be.
        "max_pending_requests": if limits.connections.is_some() { limits.pending } else { UNLIMITED },
        "max_retries": UNLIMITED,
        "retry_budget": { "budget_percent": { "value": budget.percent }, "min_retry_concurrency": budget.min },
    })
}

/// Answers that say that an intermediary failed count in a row, connections that fail each. Nothing else that Envoy could look at
/// does.
fn outlier_detection(upstream: &Upstream) -> Value {
    let ejection = &upstream.ejection;
    json!({
        "split_external_local_origin_errors": true,
        "consecutive_gateway_failure": ejection.errors.max(1),
        "enforcing_consecutive_gateway_failure": if ejection.errors > 0 { 100 } else { 0 },
        "consecutive_local_origin_failure": 1,
        "enforcing_consecutive_local_origin_failure": 100,
        "enforcing_consecutive_5xx": 0,
        "enforcing_success_rate": 0,
        "enforcing_local_origin_success_rate": 0,
        "enforcing_failure_percentage": 0,
        "max_ejection_percent": 100,
        "interval": "1s",
        "base_ejection_time": seconds(ejection.first),
        "max_ejection_time": seconds(ejection.longest),
    })
}

fn health_check(health: &Health, protocol: Protocol) -> Value {
    let rules = &health.rules;
    json!({
        "interval": seconds(rules.interval),
        "timeout": seconds(rules.timeout),
        "healthy_threshold": rules.healthy,
        "unhealthy_threshold": rules.unhealthy,
        "http_health_check": {
            "path": health.path.as_str(),
            "host": health.host.as_ref().map(http::uri::Authority::as_str),
            "expected_statuses": [{ "start": 100, "end": 400 }],
            "codec_client_type": if protocol == Protocol::Http2 { "HTTP2" } else { "HTTP1" },
        },
    })
}

fn protocol_options(upstream: &Upstream) -> Value {
    let explicit = match upstream.protocol {
        Protocol::Http2 => Some(json!({ "http2_protocol_options": {} })),
        Protocol::Http1 => Some(json!({ "http_protocol_options": {} })),
        Protocol::Auto | Protocol::Tcp => None,
    };
    let options = json!({
        "auto_config": explicit.is_none().then(|| json!({ "http2_protocol_options": {} })),
        "explicit_http_config": explicit,
        "common_http_protocol_options": { "idle_timeout": seconds(upstream.timeouts.idle) },
    });
    let message = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    json!({ message: typed(message, options) })
}
