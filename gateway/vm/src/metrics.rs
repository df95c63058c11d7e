//! A guest's own metrics: numbers of one VM. They are not yet published.
//!
//! Ids are Envoy's: counters 4, 8, 12…, gauges 5, 9…, histograms 6, 10…. Where Envoy gives a metric that is defined again a
//! second id, this gives the first, which a guest cannot tell apart and which keeps the table bounded.

use std::collections::HashMap;

use portcullis_abi::{MetricType, Status};

/// The most metrics of one VM. Beyond it definitions share one metric: `define_metric` may answer nothing but `Ok`.
const MOST: usize = 1024;
/// The most bytes of a name.
const NAME_BYTES: usize = 1024;

/// The metrics of one VM.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    ids: HashMap<(MetricType, Box<[u8]>), u32>,
    values: Vec<(MetricType, u64)>,
}

impl Metrics {
    /// The id of the metric of this name, made if need be.
    pub(crate) fn define(&mut self, kind: MetricType, name: &[u8]) -> u32 {
        let name = if self.values.len() < MOST { name.get(..NAME_BYTES).unwrap_or(name) } else { &b""[..] };
        if let Some(id) = self.ids.get(&(kind, name.into())) {
            return *id;
        }
        let place = u32::try_from(self.values.len()).unwrap_or(u32::MAX / 8);
        let id = (place + 1) * 4 + u32::from(kind);
        self.values.push((kind, 0));
        self.ids.insert((kind, name.into()), id);
        id
    }

    fn value(&mut self, id: u32) -> Result<(MetricType, &mut u64), Status> {
        let place = (id / 4).checked_sub(1).ok_or(Status::NotFound)? as usize;
        let (kind, value) = self.values.get_mut(place).ok_or(Status::NotFound)?;
        if id % 4 == u32::from(*kind) { Ok((*kind, value)) } else { Err(Status::NotFound) }
    }

    /// Adds to a counter or a gauge. A gauge does not go below zero, where Envoy's wraps around.
    pub(crate) fn increment(&mut self, id: u32, delta: i64) -> Result<(), Status> {
        match (self.value(id)?, delta) {
            ((MetricType::Counter, value), 1..) => *value = value.wrapping_add(delta.unsigned_abs()),
            ((MetricType::Gauge, value), _) => *value = value.saturating_add_signed(delta),
            ((MetricType::Counter | MetricType::Histogram, _), _) => return Err(Status::BadArgument),
        }
        Ok(())
    }

    /// Records a value: added to a counter, set on a gauge.
    pub(crate) fn record(&mut self, id: u32, recorded: i64) -> Result<(), Status> {
        match self.value(id)? {
            (MetricType::Counter, value) => *value = value.wrapping_add_signed(recorded),
            (MetricType::Gauge, value) => *value = u64::try_from(recorded).unwrap_or(0),
            (MetricType::Histogram, _) => {}
        }
        Ok(())
    }

    /// What a counter or a gauge stands at.
    pub(crate) fn get(&mut self, id: u32) -> Result<u64, Status> {
        match self.value(id)? {
            (MetricType::Counter | MetricType::Gauge, value) => Ok(*value),
            (MetricType::Histogram, _) => Err(Status::BadArgument),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_follow_the_reference_table() {
        let mut metrics = Metrics::default();
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
            (u32::MAX, 1, Err(Status::NotFound), Err(Status::NotFound)),
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
    fn definitions_beyond_the_limit_share_one_metric() {
        let mut metrics = Metrics::default();
        let ids: Vec<u32> = (0..MOST + 50).map(|n| metrics.define(MetricType::Counter, &n.to_le_bytes())).collect();
        assert_eq!(ids[MOST], ids[MOST + 49]);
        assert!(metrics.values.len() <= MOST + 3);
    }
}
