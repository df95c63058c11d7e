//! What is counted about a VM, for metrics.
//!
//! A worker writes, anyone reads: plain loads and stores, since a count has one writer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::failure::Cause;
use crate::metrics::GuestMetrics;

/// A number one worker writes and others read.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// The number.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, more: u64) {
        self.set(self.get().wrapping_add(more));
    }
}

/// What one worker's VM has come to.
#[derive(Debug)]
pub struct VmCells {
    /// Whose VM it is.
    pub tenant: Option<Arc<str>>,
    /// The plugin's name.
    pub plugin: Arc<str>,
    /// Callbacks made.
    pub calls: Count,
    /// Times it was started.
    pub starts: Count,
    /// Times it could not be started.
    pub start_failures: Count,
    /// 1 while it runs.
    pub live: Count,
    /// 1 while it is left alone, since it has failed again and again.
    pub resting: Count,
    /// Bytes of its memory.
    pub memory: Count,
    /// Log lines it wrote beyond its rate, which were dropped.
    pub log_lines_dropped: Count,
    /// Items it put into a queue that was full, which were dropped.
    pub queue_items_dropped: Count,
    /// What the guest itself counts: the same for all VMs of this plugin and tenant, on every worker.
    pub metrics: Arc<GuestMetrics>,
    traps: [Count; Cause::ALL.len()],
}

impl VmCells {
    pub(crate) fn new(tenant: Option<Arc<str>>, plugin: Arc<str>, metrics: Arc<GuestMetrics>) -> Self {
        Self {
            tenant,
            plugin,
            calls: Count::default(),
            starts: Count::default(),
            start_failures: Count::default(),
            live: Count::default(),
            resting: Count::default(),
            memory: Count::default(),
            log_lines_dropped: Count::default(),
            queue_items_dropped: Count::default(),
            metrics,
            traps: Default::default(),
        }
    }

    /// How many of its lives ended for this cause.
    #[must_use]
    pub fn traps(&self, cause: Cause) -> u64 {
        self.traps.get(cause as usize).map_or(0, Count::get)
    }

    pub(crate) fn trapped(&self, cause: Cause) {
        if let Some(count) = self.traps.get(cause as usize) {
            count.add(1);
        }
    }
}
