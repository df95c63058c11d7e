//! Percent-decoding, for paths, queries and `grpc-message`.

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
