//! VMs that no revision uses any more: their guests are told of their end, and may ask for time.

use std::collections::VecDeque;

use portcullis_core::context::Farewell;
use portcullis_core::exchange::Exchanges;
use portcullis_core::filter::VmIndex;
use portcullis_core::time::Time;

use super::slot::{Retired, State};
use super::{Entry, Vms, orphan_exchanges};
use crate::instance::Instance;

/// VMs that no revision uses any more.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// Those whose guests do not know it yet.
    untold: VecDeque<VmIndex>,
    /// Those that asked for time, and how long they get.
    awaited: Vec<(VmIndex, Time)>,
}

impl Vms {
    /// Notes one user less of the place `vm`. With the last, the VM that was there is returned and the place is free; or, if its
    /// guest wants to know of its end, it is for [`Self::end_next`] to tell it. Nobody may take the place while that goes on.
    pub fn release(&mut self, exchanges: &mut Exchanges, vm: VmIndex) -> Option<Retired> {
        let slot = self.slot(vm)?;
        slot.holders = slot.holders.saturating_sub(1);
        if slot.holders > 0 {
            return None;
        }
        self.end_copies(exchanges, vm);
        let slot = self.slot(vm)?;
        if let State::Live(instance) = &slot.state {
            // Revisions are kept until their last exchange has ended; this is for exchanges that were cut off.
            orphan_exchanges(exchanges, instance);
            if instance.hears_of_end() {
                self.leaving.untold.push_back(vm);
                return None;
            }
        }
        self.take(exchanges, vm)
    }

    /// Whether some VM that nobody uses is still here.
    #[must_use]
    pub fn has_leaving(&self) -> bool {
        !self.leaving.untold.is_empty() || !self.leaving.awaited.is_empty()
    }

    /// Tells one guest that its end has come. One that asks for time keeps its place, its timers and its callouts for as long as
    /// [`portcullis_core::limits::Limits::farewell`]; the end of the others is returned.
    pub fn end_next(&mut self, exchanges: &mut Exchanges) -> Option<Retired> {
        let vm = self.leaving.untold.pop_front()?;
        let _failed = self.enter(exchanges, Entry::beside(vm), Instance::announce_end);
        if self.is_over(vm) {
            return self.take(exchanges, vm);
        }
        self.leaving.awaited.push((vm, exchanges.now + exchanges.limits.farewell));
        None
    }

    /// Whether there are guests that have not been told of their end.
    #[must_use]
    pub fn has_untold(&self) -> bool {
        !self.leaving.untold.is_empty()
    }

    /// The VMs that had asked for time and are done, or have had enough of it.
    pub fn end_awaited(&mut self, exchanges: &mut Exchanges) -> Vec<Retired> {
        let mut over = Vec::new();
        for (vm, until) in std::mem::take(&mut self.leaving.awaited) {
            let _failed = self.enter(exchanges, Entry::beside(vm), |instance, exchanges| {
                instance.delete_roots(exchanges, Farewell::Done)?;
                if until <= exchanges.now { instance.delete_roots(exchanges, Farewell::Awaited) } else { Ok(()) }
            });
            if self.is_over(vm) {
                over.extend(self.take(exchanges, vm));
            } else {
                self.leaving.awaited.push((vm, until));
            }
        }
        over
    }

    /// All VMs that nobody uses, whether they are done or not.
    pub fn end_all(&mut self) -> Vec<Retired> {
        let Leaving { untold, awaited } = std::mem::take(&mut self.leaving);
        let all = untold.into_iter().chain(awaited.into_iter().map(|(vm, _)| vm));
        all.filter_map(|vm| Some(self.slots.get_mut(vm.0 as usize)?.take()?.retire())).collect()
    }

    fn is_over(&mut self, vm: VmIndex) -> bool {
        self.slot(vm).is_none_or(|slot| match &slot.state {
            State::Live(instance) => instance.is_over(),
            State::Down { .. } => true,
        })
    }

    fn take(&mut self, exchanges: &mut Exchanges, vm: VmIndex) -> Option<Retired> {
        self.call_off(exchanges, vm);
        Some(self.slots.get_mut(vm.0 as usize)?.take()?.retire())
    }
}
