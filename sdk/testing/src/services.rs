//! What lies behind the ABI and is not an exchange: shared data, metrics, queues, and failures on request.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_abi::{MetricType, Status};
use portcullis_core::context::ContextRef;

/// What all plugins of one gateway share.
#[derive(Clone, Default)]
pub(crate) struct Services(Arc<Mutex<Inner>>);

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Inner {
    data: HashMap<Vec<u8>, (Vec<u8>, u32)>,
    version: u32,
    metrics: Vec<Metric>,
    queues: Vec<Queue>,
    letters: VecDeque<Letter>,
    foreign: HashMap<Vec<u8>, ForeignFunction>,
    faults: BTreeMap<&'static str, Fault>,
}

/// A queue, and who is told of what comes in.
#[derive(Debug)]
struct Queue {
    name: Vec<u8>,
    items: VecDeque<Vec<u8>>,
    consumer: ContextRef,
}

/// The news that something is in a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Letter {
    /// Whom it is for.
    pub(crate) root: ContextRef,
    pub(crate) queue: u32,
}

/// What a test offers by name: bytes in, bytes or the number of a status out.
pub(crate) type ForeignFunction = Box<dyn FnMut(&[u8]) -> Result<Vec<u8>, u32> + Send>;

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

    /// The queue of this name, made if need be; `consumer` is told from now on when something is in it, and of what is there.
    pub(crate) fn register_queue(&self, name: &[u8], consumer: ContextRef) -> u32 {
        self.with(|inner| {
            let known = inner.queues.iter().position(|queue| queue.name == name);
            let index = known.unwrap_or_else(|| {
                inner.queues.push(Queue { name: name.to_vec(), items: VecDeque::new(), consumer });
                inner.queues.len() - 1
            });
            let id = u32::try_from(index + 1).unwrap_or(u32::MAX);
            if let Some(queue) = inner.queues.get_mut(index) {
                queue.consumer = consumer;
                let letter = Letter { root: consumer, queue: id };
                inner.letters.extend(std::iter::repeat_n(letter, queue.items.len()));
            }
            id
        })
    }

    pub(crate) fn resolve_queue(&self, name: &[u8]) -> Result<u32, Status> {
        self.with(|inner| {
            let index = inner.queues.iter().position(|queue| queue.name == name).ok_or(Status::NotFound)?;
            u32::try_from(index + 1).map_err(|_| Status::NotFound)
        })
    }

    pub(crate) fn enqueue(&self, id: u32, value: &[u8]) -> Result<(), Status> {
        self.with(|inner| {
            let queue = inner.queue(id)?;
            queue.items.push_back(value.to_vec());
            let root = queue.consumer;
            inner.letters.push_back(Letter { root, queue: id });
            Ok(())
        })
    }

    pub(crate) fn dequeue(&self, id: u32) -> Result<Vec<u8>, Status> {
        self.with(|inner| inner.queue(id)?.items.pop_front().ok_or(Status::Empty))
    }

    /// Who is to be told of an item next.
    pub(crate) fn next_letter(&self) -> Option<Letter> {
        self.with(|inner| inner.letters.pop_front())
    }

    /// Offers a foreign function.
    pub(crate) fn offer(&self, name: &str, function: ForeignFunction) {
        self.with(|inner| inner.foreign.insert(name.as_bytes().to_vec(), function));
    }

    /// Calls one. Out of the lock: it may look at what is in here.
    pub(crate) fn call_foreign(&self, name: &[u8], arguments: &[u8]) -> Result<Vec<u8>, u32> {
        let function = self.with(|inner| inner.foreign.remove(name));
        let mut function = function.ok_or(u32::from(Status::NotFound))?;
        let answer = function(arguments);
        self.with(|inner| inner.foreign.insert(name.to_vec(), function));
        answer
    }
}

impl Inner {
    fn queue(&mut self, id: u32) -> Result<&mut Queue, Status> {
        let index = id.checked_sub(1).ok_or(Status::NotFound)?;
        self.queues.get_mut(index as usize).ok_or(Status::NotFound)
    }
}
