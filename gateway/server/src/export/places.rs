//! Where the parts of a snapshot are written.

use std::collections::HashMap;

use crate::config::snapshot::{Plugin, PluginIndex, RouteIndex, Snapshot, TenantIndex, UpstreamIndex};
use crate::config::{Key, Node};
use crate::diagnostic::Span;

/// The places of a checked configuration, by the indices of its snapshot.
pub(super) struct Places<'c> {
    pub(super) root: &'c Node,
    upstreams: HashMap<UpstreamIndex, (&'c Key, &'c Node)>,
    plugins: HashMap<PluginIndex, (&'c Key, &'c Node)>,
    tenants: Vec<(&'c Key, &'c Node)>,
    routes: HashMap<RouteIndex, &'c Node>,
}

impl<'c> Places<'c> {
    /// The tree must be what the snapshot was made of: both list the gateway's own parts first, then each tenant's, in the order
    /// of the files.
    pub(super) fn of(snapshot: &Snapshot, root: &'c Node) -> Self {
        let tenants: Vec<_> = root.get("tenants").into_iter().flat_map(Node::entries).collect();
        let sections = || std::iter::once(root).chain(tenants.iter().map(|(_, node)| *node));
        let named = |name| sections().filter_map(move |section| section.get(name)).flat_map(Node::entries);
        let routes = sections().filter_map(|section| section.get("routes")).flat_map(Node::list);
        let places = Self {
            root,
            upstreams: snapshot.upstreams().map(|(index, _)| index).zip(named("upstreams")).collect(),
            plugins: snapshot.plugins().map(|(index, _)| index).zip(named("plugins")).collect(),
            routes: snapshot.routes().map(|(index, _)| index).zip(routes).collect(),
            tenants,
        };
        debug_assert!(places.are_of(snapshot), "places and parts are listed alike");
        places
    }

    fn are_of(&self, snapshot: &Snapshot) -> bool {
        let is = |place: Option<&(&Key, &Node)>, name: &str| place.is_some_and(|(key, _)| key.name == name);
        snapshot.upstreams().all(|(index, upstream)| is(self.upstreams.get(&index), &upstream.name))
            && snapshot.plugins().all(|(index, plugin)| is(self.plugins.get(&index), &plugin.name))
            && snapshot.tenants.placed().all(|(place, tenant)| is(self.tenants.get(place.0), &tenant.name))
            && self.routes.len() == snapshot.routes().count()
    }

    pub(super) fn upstream(&self, index: UpstreamIndex) -> (&'c Span, &'c Node) {
        part(self.upstreams.get(&index))
    }

    pub(super) fn plugin(&self, index: PluginIndex) -> (&'c Span, &'c Node) {
        part(self.plugins.get(&index))
    }

    /// The place of a plugin of the snapshot.
    pub(super) fn plugin_named(&self, snapshot: &Snapshot, plugin: &Plugin) -> (&'c Span, &'c Node) {
        let index = snapshot.plugins().find(|(_, other)| std::ptr::eq(*other, plugin)).map(|(index, _)| index);
        self.plugin(index.expect("a plugin is used with its own snapshot"))
    }

    pub(super) fn tenant(&self, index: TenantIndex) -> (&'c Span, &'c Node) {
        part(self.tenants.get(index.0))
    }

    pub(super) fn route(&self, index: RouteIndex) -> &'c Node {
        self.routes.get(&index).expect("places are those of the snapshot")
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

fn part<'c>(place: Option<&(&'c Key, &'c Node)>) -> (&'c Span, &'c Node) {
    let (key, node) = place.expect("places are those of the snapshot");
    (&key.span, *node)
}
