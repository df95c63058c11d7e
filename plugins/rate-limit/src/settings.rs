//! Settings as an operator writes them, and as the policy reads them.

use std::hash::{DefaultHasher, Hash, Hasher};

use plugin_common::headers::check_name;
use serde::Deserialize;

use crate::policy::Bucket;

/// As written: `{ key: client_address, rate: "5/s", burst: 10 }`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    #[serde(default)]
    key: Key,
    rate: String,
    burst: Option<u32>,
    name: Option<String>,
}

/// Whose requests share a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Key {
    /// The client's address without its port.
    #[default]
    #[serde(alias = "client_ip")]
    ClientAddress,
    /// The first value of a request header.
    Header(String),
    /// A claim of the bearer token, which an `auth` filter before this one has verified.
    Claim(String),
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
    pub(crate) fn checked(self, written: &[u8]) -> Result<Limit, String> {
        match &self.key {
            Key::Header(name) => check_name(name)?,
            Key::Claim(name) if name.is_empty() => return Err("`claim` is empty".to_owned()),
            Key::ClientAddress | Key::Claim(_) => {}
        }
        let (count, period_s) = rate(&self.rate)?;
        if self.burst == Some(0) {
            return Err("`burst` is at least 1".to_owned());
        }
        let bucket = Bucket::new(count, period_s, self.burst.unwrap_or(count));
        // Filters with other settings count apart; those with the same settings, and those of one `name`, count together.
        let name = self.name.unwrap_or_else(|| format!("{:016x}", digest(written)));
        Ok(Limit { key: self.key, bucket, namespace: format!("rate-limit/{name}/") })
    }
}

/// A count and the seconds it is for.
fn rate(text: &str) -> Result<(u32, u32), String> {
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
    if (1..=1_000_000).contains(&count) { Ok((count, period_s)) } else { Err(wrong()) }
}

/// The same on every worker: they run the same module.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_common::settings::parse;

    fn read(json: &str) -> Result<Limit, String> {
        parse::<Settings>(json.as_bytes()).and_then(|settings| settings.checked(json.as_bytes()))
    }

    #[test]
    fn settings_say_what_is_wrong_with_them() {
        for (json, want) in [
            ("{}", "missing field `rate` at line 1 column 2"),
            (r#"{"rate":"5"}"#, "`5` is not a rate such as 5/s, 100/m or 1000/h"),
            (r#"{"rate":"0/s"}"#, "`0/s` is not a rate such as 5/s, 100/m or 1000/h"),
            (r#"{"rate":"5/y"}"#, "`5/y` is not a rate such as 5/s, 100/m or 1000/h"),
            (r#"{"rate":"5/s","burst":0}"#, "`burst` is at least 1"),
            (r#"{"rate":"5/s","key":{"header":"X-Key"}}"#, "`X-Key` is not a header name in lower case"),
            (r#"{"rate":"5/s","key":{"claim":""}}"#, "`claim` is empty"),
        ] {
            assert_eq!(read(json).err().as_deref(), Some(want), "{json}");
        }
    }

    #[test]
    fn the_key_is_the_client_address_a_header_or_a_claim() {
        for (json, want) in [
            (r#"{"rate":"5/s"}"#, Key::ClientAddress),
            (r#"{"rate":"5/s","key":"client_address"}"#, Key::ClientAddress),
            (r#"{"rate":"5/s","key":"client_ip"}"#, Key::ClientAddress),
            (r#"{"rate":"5/s","key":{"header":"x-key"}}"#, Key::Header("x-key".to_owned())),
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
