//! A rate, as one number.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::time::{Time, nanos};

/// So much in so much time. All of it may be taken at once.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// How much; 0 for no limit.
    count: AtomicU64,
    period_nanos: AtomicU64,
    /// Until when what was taken is paid for.
    paid: AtomicU64,
}

impl Meter {
    pub(super) fn limit(&self, rate: Option<(u64, Duration)>) {
        let (count, period) = rate.map_or((0, 0), |(count, period)| (count.max(1), nanos(period)));
        self.count.store(count, Ordering::Relaxed);
        self.period_nanos.store(period, Ordering::Relaxed);
    }

    /// Takes some of it, if it is to be had. What is more than all there is counts as all.
    pub(super) fn take(&self, some: u64, now: Time) -> bool {
        let (count, period) = (self.count.load(Ordering::Relaxed), self.period_nanos.load(Ordering::Relaxed));
        if count == 0 {
            return true;
        }
        let costs = u128::from(period) * u128::from(some.min(count)) / u128::from(count);
        let costs = u64::try_from(costs).unwrap_or(u64::MAX);
        let latest = now.as_nanos().saturating_add(period);
        let pay = |paid: u64| {
            let next = paid.max(now.as_nanos()).saturating_add(costs);
            (next <= latest).then_some(next)
        };
        self.paid.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay).is_ok()
    }
}
