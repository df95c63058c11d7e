//! Percent-encoding, for paths, queries, forms and `grpc-message`.

use std::fmt::Write as _;

/// The bytes without their escapes; what is no escape stays as it is, and with `keep_slashes` so does `%2F`.
#[must_use]
pub fn decoded(bytes: &[u8], keep_slashes: bool) -> Vec<u8> {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = after.split_first_chunk::<2>().filter(|_| byte == b'%').and_then(|(&[high, low], after)| {
            let (high, low) = (char::from(high).to_digit(16)?, char::from(low).to_digit(16)?);
            Some((u8::try_from(high * 16 + low).ok()?, after))
        });
        match escaped.filter(|(escaped, _)| !(keep_slashes && *escaped == b'/')) {
            Some((escaped, after)) => {
                plain.push(escaped);
                rest = after;
            }
            None => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    plain
}

/// Adds a text, encoded.
///
/// Unreserved characters stay (RFC 3986 §2.3); the rest is percent-encoded, as UTF-8.
pub fn encode(value: &str, into: &mut String) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            let _never_fails = write!(into, "%{byte:02X}");
        }
    }
}
