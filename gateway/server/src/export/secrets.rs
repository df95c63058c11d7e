//! What came into a configuration from files and the environment, and how much of it an export shows.
//!
//! **Invariant:** unless it is asked for, nothing that was referred to inside a filter's configuration or a condition is written:
//! its reference stands there, as it does in the configuration.

use std::collections::HashMap;

use super::notes::Notes;
use crate::config::Node;
use crate::config::private::Configuration;

/// Whether secrets are written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Show {
    /// Their values are.
    Values,
    /// Only how they are referred to.
    References,
}

/// The configurations of filters and VMs that hold secrets.
pub(super) struct Secrets {
    pub(super) show: Show,
    /// Each as it was written.
    written: HashMap<Configuration, Configuration>,
}

impl Secrets {
    /// Looks for them in every list of filters and every plugin; says where one is left as a reference.
    pub(super) fn find<'c>(sections: impl Iterator<Item = &'c Node>, show: Show, notes: &mut Notes) -> Self {
        let mut written = HashMap::new();
        for config in sections.flat_map(configurations) {
            if config.has_secret() {
                written.insert(Configuration::of(&config.json()), Configuration::of(&config.written_json()));
                if show == Show::References {
                    notes.lost(&config.span, LEFT);
                }
            }
        }
        Self { show, written }
    }

    /// What is written for a configuration.
    pub(super) fn configuration<'s>(&'s self, config: &'s Configuration) -> &'s Configuration {
        match self.show {
            Show::Values => config,
            Show::References => self.written.get(config).unwrap_or(config),
        }
    }

    /// Whether secrets are about to be written.
    pub(super) fn are_shown(&self) -> bool {
        self.show == Show::Values && !self.written.is_empty()
    }

    /// What is written for a text of a condition.
    pub(super) fn condition<'n>(&self, value: &'n str, node: Option<&'n Node>, notes: &mut Notes) -> &'n str {
        match node {
            Some(node) if node.has_secret() && self.show == Show::References => {
                notes.lost(&node.span, LEFT);
                node.written()
            }
            _ => value,
        }
    }
}

const LEFT: &str = "a secret is left as its reference: put its value in where Envoy gets it, or export --with-secrets";

/// What filters and VMs are configured with in a section.
fn configurations(section: &Node) -> impl Iterator<Item = &Node> {
    let plugins = section.get("plugins").into_iter().flat_map(Node::entries);
    let vms = plugins.filter_map(|(_, plugin)| plugin.get("vm_config"));
    lists(section).into_iter().flat_map(Node::list).filter_map(|filter| filter.get("config")).chain(vms)
}

/// Every list of filters in a section.
fn lists(section: &Node) -> Vec<&Node> {
    let policies = section.get("policies").into_iter().flat_map(Node::entries).map(|(_, list)| list);
    let listeners = section.get("listeners").into_iter().flat_map(Node::entries).map(|(_, listener)| listener);
    let routes = section.get("routes").map_or(&[][..], Node::list);
    let own = std::iter::once(section).chain(routes).chain(listeners).filter_map(|owner| owner.get("filters"));
    own.chain(policies).collect()
}
