//! Requests and connections that are refused to whoever makes them, in the audit log: who, what, and why, at a rate that fills no disk.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use portcullis_core::throttle::Throttle;

use super::access::{Refusal, Via};
use crate::clock::Clock;
use crate::tls::server::HandshakeError;

/// The most lines at once.
const LINES: u32 = 20;
/// How long it takes until there may be another.
const PAUSE: Duration = Duration::from_secs(1);
/// The most characters of a path that are shown.
const PATH: usize = 256;

/// What is said of refused requests and connections.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    lines: Arc<Throttle>,
    clock: Clock,
}

impl Default for Refused {
    fn default() -> Self {
        Self { lines: Arc::new(Throttle::new(LINES, PAUSE)), clock: Clock::start() }
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
        self.lines.take(self.clock.now()).map(|untold| Some(untold).filter(|untold| *untold > 0))
    }
}
