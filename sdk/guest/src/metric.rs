//! Metrics: the host publishes them beside its own.

use portcullis_abi::MetricType;

use crate::sys;

/// Something that only grows.
///
/// ```
/// # use portcullis_sdk::{Host, metric::Counter};
/// fn refusals(host: &Host) -> Counter {
///     host.counter("geo_refused")
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Counter(Option<u32>);

impl Counter {
    pub(crate) fn new(name: &str) -> Self {
        Self(defined(MetricType::Counter, name))
    }

    /// One more.
    ///
    /// ```
    /// # use portcullis_sdk::metric::Counter;
    /// fn refused(count: &Counter) {
    ///     count.increment();
    /// }
    /// ```
    pub fn increment(&self) {
        self.add(1);
    }

    /// So many more.
    ///
    /// ```
    /// # use portcullis_sdk::metric::Counter;
    /// fn sent(bytes: &Counter, body: &[u8]) {
    ///     bytes.add(body.len() as u64);
    /// }
    /// ```
    pub fn add(&self, count: u64) {
        // Hosts refuse to add nothing.
        if let (Some(id), Ok(count @ 1..)) = (self.0, i64::try_from(count)) {
            let _gone = sys::increment_metric(id, count);
        }
    }

    /// What it stands at, over all workers.
    ///
    /// ```
    /// # use portcullis_sdk::metric::Counter;
    /// fn is_first(seen: &Counter) -> bool {
    ///     seen.get() == 0
    /// }
    /// ```
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.and_then(|id| sys::metric(id).ok()).unwrap_or(0)
    }
}

/// Something that goes up and down.
///
/// ```
/// # use portcullis_sdk::{Host, metric::Gauge};
/// fn sessions(host: &Host, count: u64) {
///     let gauge: Gauge = host.gauge("sessions");
///     gauge.set(count);
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Gauge(Option<u32>);

impl Gauge {
    pub(crate) fn new(name: &str) -> Self {
        Self(defined(MetricType::Gauge, name))
    }

    /// Sets it.
    ///
    /// ```
    /// # use portcullis_sdk::metric::Gauge;
    /// fn tell(open: &Gauge, sessions: &[u32]) {
    ///     open.set(sessions.len() as u64);
    /// }
    /// ```
    pub fn set(&self, value: u64) {
        if let Some(id) = self.0 {
            let _gone = sys::record_metric(id, value);
        }
    }

    /// What it stands at.
    ///
    /// ```
    /// # use portcullis_sdk::metric::Gauge;
    /// fn is_idle(open: &Gauge) -> bool {
    ///     open.get() == 0
    /// }
    /// ```
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.and_then(|id| sys::metric(id).ok()).unwrap_or(0)
    }
}

/// A distribution.
///
/// ```
/// # use portcullis_sdk::{Host, metric::Histogram};
/// fn sizes(host: &Host) -> Histogram {
///     host.histogram("body_bytes")
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Histogram(Option<u32>);

impl Histogram {
    pub(crate) fn new(name: &str) -> Self {
        Self(defined(MetricType::Histogram, name))
    }

    /// Records one value.
    ///
    /// ```
    /// # use portcullis_sdk::metric::Histogram;
    /// fn tell(sizes: &Histogram, body: &[u8]) {
    ///     sizes.record(body.len() as u64);
    /// }
    /// ```
    pub fn record(&self, value: u64) {
        if let Some(id) = self.0 {
            let _gone = sys::record_metric(id, value);
        }
    }
}

/// A metric that the host does not take counts nothing: that is no reason to refuse requests.
fn defined(kind: MetricType, name: &str) -> Option<u32> {
    sys::define_metric(kind, name).inspect_err(|status| log::warn!("no metric `{name}`: {status:?}")).ok()
}
