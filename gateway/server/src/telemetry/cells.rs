//! Numbers that one worker writes and a scrape reads.
//!
//! **Invariant:** a cell has one writing thread, so a plain load and store replaces the locked instruction. Several workers that
//! count the same thing have a cell each; a scrape adds them up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use portcullis_core::time;

/// A number.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, more: u64) {
        self.0.store(self.get().wrapping_add(more), Ordering::Relaxed);
    }

    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(super) fn subtract(&self, less: u64) {
        self.0.store(self.get().saturating_sub(less), Ordering::Relaxed);
    }
}

/// The upper bounds of a histogram's buckets, rising, in nanoseconds.
pub(super) type Bounds<const N: usize> = [u64; N];

const MICRO: u64 = 1000;
const MILLI: u64 = 1000 * MICRO;

/// For whole requests: the bounds OpenTelemetry recommends for HTTP.
pub(super) const REQUEST_BOUNDS: Bounds<14> = [
    5 * MILLI,
    10 * MILLI,
    25 * MILLI,
    50 * MILLI,
    75 * MILLI,
    100 * MILLI,
    250 * MILLI,
    500 * MILLI,
    750 * MILLI,
    1000 * MILLI,
    2500 * MILLI,
    5000 * MILLI,
    7500 * MILLI,
    10_000 * MILLI,
];

/// For the gateway's own share: those above would put all of it into their first bucket.
pub(super) const OVERHEAD_BOUNDS: Bounds<12> = [
    25 * MICRO,
    50 * MICRO,
    100 * MICRO,
    250 * MICRO,
    500 * MICRO,
    MILLI,
    2500 * MICRO,
    5 * MILLI,
    10 * MILLI,
    50 * MILLI,
    250 * MILLI,
    1000 * MILLI,
];

/// How often something took how long.
#[derive(Debug)]
pub(super) struct Histogram<const N: usize> {
    bounds: &'static Bounds<N>,
    buckets: [Count; N],
    above: Count,
    nanos: Count,
}

impl<const N: usize> Histogram<N> {
    pub(super) fn new(bounds: &'static Bounds<N>) -> Self {
        Self {
            bounds,
            buckets: [const { Count(AtomicU64::new(0)) }; N],
            above: Count::default(),
            nanos: Count::default(),
        }
    }

    pub(super) fn observe(&self, duration: Duration) {
        let nanos = time::nanos(duration);
        let fits = self.bounds.iter().zip(&self.buckets).find(|(bound, _)| nanos <= **bound);
        fits.map_or(&self.above, |(_, bucket)| bucket).add(1);
        self.nanos.add(nanos);
    }
}

/// What histograms of the same kind come to together.
#[derive(Clone, Debug)]
pub(super) struct Distribution<const N: usize> {
    /// The buckets' bounds.
    pub(super) bounds: &'static Bounds<N>,
    /// How many fell into each bucket alone.
    pub(super) buckets: [u64; N],
    /// How many lay above the last bound.
    pub(super) above: u64,
    /// The sum of all.
    pub(super) nanos: u64,
}

impl<const N: usize> Distribution<N> {
    pub(super) fn new(bounds: &'static Bounds<N>) -> Self {
        Self { bounds, buckets: [0; N], above: 0, nanos: 0 }
    }

    pub(super) fn add(&mut self, histogram: &Histogram<N>) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum += bucket.get();
        }
        self.above += histogram.above.get();
        self.nanos = self.nanos.wrapping_add(histogram.nanos.get());
    }

    /// How many there were.
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum::<u64>() + self.above
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        let histogram = Histogram::new(&REQUEST_BOUNDS);
        let bound = |index: usize| Duration::from_nanos(REQUEST_BOUNDS[index]);
        for duration in
            [Duration::ZERO, bound(0), bound(0) + Duration::from_nanos(1), bound(13), Duration::from_secs(11)]
        {
            histogram.observe(duration);
        }
        let mut sum = Distribution::new(&REQUEST_BOUNDS);
        sum.add(&histogram);
        sum.add(&histogram);
        assert_eq!((sum.buckets[0], sum.buckets[1], sum.buckets[13], sum.above), (4, 2, 2, 2));
        assert_eq!(sum.nanos, 2 * (21_000 * MILLI + 10 * MILLI + 1));
    }

    #[test]
    fn bounds_rise() {
        assert!(REQUEST_BOUNDS.is_sorted_by(|a, b| a < b) && OVERHEAD_BOUNDS.is_sorted_by(|a, b| a < b));
    }
}
