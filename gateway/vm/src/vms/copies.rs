//! Copies of a VM, one for each exchange, where exchanges do not share it.
//!
//! A copy fails alone: its exchange gets the filter's failure policy, the failure is counted, and the VM and the other copies go on
//! without a pause. It ends with its exchange, whatever its guest still waits for.

use portcullis_core::context::{CalloutResponse, ContextRef};
use portcullis_core::exchange::Exchanges;
use portcullis_core::filter::{NotOpened, VmIndex};
use portcullis_core::tenant::Work;

use super::slot::{State, next_life};
use super::{Entry, Vms, abandon_calls, orphan_exchanges};
use crate::budget::Took;
use crate::engine::thread_time;
use crate::guest::note_time;
use crate::image::{Image, NotCopied};
use crate::instance::{Died, Instance, Role};

impl Vms {
    /// Makes a copy of a live VM; which life it is. The time that takes is its tenant's.
    pub(super) fn copy(&mut self, exchanges: &mut Exchanges, vm: VmIndex) -> Result<u32, NotOpened> {
        let begun = thread_time();
        let copied = match self.try_copy(exchanges, vm) {
            Err(NotCopied::PoolFull) if self.make_room(exchanges, vm) => self.try_copy(exchanges, vm),
            copied => copied,
        };
        let took = thread_time().saturating_sub(begun);
        let slot = self.slot(vm).ok_or(NotOpened::Failed)?;
        let took = Took { counted: took, alone: took, work: Work::Callback { stands_for: 1 } };
        note_time(slot.spec.account.as_deref(), &slot.cells, took, exchanges.now);
        match copied {
            Ok(life) => {
                slot.cells.copies.add(1);
                Ok(life)
            }
            Err(NotCopied::PoolFull | NotCopied::NoRoom) => Err(NotOpened::NoRoom),
            Err(NotCopied::Broken(failure)) => {
                tracing::error!(plugin = &*slot.spec.name, "a plugin could not be copied: {failure}");
                Err(NotOpened::Failed)
            }
        }
    }

    fn try_copy(&mut self, exchanges: &Exchanges, vm: VmIndex) -> Result<u32, NotCopied> {
        let engine = self.engine.clone();
        let Some(slot) = self.slot(vm) else { return Err(NotCopied::NoRoom) };
        let (life, now) = (next_life(), exchanges.now);
        let image = match slot.image.take() {
            Some(image) => image,
            None => {
                let birth = slot.birth(vm, life, Role::Copy);
                let spec = slot.spec.clone();
                let State::Live(original) = &mut slot.state else { return Err(NotCopied::NoRoom) };
                Box::new(Image::of(original, &engine, &spec, birth, now)?)
            }
        };
        let copied = image.copy(&engine, &slot.spec, slot.birth(vm, life, Role::Copy), now);
        slot.image = Some(image);
        slot.copies.insert(life, Box::new(copied?));
        Ok(life)
    }

    /// Ends a copy with its exchange. Nothing that its guest waits for is told to it any more.
    pub(super) fn end_copy(&mut self, exchanges: &mut Exchanges, (vm, life): (VmIndex, u32)) -> Option<Box<Instance>> {
        self.set_timer((vm, life), None);
        let copy = self.slot(vm)?.copies.remove(&life)?;
        abandon_calls(exchanges, &copy, life);
        Some(copy)
    }

    /// Ends all copies of a VM, for exchanges that are cut off.
    pub(super) fn end_copies(&mut self, exchanges: &mut Exchanges, vm: VmIndex) {
        let lives: Vec<u32> = self.slot(vm).iter().flat_map(|slot| slot.copies.keys().copied()).collect();
        for life in lives {
            if let Some(copy) = self.end_copy(exchanges, (vm, life)) {
                orphan_exchanges(exchanges, &copy);
            }
        }
    }

    /// Ends a copy that has failed, and nothing else.
    pub(super) fn discard_copy(&mut self, exchanges: &mut Exchanges, place: (VmIndex, u32), died: &Died) {
        let Some(copy) = self.end_copy(exchanges, place) else { return };
        orphan_exchanges(exchanges, &copy);
        let Some(slot) = self.slot(place.0) else { return };
        slot.cells.trapped(died.fault.cause);
        slot.cells.copy_failed(&died.in_words());
        slot.tell_of_copy(died, copy.last_words().as_deref(), exchanges);
    }

    /// Tells copies what came of a callout that the VM had under way when they were made: their guests wait for it too.
    pub(super) fn deliver_to_copies(
        &mut self,
        exchanges: &mut Exchanges,
        root: ContextRef,
        token: u32,
        response: &CalloutResponse,
    ) {
        let Some(slot) = self.slot(root.vm).filter(|slot| slot.life == root.life) else { return };
        let waiting = slot.copies.iter().filter(|(_, copy)| copy.contexts().has_inherited(token));
        let waiting: Vec<u32> = waiting.map(|(life, _)| *life).collect();
        for life in waiting {
            let _failed = self.enter(exchanges, Entry::beside(root.vm).in_life(life), |copy, exchanges| {
                copy.deliver(exchanges, root.id, token, response.clone())
            });
        }
    }
}
