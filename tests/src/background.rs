//! A runtime on a thread of its own.

use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A runtime that works on what was begun on it while the test does something else. Dropped, it lets go of all of it.
pub struct Background {
    /// To begin something on it, or to wait for something there.
    pub handle: Handle,
    _stop: oneshot::Sender<()>,
}

impl Background {
    /// Starts it.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        thread::spawn(move || runtime.block_on(stopped));
        Self { handle, _stop: stop }
    }
}
