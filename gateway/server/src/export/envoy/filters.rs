//! Filters: a module, its VM and its configuration, for requests or for connections.

use portcullis_core::filter::{HeadersPause, OnFailure};
use portcullis_module::{HOLDS_HEADERS, HOLDS_HEADERS_HERE};
use serde_json::{Map, Value, json};

use super::{Export, typed};
use crate::config::snapshot::{Capabilities, Filter, FilterIndex, Plugin, TcpRoute};

impl Export<'_> {
    /// Every filter that some chain has, switched off, and the router behind them.
    pub(super) fn http_filters(&mut self) -> Vec<Value> {
        let slots = self.order.slots().to_vec();
        let mut filters: Vec<Value> = Vec::new();
        if self.snapshot.tenants.iter().any(|tenant| tenant.limits.requests.is_some()) {
            filters.push(tenants_limit());
        }
        for slot in slots {
            let config = json!({ "config": self.wasm(slot.filter) });
            let config = typed("envoy.extensions.filters.http.wasm.v3.Wasm", config);
            filters.push(json!({ "name": slot.name, "disabled": true, "typed_config": config }));
        }
        let router = json!({ "suppress_envoy_headers": true });
        let router = typed("envoy.extensions.filters.http.router.v3.Router", router);
        filters.push(json!({ "name": "envoy.filters.http.router", "typed_config": router }));
        filters
    }

    /// The filters of a `tcp` listener.
    pub(super) fn network_filters(&mut self, route: &TcpRoute) -> Vec<Value> {
        let filters = route.filters.iter().map(|filter| {
            let config = json!({ "config": self.wasm(*filter) });
            let config = typed("envoy.extensions.filters.network.wasm.v3.Wasm", config);
            json!({ "name": self.filter_name(*filter), "typed_config": config })
        });
        filters.collect()
    }

    /// What switches the filters of a chain on, for a route or a virtual host.
    pub(super) fn switched_on(&mut self, chain: &[FilterIndex]) -> Option<Value> {
        let on = || typed("envoy.config.route.v3.FilterConfig", json!({ "config": {} }));
        let filters: Map<String, Value> = self.placed(chain).into_iter().map(|name| (name, on())).collect();
        (!filters.is_empty()).then_some(Value::Object(filters))
    }

    /// A filter as Envoy's `PluginConfig`.
    fn wasm(&mut self, index: FilterIndex) -> Value {
        let (filter, plugin) = self.plugin_of(index);
        let module = self.module(plugin);
        let module = self.at.join(module);
        if plugin.on_failure == OnFailure::Open {
            let (_, node) = self.places.plugin(filter.plugin);
            let place = node.get("on_failure").unwrap_or(node);
            self.notes.differs(&place.span, "after a failure the filter is left out until Envoy is started anew");
        }
        let configuration = self.configuration(filter);
        let vm_configuration = self.vm_configuration(plugin);
        let vm_id = self.vm_id(filter, plugin);
        json!({
            "name": &*plugin.name,
            "root_id": &*plugin.name,
            "configuration": (!configuration.is_empty()).then(|| text(&configuration)),
            "allow_on_headers_stop_iteration": plugin.headers_pause == HeadersPause::HoldsHeaders,
            "failure_policy": match plugin.on_failure {
                OnFailure::Closed => "FAIL_RELOAD",
                OnFailure::Open => "FAIL_OPEN",
            },
            "capability_restriction_config": restriction(&plugin.capabilities),
            "vm_config": {
                "vm_id": vm_id,
                "runtime": "envoy.wasm.runtime.v8",
                "code": { "local": { "filename": module } },
                "configuration": (!vm_configuration.is_empty()).then(|| text(&vm_configuration)),
            },
        })
    }

    /// What a filter's VM is called. The tenant's name keeps its shared data and queues apart from those of others.
    fn vm_id(&mut self, filter: &Filter, plugin: &Plugin) -> String {
        let Some(tenant) = self.tenant_name(filter.tenant) else { return plugin.vm_id.to_string() };
        // So that no name of a tenant is that of another with an id behind it.
        let tenant = tenant.replace('%', "%25").replace('/', "%2F");
        if plugin.vm_id.is_empty() {
            return tenant;
        }
        let vm_id = format!("{tenant}/{}", plugin.vm_id);
        let (place, node) = self.places.plugin(filter.plugin);
        let place = node.get("vm_id").map_or(place, |node| &node.span);
        self.notes.differs(place, format!("filters read it, and find its queues, as `{vm_id}`"));
        vm_id
    }

    /// What a plugin's VMs are configured with.
    fn vm_configuration(&self, plugin: &Plugin) -> String {
        let configuration = match &*plugin.vm_config {
            HOLDS_HEADERS_HERE => HOLDS_HEADERS,
            _ => self.secrets.configuration(&plugin.vm_config),
        };
        String::from_utf8_lossy(configuration).into_owned()
    }
}

/// The functions that a module may use, where they are not all. Envoy takes what no module can do without for one of them.
fn restriction(capabilities: &Capabilities) -> Option<Value> {
    let Capabilities::Only(names) = capabilities else { return None };
    let names = names.iter().map(|name| &**name).chain(["proc_exit"]);
    let allowed: Map<String, Value> = names.map(|name| (name.to_owned(), json!({}))).collect();
    Some(json!({ "allowed_capabilities": allowed }))
}

/// The name of the filter that holds tenants to their requests in a time.
pub(super) const TENANTS_LIMIT: &str = "envoy.filters.http.local_ratelimit";

/// The message that configures it.
pub(super) const LOCAL_RATE_LIMIT: &str = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";

fn tenants_limit() -> Value {
    let config = typed(LOCAL_RATE_LIMIT, json!({ "stat_prefix": "tenants" }));
    json!({ "name": TENANTS_LIMIT, "disabled": true, "typed_config": config })
}

fn text(value: &str) -> Value {
    typed("google.protobuf.StringValue", json!({ "value": value }))
}
