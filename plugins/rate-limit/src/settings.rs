//! Settings as an operator writes them, and as the policy reads them.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroU32;
use std::time::Duration;

use plugin_common::pointer::unescaped;
use portcullis_abi::calendar::{Unit, Zone};
use portcullis_sdk::schema::{Piece, Schema};
use portcullis_sdk::{Config, HeaderName, Period, Upstream};
use serde::Deserialize;

use crate::key::Source;
use crate::policy::{Amount, Limit, PlanSource, Plans, Settle};

/// Limits on requests. Either one limit (`rate`, and what goes with it), or several under `limits`: a request passes if all of
/// them let it pass, and takes from all of them or from none.
#[derive(Config)]
pub(crate) struct Settings {
    /// Whose requests share the limit.
    #[serde(default)]
    key: Option<Source>,
    /// How many pass: `5/s`, `100/m`, `1000/h`, `10000/d`.
    rate: Option<Rate>,
    /// How many pass at once; the count of the rate unless told otherwise.
    burst: Option<NonZeroU32>,
    /// What the limit is called, to clients too. Limits of one name count together.
    name: Option<String>,
    /// Several limits.
    #[serde(default)]
    limits: Vec<OneLimit>,
    /// The client's network that counts as one client, for addresses of IPv6: a prefix of so many bits. 64 unless told otherwise.
    ipv6_prefix: Option<u8>,
    /// A service that counts for several gateways.
    global: Option<Global>,
}

/// One limit of several.
#[derive(Config, Hash)]
struct OneLimit {
    /// What it is called, to clients too: a word. Limits of one name count together.
    name: Option<String>,
    /// Whose requests share it. The client's address unless told otherwise.
    key: Option<Source>,
    /// Several of these together: each combination is counted by itself.
    #[serde(default)]
    keys: Vec<Source>,
    /// How many pass: `5/s`, `100/m`, `1000/h`, `10000/d`, at an even rate.
    rate: Option<Rate>,
    /// How many pass at once; the count of the rate unless told otherwise.
    burst: Option<NonZeroU32>,
    /// How many pass in an hour, a day or a month of the calendar: `100000/month`. Instead of `rate`.
    quota: Option<QuotaText>,
    /// Where the calendar's days begin: a place of the IANA Time Zone Database, such as `Europe/Berlin`, or an offset from UTC, such
    /// as `+02:00`. UTC unless told otherwise.
    zone: Option<ZoneText>,
    /// What one request takes; 1 unless told otherwise.
    cost: Option<NonZeroU32>,
    /// What says what the request has cost in all; `cost` is what is reserved until then.
    settle: Option<SettleBy>,
    /// Other rates for some, by a claim that `auth` has verified, or by a header.
    plans: Option<PlanSettings>,
    /// Counts, and never refuses.
    #[serde(default)]
    shadow: bool,
}

/// What says what a request has cost in all.
#[derive(Config, Hash)]
#[serde(rename_all = "snake_case")]
enum SettleBy {
    /// A header of its response, with a number.
    Header(HeaderName),
    /// A number in the body of its response, by a JSON Pointer: `/usage/total_tokens`. Of a stream of JSON lines or of server-sent
    /// events the last that has it.
    Json(String),
    /// The bytes of these bodies.
    Bytes(BodyBytes),
}

impl SettleBy {
    fn checked(self) -> Result<Settle, String> {
        Ok(match self {
            Self::Header(name) => Settle::Header(name),
            Self::Bytes(of) => Settle::Bytes(of),
            Self::Json(pointer) => {
                let tokens = pointer.strip_prefix('/').map(|tokens| tokens.split('/').map(unescaped).collect());
                let tokens = tokens.unwrap_or(None).ok_or_else(|| {
                    format!("`settle.json` is `{pointer}`, which is no JSON Pointer such as /usage/total_tokens")
                })?;
                Settle::Json(tokens)
            }
        })
    }
}

/// Whose bytes are counted.
#[derive(Clone, Copy, Config, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BodyBytes {
    /// The request's body.
    Request,
    /// The response's body.
    Response,
    /// Both.
    Both,
}

/// Rates by plan. One of `claim` and `header` names the plan.
#[derive(Config, Hash)]
struct PlanSettings {
    /// The claim that names it, which an `auth` filter before this one shares (`share_claims`).
    claim: Option<String>,
    /// The header that names it: one that a filter before this one sets.
    header: Option<HeaderName>,
    /// What each has instead of the limit's own rate.
    rates: BTreeMap<String, Rate>,
}

impl PlanSettings {
    fn checked(self) -> Result<Plans, String> {
        let of = match (self.claim, self.header) {
            (Some(claim), None) if !claim.is_empty() => PlanSource::Claim(claim),
            (None, Some(header)) => PlanSource::Header(header),
            (None, None) => return Err("`plans` needs `claim` or `header`, which names the plan".to_owned()),
            (Some(_), None) => return Err("`plans.claim` is empty".to_owned()),
            (Some(_), Some(_)) => return Err("`plans.claim` and `plans.header` are both there: write one".to_owned()),
        };
        Ok(Plans { of, rates: self.rates })
    }
}

/// A service that speaks Envoy's rate-limit API (`envoy.service.ratelimit.v3`).
#[derive(Config)]
pub(crate) struct Global {
    /// Where it is.
    pub(crate) upstream: Upstream,
    /// Which of its domains this is.
    pub(crate) domain: String,
    /// How long a request waits for it; 50ms unless told otherwise.
    timeout: Option<Period>,
    /// What becomes of requests while it does not answer: `local` (the default) counts here, `allow` lets them pass, `refuse`
    /// does not.
    #[serde(default)]
    pub(crate) on_failure: OnFailure,
}

impl Global {
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout.map_or(Duration::from_millis(50), |period| period.0)
    }
}

/// What becomes of requests while a service does not answer.
#[derive(Clone, Copy, Config, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnFailure {
    /// They are counted here.
    #[default]
    Local,
    /// They pass.
    Allow,
    /// They are refused.
    Refuse,
}

/// A count and the seconds it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Rate {
    pub(crate) count: u32,
    pub(crate) period_s: u32,
}

impl TryFrom<String> for Rate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a rate such as 5/s, 100/m or 1000/h");
        let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
        let count: u32 = count.trim().parse().map_err(|_| wrong())?;
        let period_s = match unit.trim() {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return Err(wrong()),
        };
        // A nanosecond is the finest step the limit knows.
        if (1..=1_000_000).contains(&count) { Ok(Self { count, period_s }) } else { Err(wrong()) }
    }
}

impl Schema for Rate {
    const SCHEMA: &'static [Piece] = &[Piece::Text(r#"{"type":"string","pattern":"^[0-9]+/[smhd]$"}"#)];
}

/// A count and the unit of the calendar it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
struct QuotaText {
    count: u32,
    unit: Unit,
}

impl TryFrom<String> for QuotaText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a quota such as 1000/hour, 10000/day or 100000/month");
        let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
        let count: u32 = count.trim().parse().ok().filter(|count| *count > 0).ok_or_else(wrong)?;
        Ok(Self { count, unit: Unit::named(unit.trim()).ok_or_else(wrong)? })
    }
}

impl Schema for QuotaText {
    const SCHEMA: &'static [Piece] = &[Piece::Text(r#"{"type":"string","pattern":"^[0-9]+/(hour|day|month)$"}"#)];
}

/// A time zone, such as `Europe/Berlin`, or an offset from UTC, such as `+02:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
struct ZoneText(Zone);

impl TryFrom<String> for ZoneText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Zone::parse(&text).map(Self).map_err(|why| format!("`{text}` is {why}"))
    }
}

impl Schema for ZoneText {
    const SCHEMA: &'static [Piece] =
        &[Piece::Text(r#"{"type":"string","pattern":"^([+-][0-9]{2}:[0-9]{2}|[A-Z][A-Za-z0-9_+/-]*)$"}"#)];
}

/// As read.
pub(crate) struct Checked {
    pub(crate) limits: Vec<Limit>,
    pub(crate) ipv6_prefix: u8,
    pub(crate) global: Option<Global>,
}

impl Settings {
    /// # Errors
    /// What an operator has to change.
    pub(crate) fn checked(self) -> Result<Checked, String> {
        let ipv6_prefix = self.ipv6_prefix.unwrap_or(64);
        if ipv6_prefix > 128 {
            return Err(format!("`ipv6_prefix` is {ipv6_prefix}, and an address has 128 bits"));
        }
        let single = self.key.is_some() || self.rate.is_some() || self.burst.is_some() || self.name.is_some();
        let written = match (single, self.limits.is_empty()) {
            (true, true) => vec![OneLimit {
                name: self.name,
                key: self.key,
                keys: Vec::new(),
                rate: self.rate,
                burst: self.burst,
                quota: None,
                zone: None,
                cost: None,
                settle: None,
                plans: None,
                shadow: false,
            }],
            (false, false) => self.limits,
            (true, false) => {
                return Err("`rate` and `limits` are both there: write one limit, or a list of them".to_owned());
            }
            (false, true) => return Err("there is no limit: write `rate`, or `limits`".to_owned()),
        };
        if written.len() > MOST_LIMITS {
            return Err(format!("`limits` has {} entries, and may have {MOST_LIMITS}", written.len()));
        }
        let mut limits: Vec<Limit> = Vec::new();
        for (place, one) in written.into_iter().enumerate() {
            let at = if single { String::new() } else { format!("`limits[{place}]`: ") };
            let limit = one.checked().map_err(|why| format!("{at}{why}"))?;
            if limits.iter().any(|other| other.name == limit.name) {
                return Err(format!("{at}another limit is called `{}` too; give it another `name`", limit.name));
            }
            limits.push(limit);
        }
        Ok(Checked { limits, ipv6_prefix, global: self.global })
    }
}

/// The most limits of one filter.
const MOST_LIMITS: usize = 16;

impl OneLimit {
    fn checked(self) -> Result<Limit, String> {
        let digest = digest(&self);
        let name = self.name.unwrap_or_else(|| "default".to_owned());
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            return Err(format!("`name` is `{name}`: write letters, digits, `-`, `_` and `.`"));
        }
        let keys = match (self.key, self.keys.is_empty()) {
            (Some(_), false) => return Err("`key` and `keys` are both there: write one".to_owned()),
            (Some(key), true) => vec![key],
            (None, false) => self.keys,
            (None, true) => vec![Source::ClientAddress],
        };
        if keys.contains(&Source::Claim(String::new())) {
            return Err("`key.claim` is empty".to_owned());
        }
        let amount = match (self.rate, self.quota) {
            (Some(rate), None) => Amount::Rate(rate, self.burst.map_or(rate.count, NonZeroU32::get)),
            (None, Some(_)) if self.burst.is_some() => {
                return Err("`burst` goes with `rate`, not with `quota`".to_owned());
            }
            (None, Some(QuotaText { count, unit })) => {
                Amount::Quota(count, unit, self.zone.map(|zone| zone.0).unwrap_or_default())
            }
            (Some(_), Some(_)) => return Err("`rate` and `quota` are both there: write two limits".to_owned()),
            (None, None) => return Err("`rate` or `quota` is missing".to_owned()),
        };
        let cost = self.cost.map_or(1, NonZeroU32::get);
        if let Amount::Rate(_, burst) = amount
            && cost > burst
        {
            return Err(format!("`cost` is {cost} and `burst` {burst}: no request would ever pass"));
        }
        let settle = self.settle.map(SettleBy::checked).transpose()?;
        // Filters with other settings count apart; those with the same settings, and limits of one `name` that was written, count
        // together.
        let namespace =
            if name == "default" { format!("rate-limit/{digest:016x}/") } else { format!("rate-limit/{name}/") };
        let plans = self.plans.map(PlanSettings::checked).transpose()?;
        Ok(Limit { name, keys, amount, cost, settle, plans, shadow: self.shadow, namespace })
    }
}

/// The same on every worker: they run the same module.
pub(crate) fn digest(of: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_sdk::parse_config;

    fn read(json: &str) -> Result<Checked, String> {
        parse_config::<Settings>(json.as_bytes()).and_then(Settings::checked)
    }

    #[test]
    fn settings_say_what_is_wrong_with_them() {
        for (json, want) in [
            ("{}", "there is no limit: write `rate`, or `limits`"),
            (r#"{"rate":"5"}"#, "`rate`: `5` is not a rate such as 5/s, 100/m or 1000/h"),
            (r#"{"rate":"0/s"}"#, "`rate`: `0/s` is not a rate such as 5/s, 100/m or 1000/h"),
            (r#"{"rate":"5/y"}"#, "`rate`: `5/y` is not a rate such as 5/s, 100/m or 1000/h"),
            (r#"{"rate":"5/s","burst":0}"#, "`burst`: invalid value: integer `0`, expected a nonzero u32"),
            (r#"{"rate":"5/s","key":{"header":"X-Key"}}"#, "`key.header`: `X-Key` is not a header name in lower case"),
            (r#"{"rate":"5/s","key":{"claim":""}}"#, "`key.claim` is empty"),
            (r#"{"key":"client_address"}"#, "`rate` or `quota` is missing"),
            (r#"{"rate":"5/s","limits":[{"rate":"5/s"}]}"#, "`rate` and `limits` are both there"),
            (r#"{"rate":"5/s","ipv6_prefix":129}"#, "`ipv6_prefix` is 129, and an address has 128 bits"),
            (r#"{"limits":[{"rate":"5/s"},{"rate":"6/s"}]}"#, "`limits[1]`: another limit is called `default` too"),
            (r#"{"limits":[{"rate":"5/s","quota":"5/day"}]}"#, "`limits[0]`: `rate` and `quota` are both there"),
            (r#"{"limits":[{"quota":"5/day","burst":1}]}"#, "`limits[0]`: `burst` goes with `rate`, not with `quota`"),
            (r#"{"limits":[{"quota":"5/week"}]}"#, "`limits[0].quota`: `5/week` is not a quota"),
            (
                r#"{"limits":[{"quota":"5/day","zone":"Berlin"}]}"#,
                "`limits[0].zone`: `Berlin` is neither an offset such as +02:00 nor a time zone such as Europe/Berlin; `Europe/Berlin` is close",
            ),
            (
                r#"{"limits":[{"rate":"5/s","cost":6}]}"#,
                "`limits[0]`: `cost` is 6 and `burst` 5: no request would ever pass",
            ),
            (r#"{"limits":[{"rate":"5/s","name":"a b"}]}"#, "`limits[0]`: `name` is `a b`: write letters"),
            (
                r#"{"limits":[{"rate":"5/s","settle":{"json":"usage"}}]}"#,
                "`limits[0]`: `settle.json` is `usage`, which is no JSON Pointer such as /usage/total_tokens",
            ),
            (r#"{"limits":[{"rate":"5/s","settle":{"json":"/a~2"}}]}"#, "`limits[0]`: `settle.json` is `/a~2`, which"),
            (r#"{"limits":[{"rate":"5/s","key":"path","keys":["host"]}]}"#, "`limits[0]`: `key` and `keys` are both"),
            (r#"{"limits":[{"rate":"5/s","plans":{"rates":{}}}]}"#, "`limits[0]`: `plans` needs `claim` or `header`"),
            (
                r#"{"limits":[{"rate":"5/s","plans":{"claim":"plan","header":"x-plan","rates":{}}}]}"#,
                "`limits[0]`: `plans.claim` and `plans.header` are both there",
            ),
        ] {
            let why = read(json).err().unwrap_or_default();
            assert!(why.starts_with(want), "{json}: {why}");
        }
    }

    #[test]
    fn the_key_is_what_was_asked_for() {
        for (json, want) in [
            (r#"{"rate":"5/s"}"#, vec![Source::ClientAddress]),
            (r#"{"rate":"5/s","key":"client_address"}"#, vec![Source::ClientAddress]),
            (r#"{"rate":"5/s","key":"client_ip"}"#, vec![Source::ClientAddress]),
            (r#"{"rate":"5/s","key":{"header":"x-key"}}"#, vec![Source::Header("x-key".try_into().unwrap())]),
            (r#"{"rate":"5/s","key":{"claim":"sub"}}"#, vec![Source::Claim("sub".to_owned())]),
            (r#"{"rate":"5/s","key":"consumer"}"#, vec![Source::Consumer]),
            (
                r#"{"limits":[{"rate":"5/s","keys":["route","client_address"]}]}"#,
                vec![Source::Route, Source::ClientAddress],
            ),
        ] {
            assert_eq!(read(json).map(|read| read.limits[0].keys.clone()), Ok(want), "{json}");
        }
    }

    #[test]
    fn limits_count_apart_unless_they_are_the_same_or_share_a_name() {
        let space = |json: &str| read(json).map(|read| read.limits[0].namespace.clone()).unwrap();
        assert_eq!(space(r#"{"rate":"5/s"}"#), space(r#"{"rate":"5/s"}"#));
        assert_ne!(space(r#"{"rate":"5/s"}"#), space(r#"{"rate":"6/s"}"#));
        assert_eq!(space(r#"{"rate":"6/s","name":"api"}"#), "rate-limit/api/");
    }
}
