//! Upstreams that plugins' settings name and that there are not: known from the schemas that modules bring along, without starting any.
//!
//! A warning, since a plugin may do without, and calls to such an upstream fail alone.

use std::collections::{BTreeSet, HashMap};

use portcullis_module::{Outline, upstreams};

use super::settings;
use crate::config::names::close_or_all;
use crate::config::{Node, Whole};
use crate::diagnostic::{self, Diagnostic};

/// A warning for each place at which one is named.
pub(crate) fn unknown_upstreams(whole: &Whole) -> Vec<Diagnostic> {
    let Whole { snapshot, tree, .. } = whole;
    let mut naming: HashMap<[u8; 32], Vec<String>> = HashMap::new();
    let mut warnings = Vec::new();
    for (_, filter) in snapshot.filters() {
        let plugin = snapshot.plugin(filter.plugin);
        let pointers = naming.entry(plugin.digest).or_insert_with(|| {
            let manifest = Outline::of(&plugin.code).ok().and_then(|outline| outline.manifest);
            manifest.map(|manifest| upstreams(&manifest.schema)).unwrap_or_default()
        });
        let tenant = filter.tenant.map(|tenant| &*snapshot.tenant(tenant).name);
        let Some(settings) = settings(tree, tenant, &plugin.name, &filter.config) else { continue };
        let known: BTreeSet<&str> = snapshot.visible_upstreams(filter.tenant).map(|(name, _)| name).collect();
        let named = pointers.iter().flat_map(|pointer| at(settings, pointer));
        for place in named.filter(|place| !known.contains(place.written())) {
            let name = place.written();
            let all: Vec<&str> = known.iter().copied().collect();
            let warning =
                Diagnostic::warning(format!("plugin `{}` calls upstream `{name}`, which does not exist", plugin.name));
            let warning = warning.at(&place.span, "no upstream that it may call has this name");
            warnings.push(warning.maybe_help(close_or_all(name, &all, "the upstreams are")));
        }
    }
    diagnostic::sort(&mut warnings);
    warnings
}

/// The strings at a JSON Pointer, in which `*` is any item of a list or any entry of a mapping.
fn at<'t>(settings: &'t Node, pointer: &str) -> Vec<&'t Node> {
    let mut found = vec![settings];
    for token in pointer.split('/').skip(1) {
        found = match token {
            "*" => {
                found.iter().flat_map(|node| node.list().iter().chain(node.entries().map(|(_, value)| value))).collect()
            }
            _ => found.iter().filter_map(|node| node.get(token)).collect(),
        };
    }
    found.retain(|node| !node.written().is_empty());
    found
}
