//! Routes: whole chains, targets, and the router that finds them.
//!
//! Which of two routes is more specific, and what is a tie, is `core::route`'s rule; here its answers get their places.

use std::collections::HashMap;
use std::time::Duration;

use portcullis_core::exchange::Times;
use portcullis_core::retry::Policy;
use portcullis_core::route::{Conditions, HostPattern, Owner, PathPattern, RouteError, Router, Rule};
use portcullis_core::upgrade::Tunnels;

use super::definitions::UPSTREAM;
use super::filters::{self, Placed};
use super::{Check, Hosts, Section, unreadable};
use crate::config::snapshot::{Protocol, Route, RouteIndex, Service, TenantIndex, Timeouts, UpstreamIndex};
use crate::config::tree::Node;
use crate::config::written::Text;
use crate::config::{defaults, file};
use crate::diagnostic::{Diagnostic, Span};

pub(super) type Owners = Vec<Owner<Option<TenantIndex>, RouteIndex>>;

impl Check<'_> {
    /// What finds the routes.
    pub(super) fn router(
        &mut self,
        owners: Owners,
        sections: &[Section<'_>],
        hosts: &[Hosts<'_>],
    ) -> Option<Router<Option<TenantIndex>, RouteIndex>> {
        match Router::build(owners) {
            Ok(router) => Some(router),
            Err(errors) => {
                let unsure = |error: &&RouteError| is_unsure(error, sections, hosts);
                let errors = errors.iter().filter(|error| !unsure(error));
                errors.for_each(|error| self.refuse_route(error, sections));
                None
            }
        }
    }

    pub(super) fn section_routes(
        &mut self,
        section: &Section<'_>,
        scope: usize,
        outer: &[&Placed],
    ) -> Vec<Rule<RouteIndex>> {
        let nodes = section.node.get("routes").map_or(&[][..], Node::list);
        let mut names: HashMap<&str, &Span> = HashMap::new();
        let mut rules = Vec::new();
        for (route, node) in section.routes.iter().zip(nodes) {
            if let Some(place) = node.get("name")
                && let Some(first) = names.insert(&route.name, &place.span)
            {
                let problem = Diagnostic::error(format!("two routes are called `{}`", place.written()))
                    .at(&place.span, "used again here")
                    .at(first, "first used here")
                    .help("names tell routes apart in logs and metrics: rename one");
                self.report(problem);
            }
            let made = self.route(route, node, section, scope, outer);
            let routes = &mut self.share_mut(section.tenant).routes;
            routes.push(made);
            let index = RouteIndex { owner: section.tenant, at: routes.len() - 1 };
            rules.extend(self.rule(route, node, index));
        }
        rules
    }

    fn route(
        &mut self,
        route: &file::Route,
        node: &Node,
        section: &Section<'_>,
        scope: usize,
        outer: &[&Placed],
    ) -> Route {
        let use_ = format!("route `{}` sends to", name(node));
        let upstream = node.get("upstream").and_then(|name| self.resolve(&UPSTREAM, scope, name, &use_));
        if let (Some(Protocol::Tcp), Some(place)) =
            (upstream.and_then(|index| self.protocol_of(index)), node.get("upstream"))
        {
            let problem =
                Diagnostic::error(format!("route `{}` sends requests to an upstream that speaks `tcp`", name(node)));
            self.report(problem.at(&place.span, "only a listener with `protocol: tcp` can send to it"));
        }
        let to = upstream.and_then(|index| self.upstream_at(index));
        if let (Some(Service::RateLimit), Some(place)) = (to.and_then(|to| to.service), node.get("upstream")) {
            let problem = Diagnostic::error(format!(
                "route `{}` sends requests to `{}`, which is a service for filters",
                name(node),
                place.written()
            ));
            let help = "a filter names it in its settings, as in `global: { upstream: … }`; clients reach the service by \
                        `services.rate_limit.bind`";
            self.report(problem.at(&place.span, "it has no endpoints").help(help));
        }
        if let (Some(index), Some(place)) = (upstream, node.get("upstream")) {
            self.upstream_granted(index, place, section);
        }
        let own = self.filters(&route.filters, node.get("filters"), section, scope);
        let mut chain = self.unskipped(outer, route, node);
        chain.extend(filters::indices(&own));
        let retry = route.retries.as_ref().map(|retries| self.retries(retries, node));
        let to = upstream.and_then(|index| self.upstream_at(index));
        let times = to.map_or(Times::with_response(Duration::ZERO), |to| times(route, &to.timeouts));
        let retry = retry.or_else(|| Some(to?.retry.clone())).unwrap_or_else(Policy::connect_only);
        Route {
            name: route.name.as_str().into(),
            tenant: section.tenant,
            pattern: route.r#match.path.as_str().into(),
            filters: chain,
            upstream: upstream.unwrap_or(UpstreamIndex { owner: None, at: 0 }),
            times: self.tightened_times(times, node, section),
            retry,
            tunnels: self.tunnels(route, node),
        }
    }

    fn tunnels(&mut self, route: &file::Route, node: &Node) -> Tunnels {
        if let Some(place) = node.get("tunnel_idle")
            && route.upgrades.is_empty()
        {
            let problem = Diagnostic::error(format!("route `{}` has no tunnels that could be idle", name(node)))
                .at(&place.span, "it allows no upgrade")
                .help("allow one, as in `upgrades: [websocket]`, or remove `tunnel_idle`");
            self.report(problem);
        }
        Tunnels {
            allowed: route.upgrades.iter().map(|upgrade| upgrade.0.clone()).collect(),
            idle: route.tunnel_idle.as_ref().map_or(defaults::TUNNEL_IDLE, |idle| idle.0),
        }
    }

    /// What the router is told; nothing when a condition has a problem, since the others alone would match too much.
    fn rule(&mut self, route: &file::Route, node: &Node, target: RouteIndex) -> Option<Rule<RouteIndex>> {
        let node = node.get("match")?;
        let places = node.get("hosts").map_or(&[][..], Node::list);
        let written = route.r#match.hosts.iter().zip(places);
        let hosts: Vec<Option<HostPattern>> = written.map(|(host, place)| self.host(host, place)).collect();
        let headers = self.headers(node);
        let place = node.get("path")?;
        let path = match PathPattern::parse(&route.r#match.path) {
            Ok(path) => path,
            Err(error) => {
                self.report(unreadable(place, "a path pattern", &error));
                return None;
            }
        };
        let conditions = Conditions {
            methods: route.r#match.methods.iter().map(|method| method.0.clone()).collect(),
            headers: headers?.into_iter().zip(route.r#match.headers.values().cloned()).collect(),
            query: route.r#match.query.clone().into_iter().collect(),
        };
        let hosts = hosts.into_iter().collect::<Option<Vec<_>>>()?;
        let whole = node.is_whole();
        whole.then(|| Rule { name: target.at.to_string(), hosts, path, conditions, target })
    }

    /// The names of header conditions, in the order of their names as written.
    fn headers(&mut self, node: &Node) -> Option<Vec<http::HeaderName>> {
        let mut keys: Vec<_> = node.get("headers").into_iter().flat_map(Node::entries).map(|(key, _)| key).collect();
        keys.sort_by(|one, two| one.name.cmp(&two.name));
        let names: Vec<Option<http::HeaderName>> = keys
            .into_iter()
            .map(|key| {
                let name = key.name.parse().ok();
                if name.is_none() {
                    let problem = Diagnostic::error(format!("`{}` is not the name of a header field", key.name));
                    self.report(problem.at(&key.span, "it has characters that no name has"));
                }
                name
            })
            .collect();
        names.into_iter().collect()
    }

    fn refuse_route(&mut self, error: &RouteError, sections: &[Section<'_>]) {
        let owner = |number: &str| number.parse::<usize>().ok().and_then(|index| sections.get(index));
        let node = |section: &str, number: &str| {
            let routes = owner(section)?.node.get("routes").map_or(&[][..], Node::list);
            number.parse::<usize>().ok().and_then(|index| routes.get(index))
        };
        let problem = match error {
            RouteError::Tie { owner, first, second, why } => match (node(owner, first), node(owner, second)) {
                (Some(first), Some(second)) => tie(first, second, why),
                _ => Diagnostic::error(error.to_string()),
            },
            RouteError::HostNotOwned { rule, host, holder, owner: own } => {
                let Some(node) = node(own, rule) else { return };
                let own = owner(own).map_or("", |section| section.name);
                let holder = holder.as_deref().and_then(owner).map_or("", |section| section.name);
                not_owned(node, host, own, holder)
            }
            // Reported, and taken out, before the router was built.
            RouteError::HostClaimedTwice { .. } => Diagnostic::error(error.to_string()),
        };
        self.report(problem);
    }
}

/// The route's own times, or else its upstream's.
fn times(route: &file::Route, upstream: &Timeouts) -> Times {
    let own = |time: &Option<Text<Duration>>| time.as_ref().map(|time| time.0);
    Times {
        response: own(&route.timeout).unwrap_or(upstream.response),
        idle: own(&route.timeouts.stream).unwrap_or(upstream.stream),
        request: own(&route.timeouts.request).or(upstream.request).unwrap_or(Duration::MAX),
    }
}

/// Whether a host is only foreign because its tenant's list of hosts has a problem of its own.
fn is_unsure(error: &RouteError, sections: &[Section<'_>], hosts: &[Hosts<'_>]) -> bool {
    let RouteError::HostNotOwned { owner, .. } = error else { return false };
    let scope = owner.parse::<usize>().ok();
    let written = scope.and_then(|scope| sections.get(scope)).and_then(|section| section.node.get("hosts"));
    let read = scope.and_then(|scope| hosts.get(scope.checked_sub(1)?));
    read.is_some_and(|read| written.is_none_or(|written| written.list().len() != read.len()))
}

fn name(route: &Node) -> &str {
    route.get("name").map_or("", Node::written)
}

fn tie(first: &Node, second: &Node, why: &str) -> Diagnostic {
    let place = |route: &Node| {
        let path = route.get("match").and_then(|condition| condition.get("path"));
        path.map_or(route.span.clone(), |path| path.span.clone())
    };
    let why = if second.has_secret() { "they are equally specific" } else { why };
    Diagnostic::error(format!("routes `{}` and `{}` fit the same requests equally well", name(first), name(second)))
        .at(&place(second), why)
        .at(&place(first), "the other is here")
        .help("file order never decides: tell them apart by method, header or query parameter, or remove one")
}

fn not_owned(route: &Node, host: &HostPattern, own: &str, holder: &str) -> Diagnostic {
    let hosts = route.get("match").and_then(|condition| condition.get("hosts")).map_or(&[][..], Node::list);
    let is_it =
        |node: &&Node| node.json().as_str().and_then(|text| HostPattern::parse(text).ok()).as_ref() == Some(host);
    let place = hosts.iter().find(is_it).unwrap_or(route);
    let whose = match (own, holder) {
        ("", holder) => format!("which belongs to tenant `{holder}`"),
        (own, "") => format!("which tenant `{own}` does not own"),
        (_, holder) => format!("which belongs to tenant `{holder}`"),
    };
    let help = match own {
        "" => "put the route into the tenant".to_owned(),
        own => format!("the hosts of a tenant are under `tenants.{own}.hosts`"),
    };
    Diagnostic::error(format!("route `{}` names host `{}`, {whose}", name(route), place.written()))
        .at(&place.span, "no request for it would come here")
        .help(help)
}
