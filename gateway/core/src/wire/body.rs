//! A request's body: a length to count down, or chunks.

use super::fields::{Kind, walk};
use super::lines::Lines;
use super::refusal::Reason;
use crate::limits::TRAILER_BYTES;

/// Digits of a chunk's size that are looked at: more would overflow, or be zeros that hide something.
const SIZE_DIGITS: usize = 16;

/// What is left of a body.
#[derive(Debug)]
pub(super) enum Body {
    /// So many bytes.
    Sized(u64),
    /// A chunk's size comes next.
    Size,
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The line end behind a chunk.
    ChunkEnd,
    /// The trailers, so many of them so far.
    Trailers { lines: Lines, count: usize },
}

/// How far it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// More of the body follows.
    Open,
    /// That was all.
    Ended,
    /// More bytes are needed.
    Short,
}

impl Body {
    pub(super) fn chunked() -> Self {
        Self::Size
    }

    /// How many of these bytes belong to the next piece of the body.
    pub(super) fn judge(&mut self, bytes: &[u8]) -> Result<(usize, Progress), Reason> {
        match self {
            Self::Sized(left) => {
                let len = take(bytes, left);
                Ok((len, if *left == 0 { Progress::Ended } else { Progress::Open }))
            }
            Self::Size => self.size(bytes),
            Self::Chunk(left) => {
                let len = take(bytes, left);
                if *left == 0 {
                    *self = Self::ChunkEnd;
                }
                Ok((len, Progress::Open))
            }
            Self::ChunkEnd => match bytes {
                [b'\r', b'\n', ..] => {
                    *self = Self::Size;
                    Ok((2, Progress::Open))
                }
                [b'\r'] | [] => Ok((0, Progress::Short)),
                _ => Err(Reason::ChunkEnd),
            },
            Self::Trailers { lines, count } => {
                let window = bytes.get(..TRAILER_BYTES).unwrap_or(bytes);
                match walk(lines, count, window, is_trailer)? {
                    Some(()) => Ok((lines.at(), Progress::Ended)),
                    None if bytes.len() > TRAILER_BYTES => Err(Reason::TrailersTooLarge),
                    None => Ok((0, Progress::Short)),
                }
            }
        }
    }

    fn size(&mut self, bytes: &[u8]) -> Result<(usize, Progress), Reason> {
        let (mut size, mut digits) = (0_u64, 0);
        for byte in bytes.iter().take(SIZE_DIGITS) {
            let Some(digit) = char::from(*byte).to_digit(16) else { break };
            (size, digits) = (size << 4 | u64::from(digit), digits + 1);
        }
        match (bytes.get(digits), bytes.get(digits + 1)) {
            (None, _) => return Ok((0, Progress::Short)),
            (Some(b'\r'), None) if digits > 0 => return Ok((0, Progress::Short)),
            (Some(b'\r'), Some(b'\n')) if digits > 0 && size <= i64::MAX.unsigned_abs() => {}
            (Some(b';' | b' ' | b'\t'), _) if digits > 0 => return Err(Reason::ChunkExtension),
            _ => return Err(Reason::ChunkSize),
        }
        *self = if size == 0 { Self::Trailers { lines: Lines::default(), count: 0 } } else { Self::Chunk(size) };
        Ok((digits + 2, Progress::Open))
    }
}

fn take(bytes: &[u8], left: &mut u64) -> usize {
    let len = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
    *left -= len as u64;
    len
}

fn is_trailer(kind: Kind, _: &[u8]) -> Result<(), Reason> {
    match kind {
        Kind::Host | Kind::Length | Kind::Coding | Kind::Upgrade => Err(Reason::Trailer),
        Kind::Other => Ok(()),
    }
}
