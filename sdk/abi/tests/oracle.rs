//! The arithmetic of a rate against the `governor` crate, a rate limiter of others' making by the same algorithm.

use std::time::Duration;

use governor::clock::FakeRelativeClock;
use governor::{Quota, RateLimiter};
use portcullis_abi::limit::{Limit, Rate, SECOND};
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_rate_admits_what_another_implementation_admits(
        interval_ms in 1_u32..2000,
        burst in 1_u32..50,
        steps in proptest::collection::vec((0_u32..3000, 1_u32..6), 1..200),
    ) {
        let quota = Quota::with_period(Duration::from_millis(interval_ms.into())).unwrap();
        let clock = FakeRelativeClock::default();
        let oracle = RateLimiter::direct_with_clock(quota.allow_burst(burst.try_into().unwrap()), clock.clone());
        let limit = Limit::Rate(Rate { interval: u64::from(interval_ms) * 1_000_000, burst: burst.into() });
        let (mut state, mut now) = (None, 1_700_000_000 * SECOND);
        for (wait_ms, cost) in steps {
            clock.advance(Duration::from_millis(wait_ms.into()));
            now += u64::from(wait_ms) * 1_000_000;
            let verdict = limit.take(state, cost.into(), now);
            state = verdict.state.or(state);
            let theirs = oracle.check_n(cost.try_into().unwrap()).is_ok_and(|decision| decision.is_ok());
            prop_assert_eq!(verdict.state.is_some(), theirs);
        }
    }
}
