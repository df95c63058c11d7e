//! What is defined by name: upstreams, plugins, policies; who sees which of them.
//!
//! A tenant's own names come before the gateway's; another tenant's are never found, only named in the refusal.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::filter::{HeadersPause, OnFailure};
use portcullis_module::HOLDS_HEADERS_HERE;

use super::{Check, Section};
use crate::config::granted::Capability;
use crate::config::names::nearest;
use crate::config::private::Configuration;
use crate::config::snapshot::{Capabilities, CompileLimits, Plugin, PluginIndex, PluginLimits, UpstreamIndex};
use crate::config::tree::{Key, Node};
use crate::config::written::Text;
use crate::config::{defaults, file};
use crate::diagnostic::{Diagnostic, Span};

/// What one owner, the gateway or a tenant, has defined.
pub(super) struct Scope {
    /// The tenant's name; empty for the gateway.
    owner: String,
    pub(super) upstreams: Names<UpstreamIndex>,
    pub(super) plugins: Names<PluginIndex>,
    pub(super) policies: Names<Arc<[PolicyFilter]>>,
}

/// One entry of a policy. Who it runs for is known where the policy is used.
pub(super) struct PolicyFilter {
    pub(super) plugin: PluginIndex,
    pub(super) config: Configuration,
}

/// Names with their places; without a value when the definition has a problem of its own.
pub(super) type Names<T> = HashMap<String, (Span, Option<T>)>;

/// A kind of thing that has a name.
pub(super) struct Kind<T> {
    pub(super) word: &'static str,
    pub(super) section: &'static str,
    pub(super) names: fn(&Scope) -> &Names<T>,
}

pub(super) const UPSTREAM: Kind<UpstreamIndex> =
    Kind { word: "upstream", section: "upstreams", names: |scope| &scope.upstreams };
pub(super) const PLUGIN: Kind<PluginIndex> = Kind { word: "plugin", section: "plugins", names: |scope| &scope.plugins };
pub(super) const POLICY: Kind<Arc<[PolicyFilter]>> =
    Kind { word: "policy", section: "policies", names: |scope| &scope.policies };

impl Scope {
    fn upstream_indices(&self) -> HashMap<Arc<str>, UpstreamIndex> {
        self.upstreams.iter().filter_map(|(name, (_, index))| Some((Arc::from(name.as_str()), (*index)?))).collect()
    }
}

impl Check<'_> {
    /// Everything of a section that others refer to, but policies, which refer to plugins themselves.
    pub(super) fn define(&mut self, section: &Section<'_>) -> Scope {
        let upstreams = named(section.node, UPSTREAM.section, |key, node| {
            let upstream = self.upstream(section.upstreams.get(&key.name)?, key, node, section);
            let upstreams = &mut self.share_mut(section.tenant).upstreams;
            upstreams.push(upstream);
            Some(UpstreamIndex { owner: section.tenant, at: upstreams.len() - 1 })
        });
        let plugins = named(section.node, PLUGIN.section, |key, node| {
            let plugin = self.plugin(section.plugins.get(&key.name)?, key, node, section)?;
            let plugins = &mut self.share_mut(section.tenant).plugins;
            plugins.push(plugin);
            Some(PluginIndex { owner: section.tenant, at: plugins.len() - 1 })
        });
        let scope = Scope { owner: section.name.to_owned(), upstreams, plugins, policies: Names::new() };
        self.share_mut(section.tenant).named = scope.upstream_indices();
        scope
    }

    pub(super) fn policies(&mut self, section: &Section<'_>, scope: usize) -> Names<Arc<[PolicyFilter]>> {
        named(section.node, POLICY.section, |key, node| {
            let filters = section.policies.get(&key.name)?.iter().zip(node.list());
            Some(filters.filter_map(|(filter, node)| self.policy_filter(filter, node, scope)).collect())
        })
    }

    fn policy_filter(&mut self, filter: &file::Filter, node: &Node, scope: usize) -> Option<PolicyFilter> {
        for word in ["policy", "name", "optional"] {
            if let Some(place) = node.get(word) {
                let help = match word {
                    "policy" => "write the plugins of the other policy here",
                    _ => "write it where the policy is used",
                };
                let problem = Diagnostic::error(format!("`{word}` does not work inside a policy"));
                self.report(problem.at(&place.span, "a policy is a list of plugins").help(help));
            }
        }
        let plugin = self.resolve(&PLUGIN, scope, node.get("plugin")?, "this filter uses")?;
        Some(PolicyFilter { plugin, config: super::filters::config(filter) })
    }

    fn plugin(&mut self, plugin: &file::Plugin, key: &Key, node: &Node, section: &Section<'_>) -> Option<Plugin> {
        let limits = self.plugin_limits(&plugin.limits, node);
        let limits = self.tightened(limits, node, section);
        let (code, digest) = self.module(plugin, key, node, section)?;
        let (headers_pause, vm_config) = self.pauses(plugin, &code, key, node);
        let current = Plugin {
            name: key.name.as_str().into(),
            tenant: section.tenant,
            module: plugin.module.0.clone(),
            code,
            digest,
            limits,
            isolation: self.isolated(plugin.isolation, node, section),
            on_failure: match plugin.on_failure {
                file::OnFailure::Closed => OnFailure::Closed,
                file::OnFailure::Open => OnFailure::Open,
            },
            warm: plugin.warm,
            idle: plugin.idle.as_ref().map_or(defaults::VM_IDLE, |idle| idle.0),
            headers_pause,
            capabilities: self.capabilities(plugin, node, section),
            vm_id: plugin.vm_id.as_str().into(),
            vm_config,
            rollout: None,
        };
        self.module_granted(&current, key, node.get("module"), section);
        self.warn_of_the_deaf(&current, key, node);
        let rollout = self.rollout((plugin, &current), key, node, section);
        if let Some(rollout) = &rollout {
            let place = node.get("rollout").and_then(|rollout| rollout.get("candidate"));
            self.module_granted(&rollout.candidate, key, place, section);
        }
        Some(Plugin { rollout, ..current })
    }

    /// What a pause means to a module, and what its VMs are configured with: what is written, or, where the SDK has to know it, that the
    /// gateway holds heads back.
    pub(super) fn pauses(
        &mut self,
        plugin: &file::Plugin,
        code: &[u8],
        key: &Key,
        node: &Node,
    ) -> (HeadersPause, Configuration) {
        let asks = self.manifest(code, key, node).is_some_and(|manifest| manifest.holds_headers);
        let holds = plugin.allow_on_headers_stop_iteration.unwrap_or(asks);
        let pause = if holds { HeadersPause::HoldsHeaders } else { HeadersPause::StopsAll };
        let written = plugin.vm_config.as_ref().map(|config| Configuration::of(config));
        if !holds || !asks {
            return (pause, written.unwrap_or_default());
        }
        if written.is_some() {
            let place = node.get("vm_config").unwrap_or(node);
            let problem = Diagnostic::error(format!("plugin `{}` cannot have a `vm_config`", key.name));
            let help = "a filter of the SDK reads its settings from `config`";
            self.report(problem.at(&place.span, "the gateway tells its module there what it holds back").help(help));
        }
        (pause, Configuration::of_bytes(HOLDS_HEADERS_HERE))
    }

    fn plugin_limits(&mut self, limits: &file::PluginLimits, node: &Node) -> PluginLimits {
        /// A page of WebAssembly memory, the unit it grows by.
        const PAGE: u64 = 64 << 10;
        /// All that 32-bit addresses reach.
        const MOST: u64 = 4 << 30;
        /// The clock that stops plugins ticks so often.
        const TICK: Duration = Duration::from_millis(1);
        /// The system counts a process's time in these.
        const SECOND: Duration = Duration::from_secs(1);
        let (memory, cpu) = (limits.memory.0.0, limits.cpu.0);
        let compile = CompileLimits { cpu: limits.compile.cpu.0, memory: limits.compile.memory.0.0 };
        let written = |name: &str| node.get("limits").and_then(|limits| limits.get(name));
        if let Some(place) = written("memory")
            && (memory % PAGE != 0 || memory > MOST)
        {
            let problem = Diagnostic::error("a plugin's memory is a multiple of 64KiB, up to 4GiB");
            self.report(problem.at(&place.span, ""));
        }
        if let Some(place) = written("cpu")
            && cpu < TICK
        {
            let problem = Diagnostic::error("a plugin's processor time is at least 1ms");
            self.report(problem.at(&place.span, "shorter times are not measured"));
        }
        if let Some(place) = written("compile").and_then(|compile| compile.get("cpu"))
            && (compile.cpu < SECOND || compile.cpu.subsec_nanos() != 0)
        {
            let problem = Diagnostic::error("the processor time of compiling a plugin is whole seconds, at least one");
            self.report(problem.at(&place.span, ""));
        }
        PluginLimits { memory, cpu, compile }
    }

    /// What a name means in a scope; `use_` begins the sentence that says it means nothing.
    pub(super) fn resolve<T: Clone>(&mut self, kind: &Kind<T>, scope: usize, at: &Node, use_: &str) -> Option<T> {
        let crate::config::tree::Value::Text(text) = &at.value else { return None };
        let visible = [scope, 0].map(|index| self.scopes.get(index));
        for scope in visible.into_iter().flatten() {
            if let Some((_, value)) = (kind.names)(scope).get(&text.text) {
                return value.clone();
            }
        }
        let problem = self.unknown(kind, scope, at, use_, &text.text);
        self.report(problem);
        None
    }

    fn unknown<T>(&self, kind: &Kind<T>, scope: usize, at: &Node, use_: &str, name: &str) -> Diagnostic {
        let (word, shown) = (kind.word, at.written());
        let elsewhere = self.scopes.iter().skip(1).find_map(|other| {
            let (span, _) = (kind.names)(other).get(name)?;
            Some((&other.owner, span))
        });
        if let Some((owner, span)) = elsewhere {
            return Diagnostic::error(format!("{use_} {word} `{shown}`, which belongs to tenant `{owner}`"))
                .at(&at.span, format!("only `{owner}` can use it"))
                .at(span, "defined here")
                .help(format!("define it under `{}:` at the top to share it with every tenant", kind.section));
        }
        let own = self.scopes.get(scope).filter(|_| scope != 0).map(|scope| (kind.names)(scope));
        let shared = self.scopes.first().map(|scope| (kind.names)(scope));
        let visible: HashMap<&str, &Span> =
            shared.into_iter().chain(own).flatten().map(|(name, (span, _))| (name.as_str(), span)).collect();
        let known: Vec<&str> = visible.keys().copied().collect();
        let defined = format!("{} are defined under `{}:`", plural(word), kind.section);
        let help = match nearest(name, &known).and_then(|near| Some((near, visible.get(near)?))) {
            Some((near, span)) => format!("`{near}` is close, defined at {span}"),
            None => defined,
        };
        Diagnostic::error(format!("{use_} {word} `{shown}`, which does not exist"))
            .at(&at.span, format!("no {word} has this name"))
            .help(help)
    }
}

/// The functions of these names; all where none are named.
pub(super) fn capabilities(names: Option<&[Text<Capability>]>) -> Capabilities {
    names.map_or(Capabilities::All, |names| Capabilities::only(names.iter().map(|name| name.0.0)))
}

fn plural(word: &str) -> String {
    word.strip_suffix('y').map_or_else(|| format!("{word}s"), |stem| format!("{stem}ies"))
}

/// The names of one section, those with problems included.
fn named<T>(node: &Node, section: &str, mut make: impl FnMut(&Key, &Node) -> Option<T>) -> Names<T> {
    let Some(section) = node.get(section) else { return Names::new() };
    let broken = section.map().map_or(&[][..], |map| &map.broken);
    let broken = broken.iter().map(|key| (key.name.clone(), (key.span.clone(), None)));
    let sound = section.entries().map(|(key, node)| (key.name.clone(), (key.span.clone(), make(key, node))));
    sound.chain(broken).collect()
}
