//! Shadows: a candidate is shown what the current version is shown, and what it makes of that is compared, never applied.
//!
//! A shadow is an exchange of its own with one filter. What the current version is shown is queued for it, and played by
//! [`play_shadow`] when the worker has time: so an exchange never waits for its shadow, fails with it, or is changed by it. What
//! the shadow lets go is compared at the end with what left the current version.
//! **Invariant:** a shadow holds no more of an exchange's bodies than a filter may hold back; else it is given up, and counted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Walk;
use crate::event::{Direction, Effect, End, Event, Part};
use crate::exchange::{ExchangeId, Exchanges, Slot};
use crate::filter::{Candidate, FilterIndex, Filters};
use crate::flow::Flow;
use crate::rollout::{Comparison, Rollout, Seen};

/// So many events may wait to be played. While there are as many, exchanges get no shadow.
const MOST_WAITING: usize = 4096;

/// What a shadow is to be told.
#[derive(Debug)]
pub struct Shadowed {
    id: ExchangeId,
    news: News,
}

#[derive(Debug)]
enum News {
    Part(Direction, Part),
    /// The exchange is over, and this left the current version.
    End(Seen, Arc<Rollout>),
}

/// What is particular to an exchange that is a shadow.
#[derive(Debug, Default)]
pub(crate) struct Side {
    seen: Seen,
    bytes: usize,
    /// What it counts as, where it is not compared: it wanted to call somebody, the bodies were too large, or there was no room.
    pub(crate) given_up: Option<Comparison>,
}

/// Plays the next event for a shadow; whether there was one.
pub fn play_shadow(exchanges: &mut Exchanges, filters: &mut impl Filters) -> bool {
    let Some(Shadowed { id, news }) = exchanges.shadowed.pop_front() else { return false };
    match news {
        News::Part(direction, part) => {
            let Some(exchange) = exchanges.get_mut(id) else { return true };
            if exchange.slots.contains(&Slot::Orphaned) {
                // Its VM has gone for another's sake: that says nothing about this exchange.
                exchange.give_up();
            }
            if exchange.shadow.as_ref().is_some_and(|side| side.given_up.is_none()) {
                super::feed(exchanges, filters, id, Event::part(direction, part));
                take_effects(exchanges, id);
            }
        }
        News::End(current, rollout) => end(exchanges, filters, (id, current), &rollout),
    }
    true
}

/// Notes what left the shadow.
fn take_effects(exchanges: &mut Exchanges, id: ExchangeId) {
    let Some(exchange) = exchanges.get_mut(id) else { return };
    for direction in [Direction::Request, Direction::Response] {
        while let Some(effect) = exchange.next_effect(direction) {
            if let (Effect::Send(part), Some(side)) = (effect, &mut exchange.shadow) {
                side.seen.part(direction, &part);
            }
        }
    }
}

fn end(
    exchanges: &mut Exchanges,
    filters: &mut impl Filters,
    (id, current): (ExchangeId, Seen),
    rollout: &Arc<Rollout>,
) {
    take_effects(exchanges, id);
    let now = exchanges.now;
    let Some(exchange) = exchanges.get_mut(id) else { return };
    let is_whole = !exchange.slots.contains(&Slot::Orphaned);
    let comparison = match exchange.shadow.as_deref() {
        Some(Side { given_up: Some(Comparison::NoRoom), .. }) => Comparison::NoRoom,
        _ if exchange.slots.contains(&Slot::Failed) => Comparison::Failed,
        Some(side) if is_whole && side.given_up.is_none() => Comparison::of(&current, &side.seen),
        _ => Comparison::Incomplete,
    };
    let shares = exchange.timings().map_or(&[][..], |timings| timings.shares());
    let took: Duration = shares.iter().map(|share| share.busy).sum();
    super::end(exchanges, filters, id, None, |_| {});
    if rollout.compared(comparison, took, now) {
        exchanges.decided.push(rollout.clone());
    }
}

impl<F: Filters> Walk<'_, F> {
    /// Opens a shadow, if the exchange is to have one, and shows it the request's head.
    pub(super) fn open_shadow(&mut self, candidate: &Candidate) -> Option<ExchangeId> {
        let exchange = self.exchanges.get(self.id)?;
        let chain = candidate.shadow.clone()?;
        let chosen = candidate.rollout.shadows(exchange.facts(), exchange.request.head());
        if !chosen || self.exchanges.shadowed.len() >= MOST_WAITING {
            return None;
        }
        let (facts, properties) = (exchange.facts()?.clone(), exchange.properties.clone());
        let (head, end) = (exchange.request.headers.clone()?, End::from_bool(exchange.request.headers_end));
        let id = self.exchanges.open(chain, facts);
        let shadow = self.exchanges.get_mut(id)?;
        shadow.properties = properties;
        shadow.shadow = Some(Box::default());
        shadow.time_filters();
        self.exchanges.shadowed.push_back(Shadowed { id, news: News::Part(Direction::Request, Part::Head(head, end)) });
        Some(id)
    }

    /// The shadow that is shown what the filter is shown of this direction, if there is one.
    fn shadow_of(&self, direction: Direction, index: FilterIndex) -> Option<ExchangeId> {
        let exchange = self.exchanges.get(self.id)?;
        let trial = exchange.trials.iter().find(|trial| trial.filter == index)?;
        // Its own reply comes back to a filter as a response. The shadow has its own.
        trial.shadow.filter(|_| direction == Direction::Request || !trial.replied)
    }

    /// A filter is about to be shown a head. That of the request has been shown to the shadow when it was opened.
    pub(super) fn shadow_head(&mut self, direction: Direction, index: FilterIndex) {
        if direction == Direction::Response
            && let Some(id) = self.shadow_of(direction, index)
            && let Some(exchange) = self.exchange()
            && let Some(head) = exchange.response.headers.clone()
        {
            let end = End::from_bool(exchange.response.headers_end);
            self.show(id, direction, Part::Head(head, end));
        }
    }

    /// A filter is about to be shown some of a body.
    pub(super) fn shadow_body(&mut self, direction: Direction, index: FilterIndex, data: &Bytes, end: End) {
        if let Some(id) = self.shadow_of(direction, index) {
            self.show(id, direction, Part::Body(data.clone(), end));
        }
    }

    /// A filter is about to be shown trailers.
    pub(super) fn shadow_trailers(&mut self, direction: Direction, index: FilterIndex) {
        if let Some(id) = self.shadow_of(direction, index)
            && let Some(trailers) = self.exchange().and_then(|exchange| exchange.flow(direction).trailers.as_ref())
        {
            let fields = trailers.fields().clone();
            self.show(id, direction, Part::Trailers(fields));
        }
    }

    fn show(&mut self, id: ExchangeId, direction: Direction, part: Part) {
        let limit = self.exchanges.limits.held_bytes;
        let Some(side) = self.exchanges.get_mut(id).and_then(|shadow| shadow.shadow.as_mut()) else { return };
        if let Part::Body(data, _) = &part {
            side.bytes = side.bytes.saturating_add(data.len());
            if side.bytes > limit {
                side.given_up.get_or_insert(Comparison::Incomplete);
            }
        }
        if side.given_up.is_none() {
            self.exchanges.shadowed.push_back(Shadowed { id, news: News::Part(direction, part) });
        }
    }

    /// The head has left a filter.
    pub(super) fn head_left(&mut self, direction: Direction, index: FilterIndex) {
        self.has_left(direction, index, |seen, flow| {
            if let Some(head) = &flow.headers {
                seen.head(direction, head);
            }
        });
    }

    /// Some of a body, or the trailers, have left a filter.
    pub(super) fn part_left(&mut self, direction: Direction, index: FilterIndex, part: &Part) {
        self.has_left(direction, index, |seen, flow| match (part, &flow.trailers) {
            (Part::Trailers(_), Some(trailers)) => seen.trailers(direction, trailers.fields()),
            (Part::Body(data, _), _) => seen.body(direction, data),
            _ => {}
        });
    }

    /// Takes note of what has left a filter, if the filter has a shadow.
    fn has_left(&mut self, direction: Direction, index: FilterIndex, note: impl FnOnce(&mut Seen, &Flow)) {
        let Some(exchange) = self.exchange().filter(|exchange| !exchange.trials.is_empty()) else { return };
        let trial = exchange.trial(index).filter(|trial| trial.shadow.is_some());
        let Some(mut seen) = trial.map(|trial| trial.seen) else { return };
        note(&mut seen, exchange.flow(direction));
        if let Some(trial) = exchange.trial(index) {
            trial.seen = seen;
        }
    }

    /// The exchange is over: so is its shadow, once it has been shown all of it.
    pub(super) fn end_shadow(&mut self, id: ExchangeId, seen: Seen, index: FilterIndex) {
        let Some(exchange) = self.exchanges.get(self.id) else { return };
        let Some(rollout) = exchange.chain.candidate(index).map(|candidate| candidate.rollout.clone()) else { return };
        self.exchanges.shadowed.push_back(Shadowed { id, news: News::End(seen, rollout) });
    }
}
