//! Turns of guests whose tenants are set apart, for what was under way on a worker before and cannot be served elsewhere: bodies,
//! responses, answers to callouts, items of queues.
//!
//! Whatever takes a turn makes the next one wait for [`SHARE`] times as long, so that all of them together get that part of the worker's
//! time. Bodies stand in line.

use portcullis_core::exchange::ExchangeId;
use portcullis_core::filter::VmIndex;
use portcullis_core::tenant::Account;
use portcullis_core::time::Time;

use super::{State, Worker};

/// Such turns have one part in so many of a worker's time.
const SHARE: u32 = 20;

impl Worker {
    /// Whether what is under way of this account takes turns.
    fn takes_turns(&self, account: &Account, now: Time) -> bool {
        self.bulkhead.is_some() && account.apart.is_now(now)
    }

    /// Until when something of this account has to wait, if it does.
    fn until_turn(&self, account: &Account) -> Option<Time> {
        let now = self.clock.now();
        let next = self.next_turn.get();
        (now < next && self.takes_turns(account, now)).then_some(next)
    }

    /// Whether an exchange may be shown the next part of a body. One that may not stands in line from now on.
    pub(super) fn has_turn(&self, id: ExchangeId, account: &Account) -> bool {
        let now = self.clock.now();
        if !self.takes_turns(account, now) {
            return true;
        }
        let mut line = self.waiting_for_turn.borrow_mut();
        let is_its = self.turn.get().map_or(line.is_empty(), |turn| turn == id);
        if is_its && now >= self.next_turn.get() {
            return true;
        }
        if !line.contains(&id) {
            line.push_back(id);
        }
        false
    }

    /// Gives the turn to the next in line. Whoever had it and did not take it stands in line again if it still wants to.
    pub(super) fn give_turn(&self, state: &State) {
        if self.clock.now() < self.next_turn.get() {
            return;
        }
        let mut line = self.waiting_for_turn.borrow_mut();
        let next = std::iter::from_fn(|| line.pop_front()).find(|id| state.exchanges.get(*id).is_some());
        drop(line);
        self.turn.set(next);
        if let Some(id) = next {
            self.wake_both(id);
        }
    }

    /// Notes that an exchange was fed, with something that came in at `began`.
    pub(super) fn had_turn(&self, id: ExchangeId, began: Time) {
        let waiting = self.waiting.borrow();
        let account = waiting.get(id.index()).and_then(|waiting| waiting.account.as_ref());
        if let Some(account) = account {
            self.took_turn(account, began);
        }
    }

    /// The same of a VM that was told something.
    pub(super) fn vm_had_turn(&self, state: &State, vm: VmIndex) {
        if let Some(account) = state.vms.account(vm) {
            self.took_turn(account, state.exchanges.now);
        }
    }

    fn took_turn(&self, account: &Account, began: Time) {
        if self.takes_turns(account, began) {
            let now = self.clock.now();
            // On a busy machine it may have been at it for much longer than it ran.
            let took = account.apart.event_took(began).unwrap_or_else(|| now.saturating_since(began));
            self.next_turn.set(self.next_turn.get().max(now + took * SHARE));
            self.turn.set(None);
        }
    }

    /// Until when a VM has to wait before it is told anything, if it does.
    pub(super) fn waits_for_turn(&self, vm: VmIndex) -> Option<Time> {
        self.until_turn(self.state.borrow().vms.account(vm)?)
    }

    /// Waits until a VM may be told something.
    pub(crate) async fn turn_of_vm(&self, vm: VmIndex) {
        while let Some(until) = self.waits_for_turn(vm) {
            self.sleep_until(until).await;
        }
    }

    /// Waits until an exchange's filters may be shown something.
    pub(crate) async fn turn_of(&self, id: ExchangeId) {
        let until = || {
            let waiting = self.waiting.borrow();
            self.until_turn(waiting.get(id.index())?.account.as_ref()?)
        };
        while let Some(until) = until() {
            self.sleep_until(until).await;
        }
    }

    async fn sleep_until(&self, until: Time) {
        tokio::time::sleep(until.saturating_since(self.clock.now())).await;
    }
}
