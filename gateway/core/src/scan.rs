//! Where a run of bytes of one kind ends, eight bytes at a time.
//!
//! Every byte that clients send in heads comes by here. A word is tested with a few operations that set the high bit of each byte
//! that ends the run; the lowest such bit is exact, those above it may be carried over from it.

const ONES: u64 = u64::MAX / 255;
const HIGH: u64 = ONES << 7;

/// The end of a run of letters, digits, `-` and `.` that begins at `from`: most of any name.
#[inline]
pub(crate) fn plain(bytes: &[u8], from: usize) -> usize {
    let between = |word: u64, low: u64, high: u64| {
        word.wrapping_add(ONES * (0x80 - low)) & !word.wrapping_add(ONES * (0x7f - high))
    };
    let word = |word: u64| {
        let letters = between(word | (ONES * 0x20), 0x61, 0x7a);
        !(letters | between(word, 0x30, 0x39) | between(word, 0x2d, 0x2e)) | word
    };
    find(bytes, from, word, |byte| !byte.is_ascii_alphanumeric() && !matches!(byte, b'-' | b'.'))
}

/// The end of a run of token bytes (`tchar`, RFC 9110 §5.6.2): a method, or a field's name.
#[inline]
pub(crate) fn token(bytes: &[u8], from: usize) -> usize {
    let mut end = plain(bytes, from);
    while bytes.get(end).is_some_and(|byte| is_token_mark(*byte)) {
        end = plain(bytes, end + 1);
    }
    end
}

fn is_token_mark(byte: u8) -> bool {
    matches!(byte, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// The end of a target's run of bytes before its `?`: visible ASCII but for `"`, `#`, `<`, `>`, `` ` ``.
///
/// RFC 3986 has no place for `[`, `\`, `]`, `^`, `{`, `|`, `}` either, but browsers send them, and nobody reads them in two ways.
#[inline]
pub(crate) fn path(bytes: &[u8], from: usize) -> usize {
    let word =
        |word| invisible(word) | is(word | ONES, b'#') | is(word | (ONES * 2), b'>') | is(word, b'?') | is(word, b'`');
    find(bytes, from, word, |byte| !byte.is_ascii_graphic() || matches!(byte, b'"' | b'#' | b'<' | b'>' | b'?' | b'`'))
}

/// The end of a target's run of bytes behind its `?`: visible ASCII but for `"`, `#`, `<`, `>`.
#[inline]
pub(crate) fn query(bytes: &[u8], from: usize) -> usize {
    let word = |word| invisible(word) | is(word | ONES, b'#') | is(word | (ONES * 2), b'>');
    find(bytes, from, word, |byte| !byte.is_ascii_graphic() || matches!(byte, b'"' | b'#' | b'<' | b'>'))
}

/// Where the next control byte other than a tab is, at `from` or later: the end of a field's value.
#[inline]
pub(crate) fn control(bytes: &[u8], from: usize) -> usize {
    let word = |word: u64| below(word, 0x20) | is(word, 0x7f);
    let mut end = find(bytes, from, word, |byte| byte.is_ascii_control());
    while bytes.get(end) == Some(&b'\t') {
        end = find(bytes, end + 1, word, |byte| byte.is_ascii_control());
    }
    end
}

#[inline]
fn find(bytes: &[u8], from: usize, word: impl Fn(u64) -> u64, ends: impl Fn(u8) -> bool) -> usize {
    let run = bytes.get(from..).unwrap_or_default();
    let (mut at, mut rest) = (from, run);
    while let Some((first, more)) = rest.split_first_chunk() {
        let found = word(u64::from_le_bytes(*first)) & HIGH;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        (at, rest) = (at + 8, more);
    }
    let end = from + run.len();
    match run.last_chunk() {
        // Some of these have been looked at, and do not end the run.
        Some(last) if !rest.is_empty() => {
            let found = word(u64::from_le_bytes(*last)) & HIGH;
            if found == 0 { end } else { end - 8 + found.trailing_zeros() as usize / 8 }
        }
        Some(_) => end,
        None => at + rest.iter().position(|byte| ends(*byte)).unwrap_or(rest.len()),
    }
}

/// Marks bytes that are this one.
fn is(word: u64, byte: u8) -> u64 {
    let zero = word ^ (ONES * u64::from(byte));
    zero.wrapping_sub(ONES) & !zero
}

/// Marks bytes below this one, which is at most 0x80.
fn below(word: u64, byte: u8) -> u64 {
    word.wrapping_sub(ONES * u64::from(byte)) & !word
}

/// Marks control bytes, spaces, and bytes beyond ASCII.
fn invisible(word: u64) -> u64 {
    below(word, 0x21) | word.wrapping_add(ONES) | word
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each byte in each place among bytes that do not end the run ends it, or does not.
    fn check(run: fn(&[u8], usize) -> usize, filler: &[u8], stays: impl Fn(u8) -> bool) {
        for filler in filler {
            for byte in 0..=u8::MAX {
                for at in 0..20 {
                    let mut bytes = [*filler; 20];
                    bytes[at] = byte;
                    assert_eq!(
                        run(&bytes, 0),
                        if stays(byte) { 20 } else { at },
                        "{byte:#x} at {at} among {filler:#x}"
                    );
                    assert_eq!(run(&bytes, at + 1), 20);
                    bytes[19] = b'\0';
                    assert_eq!(run(&bytes, at + 1), if at == 19 { 20 } else { 19 });
                }
            }
        }
        assert_eq!((run(b"", 0), run(b"\0", 5)), (0, 5));
    }

    #[test]
    fn runs_end_where_they_should() {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let is_path = |byte: u8| byte.is_ascii_graphic() && !b"\"#<>?`".contains(&byte);
        let is_query = |byte: u8| byte.is_ascii_graphic() && !b"\"#<>".contains(&byte);
        check(plain, b"azAZ09-.", is_plain);
        check(token, b"az09-~!", is_token);
        check(path, b"a/!~=", is_path);
        check(query, b"a/!~?`", is_query);
        check(control, b"a \t~\xff\x80", |byte| !byte.is_ascii_control() || byte == b'\t');
    }
}
