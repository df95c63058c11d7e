//! How much of a limit is left: the arithmetic that guests, this host and stores of limits share.
//!
//! A limit's state is one number, kept wherever states are kept. [`Rate`] is the generic cell rate algorithm: the number is the
//! time until which everything that was taken is paid for. [`Quota`] counts in windows that begin anew at a moment of the calendar:
//! the number is how much was taken in the window that ends then. All times are nanoseconds since the Unix epoch.
//!
//! **Invariant:** a refusal changes nothing, so being refused costs nothing, and no state is needed for a limit that nobody
//! uses. A clock that steps back never locks anybody out for longer than [`MOST_BURSTS`] bursts, or a window.

/// One second.
pub const SECOND: u64 = 1_000_000_000;

/// How many bursts of a [`Rate`] may be owed: what responses turn out to cost beyond that is forgiven.
pub const MOST_BURSTS: u64 = 10;

/// So many in so much time, at an even rate after a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds that one takes; at least 1.
    pub interval: u64,
    /// How many may be taken at once; at least 1.
    pub burst: u64,
}

/// So many until a moment, when the count begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// How many.
    pub count: u64,
    /// When the window ends.
    pub ends: u64,
}

/// A limit of either kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// At an even rate.
    Rate(Rate),
    /// By windows.
    Quota(Quota),
}

/// What a limit says to whoever wants to take some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The new state, if it lets them pass.
    pub state: Option<u64>,
    /// How many are left: after taking, or, where it refuses, as it stands.
    pub remaining: u64,
    /// Nanoseconds until all of the limit is there again.
    pub reset: u64,
    /// Nanoseconds until as many could be taken; 0 when they were. `u64::MAX` when they never can.
    pub retry: u64,
}

impl Limit {
    /// Takes `cost` from a state; a limit that was never used has none. A cost of nothing shows how it stands.
    #[must_use]
    pub fn take(&self, state: Option<u64>, cost: u64, now: u64) -> Verdict {
        match self {
            Self::Rate(rate) => rate.take(state.unwrap_or(0), cost, now),
            Self::Quota(quota) => quota.take(state.unwrap_or(0), cost, now),
        }
    }

    /// How a limit stands that nothing was taken from because another one refused; it would have let pass what `verdict` says.
    #[must_use]
    pub fn untouched(&self, verdict: &Verdict, state: Option<u64>, now: u64) -> Verdict {
        Verdict { state: verdict.state, retry: verdict.retry, ..self.take(state, 0, now) }
    }

    /// When a state says no more than none would.
    #[must_use]
    pub fn over(&self, state: u64) -> u64 {
        match self {
            Self::Rate(_) => state,
            Self::Quota(quota) => quota.ends,
        }
    }

    /// The state after taking `more`, or, where it is negative, after giving back what was taken. What a response turns out to
    /// cost is owed whether there is room or not: of a rate up to [`MOST_BURSTS`] bursts, of a quota until its window ends.
    #[must_use]
    pub fn settle(&self, state: Option<u64>, more: i64, now: u64) -> u64 {
        let state = state.unwrap_or(0);
        match self {
            Self::Rate(rate) => {
                let debt = rate.debt(state, now);
                let change = rate.interval.max(1).saturating_mul(more.unsigned_abs());
                let debt = if more < 0 { debt.saturating_sub(change) } else { debt.saturating_add(change) };
                now.saturating_add(debt.min(rate.most()))
            }
            Self::Quota(quota) => {
                let used = quota.used(state);
                let change = more.unsigned_abs();
                quota.stored(if more < 0 { used.saturating_sub(change) } else { used.saturating_add(change) })
            }
        }
    }
}

impl Rate {
    /// All that may be taken at once, as time.
    fn capacity(&self) -> u64 {
        self.interval.max(1).saturating_mul(self.burst.max(1))
    }

    fn most(&self) -> u64 {
        self.capacity().saturating_mul(MOST_BURSTS)
    }

    /// What is owed. More than the most only after the clock stepped back.
    fn debt(&self, paid: u64, now: u64) -> u64 {
        paid.saturating_sub(now).min(self.most())
    }

    fn take(&self, paid: u64, cost: u64, now: u64) -> Verdict {
        let (interval, capacity) = (self.interval.max(1), self.capacity());
        let debt = self.debt(paid, now);
        let with_these = debt.saturating_add(interval.saturating_mul(cost));
        if with_these > capacity {
            let never = interval.saturating_mul(cost) > capacity;
            let retry = if never { u64::MAX } else { with_these - capacity };
            return Verdict { state: None, remaining: capacity.saturating_sub(debt) / interval, reset: debt, retry };
        }
        let state = Some(now.saturating_add(with_these));
        Verdict { state, remaining: (capacity - with_these) / interval, reset: with_these, retry: 0 }
    }
}

/// How many bits of a quota's state say how much was used; the others say in which window, so that a count of an earlier one is
/// nobody's.
const USED_BITS: u32 = 40;

impl Quota {
    fn window(&self) -> u64 {
        // In minutes: calendar windows begin at whole ones, whatever the time zone.
        (self.ends / (60 * SECOND)) & ((1 << (64 - USED_BITS)) - 1)
    }

    fn used(&self, state: u64) -> u64 {
        if state >> USED_BITS == self.window() { state & ((1 << USED_BITS) - 1) } else { 0 }
    }

    fn stored(&self, used: u64) -> u64 {
        self.window() << USED_BITS | used.min((1 << USED_BITS) - 1)
    }

    fn take(&self, state: u64, cost: u64, now: u64) -> Verdict {
        let used = self.used(state);
        let reset = self.ends.saturating_sub(now);
        let left = self.count.saturating_sub(used);
        if cost > left {
            let retry = if cost > self.count { u64::MAX } else { reset };
            return Verdict { state: None, remaining: left, reset, retry };
        }
        Verdict { state: Some(self.stored(used.saturating_add(cost))), remaining: left - cost, reset, retry: 0 }
    }
}

/// The foreign function by which a guest has its host take from several limits in one step, or none; other hosts lack it.
///
/// Its argument is [`Order`] as a byte and then entries, its answer a verdict for each, 25 bytes.
pub const FUNCTION: &str = "portcullis_limit";

/// What is to be done with the entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Order {
    /// Each costs, if all let pass.
    Take = 0,
    /// Each costs more, or less, than was taken: see [`Limit::settle`].
    Settle = 1,
}

/// One limit's part in an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Where its state is kept.
    pub key: &'a [u8],
    /// The limit.
    pub limit: Limit,
    /// How many; below 0 only to settle.
    pub cost: i64,
    /// Whether it only counts, and never refuses.
    pub shadow: bool,
}

/// Bytes before an entry's key.
pub const HEAD: usize = 27;

impl<'a> Entry<'a> {
    /// What stands before its key, which may have at most 65,535 bytes.
    #[must_use]
    pub fn head(&self) -> [u8; HEAD] {
        let (kind, first, second) = match self.limit {
            Limit::Rate(Rate { interval, burst }) => (0_u8, interval, burst),
            Limit::Quota(Quota { count, ends }) => (1, count, ends),
        };
        let size = u16::try_from(self.key.len()).unwrap_or(u16::MAX);
        let mut head = [0; HEAD];
        let parts = [
            &[kind | u8::from(self.shadow) << 1][..],
            &first.to_le_bytes(),
            &second.to_le_bytes(),
            &self.cost.to_le_bytes(),
            &size.to_le_bytes(),
        ];
        let bytes = parts.into_iter().flatten();
        head.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
        head
    }

    /// The entry that these bytes begin with, and what follows it.
    #[must_use]
    pub fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (flags, rest) = bytes.split_first()?;
        let (first, rest) = number(rest)?;
        let (second, rest) = number(rest)?;
        let (cost, rest) = number(rest)?;
        let (size, rest) = rest.split_first_chunk::<2>()?;
        let (key, rest) = rest.split_at_checked(u16::from_le_bytes(*size).into())?;
        let limit = match flags & 1 {
            0 => Limit::Rate(Rate { interval: first, burst: second }),
            _ => Limit::Quota(Quota { count: first, ends: second }),
        };
        Some((Self { key, limit, cost: cost.cast_signed(), shadow: flags & 2 != 0 }, rest))
    }
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*number), rest))
}

/// Bytes of a verdict.
pub const VERDICT: usize = 25;

impl Verdict {
    /// As a host answers it. The state stays with the host.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; VERDICT] {
        let mut bytes = [0; VERDICT];
        let parts = [
            &[u8::from(self.state.is_some())][..],
            &self.remaining.to_le_bytes(),
            &self.reset.to_le_bytes(),
            &self.retry.to_le_bytes(),
        ];
        bytes.iter_mut().zip(parts.into_iter().flatten()).for_each(|(place, byte)| *place = *byte);
        bytes
    }

    /// The verdict that these bytes begin with, and what follows it. A state that let pass is shown as 0.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (passes, rest) = bytes.split_first()?;
        let (remaining, rest) = number(rest)?;
        let (reset, rest) = number(rest)?;
        let (retry, rest) = number(rest)?;
        Some((Self { state: (*passes != 0).then_some(0), remaining, reset, retry }, rest))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::{String, ToString as _};
    use std::vec::Vec;
    use std::{format, vec};

    const START: u64 = 1_700_000_000 * SECOND;

    /// Takes costs at these times (ms) and shows each outcome: what remains, or `!` and how many ms to wait.
    fn shown(limit: Limit, takes: &[(u64, u64)]) -> String {
        let mut state = None;
        let outcomes = takes.iter().map(|(ms, cost)| {
            let verdict = limit.take(state, *cost, START + ms * 1_000_000);
            if verdict.state.is_some() {
                state = verdict.state;
                return verdict.remaining.to_string();
            }
            if verdict.retry == u64::MAX { "never".to_string() } else { format!("!{}", verdict.retry / 1_000_000) }
        });
        outcomes.collect::<Vec<_>>().join(" ")
    }

    fn rate(count: u64, per_s: u64, burst: u64) -> Limit {
        Limit::Rate(Rate { interval: per_s * SECOND / count, burst })
    }

    #[test]
    fn a_rate_lets_a_burst_pass_and_then_its_rate() {
        let ones = |times: &[u64]| times.iter().map(|ms| (*ms, 1)).collect::<Vec<_>>();
        for (name, limit, takes, want) in [
            ("burst, then empty", rate(5, 1, 5), ones(&[0, 0, 0, 0, 0, 0]), "4 3 2 1 0 !200"),
            ("one is back after an interval", rate(5, 1, 1), ones(&[0, 199, 200, 200]), "0 !1 0 !200"),
            ("a full one does not grow", rate(5, 1, 5), ones(&[0, 60_000, 60_000]), "4 4 3"),
            ("refusals cost nothing", rate(1, 1, 1), ones(&[0, 1, 2, 999, 1000]), "0 !999 !998 !1 0"),
            ("costs", rate(10, 1, 10), vec![(0, 7), (0, 4), (0, 3), (0, 11), (400, 4)], "3 !100 0 never 0"),
            ("nothing shows how it stands", rate(10, 1, 10), vec![(0, 0), (0, 4), (0, 0)], "10 6 6"),
        ] {
            assert_eq!(shown(limit, &takes), want, "{name}");
        }
    }

    #[test]
    fn a_quota_begins_anew_with_its_window() {
        let limit = |ends_s: u64| Limit::Quota(Quota { count: 10, ends: START + ends_s * SECOND });
        assert_eq!(shown(limit(3600), &[(0, 4), (1, 6), (2, 1), (3, 11)]), "6 0 !3599998 never");
        let used = limit(3600).take(None, 10, START).state;
        assert_eq!(limit(3600).take(used, 1, START).state, None);
        assert_eq!(limit(7200).take(used, 1, START + 3600 * SECOND).remaining, 9);
    }

    #[test]
    fn what_a_response_costs_is_paid_even_where_there_is_no_room() {
        for limit in [rate(10, 1, 10), Limit::Quota(Quota { count: 10, ends: START + 60 * SECOND })] {
            let state = limit.take(None, 8, START).state;
            let back = limit.settle(state, -3, START);
            assert_eq!(limit.take(Some(back), 0, START).remaining, 5);
            let more = limit.settle(state, 1, START);
            assert_eq!(limit.take(Some(more), 0, START).remaining, 1);
            let beyond = limit.settle(state, 100, START);
            assert_eq!(limit.take(Some(beyond), 1, START).state, None);
            let all = limit.settle(state, -100, START);
            assert_eq!(limit.take(Some(all), 0, START).remaining, 10);
        }
    }

    #[test]
    fn entries_and_verdicts_are_read_as_they_were_written() {
        let limits = [rate(10, 1, 7), Limit::Quota(Quota { count: 3, ends: START })];
        for (limit, cost, shadow) in limits.into_iter().flat_map(|limit| [(limit, 2, false), (limit, -9, true)]) {
            let entry = Entry { key: b"a key", limit, cost, shadow };
            let mut bytes = entry.head().to_vec();
            bytes.extend(b"a key and more");
            assert_eq!(Entry::read(&bytes), Some((entry, &b" and more"[..])));
            assert!((0..bytes.len() - 9).all(|size| Entry::read(&bytes[..size]).is_none()));
        }
        for state in [None, Some(0)] {
            let verdict = Verdict { state, remaining: 1, reset: 2, retry: 3 };
            assert_eq!(Verdict::read(&verdict.to_bytes()), Some((verdict, &b""[..])));
        }
        assert_eq!(Verdict::read(&[0; VERDICT - 1]), None);
    }

    #[test]
    fn what_is_owed_beyond_a_burst_is_paid_before_anything_passes_but_not_for_ever() {
        let limit = rate(10, 1, 10);
        let left = |state, after_s: u64| limit.take(Some(state), 1, START + after_s * SECOND);
        let owed = limit.settle(None, 35, START);
        assert_eq!((left(owed, 0).remaining, left(owed, 0).retry), (0, 2 * SECOND + SECOND * 6 / 10));
        assert_eq!((left(owed, 2).state, left(owed, 3).state.is_some()), (None, true));
        let most = limit.settle(None, i64::MAX, START);
        assert_eq!(left(most, 0).reset, MOST_BURSTS * SECOND);
        assert_eq!(limit.settle(Some(most), 1000, START), most);
        assert_eq!(left(limit.settle(Some(most), -95, START), 0).remaining, 4);
    }

    #[test]
    fn a_state_is_over_when_it_says_no_more_than_none() {
        for limit in [rate(10, 1, 10), Limit::Quota(Quota { count: 10, ends: START + 60 * SECOND })] {
            let state = limit.take(None, 5, START).state.unwrap();
            let over = limit.over(state);
            assert!(over > START);
            if let Limit::Rate(_) = limit {
                assert_eq!(limit.take(Some(state), 1, over), limit.take(None, 1, over));
                assert_ne!(limit.take(Some(state), 1, over - 1), limit.take(None, 1, over - 1));
            }
        }
    }

    #[test]
    fn a_clock_that_steps_back_locks_nobody_out_for_longer_than_what_may_be_owed() {
        let verdict = rate(1, 1, 2).take(Some(START + 2 * SECOND), 1, START - 3600 * SECOND);
        assert_eq!((verdict.state, verdict.retry), (None, (2 * MOST_BURSTS - 1) * SECOND));
    }
}
