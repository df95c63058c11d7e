//! When clocks change, by rules as POSIX has them in `TZ`: `CET-1CEST,M3.5.0,M10.5.0/3` (IEEE Std 1003.1-2024 §8.3, RFC 9636 §3.3.1).

use super::{DAY_S, first_day_of, month_of};

/// The offsets from UTC that a clock has, in seconds: one, or another one in summer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rule {
    standard: i64,
    summer: Option<Summer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Summer {
    offset: i64,
    begins: Change,
    ends: Change,
}

/// `M10.5.0/3`: on a Sunday (0) in October, the last of them (5), at three by the clock as it is until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Change {
    month: i64,
    week: i64,
    weekday: i64,
    /// Seconds from midnight; they may lead into another day.
    time: i64,
}

/// Where a rule does not say when clocks change.
const TWO_O_CLOCK: i64 = 2 * 3600;
/// How far ahead clocks are in summer where a rule does not say it.
const AHEAD: i64 = 3600;

impl Rule {
    /// Reads a rule. Those by the day of the year are none here: no place changes its clocks so.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (west, rest) = time(after_name(text)?)?;
        let standard = -west;
        if rest.is_empty() {
            return Some(Self { standard, summer: None });
        }
        let rest = after_name(rest)?;
        let (offset, changes) = match rest.strip_prefix(',') {
            Some(changes) => (standard + AHEAD, changes),
            None => {
                let (west, rest) = time(rest)?;
                (-west, rest.strip_prefix(',')?)
            }
        };
        let (begins, ends) = changes.split_once(',')?;
        let summer = Summer { offset, begins: Change::read(begins)?, ends: Change::read(ends)? };
        Some(Self { standard, summer: Some(summer) })
    }

    /// The offset at a moment.
    pub(super) fn offset(&self, at_s: i64) -> i64 {
        let Some(summer) = self.summer else { return self.standard };
        let (year, _) = month_of((at_s + self.standard).div_euclid(DAY_S));
        let begins = summer.begins.of(year) - self.standard;
        let ends = summer.ends.of(year) - summer.offset;
        let is_summer = if begins < ends { (begins..ends).contains(&at_s) } else { !(ends..begins).contains(&at_s) };
        if is_summer { summer.offset } else { self.standard }
    }
}

impl Change {
    fn read(text: &str) -> Option<Self> {
        let (date, time) = match text.split_once('/') {
            Some((date, text)) => (date, time(text).filter(|(_, rest)| rest.is_empty())?.0),
            None => (text, TWO_O_CLOCK),
        };
        let mut numbers = date.strip_prefix('M')?.split('.').map(|number| number.parse().ok());
        let mut next = |most: i64| numbers.next().flatten().filter(|number| (0..=most).contains(number));
        Some(Self { month: next(12)?, week: next(5)?, weekday: next(6)?, time })
    }

    /// Its moment in a year, by the clock as it is until then.
    fn of(self, year: i64) -> i64 {
        let (first, next) = (first_day_of(year, self.month), first_day_of(year, self.month + 1));
        // 1970-01-01 was a Thursday.
        let weekday_of_first = (first + 4).rem_euclid(7);
        let day = first + (self.weekday - weekday_of_first).rem_euclid(7) + (self.week - 1) * 7;
        // The last of a month may be its fourth.
        (if day < next { day } else { day - 7 }) * DAY_S + self.time
    }
}

/// What follows a name of letters, or of anything between `<` and `>`.
fn after_name(text: &str) -> Option<&str> {
    match text.strip_prefix('<') {
        Some(text) => text.split_once('>').map(|(_, rest)| rest),
        None => Some(text.trim_start_matches(|letter: char| letter.is_ascii_alphabetic())),
    }
}

/// `-9:30` in seconds, and what follows.
fn time(text: &str) -> Option<(i64, &str)> {
    let is_part = |letter: char| letter.is_ascii_digit() || "+-:".contains(letter);
    let (written, rest) = text.split_at(text.find(|letter| !is_part(letter)).unwrap_or(text.len()));
    let (sign, digits) = written.strip_prefix('-').map_or((1, written), |digits| (-1, digits));
    let (mut seconds, mut unit) = (0, 3600);
    for part in digits.split(':') {
        seconds += part.parse::<i64>().ok()? * unit;
        unit /= 60;
    }
    Some((sign * seconds, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_rule_of_a_clock_is_not_read() {
        for text in
            ["", "CET", "CET-1CEST", "CET-1CEST,M3.5.0", "CET-1CEST,J60,J300", "CET-1CEST,M3.5.7,M10.5.0", "<CET-1"]
        {
            assert_eq!(Rule::read(text), None, "{text}");
        }
    }

    #[test]
    fn clocks_change_when_the_rule_says() {
        // Half past midnight, UTC, on 2026-03-29 and 2026-10-25; then by the second.
        let berlin = Rule::read("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        assert_eq!([1_774_745_999, 1_774_746_000].map(|at| berlin.offset(at)), [3600, 7200]);
        assert_eq!([1_792_889_999, 1_792_890_000].map(|at| berlin.offset(at)), [7200, 3600]);
        // South of the equator summer goes over New Year's.
        let sydney = Rule::read("AEST-10AEDT,M10.1.0,M4.1.0/3").unwrap();
        assert_eq!([1_767_225_600, 1_775_318_400, 1_790_000_000].map(|at| sydney.offset(at)), [39_600, 36_000, 36_000]);
    }
}
