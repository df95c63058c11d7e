//! The text that Prometheus scrapes, format 0.0.4.
//!
//! Written here rather than by `prometheus-client`: that crate writes OpenMetrics only, whose counters are typed under a name
//! without `_total`. A scraper that reads it as 0.0.4, and every tool beside Prometheus itself does, takes them for untyped. It
//! also wants to own the cells, while ours belong to workers and are added up here.

use std::fmt::{Display, Write as _};

use super::cells::Distribution;

/// Names and values.
pub(super) type Labels<'a> = [(&'a str, &'a str)];

/// The text so far.
#[derive(Debug, Default)]
pub(super) struct Exposition(String);

impl Exposition {
    pub(super) fn into_text(self) -> String {
        self.0
    }

    /// How many bytes it would have were all its zeros large numbers.
    pub(super) fn most_bytes(&self) -> usize {
        const DIGITS: usize = 12;
        self.0.len() + self.0.lines().filter(|line| !line.starts_with('#')).count() * DIGITS
    }

    /// Begins a metric. Its samples follow before the next begins.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.put(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    pub(super) fn sample(&mut self, name: &str, labels: &Labels<'_>, value: impl Display) {
        self.labelled(name, "", labels, None, value);
    }

    /// A histogram's samples, in seconds.
    pub(super) fn histogram<const N: usize>(
        &mut self,
        name: &str,
        labels: &Labels<'_>,
        distribution: &Distribution<N>,
    ) {
        let buckets = distribution.bounds.map(Seconds).into_iter().zip(distribution.buckets);
        self.cumulative(name, labels, buckets, distribution.above, Seconds(distribution.nanos));
    }

    /// A histogram's samples: how many fell into each bucket alone, how many lay above all, and the sum.
    pub(super) fn cumulative(
        &mut self,
        name: &str,
        labels: &Labels<'_>,
        buckets: impl Iterator<Item = (impl Display, u64)>,
        above: u64,
        sum: impl Display,
    ) {
        let mut below = 0;
        for (bound, count) in buckets {
            below += count;
            self.labelled(name, "_bucket", labels, Some(&bound), below);
        }
        let all = below + above;
        self.labelled(name, "_bucket", labels, Some(&"+Inf"), all);
        self.labelled(name, "_sum", labels, None, sum);
        self.labelled(name, "_count", labels, None, all);
    }

    /// A summary without quantiles: a sum and a count.
    pub(super) fn sum(&mut self, name: &str, labels: &Labels<'_>, sum: u64, count: u64) {
        self.labelled(name, "_sum", labels, None, sum);
        self.labelled(name, "_count", labels, None, count);
    }

    fn labelled(
        &mut self,
        name: &str,
        suffix: &str,
        labels: &Labels<'_>,
        bound: Option<&dyn Display>,
        value: impl Display,
    ) {
        self.put(format_args!("{name}{suffix}"));
        let mut mark = '{';
        // An empty value means the same as no label.
        for (label, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
            self.put(format_args!("{mark}{label}=\""));
            self.escaped(value);
            self.0.push('"');
            mark = ',';
        }
        if let Some(bound) = bound {
            self.put(format_args!("{mark}le=\"{bound}\""));
            mark = ',';
        }
        let close = if mark == ',' { "}" } else { "" };
        self.put(format_args!("{close} {value}\n"));
    }

    fn escaped(&mut self, value: &str) {
        for letter in value.chars() {
            match letter {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                letter => self.0.push(letter),
            }
        }
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        let written = self.0.write_fmt(text);
        debug_assert!(written.is_ok(), "a string takes everything");
    }
}

/// Nanoseconds, shown as seconds: exactly, and without needless zeros.
pub(super) struct Seconds(pub(super) u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, nanos) = (self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        if nanos == 0 {
            return write!(f, "{whole}");
        }
        let fraction = format!("{nanos:09}");
        write!(f, "{whole}.{}", fraction.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::cells::{Histogram, OVERHEAD_BOUNDS};

    #[test]
    fn seconds_are_exact() {
        for (nanos, want) in [(0, "0"), (25_000, "0.000025"), (1_000_000_000, "1"), (2_500_000_001, "2.500000001")] {
            assert_eq!(Seconds(nanos).to_string(), want);
        }
    }

    #[test]
    fn label_values_are_escaped_and_empty_ones_left_out() {
        let mut text = Exposition::default();
        text.sample("a", &[("x", "q\"b\\n\nü"), ("y", "")], 1);
        text.sample("a", &[("y", "")], 2);
        assert_eq!(text.into_text(), "a{x=\"q\\\"b\\\\n\\nü\"} 1\na 2\n");
    }

    #[test]
    fn a_histogram_is_cumulative() {
        let histogram = Histogram::new(&OVERHEAD_BOUNDS);
        for micros in [20, 30, 2_000_000] {
            histogram.observe(std::time::Duration::from_micros(micros));
        }
        let (mut text, mut distribution) = (Exposition::default(), Distribution::new(&OVERHEAD_BOUNDS));
        distribution.add(&histogram);
        text.histogram("a", &[("x", "y")], &distribution);
        let text = text.into_text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), OVERHEAD_BOUNDS.len() + 3);
        assert_eq!(lines[..2], ["a_bucket{x=\"y\",le=\"0.000025\"} 1", "a_bucket{x=\"y\",le=\"0.00005\"} 2"]);
        assert_eq!(lines[12..], ["a_bucket{x=\"y\",le=\"+Inf\"} 3", "a_sum{x=\"y\"} 2.00005", "a_count{x=\"y\"} 3"]);
    }
}
