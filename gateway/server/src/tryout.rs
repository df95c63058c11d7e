//! A configuration's plugins, started for a moment: what they say to their settings, at the place where these are written.
//!
//! `check` does this, with the bounds that a gateway's start has, and a gateway says the same of plugins that it could not start. Nothing is bound, nobody is called: what guests ask for while they
//! start is forgotten with them.

mod upstreams;

use std::path::PathBuf;
use std::sync::Arc;

use portcullis_vm::{Compiler, StartFailure};

use crate::clock;
use crate::config::private::Configuration;
use crate::config::{Node, Whole};
use crate::diagnostic::{self, Diagnostic, Span};
use crate::plan::{Plan, PlanError, Refusal};
use crate::supervisor::{Options, RunError};

pub(crate) use self::upstreams::unknown_upstreams;

/// What would keep the plugins of a checked configuration from starting.
pub(crate) fn problems(whole: Whole, cache: Option<PathBuf>) -> Vec<Diagnostic> {
    let Whole { snapshot, tree, .. } = whole;
    let options = Options { cache, compiler: Some(Compiler::this_program()), ..Options::default() };
    let mut problems = match Plan::new(Arc::new(snapshot), &options) {
        Ok(plan) => plan.refusals(clock::now()).iter().map(|refusal| refused(refusal, &tree)).collect(),
        Err(why) => vec![unplanned(&why, &tree)],
    };
    diagnostic::sort(&mut problems);
    problems
}

/// The same of a gateway that would have run them; nothing where what keeps it from that is written nowhere.
pub(crate) fn located(why: &RunError, tree: &Node) -> Vec<Diagnostic> {
    let mut problems = match why {
        RunError::Plan(why @ PlanError::Load { .. }) => vec![unplanned(why, tree)],
        RunError::Start(not_started) => not_started.refusals().iter().map(|refusal| refused(refusal, tree)).collect(),
        RunError::Plan(PlanError::Engine(_))
        | RunError::Bind { .. }
        | RunError::Worker(_)
        | RunError::AccessLog(_)
        | RunError::Lost
        | RunError::Stuck(_) => Vec::new(),
    };
    diagnostic::sort(&mut problems);
    problems
}

fn unplanned(why: &PlanError, tree: &Node) -> Diagnostic {
    match why {
        PlanError::Engine(_) => Diagnostic::error(why.to_string()).at(&tree.span, ""),
        PlanError::Load { tenant, plugin, source } => {
            let entry = catalogue(tree, tenant.as_deref(), plugin);
            let place = entry.and_then(|entry| entry.get("module")).or(entry).unwrap_or(tree);
            Diagnostic::error(format!("the module of plugin `{plugin}` cannot be loaded"))
                .at(&place.span, source.to_string())
        }
    }
}

fn refused(refusal: &Refusal, tree: &Node) -> Diagnostic {
    let Refusal { why, root } = refusal;
    let said = why.said.as_deref().map(without_preface);
    let text = match (&why.failure, said) {
        (StartFailure::Refused { .. }, Some(said)) => said.to_owned(),
        (failure, Some(said)) => format!("{failure}; it said: {said}"),
        (failure, None) => failure.to_string(),
    };
    let settings =
        root.as_ref().and_then(|root| settings(tree, why.tenant.as_deref(), &why.plugin, &root.configuration));
    let place = settings.map(|settings| setting(settings, &text));
    let entry = || catalogue(tree, why.tenant.as_deref(), &why.plugin).unwrap_or(tree);
    let place = place.unwrap_or_else(|| &entry().span);
    let message = match root {
        Some(_) => format!("plugin `{}` does not start with these settings", why.plugin),
        None => format!("plugin `{}` does not start", why.plugin),
    };
    Diagnostic::error(message).at(place, text)
}

/// Without what the SDK says before the reason, which the message says already.
fn without_preface(said: &str) -> &str {
    ["the configuration is refused: ", "the filter does not start: "]
        .iter()
        .find_map(|preface| said.strip_prefix(preface))
        .unwrap_or(said)
}

/// The entry of a plugin: the tenant's own, or the gateway's. Of its next version it is the `candidate` there.
fn catalogue<'t>(tree: &'t Node, tenant: Option<&str>, plugin: &str) -> Option<&'t Node> {
    let name = without_version(plugin);
    let own = tenant.and_then(|tenant| tree.get("tenants")?.get(tenant)?.get("plugins")?.get(name));
    let entry = own.or_else(|| tree.get("plugins")?.get(name))?;
    if name == plugin { Some(entry) } else { entry.get("rollout")?.get("candidate") }
}

/// What a plugin is called of which this may be the next version.
fn without_version(plugin: &str) -> &str {
    plugin.split('@').next().unwrap_or(plugin)
}

/// Where a plugin is used with these settings: its `config`, or without any where it is named. Those of a next version may be its own.
fn settings<'t>(tree: &'t Node, tenant: Option<&str>, plugin: &str, settings: &[u8]) -> Option<&'t Node> {
    let name = without_version(plugin);
    if name != plugin
        && let Some(own) = catalogue(tree, tenant, plugin)?.get("config")
    {
        return Some(own);
    }
    let is_it = |filter: &Node| {
        let config = || filter.get("config").map(|config| Configuration::of(&config.json())).unwrap_or_default();
        filter.get("plugin").is_some_and(|plugin| plugin.written() == name) && *config() == *settings
    };
    // What a tenant runs may be written in its own section, or in a policy of the gateway's.
    let section = tenant.and_then(|tenant| tree.get("tenants")?.get(tenant));
    let filter = section.and_then(|section| find(section, &is_it)).or_else(|| find(tree, &is_it))?;
    filter.get("config").or_else(|| filter.get("plugin"))
}

/// The first mapping for which this holds, outermost first.
fn find<'t>(node: &'t Node, is_it: &dyn Fn(&Node) -> bool) -> Option<&'t Node> {
    if node.map().is_some() && is_it(node) {
        return Some(node);
    }
    let inside = node.list().iter().chain(node.entries().map(|(_, value)| value));
    inside.into_iter().find_map(|node| find(node, is_it))
}

/// The setting that a text begins with, in backticks (`` `limits[1].rate`: … ``), or as much of the way to it as there is; of one that
/// is unknown its key.
fn setting<'t>(settings: &'t Node, text: &str) -> &'t Span {
    let path = text.strip_prefix('`').and_then(|rest| rest.split('`').next()).unwrap_or_default();
    let mut at = settings;
    for step in path.split(['.', '[']) {
        let next = match step.strip_suffix(']').map(str::parse::<usize>) {
            Some(Ok(place)) => at.list().get(place),
            Some(Err(_)) | None => at.get(step),
        };
        let Some(next) = next else { break };
        at = next;
    }
    let unknown = text.split_once("unknown field `").and_then(|(_, rest)| rest.split('`').next());
    let key = at.entries().map(|(key, _)| key).find(|key| Some(key.name.as_str()) == unknown);
    key.map_or(&at.span, |key| &key.span)
}
