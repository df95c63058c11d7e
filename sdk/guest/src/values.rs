//! Values that settings of filters often have, checked while they are read: so the refusal names the setting.

use std::time::Duration;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use crate::schema::{Piece, Schema};

/// A span of time in settings: `500ms`, `30s`, `5m`, `1h`, or a bare number of seconds. At most a year, so that sums of a few
/// never overflow.
///
/// ```
/// use portcullis_sdk::{Period, secs};
/// assert_eq!(serde_json::from_str::<Period>("\"5m\"").unwrap().0, secs(300));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

impl Period {
    fn parse(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let wrong = || format!("`{text}` is not a period such as 500ms, 30s, 5m or 1h");
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let period = match unit {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number.saturating_mul(60)),
            "h" => Duration::from_secs(number.saturating_mul(3600)),
            _ => return Err(wrong()),
        };
        if period > YEAR { Err(format!("`{text}` is longer than a year")) } else { Ok(Self(period)) }
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // By way of a value: with arbitrary precision, which another crate may switch on, a number does not arrive as one.
        let text = match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => text,
            serde_json::Value::Number(seconds) => format!("{seconds}s"),
            other @ (serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::Array(_)
            | serde_json::Value::Object(_)) => other.to_string(),
        };
        Self::parse(&text).map_err(D::Error::custom)
    }
}

impl Schema for Period {
    const SCHEMA: &'static [Piece] =
        &[Piece::Text(r#"{"type":["string","integer"],"pattern":"^[0-9]+(ms|s|m|h)$","minimum":0}"#)];
}

/// Reads text and checks it.
struct Checked<T>(&'static str, fn(String) -> Result<T, String>);

impl<T> Visitor<'_> for Checked<T> {
    type Value = T;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.1)(text.to_owned()).map_err(E::custom)
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<T, E> {
        Err(E::invalid_type(Unexpected::Bytes(bytes), &self))
    }
}

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident, $what:literal, $schema:literal, $check:expr;)*) => {
        $($(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// As text.
            ///
            /// ```
            /// let text = |upstream: &portcullis_sdk::HeaderName| upstream.as_str().to_owned();
            /// ```
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::ops::Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                self.0.as_bytes()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = String;

            fn try_from(text: &str) -> Result<Self, String> {
                let check: fn(&str) -> Result<(), String> = $check;
                check(text).map(|()| Self(text.to_owned()))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Checked($what, |text| Self::try_from(text.as_str())))
            }
        }

        impl Schema for $name {
            const SCHEMA: &'static [Piece] = &[Piece::Text($schema)];
        })*
    };
}

texts! {
    /// A header's name in settings: a token in lower case (RFC 9110 §5.6.2), no pseudo-header and none that frames the message.
    ///
    /// ```
    /// use portcullis_sdk::HeaderName;
    /// assert!(HeaderName::try_from("x-user").is_ok());
    /// assert!(HeaderName::try_from("content-length").is_err());
    /// ```
    HeaderName, "a header name in lower case", r#"{"type":"string","pattern":"^[a-z0-9!#$%&'*+.^_`|~-]+$"}"#, check_name;
    /// A header's value in settings: no control characters, so it cannot end its line.
    ///
    /// ```
    /// use portcullis_sdk::HeaderText;
    /// assert!(HeaderText::try_from("plain").is_ok());
    /// assert!(HeaderText::try_from("a\r\nb: c").is_err());
    /// ```
    HeaderText, "a header value", r#"{"type":"string"}"#, check_value;
}

fn check_name(name: &str) -> Result<(), String> {
    const FRAMING: &[&str] =
        &["connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];
    let token = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        return Err(format!("`{name}` is not a header name in lower case"));
    }
    if FRAMING.contains(&name) {
        return Err(format!("`{name}` belongs to the connection, not to the message"));
    }
    Ok(())
}

fn check_value(value: &str) -> Result<(), String> {
    if value.bytes().any(|byte| byte < 0x20 && byte != b'\t' || byte == 0x7f) {
        return Err("a header value may not hold control characters".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_break_a_message_are_refused() {
        for (name, fine) in [
            ("x-user", true),
            ("x_user.1", true),
            ("", false),
            ("X-User", false),
            ("x user", false),
            ("x\r\ny", false),
            (":path", false),
            ("content-length", false),
            ("transfer-encoding", false),
        ] {
            assert_eq!(HeaderName::try_from(name).is_ok(), fine, "{name:?}");
        }
    }

    #[test]
    fn values_that_could_end_their_line_are_refused() {
        assert!(HeaderText::try_from("plain, tab\tand é").is_ok());
        assert!(HeaderText::try_from("a\r\nb: c").is_err());
        assert!(HeaderText::try_from("a\0").is_err());
    }

    #[test]
    fn a_period_is_a_number_and_a_unit_or_a_number_of_seconds() {
        for (json, want) in [
            ("\"500ms\"", Some(500)),
            ("\"30s\"", Some(30_000)),
            ("\"5m\"", Some(300_000)),
            ("\"1h\"", Some(3_600_000)),
            ("30", Some(30_000)),
            ("0", Some(0)),
            ("\"\"", None),
            ("\"s\"", None),
            ("\"5 s\"", None),
            ("\"5d\"", None),
            ("-1", None),
            ("1.5", None),
            ("true", None),
            ("\"99999999999999999999s\"", None),
            ("\"9999999999999999h\"", None),
        ] {
            let got = serde_json::from_str::<Period>(json).ok().map(|period| period.0.as_millis());
            assert_eq!(got, want, "{json}");
        }
    }
}
