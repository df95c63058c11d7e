//! Content codings: gzip is undone before a body is read and done again afterwards.
//!
//! Brotli and Zstandard are not read here: their decoders are as large as this module. Upstreams are not offered them.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use crate::obstacle::Obstacle;

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Identity,
    Gzip,
}

impl Coding {
    /// By `content-encoding`, if it is one that is read here.
    pub(crate) fn of(name: &[u8]) -> Option<Self> {
        match name.trim_ascii().to_ascii_lowercase().as_slice() {
            b"" | b"identity" => Some(Self::Identity),
            b"gzip" | b"x-gzip" => Some(Self::Gzip),
            _ => None,
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
                    return Err(Obstacle::TooLarge);
                }
                read.map(|_| plain).map_err(|_| Obstacle::Malformed)
            }
        }
    }

    /// The body as its head says it is.
    pub(crate) fn encoded(self, body: Vec<u8>) -> Result<Vec<u8>, Obstacle> {
        match self {
            Self::Identity => Ok(body),
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(&body).and_then(|()| encoder.finish()).map_err(|_| Obstacle::Malformed)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_is_read_again_up_to_the_limit() {
        let plain = b"plain ".repeat(1000);
        let gzip = Coding::Gzip.encoded(plain.clone()).unwrap();
        assert!(gzip.len() < 100);
        assert_eq!(Coding::Gzip.decoded(gzip.clone(), 6000), Ok(plain.clone()));
        assert_eq!(Coding::Gzip.decoded(gzip.clone(), 5999), Err(Obstacle::TooLarge));
        // RFC 1952 §2.2: several members are one text.
        assert_eq!(Coding::Gzip.decoded([gzip.clone(), gzip.clone()].concat(), 12_000), Ok(plain.repeat(2)));
        for broken in [&gzip[..gzip.len() - 1], &gzip[..5], b"plain", &[&gzip[..], b"more"].concat()] {
            assert_eq!(Coding::Gzip.decoded(broken.to_vec(), 6000), Err(Obstacle::Malformed), "{broken:?}");
        }
        let mut wrong = gzip;
        let at = wrong.len() - 8;
        wrong[at] ^= 1;
        assert_eq!(Coding::Gzip.decoded(wrong, 6000), Err(Obstacle::Malformed), "its checksum is another");
    }
}
