//! Where the parts of a snapshot are written.

use crate::config::snapshot::{Plugin, PluginIndex, RouteIndex, Snapshot, TenantIndex, UpstreamIndex};
use crate::config::{Key, Node};
use crate::diagnostic::Span;

/// The places of a checked configuration, by the indices of its snapshot.
pub(super) struct Places<'c> {
    pub(super) root: &'c Node,
    upstreams: Vec<(&'c Key, &'c Node)>,
    plugins: Vec<(&'c Key, &'c Node)>,
    tenants: Vec<(&'c Key, &'c Node)>,
    routes: Vec<&'c Node>,
}

impl<'c> Places<'c> {
    /// The tree must be what the snapshot was made of: both list the gateway's own parts first, then each tenant's, in the order
    /// of the files.
    pub(super) fn of(snapshot: &Snapshot, root: &'c Node) -> Self {
        let tenants: Vec<_> = root.get("tenants").into_iter().flat_map(Node::entries).collect();
        let sections = || std::iter::once(root).chain(tenants.iter().map(|(_, node)| *node));
        let named = |name| sections().filter_map(move |section| section.get(name)).flat_map(Node::entries).collect();
        let (upstreams, plugins) = (named("upstreams"), named("plugins"));
        let routes: Vec<_> = sections().filter_map(|section| section.get("routes")).flat_map(Node::list).collect();
        let places = Self { root, upstreams, plugins, routes, tenants };
        debug_assert!(places.are_of(snapshot), "places and parts are listed alike");
        places
    }

    fn are_of(&self, snapshot: &Snapshot) -> bool {
        let same = |places: &[(&Key, &Node)], names: &[&str]| {
            places.iter().map(|(key, _)| key.name.as_str()).eq(names.iter().copied())
        };
        let upstreams: Vec<&str> = snapshot.upstreams.iter().map(|upstream| &*upstream.name).collect();
        let plugins: Vec<&str> = snapshot.plugins.iter().map(|plugin| &*plugin.name).collect();
        let tenants: Vec<&str> = snapshot.tenants.iter().map(|tenant| &*tenant.name).collect();
        same(&self.upstreams, &upstreams)
            && same(&self.plugins, &plugins)
            && same(&self.tenants, &tenants)
            && self.routes.len() == snapshot.routes.len()
    }

    pub(super) fn upstream(&self, index: UpstreamIndex) -> (&'c Span, &'c Node) {
        part(&self.upstreams, index.0)
    }

    pub(super) fn plugin(&self, index: PluginIndex) -> (&'c Span, &'c Node) {
        part(&self.plugins, index.0)
    }

    /// The place of a plugin of the snapshot.
    pub(super) fn plugin_named(&self, snapshot: &Snapshot, plugin: &Plugin) -> (&'c Span, &'c Node) {
        let index = snapshot.plugins.iter().position(|other| std::ptr::eq(other, plugin));
        self.plugin(PluginIndex(index.unwrap_or_default()))
    }

    pub(super) fn tenant(&self, index: TenantIndex) -> (&'c Span, &'c Node) {
        part(&self.tenants, index.0)
    }

    pub(super) fn route(&self, index: RouteIndex) -> &'c Node {
        self.routes.get(index.0).expect("places are those of the snapshot")
    }

    /// The gateway's own section, then each tenant's.
    pub(super) fn sections(&self) -> impl Iterator<Item = &'c Node> {
        std::iter::once(self.root).chain(self.tenants.iter().map(|(_, node)| *node))
    }

    /// The part of a section at the top that has this name.
    pub(super) fn named(&self, section: &str, name: &str) -> &'c Node {
        self.root.get(section).and_then(|section| section.get(name)).unwrap_or(self.root)
    }
}

fn part<'c>(parts: &[(&'c Key, &'c Node)], index: usize) -> (&'c Span, &'c Node) {
    let (key, node) = parts.get(index).expect("places are those of the snapshot");
    (&key.span, *node)
}
