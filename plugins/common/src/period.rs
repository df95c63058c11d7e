//! Spans of time as settings write them: `500ms`, `30s`, `5m`, `1h`, or a bare number of seconds.

use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A span of time in settings; at most a year, so that sums of a few never overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period(pub Duration);

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Reads one span.
///
/// # Errors
/// Says how a span is written.
pub fn parse(text: &str) -> Result<Duration, String> {
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
    if period > YEAR { Err(format!("`{text}` is longer than a year")) } else { Ok(period) }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // By way of `Value`: with arbitrary precision a number does not arrive as one at a visitor.
        let text = match Value::deserialize(deserializer)? {
            Value::String(text) => text,
            Value::Number(seconds) => format!("{seconds}s"),
            other @ (Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) => other.to_string(),
        };
        parse(&text).map(Self).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
