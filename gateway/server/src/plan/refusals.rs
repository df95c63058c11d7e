//! What plugins say to their settings when nothing is to run: every VM started once, and let go.

use std::sync::Arc;

use portcullis_core::filter::VmIndex;
use portcullis_core::time::Time;
use portcullis_vm::{Newborn, RootSpec, StartError, VmSpec};

use super::{NewVm, Plan};

/// A VM that does not start.
pub(crate) struct Refusal {
    /// Why.
    pub(crate) why: StartError,
    /// The one of its filters that it does not start with; `None` where it starts with none, or only with none of the others.
    pub(crate) root: Option<RootSpec>,
}

impl Plan {
    /// Tries those of its VMs that no earlier plan has, as a worker starts them, and lets them go.
    pub(crate) fn refusals(&self, now: Time) -> Vec<Refusal> {
        self.new_vms.iter().flat_map(|new| self.refusals_of(new, now)).collect()
    }

    /// Filters that share a VM are tried together; where that fails each is tried alone, so that all that refuse are known.
    fn refusals_of(&self, new: &NewVm, now: Time) -> Vec<Refusal> {
        let whole = &new.vm.what;
        let start = |spec: &Arc<VmSpec>| {
            Newborn::start(&self.ground.engine, &self.ground.shared, VmIndex(new.vm.number()), spec.clone(), now).err()
        };
        let Some(why) = start(whole) else { return Vec::new() };
        let alone = |root: &RootSpec| {
            let spec = Arc::new(VmSpec { roots: vec![root.clone()], ..VmSpec::clone(whole) });
            start(&spec).map(|why| Refusal { why, root: Some(root.clone()) })
        };
        let refusing: Vec<Refusal> = whole.roots.iter().filter_map(alone).collect();
        if refusing.is_empty() { vec![Refusal { why, root: None }] } else { refusing }
    }
}
