//! Requests and connections that are refused to whoever makes them, in the audit log: who, what, and why, at a rate that fills no disk.

use std::cell::Cell;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use http::Method;

use super::access::{Refusal, Via};
use crate::tls::server::HandshakeError;

/// The most lines at once.
const LINES: u32 = 20;
/// How long it takes until there may be another.
const PERIOD: Duration = Duration::from_secs(1);
/// The most characters of a path that are shown.
const PATH: usize = 256;

/// How many lines there may be now.
#[derive(Clone, Debug, Default)]
pub(super) struct Refused(Cell<Rate>);

#[derive(Clone, Copy, Debug)]
struct Rate {
    left: u32,
    /// When the last line was added to them.
    filled: Option<Instant>,
    untold: u64,
}

impl Default for Rate {
    fn default() -> Self {
        Self { left: LINES, filled: None, untold: 0 }
    }
}

impl Refused {
    /// Logs that a request was refused, if there may be a line, and how many others were since the last one. A query could hold a
    /// secret, and is not shown.
    pub(super) fn tell(&self, (method, path): (&Method, &str), via: &Via, refusal: Refusal) {
        if let Some(untold) = self.line() {
            let (who, why) = (&*via.who, refusal.code());
            let path: String = path.chars().take(PATH).collect();
            tracing::warn!(target: "portcullis::audit", who, %method, path, why, untold, "request refused");
        }
    }

    /// The same of a connection, for its client's certificate.
    pub(super) fn tell_of_certificate(&self, who: IpAddr, why: &HandshakeError) {
        if let Some(untold) = self.line() {
            tracing::warn!(target: "portcullis::audit", %who, %why, untold, "certificate refused");
        }
    }

    /// Whether there may be a line now, and how many there could not be since the last one, if any.
    fn line(&self) -> Option<Option<u64>> {
        let mut rate = self.0.get();
        let untold = rate.take(Instant::now());
        self.0.set(rate);
        untold.map(|untold| Some(untold).filter(|untold| *untold > 0))
    }
}

impl Rate {
    /// Takes one, and what was not told before it; nothing if there is none.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let filled = *self.filled.get_or_insert(now);
        let periods = now.saturating_duration_since(filled).as_secs() / PERIOD.as_secs();
        if periods > 0 {
            self.filled = Some(now);
            self.left = self.left.saturating_add(u32::try_from(periods).unwrap_or(LINES)).min(LINES);
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Some(std::mem::take(&mut self.untold))
            }
            None => {
                self.untold += 1;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_leaves_few_lines_and_its_number() {
        let (mut rate, begin) = (Rate::default(), Instant::now());
        let mut at = |seconds: u64, requests: u32| {
            let now = begin + Duration::from_millis(seconds * 1000 + 1);
            (0..requests).filter_map(|_| rate.take(now)).collect::<Vec<_>>()
        };
        assert_eq!(at(0, 1000), [0; 20]);
        assert_eq!(at(1, 1000), [980], "one more after a second, with what was left out");
        assert_eq!(at(3, 3), [999, 0]);
        assert_eq!(at(4, 1), [1]);
        assert_eq!(at(1000, 30).len(), 20, "never more at once");
    }
}
