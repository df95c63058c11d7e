//! Hours, days and months, as clocks show them somewhere.
//!
//! A day is from one midnight to the next, so it has 23 or 25 hours where clocks change; an hour is from one full hour to the
//! next, so the one that is there twice is two.

mod rule;
mod zone;

pub use self::zone::{NoZone, Zone};
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
        let now = i64::try_from(now / SECOND).unwrap_or(0);
        let local = now + zone.offset(now);
        let day = local.div_euclid(DAY_S);
        let end = match self {
            // Clocks change by whole hours or at a full one, so the next is as far away as it looks.
            Self::Hour => now + HOUR_S - local.rem_euclid(HOUR_S),
            Self::Day => first_after(now, zone, [day + 1, day + 2]),
            Self::Month => {
                let (year, month) = month_of(day);
                first_after(now, zone, [first_day_of(year, month + 1), first_day_of(year, month + 2)])
            }
        };
        u64::try_from(end).unwrap_or(0) * SECOND
    }

    /// The ends of three windows in a row, of which this moment is in the second: for somebody whose clock is a little off.
    #[must_use]
    pub fn windows(self, now: u64, zone: Zone) -> [u64; 3] {
        let longest = match self {
            Self::Hour => self.seconds(),
            // Some clocks go back by two hours.
            Self::Day => self.seconds() + 2 * 3600,
            Self::Month => 31 * 86_400 + 2 * 3600,
        };
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

/// When the first of two days begins, or, where clocks went back over its midnight and it has begun already, the second.
fn first_after(now: i64, zone: Zone, [first, second]: [i64; 2]) -> i64 {
    let begins = zone.midnight(first);
    if begins > now { begins } else { zone.midnight(second) }
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

/// The first day of a month, which may be one of the next year's: the 13th is January.
fn first_day_of(year: i64, month: i64) -> i64 {
    let (year, month) = (year + (month - 1).div_euclid(12), (month - 1).rem_euclid(12) + 1);
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_have_their_names() {
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
