//! Listeners: addresses, TLS, and whether requests or bytes come in.

use serde_json::{Value, json};

use super::{Export, address, seconds, typed};
use crate::config::snapshot::{Listener, ProxyProtocol, Speaks};

impl Export<'_> {
    /// Every listener. All that speak HTTP have the same hosts.
    pub(super) fn listeners(&mut self, hosts: &[Value]) -> Vec<Value> {
        self.snapshot.listeners.iter().map(|listener| self.listener(listener, hosts)).collect()
    }

    fn listener(&mut self, listener: &Listener, hosts: &[Value]) -> Value {
        let mut filters: Vec<Value> = listener.max_connections.map(connection_limit).into_iter().collect();
        match listener.speaks {
            Speaks::Http => filters.push(self.connection_manager(listener, hosts)),
            Speaks::Tcp => filters.extend(self.tcp(listener)),
        }
        let tls = self.downstream_tls(listener);
        let (socket, handshake) = tls.map(|tls| (tls.socket, tls.handshake)).unzip();
        let mut before = Vec::new();
        if listener.proxy_protocol != ProxyProtocol::Off {
            before.push(proxy_protocol(listener.proxy_protocol));
        }
        if socket.is_some() {
            let inspector = typed("envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector", json!({}));
            before.push(json!({ "name": "envoy.filters.listener.tls_inspector", "typed_config": inspector }));
        }
        json!({
            "name": &*listener.name,
            "address": address(listener.bind),
            "listener_filters": (!before.is_empty()).then_some(before),
            "filter_chains": [{
                "filters": filters,
                "transport_socket": socket,
                "transport_socket_connect_timeout": handshake,
            }],
        })
    }

    /// A `tcp` listener's filters, and where its connections go.
    fn tcp(&mut self, listener: &Listener) -> Vec<Value> {
        let Some(route) = self.snapshot.tcp_routes.iter().find(|route| route.listener == listener.name) else {
            return Vec::new();
        };
        let mut filters = self.network_filters(route);
        let proxy = json!({
            "stat_prefix": &*listener.name,
            "cluster": self.cluster_name(route.upstream),
            "idle_timeout": seconds(route.idle),
        });
        let proxy = typed("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", proxy);
        filters.push(json!({ "name": "envoy.filters.network.tcp_proxy", "typed_config": proxy }));
        filters
    }
}

fn connection_limit(most: u32) -> Value {
    let limit = json!({ "stat_prefix": "connections", "max_connections": most });
    let limit = typed("envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit", limit);
    json!({ "name": "envoy.filters.network.connection_limit", "typed_config": limit })
}

fn proxy_protocol(how: ProxyProtocol) -> Value {
    let optional = how == ProxyProtocol::Optional;
    let config = json!({ "allow_requests_without_proxy_protocol": optional });
    let config = typed("envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol", config);
    json!({ "name": "envoy.filters.listener.proxy_protocol", "typed_config": config })
}
