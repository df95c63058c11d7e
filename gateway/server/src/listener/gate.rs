//! Who may come in: limits on connections, and descriptors held back for everything else.
//!
//! Over a limit, a connection is accepted and closed at once, so that its client knows and the kernel's queue stays short.
//! Whether descriptors run out is seen from the number of the newest: the system always gives the lowest that is free.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use portcullis_core::downstream::Refusal;
use portcullis_core::throttle::Throttle;
use portcullis_core::time::Time;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};

/// The share of descriptors that clients' connections leave for upstreams, files and the admin listener, and its bounds.
const KEPT: usize = 8;
const KEPT_LEAST: usize = 32;
const KEPT_MOST: usize = 4096;
/// How often a refusal is logged at most.
const LOGGED: Duration = Duration::from_secs(10);
/// How long accepting pauses when the system has no room for another connection.
pub(super) const EXHAUSTED: Duration = Duration::from_millis(50);

/// How many connections there are of some kind.
#[derive(Debug, Default)]
pub(crate) struct Places {
    taken: AtomicUsize,
}

impl Places {
    fn take(self: &Arc<Self>, limit: usize) -> Option<Place> {
        // Taken first and given back: two workers at once must not both take the last one.
        let before = self.taken.fetch_add(1, Relaxed);
        let place = Place(self.clone());
        (before < limit).then_some(place)
    }
}

/// One of [`Places`], for as long as it lives.
#[derive(Debug)]
struct Place(Arc<Places>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Relaxed);
    }
}

/// A connection's right to exist.
#[derive(Debug)]
pub(crate) struct Permit {
    _of_process: Place,
    _of_listener: Place,
}

/// What all listeners of a process share.
#[derive(Debug)]
pub(crate) struct Room {
    connections: Arc<Places>,
    most: AtomicUsize,
    /// How many descriptors the process may have.
    descriptors: usize,
}

impl Room {
    /// Raises the limit on descriptors as far as the system allows, and sees how many there are.
    pub(crate) fn survey() -> Self {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: limit.maximum, ..limit };
        let limit = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
        let most = RawFd::MAX as usize;
        let descriptors = limit.map_or(most, |limit| usize::try_from(limit).unwrap_or(most).min(most));
        Self { connections: Arc::default(), most: AtomicUsize::new(descriptors / 2), descriptors }
    }

    /// Changes how many connections there may be. By default each could have one to an upstream as well.
    pub(crate) fn allow(&self, connections: Option<u32>) {
        let most = connections.map_or(self.descriptors / 2, |most| most as usize);
        if most > self.for_clients() {
            let descriptors = self.descriptors;
            tracing::warn!(max_connections = most, descriptors, "more connections are allowed than can be open");
        }
        self.most.store(most, Relaxed);
    }

    /// Connections may not have descriptors from this one on.
    fn for_clients(&self) -> usize {
        self.descriptors.saturating_sub((self.descriptors / KEPT).clamp(KEPT_LEAST, KEPT_MOST))
    }
}

/// One worker's way to let connections of one listener in.
#[derive(Debug)]
pub(crate) struct Gate {
    room: Arc<Room>,
    places: Arc<Places>,
    /// A descriptor to give up for a moment, so that a connection can be accepted only to be closed.
    spare: RefCell<Option<File>>,
    refusals: Throttle,
}

impl Gate {
    pub(crate) fn new(room: Arc<Room>, places: Arc<Places>) -> Self {
        Self { room, places, spare: RefCell::new(spare()), refusals: Throttle::new(1, LOGGED) }
    }

    /// Lets a connection in, or says why not; its listener may have so many.
    pub(super) fn admit(&self, stream: &TcpStream, most: Option<u32>) -> Result<Permit, Refusal> {
        let descriptor = usize::try_from(stream.as_raw_fd()).unwrap_or_default();
        if descriptor >= self.room.for_clients() {
            return Err(Refusal::Descriptors);
        }
        let most = most.map_or(usize::MAX, |most| most as usize);
        let of_listener = self.places.take(most).ok_or(Refusal::ListenerLimit)?;
        let of_process = self.room.connections.take(self.room.most.load(Relaxed)).ok_or(Refusal::ProcessLimit)?;
        Ok(Permit { _of_process: of_process, _of_listener: of_listener })
    }

    /// Turns the longest waiting connection away, though there is no descriptor to accept it with.
    pub(super) async fn turn_away(&self, listener: &TcpListener) {
        drop(self.spare.take());
        // Another thread may have been quicker; then this fails as well, and the next attempt comes after a pause.
        let _closed = tokio::time::timeout(Duration::from_millis(1), listener.accept()).await;
        self.spare.replace(spare());
    }

    /// Logs that connections are refused, but not each of them.
    pub(super) fn log(&self, listener: &str, reason: Refusal, now: Time) {
        if let Some(more) = self.refusals.take(now) {
            tracing::warn!(listener, reason = reason.word(), more_since_last = more, "connections are refused");
        }
    }
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Whether an error of accepting means that there is no room for a connection, rather than that one of them failed.
pub(super) fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let places = Arc::<Places>::default();
        let first = places.take(2).unwrap();
        let _second = places.take(2).unwrap();
        assert!(places.take(2).is_none() && places.take(2).is_none());
        drop(first);
        assert!(places.take(2).is_some());
    }
}
