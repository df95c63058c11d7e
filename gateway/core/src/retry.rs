//! Whether a request is tried again, and after which wait.
//!
//! Three things must come together: the route asks for it, nothing can happen twice because of it, and the upstream can bear it.
//! A request that was never sent can always be sent again; one that may have arrived, only if its method is idempotent and its
//! body is still here. What all retries of an upstream together may add to its load is bounded by a [`Budget`], so that an
//! upstream in trouble is not pushed further. Time, randomness and the trying are the server's.

use std::time::Duration;

use http::{Method, StatusCode};

use crate::time::nanos;

/// How often a request that was certainly not processed is sent again without being asked, whatever the policy says.
pub const FREE_RETRIES: u32 = 2;

/// What a route asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How often a request is tried again, after its first try.
    pub attempts: u32,
    /// When.
    pub on: Conditions,
    /// How long one try may take to begin its answer.
    pub per_try: Option<Duration>,
    /// How long to wait before.
    pub backoff: Backoff,
    /// How much all retries together may add.
    pub budget: Allowance,
}

/// The failures after which a route's requests are tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// No connection was made.
    pub connect_failure: bool,
    /// The connection broke, or the answer was no HTTP.
    pub reset: bool,
    /// A try took too long.
    pub timeout: bool,
    /// Any answer from 500 on.
    pub server_error: bool,
    /// Answers with these statuses.
    pub statuses: Box<[u16]>,
}

/// How long to wait before a try: a time drawn between zero and a bound that doubles with each try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The bound before the second try.
    pub base: Duration,
    /// The bound that is never exceeded.
    pub max: Duration,
}

/// The share of an upstream's requests that may be retries at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Of the active requests, in percent.
    pub percent: u32,
    /// So many are always allowed: a share of few requests is none.
    pub min: u32,
}

impl Policy {
    /// Another endpoint is tried when one cannot be connected to; nothing else. Of the budget, Envoy's defaults.
    #[must_use]
    pub fn connect_only() -> Self {
        Self {
            attempts: 2,
            on: Conditions { connect_failure: true, ..Conditions::default() },
            per_try: None,
            backoff: Backoff { base: Duration::from_millis(25), max: Duration::from_millis(250) },
            budget: Allowance { percent: 20, min: 3 },
        }
    }

    /// Whether a request may be tried again after it was sent, so that what is needed for that must be kept.
    #[must_use]
    pub fn needs_copy(&self) -> bool {
        let Conditions { connect_failure: _, reset, timeout, server_error, statuses } = &self.on;
        self.attempts > 0 && (*reset || *timeout || *server_error || !statuses.is_empty())
    }

    /// Whether an answer with this status counts as a failure here.
    #[must_use]
    pub fn is_failure(&self, status: StatusCode) -> bool {
        let status = status.as_u16();
        (self.on.server_error && status >= 500) || self.on.statuses.contains(&status)
    }
}

impl Backoff {
    /// The wait before try number `made + 1`; `draw` is any number, each as likely as the others.
    #[must_use]
    pub fn wait(&self, made: u32, draw: u64) -> Duration {
        let doubled = self.base.saturating_mul(2_u32.saturating_pow(made.saturating_sub(1)));
        let bound = nanos(doubled.min(self.max));
        // The upper half of the product: evenly spread, without a division.
        let part = (u128::from(draw) * u128::from(bound)) >> 64;
        Duration::from_nanos(u64::try_from(part).unwrap_or(bound))
    }
}

/// What came of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// No connection was made.
    Connect,
    /// The request was certainly not processed: it was not written, or the endpoint said so.
    Unprocessed,
    /// The connection was an old one and broke before anything came back: most likely it had been closed before.
    Stale,
    /// The connection broke, or the answer was no HTTP.
    Reset,
    /// The try took too long.
    Timeout,
    /// The endpoint answered with this status, which the policy counts as a failure.
    Status(u16),
    /// The upstream had no room for it. Never tried again: that would be another one without room.
    Overloaded,
}

impl Cause {
    /// The words for them, for metrics, in the order of [`Self::number`].
    pub const WORDS: [&str; 7] =
        ["connect_failure", "unprocessed", "stale_connection", "reset", "timeout", "status", "overloaded"];

    /// Its place among [`Self::WORDS`].
    #[must_use]
    pub fn number(self) -> usize {
        match self {
            Self::Connect => 0,
            Self::Unprocessed => 1,
            Self::Stale => 2,
            Self::Reset => 3,
            Self::Timeout => 4,
            Self::Status(_) => 5,
            Self::Overloaded => 6,
        }
    }

    /// Whether the request cannot have been processed.
    #[must_use]
    pub fn is_unsent(self) -> bool {
        matches!(self, Self::Connect | Self::Unprocessed)
    }
}

/// What has been tried so far, and what there is to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Tries so far, the one that failed last included.
    pub made: u32,
    /// Those of them that were repeated without being asked.
    pub free: u32,
    /// Whether doing it twice is the same as doing it once.
    pub idempotent: bool,
    /// Whether all that was sent is still here.
    pub replayable: bool,
    /// Whether there is an endpoint that has not been tried.
    pub elsewhere: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Try again at once; it does not count.
    Free,
    /// Try again after so long.
    After(Duration),
    /// Leave it at that.
    Enough(Reason),
}

/// Why a request is not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The policy does not ask for it.
    NotAsked,
    /// It might be done twice.
    Unsafe,
    /// It has been tried often enough.
    Attempts,
    /// The upstream has as many retries as it may have.
    Budget,
}

/// Judges a try that failed.
#[must_use]
pub fn judge(policy: &Policy, tried: Tried, cause: Cause, budget: &Budget, draw: u64) -> Verdict {
    if !tried.replayable || !(cause.is_unsent() || tried.idempotent) {
        return Verdict::Enough(Reason::Unsafe);
    }
    if matches!(cause, Cause::Unprocessed | Cause::Stale) && tried.free < FREE_RETRIES {
        return Verdict::Free;
    }
    let asked = match cause {
        Cause::Connect => policy.on.connect_failure,
        Cause::Unprocessed | Cause::Stale | Cause::Reset => policy.on.reset,
        Cause::Timeout => policy.on.timeout,
        Cause::Status(_) => true,
        Cause::Overloaded => false,
    };
    // What was never sent was no load, and sent elsewhere it is no more than the first try would have been.
    let moves_on = cause == Cause::Connect && tried.elsewhere;
    match () {
        () if !asked => Verdict::Enough(Reason::NotAsked),
        () if tried.made - tried.free > policy.attempts => Verdict::Enough(Reason::Attempts),
        () if moves_on => Verdict::After(Duration::ZERO),
        () if !budget.has_room(policy.budget) => Verdict::Enough(Reason::Budget),
        () => Verdict::After(policy.backoff.wait(tried.made, draw)),
    }
}

/// Whether doing it twice is the same as doing it once (RFC 9110 §9.2.2).
#[must_use]
pub fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
}

/// The requests of an upstream that are active, and those of them that are being tried again.
///
/// **Invariant:** every request that began ends, and so does every retry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    active: u32,
    retrying: u32,
}

impl Budget {
    /// A request begins.
    pub fn begin(&mut self) {
        self.active += 1;
    }

    /// A request has ended.
    pub fn end(&mut self) {
        debug_assert!(self.active > 0, "more requests ended than began");
        self.active = self.active.saturating_sub(1);
    }

    /// A request begins to be tried again.
    pub fn begin_retrying(&mut self) {
        self.retrying += 1;
    }

    /// A request is no longer being tried again.
    pub fn end_retrying(&mut self) {
        debug_assert!(self.retrying > 0, "more retries ended than began");
        self.retrying = self.retrying.saturating_sub(1);
    }

    /// Requests that have begun and not ended.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.active
    }

    fn has_room(&self, allowance: Allowance) -> bool {
        let share = u64::from(self.active) * u64::from(allowance.percent) / 100;
        u64::from(self.retrying) < share.max(u64::from(allowance.min))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn everything() -> Policy {
        let on = Conditions {
            connect_failure: true,
            reset: true,
            timeout: true,
            server_error: true,
            statuses: [429].into(),
        };
        Policy { on, ..Policy::connect_only() }
    }

    const FIRST: Tried = Tried { made: 1, free: 0, idempotent: true, replayable: true, elsewhere: false };
    const CAUSES: [Cause; 7] = [
        Cause::Connect,
        Cause::Unprocessed,
        Cause::Stale,
        Cause::Reset,
        Cause::Timeout,
        Cause::Status(503),
        Cause::Overloaded,
    ];

    fn verdict(policy: &Policy, tried: Tried, cause: Cause) -> Verdict {
        judge(policy, tried, cause, &Budget::default(), u64::MAX / 2)
    }

    #[test]
    fn what_was_never_sent_may_be_tried_again_whatever_it_is() {
        let post = Tried { idempotent: false, ..FIRST };
        let wait = Verdict::After(Duration::from_nanos(12_499_999));
        for (cause, want) in [
            (Cause::Connect, wait),
            (Cause::Unprocessed, Verdict::Free),
            (Cause::Stale, Verdict::Enough(Reason::Unsafe)),
            (Cause::Reset, Verdict::Enough(Reason::Unsafe)),
            (Cause::Timeout, Verdict::Enough(Reason::Unsafe)),
            (Cause::Status(503), Verdict::Enough(Reason::Unsafe)),
        ] {
            assert_eq!(verdict(&everything(), post, cause), want, "{cause:?}");
        }
        for cause in CAUSES {
            let gone = Tried { replayable: false, ..FIRST };
            assert_eq!(verdict(&everything(), gone, cause), Verdict::Enough(Reason::Unsafe), "{cause:?}, body gone");
        }
    }

    #[test]
    fn without_being_asked_only_connecting_is_tried_again() {
        let policy = Policy::connect_only();
        let asked: Vec<bool> =
            CAUSES.map(|cause| !matches!(verdict(&policy, FIRST, cause), Verdict::Enough(_))).to_vec();
        // A status reaches the judge only if the policy counts it as a failure.
        assert_eq!(asked, [true, true, true, false, false, true, false]);
        let often = Tried { made: 3, free: 2, ..FIRST };
        assert_eq!(verdict(&policy, often, Cause::Stale), Verdict::Enough(Reason::NotAsked), "not for ever");
        assert!(!policy.is_failure(StatusCode::SERVICE_UNAVAILABLE) && !policy.needs_copy());
    }

    #[test]
    fn tries_are_counted_without_those_that_were_free() {
        let policy = everything();
        for (made, free, want) in [(2, 0, true), (3, 0, false), (4, 2, true), (5, 2, false)] {
            let tried = Tried { made, free, ..FIRST };
            let again = matches!(verdict(&policy, tried, Cause::Reset), Verdict::After(_));
            assert_eq!(again, want, "{made} made, {free} of them free");
        }
    }

    #[test]
    fn statuses_are_failures_where_the_policy_says_so() {
        let failures = |policy: &Policy| {
            [200, 404, 429, 500, 503].map(|status| policy.is_failure(StatusCode::from_u16(status).unwrap()))
        };
        assert_eq!(failures(&everything()), [false, false, true, true, true]);
        let mut only = Policy::connect_only();
        only.on.statuses = [503].into();
        assert_eq!(failures(&only), [false, false, false, false, true]);
        assert!(only.needs_copy());
    }

    #[test]
    fn an_upstream_that_moves_on_pays_nothing_and_waits_for_nothing() {
        let mut full = Budget::default();
        (0..3).for_each(|_| full.begin_retrying());
        let elsewhere = Tried { elsewhere: true, ..FIRST };
        let policy = everything();
        assert_eq!(judge(&policy, elsewhere, Cause::Connect, &full, 9), Verdict::After(Duration::ZERO));
        assert_eq!(judge(&policy, elsewhere, Cause::Reset, &full, 9), Verdict::Enough(Reason::Budget));
        assert_eq!(judge(&policy, FIRST, Cause::Connect, &full, 9), Verdict::Enough(Reason::Budget));
    }

    #[test]
    fn the_budget_is_a_share_of_what_is_active_with_a_floor() {
        let rule = Allowance { percent: 20, min: 3 };
        let mut budget = Budget::default();
        for (active, want) in [(0, 3), (10, 3), (100, 20)] {
            while budget.active() < active {
                budget.begin();
            }
            while budget.has_room(rule) {
                budget.begin_retrying();
            }
            assert_eq!(budget.retrying, want, "of {active} active");
        }
        budget.end_retrying();
        assert!(budget.has_room(rule));
        assert!(!budget.has_room(Allowance { percent: 0, min: 0 }));
    }

    #[test]
    fn idempotent_methods_are_those_of_the_rfc() {
        let idempotent = |name: &str| is_idempotent(&name.parse().unwrap());
        assert!(["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"].into_iter().all(idempotent));
        assert!(!["POST", "PATCH", "CONNECT", "get", "LOCK"].into_iter().any(idempotent));
    }

    proptest! {
        #[test]
        fn waits_are_within_their_bounds_and_fill_them(base in 1_u64..10_000, max in 1_u64..100_000, made in 1_u32..40, draw: u64) {
            let backoff = Backoff { base: Duration::from_micros(base), max: Duration::from_micros(max) };
            let bound = backoff.base.saturating_mul(2_u32.saturating_pow(made - 1)).min(backoff.max);
            let wait = backoff.wait(made, draw);
            prop_assert!(wait <= bound);
            prop_assert_eq!(backoff.wait(made, 0), Duration::ZERO);
            prop_assert!(backoff.wait(made, u64::MAX) + Duration::from_nanos(1) >= bound);
            let half = backoff.wait(made, 1 << 63);
            prop_assert!(half <= bound / 2 + Duration::from_nanos(1) && half + Duration::from_nanos(1) >= bound / 2);
        }

        #[test]
        fn tries_end_and_nothing_unsafe_is_ever_repeated(
            causes in proptest::collection::vec(0_usize..7, 1..60),
            attempts in 0_u32..6,
            idempotent: bool,
            replayable: bool,
            elsewhere: bool,
            draw: u64,
        ) {
            let policy = Policy { attempts, ..everything() };
            let mut tried = Tried { made: 0, free: 0, idempotent, replayable, elsewhere };
            for cause in causes {
                let cause = CAUSES[cause];
                tried.made += 1;
                match judge(&policy, tried, cause, &Budget::default(), draw) {
                    Verdict::Enough(_) => break,
                    Verdict::Free => tried.free += 1,
                    Verdict::After(wait) => prop_assert!(wait <= policy.backoff.max),
                }
                prop_assert!(replayable, "the body was gone");
                prop_assert!(idempotent || cause.is_unsent(), "{:?} was repeated", cause);
            }
            prop_assert!(tried.made <= 1 + attempts + FREE_RETRIES);
        }

        #[test]
        fn a_budget_never_exceeds_its_share(steps in proptest::collection::vec(0_u8..4, 0..300), percent in 0_u32..101, min in 0_u32..10) {
            let rule = Allowance { percent, min };
            let mut budget = Budget::default();
            let mut peak = 0;
            for step in steps {
                match step {
                    0 => budget.begin(),
                    1 if budget.active > 0 => budget.end(),
                    2 if budget.has_room(rule) => budget.begin_retrying(),
                    3 if budget.retrying > 0 => budget.end_retrying(),
                    _ => {}
                }
                peak = peak.max(budget.active);
                prop_assert!(budget.retrying <= (peak * percent / 100).max(min));
            }
        }
    }
}
