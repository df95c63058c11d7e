//! When to fetch the JWKS document. Decides only; `lib.rs` makes the callout.
//!
//! Keys once loaded stay in use however often a later fetch fails. Times are nanoseconds of a clock that may step.

use std::time::Duration;

use crate::keys::KeySet;

/// A client can ask for unknown keys as often as it likes; the issuer is asked this often at most.
const COOLDOWN_NS: u64 = 10_000_000_000;

/// After a failed fetch.
const RETRY_NS: u64 = 1_000_000_000;

/// An answer later than its timeout by this much will not come any more.
const LOST_NS: u64 = 5_000_000_000;

/// The keys and the state of fetching them.
pub(crate) struct Jwks {
    keys: Option<KeySet>,
    fetch: Fetch,
    refresh_ns: u64,
    timeout_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fetch {
    /// The next one starts at `due`; the last one ended at `ended`.
    Idle { due: u64, ended: Option<u64> },
    /// One is on its way.
    Running { since: u64 },
}

/// What an exchange does whose key is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// A fetch is under way or begins at the next tick; it says whether the key exists.
    Wait,
    /// The issuer was asked just now.
    GiveUp,
}

impl Jwks {
    /// Nothing fetched yet; the first fetch is due.
    pub(crate) fn new(refresh: Duration, timeout: Duration) -> Self {
        Self {
            keys: None,
            fetch: Fetch::Idle { due: 0, ended: None },
            refresh_ns: ns(refresh),
            timeout_ns: ns(timeout),
        }
    }

    /// The keys of the last fetch that brought any.
    pub(crate) fn keys(&self) -> Option<&KeySet> {
        self.keys.as_ref()
    }

    /// Whether to start a fetch now; if so it is taken to have started.
    pub(crate) fn start(&mut self, now: u64) -> bool {
        let start = match self.fetch {
            // A due time further off than any was set by a clock that has since stepped back.
            Fetch::Idle { due, .. } => due <= now || due > now.saturating_add(self.refresh_ns),
            Fetch::Running { since } => now < since || now - since > self.timeout_ns.saturating_add(LOST_NS),
        };
        if start {
            self.fetch = Fetch::Running { since: now };
        }
        start
    }

    /// A fetch ended. `None`: without keys.
    pub(crate) fn ended(&mut self, keys: Option<KeySet>, now: u64) {
        let pause = if keys.is_some() { self.refresh_ns } else { RETRY_NS };
        if keys.is_some() {
            self.keys = keys;
        }
        self.fetch = Fetch::Idle { due: now.saturating_add(pause), ended: Some(now) };
    }

    /// An exchange needs a key that is not there.
    pub(crate) fn unknown_key(&mut self, now: u64) -> Unknown {
        let Fetch::Idle { due, ended } = self.fetch else { return Unknown::Wait };
        let rest = if self.keys.is_some() { COOLDOWN_NS } else { RETRY_NS };
        if ended.is_some_and(|ended| now >= ended && now - ended < rest) {
            return Unknown::GiveUp;
        }
        self.fetch = Fetch::Idle { due: due.min(now), ended };
        Unknown::Wait
    }

    /// How long until [`Self::start`] has something to do.
    pub(crate) fn next_look(&self, now: u64) -> Duration {
        let wait = match self.fetch {
            Fetch::Idle { due, .. } => due.saturating_sub(now).min(self.refresh_ns),
            Fetch::Running { .. } => self.timeout_ns.saturating_add(LOST_NS),
        };
        // Rounded up, or a tick just before the due time would find nothing to do.
        Duration::from_millis(wait.div_ceil(1_000_000).max(1))
    }
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const START: u64 = 1_700_000_000 * SECOND;

    fn jwks() -> Jwks {
        Jwks::new(Duration::from_secs(300), Duration::from_secs(5))
    }

    fn some() -> Option<KeySet> {
        Some(KeySet::default())
    }

    #[test]
    fn the_first_look_fetches_and_the_next_one_comes_after_the_refresh_period() {
        let mut jwks = jwks();
        assert!(jwks.start(START));
        assert!(!jwks.start(START + SECOND), "one at a time");
        jwks.ended(some(), START + SECOND);
        assert_eq!(jwks.next_look(START + SECOND), Duration::from_secs(300));
        assert!(!jwks.start(START + 300 * SECOND));
        assert!(jwks.start(START + 301 * SECOND));
    }

    #[test]
    fn a_failed_fetch_keeps_the_keys_and_is_tried_again_soon() {
        let mut jwks = jwks();
        jwks.start(START);
        jwks.ended(some(), START);
        assert!(jwks.start(START + 300 * SECOND));
        jwks.ended(None, START + 300 * SECOND);
        assert!(jwks.keys().is_some());
        assert!(jwks.start(START + 301 * SECOND));
    }

    #[test]
    fn an_unknown_key_is_asked_for_once_in_a_while() {
        let mut jwks = jwks();
        jwks.start(START);
        assert_eq!(jwks.unknown_key(START), Unknown::Wait, "the first fetch is under way");
        jwks.ended(some(), START);
        assert_eq!(jwks.unknown_key(START + 9 * SECOND), Unknown::GiveUp);
        assert!(!jwks.start(START + 9 * SECOND));
        assert_eq!(jwks.unknown_key(START + 10 * SECOND), Unknown::Wait);
        assert!(jwks.start(START + 10 * SECOND));
    }

    #[test]
    fn without_any_keys_requests_fail_fast_between_tries() {
        let mut jwks = jwks();
        jwks.start(START);
        jwks.ended(None, START);
        assert_eq!(jwks.unknown_key(START + SECOND / 2), Unknown::GiveUp);
        assert_eq!(jwks.unknown_key(START + SECOND), Unknown::Wait);
    }

    #[test]
    fn neither_a_lost_answer_nor_a_clock_that_steps_back_stops_the_fetching() {
        let mut jwks = jwks();
        jwks.start(START);
        assert!(!jwks.start(START + 10 * SECOND));
        assert!(jwks.start(START + 11 * SECOND), "timeout and grace are over");
        jwks.ended(some(), START + 11 * SECOND);
        assert!(jwks.start(START - 3600 * SECOND));
        assert!(jwks.start(START - 3601 * SECOND));
    }
}
