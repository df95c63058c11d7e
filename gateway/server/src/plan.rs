//! A snapshot made ready to run: modules compiled, VMs laid out, a chain for every route.
//!
//! Filters of one tenant that use the same module under the same limits share a VM, as root contexts; filters of two tenants
//! never do.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};
use portcullis_core::context::UpstreamId;
use portcullis_core::exchange::Place;
use portcullis_core::filter::{Chain, ChainFilter, HeadersPause, VmIndex};
use portcullis_core::reply::Failure;
use portcullis_core::route::{Match, Request};
use portcullis_vm::{Engine, EngineError, EngineOptions, LoadError, Module, RootSpec, Shared, VmSpec, Vms};

use crate::config::snapshot::{FilterIndex, Plugin, PluginIndex, Snapshot, TenantIndex, UpstreamIndex};
use crate::supervisor::Options;

/// Why a snapshot cannot run.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The engine cannot be set up on this machine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A module cannot be loaded.
    #[error("plugin `{plugin}`: {source}")]
    Load {
        /// The plugin.
        plugin: Arc<str>,
        /// Why.
        source: LoadError,
    },
}

/// What all workers run.
pub(crate) struct Plan {
    snapshot: Arc<Snapshot>,
    engine: Arc<Engine>,
    shared: Arc<Shared>,
    vms: Arc<[VmSpec]>,
    filters: Vec<ChainFilter>,
}

/// What makes filters share a VM.
#[derive(PartialEq, Eq, Hash)]
struct VmKey {
    tenant: Option<TenantIndex>,
    digest: [u8; 32],
    memory: u64,
    cpu: std::time::Duration,
}

impl Plan {
    /// Compiles what is used and lays it out. Takes as long as compiling takes: keep it off the workers.
    pub(crate) fn new(snapshot: Arc<Snapshot>, options: Options) -> Result<Self, PlanError> {
        let defaults = EngineOptions::default();
        let memory = snapshot.plugins.iter().map(|plugin| plugin.limits.memory);
        let max_memory = memory.max().unwrap_or(defaults.max_memory);
        let max_vms = options.max_vms.unwrap_or(defaults.max_vms);
        let engine = Engine::new(EngineOptions { cache: options.cache, max_vms, max_memory })?;
        let mut modules: HashMap<PluginIndex, Arc<Module>> = HashMap::new();
        let mut places: HashMap<VmKey, usize> = HashMap::new();
        let mut vms: Vec<VmSpec> = Vec::new();
        let mut filters = Vec::new();
        for filter in &snapshot.filters {
            let plugin = snapshot.plugin(filter.plugin);
            let module = match modules.get(&filter.plugin) {
                Some(module) => module.clone(),
                None => {
                    let module = load(&engine, plugin)?;
                    modules.insert(filter.plugin, module.clone());
                    module
                }
            };
            let limits = &plugin.limits;
            let key = VmKey { tenant: filter.tenant, digest: *module.digest(), memory: limits.memory, cpu: limits.cpu };
            let vm = *places.entry(key).or_insert_with(|| {
                vms.push(spec(&snapshot, plugin, filter.tenant, module.clone()));
                vms.len() - 1
            });
            let Some(spec) = vms.get_mut(vm) else { continue };
            let configuration = Bytes::copy_from_slice(&filter.config);
            let known = |root: &RootSpec| root.configuration == configuration && root.name == plugin.name;
            let root = spec.roots.iter().position(known).unwrap_or_else(|| {
                spec.roots.push(RootSpec { name: plugin.name.clone(), configuration: configuration.clone() });
                spec.roots.len() - 1
            });
            filters.push(ChainFilter {
                name: plugin.name.clone(),
                vm: VmIndex(u32::try_from(vm).unwrap_or(u32::MAX)),
                root,
                exports: module.exports(),
                on_failure: plugin.on_failure,
                headers_pause: HeadersPause::StopsAll,
            });
        }
        Ok(Self { snapshot, engine, shared: Arc::default(), vms: vms.into(), filters })
    }

    pub(crate) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// A worker's own VMs, not yet started.
    pub(crate) fn vms(&self) -> Vms {
        Vms::new(self.engine.clone(), self.vms.clone(), self.shared.clone())
    }

    fn chain(&self, filters: &[FilterIndex]) -> Arc<Chain> {
        Arc::new(Chain::new(filters.iter().filter_map(|index| self.filters.get(index.0)).cloned().collect()))
    }

    /// A worker's own routing table. Its reference counts are the worker's alone, so that no two threads write to one.
    pub(crate) fn table(&self) -> Table {
        let snapshot = &self.snapshot;
        let fallback = |tenant: Option<TenantIndex>, filters: &[FilterIndex]| Spot {
            chain: self.chain(filters),
            place: Arc::new(Place {
                route: Arc::from(""),
                pattern: Arc::from(""),
                upstream: Arc::from(""),
                tenant: fresh(tenant.map_or("", |tenant| &snapshot.tenant(tenant).name)),
                timeout: std::time::Duration::MAX,
            }),
        };
        let routes = snapshot.routes.iter().map(|route| Spot {
            chain: self.chain(&route.filters),
            place: Arc::new(Place {
                route: fresh(&route.name),
                pattern: fresh(&route.pattern),
                upstream: fresh(&snapshot.upstream(route.upstream).name),
                tenant: fresh(route.tenant.map_or("", |tenant| &snapshot.tenant(tenant).name)),
                timeout: route.timeout,
            }),
        });
        let tenants = (0..).zip(&snapshot.tenants);
        Table {
            routes: routes.collect(),
            tenants: tenants.map(|(index, tenant)| fallback(Some(TenantIndex(index)), &tenant.chain)).collect(),
            outside: fallback(None, &snapshot.chain),
            nowhere: fallback(None, &[]),
            snapshot: self.snapshot.clone(),
        }
    }
}

fn upstream_id(index: UpstreamIndex) -> UpstreamId {
    UpstreamId(u32::try_from(index.0).unwrap_or(u32::MAX))
}

/// A string of one's own, sharing its count with no other worker.
fn fresh(text: &str) -> Arc<str> {
    Arc::from(text)
}

fn spec(snapshot: &Snapshot, plugin: &Plugin, tenant: Option<TenantIndex>, module: Arc<Module>) -> VmSpec {
    let upstreams =
        snapshot.visible_upstreams(tenant).map(|(name, index)| (Box::from(name), upstream_id(index))).collect();
    VmSpec {
        tenant: tenant.map(|tenant| snapshot.tenant(tenant).name.clone()),
        name: plugin.name.clone(),
        module,
        memory: plugin.limits.memory,
        cpu: plugin.limits.cpu,
        configuration: Bytes::new(),
        roots: Vec::new(),
        upstreams: Arc::new(upstreams),
    }
}

fn load(engine: &Engine, plugin: &Plugin) -> Result<Arc<Module>, PlanError> {
    let failed = |source| PlanError::Load { plugin: plugin.name.clone(), source };
    engine.load(&plugin.name, &plugin.code).map_err(failed)
}

/// Where a request goes: what is known of the place, and the filters on the way.
pub(crate) struct Spot {
    pub(crate) place: Arc<Place>,
    pub(crate) chain: Arc<Chain>,
}

/// One worker's routing table.
pub(crate) struct Table {
    snapshot: Arc<Snapshot>,
    routes: Vec<Spot>,
    tenants: Vec<Spot>,
    outside: Spot,
    nowhere: Spot,
}

impl Table {
    /// For requests that are refused before they are routed.
    pub(crate) fn nowhere(&self) -> &Spot {
        &self.nowhere
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
            Match::Route(route) => match (self.routes.get(route.0), self.snapshot.routes.get(route.0)) {
                (Some(spot), Some(route)) => (spot, Ok(upstream_id(route.upstream))),
                _ => (&self.nowhere, Err(Failure::NoRoute)),
            },
            Match::NoRoute(owner) => {
                let spot = owner.and_then(|tenant: TenantIndex| self.tenants.get(tenant.0)).unwrap_or(&self.outside);
                (spot, Err(Failure::NoRoute))
            }
            Match::UnknownHost => (&self.outside, Err(Failure::NoRoute)),
        }
    }
}
