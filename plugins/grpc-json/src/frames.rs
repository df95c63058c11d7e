//! gRPC's framing: a flag, a length of four bytes, a message. What comes is believed only as far as the limit goes.

use std::fmt;

/// Flag and length before every message.
const HEAD: usize = 5;

/// Why a body is no sequence of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadFrame {
    /// Its flag says that it is compressed, which nobody was told they may do.
    Compressed,
    /// Its length is beyond the limit.
    TooLong,
    /// Its flag is none that gRPC knows.
    Flag,
    /// The body ends within it.
    Cut,
}

impl fmt::Display for BadFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compressed => "a message is compressed",
            Self::TooLong => "a message is longer than `max_bytes`",
            Self::Flag => "a message has an unknown flag",
            Self::Cut => "the body ends within a message",
        })
    }
}

/// Messages as their bytes come in.
#[derive(Debug)]
pub(crate) struct Frames {
    pending: Vec<u8>,
    limit: usize,
}

impl Frames {
    /// Of messages of at most `limit` bytes each.
    pub(crate) fn new(limit: usize) -> Self {
        Self { pending: Vec::new(), limit }
    }

    /// Takes in more bytes, and gives each message that is complete to `each`. Never more than one message is kept.
    ///
    /// # Errors
    /// What is wrong with the next message.
    pub(crate) fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), BadFrame> {
        self.pending.extend_from_slice(bytes);
        let mut rest = self.pending.as_slice();
        while let Some((head, after)) = rest.split_first_chunk::<HEAD>() {
            let [flag, length @ ..] = *head;
            match flag {
                0 => {}
                1 => return Err(BadFrame::Compressed),
                _ => return Err(BadFrame::Flag),
            }
            let length = usize::try_from(u32::from_be_bytes(length)).map_err(|_| BadFrame::TooLong)?;
            if length > self.limit {
                return Err(BadFrame::TooLong);
            }
            let Some((message, after)) = after.split_at_checked(length) else { break };
            each(message);
            rest = after;
        }
        let done = self.pending.len() - rest.len();
        self.pending.drain(..done);
        Ok(())
    }

    /// # Errors
    /// When the body has ended within a message.
    pub(crate) fn end(&self) -> Result<(), BadFrame> {
        if self.pending.is_empty() { Ok(()) } else { Err(BadFrame::Cut) }
    }
}

/// A message in its frame.
pub(crate) fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    // Bodies are bounded far below 4 GiB.
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[flag][..], &length.to_be_bytes(), message].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(chunks: &[&[u8]]) -> Result<Vec<Vec<u8>>, BadFrame> {
        let mut frames = Frames::new(4);
        let mut messages = Vec::new();
        for chunk in chunks {
            frames.push(chunk, |message| messages.push(message.to_vec()))?;
        }
        frames.end().map(|()| messages)
    }

    #[test]
    fn messages_come_out_however_their_bytes_are_cut() {
        let bytes = [framed(0, b"ab"), framed(0, b""), framed(0, b"wxyz")].concat();
        let want = vec![b"ab".to_vec(), Vec::new(), b"wxyz".to_vec()];
        for at in 0..=bytes.len() {
            let (left, right) = bytes.split_at(at);
            assert_eq!(all(&[left, right]).as_ref(), Ok(&want), "{at}");
        }
        assert_eq!(all(&bytes.chunks(1).collect::<Vec<_>>()), Ok(want));
    }

    #[test]
    fn a_frame_that_lies_is_refused_and_nothing_is_kept_for_it() {
        for (bytes, want) in [
            (&b"\x00\xff\xff\xff\xffab"[..], BadFrame::TooLong),
            (b"\x00\x00\x00\x00\x05abcde", BadFrame::TooLong),
            (b"\x01\x00\x00\x00\x01a", BadFrame::Compressed),
            (b"\x80\x00\x00\x00\x01a", BadFrame::Flag),
            (b"\x00\x00\x00\x00\x04abc", BadFrame::Cut),
            (b"\x00\x00", BadFrame::Cut),
        ] {
            assert_eq!(all(&[bytes]), Err(want));
        }
    }
}
