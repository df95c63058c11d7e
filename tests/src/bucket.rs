//! What clients get of a limit while they ask for all there is, against what it has to give.
//!
//! Exact on a machine that keeps threads waiting, too: every moment that is taken bounds what was given from one side only.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::PATIENCE;

/// A limit that gives a burst at once, and then so many each second.
///
/// The burst should be worth some seconds: what nobody asks for beyond it is lost.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// How many each second.
    pub rate: f64,
    /// How many at once.
    pub burst: f64,
}

/// What it gave, and what it had to give.
#[derive(Clone, Copy, Debug)]
pub struct Given {
    /// How many requests were admitted.
    pub admitted: usize,
    least: f64,
    most: f64,
}

impl Bucket {
    /// Has clients ask for that long, and then until one of them is refused, so that nothing is left. `ask` tells whether a request
    /// was admitted. Nobody may have asked before.
    ///
    /// # Panics
    /// When not even the first is admitted, or none is ever refused.
    #[must_use]
    pub fn exhaust<C: Send>(self, time: Duration, mut clients: Vec<C>, ask: impl Fn(&mut C) -> bool + Sync) -> Given {
        let began = Instant::now();
        // From here on there is less than the burst, and more of it each moment.
        assert!(ask(&mut clients[0]), "the first");
        let touched = Instant::now();
        let (admitted, emptied) = (AtomicUsize::new(1), OnceLock::new());
        thread::scope(|scope| {
            for client in &mut clients {
                scope.spawn(|| {
                    while emptied.get().is_none() {
                        let asked = Instant::now();
                        assert!(asked - began < time + PATIENCE, "nobody is refused");
                        if ask(client) {
                            admitted.fetch_add(1, Ordering::Relaxed);
                        } else if asked - began >= time {
                            // All was given that there was when this was asked for.
                            _ = emptied.set(asked);
                        }
                    }
                });
            }
        });
        let gives = |time: Duration| time.as_secs_f64().mul_add(self.rate, self.burst);
        let least = gives(emptied.into_inner().expect("a refusal") - touched);
        Given { admitted: admitted.into_inner(), least, most: gives(began.elapsed()) }
    }
}

impl Given {
    /// # Panics
    /// When it is not all there was, but for this share.
    pub fn assert_all_but(self, share: f64) {
        let admitted = f64::from(u32::try_from(self.admitted).unwrap());
        // One that has come in part is not there yet.
        let (least, most) = ((self.least - 1.0) * (1.0 - share), self.most * (1.0 + share));
        assert!((least..=most).contains(&admitted), "{self:?}");
    }
}
