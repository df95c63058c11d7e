//! What the gateway has of a configuration, and what each tenant has: a share for each, which later snapshots keep while it does not
//! change.
//!
//! With thousands of tenants a change of one is made of that one's share and of a list of the others'. An index says whose share it is
//! about, and what in there. **Invariants:** a tenant has the same place in all snapshots that follow each other; a share names only
//! what is in it or in the gateway's, so it means the same in every snapshot in which the gateway's files say the same.

use std::collections::HashMap;
use std::sync::Arc;

use portcullis_core::route::HostPattern;
use portcullis_core::tenant;
use sha2::{Digest as _, Sha256};

use super::{Filter, Plugin, Route, Snapshot, Upstream};
use crate::config::granted::Pattern;

/// The place of a tenant among those of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantIndex(pub usize);

macro_rules! indices {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            /// The tenant in whose share it is; `None` is the gateway.
            pub owner: Option<TenantIndex>,
            /// The position in that share's list.
            pub at: usize,
        }
    )*};
}

indices! {
    /// Names one of [`Share::upstreams`].
    UpstreamIndex;
    /// Names one of [`Share::plugins`].
    PluginIndex;
    /// Names one of [`Share::filters`].
    FilterIndex;
    /// Names one of [`Share::routes`].
    RouteIndex;
}

/// What the gateway or one tenant has.
#[derive(Clone, Debug, Default)]
pub struct Share {
    /// Its upstreams.
    pub upstreams: Vec<Upstream>,
    /// Its plugins.
    pub plugins: Vec<Plugin>,
    /// The filters that run on its behalf. Equal ones are one.
    pub filters: Vec<Filter>,
    /// Its routes.
    pub routes: Vec<Route>,
    /// The chain of requests for its hosts that none of its routes takes: the gateway's filters, then its own.
    pub chain: Vec<FilterIndex>,
    /// Its upstreams by their names.
    pub(in crate::config) named: HashMap<Arc<str>, UpstreamIndex>,
    /// As it was written; of the gateway without its tenants.
    pub(in crate::config) written: Arc<serde_json::Value>,
    /// Of what was written and of the modules' code.
    pub(in crate::config) digest: [u8; 32],
}

/// An owner of hosts.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// What logs and metrics call it.
    pub name: Arc<str>,
    /// Its hosts.
    pub hosts: Vec<HostPattern>,
    /// What it may use in all.
    pub limits: tenant::Limits,
    /// Names of the upstreams that everyone sees and its filters may call; `None` for all.
    pub(in crate::config) granted: Option<Arc<[Pattern]>>,
    /// Whether nothing that its own files say could be used, so that its requests are refused.
    pub unavailable: bool,
    /// What it has.
    pub share: Share,
    /// Of its name and its share's digest.
    pub(in crate::config) digest: [u8; 32],
}

impl Tenant {
    /// Whether it has upstreams that it alone sees.
    #[must_use]
    pub fn has_upstreams(&self) -> bool {
        !self.share.upstreams.is_empty()
    }

    /// Names of the upstreams that everyone sees and its filters may call; `None` for all. Those of tenants with the same grants and
    /// without upstreams of their own see the same.
    pub(crate) fn granted(&self) -> Option<&Arc<[Pattern]>> {
        self.granted.as_ref()
    }

    /// What was written of it, all files merged, secrets by reference only.
    #[must_use]
    pub fn dump(&self) -> serde_json::Value {
        serde_json::Value::clone(&self.share.written)
    }

    /// The digest of a tenant of this name with this share.
    pub(in crate::config) fn digest_of(name: &str, share: &Share) -> [u8; 32] {
        Sha256::new_with_prefix(share.digest).chain_update(name).finalize().into()
    }
}

/// The tenants of a snapshot, at their places.
#[derive(Clone, Debug, Default)]
pub struct Tenants {
    places: Vec<Option<Arc<Tenant>>>,
    by_name: HashMap<Arc<str>, TenantIndex>,
}

impl Tenants {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Every tenant, in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.places.iter().flatten()
    }

    /// The same with their places.
    pub fn placed(&self) -> impl Iterator<Item = (TenantIndex, &Arc<Tenant>)> {
        let places = self.places.iter().enumerate();
        places.filter_map(|(place, tenant)| Some((TenantIndex(place), tenant.as_ref()?)))
    }

    /// The tenant at a place.
    #[must_use]
    pub fn at(&self, place: TenantIndex) -> Option<&Arc<Tenant>> {
        self.places.get(place.0)?.as_ref()
    }

    /// The place of the tenant of this name.
    #[must_use]
    pub fn place_of(&self, name: &str) -> Option<TenantIndex> {
        self.by_name.get(name).copied()
    }

    /// The tenant of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<Tenant>> {
        self.at(self.place_of(name)?)
    }

    /// Places for tenants of these names: theirs, or free ones.
    pub(in crate::config) fn places_for<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Vec<TenantIndex> {
        let mut free = (0..).map(TenantIndex).filter(|place| self.at(*place).is_none());
        let place = |name: &str| self.place_of(name).or_else(|| free.next());
        names.into_iter().map(place).map(|place| place.expect("there is no last number")).collect()
    }

    /// Takes a tenant away.
    pub(in crate::config) fn remove(&mut self, name: &str) {
        if let Some(place) = self.by_name.remove(name).and_then(|place| self.places.get_mut(place.0)) {
            *place = None;
        }
    }

    /// Puts a tenant at a place that is free or its own.
    pub(in crate::config) fn put(&mut self, place: TenantIndex, tenant: Tenant) {
        if self.places.len() <= place.0 {
            self.places.resize(place.0 + 1, None);
        }
        self.by_name.entry(tenant.name.clone()).or_insert(place);
        if let Some(at) = self.places.get_mut(place.0) {
            *at = Some(Arc::new(tenant));
        }
    }

    /// Notes that nothing that a tenant's own files say can be used.
    pub(in crate::config) fn make_unavailable(&mut self, name: &str) {
        let place = self.place_of(name).and_then(|place| self.places.get_mut(place.0));
        if let Some(tenant) = place.and_then(Option::as_mut) {
            Arc::make_mut(tenant).unavailable = true;
        }
    }

    /// Goes on with the TLS of those before these, each tenant with its own.
    pub(super) fn keep_clients_of(&mut self, earlier: &Self) {
        let others = earlier.places.iter().map(Option::as_ref).chain(std::iter::repeat(None));
        for (tenant, there) in self.places.iter_mut().zip(others) {
            let Some(tenant) = tenant.as_mut().filter(|tenant| there.is_none_or(|there| !Arc::ptr_eq(there, tenant)))
            else {
                continue;
            };
            if let Some(before) = earlier.named(&tenant.name)
                && tenant.share.upstreams.iter().any(|upstream| upstream.tls.is_some())
            {
                clients_of(&mut Arc::make_mut(tenant).share, &before.share);
            }
        }
    }
}

/// Goes on with the TLS of an earlier share's upstreams.
pub(super) fn keep_clients(share: &mut Arc<Share>, earlier: &Share) {
    if share.upstreams.iter().any(|upstream| upstream.tls.is_some()) {
        clients_of(Arc::make_mut(share), earlier);
    }
}

fn clients_of(share: &mut Share, earlier: &Share) {
    for upstream in share.upstreams.iter_mut().filter(|upstream| upstream.tls.is_some()) {
        let mut before = earlier.upstreams.iter().filter_map(|before| before.tls.as_ref());
        if let Some(same) = before.find(|before| upstream.tls.as_ref() == Some(before)) {
            upstream.tls = Some(same.clone());
        }
    }
}

impl Snapshot {
    /// The gateway's share, then those of the tenants in the order of their places.
    pub fn shares(&self) -> impl Iterator<Item = (Option<TenantIndex>, &Share)> {
        let tenants = self.tenants.placed().map(|(place, tenant)| (Some(place), &tenant.share));
        std::iter::once((None, &*self.gateway)).chain(tenants)
    }

    /// What the gateway or a tenant has.
    #[must_use]
    pub fn share(&self, owner: Option<TenantIndex>) -> &Share {
        owner.map_or(&*self.gateway, |tenant| &self.tenant(tenant).share)
    }

    /// Every upstream, shared ones and those of tenants.
    pub fn upstreams(&self) -> impl Iterator<Item = (UpstreamIndex, &Upstream)> {
        self.shares().flat_map(|(owner, share)| {
            share.upstreams.iter().enumerate().map(move |(at, upstream)| (UpstreamIndex { owner, at }, upstream))
        })
    }

    /// Every plugin, shared ones and those of tenants.
    pub fn plugins(&self) -> impl Iterator<Item = (PluginIndex, &Plugin)> {
        self.shares().flat_map(|(owner, share)| {
            share.plugins.iter().enumerate().map(move |(at, plugin)| (PluginIndex { owner, at }, plugin))
        })
    }

    /// Every filter.
    pub fn filters(&self) -> impl Iterator<Item = (FilterIndex, &Filter)> {
        self.shares().flat_map(|(owner, share)| {
            share.filters.iter().enumerate().map(move |(at, filter)| (FilterIndex { owner, at }, filter))
        })
    }

    /// Every route.
    pub fn routes(&self) -> impl Iterator<Item = (RouteIndex, &Route)> {
        self.shares().flat_map(|(owner, share)| {
            share.routes.iter().enumerate().map(move |(at, route)| (RouteIndex { owner, at }, route))
        })
    }

    /// The upstream of this index.
    #[must_use]
    pub fn upstream(&self, index: UpstreamIndex) -> &Upstream {
        self.share(index.owner).upstreams.get(index.at).expect("an index is used with its own snapshot")
    }

    /// The plugin of this index.
    #[must_use]
    pub fn plugin(&self, index: PluginIndex) -> &Plugin {
        self.share(index.owner).plugins.get(index.at).expect("an index is used with its own snapshot")
    }

    /// The filter of this index.
    #[must_use]
    pub fn filter(&self, index: FilterIndex) -> &Filter {
        self.share(index.owner).filters.get(index.at).expect("an index is used with its own snapshot")
    }

    /// The route of this index.
    #[must_use]
    pub fn route(&self, index: RouteIndex) -> &Route {
        self.share(index.owner).routes.get(index.at).expect("an index is used with its own snapshot")
    }

    /// The tenant of this index.
    #[must_use]
    pub fn tenant(&self, index: TenantIndex) -> &Arc<Tenant> {
        self.tenants.at(index).expect("an index is used with its own snapshot")
    }

    /// Every upstream that filters of this tenant may call, by the name they know it by: the tenant's own, and the shared ones that it
    /// is granted and does not hide by a name of its own.
    pub fn visible_upstreams(&self, tenant: Option<TenantIndex>) -> impl Iterator<Item = (&str, UpstreamIndex)> {
        let tenant = tenant.map(|tenant| self.tenant(tenant));
        let own = tenant.map(|tenant| &tenant.share.named);
        let granted = tenant.and_then(|tenant| tenant.granted.as_deref());
        let hidden = move |name: &Arc<str>| own.is_some_and(|own| own.contains_key(name));
        let is_granted = move |name: &str| granted.is_none_or(|granted| granted.iter().any(|fits| fits.fits(name)));
        let shared = self.gateway.named.iter().filter(move |(name, _)| !hidden(name) && is_granted(name));
        shared.chain(own.into_iter().flatten()).map(|(name, index)| (&**name, *index))
    }
}
