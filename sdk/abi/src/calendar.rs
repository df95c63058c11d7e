//! Hours, days and months, at a fixed offset from UTC.
//!
//! A data base of time zones would be half of a module's size, so summer time is not known here: the offset is what is written.

use core::fmt;

use crate::limit::SECOND;

/// A unit of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// From one full hour to the next.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From the first day's midnight.
    Month,
}

/// An offset from UTC, in seconds. Written `+02:00`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Zone(i32);

const HOUR_S: i64 = 3600;
const DAY_S: i64 = 86_400;

impl Unit {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Hour, Self::Day, Self::Month];

    /// The unit of this name: `hour`, `day`, `month`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.name() == name)
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// When the one that this moment lies in ends. Both are nanoseconds since the Unix epoch.
    #[must_use]
    pub fn end(self, now: u64, zone: Zone) -> u64 {
        let seconds = i64::try_from(now / SECOND).unwrap_or(0) + i64::from(zone.0);
        let end = match self {
            Self::Hour => (seconds.div_euclid(HOUR_S) + 1) * HOUR_S,
            Self::Day => (seconds.div_euclid(DAY_S) + 1) * DAY_S,
            Self::Month => {
                let (year, month) = month_of(seconds.div_euclid(DAY_S));
                let (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                first_day_of(year, month) * DAY_S
            }
        };
        u64::try_from(end - i64::from(zone.0)).unwrap_or(0) * SECOND
    }

    /// The ends of three windows in a row, of which this moment is in the second: for somebody whose clock is a little off.
    #[must_use]
    pub fn windows(self, now: u64, zone: Zone) -> [u64; 3] {
        let longest = if self == Self::Month { 31 * 86_400 } else { self.seconds() };
        let end = self.end(now, zone);
        let before = end.saturating_sub(1 + u64::from(longest) * SECOND);
        [self.end(before, zone), end, self.end(end, zone)]
    }

    /// How long it takes, in seconds; a month as one of 30 days.
    #[must_use]
    pub const fn seconds(self) -> u32 {
        match self {
            Self::Hour => 3600,
            Self::Day => 86_400,
            Self::Month => 30 * 86_400,
        }
    }
}

/// The year and month of a day, counted from 1970-01-01, in the Gregorian calendar.
fn month_of(day: i64) -> (i64, i64) {
    // Years that begin in March have their leap day at the end; 400 of them have 146,097 days.
    let from_march_0000 = day + 719_468;
    let era = from_march_0000.div_euclid(146_097);
    let day_of_era = from_march_0000.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month)
}

fn first_day_of(year: i64, month: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

impl Zone {
    /// Reads `+02:00`; nothing where it is no offset.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (sign, rest) = match text.split_at_checked(1)? {
            ("+", rest) => (1, rest),
            ("-", rest) => (-1, rest),
            _ => return None,
        };
        let (hours, minutes) =
            rest.split_once(':').filter(|(hours, minutes)| hours.len() == 2 && minutes.len() == 2)?;
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        let (hours, minutes): (i32, i32) = (digits(hours)?, digits(minutes)?);
        (hours <= 14 && minutes < 60).then_some(Self(sign * (hours * 3600 + minutes * 60)))
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, minutes) = (if self.0 < 0 { '-' } else { '+' }, self.0.unsigned_abs() / 60);
        write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString as _;

    use super::*;

    #[test]
    fn zones_and_units_are_read_as_they_were_written() {
        for text in ["+00:00", "+02:00", "-11:00", "+05:30", "-00:30", "+14:00"] {
            assert_eq!(Zone::parse(text).map(|zone| zone.to_string()).as_deref(), Some(text));
        }
        for text in ["", "02:00", "+2:00", "+15:00", "+01:60", "+-1:00", "CET", "+00:+1"] {
            assert_eq!(Zone::parse(text), None, "{text}");
        }
        assert!(Unit::ALL.into_iter().all(|unit| Unit::named(unit.name()) == Some(unit)));
        assert_eq!(Unit::named("week"), None);
    }

    fn end(unit: Unit, now_s: u64, zone: &str) -> u64 {
        unit.end(now_s * SECOND + 1, Zone::parse(zone).unwrap()) / SECOND
    }

    #[test]
    fn units_end_where_the_calendar_says() {
        // 2026-11-27T12:34:56Z; 2024-02-29T00:00:00Z; 2025-12-31T23:59:59Z.
        for (unit, now, zone, want) in [
            (Unit::Hour, 1_795_782_896, "+00:00", 1_795_784_400),
            (Unit::Hour, 1_795_782_896, "+05:30", 1_795_786_200),
            (Unit::Day, 1_795_782_896, "+00:00", 1_795_824_000),
            (Unit::Day, 1_795_782_896, "+02:00", 1_795_816_800),
            (Unit::Day, 1_795_782_896, "-11:00", 1_795_863_600),
            (Unit::Month, 1_795_782_896, "+00:00", 1_796_083_200),
            (Unit::Month, 1_709_164_800, "+00:00", 1_709_251_200),
            (Unit::Month, 1_767_225_599, "+00:00", 1_767_225_600),
            (Unit::Month, 1_767_225_599, "+01:00", 1_769_900_400),
        ] {
            assert_eq!(end(unit, now, zone), want, "{unit:?} {now} {zone}");
        }
    }

    #[test]
    fn windows_follow_each_other() {
        // From 2023-12-15, in steps that fall into every month and over both kinds of February.
        for step in 0..400 {
            let now = (1_702_598_400 + step * 864_000) * SECOND;
            for unit in Unit::ALL {
                let zone = Zone::parse("+05:30").unwrap();
                let [before, end, next] = unit.windows(now, zone);
                assert!(before <= now && now < end && end < next, "{unit:?} {now}");
                assert_eq!((unit.end(before, zone), unit.end(before - 1, zone)), (end, before), "{unit:?} {now}");
            }
        }
    }

    #[test]
    fn a_day_and_its_month_agree_over_centuries() {
        for year in 1970..2400 {
            for month in 1..=12 {
                let first = first_day_of(year, month);
                assert_eq!(month_of(first), (year, month));
                assert_eq!(month_of(first - 1), if month == 1 { (year - 1, 12) } else { (year, month - 1) });
            }
        }
        assert_eq!((first_day_of(1970, 1), first_day_of(2000, 3)), (0, 11_017));
    }
}
