//! `/stats`: how the gateway fares, on one screen for people.
//!
//! Everything since the start; of long lists, those that have most to do.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use super::logging::log_filter;
use super::metrics::{Metrics, Now};
use super::told::Sight;
use super::{filters, rollouts, tenants, upstreams};

/// How many lines of each kind.
const LINES: usize = 10;

/// A list: names of its columns, and lines, each with how much it has to do.
pub(super) struct Table<const N: usize> {
    pub(super) columns: [&'static str; N],
    pub(super) lines: Vec<(u64, [String; N])>,
}

pub(super) fn page(metrics: &Metrics, sight: &Sight, started: SystemTime) -> String {
    let mut page = format!("Portcullis {}, started {} ago", env!("CARGO_PKG_VERSION"), ago(started));
    if let Some(filter) = log_filter() {
        put(&mut page, format_args!(", logs {filter}"));
    }
    page.push('\n');
    if let Some(revision) = &sight.revision {
        put(
            &mut page,
            format_args!("revision {} ({}) since {}", revision.number, revision.digest, ago(revision.since)),
        );
        let refused = match (sight.refusals, revision.is_last) {
            (0, _) => "",
            (_, true) => "; changes before it were refused",
            (_, false) => "; THE LAST CHANGE WAS REFUSED: see /revision",
        };
        put(&mut page, format_args!("{refused}\n"));
    }
    let Now { active, open, accepted, refused, timed_out, floods } = metrics.now();
    put(
        &mut page,
        format_args!(
            "connections: {open} open of {accepted}, {refused} refused, {timed_out} timed out, {floods} floods\n"
        ),
    );
    let (routes, [good, moved, bad, failed, unanswered]) = metrics.by_route();
    put(
        &mut page,
        format_args!(
            "requests: {active} under way; {good} 2xx, {moved} 3xx, {bad} 4xx, {failed} 5xx, {unanswered} unanswered\n"
        ),
    );
    routes.write(&mut page);
    upstreams::table(&sight.upstreams).write(&mut page);
    filters::table(&sight.filters).write(&mut page);
    for tenant in sight.held.keys() {
        put(&mut page, format_args!("tenant {tenant}: ITS LAST CHANGE WAS REFUSED: see /revision\n"));
    }
    for line in tenants::apart(&sight.accounts) {
        put(&mut page, format_args!("{line}\n"));
    }
    for rollout in &sight.rollouts {
        put(&mut page, format_args!("{}\n", rollouts::line(rollout)));
    }
    for trouble in &sight.troubles {
        put(&mut page, format_args!("{trouble}\n"));
    }
    page
}

fn put(page: &mut String, text: std::fmt::Arguments<'_>) {
    let written = page.write_fmt(text);
    debug_assert!(written.is_ok(), "a string takes everything");
}

impl<const N: usize> Table<N> {
    fn write(mut self, page: &mut String) {
        if self.lines.is_empty() {
            return;
        }
        self.lines.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
        let more = self.lines.len().saturating_sub(LINES);
        self.lines.truncate(LINES);
        let widths: [usize; N] = std::array::from_fn(|column| {
            let cells = self.lines.iter().filter_map(|(_, line)| line.get(column)).map(|cell| cell.chars().count());
            cells.chain(self.columns.get(column).map(|name| name.len())).max().unwrap_or(0)
        });
        page.push('\n');
        let heads = self.columns.map(str::to_owned);
        for line in std::iter::once(&heads).chain(self.lines.iter().map(|(_, line)| line)) {
            // Names to the left, numbers to the right.
            let cells =
                line.iter().zip(widths).map(|(cell, width)| match cell.starts_with(|c: char| c.is_ascii_digit()) {
                    true => format!("{cell:>width$}"),
                    false => format!("{cell:<width$}"),
                });
            put(page, format_args!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end()));
        }
        if more > 0 {
            put(page, format_args!("and {more} more\n"));
        }
    }
}

/// How long ago something was, roughly.
fn ago(time: SystemTime) -> String {
    roughly(SystemTime::now().duration_since(time).unwrap_or_default())
}

/// A length of time in its two largest units.
pub(super) fn roughly(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// What each of so many took, in this unit.
pub(super) fn mean(nanos: u64, count: u64, unit: Duration) -> String {
    let each = Duration::from_nanos(nanos / count.max(1));
    format!("{:.2}", each.as_secs_f64() / unit.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_said_in_two_units() {
        for (seconds, want) in [(5, "5 s"), (65, "1 min 5 s"), (7260, "2 h 1 min"), (90_000, "1 d 1 h")] {
            assert_eq!(roughly(Duration::from_secs(seconds)), want);
        }
        assert_eq!(mean(3_000_000, 2, Duration::from_millis(1)), "1.50");
    }

    #[test]
    fn of_many_lines_those_with_most_to_do_are_shown() {
        let line = |weight: u64| (weight, [format!("n{weight}"), weight.to_string()]);
        let mut page = String::new();
        Table { columns: ["NAME", "COUNT"], lines: (1..=12).map(line).collect() }.write(&mut page);
        let lines: Vec<_> = page.lines().collect();
        assert_eq!(
            (lines[1], lines[2], lines[11], lines[12]),
            ("NAME  COUNT", "n12      12", "n3        3", "and 2 more")
        );
    }
}
