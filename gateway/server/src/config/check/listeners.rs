//! Listeners: who may connect, and how long they may take.

use std::sync::Arc;

use portcullis_core::admission::Rules;
use portcullis_core::downstream::Patience;
use portcullis_core::forward::Forwarding;

use super::definitions::UPSTREAM;
use super::{Check, Section, filters};
use crate::config::file::{self, Askers, File, Protocol, ProxyProtocol};
use crate::config::snapshot::{Http2, Listener, ServerTiming, Speaks, TcpRoute, UpstreamIndex};
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

    /// Where `tcp` listeners send to; and what only the one or the other kind of listener can be told.
    pub(super) fn tcp_routes(&mut self, tree: &Node, file: &File, sections: &[Section<'_>]) -> Vec<TcpRoute> {
        let mut routes = Vec::new();
        for (key, node) in tree.get("listeners").into_iter().flat_map(Node::entries) {
            let Some(listener) = file.listeners.get(&key.name) else { continue };
            let (foreign, other) = match listener.protocol {
                file::Speaks::Http => (&OF_TCP[..], "tcp"),
                file::Speaks::Tcp => (&OF_HTTP[..], "http"),
            };
            for word in foreign {
                if let Some((place, _)) = node.entries().find(|(entry, _)| entry.name == *word) {
                    let problem = Diagnostic::error(format!("`{word}` means nothing for listener `{}`", key.name));
                    self.report(problem.at(&place.span, format!("only for a listener with `protocol: {other}`")));
                }
            }
            if listener.protocol == file::Speaks::Tcp {
                routes.extend(self.tcp_route(listener, key, node, sections));
            }
        }
        routes
    }

    fn tcp_route(
        &mut self,
        listener: &file::Listener,
        key: &Key,
        node: &Node,
        sections: &[Section<'_>],
    ) -> Option<TcpRoute> {
        let scope = match node.get("tenant") {
            None => 0,
            Some(place) => match sections.iter().skip(1).position(|section| section.name == place.written()) {
                Some(index) => index + 1,
                None => {
                    let problem = Diagnostic::error(format!(
                        "listener `{}` belongs to tenant `{}`, which does not exist",
                        key.name,
                        place.written()
                    ));
                    self.report(
                        problem.at(&place.span, "no tenant has this name").help("tenants are defined under `tenants:`"),
                    );
                    return None;
                }
            },
        };
        let section = sections.get(scope)?;
        let Some(place) = node.get("upstream") else {
            let problem = Diagnostic::error(format!("listener `{}` speaks `tcp` and sends nowhere", key.name));
            self.report(problem.at(&key.span, "").help("name an upstream with `protocol: tcp` under `upstream`"));
            return None;
        };
        let upstream = self.resolve(&UPSTREAM, scope, place, &format!("listener `{}` sends to", key.name));
        if upstream.is_some_and(|index| self.protocol_of(index) != Some(Protocol::Tcp)) {
            let problem = Diagnostic::error(format!("listener `{}` speaks `tcp` and its upstream does not", key.name));
            self.report(problem.at(&place.span, "").help("give the upstream `protocol: tcp`"));
        }
        let placed = self.filters(&listener.filters, node.get("filters"), section, scope);
        Some(TcpRoute {
            listener: key.name.as_str().into(),
            tenant: section.tenant,
            filters: filters::indices(&placed),
            upstream: upstream?,
            idle: listener.timeouts.stream_idle.0,
        })
    }

    pub(super) fn protocol_of(&self, upstream: UpstreamIndex) -> Option<Protocol> {
        self.upstream_at(upstream).map(|upstream| upstream.protocol)
    }
}

/// What a listener for HTTP cannot be told, and one for TCP.
const OF_TCP: [&str; 3] = ["upstream", "filters", "tenant"];
const OF_HTTP: [&str; 5] =
    ["underscores_in_headers", "encoded_slashes", "forward_client_certificate", "forwarding", "http2"];

fn speaks(listener: &file::Listener) -> Speaks {
    match listener.protocol {
        file::Speaks::Http => Speaks::Http,
        file::Speaks::Tcp => Speaks::Tcp,
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
            // Bytes that are no requests have no end that could be waited for.
            request: timeouts.request.as_ref().map(|limit| limit.0).filter(|_| speaks(listener) == Speaks::Http),
        },
        speaks: speaks(listener),
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
