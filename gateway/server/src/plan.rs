//! A snapshot made ready to run: modules compiled, VMs laid out, a chain for every route.
//!
//! Filters of one tenant that use the same module under the same limits share a VM, as root contexts; filters of two tenants
//! never do. A plan that follows another keeps what the two have in common, and says what is new.

mod places;
mod rollouts;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, header};
use portcullis_core::context::UpstreamId;
use portcullis_core::exchange::{Exchange, Place, Times};
use portcullis_core::filter::{Chain, ChainFilter, VmIndex};
use portcullis_core::headers::Headers;
use portcullis_core::reply::Failure;
use portcullis_core::retry::Policy;
use portcullis_core::rollout::{Rollout, Version};
use portcullis_core::route::{Match, Request};
use portcullis_core::tenant::Account;
use portcullis_core::time::Time;
use portcullis_core::trace;
use portcullis_core::upgrade::Tunnels;
use portcullis_vm::{
    Capabilities, Engine, EngineError, EngineOptions, LoadError, Module, Newborn, RootSpec, Shared, StartError, VmSpec,
    Vms,
};

use self::places::{Placed, Places};
use crate::config::granted::Pattern;
use crate::config::private::Configuration;
use crate::config::snapshot::{
    Filter, FilterIndex, Plugin, Protocol, Snapshot, TcpRoute, Tenant, TenantIndex, Upstream, UpstreamIndex,
};
use crate::supervisor::Options;

/// The largest memory a plugin can be given. Room for it costs addresses only, which the engine reserves anyhow; a later revision
/// may need what the first does not.
const MAX_MEMORY: u64 = 4 << 30;

/// Why a snapshot cannot run.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The engine cannot be set up on this machine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A module cannot be loaded.
    #[error("plugin `{plugin}`: {source}")]
    Load {
        /// Whose plugin it is, if it is a tenant's.
        tenant: Option<Arc<str>>,
        /// The plugin.
        plugin: Arc<str>,
        /// Why.
        source: LoadError,
    },
}

/// What every plan of this process stands on.
struct Ground {
    engine: Arc<Engine>,
    shared: Arc<Shared>,
    vm_places: Places,
    upstream_places: Places,
}

/// What all workers run: one revision of the configuration.
pub(crate) struct Plan {
    snapshot: Arc<Snapshot>,
    ground: Arc<Ground>,
    modules: HashMap<[u8; 32], Arc<Module>>,
    vms: Vec<Placed<VmSpec>>,
    /// Those of the VMs that the plan before this one did not have.
    new_vms: Vec<NewVm>,
    upstreams: Vec<Placed<Upstream>>,
    filters: Vec<ChainFilter>,
    /// Those of filters whose plugins have a next version.
    candidates: BTreeMap<FilterIndex, rollouts::Placed>,
    /// Those of the snapshot's plugins.
    rollouts: Vec<Option<Arc<Rollout>>>,
    /// Those of the snapshot's tenants.
    accounts: Vec<Arc<Account>>,
}

/// A VM that no earlier plan has.
struct NewVm {
    /// Its position among the plan's.
    index: usize,
    /// Whether it may be away until it is needed; the first worker to start it finds out.
    rests: OnceLock<bool>,
}

/// What makes filters share a VM. The tenant goes by its name, which means the same in every revision.
#[derive(Clone, PartialEq, Eq, Hash)]
struct VmKey {
    tenant: Option<Arc<str>>,
    version: Version,
    digest: [u8; 32],
    memory: u64,
    cpu: Duration,
    idle: Option<Duration>,
    configuration: Bytes,
    capabilities: Capabilities,
}

impl VmKey {
    fn of(spec: &VmSpec) -> Self {
        Self {
            tenant: spec.tenant.clone(),
            version: spec.version,
            digest: *spec.module.digest(),
            memory: spec.memory,
            cpu: spec.cpu,
            idle: spec.idle,
            configuration: spec.configuration.clone(),
            capabilities: spec.module.capabilities().clone(),
        }
    }
}

impl Plan {
    /// Compiles what is used and lays it out. Takes as long as compiling takes: keep it off the workers.
    pub(crate) fn new(snapshot: Arc<Snapshot>, options: &Options) -> Result<Self, PlanError> {
        let max_vms = options.max_vms.unwrap_or(EngineOptions::default().max_vms);
        let (cache, compiler) = (options.cache.clone(), options.compiler.clone());
        let engine = Engine::new(EngineOptions {
            cache,
            max_vms,
            max_memory: MAX_MEMORY,
            compiler,
            ..EngineOptions::default()
        })?;
        let ground =
            Ground { engine, shared: Arc::default(), vm_places: Places::default(), upstream_places: Places::default() };
        Draft::new(snapshot, Arc::new(ground), None).finish()
    }

    /// A plan to follow this one. What it has in common with this one keeps its place, and goes on running.
    pub(crate) fn next(&self, snapshot: Arc<Snapshot>) -> Result<Self, PlanError> {
        Draft::new(snapshot, self.ground.clone(), Some(self)).finish()
    }

    pub(crate) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Holds every tenant to its limits as this plan has them.
    pub(crate) fn set_limits(&self) {
        for (tenant, account) in self.snapshot.tenants.iter().zip(&self.accounts) {
            account.limit(&tenant.limits);
        }
    }

    fn account(&self, tenant: Option<TenantIndex>) -> Option<Arc<Account>> {
        self.accounts.get(tenant?.0).cloned()
    }

    /// A worker's own VMs, as yet without any.
    pub(crate) fn no_vms(&self) -> Vms {
        Vms::new(self.ground.engine.clone(), [].into(), self.ground.shared.clone())
    }

    /// The places of this plan's VMs, and what is there.
    pub(crate) fn vms(&self) -> impl Iterator<Item = (VmIndex, &Arc<VmSpec>)> {
        self.vms.iter().map(|vm| (VmIndex(vm.number()), &vm.what))
    }

    /// The places of this plan's upstreams, and what is there.
    pub(crate) fn upstreams(&self) -> impl Iterator<Item = (UpstreamId, &Arc<Upstream>)> {
        self.upstreams.iter().map(|upstream| (UpstreamId(upstream.number()), &upstream.what))
    }

    /// Starts those of one worker's VMs that no earlier plan has, on the thread this is called on. One that may rest until it is
    /// needed is started for one worker only, to see that it can be.
    pub(crate) fn start_vms(&self, now: Time) -> Result<Vec<(VmIndex, Newborn)>, StartError> {
        let mut started = Vec::new();
        for new in &self.new_vms {
            if let Some(vm) = self.vms.get(new.index)
                && let Some(newborn) = self.start_vm(vm, &new.rests, now)?
            {
                started.push((VmIndex(vm.number()), newborn));
            }
        }
        Ok(started)
    }

    fn start_vm(&self, vm: &Placed<VmSpec>, rests: &OnceLock<bool>, now: Time) -> Result<Option<Newborn>, StartError> {
        let Ground { engine, shared, .. } = &*self.ground;
        let start = || Newborn::start(engine, shared, VmIndex(vm.number()), vm.what.clone(), now);
        let mut tried = None;
        let rests = *rests.get_or_init(|| tried.insert(start()).as_ref().is_ok_and(Newborn::can_rest));
        match tried {
            Some(Ok(_)) | None if rests => Ok(None),
            Some(tried) => tried.map(Some),
            None => start().map(Some),
        }
    }

    /// The places of those VMs that the plan before this one did not have.
    pub(crate) fn new_places(&self) -> impl Iterator<Item = VmIndex> {
        self.new_vms.iter().filter_map(|new| Some(VmIndex(self.vms.get(new.index)?.number())))
    }

    /// The account of every tenant, by its name.
    pub(crate) fn accounts(&self) -> Vec<(Arc<str>, Arc<Account>)> {
        let tenants = self.snapshot.tenants.iter().map(|tenant| tenant.name.clone());
        tenants.zip(self.accounts.iter().cloned()).collect()
    }

    fn chain(&self, filters: &[FilterIndex]) -> Arc<Chain> {
        Arc::new(self.with_candidates(Chain::new(self.chain_filters(filters)), filters))
    }

    fn chain_filters(&self, filters: &[FilterIndex]) -> Vec<ChainFilter> {
        filters.iter().filter_map(|index| self.filters.get(index.0)).cloned().collect()
    }

    /// Where a `tcp` listener's connections go.
    fn tcp_spot(&self, route: &TcpRoute) -> Spot {
        let snapshot = &self.snapshot;
        let upstream = snapshot.upstream(route.upstream);
        Spot {
            target: self.upstream_id(route.upstream).ok_or(Failure::NoRoute),
            chain: Arc::new(self.with_candidates(Chain::tcp(self.chain_filters(&route.filters)), &route.filters)),
            place: Arc::new(Place {
                route: fresh(&route.listener),
                pattern: Arc::from(""),
                upstream: fresh(&upstream.name),
                tenant: fresh(route.tenant.map_or("", |tenant| &snapshot.tenant(tenant).name)),
                times: Times { response: Duration::MAX, idle: route.idle, request: Duration::MAX },
                retry: Policy::connect_only(),
            }),
            tunnels: Tunnels::default(),
            account: self.account(route.tenant),
        }
    }

    /// A worker's own routing table. Its reference counts are the worker's alone, so that no two threads write to one.
    pub(crate) fn table(&self) -> Table {
        let snapshot = &self.snapshot;
        let unavailable = |tenant: TenantIndex| snapshot.tenant(tenant).unavailable;
        let fallback = |tenant: Option<TenantIndex>, filters: &[FilterIndex]| Spot {
            target: Err(if tenant.is_some_and(unavailable) { Failure::TenantUnavailable } else { Failure::NoRoute }),
            chain: self.chain(filters),
            place: Arc::new(Place {
                route: Arc::from(""),
                pattern: Arc::from(""),
                upstream: Arc::from(""),
                tenant: fresh(tenant.map_or("", |tenant| &snapshot.tenant(tenant).name)),
                times: Times::with_response(Duration::MAX),
                retry: Policy::connect_only(),
            }),
            tunnels: Tunnels::default(),
            account: self.account(tenant),
        };
        let routes = snapshot.routes.iter().map(|route| Spot {
            target: self.upstream_id(route.upstream).ok_or(Failure::NoRoute),
            chain: self.chain(&route.filters),
            place: Arc::new(Place {
                route: fresh(&route.name),
                pattern: fresh(&route.pattern),
                upstream: fresh(&snapshot.upstream(route.upstream).name),
                tenant: fresh(route.tenant.map_or("", |tenant| &snapshot.tenant(tenant).name)),
                times: route.times,
                retry: route.retry.clone(),
            }),
            tunnels: route.tunnels.clone(),
            account: self.account(route.tenant),
        });
        let tenants = (0..).zip(&snapshot.tenants);
        Table {
            routes: routes.collect(),
            tenants: tenants.map(|(index, tenant)| fallback(Some(TenantIndex(index)), &tenant.chain)).collect(),
            outside: fallback(None, &snapshot.chain),
            nowhere: fallback(None, &[]),
            tcp: snapshot.tcp_routes.iter().map(|route| (route.listener.clone(), self.tcp_spot(route))).collect(),
            snapshot: self.snapshot.clone(),
        }
    }

    fn upstream_id(&self, index: UpstreamIndex) -> Option<UpstreamId> {
        self.upstreams.get(index.0).map(|upstream| UpstreamId(upstream.number()))
    }
}

/// A plan that is being made.
struct Draft<'e> {
    plan: Plan,
    earlier: Option<&'e Plan>,
    specs: Vec<VmSpec>,
    places: HashMap<VmKey, usize>,
    /// The upstreams of whoever has none of its own, by what it is granted.
    shared_upstreams: HashMap<Option<Arc<[Pattern]>>, Arc<Visible>>,
    /// Modules with no more than what is granted to them.
    restricted: HashMap<([u8; 32], Capabilities), Arc<Module>>,
}

/// Upstreams by the names that guests know them by.
type Visible = HashMap<Box<str>, UpstreamId>;

impl<'e> Draft<'e> {
    fn new(snapshot: Arc<Snapshot>, ground: Arc<Ground>, earlier: Option<&'e Plan>) -> Self {
        let upstreams = place_upstreams(&snapshot, &ground.upstream_places, earlier);
        let accounts = accounts(&snapshot, earlier);
        let rollouts = rollouts::rollouts(&snapshot, earlier);
        let (modules, vms, new_vms, filters) = (HashMap::new(), Vec::new(), Vec::new(), Vec::new());
        let candidates = BTreeMap::new();
        let plan = Plan { snapshot, ground, modules, vms, new_vms, upstreams, filters, candidates, rollouts, accounts };
        let (specs, places, restricted) = (Vec::new(), HashMap::new(), HashMap::new());
        Self { plan, earlier, specs, places, shared_upstreams: HashMap::new(), restricted }
    }

    fn finish(mut self) -> Result<Plan, PlanError> {
        let snapshot = self.plan.snapshot.clone();
        for (index, filter) in snapshot.filters.iter().enumerate() {
            let current = self.filter(&snapshot, filter, (snapshot.plugin(filter.plugin), Version::Current))?;
            self.plan.filters.push(current);
            self.candidate(&snapshot, FilterIndex(index))?;
        }
        self.place_vms();
        Ok(self.plan)
    }

    /// Gives a filter its root context in the VM it shares. `vm` is then the VM's place in this draft.
    fn filter(
        &mut self,
        snapshot: &Snapshot,
        filter: &Filter,
        (plugin, version): (&Plugin, Version),
    ) -> Result<ChainFilter, PlanError> {
        let owner = plugin.tenant.map(|tenant| &snapshot.tenant(tenant).name);
        let module = self.module(plugin, owner)?;
        let key = VmKey {
            tenant: filter.tenant.map(|tenant| snapshot.tenant(tenant).name.clone()),
            version,
            digest: *module.digest(),
            memory: plugin.limits.memory,
            cpu: plugin.limits.cpu,
            idle: plugin.idle(filter.tenant),
            configuration: plugin.vm_config.clone(),
            capabilities: plugin.capabilities.clone(),
        };
        let vm = match self.places.get(&key) {
            Some(vm) => *vm,
            None => {
                let spec = self.spec((plugin, version), filter.tenant, module.clone());
                self.specs.push(spec);
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

    /// A plugin's module: what an earlier plan has compiled is not compiled again.
    fn module(&mut self, plugin: &Plugin, tenant: Option<&Arc<str>>) -> Result<Arc<Module>, PlanError> {
        let known = self.plan.modules.get(&plugin.digest);
        let earlier = || self.earlier.and_then(|earlier| earlier.modules.get(&plugin.digest));
        let module = match known.or_else(earlier) {
            Some(module) => module.clone(),
            None => load(&self.plan.ground.engine, plugin, tenant)?,
        };
        self.plan.modules.insert(plugin.digest, module.clone());
        self.restricted(&module, plugin, tenant)
    }

    /// A module with what its plugin grants it; linked once for each set of grants.
    fn restricted(
        &mut self,
        module: &Arc<Module>,
        plugin: &Plugin,
        tenant: Option<&Arc<str>>,
    ) -> Result<Arc<Module>, PlanError> {
        match self.restricted.entry((plugin.digest, plugin.capabilities.clone())) {
            Entry::Occupied(known) => Ok(known.get().clone()),
            Entry::Vacant(place) => {
                let restricted = self.plan.ground.engine.restrict(module, &plugin.capabilities);
                let restricted = restricted.map_err(|source| unloadable(plugin, tenant, source))?;
                Ok(place.insert(restricted).clone())
            }
        }
    }

    fn spec(
        &mut self,
        (plugin, version): (&Plugin, Version),
        tenant: Option<TenantIndex>,
        module: Arc<Module>,
    ) -> VmSpec {
        let upstreams = self.visible(tenant);
        let snapshot = &self.plan.snapshot;
        VmSpec {
            tenant: tenant.map(|tenant| snapshot.tenant(tenant).name.clone()),
            name: plugin.name.clone(),
            version,
            module,
            memory: plugin.limits.memory,
            cpu: plugin.limits.cpu,
            idle: plugin.idle(tenant),
            configuration: plugin.vm_config.clone(),
            account: self.plan.account(tenant),
            roots: Vec::new(),
            upstreams,
        }
    }

    fn visible(&mut self, tenant: Option<TenantIndex>) -> Arc<Visible> {
        let (plan, snapshot) = (&self.plan, &self.plan.snapshot);
        let speaks_http = |index| snapshot.upstream(index).protocol != Protocol::Tcp;
        let id =
            |(name, index): (&str, _)| Some((Box::from(name), plan.upstream_id(index).filter(|_| speaks_http(index))?));
        let all = || Arc::new(snapshot.visible_upstreams(tenant).filter_map(id).collect());
        let owner = tenant.map(|tenant| snapshot.tenant(tenant));
        if owner.is_some_and(Tenant::has_upstreams) {
            return all();
        }
        let granted = owner.and_then(Tenant::granted).cloned();
        self.shared_upstreams.entry(granted).or_insert_with(all).clone()
    }

    /// Gives every VM its place among all workers' VMs, and tells the filters.
    fn place_vms(&mut self) {
        let plan = &mut self.plan;
        let earlier: HashMap<VmKey, &Placed<VmSpec>> =
            self.earlier.iter().flat_map(|plan| &plan.vms).map(|vm| (VmKey::of(&vm.what), vm)).collect();
        for spec in self.specs.drain(..) {
            let known = earlier.get(&VmKey::of(&spec)).copied();
            let placed = Placed::kept_or_new(&plan.ground.vm_places, spec, known, VmSpec::is_same);
            if known.is_none_or(|known| known.number() != placed.number()) {
                plan.new_vms.push(NewVm { index: plan.vms.len(), rests: OnceLock::new() });
            }
            plan.vms.push(placed);
        }
        let candidates = plan.candidates.values_mut().flat_map(rollouts::Placed::filters);
        for filter in plan.filters.iter_mut().chain(candidates) {
            if let Some(vm) = plan.vms.get(filter.vm.0 as usize) {
                filter.vm = VmIndex(vm.number());
            }
        }
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

/// Every tenant's account: the one it has, if it had one.
fn accounts(snapshot: &Snapshot, earlier: Option<&Plan>) -> Vec<Arc<Account>> {
    let before = earlier.iter().flat_map(|earlier| earlier.snapshot.tenants.iter().zip(&earlier.accounts));
    let before: HashMap<&str, &Arc<Account>> = before.map(|(tenant, account)| (&*tenant.name, account)).collect();
    let account = |tenant: &Tenant| before.get(&*tenant.name).map_or_else(Arc::default, |account| Arc::clone(account));
    snapshot.tenants.iter().map(account).collect()
}

/// Gives every upstream its place, in the order of the snapshot.
fn place_upstreams(snapshot: &Snapshot, places: &Places, earlier: Option<&Plan>) -> Vec<Placed<Upstream>> {
    let earlier: HashMap<_, &Placed<Upstream>> = earlier
        .iter()
        .flat_map(|plan| plan.upstreams.iter().map(|upstream| (owned_name(&plan.snapshot, &upstream.what), upstream)))
        .collect();
    let place = |upstream: &Upstream| {
        let known = earlier.get(&owned_name(snapshot, upstream)).copied();
        Placed::kept_or_new(places, upstream.clone(), known, Upstream::is_same)
    };
    snapshot.upstreams.iter().map(place).collect()
}

/// What an upstream is called in every revision: its tenant's name and its own.
fn owned_name<'s>(snapshot: &'s Snapshot, upstream: &'s Upstream) -> (Option<&'s str>, &'s str) {
    (upstream.tenant.map(|tenant| &*snapshot.tenant(tenant).name), &upstream.name)
}

/// A string of one's own, sharing its count with no other worker.
fn fresh(text: &str) -> Arc<str> {
    Arc::from(text)
}

fn load(engine: &Engine, plugin: &Plugin, tenant: Option<&Arc<str>>) -> Result<Arc<Module>, PlanError> {
    let loaded = engine.load_within(&plugin.name, &plugin.code, &plugin.limits.compile);
    loaded.map_err(|source| unloadable(plugin, tenant, source))
}

fn unloadable(plugin: &Plugin, tenant: Option<&Arc<str>>, source: LoadError) -> PlanError {
    PlanError::Load { tenant: tenant.cloned(), plugin: plugin.name.clone(), source }
}

/// Where a request goes: what is known of the place, and the filters on the way.
pub(crate) struct Spot {
    /// The upstream, or why there is none.
    target: Result<UpstreamId, Failure>,
    pub(crate) place: Arc<Place>,
    pub(crate) chain: Arc<Chain>,
    pub(crate) tunnels: Tunnels,
    /// Whose requests these are; nothing for the gateway's own.
    pub(crate) account: Option<Arc<Account>>,
}

/// One worker's routing table.
pub(crate) struct Table {
    snapshot: Arc<Snapshot>,
    routes: Vec<Spot>,
    tenants: Vec<Spot>,
    outside: Spot,
    nowhere: Spot,
    /// Those of `tcp` listeners, by their names.
    tcp: HashMap<Arc<str>, Spot>,
}

impl Table {
    /// Where the connections of a `tcp` listener go, if it is one.
    pub(crate) fn tcp(&self, listener: &str) -> Option<(&Spot, UpstreamId)> {
        self.tcp.get(listener).and_then(|spot| Some((spot, spot.target.ok()?)))
    }

    /// Whether any request may leave HTTP.
    pub(crate) fn has_tunnels(&self) -> bool {
        self.routes.iter().any(|spot| !spot.tunnels.allowed.is_empty())
    }

    /// What is done about traces, if anything is.
    pub(crate) fn tracing(&self) -> Option<&trace::Policy> {
        self.snapshot.tracing.as_ref()
    }

    /// For requests that are refused before they are routed.
    pub(crate) fn nowhere(&self) -> &Spot {
        &self.nowhere
    }

    /// Finds the route anew, for a request that its filters have changed. Only routes of the same tenant with the same filters will
    /// do: what another route asks of its requests, this one has not been through.
    pub(crate) fn route_again(
        &self,
        exchange: &Exchange,
        head: &Headers,
    ) -> Option<(Arc<Place>, Result<UpstreamId, Failure>)> {
        let tenant = &exchange.facts()?.place.tenant;
        let host = head.fields().get(header::HOST);
        let (spot, target) = self.route(head.method()?, host, head.path()?, head.fields());
        let fits = spot.place.tenant == *tenant && spot.chain.is_same(exchange.chain());
        fits.then(|| (spot.place.clone(), target))
    }

    /// Finds the route; without one, the filters of whoever owns the host still see the request before it gets its 404.
    pub(crate) fn route(
        &self,
        method: &Method,
        host: Option<&HeaderValue>,
        path: &PathAndQuery,
        headers: &HeaderMap,
    ) -> (&Spot, Result<UpstreamId, Failure>) {
        let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
        let request = Request { host, path: path.path(), query: path.query(), method, headers };
        match self.snapshot.router.find(&request) {
            Match::Route(route) => {
                let spot = self.routes.get(route.0).unwrap_or(&self.nowhere);
                (spot, spot.target)
            }
            Match::NoRoute(owner) => {
                let spot = owner.and_then(|tenant: TenantIndex| self.tenants.get(tenant.0)).unwrap_or(&self.outside);
                (spot, spot.target)
            }
            Match::UnknownHost => (&self.outside, Err(Failure::NoRoute)),
        }
    }
}
