//! Tenants of whose files nothing has changed: a snapshot has their shares as the one before it has them.
//!
//! A share names what is in it or in the gateway's. **Invariant:** whoever takes tenants over knows that the gateway's files say the
//! same, so what a share names there is what it was.

use std::sync::Arc;

use portcullis_core::route::{HostPattern, Router};

use super::routes::Owners;
use crate::config::snapshot::{RouteIndex, Share, Snapshot, Tenant, TenantIndex, Tenants};

/// What a snapshot takes over from the one before: every tenant that is not made anew, but for those that are gone.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) earlier: Arc<Snapshot>,
    /// By their names.
    pub(crate) gone: Vec<Arc<str>>,
}

impl Taken {
    /// The gateway's share: the earlier one where it is the same. Nothing if tenants' shares may name something else there.
    pub(super) fn gateway(&self, made: Share) -> Option<Arc<Share>> {
        let earlier = &self.earlier.gateway;
        let lengths = |share: &Share| [share.upstreams.len(), share.plugins.len(), share.filters.len()];
        let fits = lengths(earlier) == lengths(&made);
        fits.then(|| if earlier.digest == made.digest { earlier.clone() } else { made.into() })
    }

    /// What finds routes. Nothing where the tenants do not get on with each other.
    pub(super) fn router(
        &self,
        owners: Owners,
        made: &[(TenantIndex, Tenant)],
    ) -> Option<Router<Option<TenantIndex>, RouteIndex>> {
        let earlier = &self.earlier.tenants;
        let remade = made.iter().map(|(_, tenant)| &tenant.name);
        let before = remade.chain(&self.gone).filter_map(|name| earlier.named(name));
        let hosts: Vec<&HostPattern> = before.flat_map(|tenant| &tenant.hosts).collect();
        self.earlier.router.changed(hosts.into_iter().chain([&HostPattern::ANY]), owners)
    }

    /// Those of the tenants that are left as they are.
    pub(super) fn tenants(&self) -> Tenants {
        let mut tenants = self.earlier.tenants.clone();
        self.gone.iter().for_each(|name| tenants.remove(name));
        tenants
    }
}
