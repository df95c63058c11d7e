//! Limits on requests: at an even rate after a burst, or by the calendar; one or several at once.
//!
//! A request passes if all limits let it pass, and takes from all of them or from none. What it is told apart by and has not counts
//! for its client's address, so that leaving it out is no way around a limit.

mod bill;
mod global;
mod key;
mod policy;
mod settings;
mod usage;

use std::rc::Rc;
use std::time::UNIX_EPOCH;

use portcullis_sdk::limit::{self, Take, Verdict};
use portcullis_sdk::metric::Counter;
use portcullis_sdk::{Bodies, Filter, Host, Next, Request, Response, StartError};

use bill::{Bill, Book};
use global::{Answer, Service};
use key::Caller;
use policy::{Asked, Limit, Outcome};
use settings::{OnFailure, Settings};

struct RateLimit {
    book: Rc<Book>,
    ipv6_prefix: u8,
    service: Option<Rc<Service>>,
    /// For each limit, how often it refused, or would have.
    refusals: Vec<Counter>,
    /// For each limit, the property that says what it has left.
    remaining: Vec<String>,
}

/// The property that names the limits that refused a request.
const REFUSED: &str = "rate_limit.refused";

/// The property that names the limits in shadow that would have.
const WOULD_REFUSE: &str = "rate_limit.would_refuse";

impl Filter for RateLimit {
    type Config = Settings;
    /// Responses may say in their bodies what they have cost.
    const BODIES: Bodies = Bodies::RESPONSE;
    const LOGS: bool = true;

    async fn start(settings: Settings, host: &Host) -> Result<Self, StartError> {
        let checked = settings.checked()?;
        let counter = |limit: &Limit| {
            let what = if limit.shadow { "would_refuse" } else { "refused" };
            host.counter(&format!("rate_limit_{what}.{}", limit.name))
        };
        let refusals = checked.limits.iter().map(counter).collect();
        let remaining = checked.limits.iter().map(|limit| format!("rate_limit.remaining.{}", limit.name)).collect();
        let service = |global| Rc::new(Service::new(global, host.counter("rate_limit_service_failures")));
        let service = checked.global.map(service);
        let book = Rc::new(Book::new(checked.limits.into(), host.clone()));
        Ok(Self { book, ipv6_prefix: checked.ipv6_prefix, service, refusals, remaining })
    }

    async fn handle(&self, mut request: Request, next: Next) -> Response {
        let limits = &self.book.limits;
        let since_epoch = self.book.host.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX);
        let caller = Caller::of(&request, self.ipv6_prefix);
        let asked: Vec<Asked> = limits.iter().map(|limit| limit.asked(&caller, now)).collect();
        let (verdicts, counted_by) = match &self.service {
            None => (self.take(&asked), None),
            Some(service) => match service.ask(limits, &asked, now).await {
                Answer::Verdicts(verdicts) => (Some(verdicts), Some(service)),
                Answer::Failed(OnFailure::Local) => (self.take(&asked), None),
                Answer::Failed(OnFailure::Allow) => (None, None),
                Answer::Failed(OnFailure::Refuse) => return Response::problem(503, "rate_limit_unavailable"),
            },
        };
        let Some(verdicts) = verdicts else { return next.run(request).await };
        for (counter, _) in self.refusals.iter().zip(&verdicts).filter(|(_, verdict)| verdict.state.is_none()) {
            counter.increment();
        }
        let outcome = Outcome::of(limits, &asked, &verdicts);
        self.note(&outcome, &verdicts, &mut request);
        let mut response = match outcome.retry {
            Some(retry) => outcome.refusal(retry),
            None => {
                let bill = Bill::open(&self.book, asked, counted_by.cloned(), &mut request);
                let response = next.run(request).await;
                if let Some(bill) = bill {
                    bill.answered(&response);
                }
                response
            }
        };
        outcome.tell(&mut response);
        response
    }
}

portcullis_sdk::export_filter!(RateLimit);

impl RateLimit {
    /// Leaves in properties how the limits stand, for access logs.
    fn note(&self, outcome: &Outcome, verdicts: &[Verdict], request: &mut Request) {
        for (name, verdict) in self.remaining.iter().zip(verdicts) {
            request.set_property(name, verdict.remaining.to_string());
        }
        for (name, limits) in [(REFUSED, &outcome.refusing), (WOULD_REFUSE, &outcome.would_refuse)] {
            if !limits.is_empty() {
                request.set_property(name, limits.join(","));
            }
        }
    }

    /// Takes what a request costs from its limits here.
    ///
    /// `None` when the store would not take the new states however often it was tried. Then requests pass: a store that is full
    /// or broken must not lock out every client, and the gateway's own limits still hold.
    fn take(&self, asked: &[Asked]) -> Option<Vec<Verdict>> {
        let takes: Vec<Take> = asked.iter().map(|asked| asked.take.clone()).collect();
        match limit::take(&self.book.host, &takes) {
            Ok(verdicts) => Some(verdicts),
            Err(why) => {
                log::warn!("a limit was not stored, and the request passes: {why}");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
