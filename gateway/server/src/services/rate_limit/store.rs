//! Where the states of limits are: in this process, or in a Redis that gateways share.

use std::time::Duration;

use portcullis_abi::calendar::{Unit, Zone};
use portcullis_abi::limit::{self, Entry, Limit, Order, Quota, SECOND, Verdict};
use portcullis_vm::Limits;

use super::redis::{self, Redis};
use crate::telemetry::{CountedBy, RateLimitCounts};

/// How much may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Amount {
    /// So many in so many seconds, at an even rate after a burst. A count of 0 lets nothing pass.
    Rate { count: u64, period: u64, burst: u64 },
    /// So many by the calendar.
    Quota { count: u64, unit: Unit, zone: Zone },
}

impl Amount {
    pub(super) fn count(self) -> u64 {
        match self {
            Self::Rate { count, .. } | Self::Quota { count, .. } => count,
        }
    }

    pub(super) fn period(self) -> u64 {
        match self {
            Self::Rate { period, .. } => period,
            Self::Quota { unit, .. } => unit.seconds().into(),
        }
    }

    pub(super) fn limit(self, now: u64) -> Limit {
        match self {
            Self::Rate { count: 0, period, .. } => {
                Limit::Quota(Quota { count: 0, ends: now.saturating_add(period.saturating_mul(SECOND)) })
            }
            Self::Rate { count, period, burst } => {
                let interval = (period.saturating_mul(SECOND) / count).max(1);
                Limit::Rate(limit::Rate { interval, burst })
            }
            Self::Quota { count, unit, zone } => Limit::Quota(Quota { count, ends: unit.end(now, zone) }),
        }
    }
}

/// What a decision takes from one limit; below 0 it is given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) key: Vec<u8>,
    pub(super) amount: Amount,
    pub(super) cost: i64,
}

/// What becomes of requests while the store is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnFailure {
    Allow,
    Refuse,
    Local,
}

/// Where the states are, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreSettings {
    Memory,
    Redis(redis::Settings),
}

/// Where the states are.
#[derive(Debug)]
pub(super) struct Store {
    /// All of them, or those that are counted while the other store is away.
    memory: Limits,
    pub(super) redis: Option<Redis>,
}

/// How long whoever is refused because nobody counts is told to wait.
const UNKNOWN: u64 = SECOND;

impl Store {
    pub(super) fn new(redis: Option<Redis>) -> Self {
        Self { memory: Limits::default(), redis }
    }

    /// Takes from all limits of a domain, or from none, or settles what was taken: a verdict for each. Takes no longer than the
    /// store's time.
    pub(super) async fn order(
        &self,
        order: Order,
        (domain, parts): (&[u8], &[Part]),
        on_failure: OnFailure,
        now: u64,
        counts: &RateLimitCounts,
    ) -> Option<Vec<Verdict>> {
        let (verdicts, by) = match &self.redis {
            None => (self.here(order, parts, now)?, CountedBy::Memory),
            Some(redis) => match (redis.order(order, (domain, parts), now, counts).await, on_failure) {
                (Ok(verdicts), _) => (verdicts, CountedBy::Redis),
                (Err(_), OnFailure::Local) => (self.here(order, parts, now)?, CountedBy::Local),
                (Err(_), OnFailure::Allow) => (parts.iter().map(|_| unknown(Some(0))).collect(), CountedBy::Nobody),
                (Err(_), OnFailure::Refuse) => (parts.iter().map(|_| unknown(None)).collect(), CountedBy::Nobody),
            },
        };
        match order {
            Order::Take => counts.decided(by, verdicts.iter().all(|verdict| verdict.state.is_some())),
            Order::Settle => {}
        }
        Some(verdicts)
    }

    fn here(&self, order: Order, parts: &[Part], now: u64) -> Option<Vec<Verdict>> {
        let entries = parts.iter().map(|part| Entry {
            key: &part.key,
            limit: part.amount.limit(now),
            cost: part.cost,
            shadow: false,
        });
        let entries: Vec<Entry<'_>> = entries.collect();
        self.memory.order(order, &entries, now).ok()
    }
}

fn unknown(state: Option<u64>) -> Verdict {
    Verdict { state, remaining: 0, reset: UNKNOWN, retry: if state.is_some() { 0 } else { UNKNOWN } }
}

/// For a decision, where nothing else is configured: what a request can spare.
pub(crate) const DECISION: Duration = Duration::from_millis(50);
