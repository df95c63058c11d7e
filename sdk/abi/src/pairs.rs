//! The wire form of header maps, metadata and CEL maps: lists of pairs (ABI reference §4.1).
//!
//! ```text
//! u32 count | count × { u32 key_len; u32 value_len } | count × { key 0x00 value 0x00 }     little-endian, unaligned
//! ```
//! Reading allocates nothing and trusts no number: a forged count or length ends in an error, never in a large loop.

/// The most bytes a guest's list may have. [Envoy's limit](https://github.com/proxy-wasm/proxy-wasm-cpp-host).
pub const MAX_BYTES: usize = 1 << 20;
/// The most pairs a guest's list may have.
pub const MAX_PAIRS: usize = 1024;

/// Why a guest's list of pairs was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// More than [`MAX_BYTES`] or [`MAX_PAIRS`].
    TooLarge,
    /// A length runs past the end.
    Truncated,
    /// A key or value does not end in NUL.
    MissingNul,
    /// Bytes are left after the last pair.
    TrailingBytes,
}

/// A checked list of pairs over borrowed bytes.
#[derive(Clone, Debug)]
pub struct Pairs<'a> {
    lengths: &'a [u8],
    bytes: &'a [u8],
}

impl<'a> Pairs<'a> {
    /// Checks a guest's list. Fewer than four bytes are an empty list, as SDKs write it.
    ///
    /// # Errors
    /// When the bytes are not exactly one list within the limits.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() > MAX_BYTES {
            return Err(Malformed::TooLarge);
        }
        let Some((count, rest)) = take_u32(bytes) else { return Ok(Self { lengths: &[], bytes: &[] }) };
        if count > MAX_PAIRS {
            return Err(Malformed::TooLarge);
        }
        let (lengths, body) = rest.split_at_checked(count * 8).ok_or(Malformed::Truncated)?;
        let mut check = body;
        for item in lengths.chunks_exact(4) {
            let (len, _) = take_u32(item).ok_or(Malformed::Truncated)?;
            let (_, after) = check.split_at_checked(len).ok_or(Malformed::Truncated)?;
            let (nul, after) = after.split_first().ok_or(Malformed::Truncated)?;
            if *nul != 0 {
                return Err(Malformed::MissingNul);
            }
            check = after;
        }
        if check.is_empty() { Ok(Self { lengths, bytes: body }) } else { Err(Malformed::TrailingBytes) }
    }

    fn field(&mut self) -> Option<&'a [u8]> {
        let (len, lengths) = take_u32(self.lengths)?;
        let (field, rest) = self.bytes.split_at_checked(len)?;
        self.lengths = lengths;
        self.bytes = rest.get(1..)?;
        Some(field)
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.field()?, self.field()?))
    }
}

fn take_u32(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    Some((usize::try_from(u32::from_le_bytes(*head)).ok()?, rest))
}

/// The bytes that [`write()`] needs for these pairs.
pub fn size<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> usize {
    4 + pairs.map(|(key, value)| 8 + key.len() + 1 + value.len() + 1).sum::<usize>()
}

/// Hands the wire form of the pairs that `pairs` yields, each time it is asked, to `put`, piece by piece and in order.
///
/// Lengths beyond `u32` cannot occur in a 32-bit guest's memory; they are written as zero-length fields.
pub fn write<'a, I>(pairs: impl Fn() -> I, mut put: impl FnMut(&[u8]))
where
    I: Iterator<Item = (&'a [u8], &'a [u8])>,
{
    put(&u32::try_from(pairs().count()).unwrap_or(0).to_le_bytes());
    for (key, value) in pairs() {
        let lengths = u64::from(length(key)) | u64::from(length(value)) << 32;
        put(&lengths.to_le_bytes());
    }
    for (key, value) in pairs() {
        for field in [key, value] {
            put(field.get(..length(field) as usize).unwrap_or_default());
            put(&[0]);
        }
    }
}

fn length(field: &[u8]) -> u32 {
    u32::try_from(field.len()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    const EXAMPLE: &[u8] =
        &[2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, b'a', 0, b'1', 0, b'b', 0, b'2', b'2', 0];

    #[test]
    fn the_reference_example_is_written_byte_for_byte() {
        let pairs: [(&[u8], &[u8]); 2] = [(b"a", b"1"), (b"b", b"22")];
        let mut out = Vec::new();
        write(|| pairs.iter().copied(), |piece| out.extend_from_slice(piece));
        assert_eq!(out, EXAMPLE);
        assert_eq!(out.len(), size(pairs.iter().copied()));
    }

    #[test]
    fn the_reference_example_is_read_back() {
        let read: Vec<_> = Pairs::parse(EXAMPLE).unwrap().collect();
        assert_eq!(read, [(&b"a"[..], &b"1"[..]), (b"b", b"22")]);
    }

    #[test]
    fn forged_lists_are_refused_by_name() {
        let mut long = EXAMPLE.to_vec();
        long.push(0);
        let mut no_nul = EXAMPLE.to_vec();
        *no_nul.last_mut().unwrap() = 1;
        for (bytes, want) in [
            (&EXAMPLE[..28], Malformed::Truncated),
            (&[255, 255, 255, 255], Malformed::TooLarge),
            (&[1, 0, 0, 0, 255, 255, 255, 255, 1, 0, 0, 0, 0, 0], Malformed::Truncated),
            (&long, Malformed::TrailingBytes),
            (&no_nul, Malformed::MissingNul),
        ] {
            assert_eq!(Pairs::parse(bytes).unwrap_err(), want);
        }
    }

    #[test]
    fn fewer_than_four_bytes_are_an_empty_list() {
        for len in 0..4 {
            assert_eq!(Pairs::parse(&EXAMPLE[..len]).unwrap().count(), 0);
        }
    }
}
