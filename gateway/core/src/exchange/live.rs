//! The table of a worker's live exchanges, and what its guests have asked for beside them.
//!
//! **Invariant:** an [`ExchangeId`] that has ended never names its successor.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::{Exchange, Facts, Slot, Stand, Upload};
use crate::chain::Shadowed;
use crate::context::Callout;
use crate::filter::{Chain, FilterIndex};
use crate::grpc;
use crate::limits::Limits;
use crate::reply::{Asker, Failure};
use crate::rollout::Rollout;
use crate::time::Time;

/// An exchange's name among those of its worker. One that has ended is never mistaken for its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExchangeId {
    index: u32,
    life: u32,
}

impl ExchangeId {
    /// Its place in the table; small, and used again once it has ended.
    #[must_use]
    pub fn index(self) -> usize {
        self.index as usize
    }
}

/// The exchanges of one worker. One pointer wide, since they are lent to a guest for every callback.
#[derive(Debug, Default)]
pub struct Exchanges(Box<Live>);

impl Deref for Exchanges {
    type Target = Live;

    fn deref(&self) -> &Live {
        &self.0
    }
}

impl DerefMut for Exchanges {
    fn deref_mut(&mut self) -> &mut Live {
        &mut self.0
    }
}

/// What [`Exchanges`] points to.
#[derive(Debug, Default)]
pub struct Live {
    /// The limits they live under.
    pub limits: Limits,
    /// The present. The worker sets it before it feeds an event.
    pub now: Time,
    /// Callouts guests have started; the worker takes them.
    pub callouts: Vec<Callout>,
    /// What guests want of gRPC; the worker takes it.
    pub grpc: Vec<grpc::Wish>,
    /// Roll-outs about which something has been decided; the worker takes them.
    pub decided: Vec<Arc<Rollout>>,
    /// What shadows are to be told; [`crate::chain::play_shadow`] does.
    pub shadowed: VecDeque<Shadowed>,
    /// Some guest has set or stopped a timer since the worker last looked.
    pub timers_changed: bool,
    table: Vec<Exchange>,
    free: Vec<u32>,
    woken: VecDeque<ExchangeId>,
    /// The chain of places that are free.
    empty: Arc<Chain>,
}

impl Live {
    /// A new exchange for this chain. Its first event is the request's head.
    pub fn open(&mut self, chain: Arc<Chain>, facts: Facts) -> ExchangeId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.table.push(Exchange::new(self.empty.clone()));
            u32::try_from(self.table.len() - 1).unwrap_or(u32::MAX)
        });
        let now = self.now;
        let Some(exchange) = self.table.get_mut(index as usize) else { return ExchangeId { index, life: 0 } };
        let filters = chain.len();
        exchange.live = true;
        exchange.facts = Some(facts);
        exchange.chain = chain;
        exchange.stand = Stand::Requesting;
        exchange.request.open(filters);
        exchange.response.open(filters);
        exchange.slots.clear();
        exchange.slots.resize(filters, Slot::Idle);
        exchange.properties.clear();
        exchange.asker = Asker::default();
        exchange.calling = None;
        (exchange.entered, exchange.asked, exchange.details, exchange.blamed) = (0, None, None, None);
        (exchange.started, exchange.last_progress) = (now, now);
        (exchange.paused_since, exchange.responded, exchange.upstream_address) = (None, None, None);
        (exchange.attempts, exchange.upload, exchange.woken, exchange.reroutes) = (0, Upload::default(), false, false);
        (exchange.reached, exchange.timings) = (None, None);
        exchange.trials.clear();
        exchange.shadow = None;
        ExchangeId { index, life: exchange.life }
    }

    /// The exchange, if it has not ended.
    #[must_use]
    pub fn get(&self, id: ExchangeId) -> Option<&Exchange> {
        self.table.get(id.index()).filter(|exchange| exchange.live && exchange.life == id.life)
    }

    /// The exchange, if it has not ended.
    pub fn get_mut(&mut self, id: ExchangeId) -> Option<&mut Exchange> {
        self.table.get_mut(id.index()).filter(|exchange| exchange.live && exchange.life == id.life)
    }

    /// Frees the exchange's place.
    pub(crate) fn remove(&mut self, id: ExchangeId) {
        let empty = self.empty.clone();
        if let Some(exchange) = self.get_mut(id) {
            exchange.live = false;
            exchange.life = exchange.life.wrapping_add(1);
            exchange.facts = None;
            exchange.request.reset();
            exchange.response.reset();
            exchange.asked = None;
            exchange.properties.clear();
            // An old revision's chain must not live on in a place that nobody uses.
            exchange.chain = empty;
            self.free.push(id.index);
        }
    }

    /// How many live.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len() - self.free.len()
    }

    /// Whether none does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Notes that an exchange has something to do that no event of its own brings up.
    pub(crate) fn wake(&mut self, id: ExchangeId) {
        if let Some(exchange) = self.get_mut(id)
            && !exchange.woken
        {
            exchange.woken = true;
            self.woken.push_back(id);
        }
    }

    /// The next exchange that must be fed [`crate::event::Event::Woken`]; the one that has waited for longest.
    pub fn next_woken(&mut self) -> Option<ExchangeId> {
        let id = self.woken.pop_front()?;
        if let Some(exchange) = self.get_mut(id) {
            exchange.woken = false;
        }
        Some(id)
    }

    /// Tells an exchange that a VM it had a context in has died.
    pub fn orphan(&mut self, id: ExchangeId, filter: FilterIndex) {
        if let Some(slot) = self.get_mut(id).and_then(|exchange| exchange.slots.get_mut(filter))
            && matches!(slot, Slot::Live(_))
        {
            *slot = Slot::Orphaned;
            self.wake(id);
        }
    }

    /// The exchanges that have waited for too long, and for what. Cost: one look at each exchange.
    #[must_use]
    pub fn expired(&self) -> Vec<(ExchangeId, Failure)> {
        let overdue = |(index, exchange): (usize, &Exchange)| {
            let id = ExchangeId { index: u32::try_from(index).ok()?, life: exchange.life };
            Some((id, exchange.overdue(self.now, &self.limits)?))
        };
        self.table
            .iter()
            .enumerate()
            .filter(|(_, exchange)| exchange.live && exchange.shadow.is_none())
            .filter_map(overdue)
            .collect()
    }
}
