//! A snapshot made ready to run: modules compiled, VMs laid out, a chain for every route.
//!
//! Filters of one tenant that use the same module under the same limits share a VM, as root contexts; filters of two tenants
//! never do. A plan that follows another keeps what the two have in common, and says what is new: with thousands of tenants it costs
//! what those cost that have changed, and a list of the others.

mod laid;
mod modules;
mod places;
mod refusals;
mod rollouts;
mod table;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use portcullis_core::context::UpstreamId;
use portcullis_core::filter::{Chain, ChainFilter, VmIndex};
use portcullis_core::tenant::Account;
use portcullis_core::time::Time;
use portcullis_vm::{Engine, EngineError, EngineOptions, LoadError, Newborn, Shared, StartError, VmSpec, Vms};

pub(crate) use self::laid::Laid;
use self::laid::{Among, Draft, Of, Views};
use self::modules::Modules;
use self::places::{Placed, Places};
pub(crate) use self::refusals::{NotStarted, Refusal};
pub(crate) use self::table::Table;
use crate::config::snapshot::{FilterIndex, Snapshot, TenantIndex, UpstreamIndex};
use crate::decisions::Decisions;
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
    modules: Modules,
    decisions: Arc<Decisions>,
    vm_places: Places,
    upstream_places: Places,
    /// How many plans there were.
    plans: AtomicU64,
    /// How many routing tables there are: one for each worker, and the last for the bulkhead.
    tables: usize,
}

/// What all workers run: one revision of the configuration.
pub(crate) struct Plan {
    snapshot: Arc<Snapshot>,
    ground: Arc<Ground>,
    /// Higher than that of every plan made before, whatever became of those.
    number: u64,
    gateway: Arc<Laid>,
    /// At the tenants' places.
    tenants: Vec<Option<Arc<Laid>>>,
    views: Views,
    /// What the plan before this one does not have.
    new: Vec<Arc<Laid>>,
    /// What it has that this one does not: kept by it alone, since there may be secrets in it.
    gone: Vec<Weak<Laid>>,
    new_vms: Vec<NewVm>,
    /// The routing table of each worker, once it has been made.
    tables: Vec<OnceLock<Arc<Table>>>,
}

/// A VM that the plan before did not have.
struct NewVm {
    vm: Placed<VmSpec>,
    /// Whether it may be away until it is needed; the first worker to start it finds out.
    rests: OnceLock<bool>,
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
        let ground = Ground {
            engine,
            shared: Arc::default(),
            modules: Modules::default(),
            decisions: Arc::new(Decisions::kept_in(options.decisions.clone())),
            vm_places: Places::default(),
            upstream_places: Places::default(),
            plans: AtomicU64::default(),
            tables: snapshot.worker_count() + 1,
        };
        Self::lay_out(snapshot, &Arc::new(ground), None)
    }

    /// A plan to follow this one. What it has in common with this one keeps its place, and goes on running.
    pub(crate) fn next(&self, snapshot: Arc<Snapshot>) -> Result<Self, PlanError> {
        Self::lay_out(snapshot, &self.ground, Some(self))
    }

    fn lay_out(snapshot: Arc<Snapshot>, ground: &Arc<Ground>, earlier: Option<&Self>) -> Result<Self, PlanError> {
        let number = ground.plans.fetch_add(1, Ordering::Relaxed);
        let among = Among { ground, snapshot: &snapshot, number, gateway: None };
        let before = earlier.map(|earlier| &earlier.gateway);
        let kept =
            before.filter(|before| matches!(&before.of, Of::Gateway(share) if Arc::ptr_eq(share, &snapshot.gateway)));
        let mut views = kept.and(earlier).map(|earlier| earlier.views.clone()).unwrap_or_default();
        let mut changes = Changes::default();
        let gateway = match kept {
            Some(kept) => kept.clone(),
            None => changes.made(
                Draft::new(&among, (Of::Gateway(snapshot.gateway.clone()), None), before.map(Arc::as_ref), &mut views)
                    .finish()?,
            ),
        };
        let among = Among { gateway: Some(&gateway), ..among };
        let mut tenants = Vec::new();
        for (place, tenant) in snapshot.tenants.placed() {
            let same = kept.and(earlier).and_then(|earlier| earlier.laid(Some(place)));
            let laid = match same.filter(|same| same.of.tenant().is_some_and(|same| Arc::ptr_eq(same, tenant))) {
                Some(same) => same.clone(),
                None => {
                    let before = earlier.and_then(|earlier| earlier.laid_for(&tenant.name)).map(Arc::as_ref);
                    let of = Of::Tenant(tenant.clone());
                    changes.made(Draft::new(&among, (of, Some(place)), before, &mut views).finish()?)
                }
            };
            tenants.resize(place.0, None);
            tenants.push(Some(laid));
        }
        let Changes { new, new_vms } = changes;
        let tables = (0..ground.tables).map(|_| OnceLock::new()).collect();
        let ground = ground.clone();
        let mut plan =
            Self { snapshot, ground, number, gateway, tenants, views, new, gone: Vec::new(), new_vms, tables };
        plan.gone = earlier.map(|earlier| earlier.not_in(&plan)).unwrap_or_default();
        Ok(plan)
    }

    /// Higher than that of every plan made before.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// What this plan has, the gateway's share first.
    pub(crate) fn shares(&self) -> impl Iterator<Item = &Arc<Laid>> {
        std::iter::once(&self.gateway).chain(self.tenants.iter().flatten())
    }

    /// What the plan before this one does not have.
    pub(crate) fn new_shares(&self) -> &[Arc<Laid>] {
        &self.new
    }

    /// What the plan before this one has and this one has not, for as long as somebody has that plan.
    pub(crate) fn gone_shares(&self) -> impl Iterator<Item = Arc<Laid>> {
        self.gone.iter().filter_map(Weak::upgrade)
    }

    fn laid_for(&self, tenant: &str) -> Option<&Arc<Laid>> {
        self.tenants.get(self.snapshot.tenants.place_of(tenant)?.0)?.as_ref()
    }

    fn laid(&self, owner: Option<TenantIndex>) -> Option<&Arc<Laid>> {
        owner.map_or(Some(&self.gateway), |tenant| self.tenants.get(tenant.0)?.as_ref())
    }

    /// What is laid out here and not in the plan that follows. What that one keeps has the same place there.
    fn not_in(&self, next: &Self) -> Vec<Weak<Laid>> {
        let tenants = self.tenants.iter().zip(next.tenants.iter().map(Some).chain(std::iter::repeat(None)));
        let tenants = tenants.filter_map(|(laid, next)| Some((laid.as_ref()?, next.and_then(Option::as_ref))));
        let all = std::iter::once((&self.gateway, Some(&next.gateway))).chain(tenants);
        let gone = all.filter(|(laid, next)| next.is_none_or(|next| !Arc::ptr_eq(laid, next)));
        gone.map(|(laid, _)| Arc::downgrade(laid)).collect()
    }

    pub(crate) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Where decisions about roll-outs are kept.
    pub(crate) fn decisions(&self) -> &Arc<Decisions> {
        &self.ground.decisions
    }

    /// Holds every tenant to its limits as this plan has them.
    pub(crate) fn set_limits(&self) {
        for laid in &self.new {
            if let (Some(tenant), Some(account)) = (laid.of.tenant(), &laid.account) {
                account.limit(&tenant.limits);
            }
        }
    }

    fn account(&self, tenant: Option<TenantIndex>) -> Option<Arc<Account>> {
        self.laid(Some(tenant?))?.account.clone()
    }

    /// A worker's own VMs, as yet without any.
    pub(crate) fn no_vms(&self) -> Vms {
        Vms::new(self.ground.engine.clone(), [].into(), self.ground.shared.clone())
    }

    /// Starts those of one worker's VMs that no earlier plan has, on the thread this is called on. One that may rest until it is
    /// needed is started for one worker only, to see that it can be.
    pub(crate) fn start_vms(&self, now: Time) -> Result<Vec<(VmIndex, Newborn)>, NotStarted> {
        let mut started = Vec::new();
        for NewVm { vm, rests } in &self.new_vms {
            if let Some(newborn) = self.start_vm(vm, rests, now).map_err(|why| self.not_started(vm, why, now))? {
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
        self.new_vms.iter().map(|new| VmIndex(new.vm.number()))
    }

    /// The account of every tenant, by its name.
    pub(crate) fn accounts(&self) -> Vec<(Arc<str>, Arc<Account>)> {
        let tenants = self.tenants.iter().flatten();
        tenants.filter_map(|laid| Some((laid.of.tenant()?.name.clone(), laid.account.clone()?))).collect()
    }

    fn chain(&self, filters: &[FilterIndex]) -> Arc<Chain> {
        Arc::new(self.with_candidates(Chain::new(self.chain_filters(filters)), filters))
    }

    fn chain_filters(&self, filters: &[FilterIndex]) -> Vec<ChainFilter> {
        let filter = |index: &FilterIndex| self.laid(index.owner)?.filters.get(index.at).cloned();
        filters.iter().filter_map(filter).collect()
    }

    fn upstream_id(&self, index: UpstreamIndex) -> Option<UpstreamId> {
        self.laid(index.owner)?.upstream_id(index)
    }
}

/// What a plan has that the one before it does not have.
#[derive(Default)]
struct Changes {
    new: Vec<Arc<Laid>>,
    new_vms: Vec<NewVm>,
}

impl Changes {
    fn made(&mut self, (laid, new_vms): (Laid, Vec<usize>)) -> Arc<Laid> {
        let vms = new_vms.into_iter().filter_map(|index| laid.vms.get(index));
        self.new_vms.extend(vms.map(|vm| NewVm { vm: vm.clone(), rests: OnceLock::new() }));
        let laid = Arc::new(laid);
        self.new.push(laid.clone());
        laid
    }
}
