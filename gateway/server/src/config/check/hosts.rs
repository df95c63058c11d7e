//! Whose hosts are whose: each belongs to one tenant, or to the gateway.

use std::collections::HashMap;

use portcullis_core::route::HostPattern;

use super::grants::Grants;
use super::{Check, tenants, unreadable};
use crate::config::file::File;
use crate::config::tree::Node;
use crate::diagnostic::{Diagnostic, Span};

/// The hosts of one tenant, with their places.
pub(super) type Hosts<'t> = Vec<(HostPattern, &'t Node)>;

/// A host that a route of the gateway's is for, or all that no tenant has.
struct Served<'n> {
    route: &'n Node,
    host: HostPattern,
    place: &'n Node,
}

impl Check<'_> {
    /// The hosts of every tenant; one that two claim is left with the first.
    pub(super) fn hosts<'n>(&mut self, tree: &'n Node, file: &'n File) -> Vec<Hosts<'n>> {
        let served = served(tree);
        let mut owners: HashMap<HostPattern, (&str, &Span)> = HashMap::new();
        let mut all = Vec::new();
        for (key, node, tenant) in tenants(tree, file) {
            let mut hosts = Hosts::new();
            let places = node.get("hosts").map_or(&[][..], Node::list);
            let grants = Grants::of((tree, file), (key, node, tenant));
            for (text, place) in tenant.hosts.iter().zip(places) {
                let Some(host) = self.host(text, place) else { continue };
                if host == HostPattern::ANY {
                    self.report(every_host(&key.name, place));
                } else if let Some(refusal) = grants.refuse_host(&key.name, &host, place) {
                    self.report(refusal);
                } else if let Some(refusal) = refuse_served((&key.name, &grants), &host, place, &served) {
                    self.report(refusal);
                } else if let Some((other, first)) = owners.get(&host) {
                    self.report(claimed_twice(place, &key.name, other, first));
                } else {
                    owners.insert(host.clone(), (&key.name, &place.span));
                    hosts.push((host, place));
                }
            }
            all.push(hosts);
        }
        all
    }

    pub(super) fn host(&mut self, text: &str, place: &Node) -> Option<HostPattern> {
        match HostPattern::parse(text) {
            Ok(host) => Some(host),
            Err(error) => {
                self.report(unreadable(place, "a host", &error));
                None
            }
        }
    }
}

/// What the gateway's own routes serve.
fn served(tree: &Node) -> Vec<Served<'_>> {
    let mut served = Vec::new();
    for route in tree.get("routes").map_or(&[][..], Node::list) {
        let hosts = route.get("match").and_then(|condition| condition.get("hosts")).map_or(&[][..], Node::list);
        if hosts.is_empty() {
            served.push(Served { route, host: HostPattern::ANY, place: route.get("name").unwrap_or(route) });
        }
        let parsed = hosts.iter().filter_map(|place| Some((HostPattern::parse(place.json().as_str()?).ok()?, place)));
        served.extend(parsed.map(|(host, place)| Served { route, host, place }));
    }
    served
}

/// Why a tenant may not claim a host in a file of its own, if the gateway serves it: requests would go elsewhere than they did. Whoever
/// is granted hosts may claim those that the gateway's routes do not name.
fn refuse_served(
    (tenant, grants): (&str, &Grants<'_>),
    host: &HostPattern,
    place: &Node,
    served: &[Served<'_>],
) -> Option<Diagnostic> {
    if !place.is_tenants() {
        return None;
    }
    let taken = |served: &&Served<'_>| host.covers(&served.host) || !grants.has_hosts() && served.host.covers(host);
    let Served { route, host: by, place: first } = served.iter().find(taken)?;
    let name = route.get("name").map_or("", Node::written);
    let (serves, help) = if host.covers(by) {
        ("names", "a host belongs to one tenant or to the gateway: remove it here or there")
    } else {
        (
            "serves",
            "say which hosts tenants may claim, under `tenant_defaults.grants.hosts` or `tenant_tiers.NAME.grants.hosts`",
        )
    };
    let claimed = place.written();
    let problem = Diagnostic::error(format!(
        "tenant `{tenant}` claims host `{claimed}`, which route `{name}` of the gateway {serves}"
    ));
    let why = if *by == HostPattern::ANY { "it is for every host that no tenant has" } else { "it is for this host" };
    Some(problem.at(&place.span, "claimed here").at(&first.span, why).help(help))
}

fn every_host(tenant: &str, place: &Node) -> Diagnostic {
    Diagnostic::error(format!("tenant `{tenant}` cannot own every host"))
        .at(&place.span, "these are the hosts that no tenant owns")
        .help("name the tenant's hosts, or put its routes under `routes:` at the top")
}

fn claimed_twice(place: &Node, tenant: &str, other: &str, first: &Span) -> Diagnostic {
    let message = if tenant == other {
        format!("host `{}` is named twice by tenant `{tenant}`", place.written())
    } else {
        format!("host `{}` belongs to both tenant `{tenant}` and tenant `{other}`", place.written())
    };
    Diagnostic::error(message)
        .at(&place.span, "claimed again")
        .at(first, "claimed here")
        .help("a host belongs to one tenant; a more specific host inside another's wildcard is fine")
}
