//! What an Envoy needs to be told so that it does what a gateway with the same filters does.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use serde_json::{Value, json};

/// A module as an HTTP filter.
#[derive(Clone, Copy, Debug)]
pub struct Wasm<'a> {
    /// What its log lines and properties call it.
    pub name: &'a str,
    /// The module.
    pub module: &'a Path,
    /// What the guest reads as its configuration.
    pub configuration: &'a str,
    /// Filters whose modules and whose ids are the same share a VM.
    pub vm_id: &'a str,
    /// What the guest reads as its VM's configuration; empty is none.
    pub vm_configuration: &'a str,
    /// Whether a headers callback that pauses holds back the headers alone.
    pub holds_headers: bool,
}

impl Wasm<'_> {
    /// The filter, for [`listener`].
    #[must_use]
    pub fn filter(&self) -> Value {
        let text = |value: &str| json!({ "@type": "type.googleapis.com/google.protobuf.StringValue", "value": value });
        let vm = json!({
            "vm_id": self.vm_id,
            "runtime": "envoy.wasm.runtime.v8",
            "code": { "local": { "filename": self.module } },
            "configuration": (!self.vm_configuration.is_empty()).then(|| text(self.vm_configuration)),
        });
        let wasm = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": self.name,
                "root_id": self.name,
                "configuration": text(self.configuration),
                "vm_config": vm,
                "allow_on_headers_stop_iteration": self.holds_headers,
            },
        });
        json!({ "name": self.name, "typed_config": wasm })
    }
}

/// A route: everything under `prefix` goes to a cluster.
#[must_use]
pub fn route(name: &str, prefix: &str, cluster: &str) -> Value {
    json!({ "name": name, "match": { "prefix": prefix }, "route": { "cluster": cluster } })
}

/// A listener on a port that the system chooses, for both versions of HTTP, which adds as little of its own as it can.
#[must_use]
pub fn listener(name: &str, filters: Vec<Value>, routes: &[Value]) -> Value {
    let router = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        "suppress_envoy_headers": true,
    });
    let mut chain = filters;
    chain.push(json!({ "name": "envoy.filters.http.router", "typed_config": router }));
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "server_header_transformation": "PASS_THROUGH",
        "route_config": { "name": name, "virtual_hosts": [{ "name": name, "domains": ["*"], "routes": routes }] },
        "http_filters": chain,
    });
    let filters = json!([{ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager }]);
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    json!({ "name": name, "address": address(any), "filter_chains": [{ "filters": filters }] })
}

/// How an upstream is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, without asking first.
    Http2,
}

/// An upstream with these endpoints.
#[must_use]
pub fn cluster(name: &str, endpoints: &[SocketAddr], protocol: Protocol) -> Value {
    let endpoint = |at: &SocketAddr| json!({ "endpoint": { "address": address(*at) } });
    let endpoints: Vec<Value> = endpoints.iter().map(endpoint).collect();
    let explicit = match protocol {
        Protocol::Http1 => json!({ "http_protocol_options": {} }),
        Protocol::Http2 => json!({ "http2_protocol_options": {} }),
    };
    let options = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": explicit,
    });
    json!({
        "name": name,
        "type": "STATIC",
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options },
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": endpoints }] },
    })
}

fn address(at: SocketAddr) -> Value {
    json!({ "socket_address": { "address": at.ip().to_string(), "port_value": at.port() } })
}
