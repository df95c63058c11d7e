//! Limits on requests: at an even rate after a burst, or by the calendar; one or several at once.
//!
//! A request passes if all limits let it pass, and takes from all of them or from none. What it is told apart by and has not counts
//! for its client's address, so that leaving it out is no way around a limit.

mod global;
mod key;
mod policy;
mod settings;

use std::time::UNIX_EPOCH;

use portcullis_sdk::limit::{self, Take, Verdict};
use portcullis_sdk::metric::Counter;
use portcullis_sdk::{Filter, Host, Next, Request, Response, StartError};

use global::{Answer, Service};
use policy::{Asked, Limit, Outcome, Settle, refusal};
use settings::{BodyBytes, OnFailure, Settings};

struct RateLimit {
    limits: Vec<Limit>,
    ipv6_prefix: u8,
    service: Option<Service>,
    /// For each limit, how often it refused, or would have.
    refusals: Vec<Counter>,
    host: Host,
}

impl Filter for RateLimit {
    type Config = Settings;
    const LOGS: bool = true;

    async fn start(settings: Settings, host: &Host) -> Result<Self, StartError> {
        let checked = settings.checked()?;
        let counter = |limit: &Limit| {
            let what = if limit.shadow { "would_refuse" } else { "refused" };
            host.counter(&format!("rate_limit_{what}.{}", limit.name))
        };
        let refusals = checked.limits.iter().map(counter).collect();
        let service = |global| Service::new(global, host.counter("rate_limit_service_failures"));
        let service = checked.global.map(service);
        let (limits, ipv6_prefix) = (checked.limits, checked.ipv6_prefix);
        Ok(Self { limits, ipv6_prefix, service, refusals, host: host.clone() })
    }

    async fn handle(&self, mut request: Request, next: Next) -> Response {
        let since_epoch = self.host.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX);
        let asked: Vec<Asked> = self.limits.iter().map(|limit| limit.asked(&request, self.ipv6_prefix, now)).collect();
        let verdicts = match &self.service {
            None => self.take(&asked),
            Some(service) => match service.ask(&self.limits, &asked, now).await {
                Answer::Verdicts(verdicts) => Some(verdicts),
                Answer::Failed(OnFailure::Local) => self.take(&asked),
                Answer::Failed(OnFailure::Allow) => None,
                Answer::Failed(OnFailure::Refuse) => return Response::problem(503, "rate_limit_unavailable"),
            },
        };
        let Some(verdicts) = verdicts else { return next.run(request).await };
        for (counter, _) in self.refusals.iter().zip(&verdicts).filter(|(_, verdict)| verdict.state.is_none()) {
            counter.increment();
        }
        let outcome = Outcome::of(&self.limits, &asked, &verdicts);
        let mut response = match outcome.retry {
            Some(retry) => refusal(retry),
            None if self.service.is_none() => {
                self.settle_bytes(&asked, &mut request);
                let response = next.run(request).await;
                self.settle(&asked, &response);
                response
            }
            None => next.run(request).await,
        };
        outcome.tell(&mut response);
        response
    }
}

portcullis_sdk::export_filter!(RateLimit);

impl RateLimit {
    /// Takes what a request costs from its limits here.
    ///
    /// `None` when the store would not take the new states however often it was tried. Then requests pass: a store that is full
    /// or broken must not lock out every client, and the gateway's own limits still hold.
    fn take(&self, asked: &[Asked]) -> Option<Vec<Verdict>> {
        let takes: Vec<Take> = asked.iter().map(|asked| asked.take.clone()).collect();
        match limit::take(&self.host, &takes) {
            Ok(verdicts) => Some(verdicts),
            Err(why) => {
                log::warn!("a limit was not stored, and the request passes: {why}");
                None
            }
        }
    }

    /// Pays the rest of what the response says it has cost, or gets back what was not needed.
    fn settle(&self, asked: &[Asked], response: &Response) {
        for (limit, asked) in self.limits.iter().zip(asked) {
            if let Some(Settle::Header(name)) = &limit.settle
                && let Some(cost) = response.headers().text(name).and_then(|cost| cost.trim().parse::<u32>().ok())
            {
                settle(&self.host, &asked.take, cost.into());
            }
        }
    }

    /// Sees to it that the bytes of a request and its response are paid when all of them are known.
    fn settle_bytes(&self, asked: &[Asked], request: &mut Request) {
        let by_bytes = self.limits.iter().zip(asked).filter_map(|(limit, asked)| match &limit.settle {
            Some(Settle::Bytes(of)) => Some((*of, asked.take.clone())),
            Some(Settle::Header(_)) | None => None,
        });
        let (by_bytes, host): (Vec<_>, _) = (by_bytes.collect(), self.host.clone());
        if by_bytes.is_empty() {
            return;
        }
        request.on_log(move |ended| {
            let size = |side: &str| ended.property::<i64>(&[side, "size"]).unwrap_or(0);
            for (of, take) in by_bytes {
                let bytes = match of {
                    BodyBytes::Request => size("request"),
                    BodyBytes::Response => size("response"),
                    BodyBytes::Both => size("request").saturating_add(size("response")),
                };
                settle(&host, &take, bytes);
            }
        });
    }
}

/// Pays what was not reserved of a cost, or gets back what was not needed.
fn settle(host: &Host, take: &Take, cost: i64) {
    let more = cost.saturating_sub(i64::try_from(take.cost).unwrap_or(i64::MAX));
    if more != 0
        && let Err(why) = limit::settle(host, take, more)
    {
        log::warn!("what a response has cost was not stored: {why}");
    }
}

#[cfg(test)]
mod tests;
