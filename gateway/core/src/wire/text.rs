//! Runs of bytes of one kind, found as fast as portable code can.

/// A byte of a method or a field name: `tchar` of RFC 9110 §5.6.2.
pub(super) const TOKEN: u8 = 1;
/// A byte of a target before its `?`.
///
/// RFC 3986's characters, and those that browsers send all the same: `"`, `[`, `\`, `]`, `^`, `{`, `|`, `}`. Not beyond ASCII.
pub(super) const PATH: u8 = 2;
/// A byte of a target behind its `?`.
pub(super) const QUERY: u8 = 4;

const CLASSES: [u8; 256] = classes();

#[expect(clippy::indexing_slicing, reason = "the compiler evaluates it")]
const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 128 {
        classes[byte as usize] = class(byte);
        byte += 1;
    }
    classes
}

const fn class(byte: u8) -> u8 {
    let token = byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        );
    let target = byte.is_ascii_graphic() && !matches!(byte, b'#' | b'<' | b'>');
    let (path, query) = (target && !matches!(byte, b'?' | b'`'), target && byte != b'"');
    (if token { TOKEN } else { 0 }) | (if path { PATH } else { 0 }) | (if query { QUERY } else { 0 })
}

/// Where the run of bytes of this class that begins at `from` ends; nothing when there is no end yet.
pub(super) fn run(bytes: &[u8], from: usize, class: u8) -> Option<usize> {
    let outside = |byte: &u8| CLASSES.get(usize::from(*byte)).is_none_or(|classes| classes & class == 0);
    bytes.get(from..)?.iter().position(outside).map(|len| from + len)
}

/// Where the next control byte other than a tab is, at `from` or later.
pub(super) fn control(bytes: &[u8], mut from: usize) -> Option<usize> {
    loop {
        let at = from + any_control(bytes.get(from..)?)?;
        if bytes.get(at) != Some(&b'\t') {
            return Some(at);
        }
        from = at + 1;
    }
}

/// Eight bytes at a time: a field's value is most of a head.
fn any_control(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // The lowest bit that is set marks a byte that is below a space, or a delete; those above it may be carried over.
        let low = word.wrapping_sub(ONES * 0x20) & !word;
        let delete = (word ^ (ONES * 0x7f)).wrapping_sub(ONES) & !(word ^ (ONES * 0x7f));
        let found = (low | delete) & HIGH;
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    tail.iter().position(u8::is_ascii_control).map(|at| words.len() * 8 + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_byte_is_found_wherever_it_is_and_nothing_else_is_taken_for_one() {
        for byte in 0..=u8::MAX {
            for at in 0..20 {
                let mut bytes = [b'\xff'; 20];
                bytes[at] = byte;
                let want = (byte.is_ascii_control() && byte != b'\t').then_some(at);
                assert_eq!(control(&bytes, 0), want, "{byte:#x} at {at}");
                assert_eq!(control(&bytes, at + 1), None);
            }
        }
        assert_eq!(control(b"\t\t a\t\x7f\r", 0), Some(5));
    }
}
