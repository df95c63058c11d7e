//! The settings that Envoy has no word for, or another one.

use super::Export;
use crate::export::notes::{Setting, differs, lost};

/// At the top.
const GATEWAY: &[Setting] = &[
    differs("drain", "Envoy drains as --drain-time-s and --drain-strategy say, when its admin listener is told to"),
    differs("workers", "the number of threads is --concurrency on Envoy's command line"),
    lost("tracing", "no trace is begun, continued or recorded"),
    lost("otlp", "nothing is sent to the collector"),
    differs("modules", "modules were fetched and verified when this was written; Envoy reads the files beside it"),
    lost("services", "there is no service of the gateway's own"),
    lost("admin.token", "Envoy's admin listener asks nobody for anything, so it listens on the loopback address alone"),
    lost("admin.tls", "Envoy's admin listener speaks in the clear, so it listens on the loopback address alone"),
    lost("admin.tenants", "tenants cannot be changed while Envoy runs"),
    differs(
        "admin.bind",
        "Envoy's pages: /ready is the same, /metrics is /stats/prometheus, /config is /config_dump; it also ends Envoy when told to",
    ),
    lost("access_log.otlp", "the lines are not sent to the collector"),
    lost("access_log.filters", "no line says what filters did"),
];

/// Of a listener.
const LISTENER: &[Setting] = &[
    lost("proxy_protocol", "whoever connects may send a header, not only trusted proxies"),
    lost("forwarding", "only x-forwarded-* are read and written"),
    lost("server_timing", "nobody is told how long a request took"),
    differs(
        "trusted_proxies",
        "from others, too, x-forwarded-for is passed on, with their address behind what they wrote",
    ),
];

/// Of a tenant.
const TENANT: &[Setting] = &[
    lost("limits.in_flight", "nothing bounds a tenant's requests under way"),
    lost("limits.cpu", "nothing bounds the processor time of a tenant's filters"),
    lost("limits.memory", "nothing bounds the memory of a tenant's filters"),
];

/// Of a plugin.
const PLUGIN: &[Setting] = &[
    lost("limits.memory", "nothing bounds the memory of a filter"),
    lost("limits.cpu", "nothing bounds the processor time of a callback: one that does not return stops a worker"),
    differs("warm", "every VM starts with Envoy"),
    differs("idle", "no VM goes before Envoy does"),
    lost("limits.compile", "nothing bounds what compiling a module takes"),
];

/// Of an upstream.
const UPSTREAM: &[Setting] = &[
    lost("service", "filters that call this service of the gateway find no cluster"),
    differs(
        "timeouts.connect",
        "also what a request may wait for a connection; the failure is called upstream_connect",
    ),
    differs("health", "until its first check has passed, an endpoint is not used"),
    differs("ejection", "the time grows by `first` each time, it does not double; counted by all workers together"),
    differs("limits", "counted by all workers together"),
];

/// Of a route.
const ROUTE: &[Setting] = &[
    lost("retries.budget", "Envoy has one budget for an upstream: that of the upstream's own `retries`"),
    differs(
        "match.query",
        "Envoy compares what was sent, not what it decodes to, and of a repeated parameter the first",
    ),
    differs("upgrades", "filters are called for what is sent after the upgrade"),
    lost("tunnel_idle", "an upgraded connection may be silent as long as any other exchange of its route"),
];

impl Export<'_> {
    /// Notes every setting that is written and does not hold, and what is so whatever is written.
    pub(super) fn note_settings(&mut self) {
        let root = self.places.root;
        self.notes.settings(root, GATEWAY);
        let listeners = root.get("listeners").into_iter().flat_map(crate::config::Node::entries);
        listeners.for_each(|(_, listener)| self.notes.settings(listener, LISTENER));
        let tenants = root.get("tenants").into_iter().flat_map(crate::config::Node::entries);
        tenants.for_each(|(_, tenant)| self.notes.settings(tenant, TENANT));
        for section in self.places.sections() {
            for (name, settings) in [("plugins", PLUGIN), ("upstreams", UPSTREAM)] {
                let parts = section.get(name).into_iter().flat_map(crate::config::Node::entries);
                parts.for_each(|(_, part)| self.notes.settings(part, settings));
            }
            let routes = section.get("routes").map_or(&[][..], crate::config::Node::list);
            routes.iter().for_each(|route| self.notes.settings(route, ROUTE));
        }
        self.note_always();
    }

    fn note_always(&mut self) {
        let root = &self.places.root.span;
        self.notes.differs(root, "what Envoy itself refuses (400, 413, 414, 431) has no problem document for a body");
        self.notes.differs(root, "the time for a response to begin is held as the time without progress of each try");
        if self.snapshot.filters().next().is_none() {
            return;
        }
        let unbound =
            "filters are bounded neither in memory nor in time, which here they are even where no limit is written";
        self.notes.differs(root, unbound);
        if let Some(tenants) = self.places.root.get("tenants") {
            self.notes.lost(&tenants.span, "a tenant's filters call any cluster, whoever has it");
        }
        self.notes
            .differs(root, "what filters log and measure is Envoy's log and its statistics, not told apart by tenant");
    }
}
