//! What tenants say in files of their own, held against what they are granted.
//!
//! Only what stands in such files is looked at: what the gateway's own files say of a tenant needs no grant. A refusal names both
//! places, so it lies with the tenant.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::exchange::Times;
use portcullis_core::route::HostPattern;
use portcullis_core::time::nanos;
use portcullis_vm::CompileLimits;

use super::definitions::capabilities;
use super::{Check, Section, tiers};
use crate::config::file::{self, File};
use crate::config::snapshot::{Capabilities, Isolation, Plugin, PluginLimits, UpstreamIndex};
use crate::config::tree::{Key, Node};
use crate::config::written::{Endpoint, Text, Written};
use crate::diagnostic::Diagnostic;
use crate::upstream::reach::Reach;

/// The callbacks that a module hears of its settings and of each exchange by.
const HEARING: [&str; 2] = ["proxy_on_context_create", "proxy_on_configure"];

/// What one tenant is granted: its own grants, then those of its tier, then those of every tenant.
#[derive(Default)]
pub(super) struct Grants<'t> {
    levels: Vec<(&'t file::Grants, &'t Node)>,
}

impl<'t> Grants<'t> {
    /// Those of a tenant.
    pub(super) fn of(
        (tree, file): (&'t Node, &'t File),
        (key, node, tenant): (&Key, &'t Node, &'t file::Tenant),
    ) -> Self {
        let own = node.get("grants").map(|node| (&tenant.grants, node));
        let others = tiers::levels(tree, file, &key.name);
        let others = others.filter_map(|(level, node)| Some((&level.grants, node.get("grants")?)));
        Self { levels: own.into_iter().chain(others).collect() }
    }

    /// Whether it is said which hosts the tenant may claim.
    pub(super) fn has_hosts(&self) -> bool {
        self.find(&["hosts"], |grants| grants.hosts.as_deref()).is_some()
    }

    /// The grant at a path of keys, with its place.
    fn find<T>(&self, path: &[&str], of: impl Fn(&'t file::Grants) -> Option<T>) -> Option<(T, &'t Node)> {
        self.levels.iter().find_map(|(grants, node)| {
            let place = path.iter().try_fold(*node, |node, key| node.get(key))?;
            Some((of(grants)?, place))
        })
    }

    /// Why a tenant may not claim a host, if it may not.
    pub(super) fn refuse_host(&self, tenant: &str, host: &HostPattern, place: &Node) -> Option<Diagnostic> {
        let (granted, grant) = self.find(&["hosts"], |grants| grants.hosts.as_deref())?;
        let refused = place.is_tenants() && !granted.iter().any(|granted| granted.0.covers(host));
        refused
            .then(|| not_granted(format!("tenant `{tenant}` is not granted host `{}`", place.written()), place, grant))
    }

    /// The names of the gateway's upstreams that the tenant may use; `None` for all.
    pub(super) fn upstreams(&self) -> Option<Arc<[crate::config::granted::Pattern]>> {
        let (granted, _) = self.find(&["upstreams"], |grants| grants.upstreams.as_deref())?;
        Some(granted.iter().map(|pattern| pattern.0.clone()).collect())
    }
}

impl Check<'_> {
    /// Refuses an upstream of the gateway's that a tenant's own file names and is not granted.
    pub(super) fn upstream_granted(&mut self, index: UpstreamIndex, place: &Node, section: &Section<'_>) {
        let is_shared = index.owner.is_none();
        let Some((granted, grant)) = section.grants.find(&["upstreams"], |grants| grants.upstreams.as_deref()) else {
            return;
        };
        let name = place.written();
        if is_shared && place.is_tenants() && !granted.iter().any(|granted| granted.0.fits(name)) {
            let message = format!("tenant `{}` is not granted upstream `{name}`", section.name);
            self.report(not_granted(message, place, grant));
        }
    }

    /// Where the endpoints of an upstream may be. Addresses are compared here already; names, as they resolve.
    pub(super) fn reach(&mut self, upstream: &file::Upstream, node: &Node, section: &Section<'_>) -> Reach {
        if !node.is_tenants() {
            return Reach::Anywhere;
        }
        let granted = section.grants.find(&["networks"], |grants| grants.networks.as_deref());
        let reach = match granted {
            Some((networks, _)) => Reach::Networks(networks.iter().map(|network| network.0).collect()),
            None => Reach::Outside,
        };
        let places = node.get("endpoints").map_or(&[][..], Node::list);
        for (Text(Endpoint { host, .. }), place) in upstream.endpoints.iter().zip(places) {
            if host.parse().is_ok_and(|address| !reach.allows(address)) {
                let message = format!("tenant `{}` is not granted endpoint `{}`", section.name, place.written());
                self.report(match granted {
                    Some((_, grant)) => not_granted(message, place, grant),
                    None => Diagnostic::error(message)
                        .at(&place.span, "on the gateway's own machine or link, or where clouds keep credentials")
                        .help("whoever runs the gateway can grant networks, under `grants.networks`"),
                });
            }
        }
        reach
    }

    /// What a tenant's own plugin may use: no more than it is granted.
    pub(super) fn tightened(&mut self, limits: PluginLimits, node: &Node, section: &Section<'_>) -> PluginLimits {
        if !node.is_tenants() {
            return limits;
        }
        let mut most = |limit: u64, path: &[&str], of: fn(&file::PluginBounds) -> Option<u64>, anyhow: u64| {
            let whole: Vec<&str> = ["tighten_only", "limits"].iter().chain(path).copied().collect();
            let granted = section.grants.find(&whole, |grants| of(&grants.tighten_only.limits));
            let written = ["limits"].iter().chain(path).try_fold(node, |node, key| node.get(key));
            let granted = granted.map_or((anyhow, None), |(most, grant)| (most, Some(grant)));
            self.at_most(limit, written, granted, &format!("limits.{}", path.join(".")))
        };
        let PluginLimits { memory, cpu, compile } = limits;
        let default = CompileLimits::default();
        let compile_cpu = most(
            nanos(compile.cpu),
            &["compile", "cpu"],
            |bounds| bounds.compile.cpu.as_ref().map(|time| nanos(time.0)),
            nanos(default.cpu),
        );
        let compile_memory = most(
            compile.memory,
            &["compile", "memory"],
            |bounds| bounds.compile.memory.as_ref().map(|size| size.0.0),
            default.memory,
        );
        let cpu = most(nanos(cpu), &["cpu"], |bounds| bounds.cpu.as_ref().map(|time| nanos(time.0)), u64::MAX);
        PluginLimits {
            memory: most(memory, &["memory"], |bounds| bounds.memory.as_ref().map(|size| size.0.0), u64::MAX),
            cpu: Duration::from_nanos(cpu),
            compile: CompileLimits { cpu: Duration::from_nanos(compile_cpu), memory: compile_memory },
        }
    }

    /// What exchanges of a plugin are kept apart by. Where its tenant's must each have a VM of its own, it is so whatever is said.
    pub(super) fn isolated(&mut self, says: file::Isolation, node: &Node, section: &Section<'_>) -> Isolation {
        let granted = section.grants.find(&["tighten_only", "isolation"], |grants| grants.tighten_only.isolation);
        match (says, granted.filter(|_| node.is_tenants())) {
            (file::Isolation::Vm, Some((file::Isolation::Request, grant))) => {
                if let Some(place) = node.get("isolation") {
                    let problem = Diagnostic::error("`isolation` can be tightened here, and not loosened")
                        .at(&place.span, "looser than `request`")
                        .at(&grant.span, "this is what must be");
                    self.report(problem);
                }
                Isolation::Request
            }
            (file::Isolation::Vm, _) => Isolation::Vm,
            (file::Isolation::Request, _) => Isolation::Request,
        }
    }

    /// Refuses a module that a tenant's own file uses and is not granted.
    pub(super) fn module_granted(&mut self, plugin: &Plugin, key: &Key, place: Option<&Node>, section: &Section<'_>) {
        let Some((granted, grant)) = section.grants.find(&["plugins"], |grants| grants.plugins.as_deref()) else {
            return;
        };
        let Some(place) = place.filter(|place| place.is_tenants()) else { return };
        if !granted.iter().any(|granted| granted.0.fits(&plugin.module.write(), &plugin.digest)) {
            let message = format!("tenant `{}` is not granted the module of plugin `{}`", section.name, key.name);
            self.report(not_granted(message, place, grant));
        }
    }

    /// The functions of the ABI that a plugin may use: those it asks for, or else those that its tenant is granted.
    pub(super) fn capabilities(&mut self, plugin: &file::Plugin, node: &Node, section: &Section<'_>) -> Capabilities {
        let asked = capabilities(plugin.capabilities.as_deref());
        let granted = section.grants.find(&["capabilities"], |grants| grants.capabilities.as_deref());
        let Some((names, grant)) = granted.filter(|_| node.is_tenants()) else { return asked };
        let granted = capabilities(Some(names));
        let places = node.get("capabilities").map_or(&[][..], Node::list);
        for (name, place) in plugin.capabilities.iter().flatten().zip(places) {
            if !granted.allow(name.0.0) {
                let message = format!("tenant `{}` is not granted capability `{}`", section.name, name.0.0);
                self.report(not_granted(message, place, grant));
            }
        }
        asked.and(&granted)
    }

    /// Warns of a plugin that is granted some functions, and not those through which it learns of its settings and of requests.
    pub(super) fn warn_of_the_deaf(&mut self, plugin: &Plugin, key: &Key, node: &Node) {
        let missing: Vec<&str> = HEARING.into_iter().filter(|name| !plugin.capabilities.allow(name)).collect();
        if !missing.is_empty() {
            let message = format!("plugin `{}` is not granted `{}`", key.name, missing.join("`, `"));
            let place = node.get("capabilities").map_or(&key.span, |node| &node.span);
            let why = "most modules do nothing without, and let no request pass";
            self.report(Diagnostic::warning(message).at(place, why).help("name them too, or leave `capabilities` out"));
        }
    }

    /// How long exchanges of a tenant's own route may take: no longer than it is granted.
    pub(super) fn tightened_times(&mut self, times: Times, node: &Node, section: &Section<'_>) -> Times {
        if !node.is_tenants() {
            return times;
        }
        let mut time = |time: Duration, path: &[&str], of: fn(&file::TightenOnly) -> Option<&Text<Duration>>| {
            let whole: Vec<&str> = std::iter::once("tighten_only").chain(path.iter().copied()).collect();
            let granted = section.grants.find(&whole, |grants| of(&grants.tighten_only).map(|time| time.0));
            let written = path.iter().try_fold(node, |node, key| node.get(key));
            let granted = granted.map_or((Duration::MAX, None), |(most, grant)| (most, Some(grant)));
            self.at_most(time, written, granted, &path.join("."))
        };
        Times {
            response: time(times.response, &["timeout"], |bounds| bounds.timeout.as_ref()),
            idle: time(times.idle, &["timeouts", "stream"], |bounds| bounds.timeouts.stream.as_ref()),
            request: time(times.request, &["timeouts", "request"], |bounds| bounds.timeouts.request.as_ref()),
        }
    }

    /// A value that may be lowered and not raised. One that is not written is no more than it may be.
    fn at_most<T: Ord + Copy>(
        &mut self,
        value: T,
        written: Option<&Node>,
        (most, grant): (T, Option<&Node>),
        key: &str,
    ) -> T {
        if let Some(place) = written.filter(|_| value > most) {
            let problem = Diagnostic::error(format!("`{key}` can be tightened here, and not loosened"));
            self.report(match grant {
                Some(grant) => problem
                    .at(&place.span, format!("more than {}", grant.written()))
                    .at(&grant.span, "this is the most"),
                None => problem
                    .at(&place.span, "more than where nothing is said")
                    .help(format!("operators let it have more with `tighten_only.{key}` in its grants")),
            });
        }
        value.min(most)
    }
}

fn not_granted(message: String, place: &Node, grant: &Node) -> Diagnostic {
    Diagnostic::error(message).at(&place.span, "not granted").at(&grant.span, "this is what is granted")
}
