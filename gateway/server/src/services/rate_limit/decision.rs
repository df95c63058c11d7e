//! What a request is told: its descriptors, the limits that hold for them, and what those say.
//!
//! A descriptor is counted against the configured limit that names most of its entries, or, where none does, against the limit it
//! brings itself. All descriptors of a request are taken from together, or none.

use std::collections::BTreeMap;

use portcullis_abi::limit::{Entry, Limit, Order, Quota, Rate, SECOND, Verdict};
use portcullis_abi::protobuf::{Fields, Value, bytes, number};
use portcullis_core::time::Time;
use portcullis_vm::Limits;

/// The limits of all domains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SharedLimits(pub(crate) Vec<SharedLimit>);

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SharedLimit {
    pub(crate) domain: String,
    /// What a descriptor must have: keys, and their values where it is not any. Each combination of values is counted by itself.
    pub(crate) entries: BTreeMap<String, Option<String>>,
    pub(crate) count: u64,
    /// In seconds.
    pub(crate) period: u64,
    pub(crate) burst: u64,
}

/// `RateLimitResponse.Code`.
const OK: u64 = 1;
const OVER_LIMIT: u64 = 2;
/// The most descriptors of a request.
const MOST: usize = 64;

/// `RateLimitDescriptor`, with its limit if it brings one.
#[derive(Debug, Default)]
struct Descriptor<'a> {
    entries: Vec<(&'a [u8], &'a [u8])>,
    own: Option<(u64, u64)>,
    hits: Option<u64>,
}

impl SharedLimits {
    /// The answer to a request; nothing where the request is none.
    pub(super) fn decide(&self, request: &[u8], states: &Limits, now: Time) -> Option<Vec<u8>> {
        let (mut domain, mut descriptors, mut hits) = (&b""[..], Vec::new(), 0);
        for field in Fields::of(request) {
            match field.ok()? {
                (1, Value::Bytes(name)) => domain = name,
                (2, Value::Bytes(descriptor)) => descriptors.push(read(descriptor)?),
                (3, Value::Number(count)) => hits = count,
                _ => {}
            }
        }
        if domain.is_empty() || descriptors.is_empty() || descriptors.len() > MOST {
            return None;
        }
        let now = now.as_nanos();
        // 0 stands for one, as the API has it.
        let cost = |descriptor: &Descriptor<'_>| descriptor.hits.unwrap_or(hits.max(1));
        let limits: Vec<_> = descriptors.iter().map(|descriptor| self.limit(domain, descriptor, now)).collect();
        let keys: Vec<Vec<u8>> = descriptors.iter().map(|descriptor| key(domain, descriptor)).collect();
        let mut entries = Vec::new();
        for ((descriptor, key), limit) in descriptors.iter().zip(&keys).zip(&limits) {
            if let Some((limit, ..)) = limit {
                let cost = i64::try_from(cost(descriptor)).unwrap_or(i64::MAX);
                entries.push(Entry { key, limit: *limit, cost, shadow: false });
            }
        }
        let mut verdicts = states.order(Order::Take, &entries, now).ok()?.into_iter();
        let mut answer = Vec::new();
        let mut statuses = Vec::new();
        let mut overall = OK;
        for limit in &limits {
            let verdict = if limit.is_some() { verdicts.next() } else { None };
            if verdict.is_some_and(|verdict| verdict.state.is_none()) {
                overall = OVER_LIMIT;
            }
            bytes(&mut statuses, 2, &status(limit.as_ref(), verdict.as_ref()));
        }
        number(&mut answer, 1, overall);
        answer.extend(statuses);
        Some(answer)
    }

    /// The limit that holds for a descriptor, and in words: how many, in how many seconds.
    fn limit(&self, domain: &[u8], descriptor: &Descriptor<'_>, now: u64) -> Option<(Limit, u64, u64)> {
        let fits = |rule: &&SharedLimit| {
            rule.domain.as_bytes() == domain
                && rule.entries.iter().all(|(key, value)| {
                    let mut values = descriptor.entries.iter().filter(|(own, _)| *own == key.as_bytes());
                    values.any(|(_, own)| value.as_ref().is_none_or(|value| *own == value.as_bytes()))
                })
        };
        let precision = |rule: &&SharedLimit| (rule.entries.len(), rule.entries.values().flatten().count());
        if let Some(rule) = self.0.iter().filter(fits).max_by_key(precision) {
            let rate = Rate { interval: (rule.period * SECOND / rule.count.max(1)).max(1), burst: rule.burst };
            return Some((Limit::Rate(rate), rule.count, rule.period));
        }
        let (count, unit) = descriptor.own?;
        let period = match unit {
            1 => 1,
            2 => 60,
            3 => 3600,
            4 => 86_400,
            7 => 7 * 86_400,
            5 => 30 * 86_400,
            6 => 365 * 86_400,
            _ => return None,
        };
        if count == 0 {
            return Some((Limit::Quota(Quota { count: 0, ends: now + period * SECOND }), 0, period));
        }
        Some((Limit::Rate(Rate { interval: (period * SECOND / count).max(1), burst: count }), count, period))
    }
}

fn read(message: &[u8]) -> Option<Descriptor<'_>> {
    let mut descriptor = Descriptor::default();
    for field in Fields::of(message) {
        match field.ok()? {
            (1, Value::Bytes(entry)) => {
                let (mut key, mut value) = (&b""[..], &b""[..]);
                for field in Fields::of(entry) {
                    match field.ok()? {
                        (1, Value::Bytes(bytes)) => key = bytes,
                        (2, Value::Bytes(bytes)) => value = bytes,
                        _ => {}
                    }
                }
                descriptor.entries.push((key, value));
            }
            (2, Value::Bytes(limit)) => descriptor.own = Some((of(limit, 1)?, of(limit, 2)?)),
            (3, Value::Bytes(hits)) => descriptor.hits = Some(of(hits, 1)?),
            _ => {}
        }
    }
    Some(descriptor)
}

/// A number of a message; 0 where it is not there.
fn of(message: &[u8], wanted: u64) -> Option<u64> {
    let mut found = 0;
    for field in Fields::of(message) {
        if let (field, Value::Number(number)) = field.ok()?
            && field == wanted
        {
            found = number;
        }
    }
    Some(found)
}

/// What a descriptor's state is kept under: nothing in it can be shifted.
fn key(domain: &[u8], descriptor: &Descriptor<'_>) -> Vec<u8> {
    let mut key = Vec::new();
    bytes(&mut key, 1, domain);
    for (name, value) in &descriptor.entries {
        bytes(&mut key, 2, name);
        bytes(&mut key, 3, value);
    }
    key
}

/// `RateLimitResponse.DescriptorStatus`.
fn status(limit: Option<&(Limit, u64, u64)>, verdict: Option<&Verdict>) -> Vec<u8> {
    let mut status = Vec::new();
    let (Some((_, count, period)), Some(verdict)) = (limit, verdict) else {
        number(&mut status, 1, OK);
        return status;
    };
    number(&mut status, 1, if verdict.state.is_some() { OK } else { OVER_LIMIT });
    let mut current = Vec::new();
    number(&mut current, 1, *count);
    let unit = [(1, 1), (60, 2), (3600, 3), (86_400, 4), (7 * 86_400, 7), (30 * 86_400, 5), (365 * 86_400, 6)];
    number(&mut current, 2, unit.iter().find(|(seconds, _)| seconds == period).map_or(0, |(_, unit)| *unit));
    bytes(&mut status, 2, &current);
    number(&mut status, 3, verdict.remaining);
    let mut duration = Vec::new();
    // Until it would pass, where it does not: that is what whoever is refused has to know.
    let wait = if verdict.state.is_none() && verdict.retry != u64::MAX { verdict.retry } else { verdict.reset };
    number(&mut duration, 1, wait.div_ceil(SECOND));
    bytes(&mut status, 4, &duration);
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(entries: &[(&str, &str)], own: Option<(u64, u64)>, hits: Option<u64>) -> Vec<u8> {
        let mut descriptor = Vec::new();
        for (key, value) in entries {
            let mut entry = Vec::new();
            bytes(&mut entry, 1, key.as_bytes());
            bytes(&mut entry, 2, value.as_bytes());
            bytes(&mut descriptor, 1, &entry);
        }
        if let Some((count, unit)) = own {
            let mut limit = Vec::new();
            number(&mut limit, 1, count);
            number(&mut limit, 2, unit);
            bytes(&mut descriptor, 2, &limit);
        }
        if let Some(hits) = hits {
            let mut wrapped = Vec::new();
            number(&mut wrapped, 1, hits);
            bytes(&mut descriptor, 3, &wrapped);
        }
        descriptor
    }

    fn request(domain: &str, descriptors: &[Vec<u8>]) -> Vec<u8> {
        let mut request = Vec::new();
        bytes(&mut request, 1, domain.as_bytes());
        descriptors.iter().for_each(|descriptor| bytes(&mut request, 2, descriptor));
        request
    }

    /// The overall code, then each status: its code, what remains, seconds.
    fn read_answer(answer: &[u8]) -> Vec<u64> {
        let mut numbers = Vec::new();
        for field in Fields::of(answer).map(Result::unwrap) {
            match field {
                (1, Value::Number(code)) => numbers.push(code),
                (2, Value::Bytes(status)) => {
                    numbers.extend([of(status, 1).unwrap(), of(status, 3).unwrap()]);
                }
                _ => {}
            }
        }
        numbers
    }

    fn rules() -> SharedLimits {
        let rule = |entries: &[(&str, Option<&str>)], count| {
            let entries = entries.iter().map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned))).collect();
            SharedLimit { domain: "edge".to_owned(), entries, count, period: 60, burst: count }
        };
        SharedLimits(vec![
            rule(&[("header", None)], 2),
            rule(&[("header", Some("gold"))], 5),
            rule(&[("limit", Some("x")), ("header", None)], 1),
        ])
    }

    #[test]
    fn the_most_precise_limit_holds_then_the_one_that_was_brought_then_none() {
        let (rules, states) = (rules(), Limits::default());
        let ask = |domain: &str, entries: &[(&str, &str)], own| {
            let answer =
                rules.decide(&request(domain, &[descriptor(entries, own, None)]), &states, Time::from_nanos(SECOND));
            read_answer(&answer.unwrap())
        };
        assert_eq!(ask("edge", &[("header", "ann")], None), [OK, OK, 1]);
        assert_eq!(ask("edge", &[("header", "gold")], None), [OK, OK, 4]);
        assert_eq!(ask("edge", &[("limit", "x"), ("header", "ann")], Some((9, 1))), [OK, OK, 0]);
        assert_eq!(ask("other", &[("header", "ann")], Some((3, 2))), [OK, OK, 2]);
        assert_eq!(ask("other", &[("header", "ann")], None), [OK, OK, 0], "without a limit everything passes");
        assert_eq!(ask("other", &[("header", "bob")], Some((0, 2))), [OVER_LIMIT, OVER_LIMIT, 0]);
    }

    #[test]
    fn descriptors_are_taken_from_together() {
        let (rules, states) = (rules(), Limits::default());
        let ask = |descriptors: &[Vec<u8>]| {
            read_answer(&rules.decide(&request("edge", descriptors), &states, Time::from_nanos(SECOND)).unwrap())
        };
        let (wide, narrow) =
            (descriptor(&[("header", "gold")], None, Some(2)), descriptor(&[("header", "ann")], None, None));
        assert_eq!(ask(&[wide.clone(), narrow.clone()]), [OK, OK, 3, OK, 1]);
        assert_eq!(ask(&[wide.clone(), narrow.clone()]), [OK, OK, 1, OK, 0]);
        assert_eq!(ask(&[wide.clone(), narrow]), [OVER_LIMIT, OVER_LIMIT, 1, OVER_LIMIT, 0]);
        assert_eq!(ask(&[descriptor(&[("header", "gold")], None, None)]), [OK, OK, 0], "being refused costs nothing");
    }

    #[test]
    fn what_is_no_request_has_no_answer() {
        for bytes in [&b""[..], b"\x0a\x04edge", b"\x08", b"\x0a\x04edge\x12\x01\x0a", b"\x12\x00"] {
            assert_eq!(rules().decide(bytes, &Limits::default(), Time::default()), None, "{bytes:?}");
        }
    }
}
