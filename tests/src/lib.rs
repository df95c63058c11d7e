//! What the end-to-end tests stand on: a gateway in this process, origins behind it, clients before it, guests in it.
//!
//! Everything goes over real sockets on ports the system chooses, and every wait has a deadline ([`PATIENCE`]): a test that
//! would hang fails. What went wrong panics where it is noticed. **Invariant:** nothing is shared between two tests but the cache
//! of compiled modules, so they can run at the same time and in any order.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "all of this is test code: what cannot go on panics")]

pub mod abi;
pub mod background;
pub mod bucket;
pub mod client;
pub mod docs;
pub mod envoy;
pub mod frames;
pub mod gateway;
pub mod guests;
pub mod idp;
pub mod languages;
pub mod limited;
pub mod load;
pub mod origin;
pub mod pieces;
pub mod pki;
pub mod process;
pub mod raw;
pub mod redis;
pub mod registry;
pub mod streamer;
pub mod tls;
pub mod tunnel;
pub mod wire;

use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take before the test fails. Far above what is needed, for machines that do other things too.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The same for a process that starts: where no test has before, it compiles its modules first, while others compile theirs.
pub const PATIENCE_AT_START: Duration = Duration::from_secs(180);

/// Waits until a condition holds that nobody would tell us of.
///
/// # Panics
/// When it does not come to hold in time.
pub fn eventually(what: &str, holds: impl FnMut() -> bool) {
    within(PATIENCE, what, holds);
}

/// The same, for what may take that long.
///
/// # Panics
/// When it does not.
pub fn within(patience: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < patience, "it never came to be that {what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

/// How much memory this process has resident, in bytes: gateways started in it are part of it.
///
/// # Panics
/// Where the system does not say.
#[must_use]
pub fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).and_then(|kibibytes| kibibytes.parse::<u64>().ok()).unwrap() << 10
}
