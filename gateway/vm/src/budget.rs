//! A callback's processor time.
//!
//! wasmtime can interrupt a guest by the clock on the wall, but a worker that was not scheduled has used none of its guest's
//! budget: on a busy or throttled machine the wall alone would end innocent guests. So the first half of a budget is waited for
//! on the wall, which costs nothing, and only a callback that is still running then has its thread's processor time measured.
//!
//! **Invariant:** a callback that uses less than half its budget is never ended, one that uses all of it always is, give or take
//! two of the ticker's steps, of which none is longer than half a budget, or a nap. Time spent in hostcalls counts.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::UpdateDeadline;

use crate::engine::thread_time;
use crate::ticker::{TICK, Ticker};

/// One callback's budget.
#[derive(Debug)]
pub(crate) struct Budget {
    half: Duration,
    /// The same in ticks, rounded up.
    half_ticks: u64,
    stage: Stage,
    ticker: Arc<Ticker>,
}

#[derive(Debug)]
enum Stage {
    /// Less than half of it has passed on the wall.
    Fresh,
    /// What the thread had used when half of it had passed.
    Measured(Duration),
}

impl Budget {
    /// A budget per callback.
    pub(crate) fn new(cpu: Duration, ticker: Arc<Ticker>) -> Self {
        ticker.serve(cpu / 2);
        Self { half: cpu / 2, half_ticks: ticks(cpu / 2), stage: Stage::Fresh, ticker }
    }

    /// Starts a callback; in how many ticks to ask [`Self::expired`].
    pub(crate) fn start(&mut self) -> u64 {
        self.stage = Stage::Fresh;
        self.ticker.callback();
        // The tick that is under way is partial.
        self.half_ticks + 1
    }

    /// Whether the callback may go on.
    pub(crate) fn expired(&mut self) -> UpdateDeadline {
        let now = thread_time();
        match self.stage {
            Stage::Fresh => {
                self.stage = Stage::Measured(now);
                UpdateDeadline::Continue(self.half_ticks)
            }
            Stage::Measured(since) => {
                let left = self.half.saturating_sub(now.saturating_sub(since));
                if left.is_zero() { UpdateDeadline::Interrupt } else { UpdateDeadline::Continue(ticks(left)) }
            }
        }
    }
}

fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(TICK.as_nanos())).unwrap_or(u64::MAX >> 1).clamp(1, u64::MAX >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_round_up_and_are_never_zero() {
        for (micros, want) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (2500, 3)] {
            assert_eq!(ticks(Duration::from_micros(micros)), want);
        }
        assert_eq!(ticks(Duration::MAX), u64::MAX >> 1);
    }

    #[test]
    fn a_thread_that_did_not_run_has_used_nothing() {
        let mut budget = Budget::new(Duration::from_secs(2), Arc::default());
        assert_eq!(budget.start(), 1001);
        assert!(matches!(budget.expired(), UpdateDeadline::Continue(1000)));
        assert!(matches!(budget.expired(), UpdateDeadline::Continue(_)));
    }
}
