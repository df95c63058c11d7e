//! Log lines about what others bring about: however often it happens, they fill no disk.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::meter::Meter;
use crate::time::Time;

/// How often something is logged at most; what is left out is counted.
#[derive(Debug)]
pub struct Throttle {
    lines: Meter,
    left_out: AtomicU64,
}

impl Throttle {
    /// So many lines at once, and one more for each `pause` that passes.
    #[must_use]
    pub fn new(at_once: u32, pause: Duration) -> Self {
        let lines = Meter::default();
        lines.limit(Some((at_once.into(), pause.saturating_mul(at_once))));
        Self { lines, left_out: AtomicU64::new(0) }
    }

    /// Takes a line if there may be one now, and then how many were left out before it.
    #[must_use]
    pub fn take(&self, now: Time) -> Option<u64> {
        if self.lines.take(1, now) {
            return Some(self.left_out.swap(0, Ordering::Relaxed));
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn what_comes_often_is_logged_once_in_a_while_with_its_number() {
        let throttle = Throttle::new(1, Duration::from_secs(10));
        let taken = [0, 1, 9, 10, 11, 30].map(|seconds| throttle.take(at(seconds * 1000)));
        assert_eq!(taken, [Some(0), None, None, Some(2), None, Some(1)]);
    }

    #[test]
    fn a_flood_leaves_few_lines_and_its_number() {
        let throttle = Throttle::new(20, Duration::from_secs(1));
        let flood = |seconds: u64, times: u32| {
            (0..times).filter_map(|_| throttle.take(at(1_000_000 + seconds * 1000))).collect::<Vec<_>>()
        };
        assert_eq!(flood(0, 1000), [0; 20]);
        assert_eq!(flood(1, 1000), [980], "one more after a second, with what was left out");
        assert_eq!(flood(3, 3), [999, 0]);
        assert_eq!(flood(4, 1), [1]);
        assert_eq!(flood(1000, 30).len(), 20, "never more at once");
    }
}
