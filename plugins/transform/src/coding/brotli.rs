//! Brotli (RFC 7932): read with the usual crate, whose encoder would make the module larger by two thirds (884 KB), and so written by
//! one of our own.

mod encode;
mod matches;
mod prefix;

use brotli_decompressor::{Allocator, BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use plugin_bodies::Unread;

pub(super) use self::encode::encoded;
use super::{MAX_WINDOW_BYTES, PIECE_BYTES};
use crate::obstacle::Obstacle;

/// Memory for a decoder, which gets no more in one piece than a window of the size that is allowed: a decoder that gets none fails.
///
/// The RFC allows 16 MiB, which is all that a VM has. So much is only needed for a body of that size, or one in several pieces.
#[derive(Default)]
struct Bounded(StandardAlloc);

/// What a decoder needs beside its window.
const BESIDE_BYTES: usize = 1024;

impl Allocator<u8> for Bounded {
    type AllocatedMemory = <StandardAlloc as Allocator<u8>>::AllocatedMemory;

    fn alloc_cell(&mut self, len: usize) -> Self::AllocatedMemory {
        let most = usize::try_from(MAX_WINDOW_BYTES).unwrap_or(usize::MAX).saturating_add(BESIDE_BYTES);
        if len > most { Self::AllocatedMemory::default() } else { self.0.alloc_cell(len) }
    }

    fn free_cell(&mut self, cell: Self::AllocatedMemory) {
        self.0.free_cell(cell);
    }
}

/// The body in the clear, if that is not longer than so much.
pub(super) fn decoded(body: &[u8], max_bytes: usize) -> Result<Vec<u8>, Obstacle> {
    let mut state = BrotliState::new_strict(Bounded::default(), StandardAlloc::default(), StandardAlloc::default());
    let (mut left, mut read, mut total) = (body.len(), 0, 0);
    let (mut plain, mut piece) = (Vec::new(), vec![0; PIECE_BYTES]);
    loop {
        let (mut room, mut written) = (piece.len(), 0);
        let result = BrotliDecompressStream(
            &mut left,
            &mut read,
            body,
            &mut room,
            &mut written,
            &mut piece,
            &mut total,
            &mut state,
        );
        plain.extend_from_slice(piece.get(..written).unwrap_or_default());
        if plain.len() > max_bytes {
            return Err(Obstacle::Body(Unread::TooLarge));
        }
        match result {
            BrotliResult::NeedsMoreOutput => {}
            BrotliResult::ResultSuccess if left == 0 => return Ok(plain),
            BrotliResult::ResultSuccess | BrotliResult::NeedsMoreInput | BrotliResult::ResultFailure => {
                return Err(Obstacle::Body(Unread::Malformed));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// As others write it, with a window of so many bits.
    fn encoded(plain: &[u8], window_bits: u32) -> Vec<u8> {
        let mut out = Vec::new();
        brotli::CompressorWriter::new(&mut out, 4096, 5, window_bits).write_all(plain).unwrap();
        out
    }

    #[test]
    fn what_an_encoder_wrote_is_read_up_to_the_limit() {
        let plain = b"plain {\"text\": 1} ".repeat(40_000);
        for window_bits in [10, 16, 17, 22, 23] {
            let body = encoded(&plain, window_bits);
            assert!(body.len() < 10_000);
            assert_eq!(decoded(&body, 720_000).as_deref(), Ok(&plain[..]), "{window_bits}");
            assert_eq!(decoded(&body, 719_999), Err(Obstacle::Body(Unread::TooLarge)));
            for broken in [&body[..body.len() - 1], &body[..5], &[], b"plain", &[&body[..], b"more"].concat()] {
                assert_eq!(decoded(broken, 720_000), Err(Obstacle::Body(Unread::Malformed)), "{} bytes", broken.len());
            }
        }
    }

    #[test]
    fn a_window_may_be_as_large_as_a_body_that_fits_needs_it() {
        let small = encoded(b"{\"text\": 1}", 24);
        assert_eq!(decoded(&small, 100).as_deref(), Ok(&b"{\"text\": 1}"[..]));
        // Two pieces that are not compressed (RFC 7932 §9.2): the first does not say how much follows.
        let two_pieces =
            |first: u8| [&[first, 0x01, 0x80][..], b"text", &[0x18, 0x00, 0x08], b"more", &[0x03]].concat();
        assert_eq!(decoded(&two_pieces(0x8d), 100).as_deref(), Ok(&b"textmore"[..]), "23 bits");
        assert_eq!(decoded(&two_pieces(0x8f), 100), Err(Obstacle::Body(Unread::Malformed)), "24 bits");
    }
}
