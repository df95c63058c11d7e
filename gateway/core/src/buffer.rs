//! Body bytes held for a filter: chunks as they came, moved and not copied until a guest changes them.

use bytes::{Bytes, BytesMut};

/// A body, or as much of it as is here.
#[derive(Clone, Debug, Default)]
pub struct Buffer {
    chunks: Vec<Bytes>,
    len: usize,
}

impl Buffer {
    /// Bytes in the buffer.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a chunk.
    pub fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.len += chunk.len();
            self.chunks.push(chunk);
        }
    }

    /// Moves everything of `other` behind what is here.
    pub fn append(&mut self, other: &mut Self) {
        if self.chunks.is_empty() {
            return std::mem::swap(self, other);
        }
        self.len += other.len;
        self.chunks.append(&mut other.chunks);
        other.len = 0;
    }

    /// Forgets everything, keeping the memory for the next use.
    pub fn clear(&mut self) {
        self.chunks.clear();
        self.len = 0;
    }

    /// Takes everything as one chunk.
    pub fn take(&mut self) -> Bytes {
        let whole = match self.chunks.as_mut_slice() {
            [] => Bytes::new(),
            [one] => std::mem::take(one),
            many => {
                let mut whole = BytesMut::with_capacity(self.len);
                many.iter().for_each(|chunk| whole.extend_from_slice(chunk));
                whole.freeze()
            }
        };
        self.clear();
        whole
    }

    /// The pieces of up to `max` bytes from `start` on, clamped to what is here.
    pub fn range(&self, start: usize, max: usize) -> impl Iterator<Item = &[u8]> + Clone {
        let mut skip = start;
        let mut left = max.min(self.len.saturating_sub(start));
        self.chunks.iter().filter_map(move |chunk| {
            let from = skip.min(chunk.len());
            skip -= from;
            let piece = chunk.get(from..)?;
            let piece = piece.get(..left.min(piece.len()))?;
            left -= piece.len();
            (!piece.is_empty()).then_some(piece)
        })
    }

    /// Replaces `size` bytes from `start` on with `data`, as the ABI's `set_buffer` does.
    ///
    /// At 0 with size 0 it prepends, at or beyond the end it appends, in between it replaces what is there. Envoy refuses that
    /// last case; the ABI's text asks for it, and no plugin can depend on the refusal.
    pub fn splice(&mut self, start: usize, size: usize, data: Bytes) {
        if start >= self.len {
            return self.push(data);
        }
        if start == 0 && size >= self.len {
            self.clear();
            return self.push(data);
        }
        let whole = self.take();
        let end = start.saturating_add(size).min(whole.len());
        self.push(whole.slice(..start));
        self.push(data);
        self.push(whole.slice(end..));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(chunks: &[&str]) -> Buffer {
        let mut buffer = Buffer::default();
        chunks.iter().for_each(|chunk| buffer.push(Bytes::copy_from_slice(chunk.as_bytes())));
        buffer
    }

    #[test]
    fn a_range_is_clamped_to_what_is_there() {
        let buffer = buffer(&["hel", "lo"]);
        for (start, max, want) in
            [(0, 5, "hello"), (1, 3, "ell"), (4, usize::MAX, "o"), (5, 1, ""), (9, 9, ""), (2, 0, "")]
        {
            let read: Vec<u8> = buffer.range(start, max).flatten().copied().collect();
            assert_eq!(String::from_utf8(read).unwrap(), want, "{start}+{max}");
        }
    }

    #[test]
    fn splicing_follows_the_abi_table() {
        for (start, size, want) in [
            (0, 0, "Xhello"),
            (0, 2, "Xllo"),
            (0, 5, "X"),
            (0, usize::MAX, "X"),
            (5, 0, "helloX"),
            (usize::MAX, 7, "helloX"),
            (2, 2, "heXo"),
            (2, 0, "heXllo"),
        ] {
            let mut buffer = buffer(&["hel", "lo"]);
            buffer.splice(start, size, Bytes::from_static(b"X"));
            assert_eq!(buffer.len(), want.len());
            assert_eq!(buffer.take(), want, "{start}+{size}");
        }
    }

    #[test]
    fn splicing_an_empty_buffer_sets_it() {
        for start in [0, 7] {
            let mut buffer = Buffer::default();
            buffer.splice(start, 9, Bytes::from_static(b"X"));
            assert_eq!(buffer.take(), "X");
        }
    }
}
