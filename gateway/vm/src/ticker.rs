//! The clock of running guests: a thread that makes the engine's epoch follow the time, a tick per millisecond.
//!
//! A thousand wake-ups a second are dear on a machine with few cores, so the thread naps while no guest is called, and is woken by the
//! next callback. **Invariant:** whatever it slept through it makes up for, so a guest that runs for long meets its deadline at most
//! a nap late.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// How often running guests are made to look at the time.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// Ticks without a new callback before it naps.
const LINGER: u32 = 100;
/// How long a nap takes if nothing wakes it.
const NAP: Duration = Duration::from_millis(20);

/// The thread that ticks, as those see it who call guests.
#[derive(Debug, Default)]
pub(crate) struct Ticker {
    /// A callback has begun since the thread last looked.
    called: AtomicBool,
    napping: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Ticker {
    /// Starts the thread. It outlives the engine by a tick.
    pub(crate) fn start(engine: &wasmtime::Engine) -> std::io::Result<Arc<Self>> {
        let ticker = Arc::<Self>::default();
        let (engine, of_thread) = (engine.weak(), ticker.clone());
        let run = move || {
            let mut ticked = Instant::now();
            let mut idle = 0;
            while let Some(engine) = engine.upgrade() {
                // Late ticks are made up for: the system may be slow to wake this thread.
                let due = ticked.elapsed().as_nanos() / TICK.as_nanos();
                (0..due).for_each(|_| engine.increment_epoch());
                ticked += TICK * u32::try_from(due).unwrap_or(u32::MAX);
                drop(engine);
                idle = if of_thread.called.swap(false, Ordering::Relaxed) { 0 } else { idle + 1 };
                of_thread.pause(idle);
            }
        };
        let handle = thread::Builder::new().name("wasm-ticks".to_owned()).spawn(run)?;
        _ = ticker.thread.set(handle.thread().clone());
        Ok(ticker)
    }

    fn pause(&self, idle: u32) {
        if idle < LINGER {
            return thread::sleep(TICK);
        }
        self.napping.store(true, Ordering::Relaxed);
        // A callback that begins just now and sees no nap yet waits for its end at most.
        thread::park_timeout(NAP);
        self.napping.store(false, Ordering::Relaxed);
    }

    /// Says that a callback begins.
    pub(crate) fn callback(&self) {
        // Looked at before it is written: then the line stays in every worker's cache.
        if !self.called.load(Ordering::Relaxed) {
            self.called.store(true, Ordering::Relaxed);
        }
        if self.napping.load(Ordering::Relaxed)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }
}
