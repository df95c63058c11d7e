//! The decision: a bucket's stored state and the time in; a verdict and the state to store out.
//!
//! A token bucket kept as one number, the time at which it will be full again (the generic cell rate algorithm). A request
//! moves that time one interval on; it is refused when the bucket would have to hold more than `burst` of them. So a
//! bucket that nobody uses needs no upkeep, and one that was never stored is simply full.

use portcullis_sdk::Response;

const SECOND_NS: u64 = 1_000_000_000;

/// How much may pass. All times are nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    count: u32,
    period_s: u32,
    interval: u64,
    capacity: u64,
}

/// What a client is told of its bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) remaining: u64,
    /// Until the bucket is full again.
    pub(crate) reset_s: u64,
}

/// The outcome for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It passes once this state is stored.
    Pass { store: [u8; 8], standing: Standing },
    /// It does not, and nothing is stored: being refused costs a client nothing.
    Refuse { retry_s: u64, standing: Standing },
}

impl Bucket {
    /// `count` requests per period, `burst` at once; none of them is zero.
    pub(crate) fn new(count: u32, period_s: u32, burst: u32) -> Self {
        let interval = (u64::from(period_s) * SECOND_NS / u64::from(count.max(1))).max(1);
        Self { count, period_s, interval, capacity: interval.saturating_mul(u64::from(burst)) }
    }

    /// Takes one token. State that is not ours is read as a full bucket.
    pub(crate) fn take(&self, stored: Option<&[u8]>, now: u64) -> Verdict {
        let full_at = stored.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
        // Further off than an empty bucket's only after the clock stepped back; then the bucket is taken to be empty.
        let debt = full_at.saturating_sub(now).min(self.capacity);
        let with_this = debt.saturating_add(self.interval);
        if with_this > self.capacity {
            let standing = Standing { remaining: 0, reset_s: debt.div_ceil(SECOND_NS) };
            return Verdict::Refuse { retry_s: (with_this - self.capacity).div_ceil(SECOND_NS).max(1), standing };
        }
        let remaining = (self.capacity - with_this) / self.interval;
        let standing = Standing { remaining, reset_s: with_this.div_ceil(SECOND_NS) };
        Verdict::Pass { store: now.saturating_add(with_this).to_le_bytes(), standing }
    }

    /// `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers.
    pub(crate) fn policy_header(&self) -> String {
        format!("\"default\";q={};w={}", self.count, self.period_s)
    }
}

impl Standing {
    /// `RateLimit` of the same draft.
    pub(crate) fn header(self) -> String {
        format!("\"default\";r={};t={}", self.remaining, self.reset_s)
    }
}

/// The reply to a request too many.
pub(crate) fn refusal(retry_s: u64) -> Response {
    Response::problem(429, "rate_limited").header("retry-after", retry_s.to_string())
}

/// An address without its port: `192.0.2.1:80` and `[2001:db8::1]:80`, and what has no port as it is.
pub(crate) fn host_of(address: &str) -> &str {
    if let Some(rest) = address.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    match address.split_once(':') {
        Some((host, port)) if !port.contains(':') => host,
        Some(_) | None => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_700_000_000 * SECOND_NS;

    /// Sends requests at these times (ms) and shows each outcome: remaining tokens, or `!` and when to come again.
    fn shown(bucket: Bucket, at_ms: &[u64]) -> String {
        let mut stored: Option<[u8; 8]> = None;
        let outcomes = at_ms.iter().map(|ms| {
            match bucket.take(stored.as_ref().map(<[u8; 8]>::as_slice), START + ms * 1_000_000) {
                Verdict::Pass { store, standing } => {
                    stored = Some(store);
                    standing.remaining.to_string()
                }
                Verdict::Refuse { retry_s, .. } => format!("!{retry_s}"),
            }
        });
        outcomes.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_bucket_lets_a_burst_pass_and_then_its_rate() {
        for (name, bucket, at_ms, want) in [
            ("burst, then empty", Bucket::new(5, 1, 5), vec![0, 0, 0, 0, 0, 0], "4 3 2 1 0 !1"),
            (
                "one token is back after an interval",
                Bucket::new(5, 1, 5),
                vec![0, 0, 0, 0, 0, 199, 200, 200],
                "4 3 2 1 0 !1 0 !1",
            ),
            ("a full bucket does not grow", Bucket::new(5, 1, 5), vec![0, 60_000, 60_000], "4 4 3"),
            ("burst of one is even spacing", Bucket::new(2, 1, 1), vec![0, 0, 500, 999, 1000], "0 !1 0 !1 0"),
            ("refusals cost nothing", Bucket::new(1, 1, 1), vec![0, 1, 2, 3, 999, 1000], "0 !1 !1 !1 !1 0"),
            ("slow rates say how long to wait", Bucket::new(1, 60, 1), vec![0, 1, 30_000], "0 !60 !30"),
        ] {
            assert_eq!(shown(bucket, &at_ms), want, "{name}");
        }
    }

    #[test]
    fn a_clock_that_steps_back_locks_nobody_out_for_longer_than_a_burst() {
        let bucket = Bucket::new(1, 1, 2);
        let stored = (START + 2 * SECOND_NS).to_le_bytes();
        let earlier = START - 3600 * SECOND_NS;
        let want = Verdict::Refuse { retry_s: 1, standing: Standing { remaining: 0, reset_s: 2 } };
        assert_eq!(bucket.take(Some(&stored), earlier), want);
    }

    #[test]
    fn state_that_is_not_ours_is_a_full_bucket() {
        for stored in [&b""[..], b"x", b"123456789"] {
            assert!(matches!(Bucket::new(1, 1, 1).take(Some(stored), START), Verdict::Pass { .. }));
        }
    }

    #[test]
    fn a_bucket_tells_where_it_stands() {
        let bucket = Bucket::new(100, 60, 10);
        assert_eq!(bucket.policy_header(), "\"default\";q=100;w=60");
        assert_eq!(Standing { remaining: 9, reset_s: 1 }.header(), "\"default\";r=9;t=1");
    }

    #[test]
    fn an_address_loses_its_port() {
        for (address, want) in [
            ("192.0.2.1:8080", "192.0.2.1"),
            ("[2001:db8::1]:8080", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("192.0.2.1", "192.0.2.1"),
            ("", ""),
        ] {
            assert_eq!(host_of(address), want);
        }
    }
}
