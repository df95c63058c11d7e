//! Tiers: what holds for tenants by their names, before what holds for all.
//!
//! A tenant that is made over the admin listener has no entry in the gateway's files that could grant it anything, but it has a name, and
//! whoever lets it be made says which.

use super::Check;
use crate::config::file::{File, TenantDefaults};
use crate::config::granted::Pattern;
use crate::config::tree::Node;
use crate::config::written::Written as _;
use crate::diagnostic::Diagnostic;

/// What holds for a tenant of this name where it says nothing itself, with the places: its tier's, then everybody's.
pub(super) fn levels<'t>(
    tree: &'t Node,
    file: &'t File,
    tenant: &str,
) -> impl Iterator<Item = (&'t TenantDefaults, &'t Node)> {
    let tier = tier_of(tree, file, tenant);
    tier.into_iter().chain(tree.get("tenant_defaults").map(|node| (&file.tenant_defaults, node)))
}

/// The tier that has the tenant's very name, or the longest beginning of it.
fn tier_of<'t>(tree: &'t Node, file: &'t File, tenant: &str) -> Option<(&'t TenantDefaults, &'t Node)> {
    let tiers = tree.get("tenant_tiers").into_iter().flat_map(Node::entries);
    let fitting = tiers.filter_map(|(key, node)| {
        let pattern = Pattern::read(&key.name).ok().filter(|pattern| pattern.fits(tenant))?;
        let rank = match &pattern {
            Pattern::Exact(_) => (true, 0),
            Pattern::Beginning(start) => (false, start.len()),
        };
        Some((rank, (file.tenant_tiers.get(&key.name)?, node)))
    });
    fitting.max_by_key(|(rank, _)| *rank).map(|(_, tier)| tier)
}

impl Check<'_> {
    /// The names of tiers.
    pub(super) fn tiers(&mut self, tree: &Node) {
        for (key, _) in tree.get("tenant_tiers").into_iter().flat_map(Node::entries) {
            if let Err(why) = Pattern::read(&key.name) {
                let problem = Diagnostic::error(format!("`{}` is no name for a tier", key.name));
                self.report(
                    problem.at(&key.span, why).help("it is a tenant's name, or the beginning of names with `*`"),
                );
            }
        }
    }
}
