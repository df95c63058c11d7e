//! A rate, kept as the time until which what was taken is paid for: one number, which any thread changes in one step, and which
//! nothing has to refill.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::time::{Time, nanos};

/// So much in so much time. All of it may be taken at once.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// How much; 0 for no limit.
    count: AtomicU64,
    period_nanos: AtomicU64,
    /// Until when what was taken is paid for.
    paid: AtomicU64,
}

impl Meter {
    /// Sets the rate. What has been taken stays taken.
    pub(crate) fn limit(&self, rate: Option<(u64, Duration)>) {
        let (count, period) = rate.map_or((0, 0), |(count, period)| (count.max(1), nanos(period)));
        self.count.store(count, Ordering::Relaxed);
        self.period_nanos.store(period, Ordering::Relaxed);
    }

    /// The limit, and nanoseconds of its period.
    fn rate(&self) -> Option<(u64, u64)> {
        let count = self.count.load(Ordering::Relaxed);
        (count > 0).then(|| (count, self.period_nanos.load(Ordering::Relaxed)))
    }

    /// Takes some of it, if it is to be had. What is more than all there is counts as all.
    pub(crate) fn take(&self, some: u64, now: Time) -> bool {
        let Some((count, period)) = self.rate() else { return true };
        let costs = costs(some.min(count), (count, period));
        let latest = now.as_nanos().saturating_add(period);
        let pay = |paid: u64| {
            let next = paid.max(now.as_nanos()).saturating_add(costs);
            (next <= latest).then_some(next)
        };
        self.paid.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay).is_ok()
    }

    /// Takes what has been used already, though it be more than there is: then it is the longer until there is some again.
    pub(crate) fn charge(&self, used: u64, now: Time) {
        let Some(rate) = self.rate() else { return };
        let costs = costs(used, rate);
        let pay = |paid: u64| Some(paid.max(now.as_nanos()).saturating_add(costs));
        let _always = self.paid.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay);
    }

    /// Until when there is none to be had; nothing when there is some.
    pub(crate) fn exhausted_until(&self, now: Time) -> Option<Time> {
        let (_, period) = self.rate()?;
        let until = self.paid.load(Ordering::Relaxed).saturating_sub(period);
        (until > now.as_nanos()).then(|| Time::from_nanos(until))
    }
}

/// The nanoseconds that some of so much in such a period takes to pay.
fn costs(some: u64, (count, period): (u64, u64)) -> u64 {
    u64::try_from(u128::from(some) * u128::from(period) / u128::from(count)).unwrap_or(u64::MAX)
}
