//! Tenants that are set apart, since their callbacks take long.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::nanos;
use crate::throttle::Throttle;
use crate::time::Time;

/// Callbacks that take so much processor time, one or several after the other, are felt by whoever else their worker serves.
const LONG: Duration = Duration::from_micros(80);
/// One of this length counts as it is, one of twice the length twice: whoever meets it waits for so long.
const UNIT: Duration = Duration::from_millis(1);
/// Shorter ones count for no less than such a part of what they take, or many of them would be met often before they come to much.
const LEAST: u128 = 4;
/// What callbacks may come to in a second before their tenant is set apart: so little that fewer than one request in a hundred of others
/// meets one.
const PER_SECOND: Duration = Duration::from_millis(2);
/// What they may come to at once.
const AT_ONCE: Duration = Duration::from_millis(10);
/// How many others a measured callback can stand for: one long one by chance among many short ones is no reason.
const STANDS_FOR: u32 = 4;
/// For how long that has to be made up for.
const SPARED: Duration = AT_ONCE.saturating_mul(PERIODS);
/// What each unit of it has to be made up for by: a second for what may be taken in one.
const PERIODS: u32 = 1_000_000_000 / PER_SECOND.subsec_nanos();
/// The longest that a tenant stays apart after the last that took long.
const AT_MOST: Duration = Duration::from_mins(10);

/// For how long it is not told again that a tenant is set apart.
const TOLD_FOR: Duration = Duration::from_mins(1);

/// What a guest spent time on.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// A part of its VM's start: that comes seldom, by itself or with a delay after a failure, and counts as it is.
    Start,
    /// A callback. Not each is measured, so one stands for several.
    Callback {
        /// How many, itself included.
        stands_for: u32,
    },
}

/// Whether a tenant is set apart, and what was served while it was.
#[derive(Debug)]
pub struct Apart {
    /// Until when what took long is paid for.
    paid: AtomicU64,
    /// The event that a worker has fed last, by its time, and nanoseconds of what its callbacks have taken so far. Where two workers are
    /// at it, one may be taken for two short ones.
    event: AtomicU64,
    event_took: AtomicU64,
    /// How often it is told that the tenant is set apart.
    told: Throttle,
    served: AtomicU64,
    /// Nanoseconds.
    waited: AtomicU64,
}

impl Default for Apart {
    fn default() -> Self {
        let [paid, event, event_took, served, waited] = [(); 5].map(|()| AtomicU64::default());
        Self { paid, event, event_took, told: Throttle::new(1, TOLD_FOR), served, waited }
    }
}

impl Apart {
    /// Notes what a callback took, one of those of an event that was fed `now`: whoever waits for the worker waits for all of them.
    /// Whether that has set the tenant apart, and was not told in the last minute.
    #[must_use]
    pub fn took(&self, took: Duration, work: Work, now: Time) -> bool {
        let comes_to = match work {
            Work::Start => nanos(took),
            Work::Callback { stands_for } => {
                self.adds(took, now).saturating_mul(stands_for.clamp(1, STANDS_FOR).into())
            }
        };
        if comes_to == 0 {
            return false;
        }
        let costs = comes_to.saturating_mul(PERIODS.into());
        let latest = (now + SPARED + AT_MOST).as_nanos();
        let pay = |paid: u64| Some(paid.max(now.as_nanos()).saturating_add(costs).min(latest));
        let was_apart = self.is_now(now);
        let _always = self.paid.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay);
        !was_apart && self.is_now(now) && self.told.take(now).is_some()
    }

    /// The processor time of the callbacks of an event that was fed `began`, as far as it was measured; nothing once another worker
    /// has fed one.
    #[must_use]
    pub fn event_took(&self, began: Time) -> Option<Duration> {
        let took = Duration::from_nanos(self.event_took.load(Ordering::Relaxed));
        (self.event.load(Ordering::Relaxed) == began.as_nanos() && !took.is_zero()).then_some(took)
    }

    /// What a callback adds to what those of its event come to.
    fn adds(&self, took: Duration, now: Time) -> u64 {
        let is_next = self.event.swap(now.as_nanos(), Ordering::Relaxed) == now.as_nanos();
        let before = if is_next { self.event_took.load(Ordering::Relaxed) } else { 0 };
        let in_all = before.saturating_add(nanos(took));
        self.event_took.store(in_all, Ordering::Relaxed);
        counts(in_all).saturating_sub(counts(before))
    }

    /// Until when the tenant is set apart; nothing when it is not.
    #[must_use]
    pub fn until(&self, now: Time) -> Option<Time> {
        let until = self.paid.load(Ordering::Relaxed).saturating_sub(nanos(SPARED));
        (until > now.as_nanos()).then(|| Time::from_nanos(until))
    }

    /// Whether the tenant's callbacks take long so often that others would feel it.
    #[must_use]
    pub fn is_now(&self, now: Time) -> bool {
        self.until(now).is_some()
    }

    /// Notes that a request is served where it keeps nobody else waiting, and how long it waited there to be begun.
    pub fn serves(&self, waited: Duration) {
        self.served.fetch_add(1, Ordering::Relaxed);
        self.waited.fetch_add(nanos(waited), Ordering::Relaxed);
    }

    /// How many were.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// How long those waited together.
    #[must_use]
    pub fn waited(&self) -> Duration {
        Duration::from_nanos(self.waited.load(Ordering::Relaxed))
    }
}

/// What callbacks that took so many nanoseconds come to, in nanoseconds.
fn counts(took: u64) -> u64 {
    if took < nanos(LONG) {
        return 0;
    }
    let (took, unit) = (u128::from(took), UNIT.as_nanos());
    u64::try_from(took * took.max(unit / LEAST) / unit).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Work = Work::Callback { stands_for: 1 };

    fn at(ms: u64) -> Time {
        Time::from_nanos(1_700_000_000_000_000_000 + ms * 1_000_000)
    }

    #[test]
    fn long_callbacks_set_it_apart_until_they_have_been_rare_for_long_enough() {
        let apart = Apart::default();
        let took = |micros: u64, ms: u64| apart.took(Duration::from_micros(micros), ONE, at(ms));
        let event = |number: u64| Time::from_nanos(at(0).as_nanos() - number);
        (0..5).for_each(|number| _ = apart.took(Duration::from_millis(1), ONE, event(number)));
        (5..205).for_each(|number| _ = apart.took(Duration::from_micros(100), ONE, event(number)));
        assert!(!apart.is_now(at(0)), "a few are nothing unusual, and a tenth as long is a fortieth as bad");
        _ = took(1000, 0);
        assert_eq!(apart.until(at(0)), Some(at(500)));
        assert!(apart.is_now(at(499)) && !apart.is_now(at(500)));
        // 2 ms in every second, which is what may be.
        assert!((2..200).all(|half| !took(1000, half * 500)));
        assert!(!apart.is_now(at(100_000)));
        assert!(took(100_000_000, 100_000));
        assert_eq!(apart.until(at(100_000)), Some(at(100_000 + 600_000)), "no longer than ten minutes");
    }

    #[test]
    fn whoever_comes_and_goes_is_told_of_once_a_minute() {
        let apart = Apart::default();
        // Each time it is for seven and a half seconds.
        let told: Vec<u64> = (0..8)
            .map(|turn| turn * 20)
            .filter(|at_s| apart.took(Duration::from_millis(5), ONE, at(at_s * 1000)))
            .collect();
        assert_eq!(told, [0, 60, 120]);
    }

    #[test]
    fn callbacks_of_one_event_count_as_one() {
        let [one, several, apart_in_time] = [(); 3].map(|()| Apart::default());
        assert!(one.took(Duration::from_millis(8), ONE, at(0)));
        assert_eq!([at(0), at(1)].map(|began| one.event_took(began)), [Some(Duration::from_millis(8)), None]);
        assert_eq!((0..160).filter(|_| several.took(Duration::from_micros(50), ONE, at(0))).count(), 1);
        assert!((0..160).all(|ms| !apart_in_time.took(Duration::from_micros(50), ONE, at(ms))));
        assert_eq!(several.until(at(0)), one.until(at(0)));
        assert!(!apart_in_time.is_now(at(160)));
    }

    #[test]
    fn one_that_is_measured_stands_for_others_but_not_for_many() {
        let [four, many, single] = [4, 128, 1].map(|stands_for| {
            let apart = Apart::default();
            _ = apart.took(Duration::from_millis(4), Work::Callback { stands_for }, at(0));
            apart.until(at(0))
        });
        assert_eq!((four, single), (Some(at(4 * 4 * 4 * 500 - 5000)), Some(at(4 * 4 * 500 - 5000))));
        assert_eq!(many, four);
    }

    #[test]
    fn starts_count_as_they_are() {
        let apart = Apart::default();
        assert!((0..10).all(|_| !apart.took(Duration::from_millis(1), Work::Start, at(0))));
        assert!(apart.took(Duration::from_micros(10), Work::Start, at(0)));
        assert_eq!(apart.until(at(0)), Some(at(5)));
    }
}
