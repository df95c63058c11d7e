//! What lies behind the ABI and is not an exchange: shared data, metrics, queues, and failures on request.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_abi::{MetricType, Status};

/// What all plugins of one gateway share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Services(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    data: HashMap<Vec<u8>, (Vec<u8>, u32)>,
    version: u32,
    metrics: Vec<Metric>,
    queues: Vec<(Vec<u8>, VecDeque<Vec<u8>>)>,
    faults: BTreeMap<&'static str, Fault>,
}

#[derive(Debug)]
struct Metric {
    name: Vec<u8>,
    kind: MetricType,
    value: u64,
}

#[derive(Clone, Copy, Debug)]
struct Fault {
    status: u32,
    times: usize,
}

impl Services {
    fn with<R>(&self, act: impl FnOnce(&mut Inner) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes a hostcall answer this number, so many times.
    pub(crate) fn fail(&self, function: &'static str, status: u32, times: usize) {
        self.with(|inner| inner.faults.insert(function, Fault { status, times }));
    }

    /// What a hostcall is to answer instead of doing anything.
    pub(crate) fn fault(&self, function: &str) -> Option<u32> {
        self.with(|inner| {
            let fault = inner.faults.get_mut(function).filter(|fault| fault.times > 0)?;
            fault.times -= 1;
            Some(fault.status)
        })
    }

    pub(crate) fn data(&self, key: &[u8]) -> Result<(Vec<u8>, u32), Status> {
        self.with(|inner| inner.data.get(key).cloned().ok_or(Status::NotFound))
    }

    /// ABI reference §9.4: 0 always wins, and a key that is not there is made whatever the number.
    pub(crate) fn set_data(&self, key: &[u8], value: &[u8], cas: u32) -> Result<(), Status> {
        self.with(|inner| {
            if cas != 0 && inner.data.get(key).is_some_and(|(_, version)| *version != cas) {
                return Err(Status::CasMismatch);
            }
            inner.version += 1;
            inner.data.insert(key.to_vec(), (value.to_vec(), inner.version));
            Ok(())
        })
    }

    /// Ids tell the kind, as on Envoy (ABI reference §9.6); the same name is the same metric.
    pub(crate) fn define(&self, kind: MetricType, name: &[u8]) -> u32 {
        self.with(|inner| {
            let known = inner.metrics.iter().position(|metric| metric.name == name && metric.kind == kind);
            let index = known.unwrap_or_else(|| {
                inner.metrics.push(Metric { name: name.to_vec(), kind, value: 0 });
                inner.metrics.len() - 1
            });
            (u32::try_from(index).unwrap_or(0) + 1) * 4 + u32::from(kind)
        })
    }

    fn metric<R>(&self, id: u32, act: impl FnOnce(MetricType, &mut u64) -> Result<R, Status>) -> Result<R, Status> {
        self.with(|inner| {
            let index = (id / 4).checked_sub(1).ok_or(Status::NotFound)?;
            let metric = inner.metrics.get_mut(index as usize).ok_or(Status::NotFound)?;
            act(metric.kind, &mut metric.value)
        })
    }

    pub(crate) fn increment(&self, id: u32, delta: i64) -> Result<(), Status> {
        self.metric(id, |kind, value| match kind {
            MetricType::Counter if delta > 0 => {
                *value = value.saturating_add_signed(delta);
                Ok(())
            }
            MetricType::Gauge => {
                *value = value.saturating_add_signed(delta);
                Ok(())
            }
            MetricType::Counter | MetricType::Histogram => Err(Status::BadArgument),
        })
    }

    pub(crate) fn record(&self, id: u32, recorded: u64) -> Result<(), Status> {
        self.metric(id, |kind, value| {
            match kind {
                MetricType::Counter => *value = value.saturating_add(recorded),
                MetricType::Gauge | MetricType::Histogram => *value = recorded,
            }
            Ok(())
        })
    }

    pub(crate) fn value(&self, id: u32) -> Result<u64, Status> {
        self.metric(id, |kind, value| match kind {
            MetricType::Counter | MetricType::Gauge => Ok(*value),
            MetricType::Histogram => Err(Status::BadArgument),
        })
    }

    /// A metric by name, for tests.
    pub(crate) fn named(&self, name: &str) -> Option<u64> {
        self.with(|inner| inner.metrics.iter().find(|metric| metric.name == name.as_bytes()).map(|metric| metric.value))
    }

    pub(crate) fn register_queue(&self, name: &[u8]) -> u32 {
        self.with(|inner| {
            let known = inner.queues.iter().position(|(queue, _)| queue == name);
            let index = known.unwrap_or_else(|| {
                inner.queues.push((name.to_vec(), VecDeque::new()));
                inner.queues.len() - 1
            });
            u32::try_from(index + 1).unwrap_or(u32::MAX)
        })
    }

    pub(crate) fn resolve_queue(&self, name: &[u8]) -> Result<u32, Status> {
        self.with(|inner| {
            let index = inner.queues.iter().position(|(queue, _)| queue == name).ok_or(Status::NotFound)?;
            u32::try_from(index + 1).map_err(|_| Status::NotFound)
        })
    }

    pub(crate) fn enqueue(&self, id: u32, value: &[u8]) -> Result<(), Status> {
        self.queue(id, |queue| {
            queue.push_back(value.to_vec());
            Ok(())
        })
    }

    pub(crate) fn dequeue(&self, id: u32) -> Result<Vec<u8>, Status> {
        self.queue(id, |queue| queue.pop_front().ok_or(Status::Empty))
    }

    fn queue<R>(&self, id: u32, act: impl FnOnce(&mut VecDeque<Vec<u8>>) -> Result<R, Status>) -> Result<R, Status> {
        self.with(|inner| {
            let index = id.checked_sub(1).ok_or(Status::NotFound)?;
            let (_, queue) = inner.queues.get_mut(index as usize).ok_or(Status::NotFound)?;
            act(queue)
        })
    }
}
