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
    differs(
        "tenant_defaults.grants",
        "what tenants say was held to it when this was written; nothing holds later changes to it",
    ),
    differs(
        "tenant_tiers",
        "of what tenants of a tier may use, `requests` alone is bounded; grants were held to when this was written",
    ),
    lost("tenant_defaults.limits.in_flight", "nothing bounds a tenant's requests under way"),
    lost("tenant_defaults.limits.cpu", "nothing bounds the processor time of a tenant's filters"),
    lost("tenant_defaults.limits.memory", "nothing bounds the memory of a tenant's filters"),
    lost("tenant_defaults.limits.callouts", "nothing bounds how often a tenant's filters call upstreams"),
    lost("tenant_defaults.limits.callouts_in_flight", "nothing bounds a tenant's calls under way"),
    lost("tenant_defaults.limits.log", "nothing bounds what a tenant's filters log"),
    lost("tenant_defaults.limits.shared_data", "nothing bounds a tenant's shared data"),
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
    lost("limits.callouts", "nothing bounds how often a tenant's filters call upstreams"),
    lost("limits.callouts_in_flight", "nothing bounds a tenant's calls under way"),
    lost("limits.log", "nothing bounds what a tenant's filters log"),
    lost("limits.shared_data", "nothing bounds a tenant's shared data"),
    lost("grants.upstreams", "its routes were held to it when this was written; its filters call any cluster"),
    differs("grants.hosts", "what it says was held to it when this was written"),
    differs("grants.networks", "addresses were held to it when this was written; what names resolve to later is not"),
    differs("grants.plugins", "what it says was held to it when this was written"),
    differs("grants.capabilities", "every plugin of its own has the functions that are left to it"),
    differs("grants.tighten_only", "what it says was held to it when this was written"),
    differs("modules", "modules were fetched and verified when this was written"),
    differs("include", "what its files say is written as if it stood here; later changes are not read"),
];

/// Of a plugin.
const PLUGIN: &[Setting] = &[
    lost("limits.memory", "nothing bounds the memory of a filter"),
    lost("limits.cpu", "nothing bounds the processor time of a callback: one that does not return stops a worker"),
    differs("warm", "every VM starts with Envoy"),
    differs("idle", "no VM goes before Envoy does"),
    lost("limits.compile", "nothing bounds what compiling a module takes"),
    differs("capabilities", "Envoy has deprecated what restricts a module, and a release after 1.40 may refuse it"),
    lost("isolation", "requests share a VM, and what the module keeps in its memory"),
    lost("rollout", "the current version alone is there, and gets every request"),
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
        let again = "the route is chosen again when a filter has changed the request's head, here only where it asks for \
                     that: a path that a filter rewrites needs a route of its own";
        self.notes.differs(root, again);
        if let Some(tenants) = self.places.root.get("tenants") {
            self.notes.lost(&tenants.span, "a tenant's filters call any cluster, whoever has it");
        }
        self.notes
            .differs(root, "what filters log and measure is Envoy's log and its statistics, not told apart by tenant");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::config::schema;

    /// Keys that the export writes, or that say where something is to be found. With a dot and all that follows where more is below.
    const WRITTEN: [(&str, &[&str]); 7] = [
        (
            "",
            &[
                "version",
                "max_connections",
                "access_log.to",
                "access_log.sample",
                "access_log.request_headers",
                "access_log.response_headers",
                "access_log.properties",
                "tenant_defaults.limits.requests",
            ],
        ),
        (
            "listeners",
            &[
                "bind",
                "protocol",
                "upstream",
                "filters",
                "tenant",
                "tls",
                "timeouts",
                "http2",
                "max_connections",
                "encoded_slashes",
                "underscores_in_headers",
                "forward_client_certificate",
            ],
        ),
        ("tenants", &["hosts", "limits.requests"]),
        ("plugins", &["module", "sha256", "on_failure", "vm_id", "vm_config", "allow_on_headers_stop_iteration"]),
        ("upstreams", &["endpoints", "balance", "protocol", "resolve", "tls", "retries", "timeouts"]),
        ("routes", &["name", "match", "filters", "skip", "upstream", "timeout", "timeouts", "retries"]),
        ("filters", &["name", "plugin", "policy", "config", "optional"]),
    ];

    fn settings(section: &str) -> &'static [Setting] {
        match section {
            "" => GATEWAY,
            "listeners" => LISTENER,
            "tenants" => TENANT,
            "plugins" => PLUGIN,
            "upstreams" => UPSTREAM,
            "routes" => ROUTE,
            _ => &[],
        }
    }

    /// What a part of the schema refers to, and its alternatives.
    fn forms<'s>(root: &'s Value, schema: &'s Value) -> Vec<&'s Value> {
        let named = schema["$ref"].as_str().and_then(|name| root["$defs"].get(name.rsplit('/').next()?));
        let more = ["anyOf", "oneOf", "allOf"].into_iter().filter_map(|word| schema[word].as_array()).flatten();
        let more = more.chain(named).flat_map(|form| forms(root, form));
        std::iter::once(schema).chain(more.collect::<Vec<_>>()).collect()
    }

    /// The keys of a part, with dots between.
    fn keys(root: &Value, schema: &Value, path: &str, found: &mut Vec<String>) {
        let properties = forms(root, schema).into_iter().filter_map(|form| form["properties"].as_object()).flatten();
        let properties: Vec<_> = properties.collect();
        if properties.is_empty() {
            return found.push(path.to_owned());
        }
        for (name, below) in properties {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            keys(root, below, &path, found);
        }
    }

    /// One of a section's parts.
    fn part<'s>(root: &'s Value, section: &str) -> &'s Value {
        let of = &root["properties"][section];
        forms(root, of).into_iter().find_map(|form| form.get("items").or(form.get("additionalProperties"))).unwrap()
    }

    #[test]
    fn every_key_is_written_or_noted() {
        let root = schema();
        let sections: Vec<&str> = WRITTEN.iter().map(|(section, _)| *section).chain(["policies"]).collect();
        for (section, written) in WRITTEN {
            let mut found = Vec::new();
            match section {
                "" => keys(&root, &root, "", &mut found),
                _ => keys(&root, part(&root, section), "", &mut found),
            }
            assert!(found.len() > 4, "{section}: {found:?}");
            // What stands in a section of its own is looked at there.
            let own = |key: &String| section == "listeners" || !sections.contains(&key.split('.').next().unwrap());
            let own = |key: &String| !matches!(section, "" | "tenants") || own(key);
            for key in found.iter().filter(|key| own(key)) {
                let below = |known: &str| key == known || key.starts_with(&format!("{known}."));
                let is_known = written.iter().any(|known| below(known))
                    || settings(section).iter().any(|setting| below(setting.path));
                assert!(
                    is_known,
                    "`{key}` of `{section}` is neither written nor noted: say what becomes of it on Envoy"
                );
            }
            for setting in settings(section) {
                let is_there =
                    found.iter().any(|key| key == setting.path || key.starts_with(&format!("{}.", setting.path)));
                assert!(is_there, "`{}` of `{section}` is no key any more", setting.path);
            }
        }
    }
}
