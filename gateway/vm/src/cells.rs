//! What is counted about a VM, for metrics.
//!
//! A worker writes, anyone reads: plain loads and stores, since a count has one writer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_core::time::Time;
use portcullis_core::timing::{Outcome, Phase};

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

/// What a guest is called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// A part of a request.
    Request,
    /// A part of a response.
    Response,
    /// The end of an exchange.
    End,
    /// The beginning of an exchange.
    Create,
    /// What no exchange waits for: timers, answers to callouts, queues, the VM's own start and end.
    Background,
}

impl Occasion {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Request, Self::Response, Self::End, Self::Create, Self::Background];

    /// The word for it in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => Phase::Request.as_str(),
            Self::Response => Phase::Response.as_str(),
            Self::End => Phase::End.as_str(),
            Self::Create => "create",
            Self::Background => "background",
        }
    }
}

impl From<Phase> for Occasion {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Request => Self::Request,
            Phase::Response => Self::Response,
            Phase::End => Self::End,
        }
    }
}

/// How a VM fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmState {
    /// It has not been started, or nobody has it any more.
    Absent,
    /// It runs.
    Running,
    /// It has failed, and is started anew when it is next needed.
    Failed,
    /// It has failed again and again, and is left alone until then.
    Resting(Time),
}

/// What one worker's VM has come to.
#[derive(Debug)]
pub struct VmCells {
    /// Whose VM it is.
    pub tenant: Option<Arc<str>>,
    /// The plugin's name.
    pub plugin: Arc<str>,
    /// Times it was started.
    pub starts: Count,
    /// Times it could not be started.
    pub start_failures: Count,
    /// Copies that were made of it, where exchanges do not share it.
    pub copies: Count,
    /// Failures in a row, each soon after a start.
    pub failures_in_a_row: Count,
    /// Nanoseconds of processor time its guest has used, hostcalls included: measured where a callback takes long, estimated
    /// from samples where it does not.
    pub cpu_nanos: Count,
    /// Bytes of its memory.
    pub memory: Count,
    /// Log lines it wrote beyond its rate, which were dropped.
    pub log_lines_dropped: Count,
    /// Items it put into a queue that was full, which were dropped.
    pub queue_items_dropped: Count,
    /// What the guest itself counts: the same for all VMs of this plugin and tenant, on every worker.
    pub metrics: Arc<GuestMetrics>,
    calls: [[Count; Outcome::ALL.len()]; Occasion::ALL.len()],
    traps: [Count; Cause::ALL.len()],
    /// 0: absent; 1: running; else, from 2 on, the nanoseconds when it may be started anew.
    state: Count,
    last_failure: Mutex<Option<Arc<str>>>,
}

impl VmCells {
    pub(crate) fn new(tenant: Option<Arc<str>>, plugin: Arc<str>, metrics: Arc<GuestMetrics>) -> Self {
        Self {
            tenant,
            plugin,
            starts: Count::default(),
            start_failures: Count::default(),
            copies: Count::default(),
            failures_in_a_row: Count::default(),
            cpu_nanos: Count::default(),
            memory: Count::default(),
            log_lines_dropped: Count::default(),
            queue_items_dropped: Count::default(),
            metrics,
            calls: Default::default(),
            traps: Default::default(),
            state: Count::default(),
            last_failure: Mutex::default(),
        }
    }

    /// How many callbacks were made on this occasion and came to this.
    #[must_use]
    pub fn calls(&self, occasion: Occasion, outcome: Outcome) -> u64 {
        self.calls.get(occasion as usize).and_then(|counts| counts.get(outcome as usize)).map_or(0, Count::get)
    }

    pub(crate) fn called(&self, occasion: Occasion, outcome: Outcome) {
        if let Some(count) = self.calls.get(occasion as usize).and_then(|counts| counts.get(outcome as usize)) {
            count.add(1);
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

    /// How it fares at this time.
    #[must_use]
    pub fn state(&self, now: Time) -> VmState {
        match self.state.get() {
            0 => VmState::Absent,
            1 => VmState::Running,
            nanos => match Time::from_nanos(nanos - 2) {
                until if until > now => VmState::Resting(until),
                _ => VmState::Failed,
            },
        }
    }

    pub(crate) fn runs(&self) {
        self.state.set(1);
    }

    pub(crate) fn is_gone(&self) {
        self.state.set(0);
        self.memory.set(0);
    }

    /// It has failed, and is left alone until then.
    pub(crate) fn failed(&self, why: &str, in_a_row: u32, until: Time) {
        self.state.set(until.as_nanos().saturating_add(2));
        self.memory.set(0);
        self.failures_in_a_row.set(in_a_row.into());
        self.copy_failed(why);
    }

    /// A copy of it has failed: it runs on.
    pub(crate) fn copy_failed(&self, why: &str) {
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.into());
    }

    /// Why it failed the last time.
    #[must_use]
    pub fn last_failure(&self) -> Option<Arc<str>> {
        self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
