//! The clock of a worker: wall time to begin with, then steady whatever is done to the system's clock.

use std::time::{Instant, SystemTime};

use portcullis_core::time::{Time, nanos};

/// A steady clock that counts from the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
    at_start: Time,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), at_start: now() }
    }

    pub(crate) fn now(&self) -> Time {
        self.at_start + self.started.elapsed()
    }
}

/// The time on the wall, for whoever has no clock.
pub(crate) fn now() -> Time {
    Time::from_nanos(nanos(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()))
}
