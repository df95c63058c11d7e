//! What others ask and tell a worker about one of its exchanges, by its number: it may have ended meanwhile.

use std::time::Duration;

use portcullis_core::event::{Direction, Effect};
use portcullis_core::exchange::{Exchange, ExchangeId, Wants};
use portcullis_core::reply::{Details, Failure};
use portcullis_core::trace::Trace;

use super::Worker;
use crate::upstream::Tries;

impl Worker {
    pub(super) fn with<T>(&self, id: ExchangeId, ask: impl FnOnce(&mut Exchange) -> T) -> Option<T> {
        self.state.borrow_mut().exchanges.get_mut(id).map(ask)
    }

    /// The next thing to do in this direction of an exchange.
    pub(crate) fn next_effect(&self, id: ExchangeId, direction: Direction) -> Option<Effect> {
        self.with(id, |exchange| exchange.next_effect(direction)).flatten()
    }

    /// What this direction of an exchange has room for. Filters whose tenant has used up its processor time are shown nothing more
    /// until there is some again.
    pub(crate) fn wants(&self, id: ExchangeId, direction: Direction) -> Wants {
        let state = self.state.borrow();
        let exchanges = &state.exchanges;
        let Some(exchange) = exchanges.get(id) else { return Wants::Closed };
        let wants = exchange.wants(direction, &exchanges.limits);
        if wants == Wants::More && exchange.watches_body(direction) {
            let waiting = self.waiting.borrow();
            let account = waiting.get(id.index()).and_then(|waiting| waiting.account.as_ref());
            if account.is_some_and(|account| account.is_out_of_cpu(exchanges.now)) {
                self.held_up.borrow_mut().push(id);
                return Wants::Wait;
            }
            if account.is_some_and(|account| !self.has_turn(id, account)) {
                return Wants::Wait;
            }
        }
        wants
    }

    /// Whether the body of this direction must be fed through the exchange.
    pub(crate) fn watches_body(&self, id: ExchangeId, direction: Direction) -> bool {
        self.with(id, |exchange| exchange.watches_body(direction)).unwrap_or(false)
    }

    /// Counts body bytes that pass an exchange untouched.
    pub(crate) fn passed(&self, id: ExchangeId, direction: Direction, bytes: u64) {
        let now = self.clock.now();
        self.with(id, |exchange| exchange.passed(direction, bytes, now));
    }

    /// The request's body, which passes an exchange untouched, has ended.
    pub(crate) fn passed_all(&self, id: ExchangeId) {
        let now = self.clock.now();
        self.with(id, |exchange| exchange.passed_all(now));
    }

    /// A connection to the upstream could take more of the request than its client has sent.
    pub(crate) fn waits_for_client(&self, id: ExchangeId) {
        self.with(id, Exchange::waits_for_client);
    }

    /// Notes which endpoint an exchange went to, and how often one was tried.
    pub(crate) fn tried(&self, id: ExchangeId, tries: &Tries) {
        self.with(id, |exchange| {
            exchange.set_tried(tries.address(), tries.made());
            if let Some(reached) = tries.reached() {
                exchange.set_reached(reached);
            }
        });
    }

    /// The exchange's place in a trace.
    pub(crate) fn trace(&self, id: ExchangeId) -> Option<Trace> {
        self.with(id, |exchange| exchange.facts()?.trace).flatten()
    }

    /// Notes what is recorded of an exchange's tries.
    pub(crate) fn attempted(&self, id: ExchangeId, tries: &Tries) {
        if let Some(attempts) = tries.take_attempts(&self.clock)
            && let Some(waiting) = self.waiting.borrow_mut().get_mut(id.index())
        {
            waiting.attempts = attempts;
        }
    }

    /// Whether the whole request has been sent.
    pub(crate) fn request_is_sent(&self, id: ExchangeId) -> bool {
        self.with(id, |exchange| exchange.request_is_sent()).unwrap_or(false)
    }

    /// The exchange's bytes pass in a tunnel from now on, which ends when it is silent for too long.
    pub(crate) fn open_tunnel(&self, id: ExchangeId, idle: Duration) {
        self.with(id, |exchange| exchange.open_tunnel(idle));
    }

    /// Whether the gateway's own reply for this failure takes the response's place.
    pub(crate) fn failed_with(&self, id: ExchangeId, failure: Failure) -> bool {
        self.with(id, |exchange| exchange.details() == Some(&Details::Gateway(failure))).unwrap_or(false)
    }

    /// Notes whose fault the coming failure is.
    pub(crate) fn blame(&self, id: ExchangeId, failure: Failure) {
        self.with(id, |exchange| exchange.blame(failure));
    }

    /// Whose fault it is, if someone has said so.
    pub(crate) fn blamed(&self, id: ExchangeId) -> Option<Failure> {
        self.with(id, |exchange| exchange.blamed()).flatten()
    }

    /// Why the gateway itself answers, if it does.
    pub(crate) fn failure(&self, id: ExchangeId) -> Option<Failure> {
        self.with(id, |exchange| match exchange.details() {
            Some(Details::Gateway(failure)) => Some(*failure),
            Some(Details::Filter(_)) | None => None,
        })
        .flatten()
    }

    /// Whether every filter has let a TCP connection in.
    pub(crate) fn is_let_in(&self, id: ExchangeId) -> bool {
        self.with(id, |exchange| exchange.is_let_in()).unwrap_or(false)
    }

    /// Whether the response is the gateway's or a filter's own.
    pub(crate) fn is_local_reply(&self, id: ExchangeId) -> bool {
        self.with(id, |exchange| exchange.details().is_some()).unwrap_or(true)
    }

    /// Whether something is ready for the client, or the exchange is no more.
    pub(crate) fn has_reply(&self, id: ExchangeId) -> bool {
        self.with(id, |exchange| exchange.has_effects(Direction::Response)).unwrap_or(true)
    }
}
