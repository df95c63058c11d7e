//! What a request asks, and what it is told: its descriptors, the limits that hold for them, and what those say.
//!
//! A descriptor is counted against the configured limit that names most of its entries, or, where none does, against the limit it
//! brings itself. All descriptors of a request are taken from together, or none.

use std::collections::BTreeMap;

use portcullis_abi::calendar::{Unit, Zone};
use portcullis_abi::limit::{Order, SECOND, Verdict};
use portcullis_abi::protobuf::{Fields, Value, bytes, number};

use super::store::{Amount, Part};

/// The limits of all domains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SharedLimits(pub(crate) Vec<SharedLimit>);

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SharedLimit {
    pub(crate) domain: String,
    /// What a descriptor must have: keys, and their values where it is not any. Each combination of values is counted by itself.
    pub(crate) entries: BTreeMap<String, Option<String>>,
    pub(crate) amount: Amount,
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
    /// `is_negative_hits`: they are given back.
    gives_back: bool,
}

/// A request, as read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked<'a> {
    pub(super) domain: &'a [u8],
    /// What is taken, from those limits that hold.
    pub(super) parts: Vec<Part>,
    /// For each descriptor, the limit that holds for it.
    limits: Vec<Option<Amount>>,
}

impl SharedLimits {
    /// What a request asks for; nothing where it is none.
    pub(super) fn read<'a>(&self, request: &'a [u8]) -> Option<Asked<'a>> {
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
        let limits: Vec<_> = descriptors.iter().map(|descriptor| self.limit(domain, descriptor)).collect();
        let parts = descriptors.iter().zip(&limits).filter_map(|(descriptor, limit)| {
            // 0 stands for one, as the API has it.
            let hits = i64::try_from(descriptor.hits.unwrap_or(hits.max(1))).unwrap_or(i64::MAX);
            let cost = if descriptor.gives_back { -hits } else { hits };
            limit.map(|amount| Part { key: key(domain, descriptor, amount), amount, cost })
        });
        let parts = parts.collect();
        Some(Asked { domain, parts, limits })
    }

    /// The limit that holds for a descriptor.
    fn limit(&self, domain: &[u8], descriptor: &Descriptor<'_>) -> Option<Amount> {
        let fits = |rule: &&SharedLimit| {
            rule.domain.as_bytes() == domain
                && rule.entries.iter().all(|(key, value)| {
                    let mut values = descriptor.entries.iter().filter(|(own, _)| *own == key.as_bytes());
                    values.any(|(_, own)| value.as_ref().is_none_or(|value| *own == value.as_bytes()))
                })
        };
        let precision = |rule: &&SharedLimit| (rule.entries.len(), rule.entries.values().flatten().count());
        if let Some(rule) = self.0.iter().filter(fits).max_by_key(precision) {
            return Some(rule.amount);
        }
        let (count, unit) = descriptor.own?;
        if let Some((unit, zone)) = descriptor.entry(QUOTA).and_then(window) {
            return Some(Amount::Quota { count, unit, zone });
        }
        let (_, period) = UNITS.into_iter().find(|(own, _)| *own == unit)?;
        let burst = descriptor.entry(BURST).and_then(|burst| burst.parse().ok());
        Some(Amount::Rate { count, period, burst: burst.unwrap_or(count) })
    }
}

impl Descriptor<'_> {
    fn entry(&self, key: &str) -> Option<&str> {
        let (_, value) = self.entries.iter().find(|(own, _)| *own == key.as_bytes())?;
        std::str::from_utf8(value).ok()
    }
}

/// By these entries a descriptor says more of the limit that it brings than the API has words for: at which ends of the
/// calendar it begins anew (`month@Europe/Berlin`), and how many may pass at once.
const QUOTA: &str = "quota";
const BURST: &str = "burst";

fn window(text: &str) -> Option<(Unit, Zone)> {
    let (unit, zone) = text.split_once('@').unwrap_or((text, ""));
    Some((Unit::named(unit)?, if zone.is_empty() { Zone::default() } else { Zone::parse(zone).ok()? }))
}

/// `envoy.type.v3.RateLimitUnit`, and the seconds of each.
const UNITS: [(u64, u64); 7] =
    [(1, 1), (2, 60), (3, 3600), (4, 86_400), (7, 7 * 86_400), (5, 30 * 86_400), (6, 365 * 86_400)];

impl Asked<'_> {
    /// What is to be done, where `order` is what was called for: what gives something back refuses nothing.
    pub(super) fn order(&self, order: Order) -> Order {
        if self.parts.iter().any(|part| part.cost < 0) { Order::Settle } else { order }
    }

    /// The answer, from a verdict for each part.
    pub(super) fn answer(&self, verdicts: &[Verdict]) -> Vec<u8> {
        let mut verdicts = verdicts.iter();
        let mut answer = Vec::new();
        let mut statuses = Vec::new();
        let mut overall = OK;
        for limit in &self.limits {
            let verdict = if limit.is_some() { verdicts.next() } else { None };
            if verdict.is_some_and(|verdict| verdict.state.is_none()) {
                overall = OVER_LIMIT;
            }
            bytes(&mut statuses, 2, &status(*limit, verdict));
        }
        number(&mut answer, 1, overall);
        answer.extend(statuses);
        answer
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
            (4, Value::Number(flag)) => descriptor.gives_back = flag != 0,
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

/// What a descriptor's state is kept under: nothing in it can be shifted. A rate's state says nothing to a quota.
fn key(domain: &[u8], descriptor: &Descriptor<'_>, amount: Amount) -> Vec<u8> {
    let mut key = match amount {
        Amount::Rate { .. } => b"rate".to_vec(),
        Amount::Quota { .. } => b"quota".to_vec(),
    };
    let entries = descriptor.entries.iter().map(|(name, value)| (*name, *value));
    for (name, value) in std::iter::once((&b"domain"[..], domain)).chain(entries) {
        for (mark, text) in [(b'|', name), (b'=', value)] {
            key.push(mark);
            for byte in text {
                if b"\\|=".contains(byte) {
                    key.push(b'\\');
                }
                key.push(*byte);
            }
        }
    }
    key
}

/// `RateLimitResponse.DescriptorStatus`.
fn status(limit: Option<Amount>, verdict: Option<&Verdict>) -> Vec<u8> {
    let mut status = Vec::new();
    let (Some(limit), Some(verdict)) = (limit, verdict) else {
        number(&mut status, 1, OK);
        return status;
    };
    number(&mut status, 1, if verdict.state.is_some() { OK } else { OVER_LIMIT });
    let mut current = Vec::new();
    number(&mut current, 1, limit.count());
    let unit = UNITS.into_iter().find(|(_, seconds)| *seconds == limit.period());
    number(&mut current, 2, unit.map_or(0, |(unit, _)| unit));
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
    use portcullis_abi::limit::{Entry, Order};
    use portcullis_vm::Limits;

    use super::*;

    fn decide(rules: &SharedLimits, states: &Limits, request: &[u8]) -> Vec<u64> {
        let asked = rules.read(request).unwrap();
        let entries = asked.parts.iter().map(|Part { key, amount, cost }| Entry {
            key,
            limit: amount.limit(SECOND),
            cost: *cost,
            shadow: false,
        });
        let verdicts = states.order(asked.order(Order::Take), &entries.collect::<Vec<_>>(), SECOND).unwrap();
        read_answer(&asked.answer(&verdicts))
    }

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
            SharedLimit { domain: "edge".to_owned(), entries, amount: Amount::Rate { count, period: 60, burst: count } }
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
            decide(&rules, &states, &request(domain, &[descriptor(entries, own, None)]))
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
        let ask = |descriptors: &[Vec<u8>]| decide(&rules, &states, &request("edge", descriptors));
        let (wide, narrow) =
            (descriptor(&[("header", "gold")], None, Some(2)), descriptor(&[("header", "ann")], None, None));
        assert_eq!(ask(&[wide.clone(), narrow.clone()]), [OK, OK, 3, OK, 1]);
        assert_eq!(ask(&[wide.clone(), narrow.clone()]), [OK, OK, 1, OK, 0]);
        assert_eq!(ask(&[wide.clone(), narrow]), [OVER_LIMIT, OVER_LIMIT, 1, OVER_LIMIT, 0]);
        assert_eq!(ask(&[descriptor(&[("header", "gold")], None, None)]), [OK, OK, 0], "being refused costs nothing");
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let (rules, states) = (rules(), Limits::default());
        let ask = |hits, gives_back| {
            let mut descriptor = descriptor(&[("header", "gold")], None, Some(hits));
            number(&mut descriptor, 4, gives_back);
            decide(&rules, &states, &request("edge", &[descriptor]))
        };
        assert_eq!([ask(5, 0), ask(2, 1), ask(3, 0)], [[OK, OK, 0], [OK, OK, 2], [OVER_LIMIT, OVER_LIMIT, 2]]);
        assert_eq!([ask(9, 1), ask(5, 0)], [[OK, OK, 5], [OK, OK, 0]], "no more than there is");
    }

    #[test]
    fn what_is_no_request_has_no_answer() {
        for bytes in [&b""[..], b"\x0a\x04edge", b"\x08", b"\x0a\x04edge\x12\x01\x0a", b"\x12\x00"] {
            assert_eq!(rules().read(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_limit_that_is_brought_says_by_entries_what_the_api_has_no_words_for() {
        let brought = |entries: &[(&str, &str)]| {
            let request = request("other", &[descriptor(entries, Some((9, 5)), None)]);
            rules().read(&request).unwrap().parts[0].amount
        };
        let month = |zone| Amount::Quota { count: 9, unit: Unit::Month, zone };
        let rate = |burst| Amount::Rate { count: 9, period: 30 * 86_400, burst };
        for zone in ["+01:00", "Europe/Berlin", "Etc/GMT-1"] {
            let quota = format!("month@{zone}");
            assert_eq!(brought(&[("quota", &quota)]), month(Zone::parse(zone).unwrap()));
        }
        assert_eq!(brought(&[("limit", "a"), ("quota", "month")]), month(Zone::default()));
        assert_eq!(brought(&[("burst", "90")]), rate(90));
        for unknown in
            [("quota", "week"), ("quota", "month@+1"), ("quota", "month@Berlin"), ("burst", "many"), ("limit", "quota")]
        {
            assert_eq!(brought(&[unknown]), rate(9), "{unknown:?}");
        }
    }

    #[test]
    fn parts_of_a_key_cannot_be_shifted() {
        let key = |entries: &[(&str, &str)]| {
            let request = request("edge", &[descriptor(entries, Some((1, 1)), None)]);
            rules().read(&request).unwrap().parts.remove(0).key
        };
        assert_eq!(key(&[("limit", "api"), ("a", "b")]), b"rate|domain=edge|limit=api|a=b");
        assert_ne!(key(&[("limit", "api|a=b")]), key(&[("limit", "api"), ("a", "b")]));
        assert_ne!(key(&[("limit", "api\\"), ("a", "b")]), key(&[("limit", "api\\|a=b")]));
    }
}
