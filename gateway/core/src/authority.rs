//! Which texts can name a host: `Host`, `:authority`, and the authority in a target.
//!
//! Narrower than RFC 3986 §3.2 on purpose. User information, percent escapes and sub-delimiters (`,`, `;`, `&` …) have no place in
//! the name of a host that anyone serves, and each has been read as two hosts by somebody.

use core::net::Ipv6Addr;

use crate::scan;

/// Whether this is `host` or `host:port`, with a host that is not empty.
#[must_use]
pub fn is_authority(text: &[u8]) -> bool {
    if text.first() == Some(&b'[') {
        return is_bracketed(text);
    }
    let mut host = scan::plain(text, 0);
    while matches!(text.get(host), Some(b'_' | b'~')) {
        host = scan::plain(text, host + 1);
    }
    host > 0 && text.get(host..).is_some_and(is_port)
}

fn is_bracketed(text: &[u8]) -> bool {
    let parts = str::from_utf8(text).ok().and_then(|text| text.strip_prefix('[')?.split_once(']'));
    parts.is_some_and(|(address, port)| address.parse::<Ipv6Addr>().is_ok() && is_port(port.as_bytes()))
}

/// Nothing, or a colon with the digits of a port, which may be none (RFC 3986 §3.2.3).
fn is_port(text: &[u8]) -> bool {
    let Some((colon, digits)) = text.split_first() else { return true };
    let value = |digits: &[u8]| digits.iter().fold(0, |value: u32, digit| value * 10 + u32::from(digit - b'0'));
    *colon == b':' && digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit) && value(digits) <= 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_with_or_without_a_port_and_nothing_else() {
        for good in [
            "a",
            "api.example.com",
            "a.",
            "a:",
            "a:0",
            "a:65535",
            "my_host:80",
            "10.0.0.1:8080",
            "[::1]",
            "[::1]:",
            "[2001:db8::1]:443",
        ] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a:65536",
            "a:123456",
            "a:80:80",
            "a:+1",
            "a b",
            "a/b",
            "a@b",
            "u:p@b",
            "a,b",
            "a;b",
            "a%41",
            "a#b",
            "a?b",
            "a\\b",
            "[::1",
            "[::1]80",
            "[]",
            "[a]",
            "[::1%25eth0]",
            "::1",
            "é",
            "a\tb",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }
}
