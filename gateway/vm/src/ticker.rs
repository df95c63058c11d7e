//! The clock of running guests: a thread that makes the engine's epoch follow the time, by as many ticks as milliseconds have passed.
//!
//! It looks at the time no more often than the shortest budget needs, since every time it wakes it takes the processor from a
//! worker; while no guest is called it naps, and is woken by the next callback. **Invariant:** whatever it slept through it makes
//! up for, so a guest that runs for long meets its deadline at most a step late, or a nap if it is the first after one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use portcullis_core::time::nanos;

use crate::engine::thread_time;

/// The unit that deadlines are counted in.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// How often it looks at the time, unless a budget needs more.
const STEP: Duration = Duration::from_millis(5);
/// How long without a new callback before it naps.
const LINGER: Duration = Duration::from_millis(100);
/// How long a nap takes if nothing wakes it.
const NAP: Duration = Duration::from_millis(20);

/// The thread that ticks, as those see it who call guests.
#[derive(Debug)]
pub(crate) struct Ticker {
    /// A callback has begun since the thread last looked.
    called: AtomicBool,
    napping: AtomicBool,
    /// In nanoseconds.
    step: AtomicU64,
    thread: OnceLock<Thread>,
    /// What asking for the processor time takes.
    pub(crate) asking: Duration,
}

impl Default for Ticker {
    fn default() -> Self {
        let step = AtomicU64::new(nanos(STEP));
        let (called, napping, thread) = (AtomicBool::default(), AtomicBool::default(), OnceLock::default());
        // The least of a few: none is quicker than it is, and some are disturbed.
        let asking = (0..16).map(|_| -> Duration {
            let before = thread_time();
            thread_time().saturating_sub(before)
        });
        Self { called, napping, step, thread, asking: asking.min().unwrap_or_default() }
    }
}

impl Ticker {
    /// Starts the thread. It outlives the engine by a tick.
    pub(crate) fn start(engine: &wasmtime::Engine) -> std::io::Result<Arc<Self>> {
        let ticker = Arc::<Self>::default();
        let (engine, of_thread) = (engine.weak(), ticker.clone());
        let run = move || {
            let mut ticked = Instant::now();
            let mut called = ticked;
            while let Some(engine) = engine.upgrade() {
                let due = ticked.elapsed().as_nanos() / TICK.as_nanos();
                (0..due).for_each(|_| engine.increment_epoch());
                ticked += TICK * u32::try_from(due).unwrap_or(u32::MAX);
                drop(engine);
                if of_thread.called.swap(false, Ordering::Relaxed) {
                    called = ticked;
                }
                of_thread.pause(ticked.saturating_duration_since(called));
            }
        };
        let handle = thread::Builder::new().name("wasm-ticks".to_owned()).spawn(run)?;
        _ = ticker.thread.set(handle.thread().clone());
        Ok(ticker)
    }

    fn pause(&self, idle: Duration) {
        if idle < LINGER {
            return thread::sleep(Duration::from_nanos(self.step.load(Ordering::Relaxed)));
        }
        self.napping.store(true, Ordering::Relaxed);
        // A callback that begins just now and sees no nap yet waits for its end at most.
        thread::park_timeout(NAP);
        self.napping.store(false, Ordering::Relaxed);
    }

    /// Looks often enough from now on for deadlines this long.
    pub(crate) fn serve(&self, deadline: Duration) {
        self.step.fetch_min(nanos(deadline.max(TICK)), Ordering::Relaxed);
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
