//! What the rate-limit service decided, and how its store fares.
//!
//! Decisions are few beside requests, and come from several threads: these cells are shared, unlike those of workers.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use portcullis_core::time;

use super::cells::OVERHEAD_BOUNDS;
use super::exposition::{Exposition, Seconds};

/// Who counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CountedBy {
    /// This process, as configured.
    Memory,
    /// The store that gateways share.
    Redis,
    /// This process, because that store was away.
    Local,
    /// Nobody, because that store was away.
    Nobody,
}

impl CountedBy {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Memory, "memory"), (Self::Redis, "redis"), (Self::Local, "local"), (Self::Nobody, "nobody")];
}

/// Why the store did not decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreError {
    /// There was no connection.
    Away,
    /// It took too long.
    Timeout,
    /// It answered with an error, or broke off.
    Failed,
}

impl StoreError {
    const ALL: [(Self, &'static str); 3] = [(Self::Away, "away"), (Self::Timeout, "timeout"), (Self::Failed, "failed")];
}

/// What there is to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Configured {
    Nothing,
    Service,
    /// A service with a store outside this process.
    Store,
}

/// The cells.
#[derive(Debug, Default)]
pub(crate) struct RateLimitCounts {
    /// [`Configured`].
    configured: AtomicU8,
    /// By who counted: refused, allowed.
    decisions: [[AtomicU64; 2]; 4],
    errors: [AtomicU64; 3],
    is_connected: AtomicBool,
    buckets: [AtomicU64; OVERHEAD_BOUNDS.len()],
    above: AtomicU64,
    nanos: AtomicU64,
}

fn add(cell: Option<&AtomicU64>, more: u64) {
    cell.map(|cell| cell.fetch_add(more, Ordering::Relaxed));
}

impl RateLimitCounts {
    pub(crate) fn decided(&self, by: CountedBy, allowed: bool) {
        add(self.decisions.get(by as usize).and_then(|both| both.get(usize::from(allowed))), 1);
    }

    pub(crate) fn store_failed(&self, error: StoreError) {
        add(self.errors.get(error as usize), 1);
    }

    pub(crate) fn store_answered(&self, after: Duration) {
        let nanos = time::nanos(after);
        let fits = OVERHEAD_BOUNDS.iter().zip(&self.buckets).find(|(bound, _)| nanos <= **bound);
        add(Some(fits.map_or(&self.above, |(_, bucket)| bucket)), 1);
        add(Some(&self.nanos), nanos);
    }

    pub(crate) fn configured(&self, what: Configured) {
        self.configured.store(what as u8, Ordering::Relaxed);
    }

    pub(crate) fn set_connected(&self, is_connected: bool) {
        self.is_connected.store(is_connected, Ordering::Relaxed);
    }

    pub(super) fn render(&self, text: &mut Exposition) {
        let configured = self.configured.load(Ordering::Relaxed);
        if configured == Configured::Nothing as u8 {
            return;
        }
        let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        let name = "portcullis_rate_limit_decisions_total";
        text.family(name, "counter", "Decisions of the rate-limit service, by who counted.");
        for ((_, by), both) in CountedBy::ALL.into_iter().zip(&self.decisions) {
            for (outcome, count) in ["refused", "allowed"].into_iter().zip(both) {
                text.sample(name, &[("counted_by", by), ("outcome", outcome)], read(count));
            }
        }
        if configured == Configured::Store as u8 {
            self.render_store(text);
        }
    }

    fn render_store(&self, text: &mut Exposition) {
        let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        let name = "portcullis_rate_limit_store_errors_total";
        text.family(name, "counter", "Decisions that the store of limits did not make, by why.");
        for ((_, error), count) in StoreError::ALL.into_iter().zip(&self.errors) {
            text.sample(name, &[("error", error)], read(count));
        }
        let name = "portcullis_rate_limit_store_connected";
        text.family(name, "gauge", "Whether there is a connection to the store of limits.");
        text.sample(name, &[], u8::from(self.is_connected.load(Ordering::Relaxed)));
        let name = "portcullis_rate_limit_store_duration_seconds";
        text.family(name, "histogram", "How long decisions of the store of limits took.");
        let buckets = OVERHEAD_BOUNDS.map(Seconds).into_iter().zip(self.buckets.each_ref().map(read));
        text.cumulative(name, &[], buckets, read(&self.above), Seconds(read(&self.nanos)));
    }
}
