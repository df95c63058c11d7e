//! Filters that have a candidate: which version an exchange gets, how long that takes, and how it ends.

use std::time::Duration;

use super::Walk;
use crate::exchange::{Exchange, Slot};
use crate::filter::{Callback, FilterIndex, Filters};
use crate::rollout::{Comparison, Rollout, Seen, Trial, Version};
use crate::time::Time;
use crate::timing::{Outcome, Phase};

impl<F: Filters> Walk<'_, F> {
    /// Gives the exchange a version of a filter that it comes to for the first time. One that it never comes to is not tried.
    pub(super) fn assign(&mut self, index: FilterIndex, callback: Callback) {
        let Some(exchange) = self.exchange() else { return };
        let Some(candidate) = exchange.chain.candidate(index).filter(|_| Phase::of(callback) == Phase::Request) else {
            return;
        };
        let version = candidate.rollout.assign(exchange.facts(), exchange.request.head());
        let chain = candidate.shadow.is_some().then(|| exchange.chain.clone());
        let shadow = chain.and_then(|chain| self.open_shadow(chain.candidate(index)?));
        let (took, seen) = (Duration::ZERO, Seen::default());
        let trial = Trial { filter: index, version, took, paused: None, replied: false, shadow, seen };
        if let Some(exchange) = self.exchange() {
            exchange.trials.push(trial);
        }
    }

    /// Whether calls of this filter are to be timed.
    pub(super) fn is_timed(&self, index: FilterIndex) -> bool {
        self.exchanges.get(self.id).is_some_and(|exchange| {
            exchange.timings.is_some() || exchange.trials.iter().any(|trial| trial.filter == index)
        })
    }

    /// A call of this filter has returned. What it then waits for counts as well, unless that is the rest of the message.
    pub(super) fn note_trial(&mut self, index: FilterIndex, outcome: Outcome, (begun, ended): (Time, Time)) {
        if let Some(trial) = self.exchange().and_then(|exchange| exchange.trial(index)) {
            trial.took += ended.saturating_since(begun);
            trial.paused = (outcome == Outcome::Pause).then_some(ended);
        }
    }

    /// A filter has answered the request itself.
    pub(super) fn note_replied(&mut self, index: FilterIndex) {
        if let Some(trial) = self.exchange().and_then(|exchange| exchange.trial(index)) {
            trial.replied = true;
        }
    }

    /// A filter goes on of its own accord: what it has waited for is over.
    pub(super) fn note_resumed(&mut self, index: FilterIndex) {
        let Some(exchange) = self.exchange().filter(|exchange| !exchange.trials.is_empty()) else { return };
        let Some(since) = exchange.trial(index).and_then(|trial| trial.paused.take()) else { return };
        let Some(now) = self.filters.now() else { return };
        if let Some(trial) = self.exchange().and_then(|exchange| exchange.trial(index)) {
            trial.took += now.saturating_since(since);
        }
    }

    /// A filter has failed.
    pub(super) fn note_failed(&mut self, index: FilterIndex) {
        let now = self.exchanges.now;
        let Some(exchange) = self.exchange() else { return };
        if exchange.slots.get(index) != Some(&Slot::Failed) && exchange.version(index) == Version::Candidate {
            self.count(index, |rollout| rollout.failed(now));
        }
    }

    /// There is no room for a filter. That says nothing about the version which the exchange was to have.
    pub(super) fn note_no_room(&mut self, index: FilterIndex) {
        let Some(exchange) = self.exchange() else { return };
        if let Some(side) = &mut exchange.shadow {
            side.given_up = Some(Comparison::NoRoom);
        }
        match exchange.trial(index).map(|trial| (trial.version, trial.shadow)) {
            Some((Version::Current, Some(shadow))) => {
                self.exchanges.get_mut(shadow).into_iter().for_each(Exchange::give_up);
            }
            Some((Version::Candidate, _)) => {
                self.count(index, |rollout| {
                    rollout.found_no_room();
                    false
                });
                if let Some(exchange) = self.exchange() {
                    exchange.trials.retain(|trial| trial.filter != index);
                }
            }
            Some((Version::Current | Version::Shadow, _)) | None => {}
        }
    }

    /// The exchange is over.
    pub(super) fn end_trials(&mut self) {
        let now = self.exchanges.now;
        let Some(exchange) = self.exchange() else { return };
        for Trial { filter, version, took, shadow, seen, .. } in std::mem::take(&mut exchange.trials) {
            if let Some(shadow) = shadow {
                self.end_shadow(shadow, seen, filter);
            }
            self.count(filter, |rollout| rollout.ended(version, took, now));
        }
    }

    fn count(&mut self, index: FilterIndex, count: impl FnOnce(&Rollout) -> bool) {
        let Some(exchange) = self.exchanges.get(self.id) else { return };
        let Some(rollout) = exchange.chain.candidate(index).map(|candidate| &candidate.rollout) else { return };
        if count(rollout) {
            let decided = rollout.clone();
            self.exchanges.decided.push(decided);
        }
    }
}
