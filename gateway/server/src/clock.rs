//! The clock of a worker: wall time to begin with, then steady whatever is done to the system's clock.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use portcullis_core::time::Time;

/// A steady clock that counts from the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
    epoch_nanos: u64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), epoch_nanos: u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX) }
    }

    pub(crate) fn now(&self) -> Time {
        Time::from_nanos(self.epoch_nanos) + self.started.elapsed()
    }
}
