//! What a tenant may use up, and what each such limit is called.

use std::time::Duration;

/// What a tenant may use; what is absent is not bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// So many requests in so much time; all of them may come at once.
    pub requests: Option<(u64, Duration)>,
    /// Requests under way at once.
    pub in_flight: Option<u32>,
    /// Processor time of its filters in a second of time. A second's worth may be used at once.
    pub cpu: Option<Duration>,
    /// Bytes of memory of all its VMs, over all workers.
    pub memory: Option<u64>,
    /// So many calls of its filters to upstreams in so much time, gRPC calls and streams included; all of them may come at once.
    pub callouts: Option<(u64, Duration)>,
    /// Such calls under way at once.
    pub callouts_in_flight: Option<u32>,
    /// Bytes of what its filters log, in a second of time.
    pub log: Option<u64>,
    /// Bytes of the data that its filters share; where it is absent, the host's own bound holds.
    pub shared_data: Option<u64>,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Requests in a time.
    Requests,
    /// Requests at once.
    InFlight,
    /// Processor time.
    Cpu,
    /// Memory.
    Memory,
    /// Callouts in a time.
    Callouts,
    /// Callouts at once.
    CalloutsInFlight,
    /// Bytes of log.
    Log,
    /// Bytes of shared data.
    SharedData,
}

impl Limit {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Requests,
        Self::InFlight,
        Self::Cpu,
        Self::Memory,
        Self::Callouts,
        Self::CalloutsInFlight,
        Self::Log,
        Self::SharedData,
    ];

    /// Its key in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::InFlight => "in_flight",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Callouts => "callouts",
            Self::CalloutsInFlight => "callouts_in_flight",
            Self::Log => "log",
            Self::SharedData => "shared_data",
        }
    }
}
