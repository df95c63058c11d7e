//! What plugins say to their settings: every VM that does not start, and with which of them.

use std::fmt;
use std::sync::Arc;

use portcullis_core::filter::VmIndex;
use portcullis_core::time::Time;
use portcullis_vm::{Newborn, RootSpec, StartError, VmSpec};

use super::places::Placed;
use super::{NewVm, Plan};

/// A VM that does not start.
pub(crate) struct Refusal {
    /// Why.
    pub(crate) why: StartError,
    /// The one of its filters that it does not start with; `None` where it starts with none, or only with none of the others.
    pub(crate) root: Option<RootSpec>,
}

/// VMs that do not start: all of one tenant's, or everybody's.
#[derive(thiserror::Error)]
#[error("{first}")]
pub struct NotStarted {
    tenant: Option<Arc<str>>,
    first: String,
    refusals: Vec<Refusal>,
}

impl NotStarted {
    /// The tenant whose they are, if they are one's.
    pub(crate) fn tenant(&self) -> Option<&Arc<str>> {
        self.tenant.as_ref()
    }

    /// Each of them.
    pub(crate) fn refusals(&self) -> &[Refusal] {
        &self.refusals
    }
}

/// Without settings, which may be secret.
impl fmt::Debug for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotStarted").field("first", &self.first).finish_non_exhaustive()
    }
}

impl Plan {
    /// Tries those of its VMs that no earlier plan has, as a worker starts them, and lets them go.
    pub(crate) fn refusals(&self, now: Time) -> Vec<Refusal> {
        self.new_vms.iter().flat_map(|new| self.refusals_of(new, None, now)).collect()
    }

    /// What is to be told when this VM has not started: with it, all that its tenant would hear next. What is the gateway's own keeps
    /// everything from being used, so everybody's are tried then.
    pub(super) fn not_started(&self, vm: &Placed<VmSpec>, why: StartError, now: Time) -> NotStarted {
        let (tenant, first, mut why) = (why.tenant.clone(), why.to_string(), Some(why));
        let is_told = |new: &&NewVm| tenant.is_none() || new.vm.what.tenant == tenant;
        let told = self.new_vms.iter().filter(is_told).flat_map(|new| {
            let known = if new.vm.number() == vm.number() { why.take() } else { None };
            self.refusals_of(new, known, now)
        });
        let refusals = told.collect();
        NotStarted { tenant, first, refusals }
    }

    /// Filters that share a VM are tried together, unless it is known that this fails; then each is tried alone, so that all that refuse
    /// are known.
    fn refusals_of(&self, new: &NewVm, known: Option<StartError>, now: Time) -> Vec<Refusal> {
        let whole = &new.vm.what;
        let start = |spec: &Arc<VmSpec>| {
            Newborn::start(&self.ground.engine, &self.ground.shared, VmIndex(new.vm.number()), spec.clone(), now).err()
        };
        let Some(why) = known.or_else(|| start(whole)) else { return Vec::new() };
        if let [root] = whole.roots.as_slice() {
            return vec![Refusal { why, root: Some(root.clone()) }];
        }
        let alone = |root: &RootSpec| {
            let spec = Arc::new(VmSpec { roots: vec![root.clone()], ..VmSpec::clone(whole) });
            start(&spec).map(|why| Refusal { why, root: Some(root.clone()) })
        };
        let refusing: Vec<Refusal> = whole.roots.iter().filter_map(alone).collect();
        if refusing.is_empty() { vec![Refusal { why, root: None }] } else { refusing }
    }
}
