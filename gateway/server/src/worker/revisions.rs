//! Revisions that a worker takes in, puts into use and parts with, and the guests that go with them.

use std::rc::Rc;

use portcullis_core::chain;
use portcullis_vm::Retired;
use tokio::task::{spawn_local, yield_now};

use super::{State, Worker};
use crate::revision::{Prepared, Remains, Revision};

impl Worker {
    /// Takes a revision in that was made ready for this worker. Requests do not see it before [`Self::switch`].
    pub(crate) fn take_in(self: &Rc<Self>, prepared: Prepared) -> Rc<Revision> {
        self.act(|State { exchanges, vms }| {
            let revision = Revision::take_places(prepared, exchanges, vms, &self.upstreams);
            self.telemetry.add_filter_cells(revision.new_cells(vms));
            revision
        })
    }

    /// Lets new exchanges begin with this revision. Those under way keep theirs.
    pub(crate) fn switch(&self, revision: Rc<Revision>) {
        let before = self.revision.replace(revision.clone());
        self.earlier.borrow_mut().followed(before, &revision);
    }

    /// Lets go of a revision that was taken in.
    pub(crate) fn discard(&self, revision: Rc<Revision>) {
        self.earlier.borrow_mut().forgotten(revision);
    }

    /// The revision that new exchanges begin with.
    pub(crate) fn revision(&self) -> Rc<Revision> {
        self.revision.borrow().clone()
    }

    /// Frees what only revisions without exchanges had.
    pub(super) fn free_revisions(self: &Rc<Self>, state: &mut State) {
        let mut earlier = self.earlier.borrow_mut();
        // Shadows of exchanges that have ended still need their revision's VMs.
        while !earlier.is_empty() && chain::play_shadow(&mut state.exchanges, &mut state.vms) {}
        if let Some(remains) = earlier.give_up(&mut state.exchanges, &mut state.vms, &self.upstreams) {
            self.leaving.borrow_mut().push(remains);
            if state.vms.has_untold() {
                spawn_local(self.clone().say_farewell());
            }
        }
        drop(earlier);
        if !self.leaving.borrow().is_empty() {
            let over = state.vms.end_awaited(&mut state.exchanges);
            self.part_with(state, over);
        }
    }

    /// Lets VMs go that have been idle for long enough.
    pub(super) fn rest_vms(&self, state: &mut State) {
        let rested = state.vms.rest(&mut state.exchanges);
        if !rested.is_empty() {
            // Where nobody takes them, the process is about to end.
            let _ending = self.remains.send(Remains::of(rested));
        }
    }

    /// Tells guests that nobody uses any more of their end, one after the other.
    async fn say_farewell(self: Rc<Self>) {
        while self.say_next_farewell() {
            yield_now().await;
        }
    }

    /// Tells one; whether there was one to tell.
    fn say_next_farewell(self: &Rc<Self>) -> bool {
        self.act(|state| {
            if !state.vms.has_untold() {
                return false;
            }
            let over = state.vms.end_next(&mut state.exchanges);
            self.part_with(state, over);
            true
        })
    }

    /// Hands VMs on that are over, and, with the last of them, what kept their places.
    fn part_with(&self, state: &State, over: impl IntoIterator<Item = Retired>) {
        let mut leaving = self.leaving.borrow_mut();
        if let Some(remains) = leaving.last_mut() {
            remains.add(over);
        }
        if !state.vms.has_leaving() {
            // Where nobody takes it, the process is about to end.
            leaving.drain(..).for_each(|remains| _ = self.remains.send(remains));
        }
    }

    /// Begins nothing new on behalf of guests. Returns how many exchanges are still open, which the runtime's end cuts off.
    pub(crate) fn prepare_end(&self) -> usize {
        self.ending.set(true);
        self.state.borrow().exchanges.len()
    }

    /// Ends all guests, once the runtime and with it every exchange has ended.
    pub(crate) fn end_guests(self: Rc<Self>) {
        let Some(Self { state, revision, earlier, leaving, remains, upstreams, .. }) = Rc::into_inner(self) else {
            return;
        };
        let State { mut exchanges, mut vms } = state.into_inner();
        let mut earlier = earlier.into_inner();
        earlier.ended(revision.into_inner());
        let given_up = earlier.give_up(&mut exchanges, &mut vms, &upstreams);
        let mut left: Vec<Remains> = leaving.into_inner().into_iter().chain(given_up).collect();
        if let Some(last) = left.last_mut() {
            last.add(vms.end_all());
        }
        left.into_iter().for_each(|left| _ = remains.send(left));
    }
}
