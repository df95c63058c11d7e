//! Guests' own metrics: numbers that all VMs of one plugin of one tenant share, on every worker and through every failure.
//!
//! A VM's ids are Envoy's: counters 4, 8, 12…, gauges 5, 9…, histograms 6, 10…. Where Envoy gives a metric that is defined again a
//! second id, this gives the first, which a guest cannot tell apart and which keeps the table bounded. Whoever publishes them
//! reads [`GuestMetrics`]; names are the guest's, any bytes at all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_abi::{MetricType, Status};

/// The most metrics of one plugin of one tenant. Beyond it definitions share one metric of their kind, whose name is empty:
/// `define_metric` may answer nothing but `Ok`.
pub const MOST_METRICS: usize = 1024;
/// The most bytes of a name; what is beyond is cut off.
pub const METRIC_NAME_BYTES: usize = 1024;
/// The upper bounds of a histogram's buckets; values are whole numbers of whatever the guest counts. Envoy's.
pub const BUCKETS: [u64; 19] = [
    1,
    5,
    10,
    25,
    50,
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    30_000,
    60_000,
    300_000,
    600_000,
    1_800_000,
    3_600_000,
    u64::MAX,
];

/// The metrics of one plugin of one tenant. Writers do not wait for each other, nor for readers.
#[derive(Debug, Default)]
pub struct GuestMetrics(Mutex<Definitions>);

#[derive(Debug, Default)]
struct Definitions {
    places: HashMap<(MetricType, Box<[u8]>), usize>,
    metrics: Vec<Arc<Metric>>,
}

/// One metric.
#[derive(Debug)]
pub struct Metric {
    name: Box<[u8]>,
    cells: Cells,
}

#[derive(Debug)]
enum Cells {
    Counter(AtomicU64),
    Gauge(AtomicU64),
    Histogram(Box<Distribution>),
}

#[derive(Debug, Default)]
struct Distribution {
    sum: AtomicU64,
    buckets: [AtomicU64; BUCKETS.len()],
}

/// What a metric stands at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricValue {
    /// A counter.
    Counter(u64),
    /// A gauge.
    Gauge(u64),
    /// A histogram.
    Histogram {
        /// What all recorded values add up to, round the clock.
        sum: u64,
        /// How many values fell into each of [`BUCKETS`], not adding up.
        buckets: [u64; BUCKETS.len()],
    },
}

impl Metric {
    fn new(kind: MetricType, name: &[u8]) -> Self {
        let cells = match kind {
            MetricType::Counter => Cells::Counter(AtomicU64::default()),
            MetricType::Gauge => Cells::Gauge(AtomicU64::default()),
            MetricType::Histogram => Cells::Histogram(Box::default()),
        };
        Self { name: name.into(), cells }
    }

    /// What its guest calls it.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// What it stands at.
    #[must_use]
    pub fn value(&self) -> MetricValue {
        match &self.cells {
            Cells::Counter(value) => MetricValue::Counter(value.load(Ordering::Relaxed)),
            Cells::Gauge(value) => MetricValue::Gauge(value.load(Ordering::Relaxed)),
            Cells::Histogram(distribution) => MetricValue::Histogram {
                sum: distribution.sum.load(Ordering::Relaxed),
                buckets: distribution.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed)),
            },
        }
    }
}

impl GuestMetrics {
    /// All of them, in the order in which they were defined.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Metric>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).metrics.clone()
    }

    fn define(&self, kind: MetricType, name: &[u8]) -> Arc<Metric> {
        let name = name.get(..METRIC_NAME_BYTES).unwrap_or(name);
        let mut definitions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Definitions { places, metrics } = &mut *definitions;
        let known = |name: &[u8]| places.get(&(kind, name.into())).and_then(|place| metrics.get(*place)).cloned();
        let is_full = metrics.len() >= MOST_METRICS;
        let name = if is_full && known(name).is_none() { &b""[..] } else { name };
        known(name).unwrap_or_else(|| {
            let metric = Arc::new(Metric::new(kind, name));
            places.insert((kind, name.into()), metrics.len());
            metrics.push(metric.clone());
            metric
        })
    }
}

/// The metrics that one VM has defined, by its ids.
#[derive(Clone, Debug)]
pub(crate) struct Defined {
    of: Arc<GuestMetrics>,
    /// Shared with copies of the VM, until one of them defines another.
    known: Arc<Known>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    ids: HashMap<(MetricType, Box<[u8]>), u32>,
    metrics: Vec<Arc<Metric>>,
}

impl Defined {
    pub(crate) fn none(of: Arc<GuestMetrics>) -> Self {
        Self { of, known: Arc::default() }
    }

    /// The id of the metric of this name, made if need be.
    pub(crate) fn define(&mut self, kind: MetricType, name: &[u8]) -> u32 {
        let metric = self.of.define(kind, name);
        if let Some(id) = self.known.ids.get(&(kind, metric.name.clone())) {
            return *id;
        }
        let known = Arc::make_mut(&mut self.known);
        let place = u32::try_from(known.metrics.len()).unwrap_or(u32::MAX / 8);
        let id = (place + 1) * 4 + u32::from(kind);
        known.ids.insert((kind, metric.name.clone()), id);
        known.metrics.push(metric);
        id
    }

    fn cells(&self, id: u32) -> Result<&Cells, Status> {
        let place = (id / 4).checked_sub(1).ok_or(Status::NotFound)? as usize;
        let metric = self.known.metrics.get(place).ok_or(Status::NotFound)?;
        let kind = match metric.cells {
            Cells::Counter(_) => MetricType::Counter,
            Cells::Gauge(_) => MetricType::Gauge,
            Cells::Histogram(_) => MetricType::Histogram,
        };
        if id % 4 == u32::from(kind) { Ok(&metric.cells) } else { Err(Status::NotFound) }
    }

    /// The cells behind an id for what a histogram has not: as on Envoy, an id of that kind need not exist to be refused.
    fn countable(&self, id: u32) -> Result<&Cells, Status> {
        if id % 4 >= u32::from(MetricType::Histogram) { Err(Status::BadArgument) } else { self.cells(id) }
    }

    /// Adds to a counter or a gauge. A gauge does not go below zero, where Envoy's wraps around.
    pub(crate) fn increment(&self, id: u32, delta: i64) -> Result<(), Status> {
        match (self.countable(id)?, delta) {
            (Cells::Counter(value), 1..) => _ = value.fetch_add(delta.unsigned_abs(), Ordering::Relaxed),
            (Cells::Gauge(value), _) => {
                let add = |value: u64| Some(value.saturating_add_signed(delta));
                let _always_ok = value.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
            }
            (Cells::Counter(_) | Cells::Histogram(_), _) => return Err(Status::BadArgument),
        }
        Ok(())
    }

    /// Records a value: added to a counter, set on a gauge, counted by a histogram. The ABI's number is unsigned; what would be
    /// negative is a gauge's 0.
    pub(crate) fn record(&self, id: u32, recorded: i64) -> Result<(), Status> {
        match self.cells(id)? {
            Cells::Counter(value) => _ = value.fetch_add(recorded.cast_unsigned(), Ordering::Relaxed),
            Cells::Gauge(value) => value.store(u64::try_from(recorded).unwrap_or(0), Ordering::Relaxed),
            Cells::Histogram(distribution) => distribution.record(recorded.cast_unsigned()),
        }
        Ok(())
    }

    /// What a counter or a gauge stands at.
    pub(crate) fn get(&self, id: u32) -> Result<u64, Status> {
        match self.countable(id)? {
            Cells::Counter(value) | Cells::Gauge(value) => Ok(value.load(Ordering::Relaxed)),
            Cells::Histogram(_) => Err(Status::BadArgument),
        }
    }
}

impl Distribution {
    fn record(&self, value: u64) {
        self.sum.fetch_add(value, Ordering::Relaxed);
        let bucket = BUCKETS.iter().zip(&self.buckets).find(|(bound, _)| value <= **bound);
        if let Some((_, count)) = bucket {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_follow_the_reference_table() {
        let mut metrics = Defined::none(Arc::default());
        let counter = metrics.define(MetricType::Counter, b"c");
        let gauge = metrics.define(MetricType::Gauge, b"g");
        let histogram = metrics.define(MetricType::Histogram, b"h");
        assert_eq!([counter % 4, gauge % 4, histogram % 4], [0, 1, 2]);
        assert_eq!(metrics.define(MetricType::Counter, b"c"), counter);
        for (id, delta, want, value) in [
            (counter, 5, Ok(()), Ok(5)),
            (counter, 0, Err(Status::BadArgument), Ok(5)),
            (counter, -1, Err(Status::BadArgument), Ok(5)),
            (gauge, 3, Ok(()), Ok(3)),
            (gauge, -9, Ok(()), Ok(0)),
            (histogram, 1, Err(Status::BadArgument), Err(Status::BadArgument)),
            (0, 1, Err(Status::NotFound), Err(Status::NotFound)),
            (counter + 1, 1, Err(Status::NotFound), Err(Status::NotFound)),
            (u32::MAX, 1, Err(Status::BadArgument), Err(Status::BadArgument)),
        ] {
            assert_eq!(metrics.increment(id, delta), want, "{id} {delta}");
            assert_eq!(metrics.get(id), value, "{id} {delta}");
        }
        assert_eq!(metrics.record(counter, 2), Ok(()));
        assert_eq!(metrics.record(gauge, 7), Ok(()));
        assert_eq!(metrics.record(histogram, 7), Ok(()));
        assert_eq!(metrics.record(4096, 7), Err(Status::NotFound));
        assert_eq!((metrics.get(counter), metrics.get(gauge)), (Ok(7), Ok(7)));
    }

    #[test]
    fn vms_of_a_plugin_count_together_and_whoever_publishes_sees_it() {
        let shared = Arc::<GuestMetrics>::default();
        let [mut one, mut two] = [(); 2].map(|()| Defined::none(shared.clone()));
        one.define(MetricType::Gauge, b"other");
        let ids = [one.define(MetricType::Counter, b"n"), two.define(MetricType::Counter, b"n")];
        assert_eq!(ids, [8, 4], "ids are the VM's own");
        one.increment(8, 2).unwrap();
        two.increment(4, 3).unwrap();
        assert_eq!(one.get(8), Ok(5));
        let histogram = two.define(MetricType::Histogram, b"ms");
        [0, 1, 2, 7, 7, u64::MAX >> 1].into_iter().for_each(|ms| two.record(histogram, ms as i64).unwrap());
        drop((one, two));
        let seen: Vec<_> = shared.all().iter().map(|metric| (metric.name().to_vec(), metric.value())).collect();
        let [(_, gauge), (name, counter), (_, MetricValue::Histogram { sum, buckets })] = &seen[..] else {
            panic!("{seen:?}")
        };
        assert_eq!((gauge, &name[..], counter), (&MetricValue::Gauge(0), &b"n"[..], &MetricValue::Counter(5)));
        assert_eq!((*sum, &buckets[..3], buckets[BUCKETS.len() - 1]), (17 + (u64::MAX >> 1), &[2, 1, 2][..], 1));
    }

    #[test]
    fn definitions_beyond_the_limit_share_one_metric() {
        let shared = Arc::<GuestMetrics>::default();
        let mut metrics = Defined::none(shared.clone());
        let ids: Vec<u32> =
            (0..MOST_METRICS + 50).map(|n| metrics.define(MetricType::Counter, &n.to_le_bytes())).collect();
        assert_eq!(ids[MOST_METRICS], ids[MOST_METRICS + 49]);
        assert_eq!(metrics.define(MetricType::Counter, &7_usize.to_le_bytes()), ids[7], "what is known stays known");
        metrics.define(MetricType::Gauge, b"more");
        assert!(shared.all().len() <= MOST_METRICS + 3);
        let long = Defined::none(Arc::default()).of.define(MetricType::Gauge, &[b'n'; METRIC_NAME_BYTES + 9]);
        assert_eq!(long.name().len(), METRIC_NAME_BYTES);
    }
}
