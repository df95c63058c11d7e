//! Content codings: they are undone before a body is read, and done again afterwards.
//!
//! Gzip, Zstandard and Brotli.

mod brotli;

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use plugin_bodies::Unread;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use crate::obstacle::Obstacle;

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Identity,
    Gzip,
    Zstd,
    Brotli,
}

/// Those that are read here, as `accept-encoding` has them.
pub(crate) const READ: &str = "gzip, zstd, br, identity";

/// RFC 9659 §3: nothing that is sent in Zstandard needs a larger window. That of Brotli may be twice as large, for bodies of that size.
const MAX_WINDOW_BYTES: u64 = 8 * 1024 * 1024;

/// So much of a frame is decoded at a time, and then looked at.
const PIECE_BYTES: usize = 64 * 1024;

impl Coding {
    /// By `content-encoding`, if it is one that is read here.
    pub(crate) fn of(name: &[u8]) -> Option<Self> {
        match name.trim_ascii().to_ascii_lowercase().as_slice() {
            b"" | b"identity" => Some(Self::Identity),
            b"gzip" | b"x-gzip" => Some(Self::Gzip),
            b"zstd" => Some(Self::Zstd),
            b"br" => Some(Self::Brotli),
            _ => None,
        }
    }

    /// As heads name it, if they do.
    pub(crate) fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
            Self::Brotli => Some("br"),
        }
    }

    /// The body in the clear, if that is not longer than so much: a few bytes can be gigabytes.
    pub(crate) fn decoded(self, body: Vec<u8>, max_bytes: usize) -> Result<Vec<u8>, Obstacle> {
        match self {
            Self::Identity => Ok(body),
            Self::Gzip => {
                let mut plain = Vec::new();
                let limit = u64::try_from(max_bytes).unwrap_or(u64::MAX).saturating_add(1);
                let read = MultiGzDecoder::new(body.as_slice()).take(limit).read_to_end(&mut plain);
                if plain.len() > max_bytes {
                    return Err(Obstacle::Body(Unread::TooLarge));
                }
                read.map(|_| plain).map_err(|_| Obstacle::Body(Unread::Malformed))
            }
            Self::Zstd => frames(&body, max_bytes),
            Self::Brotli => brotli::decoded(&body, max_bytes),
        }
    }

    /// The body as its head says it is.
    pub(crate) fn encoded(self, body: Vec<u8>) -> Result<Vec<u8>, Obstacle> {
        match self {
            Self::Identity => Ok(body),
            Self::Brotli => Ok(brotli::encoded(&body)),
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(&body).and_then(|()| encoder.finish()).map_err(|_| Obstacle::Body(Unread::Malformed))
            }
            Self::Zstd => Ok(compress_to_vec(body.as_slice(), CompressionLevel::Fastest)),
        }
    }
}

/// What Zstandard frames hold, one after the other (RFC 8878 §3).
fn frames(mut body: &[u8], max_bytes: usize) -> Result<Vec<u8>, Obstacle> {
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(MAX_WINDOW_BYTES);
    let mut plain = Vec::new();
    while !body.is_empty() {
        decoder.init(&mut body).map_err(|_| Obstacle::Body(Unread::Malformed))?;
        while !decoder.is_finished() || decoder.can_collect() > 0 {
            let piece = BlockDecodingStrategy::UptoBytes(PIECE_BYTES);
            decoder.decode_blocks(&mut body, piece).map_err(|_| Obstacle::Body(Unread::Malformed))?;
            plain.extend(decoder.collect().unwrap_or_default());
            if plain.len() > max_bytes {
                return Err(Obstacle::Body(Unread::TooLarge));
            }
        }
        let written = decoder.get_checksum_from_data();
        if written.is_some() && written != decoder.get_calculated_checksum() {
            return Err(Obstacle::Body(Unread::Malformed));
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_is_read_again_up_to_the_limit() {
        let plain = b"plain ".repeat(100_000);
        for coding in [Coding::Gzip, Coding::Zstd, Coding::Brotli] {
            let encoded = coding.encoded(plain.clone()).unwrap();
            assert!(encoded.len() < 10_000, "{coding:?} {}", encoded.len());
            assert_eq!(coding.decoded(encoded.clone(), 600_000), Ok(plain.clone()));
            assert_eq!(coding.decoded(encoded.clone(), 599_999), Err(Obstacle::Body(Unread::TooLarge)));
            if coding != Coding::Brotli {
                // RFC 1952 §2.2, RFC 8878 §3: several members, or frames, are one text.
                assert_eq!(coding.decoded([encoded.clone(), encoded.clone()].concat(), 1_200_000), Ok(plain.repeat(2)));
            }
            let cut = &encoded[..encoded.len() - 1];
            for broken in [cut, &encoded[..5], b"plain", &[&encoded[..], b"more"].concat()] {
                let read = coding.decoded(broken.to_vec(), 600_000);
                assert_eq!(read, Err(Obstacle::Body(Unread::Malformed)), "{coding:?}, {} bytes", broken.len());
            }
        }
        let mut wrong = Coding::Gzip.encoded(plain).unwrap();
        let at = wrong.len() - 8;
        wrong[at] ^= 1;
        assert_eq!(
            Coding::Gzip.decoded(wrong, 600_000),
            Err(Obstacle::Body(Unread::Malformed)),
            "its checksum is another"
        );
    }

    /// As `zstd --check` has written it.
    #[test]
    fn what_another_encoder_wrote_is_read_and_its_checksum_held_against_it() {
        let encoded = [
            0x28, 0xb5, 0x2f, 0xfd, 0x04, 0x68, 0x15, 0x01, 0x00, 0xe0, 0x7b, 0x22, 0x73, 0x65, 0x63, 0x72, 0x65, 0x74,
            0x22, 0x3a, 0x31, 0x2c, 0x22, 0x73, 0x68, 0x6f, 0x77, 0x6e, 0x22, 0x3a, 0x5b, 0x31, 0x2e, 0x35, 0x30, 0x2c,
            0x5d, 0x7d, 0x01, 0x00, 0x02, 0x2c, 0x63, 0x49, 0x6b, 0xf0, 0x09,
        ];
        let want = br#"{"secret":1,"shown":[1.50,1.50,1.50,1.50,1.50,1.50]}"#;
        assert_eq!(Coding::Zstd.decoded(encoded.to_vec(), 100).as_deref(), Ok(&want[..]));
        for at in encoded.len() - 4..encoded.len() {
            let mut wrong = encoded.to_vec();
            wrong[at] ^= 1;
            assert_eq!(Coding::Zstd.decoded(wrong, 100), Err(Obstacle::Body(Unread::Malformed)));
        }
        // A window of 16 MiB, in a frame that says so.
        let large = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 14 << 3, 1, 0, 0];
        assert_eq!(Coding::Zstd.decoded(large.to_vec(), 100), Err(Obstacle::Body(Unread::Malformed)));
    }
}
