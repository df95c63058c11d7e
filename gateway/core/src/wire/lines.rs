//! Lines, each judged when it is whole.

use super::refusal::Reason;

/// A place among lines whose bytes come in part: a line's start, and up to where no end of it was found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lines {
    at: usize,
    searched: usize,
}

impl Lines {
    /// Where the next line starts.
    pub(super) fn at(self) -> usize {
        self.at
    }

    /// Has `judge` look at the next line: the bytes from its start on, of which it says how many are the line's.
    ///
    /// It may judge before the line is whole; what it says then does not count, so that no verdict depends on how bytes come.
    #[inline]
    pub(super) fn next<T>(
        &mut self,
        bytes: &[u8],
        judge: impl FnOnce(&[u8]) -> Result<(usize, T), Reason>,
    ) -> Result<Option<T>, Reason> {
        let rest = bytes.get(self.at..).unwrap_or_default();
        if self.searched > self.at && !has_end(bytes, self.searched) {
            self.searched = bytes.len();
            return Ok(None);
        }
        match judge(rest) {
            Ok((len, line)) => {
                self.at += len;
                Ok(Some(line))
            }
            Err(reason) if has_end(bytes, self.at.max(self.searched)) => Err(reason),
            Err(_) => {
                self.searched = bytes.len();
                Ok(None)
            }
        }
    }
}

fn has_end(bytes: &[u8], from: usize) -> bool {
    bytes.get(from..).unwrap_or_default().contains(&b'\n')
}
