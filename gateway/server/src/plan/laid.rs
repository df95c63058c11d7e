//! What the gateway or one tenant has of a plan: its VMs and upstreams at their places among all workers', its filters in those VMs.
//!
//! With thousands of tenants a plan has most of them from the plan before it. **Invariant:** what is laid out for a tenant names only
//! what is laid out for it or for the gateway; so it holds for as long as both stay as they are.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use portcullis_core::context::UpstreamId;
use portcullis_core::filter::{ChainFilter, VmIndex};
use portcullis_core::rollout::{Rollout, Version};
use portcullis_core::tenant::Account;
use portcullis_vm::{Capabilities, Isolation, Module, RootSpec, VmSpec};

use super::places::Placed;
use super::{Ground, PlanError, rollouts};
use crate::config::granted::Pattern;
use crate::config::private::Configuration;
use crate::config::snapshot::{
    Filter, Plugin, PluginIndex, Protocol, Share, Snapshot, Tenant, TenantIndex, Upstream, UpstreamIndex,
};

/// Upstreams by the names that guests know them by.
type Visible = HashMap<Box<str>, UpstreamId>;

/// The upstreams of whoever has none of its own, by what it is granted.
pub(super) type Views = HashMap<Option<Arc<[Pattern]>>, Arc<Visible>>;

/// What the gateway or one tenant has of a plan.
pub(crate) struct Laid {
    /// What it was made of.
    pub(super) of: Of,
    since: u64,
    pub(super) vms: Vec<Placed<VmSpec>>,
    pub(super) upstreams: Vec<Placed<Upstream>>,
    /// Those of the share's filters.
    pub(super) filters: Vec<ChainFilter>,
    /// Those of filters whose plugins have a next version, by their positions.
    pub(super) candidates: BTreeMap<usize, rollouts::Placed>,
    /// Those of the share's plugins.
    pub(super) rollouts: Vec<Option<Arc<Rollout>>>,
    /// Nothing for the gateway.
    pub(super) account: Option<Arc<Account>>,
    /// Whole, as they were loaded: others who use them need not load them.
    modules: Vec<Arc<Module>>,
}

/// Whose share is laid out.
#[derive(Clone)]
pub(super) enum Of {
    Gateway(Arc<Share>),
    Tenant(Arc<Tenant>),
}

impl Of {
    pub(super) fn share(&self) -> &Share {
        match self {
            Self::Gateway(share) => share,
            Self::Tenant(tenant) => &tenant.share,
        }
    }

    pub(super) fn tenant(&self) -> Option<&Arc<Tenant>> {
        match self {
            Self::Gateway(_) => None,
            Self::Tenant(tenant) => Some(tenant),
        }
    }
}

/// What makes filters share a VM. The tenant goes by its name, which means the same in every revision.
#[derive(Clone, PartialEq, Eq, Hash)]
struct VmKey {
    tenant: Option<Arc<str>>,
    vm_id: Arc<str>,
    version: Version,
    digest: [u8; 32],
    memory: u64,
    cpu: Duration,
    isolation: Isolation,
    idle: Option<Duration>,
    configuration: Bytes,
    capabilities: Capabilities,
}

impl VmKey {
    fn of(spec: &VmSpec) -> Self {
        Self {
            tenant: spec.tenant.clone(),
            vm_id: spec.vm_id.clone(),
            version: spec.version,
            digest: *spec.module.digest(),
            memory: spec.memory,
            cpu: spec.cpu,
            isolation: spec.isolation,
            idle: spec.idle,
            configuration: spec.configuration.clone(),
            capabilities: spec.module.capabilities().clone(),
        }
    }
}

/// A share that is being laid out.
pub(super) struct Draft<'e> {
    pub(super) laid: Laid,
    ground: &'e Ground,
    snapshot: &'e Snapshot,
    place: Option<TenantIndex>,
    /// What the gateway has; nothing as long as that is being laid out itself.
    gateway: Option<&'e Laid>,
    /// The same share in the plan before.
    earlier: Option<&'e Laid>,
    views: &'e mut Views,
    specs: Vec<VmSpec>,
    places: HashMap<VmKey, usize>,
}

/// What a share is laid out among.
pub(super) struct Among<'e> {
    pub(super) ground: &'e Ground,
    pub(super) snapshot: &'e Snapshot,
    /// The number of the plan.
    pub(super) number: u64,
    pub(super) gateway: Option<&'e Laid>,
}

impl<'e> Draft<'e> {
    pub(super) fn new(
        among: &Among<'e>,
        (of, place): (Of, Option<TenantIndex>),
        earlier: Option<&'e Laid>,
        views: &'e mut Views,
    ) -> Self {
        let Among { ground, snapshot, number, gateway } = *among;
        let laid = Laid {
            since: number,
            vms: Vec::new(),
            upstreams: place_upstreams(of.share(), ground, earlier),
            filters: Vec::new(),
            candidates: BTreeMap::new(),
            rollouts: rollouts::rollouts(&of, earlier, &ground.decisions),
            account: of.tenant().map(|_| earlier.and_then(|earlier| earlier.account.clone()).unwrap_or_default()),
            modules: Vec::new(),
            of,
        };
        Self { laid, ground, snapshot, place, gateway, earlier, views, specs: Vec::new(), places: HashMap::new() }
    }

    /// Lays it out. Returns also the positions of VMs that the plan before did not have.
    pub(super) fn finish(mut self) -> Result<(Laid, Vec<usize>), PlanError> {
        let snapshot = self.snapshot;
        for (at, filter) in snapshot.share(self.place).filters.iter().enumerate() {
            let current = self.filter(filter, (snapshot.plugin(filter.plugin), Version::Current))?;
            self.laid.filters.push(current);
            self.candidate(at, filter)?;
        }
        let new = self.place_vms();
        Ok((self.laid, new))
    }

    /// Gives a filter its root context in the VM it shares. `vm` is then the VM's place in this draft.
    pub(super) fn filter(
        &mut self,
        filter: &Filter,
        (plugin, version): (&Plugin, Version),
    ) -> Result<ChainFilter, PlanError> {
        let snapshot = self.snapshot;
        let owner = plugin.tenant.map(|tenant| &snapshot.tenant(tenant).name);
        let module = self.module(plugin, owner)?;
        let spec = self.spec((plugin, version), filter.tenant, module.clone());
        let key = VmKey::of(&spec);
        let vm = match self.places.get(&key) {
            Some(vm) => *vm,
            None => {
                let upstreams = self.visible(filter.tenant);
                self.specs.push(VmSpec { upstreams, ..spec });
                self.places.insert(key, self.specs.len() - 1);
                self.specs.len() - 1
            }
        };
        // A guest is called the same in both versions.
        let name = &snapshot.plugin(filter.plugin).name;
        let root = self.specs.get_mut(vm).map_or(0, |spec| root(spec, name, &filter.config));
        Ok(ChainFilter {
            name: plugin.name.clone(),
            vm: VmIndex(u32::try_from(vm).unwrap_or(u32::MAX)),
            root,
            exports: module.exports(),
            on_failure: plugin.on_failure,
            headers_pause: plugin.headers_pause,
        })
    }

    pub(super) fn plugin(&self, index: PluginIndex) -> &'e Plugin {
        self.snapshot.plugin(index)
    }

    /// The roll-out of a plugin, which may be the gateway's.
    pub(super) fn rollout_of(&self, index: PluginIndex) -> Option<Arc<Rollout>> {
        self.share_of(index.owner)?.rollouts.get(index.at)?.clone()
    }

    fn share_of(&self, owner: Option<TenantIndex>) -> Option<&Laid> {
        if owner == self.place { Some(&self.laid) } else { self.gateway }
    }

    /// A plugin's module with what its plugin grants it.
    fn module(&mut self, plugin: &Plugin, tenant: Option<&Arc<str>>) -> Result<Arc<Module>, PlanError> {
        let Ground { engine, modules, .. } = self.ground;
        let unloadable = |source| PlanError::Load { tenant: tenant.cloned(), plugin: plugin.name.clone(), source };
        let (name, wasm, limits) = (&plugin.name, &plugin.code, &plugin.limits.compile);
        let load = || match plugin.isolation {
            Isolation::Vm => engine.load_within(name, wasm, limits),
            Isolation::Request => engine.load_copyable(name, wasm, limits),
        };
        let code = (plugin.digest, plugin.isolation);
        let whole = modules.get_or_make(code, &Capabilities::All, load).map_err(unloadable)?;
        if !self.laid.modules.iter().any(|known| Arc::ptr_eq(known, &whole)) {
            self.laid.modules.push(whole.clone());
        }
        let restrict = || engine.restrict(&whole, &plugin.capabilities);
        modules.get_or_make(code, &plugin.capabilities, restrict).map_err(unloadable)
    }

    /// The VM that a filter needs, before anything is known of what it is configured with and may call.
    fn spec(&self, (plugin, version): (&Plugin, Version), tenant: Option<TenantIndex>, module: Arc<Module>) -> VmSpec {
        let snapshot = self.snapshot;
        VmSpec {
            tenant: tenant.map(|tenant| snapshot.tenant(tenant).name.clone()),
            vm_id: plugin.vm_id.clone(),
            name: plugin.name.clone(),
            version,
            module,
            memory: plugin.limits.memory,
            cpu: plugin.limits.cpu,
            isolation: plugin.isolation,
            idle: plugin.idle(tenant),
            configuration: plugin.vm_config.bytes(),
            account: self.laid.account.clone(),
            roots: Vec::new(),
            upstreams: Arc::default(),
        }
    }

    fn visible(&mut self, tenant: Option<TenantIndex>) -> Arc<Visible> {
        let snapshot = self.snapshot;
        let speaks_http = |index| snapshot.upstream(index).protocol != Protocol::Tcp;
        let id =
            |(name, index): (&str, _)| Some((Box::from(name), self.upstream_id(index).filter(|_| speaks_http(index))?));
        let all = || Arc::new(snapshot.visible_upstreams(tenant).filter_map(id).collect());
        let owner = tenant.map(|tenant| snapshot.tenant(tenant));
        if owner.is_some_and(|owner| owner.has_upstreams()) {
            return all();
        }
        let granted = owner.and_then(|owner| owner.granted()).cloned();
        if let Some(known) = self.views.get(&granted) {
            return known.clone();
        }
        let visible = all();
        self.views.insert(granted, visible.clone());
        visible
    }

    fn upstream_id(&self, index: UpstreamIndex) -> Option<UpstreamId> {
        self.share_of(index.owner)?.upstream_id(index)
    }

    /// Gives every VM its place among all workers' VMs, and tells the filters. Returns the positions of those that are new.
    fn place_vms(&mut self) -> Vec<usize> {
        let (laid, mut new) = (&mut self.laid, Vec::new());
        let earlier: HashMap<VmKey, &Placed<VmSpec>> =
            self.earlier.iter().flat_map(|earlier| &earlier.vms).map(|vm| (VmKey::of(&vm.what), vm)).collect();
        for spec in self.specs.drain(..) {
            let known = earlier.get(&VmKey::of(&spec)).copied();
            let placed = Placed::kept_or_new(&self.ground.vm_places, spec, known, VmSpec::is_same);
            if known.is_none_or(|known| known.number() != placed.number()) {
                new.push(laid.vms.len());
            }
            laid.vms.push(placed);
        }
        let candidates = laid.candidates.values_mut().flat_map(rollouts::Placed::filters);
        for filter in laid.filters.iter_mut().chain(candidates) {
            if let Some(vm) = laid.vms.get(filter.vm.0 as usize) {
                filter.vm = VmIndex(vm.number());
            }
        }
        new
    }
}

impl Laid {
    /// The number of the first plan that has it.
    pub(crate) fn since(&self) -> u64 {
        self.since
    }

    /// The places of its VMs, and what is there.
    pub(crate) fn vms(&self) -> impl Iterator<Item = (VmIndex, &Arc<VmSpec>)> {
        self.vms.iter().map(|vm| (VmIndex(vm.number()), &vm.what))
    }

    /// The places of its upstreams, and what is there.
    pub(crate) fn upstreams(&self) -> impl Iterator<Item = (UpstreamId, &Arc<Upstream>)> {
        self.upstreams.iter().map(|upstream| (UpstreamId(upstream.number()), &upstream.what))
    }

    /// The place of an upstream of this share.
    pub(super) fn upstream_id(&self, index: UpstreamIndex) -> Option<UpstreamId> {
        self.upstreams.get(index.at).map(|upstream| UpstreamId(upstream.number()))
    }
}

/// The place of a plugin's configuration among the VM's roots. Equal ones are one.
fn root(spec: &mut VmSpec, name: &Arc<str>, configuration: &Configuration) -> usize {
    let known = |root: &RootSpec| root.configuration == **configuration && root.name == *name;
    spec.roots.iter().position(known).unwrap_or_else(|| {
        spec.roots.push(RootSpec { name: name.clone(), configuration: configuration.bytes() });
        spec.roots.len() - 1
    })
}

/// Gives every upstream its place, in the order of the share.
fn place_upstreams(share: &Share, ground: &Ground, earlier: Option<&Laid>) -> Vec<Placed<Upstream>> {
    let earlier = earlier.iter().flat_map(|earlier| &earlier.upstreams);
    let earlier: HashMap<&str, &Placed<Upstream>> = earlier.map(|upstream| (&*upstream.what.name, upstream)).collect();
    let place = |upstream: &Upstream| {
        let known = earlier.get(&*upstream.name).copied();
        Placed::kept_or_new(&ground.upstream_places, upstream.clone(), known, Upstream::is_same)
    };
    share.upstreams.iter().map(place).collect()
}
