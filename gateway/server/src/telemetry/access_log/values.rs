//! How values are written into a line: JSON, in which nobody's words can forge anything.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use portcullis_core::time::Time;
use portcullis_core::trace::Trace;

use crate::telemetry::choice::REDACTED;

/// The most bytes of a client's or guest's words in one field.
pub(super) const MAX_WORDS: usize = 256;
/// The most bytes of a request's target.
const MAX_TARGET: usize = 2048;

/// The trace and the gateway's span in it, as `traceparent` has them.
pub(super) fn ids(out: &mut Vec<u8>, trace: &Trace) {
    let text = trace.text();
    out.extend_from_slice(b",\"trace_id\":\"");
    out.extend_from_slice(text.get(3..35).unwrap_or_default());
    out.extend_from_slice(b"\",\"span_id\":\"");
    out.extend_from_slice(text.get(36..52).unwrap_or_default());
    out.push(b'"');
}

pub(super) fn null(out: &mut Vec<u8>) {
    out.extend_from_slice(b"null");
}

pub(super) fn integer(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// A number below 100 in two digits.
fn two_digits(number: u64) -> [u8; 2] {
    let digit = |value: u64| b'0' + u8::try_from(value % 10).unwrap_or_default();
    [digit(number / 10), digit(number)]
}

/// A number below 1000 in three digits.
fn three_digits(number: u64) -> [u8; 3] {
    let ([_, hundreds], [tens, ones]) = (two_digits(number / 100), two_digits(number % 100));
    [hundreds, tens, ones]
}

/// Milliseconds to three decimals.
pub(super) fn millis(out: &mut Vec<u8>, duration: Duration) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    integer(out, micros / 1000);
    let [a, b, c] = three_digits(micros % 1000);
    out.extend_from_slice(&[b'.', a, b, c]);
}

/// RFC 3339, UTC, to the millisecond.
pub(super) fn timestamp(out: &mut Vec<u8>, time: Time) {
    let seconds = time.as_nanos() / 1_000_000_000;
    let (year, month, day) = civil(seconds / 86_400);
    let of_day = seconds % 86_400;
    let [[y1, y2], [y3, y4]] = [two_digits(year / 100), two_digits(year % 100)];
    let [[m1, m2], [d1, d2]] = [two_digits(month), two_digits(day)];
    let [[h1, h2], [n1, n2], [s1, s2]] = [of_day / 3600, of_day / 60 % 60, of_day % 60].map(two_digits);
    let [a, b, c] = three_digits(time.as_nanos() / 1_000_000 % 1000);
    out.extend_from_slice(&[
        y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, b':', n1, n2, b':', s1, s2, b'.', a, b, c, b'Z',
    ]);
}

/// The Gregorian date of a day counted from 1970-01-01.
///
/// Years are taken to begin in March, so that the leap day is the last one; 400 of them always have 146,097 days.
fn civil(days_since_epoch: u64) -> (u64, u64, u64) {
    let days = days_since_epoch + 719_468; // from 0000-03-01
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// An address as text; without a port where none is known.
pub(super) fn address(out: &mut Vec<u8>, address: SocketAddr) {
    out.push(b'"');
    match address {
        // Written out because the standard formatter costs as much as half a line.
        SocketAddr::V4(v4) => {
            let [first, rest @ ..] = v4.ip().octets();
            integer(out, u64::from(first));
            for octet in rest {
                out.push(b'.');
                integer(out, u64::from(octet));
            }
            if v4.port() != 0 {
                out.push(b':');
                integer(out, u64::from(v4.port()));
            }
        }
        SocketAddr::V6(v6) => {
            let written = if v6.port() == 0 { write!(out, "{}", v6.ip()) } else { write!(out, "{v6}") };
            debug_assert!(written.is_ok(), "a vector takes everything");
        }
    }
    out.push(b'"');
}

/// A value as it is written, or `null` where there is none.
pub(super) fn or_null<T>(out: &mut Vec<u8>, value: Option<T>, written: fn(&mut Vec<u8>, T)) {
    match value {
        None => null(out),
        Some(value) => written(out, value),
    }
}

/// A name from the configuration; `null` where there is none.
pub(super) fn name(out: &mut Vec<u8>, name: &str) {
    if name.is_empty() {
        return null(out);
    }
    out.push(b'"');
    words(out, name.as_bytes(), MAX_WORDS);
    out.push(b'"');
}

/// A request's target: its path as it came, its query without the values.
pub(super) fn target(out: &mut Vec<u8>, target: &str) {
    let mut halves = target.as_bytes().splitn(2, |byte| *byte == b'?');
    words(out, halves.next().unwrap_or_default(), MAX_TARGET);
    let Some(query) = halves.next() else { return };
    let begin = out.len();
    let mut mark = b'?';
    for parameter in query.split(|byte| *byte == b'&') {
        out.push(mark);
        mark = b'&';
        if out.len() - begin > MAX_TARGET {
            return out.extend_from_slice("…".as_bytes());
        }
        // A parameter without `=` may be a secret just as well as a name.
        if let Some(equals) = parameter.iter().position(|byte| *byte == b'=') {
            words(out, parameter.get(..equals).unwrap_or_default(), MAX_WORDS);
            out.push(b'=');
        }
        if !parameter.is_empty() {
            out.extend_from_slice(REDACTED.as_bytes());
        }
    }
}

/// What stands between two quotes: at most `max` bytes, escaped, and a sign where more were left out.
pub(super) fn words(out: &mut Vec<u8>, bytes: &[u8], max: usize) {
    match bytes.get(..max) {
        Some(kept) if kept.len() < bytes.len() => {
            escape(out, kept);
            out.extend_from_slice("…".as_bytes());
        }
        Some(_) | None => escape(out, bytes),
    }
}

fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    // Without a branch for each byte: nearly everything is plain.
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') & (byte != b'"') & (byte != b'\\');
    if bytes.iter().fold(true, |plain, byte| plain & is_plain(*byte)) {
        return out.extend_from_slice(bytes);
    }
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            escape_char(out, letter);
        }
        if !chunk.invalid().is_empty() {
            escape_char(out, char::REPLACEMENT_CHARACTER);
        }
    }
}

fn escape_char(out: &mut Vec<u8>, letter: char) {
    match letter {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        // JSON demands it below U+0020; the rest would move a terminal's cursor, or end a line for some readers.
        letter if letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}') => {
            out.extend_from_slice(b"\\u");
            for shift in [12, 8, 4, 0] {
                let digit = char::from_digit(u32::from(letter) >> shift & 15, 16).unwrap_or('0');
                out.extend_from_slice(digit.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        letter => out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_is_written_as_it_is() {
        let all: String = (0..0x2100).filter_map(char::from_u32).collect();
        let mut out = Vec::new();
        escape(&mut out, all.as_bytes());
        let written = String::from_utf8(out).unwrap();
        assert!(!written.contains(|c: char| c.is_control() || c == '\u{2028}' || c == '\u{2029}'));
        assert_eq!(serde_json::from_str::<String>(&format!("\"{written}\"")).unwrap(), all);
    }

    #[test]
    fn times_are_dates() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000Z"),
            (1_709_251_200, "2024-03-01T00:00:00.000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            let mut out = Vec::new();
            timestamp(&mut out, Time::from_nanos(seconds * 1_000_000_000));
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
    }
}
