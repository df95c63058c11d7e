//! TLS on both sides. Certificates, keys and authorities are named where they are; none is copied.

use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Export, seconds, typed};
use crate::config::snapshot::{Listener, Protocol, Upstream};
use crate::config::{Node, TlsVersion};

/// Where Debian and its kin keep the authorities that a machine trusts. Envoy validates no name against those it finds by itself.
const MACHINES_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// How a listener's connections are encrypted, and how long the handshake may take.
pub(super) struct Downstream {
    pub(super) socket: Value,
    pub(super) handshake: String,
}

impl Export<'_> {
    pub(super) fn downstream_tls(&self, listener: &Listener) -> Option<Downstream> {
        let settings = listener.tls.as_ref()?.settings();
        let node = self.places.named("listeners", &listener.name).get("tls")?;
        let pairs: Vec<Value> = node.get("certificates").map_or(&[][..], Node::list).iter().map(pair).collect();
        let auth = node.get("client_auth");
        let required = auth.map(|auth| auth.get("mode").is_none_or(|mode| mode.written() == "required"));
        let validation = auth.map(|auth| json!({ "trusted_ca": file(auth.get("ca")), "crl": file(auth.get("crl")) }));
        let context = json!({
            "require_client_certificate": required,
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": versions(settings.min_version),
                "tls_certificates": pairs,
                "validation_context": validation,
            },
        });
        let context = typed("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", context);
        let socket = json!({ "name": "envoy.transport_sockets.tls", "typed_config": context });
        Some(Downstream { socket, handshake: seconds(settings.handshake_timeout) })
    }

    pub(super) fn upstream_tls(&mut self, upstream: &Upstream, node: &Node) -> Option<Value> {
        let settings = upstream.tls.as_ref()?.settings();
        let node = node.get("tls")?;
        let name = settings.server_name.as_ref().map(|name| name.to_str().into_owned());
        let addresses = upstream.endpoints.iter().filter_map(|endpoint| endpoint.host.parse::<IpAddr>().ok());
        let by_address: Vec<Value> = addresses
            .filter(|_| name.is_none())
            .map(|address| json!({ "san_type": "IP_ADDRESS", "matcher": { "exact": address.to_string() } }))
            .collect();
        let named = by_address.is_empty();
        let mut authorities = file(node.get("ca"));
        if authorities.is_null() {
            authorities = json!({ "filename": MACHINES_AUTHORITIES });
            let text = format!("the authorities that the machine trusts are read from {MACHINES_AUTHORITIES}");
            self.notes.differs(&node.span, text);
        }
        let context = json!({
            "sni": name,
            "auto_host_sni": (name.is_none() && named).then_some(true),
            "auto_sni_san_validation": named.then_some(true),
            "common_tls_context": {
                "alpn_protocols": match settings.protocol {
                    Protocol::Http1 => json!(["http/1.1"]),
                    Protocol::Http2 => json!(["h2"]),
                    // Envoy's own for what is negotiated.
                    Protocol::Auto | Protocol::Tcp => Value::Null,
                },
                "tls_params": versions(settings.min_version),
                "tls_certificates": node.get("certificate").map(|node| [pair(node)]),
                "validation_context": {
                    "trusted_ca": authorities,
                    "match_typed_subject_alt_names": (!named).then_some(by_address),
                },
            },
        });
        let context = typed("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", context);
        Some(json!({ "name": "envoy.transport_sockets.tls", "typed_config": context }))
    }
}

fn versions(oldest: TlsVersion) -> Value {
    let oldest = match oldest {
        TlsVersion::Tls12 => "TLSv1_2",
        TlsVersion::Tls13 => "TLSv1_3",
    };
    json!({ "tls_minimum_protocol_version": oldest, "tls_maximum_protocol_version": "TLSv1_3" })
}

fn pair(node: &Node) -> Value {
    json!({ "certificate_chain": file(node.get("cert")), "private_key": file(node.get("key")) })
}

/// A file where it is now; nothing if none is named.
fn file(node: Option<&Node>) -> Value {
    let path = node.and_then(|node| {
        let path: PathBuf = node.span.source.resolve(node.json().as_str()?).ok()?;
        std::path::absolute(path).ok()
    });
    path.map_or(Value::Null, |path| json!({ "filename": path }))
}
