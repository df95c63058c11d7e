//! Where the calendar's days begin: at an offset from UTC, or as clocks go in a place of the IANA Time Zone Database.
//!
//! Of that data base there is what is true of now and of the years to come: for each rule the places that follow it
//! (`zones.txt`, held against the data base by a test). All of it would be two hundred kilobytes in each module that counts by the calendar.

use core::fmt;

use super::DAY_S;
use super::rule::Rule;

/// A line for each rule: the rule, `@` with the changes that are not by it, if any, and the names. First the edition.
const ZONES: &str = include_str!("zones.txt");

/// An offset from UTC, written `+02:00`, or a place, written `Europe/Berlin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Zone(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// Seconds.
    Offset(i64),
    Place {
        name: &'static str,
        rule: Rule,
        /// `1771120800=0,1774144800=3600`: offsets and when they begin, the first of them holding before too, and the rule after the last.
        changes: Option<&'static str>,
    },
}

/// A text that names no zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoZone {
    /// A place that may be meant.
    pub near: Option<&'static str>,
}

impl fmt::Display for NoZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("neither an offset such as +02:00 nor a time zone such as Europe/Berlin")?;
        self.near.map_or(Ok(()), |near| write!(f, "; `{near}` is close"))
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self(Kind::Offset(0))
    }
}

impl Zone {
    /// The edition of the data base, such as `2026f`.
    #[must_use]
    pub fn edition() -> &'static str {
        ZONES.lines().next().unwrap_or_default()
    }

    /// The names of all places.
    pub fn names() -> impl Iterator<Item = &'static str> {
        lines().flat_map(|line| line.names)
    }

    /// Reads `+02:00` or `Europe/Berlin`.
    ///
    /// # Errors
    /// The name that is nearest, if one is near.
    pub fn parse(text: &str) -> Result<Self, NoZone> {
        let offset = offset(text).map(Kind::Offset);
        let place = || {
            lines().find_map(|Line { rule, changes, mut names }| {
                let name = names.find(|name| *name == text)?;
                Some(Kind::Place { name, rule: Rule::read(rule)?, changes })
            })
        };
        offset.or_else(place).map(Self).ok_or_else(|| NoZone { near: near(text) })
    }

    /// The offset from UTC at a moment. Both are seconds.
    #[must_use]
    pub fn offset(self, at_s: i64) -> i64 {
        let Kind::Place { rule, changes, .. } = self.0 else {
            return if let Kind::Offset(offset) = self.0 { offset } else { 0 };
        };
        let Some(changes) = changes else { return rule.offset(at_s) };
        let mut holds = None;
        for (begins, offset) in changes.split(',').filter_map(|change| change.split_once('=')) {
            let (Ok(begins), Ok(offset)) = (begins.parse::<i64>(), offset.parse()) else { continue };
            if at_s < begins {
                return holds.unwrap_or(offset);
            }
            holds = Some(offset);
        }
        rule.offset(at_s)
    }

    /// When a day begins, counted from 1970-01-01: its first moment, where clocks leave out its midnight, and the first of two midnights.
    pub(super) fn midnight(self, day: i64) -> i64 {
        let local = day * DAY_S;
        // Offsets are at most 14 hours, and no clock changes twice within days.
        let [before, after] = [local - DAY_S, local + DAY_S].map(|at| self.offset(at));
        let (earlier, later) = (local - before, local - after);
        if self.offset(earlier) == before {
            earlier
        } else if self.offset(later) == after {
            later
        } else {
            self.change(later, earlier, after)
        }
    }

    /// The first moment after `from`, and not after `to`, at which an offset holds.
    fn change(self, mut from: i64, mut to: i64, offset: i64) -> i64 {
        while to - from > 1 {
            let between = from.midpoint(to);
            if self.offset(between) == offset {
                to = between;
            } else {
                from = between;
            }
        }
        to
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::Place { name, .. } => f.write_str(name),
            Kind::Offset(offset) => {
                let (sign, minutes) = (if offset < 0 { '-' } else { '+' }, offset.unsigned_abs() / 60);
                write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
            }
        }
    }
}

/// Reads `+02:00`, as seconds.
fn offset(text: &str) -> Option<i64> {
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':').filter(|(hours, minutes)| hours.len() == 2 && minutes.len() == 2)?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let (hours, minutes): (i64, i64) = (digits(hours)?, digits(minutes)?);
    (hours <= 14 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// A line of the table.
struct Line {
    rule: &'static str,
    changes: Option<&'static str>,
    names: core::str::SplitAsciiWhitespace<'static>,
}

fn lines() -> impl Iterator<Item = Line> {
    ZONES.lines().skip(1).filter_map(|line| {
        let (rule, rest) = line.split_once(' ')?;
        let (changes, names) = match rest.strip_prefix('@') {
            Some(rest) => rest.split_once(' ').map(|(changes, names)| (Some(changes), names))?,
            None => (None, rest),
        };
        Some(Line { rule, changes, names: names.split_ascii_whitespace() })
    })
}

/// The name that differs least, if it does not differ much: as a whole, or in what follows its last slash.
fn near(text: &str) -> Option<&'static str> {
    let whole_or_city = |name: &'static str| {
        let city = name.rsplit('/').next().unwrap_or(name);
        distance(text, name).min(distance(text, city))
    };
    let (distance, name) =
        Zone::names().map(|name| (whole_or_city(name), name)).min_by_key(|(distance, _)| *distance)?;
    (distance <= text.len().div_ceil(5)).then_some(name)
}

/// How many letters have to be added, left out or replaced to make one of the other, whatever their case (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    // No name is longer.
    const LONGEST: usize = 40;
    if one.len() > LONGEST || other.len() > LONGEST {
        return usize::MAX;
    }
    let mut row: [usize; LONGEST] = core::array::from_fn(|place| place + 1);
    let mut last = other.len();
    for (place, letter) in one.bytes().enumerate() {
        let mut diagonal = place;
        last = place + 1;
        for (cell, own) in row.iter_mut().zip(other.bytes()) {
            let replaced = diagonal + usize::from(!own.eq_ignore_ascii_case(&letter));
            diagonal = *cell;
            *cell = replaced.min(diagonal + 1).min(last + 1);
            last = *cell;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString as _;

    use super::*;

    #[test]
    fn zones_are_read_as_they_were_written() {
        for text in ["+00:00", "+02:00", "-11:00", "+05:30", "-00:30", "+14:00", "Europe/Berlin", "UTC", "Etc/GMT+5"] {
            assert_eq!(Zone::parse(text).map(|zone| zone.to_string()).as_deref(), Ok(text));
        }
        for (text, near) in [
            ("", None),
            ("02:00", None),
            ("+2:00", None),
            ("+15:00", None),
            ("+01:60", None),
            ("+-1:00", None),
            ("+00:+1", None),
            ("2026f", None),
            ("@0=3600", None),
            ("UTC+2", None),
            ("Berlin", Some("Europe/Berlin")),
            ("Europe/Berln", Some("Europe/Berlin")),
            ("europe/berlin", Some("Europe/Berlin")),
            ("New York", Some("America/New_York")),
            ("Europe/Zürich", Some("Europe/Zurich")),
        ] {
            assert_eq!(Zone::parse(text), Err(NoZone { near }), "{text}");
        }
        assert_eq!(
            Zone::parse("Berlin").unwrap_err().to_string(),
            "neither an offset such as +02:00 nor a time zone such as Europe/Berlin; `Europe/Berlin` is close"
        );
    }

    #[test]
    fn a_day_that_clocks_go_back_over_goes_on() {
        // As in Newfoundland until 2011: at one minute past midnight it is 23:01 again, and so on 2011-11-06.
        let rule = Rule::read("NST3:30NDT,M3.2.0/0:01,M11.1.0/0:01").unwrap();
        let zone = Zone(Kind::Place { name: "", rule, changes: None });
        let back = 1_320_546_660;
        assert_eq!([back - 1, back].map(|at| zone.offset(at)), [-9000, -12_600]);
        let end = |at: i64| super::super::Unit::Day.end(at.cast_unsigned() * 1_000_000_000, zone) / 1_000_000_000;
        let (sunday, monday) = (back.cast_unsigned() - 60, back.cast_unsigned() - 60 + 25 * 3600);
        assert_eq!(
            [back - 61, back - 60, back - 1, back, back + 3600].map(end),
            [sunday, monday, monday, monday, monday]
        );
    }
}
