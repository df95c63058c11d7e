//! The decision: what a request takes from which limits, and what its response says of them.

use std::collections::BTreeMap;

use portcullis_abi::calendar::{Unit, Zone};
use portcullis_sdk::limit::{self, Quota, SECOND, Take, Verdict};
use portcullis_sdk::{HeaderName, Response};

use crate::key::{Caller, Part, Source};
use crate::settings::{BodyBytes, Rate};

/// One limit, as read.
#[derive(Debug)]
pub(crate) struct Limit {
    pub(crate) name: String,
    pub(crate) keys: Vec<Source>,
    pub(crate) amount: Amount,
    pub(crate) cost: u32,
    pub(crate) settle: Option<Settle>,
    pub(crate) plans: Option<Plans>,
    pub(crate) shadow: bool,
    /// Where its states are in the shared data.
    pub(crate) namespace: String,
}

/// How much may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Amount {
    /// At an even rate, after a burst.
    Rate(Rate, u32),
    /// By the calendar.
    Quota(u32, Unit, Zone),
}

/// What says what a request has cost in all.
#[derive(Debug)]
pub(crate) enum Settle {
    /// A header of its response.
    Header(HeaderName),
    /// A number in its body: the tokens of the JSON Pointer to it.
    Json(Vec<String>),
    /// The bytes that moved.
    Bytes(BodyBytes),
}

/// Other rates for some.
#[derive(Debug)]
pub(crate) struct Plans {
    pub(crate) of: PlanSource,
    pub(crate) rates: BTreeMap<String, Rate>,
}

/// What says which plan a request is for.
#[derive(Debug)]
pub(crate) enum PlanSource {
    /// A request header.
    Header(HeaderName),
    /// A claim that `auth` has verified.
    Claim(String),
}

/// A limit as it is for one request: for whom it counts, and how much they have.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) amount: Amount,
    pub(crate) parts: Vec<Part>,
    pub(crate) take: Take,
}

impl Limit {
    pub(crate) fn asked(&self, caller: &Caller<'_>, now: u64) -> Asked {
        let mut parts: Vec<Part> = self.keys.iter().map(|key| key.part(caller)).collect();
        let plan = self.plans.as_ref().and_then(|plans| {
            let plan = match &plans.of {
                PlanSource::Header(name) => caller.header(name)?.to_str().ok()?.to_owned(),
                PlanSource::Claim(name) => caller.claim(name)?,
            };
            Some((*plans.rates.get(&plan)?, plan))
        });
        let amount = match &plan {
            Some((rate, _)) => Amount::Rate(*rate, rate.count),
            None => self.amount,
        };
        // Whoever changes plans begins anew: a state says nothing without its rate.
        parts.extend(plan.map(|(_, value)| Part { kind: "plan", value }));
        let key = format!("{}{}", self.namespace, key(&parts));
        Asked {
            amount,
            parts,
            take: Take { key, limit: amount.limit(now), cost: self.cost.into(), shadow: self.shadow },
        }
    }

    /// `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers.
    pub(crate) fn policy(&self, amount: Amount) -> String {
        let (count, seconds) = amount.in_words();
        format!("\"{}\";q={count};w={seconds}", self.name)
    }

    /// `RateLimit` of the same draft.
    pub(crate) fn standing(&self, verdict: &Verdict) -> String {
        format!("\"{}\";r={};t={}", self.name, verdict.remaining, verdict.reset.div_ceil(SECOND))
    }
}

/// The parts of a key with what keeps them apart: no value has a line feed in it.
fn key(parts: &[Part]) -> String {
    let parts: Vec<String> = parts.iter().map(|Part { kind, value }| format!("{kind}={value}")).collect();
    parts.join("\n")
}

impl Amount {
    fn limit(self, now: u64) -> limit::Limit {
        match self {
            Self::Rate(Rate { count, period_s }, burst) => {
                let interval = (u64::from(period_s) * SECOND / u64::from(count.max(1))).max(1);
                limit::Limit::Rate(limit::Rate { interval, burst: burst.into() })
            }
            Self::Quota(count, unit, zone) => {
                limit::Limit::Quota(Quota { count: count.into(), ends: unit.end(now, zone) })
            }
        }
    }

    /// How many in how many seconds.
    pub(crate) fn in_words(self) -> (u32, u32) {
        match self {
            Self::Rate(Rate { count, period_s }, _) => (count, period_s),
            Self::Quota(count, unit, _) => (count, unit.seconds()),
        }
    }
}

impl Amount {
    /// What a service is told of it beside that, by an entry: the API has no words for it. One that knows nothing of such entries
    /// counts by them as by any other.
    pub(crate) fn more_words(self) -> Option<(&'static str, String)> {
        match self {
            Self::Rate(rate, burst) if burst != rate.count => Some(("burst", burst.to_string())),
            Self::Rate(..) => None,
            Self::Quota(_, unit, zone) => Some(("quota", format!("{}@{zone}", unit.name()))),
        }
    }
}

/// What came of a request's limits: those that are to be told of, and how they stand.
pub(crate) struct Outcome {
    /// Those that count, with their policies and standings.
    told: Vec<(String, String)>,
    /// The names of those that refuse.
    pub(crate) refusing: Vec<String>,
    /// The names of those that would, were they not in shadow.
    pub(crate) would_refuse: Vec<String>,
    /// Nanoseconds until it can pass, if it is refused. `u64::MAX` where it never can.
    pub(crate) retry: Option<u64>,
}

impl Outcome {
    pub(crate) fn of(limits: &[Limit], asked: &[Asked], verdicts: &[Verdict]) -> Self {
        let all = limits.iter().zip(asked).zip(verdicts).filter(|((limit, _), _)| !limit.shadow);
        let told = all.clone().map(|((limit, asked), verdict)| (limit.policy(asked.amount), limit.standing(verdict)));
        let refusals = all.filter(|(_, verdict)| verdict.state.is_none()).map(|(_, verdict)| verdict.retry);
        let names = |shadow: bool| {
            let refusing = limits.iter().zip(verdicts).filter(|(_, verdict)| verdict.state.is_none());
            refusing.filter(|(limit, _)| limit.shadow == shadow).map(|(limit, _)| limit.name.clone()).collect()
        };
        Self { told: told.collect(), retry: refusals.max(), refusing: names(false), would_refuse: names(true) }
    }

    /// The reply to a request too many.
    ///
    /// `violated-policies` names those that refuse, as draft-ietf-httpapi-ratelimit-headers has it for problem documents.
    pub(crate) fn refusal(&self, retry: u64) -> Response {
        // Names are letters, digits, hyphens, underscores and dots.
        let names: Vec<String> = self.refusing.iter().map(|name| format!("\"{name}\"")).collect();
        let refusal = Response::problem(429, "rate_limited").title("Too many requests");
        let refusal = refusal.json_member("violated-policies", format!("[{}]", names.join(",")));
        if retry == u64::MAX {
            refusal
        } else {
            refusal.header("retry-after", retry.div_ceil(SECOND).max(1).to_string())
        }
    }

    /// Tells the client.
    pub(crate) fn tell(&self, response: &mut Response) {
        let (policies, standings): (Vec<&str>, Vec<&str>) =
            self.told.iter().map(|(policy, standing)| (policy.as_str(), standing.as_str())).unzip();
        if !policies.is_empty() {
            let mut headers = response.headers_mut();
            headers.set("ratelimit-policy", policies.join(", "));
            headers.set("ratelimit", standings.join(", "));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(name: &str, shadow: bool) -> Limit {
        let amount = Amount::Rate(Rate { count: 100, period_s: 60 }, 10);
        let (name, namespace) = (name.to_owned(), String::new());
        Limit { name, keys: Vec::new(), amount, cost: 1, settle: None, plans: None, shadow, namespace }
    }

    fn verdict(state: Option<u64>, remaining: u64, retry: u64) -> Verdict {
        Verdict { state, remaining, reset: 1, retry }
    }

    #[test]
    fn the_longest_wait_is_told_and_limits_that_only_count_are_not() {
        let limits = [limit("a", false), limit("b", true), limit("c", false)];
        let take = Take { key: String::new(), limit: limits[0].amount.limit(0), cost: 1, shadow: false };
        let asked = Asked { amount: limits[0].amount, parts: Vec::new(), take };
        let asked = [asked.clone(), asked.clone(), asked];
        let verdicts = [verdict(None, 0, 5), verdict(None, 0, 500), verdict(None, 3, 9)];
        let outcome = Outcome::of(&limits, &asked, &verdicts);
        assert_eq!(outcome.retry, Some(9));
        assert_eq!((outcome.refusing.join(" "), outcome.would_refuse.join(" ")), ("a c".to_owned(), "b".to_owned()));
        let told: Vec<_> = outcome.told.iter().map(|(policy, standing)| format!("{policy} {standing}")).collect();
        assert_eq!(told, ["\"a\";q=100;w=60 \"a\";r=0;t=1", "\"c\";q=100;w=60 \"c\";r=3;t=1"]);
        let passes = [verdict(Some(0), 1, 0), verdict(None, 0, 7), verdict(Some(0), 1, 0)];
        assert_eq!(Outcome::of(&limits, &asked, &passes).retry, None);
    }

    #[test]
    fn parts_of_a_key_cannot_be_shifted() {
        let part = |kind, value: &str| Part { kind, value: value.to_owned() };
        assert_ne!(key(&[part("host", "a"), part("path", "b")]), key(&[part("host", "a\\npath=b")]));
        assert_eq!(key(&[part("host", "a"), part("path", "b")]), "host=a\npath=b");
    }
}
