//! Listeners: who may connect, and how long they may take.

use std::sync::Arc;

use portcullis_core::admission::Rules;
use portcullis_core::downstream::Patience;
use portcullis_core::forward::Forwarding;

use super::Check;
use crate::config::file::{self, Askers, ProxyProtocol};
use crate::config::snapshot::{Http2, Listener, ServerTiming};
use crate::config::tree::{Key, Node};
use crate::diagnostic::Diagnostic;
use crate::tls::server::Server;

impl Check<'_> {
    /// Nobody could send what only trusted proxies may, where there are none.
    pub(super) fn proxies(&mut self, listener: &file::Listener, key: &Key, node: &Node) {
        let Some(place) = node.get("proxy_protocol") else { return };
        if listener.proxy_protocol != ProxyProtocol::Off && listener.trusted_proxies.is_empty() {
            let problem =
                Diagnostic::error(format!("listener `{}` expects the PROXY protocol but trusts no proxy", key.name))
                    .at(&place.span, "every connection would be refused, or none could use it")
                    .help("name the networks of the proxies under `trusted_proxies`");
            self.report(problem);
        }
    }
}

pub(super) fn listener(listener: &file::Listener, key: &Key, rules: Rules, tls: Option<Arc<Server>>) -> Listener {
    let timeouts = &listener.timeouts;
    Listener {
        name: key.name.as_str().into(),
        bind: listener.bind.0,
        trusted_proxies: listener.trusted_proxies.iter().map(|network| network.0).collect(),
        rules,
        tls,
        forwarded_certificate: listener.forward_client_certificate.mode,
        forwarded_pem: listener.forward_client_certificate.pem,
        proxy_protocol: listener.proxy_protocol,
        forwarding: match listener.forwarding {
            file::Forwarding::XForwarded => Forwarding::XForwarded,
            file::Forwarding::Forwarded => Forwarding::Forwarded,
            file::Forwarding::Both => Forwarding::Both,
        },
        max_connections: listener.max_connections,
        patience: Patience {
            header: timeouts.header.0,
            idle: timeouts.idle.0,
            stream_idle: timeouts.stream_idle.0,
            request: timeouts.request.as_ref().map(|limit| limit.0),
        },
        http2: Http2 {
            max_streams: listener.http2.max_streams,
            ping: listener.http2.ping.as_ref().map(|silence| silence.0),
        },
        server_timing: listener
            .server_timing
            .as_ref()
            .map(|timing| ServerTiming { header: timing.header.0.clone(), from_anyone: timing.from == Askers::Any }),
    }
}
