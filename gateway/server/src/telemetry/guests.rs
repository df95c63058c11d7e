//! What guests count themselves.
//!
//! A guest's name for a metric is the value of a label, not the name of a metric: it may be any bytes, two tenants may mean
//! different things by one, and none can pass for a metric of the gateway's. Two names of one guest are never shown as one.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use portcullis_vm::{BUCKETS, Metric, MetricValue, VmCells};

use super::exposition::Exposition;
use super::filters::{Name, name_of};
use super::room::{GUESTS, Ledger, OVERFLOW};

/// The most bytes of a line, but for what guests and the configuration name.
const LINE_BYTES: usize = 100;
/// The bounds of a histogram's buckets; the last of [`BUCKETS`] holds everything.
const BOUNDS: usize = BUCKETS.len() - 1;

/// The metrics that have series of their own, by their addresses.
#[derive(Debug)]
pub(super) struct Guests {
    admitted: HashMap<usize, Admitted>,
    ledger: Ledger,
}

/// Holding the metric keeps its address from being given to another.
#[derive(Debug)]
struct Admitted {
    metric: Arc<Metric>,
    tenant: Arc<str>,
    bytes: usize,
}

impl Default for Guests {
    fn default() -> Self {
        Self { admitted: HashMap::new(), ledger: Ledger::of(&GUESTS) }
    }
}

/// A metric as it is shown.
#[derive(Debug)]
pub(super) struct Shown {
    of: Name,
    name: String,
    value: MetricValue,
}

impl Guests {
    /// What is shown of the metrics of these VMs' guests.
    pub(super) fn read(&mut self, vms: &[Arc<VmCells>]) -> Vec<Shown> {
        for (_, gone) in self.admitted.extract_if(|_, admitted| Arc::strong_count(&admitted.metric) == 1) {
            self.ledger.give_back(&gone.tenant, gone.bytes);
        }
        // All VMs of a plugin and tenant have the same.
        let each: BTreeMap<Name, _> = vms.iter().map(|cells| (name_of(cells), &cells.metrics)).collect();
        let (mut shown, mut rest) = (Vec::new(), Rest::default());
        for (of, metrics) in each {
            for metric in metrics.all() {
                let value = metric.value();
                match self.name(&of, metric) {
                    Some(name) => shown.push(Shown { of: of.clone(), name, value }),
                    None => rest.add(value),
                }
            }
        }
        shown.extend(rest.shown());
        shown
    }

    /// What it is called, if it has a series of its own.
    fn name(&mut self, (plugin, tenant): &Name, metric: Arc<Metric>) -> Option<String> {
        let name = shown_name(metric.name());
        let address = Arc::as_ptr(&metric).addr();
        if !self.admitted.contains_key(&address) {
            let lines = if let MetricValue::Histogram { .. } = metric.value() { BOUNDS + 3 } else { 1 };
            // Quotes and backslashes become two bytes each.
            let bytes = lines * (LINE_BYTES + plugin.len() + tenant.len() + 2 * name.len());
            if !self.ledger.take(tenant, bytes) {
                return None;
            }
            self.admitted.insert(address, Admitted { metric, tenant: tenant.clone(), bytes });
        }
        Some(name)
    }
}

/// Metrics that found no room, all in one of their kind.
#[derive(Debug, Default)]
struct Rest {
    counter: Option<u64>,
    gauge: Option<u64>,
    histogram: Option<(u64, [u64; BUCKETS.len()])>,
}

impl Rest {
    fn add(&mut self, value: MetricValue) {
        match value {
            MetricValue::Counter(more) => self.counter = Some(self.counter.unwrap_or(0).wrapping_add(more)),
            MetricValue::Gauge(more) => self.gauge = Some(self.gauge.unwrap_or(0).saturating_add(more)),
            MetricValue::Histogram { sum: more, buckets } => {
                let (sum, counts) = self.histogram.get_or_insert_default();
                *sum = sum.wrapping_add(more);
                counts.iter_mut().zip(buckets).for_each(|(count, more)| *count += more);
            }
        }
    }

    fn shown(self) -> impl Iterator<Item = Shown> {
        let histogram = self.histogram.map(|(sum, buckets)| MetricValue::Histogram { sum, buckets });
        let values = [self.counter.map(MetricValue::Counter), self.gauge.map(MetricValue::Gauge), histogram];
        let name = || Arc::<str>::from(OVERFLOW);
        values.into_iter().flatten().map(move |value| Shown { of: (name(), name()), name: OVERFLOW.to_owned(), value })
    }
}

/// A name as text, from which it can be told: what is no UTF-8, or no letter, is `\xNN` or `\u{NN}`, a backslash two.
///
/// One without a name stands for all those that a guest defined beyond its bound.
fn shown_name(name: &[u8]) -> String {
    if name.is_empty() {
        return OVERFLOW.to_owned();
    }
    let mut shown = String::new();
    if name == OVERFLOW.as_bytes() {
        shown.push('\\');
    }
    for chunk in name.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\\' => shown.push_str("\\\\"),
                letter if letter.is_ascii_control() => _ = write!(shown, "\\x{:02x}", u32::from(letter)),
                letter if letter.is_control() => _ = write!(shown, "{}", letter.escape_unicode()),
                letter => shown.push(letter),
            }
        }
        for byte in chunk.invalid() {
            _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

pub(super) fn render(text: &mut Exposition, all: &[Shown]) {
    let mut family = |name: &str, kind: &str, help: &str, write: fn(&mut Exposition, &str, &Shown)| {
        text.family(name, kind, help);
        all.iter().for_each(|shown| write(text, name, shown));
    };
    let help = "Counters of guests, by what the guest calls them.";
    family("portcullis_guest_events_total", "counter", help, |text, name, shown| {
        if let MetricValue::Counter(value) = shown.value {
            text.sample(name, &shown.labels(), value);
        }
    });
    let help = "Gauges of guests, by what the guest calls them.";
    family("portcullis_guest_level", "gauge", help, |text, name, shown| {
        if let MetricValue::Gauge(value) = shown.value {
            text.sample(name, &shown.labels(), value);
        }
    });
    let help = "Histograms of guests, by what the guest calls them.";
    family("portcullis_guest_values", "histogram", help, |text, name, shown| {
        if let MetricValue::Histogram { sum, buckets } = &shown.value {
            let all = BUCKETS.into_iter().zip(*buckets);
            text.cumulative(name, &shown.labels(), all.take(BOUNDS), buckets.iter().skip(BOUNDS).sum(), sum);
        }
    });
}

impl Shown {
    fn labels(&self) -> [(&str, &str); 3] {
        [("plugin", &self.of.0), ("tenant", &self.of.1), ("name", &self.name)]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_names_look_alike() {
        let names: [&[u8]; 13] = [
            b"a",
            b"a\\x00",
            b"a\x00",
            b"a\\",
            b"a\\\\",
            b"\xff",
            b"\\xff",
            b"\\\xff",
            b"_overflow",
            b"\\_overflow",
            "ÿ".as_bytes(),
            "a\u{9f}".as_bytes(),
            b"a\x9f",
        ];
        let shown: HashSet<String> = names.iter().map(|name| shown_name(name)).collect();
        assert_eq!(shown.len(), names.len(), "{shown:?}");
        assert!(!shown.contains(OVERFLOW) && shown.iter().all(|name| !name.contains(char::is_control)));
    }
}
