//! How long exchanges took in a filter: a histogram fine enough for a percentile.
//!
//! Eight buckets for every power of two, so that what is read out lies at most an eighth above what was put in; from 128 ns, below
//! which no time is worth telling from another, to two minutes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::time::nanos;

const STEP_NANOS: u64 = 128;
const BUCKETS: usize = 240;

/// Written by all workers.
#[derive(Debug)]
pub(super) struct Times([AtomicU64; BUCKETS]);

impl Default for Times {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; BUCKETS])
    }
}

impl Times {
    pub(super) fn note(&self, took: Duration) {
        if let Some(bucket) = self.0.get(bucket(took)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What 99 % took at most, and of how many; nothing of none.
    pub(super) fn p99(&self) -> Option<(Duration, u64)> {
        let counts = self.0.each_ref().map(|bucket| bucket.load(Ordering::Relaxed));
        let all: u64 = counts.iter().sum();
        let rank = all - all / 100;
        let mut below = 0;
        let index = counts.iter().position(|count| {
            below += count;
            *count > 0 && below >= rank
        })?;
        Some((bound(index), all))
    }
}

fn bucket(took: Duration) -> usize {
    let steps = nanos(took) / STEP_NANOS;
    let index = match steps.checked_ilog2() {
        None | Some(0..3) => steps,
        Some(power) => u64::from(power - 2) * 8 + (steps >> (power - 3)) % 8,
    };
    usize::try_from(index).map_or(BUCKETS - 1, |index| index.min(BUCKETS - 1))
}

/// What all times of a bucket lie below.
fn bound(index: usize) -> Duration {
    let index = u64::try_from(index).unwrap_or(u64::MAX);
    let steps = match index {
        0..8 => index + 1,
        _ => (index % 8 + 9) << (index / 8 - 1),
    };
    Duration::from_nanos(steps * STEP_NANOS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_out_lies_at_most_an_eighth_above_what_was_put_in() {
        for nanos in (0..40).flat_map(|power| [1_u64 << power, (1 << power) + 1, (3 << power) / 2]) {
            let took = Duration::from_nanos(nanos.min(100_000_000_000));
            let read = bound(bucket(took));
            assert!(
                read > took && read <= took + (took / 8).max(Duration::from_nanos(STEP_NANOS)),
                "{took:?}: {read:?}"
            );
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn a_percentile_is_what_so_many_lie_below() {
        let times = Times::default();
        assert_eq!(times.p99(), None);
        times.note(Duration::from_millis(1));
        assert_eq!(times.p99().map(|(_, of)| of), Some(1));
        for _ in 0..98 {
            times.note(Duration::from_micros(10));
        }
        times.note(Duration::from_millis(50));
        let (p99, of) = times.p99().unwrap();
        assert!(of == 100 && p99 > Duration::from_millis(1) && p99 < Duration::from_micros(1125), "{p99:?}");
    }
}
