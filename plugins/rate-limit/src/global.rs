//! Limits that several gateways share: counted by a service that speaks Envoy's rate-limit API.
//!
//! It is told of each limit by a descriptor: the limit's name and its keys, with how much may pass, which a service that has
//! limits of its own may ignore. A service that fails is left alone for a second.

use std::cell::Cell;

use portcullis_abi::protobuf::{Fields, Malformed, Value, bytes, number};
use portcullis_sdk::limit::{SECOND, Verdict};
use portcullis_sdk::metric::Counter;

use crate::policy::{Asked, Limit};
use crate::settings::{Global, OnFailure};

const SERVICE: &str = "envoy.service.ratelimit.v3.RateLimitService";
/// How long a service that has failed is left alone.
const PAUSE: u64 = SECOND;

/// A service, and how it fares.
pub(crate) struct Service {
    settings: Global,
    /// Not asked again before this.
    until: Cell<u64>,
    failures: Counter,
}

/// What is to be done with a request.
pub(crate) enum Answer {
    Verdicts(Vec<Verdict>),
    /// The service does not say.
    Failed(OnFailure),
}

impl Service {
    pub(crate) fn new(settings: Global, failures: Counter) -> Self {
        Self { settings, until: Cell::new(0), failures }
    }

    pub(crate) async fn ask(&self, limits: &[Limit], asked: &[Asked], now: u64) -> Answer {
        let failed = Answer::Failed(self.settings.on_failure);
        if now < self.until.get() {
            return failed;
        }
        let request = request(&self.settings.domain, limits, asked);
        let call = self.settings.upstream.grpc(SERVICE, "ShouldRateLimit", &request).timeout(self.settings.timeout());
        let answer = call.send::<Vec<u8>>().await.map_err(|why| why.to_string());
        match answer
            .and_then(|answer| verdicts(&answer, asked.len()).ok_or_else(|| "its answer is malformed".to_owned()))
        {
            Ok(verdicts) => Answer::Verdicts(verdicts),
            Err(why) => {
                log::warn!("the rate-limit service `{}` does not say: {why}", self.settings.upstream.name());
                self.failures.increment();
                self.until.set(now + PAUSE);
                failed
            }
        }
    }
}

/// The units of `envoy.type.v3.RateLimitUnit`, by their seconds. A month is one of 30 days there too.
fn unit(seconds: u32) -> u64 {
    match seconds {
        1 => 1,
        60 => 2,
        3600 => 3,
        86_400 => 4,
        _ => 5,
    }
}

fn request(domain: &str, limits: &[Limit], asked: &[Asked]) -> Vec<u8> {
    let mut request = Vec::new();
    bytes(&mut request, 1, domain.as_bytes());
    for (limit, asked) in limits.iter().zip(asked) {
        let mut descriptor = Vec::new();
        let name = ("limit", limit.name.as_str());
        let parts = asked.parts.iter().map(|part| (part.kind, part.value.as_str()));
        let more = asked.amount.more_words();
        for (key, value) in std::iter::once(name).chain(parts).chain(more.as_ref().map(|(key, value)| (*key, &**value)))
        {
            let mut entry = Vec::new();
            bytes(&mut entry, 1, key.as_bytes());
            bytes(&mut entry, 2, value.as_bytes());
            bytes(&mut descriptor, 1, &entry);
        }
        let (count, seconds) = asked.amount.in_words();
        let mut own = Vec::new();
        number(&mut own, 1, count.into());
        number(&mut own, 2, unit(seconds));
        bytes(&mut descriptor, 2, &own);
        let mut hits = Vec::new();
        number(&mut hits, 1, limit.cost.into());
        bytes(&mut descriptor, 3, &hits);
        bytes(&mut request, 2, &descriptor);
    }
    request
}

/// `OVER_LIMIT` of `RateLimitResponse.Code`.
const OVER: u64 = 2;

/// The verdict on each descriptor.
fn verdicts(answer: &[u8], count: usize) -> Option<Vec<Verdict>> {
    let mut overall = 0;
    let mut verdicts = Vec::with_capacity(count);
    for field in Fields::of(answer) {
        match field.ok()? {
            (1, Value::Number(code)) => overall = code,
            (2, Value::Bytes(status)) => verdicts.push(verdict(status).ok()?),
            _ => {}
        }
    }
    if verdicts.is_empty() {
        // A service need not say more than whether the request passes.
        let state = (overall != OVER).then_some(0);
        verdicts.resize(
            count,
            Verdict { state, remaining: 0, reset: SECOND, retry: if state.is_some() { 0 } else { SECOND } },
        );
    }
    (verdicts.len() == count && overall != 0).then_some(verdicts)
}

fn verdict(status: &[u8]) -> Result<Verdict, Malformed> {
    let (mut code, mut remaining, mut reset_s) = (0, 0, 0_u64);
    for field in Fields::of(status) {
        match field? {
            (1, Value::Number(number)) => code = number,
            (3, Value::Number(number)) => remaining = number,
            (4, Value::Bytes(duration)) => {
                for field in Fields::of(duration) {
                    if let (1, Value::Number(seconds)) = field? {
                        reset_s = seconds;
                    }
                }
            }
            _ => {}
        }
    }
    let reset = reset_s.saturating_mul(SECOND);
    let passes = code != OVER;
    Ok(Verdict { state: passes.then_some(0), remaining, reset, retry: if passes { 0 } else { reset.max(SECOND) } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u64, remaining: u64, seconds: u64) -> Vec<u8> {
        let (mut status, mut duration) = (Vec::new(), Vec::new());
        number(&mut status, 1, code);
        number(&mut status, 3, remaining);
        number(&mut duration, 1, seconds);
        bytes(&mut status, 4, &duration);
        status
    }

    #[test]
    fn answers_are_read_or_are_none() {
        let answer = |overall: u64, statuses: &[Vec<u8>]| {
            let mut answer = Vec::new();
            number(&mut answer, 1, overall);
            statuses.iter().for_each(|status| bytes(&mut answer, 2, status));
            answer
        };
        let both = verdicts(&answer(2, &[status(1, 7, 3), status(2, 0, 9)]), 2).unwrap();
        assert_eq!(both[0], Verdict { state: Some(0), remaining: 7, reset: 3 * SECOND, retry: 0 });
        assert_eq!(both[1], Verdict { state: None, remaining: 0, reset: 9 * SECOND, retry: 9 * SECOND });
        let bare = |overall| verdicts(&answer(overall, &[]), 1).map(|verdicts| verdicts[0].state.is_some());
        assert_eq!([bare(1), bare(2), bare(0)], [Some(true), Some(false), None]);
        assert_eq!(verdicts(&answer(1, &[status(1, 7, 3)]), 2), None, "one for each");
        assert_eq!(verdicts(b"\x08", 1), None);
    }
}
