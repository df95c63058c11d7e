//! Lists of filters: what stands in them, and what routes leave out.

use super::definitions::{PLUGIN, POLICY};
use super::{Check, Section};
use crate::config::file;
use crate::config::names::close_or_all;
use crate::config::private::Configuration;
use crate::config::snapshot::{Filter, FilterIndex, PluginIndex};
use crate::config::tree::Node;
use crate::diagnostic::{Diagnostic, Span};

/// A filter at its place in a list.
pub(super) struct Placed {
    pub(super) filter: FilterIndex,
    /// What routes call it.
    name: String,
    optional: bool,
    place: Span,
}

/// The chain that a list of filters makes.
pub(super) fn indices(placed: &[Placed]) -> Vec<FilterIndex> {
    placed.iter().map(|placed| placed.filter).collect()
}

/// What a plugin is configured with: nothing as nothing.
pub(super) fn config(filter: &file::Filter) -> Configuration {
    filter.config.as_ref().map(|value| Configuration::of(value)).unwrap_or_default()
}

impl Check<'_> {
    /// The filters of the gateway or of a tenant.
    pub(super) fn section_filters(&mut self, section: &Section<'_>, scope: usize) -> Vec<Placed> {
        self.filters(section.filters, section.node.get("filters"), section, scope)
    }

    /// The filters of a list, on behalf of the section's tenant.
    pub(super) fn filters(
        &mut self,
        list: &[file::Filter],
        node: Option<&Node>,
        section: &Section<'_>,
        scope: usize,
    ) -> Vec<Placed> {
        let nodes = node.map_or(&[][..], Node::list);
        let mut placed = Vec::new();
        for (filter, node) in list.iter().zip(nodes) {
            let (plugin, policy) = (node.get("plugin"), node.get("policy"));
            let Some(used) = plugin.or(policy) else { continue };
            let name = filter.name.as_deref().unwrap_or_else(|| used.written());
            let mut place = |index| {
                let place = used.span.clone();
                placed.push(Placed { filter: index, name: name.to_owned(), optional: filter.optional, place });
            };
            if let Some(plugin) = plugin {
                let plugin = self.resolve(&PLUGIN, scope, plugin, "this filter uses");
                plugin.into_iter().for_each(|plugin| place(self.intern(plugin, config(filter), section)));
            } else if let Some(policy) = policy {
                self.refuse_config(node);
                let filters = self.resolve(&POLICY, scope, policy, "this filter uses");
                for filter in filters.iter().flat_map(|filters| filters.iter()) {
                    place(self.intern(filter.plugin, filter.config.clone(), section));
                }
            }
        }
        placed
    }

    fn refuse_config(&mut self, node: &Node) {
        if let Some(config) = node.get("config") {
            let problem = Diagnostic::error("a policy takes no `config`")
                .at(&config.span, "")
                .help("its filters have theirs where the policy is defined");
            self.report(problem);
        }
    }

    /// Equal filters on behalf of one tenant share a root context: a policy used on a thousand routes is configured once.
    fn intern(&mut self, plugin: PluginIndex, config: Configuration, section: &Section<'_>) -> FilterIndex {
        let filter = Filter { plugin, tenant: section.tenant, config };
        if let Some(known) = self.interned.get(&filter) {
            return *known;
        }
        let filters = &mut self.share_mut(section.tenant).filters;
        filters.push(filter.clone());
        let index = FilterIndex { owner: section.tenant, at: filters.len() - 1 };
        self.interned.insert(filter, index);
        index
    }

    /// The outer filters that are left when a route skips some by name.
    pub(super) fn unskipped(&mut self, outer: &[&Placed], route: &file::Route, node: &Node) -> Vec<FilterIndex> {
        let places = node.get("skip").map_or(&[][..], Node::list);
        let route_name = node.get("name").map_or("", Node::written);
        for (name, place) in route.skip.iter().zip(places) {
            let mut named = outer.iter().filter(|placed| placed.name == *name).peekable();
            let shown = place.written();
            if named.peek().is_none() {
                let known: Vec<&str> =
                    outer.iter().filter(|placed| placed.optional).map(|placed| placed.name.as_str()).collect();
                let problem =
                    Diagnostic::error(format!("route `{route_name}` skips filter `{shown}`, which does not exist"))
                        .at(&place.span, "no filter of an outer level has this name")
                        .maybe_help(close_or_all(name, &known, "filters that can be skipped:"));
                self.report(problem);
            } else if let Some(kept) = named.find(|placed| !placed.optional) {
                let problem =
                    Diagnostic::error(format!("route `{route_name}` skips filter `{shown}`, which is not optional"))
                        .at(&place.span, "cannot be skipped")
                        .at(&kept.place, "used here without `optional: true`")
                        .help("only who placed a filter can make it optional");
                self.report(problem);
            }
        }
        let kept = outer.iter().filter(|placed| !route.skip.contains(&placed.name));
        kept.map(|placed| placed.filter).collect()
    }
}
