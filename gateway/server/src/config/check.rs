//! From the configuration as written to the one that workers read, with every problem on the way.
//!
//! Structure and types have been checked by `shape`. Here names are resolved, modules are read, and what must not clash is
//! compared. Each rule is written once: the step that would need an answer makes it, or reports why it cannot.
//! **Invariant:** a snapshot leaves this module only when no error was reported, so what stands in for a part with a problem
//! never reaches a worker.

mod definitions;
mod filters;
mod grants;
mod hosts;
mod limits;
mod listeners;
mod modules;
mod observe;
mod remote;
mod rollout;
mod routes;
mod sections;
mod services;
mod taken;
mod tiers;
mod tls;
mod upstreams;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::admission::{Rules, Underscores};
use portcullis_core::path::Slashes;

use self::definitions::Scope;
use self::grants::Grants;
use self::hosts::Hosts;
pub(crate) use self::modules::{Code, Modules};
use self::remote::Trust;
pub(crate) use self::taken::Taken;
use super::file::{self, File};
use super::snapshot::{
    Admin, Drain, Filter, FilterIndex, Listener, RateLimitService, Share, Snapshot, Tenant, TenantIndex, Tenants,
    Upstream, UpstreamIndex,
};
use super::tree::{Key, Node};
use super::written::Token;
use crate::diagnostic::{Diagnostic, Severity, Span};
use crate::tls::files::Owner;

/// Makes a snapshot, or adds to `problems` why there is none. Tenants that are not in the tree may be taken over.
pub(crate) fn check(
    tree: &Node,
    file: &File,
    modules: Modules,
    taken: Option<&Taken>,
    problems: &mut Vec<Diagnostic>,
) -> Option<Snapshot> {
    let mut check = Check::new(modules, problems);
    let (listeners, admin, rate_limit) = check.addresses(tree, file);
    let sections: Vec<Section<'_>> = sections(tree, file, taken);
    check.fetch(tree, file, &sections);
    check.tiers(tree);
    let hosts = check.hosts(tree, file);
    check.define_all(&sections);
    let owners = check.make_all(&sections, &hosts);
    let tcp_routes = check.tcp_routes(tree, file, &sections);
    let made = check.tenants((tree, file), &sections, &hosts);
    let router = match taken {
        Some(taken) => taken.router(owners, &made),
        None => check.router(owners, &sections, &hosts),
    };
    let (access_log, otlp) = (check.access_log(tree, file), check.otlp(tree, file));
    let Check { gateway, problems, .. } = check;
    if problems.iter().any(|problem| problem.severity == Severity::Error) {
        return None;
    }
    let (gateway, mut tenants) = match taken {
        Some(taken) => (taken.gateway(gateway)?, taken.tenants()),
        None => (gateway.into(), Tenants::default()),
    };
    made.into_iter().for_each(|(place, tenant)| tenants.put(place, tenant));
    let File { workers, max_connections, .. } = *file;
    Some(Snapshot {
        workers,
        max_connections,
        access_log,
        tracing: file.tracing.as_ref().map(observe::tracing),
        otlp,
        listeners,
        admin,
        rate_limit,
        refresh: file.modules.refresh.as_ref().map(|refresh| refresh.0),
        drain: Drain {
            delay: file.drain.delay.as_ref().map_or(Duration::ZERO, |delay| delay.0),
            deadline: file.drain.deadline.0,
        },
        tcp_routes,
        gateway,
        tenants,
        held: Arc::default(),
        router: router?,
    })
}

/// What the gateway and each tenant can both define.
struct Section<'t> {
    tenant: Option<TenantIndex>,
    /// The tenant's name.
    name: &'t str,
    node: &'t Node,
    trust: Trust<'t>,
    upstreams: &'t BTreeMap<String, file::Upstream>,
    plugins: &'t BTreeMap<String, file::Plugin>,
    policies: &'t BTreeMap<String, Vec<file::Filter>>,
    filters: &'t [file::Filter],
    routes: &'t [file::Route],
    /// What it may say in files of its own.
    grants: Grants<'t>,
}

/// The gateway's own section, then one for each tenant.
fn sections<'t>(tree: &'t Node, file: &'t File, taken: Option<&Taken>) -> Vec<Section<'t>> {
    let File { upstreams, plugins, policies, filters, routes, .. } = file;
    let trust = Trust::of_gateway(&file.modules);
    let grants = Grants::default();
    let own =
        Section { tenant: None, name: "", node: tree, trust, upstreams, plugins, policies, filters, routes, grants };
    let names = tenants(tree, file).map(|(key, ..)| key.name.as_str());
    let places = taken.map_or(&Tenants::default(), |taken| &taken.earlier.tenants).places_for(names);
    let tenants = tenants(tree, file).zip(places).map(|((key, node, tenant), place)| {
        let file::Tenant { upstreams, plugins, policies, filters, routes, .. } = tenant;
        let (name, grants) = (key.name.as_str(), Grants::of((tree, file), (key, node, tenant)));
        let trust = Trust::of_tenant(&file.modules, &tenant.modules);
        Section { tenant: Some(place), name, node, trust, upstreams, plugins, policies, filters, routes, grants }
    });
    std::iter::once(own).chain(tenants).collect()
}

/// The tenants in the order of the file.
fn tenants<'t>(tree: &'t Node, file: &'t File) -> impl Iterator<Item = (&'t Key, &'t Node, &'t file::Tenant)> {
    let entries = tree.get("tenants").into_iter().flat_map(Node::entries);
    entries.filter_map(|(key, node)| Some((key, node, file.tenants.get(&key.name)?)))
}

struct Check<'t> {
    problems: &'t mut Vec<Diagnostic>,
    /// The gateway's, then one for each tenant.
    scopes: Vec<Scope>,
    gateway: Share,
    tenants: BTreeMap<TenantIndex, Share>,
    interned: HashMap<Filter, FilterIndex>,
    modules: Modules,
    roots: tls::MachineRoots,
}

impl<'t> Check<'t> {
    fn new(modules: Modules, problems: &'t mut Vec<Diagnostic>) -> Self {
        Self {
            problems,
            scopes: Vec::new(),
            gateway: Share::default(),
            tenants: BTreeMap::new(),
            interned: HashMap::new(),
            modules,
            roots: tls::MachineRoots::default(),
        }
    }

    fn report(&mut self, problem: Diagnostic) {
        self.problems.push(problem);
    }

    fn share_mut(&mut self, owner: Option<TenantIndex>) -> &mut Share {
        match owner {
            Some(tenant) => self.tenants.entry(tenant).or_default(),
            None => &mut self.gateway,
        }
    }

    fn upstream_at(&self, index: UpstreamIndex) -> Option<&Upstream> {
        let share = index.owner.map_or(Some(&self.gateway), |tenant| self.tenants.get(&tenant));
        share?.upstreams.get(index.at)
    }

    fn addresses(&mut self, tree: &Node, file: &File) -> (Vec<Arc<Listener>>, Option<Admin>, Option<RateLimitService>) {
        let mut taken: Vec<(SocketAddr, String, Span)> = Vec::new();
        let mut listeners = Vec::new();
        for (key, node) in tree.get("listeners").into_iter().flat_map(Node::entries) {
            let (Some(listener), Some(place)) = (file.listeners.get(&key.name), node.get("bind")) else { continue };
            let bind = listener.bind.0;
            self.take(&mut taken, bind, format!("listener `{}`", key.name), place);
            self.proxies(listener, key, node);
            let owner = Owner::Listener(key.name.as_str().into());
            let tls = self.server(owner, listener.tls.as_ref(), node);
            self.forwarded_certificate(listener, node);
            listeners.push(Arc::new(listeners::listener(listener, key, rules(listener), tls)));
        }
        let admin = self.admin(tree, file);
        let place = tree.get("admin").and_then(|node| node.get("bind"));
        if let (Some(admin), Some(place)) = (&admin, place) {
            self.take(&mut taken, admin.bind, "`admin`".to_owned(), place);
        }
        let rate_limit = self.rate_limit(tree, file);
        let place = tree.get("services").and_then(|node| node.get("rate_limit")).and_then(|node| node.get("bind"));
        if let (Some(bind), Some(place)) = (rate_limit.as_ref().and_then(|service| service.bind), place) {
            self.take(&mut taken, bind, "`services.rate_limit`".to_owned(), place);
        }
        (listeners, admin, rate_limit)
    }

    /// The gateway's own pages: for whoever is on this machine, or whoever has the token or a certificate.
    fn admin(&mut self, tree: &Node, file: &File) -> Option<Admin> {
        let (admin, node) = (file.admin.as_ref()?, tree.get("admin")?);
        let token = admin.token.as_ref().map(|token| token.0);
        if let Some(place) = node.get("token")
            && !place.has_secret()
            && !Token::is_hashed(place.written())
        {
            let problem = Diagnostic::error("the token of `admin` stands in the configuration itself")
                .at(&place.span, "whoever reads the configuration has it")
                .help("name where it is, as `${file:…}` or `${env:…}`, or write `sha256:` and its digest");
            self.report(problem);
        }
        if let Some(place) = node.get("bind")
            && !admin.bind.0.ip().to_canonical().is_loopback()
            && node.get("token").is_none()
            && admin.tls.as_ref().is_none_or(|tls| tls.client_auth.is_none())
        {
            let problem = Diagnostic::error("`admin` would be open to everyone who can reach this address")
                .at(&place.span, "not a loopback address")
                .help("bind it to `127.0.0.1`, or set `token` or `tls.client_auth`");
            self.report(problem);
        }
        let tls = self.server(Owner::Admin, admin.tls.as_ref(), node);
        let tenants = admin.tenants.as_ref().zip(node.get("tenants")).map(|(folder, place)| {
            if token.is_none() && admin.tls.as_ref().is_none_or(|tls| tls.client_auth.is_none()) {
                let problem = Diagnostic::error("whoever can reach `admin` could change tenants")
                    .at(&place.span, "over `/v1/tenants`")
                    .help("set `token` or `tls.client_auth`");
                self.report(problem);
            }
            let source = &place.span.source;
            source.inputs.locate(&source.folder, folder)
        });
        Some(Admin { bind: admin.bind.0, token, tls, tenants })
    }

    /// Notes who listens where. Sockets share ports here (`SO_REUSEPORT`), so the system would not refuse a second one: it
    /// would spread connections over both.
    fn take(&mut self, taken: &mut Vec<(SocketAddr, String, Span)>, bind: SocketAddr, who: String, place: &Node) {
        let clashes = |other: &SocketAddr| {
            let (one, two) = (bind.ip(), other.ip());
            let family = one.is_ipv4() == two.is_ipv4();
            bind.port() != 0
                && bind.port() == other.port()
                && (one == two || family && (one.is_unspecified() || two.is_unspecified()))
        };
        if let Some((_, other, first)) = taken.iter().find(|(address, ..)| clashes(address)) {
            let problem = Diagnostic::error(format!("{who} and {other} listen on the same port"))
                .at(&place.span, "taken already")
                .at(first, "taken here")
                .help("give one of them another port");
            self.report(problem);
        }
        taken.push((bind, who, place.span.clone()));
    }

    /// Every tenant with its place, once all that it has is made.
    fn tenants(
        &mut self,
        (tree, file): (&Node, &File),
        sections: &[Section<'_>],
        hosts: &[Hosts<'_>],
    ) -> Vec<(TenantIndex, Tenant)> {
        let mut all = Vec::with_capacity(hosts.len());
        let places = sections.iter().filter_map(|section| section.tenant);
        for (((key, node, tenant), place), hosts) in tenants(tree, file).zip(places).zip(hosts) {
            let share = self.tenants.remove(&place).unwrap_or_default();
            let tenant = Tenant {
                name: Arc::from(key.name.as_str()),
                hosts: hosts.iter().map(|(host, _)| host.clone()).collect(),
                limits: self.limits((tree, file), (key, node, tenant)),
                granted: Grants::of((tree, file), (key, node, tenant)).upstreams(),
                unavailable: false,
                digest: Tenant::digest_of(&key.name, &share),
                share,
            };
            all.push((place, tenant));
        }
        all
    }
}

fn rules(listener: &file::Listener) -> Rules {
    let underscores = match listener.underscores_in_headers {
        file::Underscores::Drop => Underscores::Drop,
        file::Underscores::Reject => Underscores::Reject,
        file::Underscores::Allow => Underscores::Allow,
    };
    let slashes = match listener.encoded_slashes {
        file::EncodedSlashes::Reject => Slashes::Reject,
        file::EncodedSlashes::Keep => Slashes::Keep,
        file::EncodedSlashes::Decode => Slashes::Decode,
    };
    Rules { underscores, slashes }
}

/// A text that is not what it should be. The reason quotes the text, so it is kept back when that holds a secret.
fn unreadable(place: &Node, what: &str, error: &dyn std::fmt::Display) -> Diagnostic {
    let reason = if place.has_secret() { "the secret does not read as one".to_owned() } else { error.to_string() };
    Diagnostic::error(format!("`{}` is not {what}", place.written())).at(&place.span, reason)
}
