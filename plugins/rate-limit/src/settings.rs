//! Settings as an operator writes them, and as the policy reads them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroU32;

use portcullis_sdk::schema::{Piece, Schema};
use portcullis_sdk::{Config, HeaderName};
use serde::Deserialize;

use crate::policy::Bucket;

/// Token buckets: so many requests pass per period, and a burst at once.
#[derive(Config, Hash)]
pub(crate) struct Settings {
    /// Whose requests share a bucket.
    #[serde(default)]
    key: Key,
    /// How many pass: `5/s`, `100/m`, `1000/h`, `10000/d`.
    rate: Rate,
    /// How many pass at once; the count of the rate unless told otherwise.
    burst: Option<NonZeroU32>,
    /// Limits of one name share their buckets.
    name: Option<String>,
}

/// Whose requests share a bucket.
#[derive(Clone, Config, Debug, Default, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Key {
    /// The client's address without its port.
    #[default]
    #[serde(alias = "client_ip")]
    ClientAddress,
    /// The first value of a request header.
    Header(HeaderName),
    /// A claim of the bearer token, which an `auth` filter before this one has verified.
    Claim(String),
}

/// A count and the seconds it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
struct Rate {
    count: u32,
    period_s: u32,
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
        // A nanosecond is the finest step the bucket knows.
        if (1..=1_000_000).contains(&count) { Ok(Self { count, period_s }) } else { Err(wrong()) }
    }
}

impl Schema for Rate {
    const SCHEMA: &'static [Piece] = &[Piece::Text(r#"{"type":"string","pattern":"^[0-9]+/[smhd]$"}"#)];
}

/// As read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) key: Key,
    pub(crate) bucket: Bucket,
    /// Where its buckets are in the shared data.
    pub(crate) namespace: String,
}

impl Settings {
    /// # Errors
    /// What an operator has to change.
    pub(crate) fn checked(self) -> Result<Limit, String> {
        if self.key == Key::Claim(String::new()) {
            return Err("`key.claim` is empty".to_owned());
        }
        // Filters with other settings count apart; those with the same settings, and those of one `name`, count together.
        let digest = digest(&self);
        let name = self.name.unwrap_or_else(|| format!("{digest:016x}"));
        let Rate { count, period_s } = self.rate;
        let bucket = Bucket::new(count, period_s, self.burst.map_or(count, NonZeroU32::get));
        Ok(Limit { key: self.key, bucket, namespace: format!("rate-limit/{name}/") })
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

    fn read(json: &str) -> Result<Limit, String> {
        parse_config::<Settings>(json.as_bytes()).and_then(Settings::checked)
    }

    #[test]
    fn settings_say_what_is_wrong_with_them() {
        for (json, want) in [
            ("{}", "missing field `rate` at line 1 column 2"),
            (r#"{"rate":"5"}"#, "`rate`: `5` is not a rate such as 5/s, 100/m or 1000/h"),
            (r#"{"rate":"0/s"}"#, "`rate`: `0/s` is not a rate such as 5/s, 100/m or 1000/h"),
            (r#"{"rate":"5/y"}"#, "`rate`: `5/y` is not a rate such as 5/s, 100/m or 1000/h"),
            (r#"{"rate":"5/s","burst":0}"#, "`burst`: invalid value: integer `0`, expected a nonzero u32"),
            (r#"{"rate":"5/s","key":{"header":"X-Key"}}"#, "`key.header`: `X-Key` is not a header name in lower case"),
            (r#"{"rate":"5/s","key":{"claim":""}}"#, "`key.claim` is empty"),
        ] {
            let why = read(json).unwrap_err();
            assert!(why.starts_with(want), "{json}: {why}");
        }
    }

    #[test]
    fn the_key_is_the_client_address_a_header_or_a_claim() {
        for (json, want) in [
            (r#"{"rate":"5/s"}"#, Key::ClientAddress),
            (r#"{"rate":"5/s","key":"client_address"}"#, Key::ClientAddress),
            (r#"{"rate":"5/s","key":"client_ip"}"#, Key::ClientAddress),
            (r#"{"rate":"5/s","key":{"header":"x-key"}}"#, Key::Header("x-key".try_into().unwrap())),
            (r#"{"rate":"5/s","key":{"claim":"sub"}}"#, Key::Claim("sub".to_owned())),
        ] {
            assert_eq!(read(json).map(|limit| limit.key), Ok(want), "{json}");
        }
    }

    #[test]
    fn limits_count_apart_unless_they_are_the_same_or_share_a_name() {
        let space = |json: &str| read(json).unwrap().namespace;
        assert_eq!(space(r#"{"rate":"5/s"}"#), space(r#"{"rate":"5/s"}"#));
        assert_ne!(space(r#"{"rate":"5/s"}"#), space(r#"{"rate":"6/s"}"#));
        assert_eq!(space(r#"{"rate":"6/s","name":"api"}"#), "rate-limit/api/");
    }
}
