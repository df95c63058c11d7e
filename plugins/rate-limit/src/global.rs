//! Limits that several gateways share: counted by a service that speaks Envoy's rate-limit API.
//!
//! It is told of each limit by a descriptor: the limit's name and its keys, with how much may pass, which a service that has
//! limits of its own may ignore. A service that fails is left alone for a second. What a response turns out to have cost is told to
//! Portcullis' service as such; to others, whose API has no words for that, as a further request, and only where more is owed.

use std::cell::Cell;
use std::rc::Rc;

use portcullis_abi::protobuf::{Fields, Malformed, Value, bytes, number};
use portcullis_sdk::grpc::GrpcError;
use portcullis_sdk::limit::{SECOND, Verdict};
use portcullis_sdk::metric::Counter;

use crate::bill::Book;
use crate::policy::{Asked, Limit};
use crate::settings::{Global, OnFailure};

const SERVICE: &str = "envoy.service.ratelimit.v3.RateLimitService";
/// Portcullis' own addition: the hits of each descriptor are owed, whatever its limit says, or given back.
const SETTLING: &str = "portcullis.ratelimit.v1.RateLimitService";
/// gRPC's `UNIMPLEMENTED`.
const UNKNOWN: u32 = 12;
/// How long a service that has failed is left alone.
const PAUSE: u64 = SECOND;

/// A service, and how it fares.
pub(crate) struct Service {
    settings: Global,
    /// Not asked again before this.
    until: Cell<u64>,
    /// Whether it knows what it is to settle something, as far as is known.
    settles: Cell<bool>,
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
        Self { settings, until: Cell::new(0), settles: Cell::new(true), failures }
    }

    pub(crate) async fn ask(&self, limits: &[Limit], asked: &[Asked], now: u64) -> Answer {
        let failed = Answer::Failed(self.settings.on_failure);
        if now < self.until.get() {
            return failed;
        }
        let all = limits.iter().zip(asked).map(|(limit, asked)| (limit, asked, limit.cost.into()));
        let answer = self.call(SERVICE, "ShouldRateLimit", request(&self.settings.domain, all)).await;
        let answer = answer.map_err(|why| why.to_string());
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

    async fn call(&self, service: &str, method: &str, request: Vec<u8>) -> Result<Vec<u8>, GrpcError> {
        self.settings.upstream.grpc(service, method, &request).timeout(self.settings.timeout()).send().await
    }

    /// Tells it what is owed beside what was reserved, or less, by the places of limits; nobody waits for that.
    pub(crate) fn settle(self: &Rc<Self>, book: &Book, asked: &[Asked], owed: &[(usize, i64)]) {
        let parts = |keep: fn(i64) -> bool| {
            let parts = owed.iter().filter(|(_, more)| keep(*more));
            let parts = parts.filter_map(|(place, more)| Some((book.limits.get(*place)?, asked.get(*place)?, *more)));
            request(&self.settings.domain, parts)
        };
        let (all, more) = (parts(|_| true), owed.iter().any(|(_, more)| *more > 0).then(|| parts(|more| more > 0)));
        let service = Rc::clone(self);
        book.host.spawn(async move {
            if let Err(why) = service.tell_owed(all, more).await {
                log::warn!("the rate-limit service was not told what a response has cost: {why}");
                service.failures.increment();
            }
        });
    }

    async fn tell_owed(&self, all: Vec<u8>, more: Option<Vec<u8>>) -> Result<(), GrpcError> {
        if self.settles.get() {
            match self.call(SETTLING, "Settle", all).await {
                Err(GrpcError::Status { code: UNKNOWN, .. }) => self.settles.set(false),
                told => return told.map(|_| ()),
            }
        }
        match more {
            Some(more) => self.call(SERVICE, "ShouldRateLimit", more).await.map(|_| ()),
            None => Ok(()),
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

/// `RateLimitRequest`: so many hits of each of these. Fewer than none are given back.
fn request<'a>(domain: &str, parts: impl Iterator<Item = (&'a Limit, &'a Asked, i64)>) -> Vec<u8> {
    let mut request = Vec::new();
    bytes(&mut request, 1, domain.as_bytes());
    for (limit, asked, count) in parts {
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
        let (amount, seconds) = asked.amount.in_words();
        let mut own = Vec::new();
        number(&mut own, 1, amount.into());
        number(&mut own, 2, unit(seconds));
        bytes(&mut descriptor, 2, &own);
        let mut hits = Vec::new();
        number(&mut hits, 1, count.unsigned_abs());
        bytes(&mut descriptor, 3, &hits);
        if count < 0 {
            // `is_negative_hits`.
            number(&mut descriptor, 4, 1);
        }
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
