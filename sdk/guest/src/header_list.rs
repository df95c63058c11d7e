//! The entries of a head read in one piece, for filters that look at several of them.

use std::fmt;

use portcullis_abi::pairs::{self, Pairs};

/// The entries of a head as they were when it was read: one allocation for all of them, and names and values are borrowed.
///
/// ```
/// use portcullis_sdk::HeaderList;
/// let list: HeaderList = [("accept", "a"), ("via", "b"), ("accept", "c")].into_iter().collect();
/// assert!(list.get_all("accept").eq([b"a", b"c"]));
/// ```
#[derive(Clone, Default)]
pub struct HeaderList {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// Where an entry is: its name, a byte, and its value.
#[derive(Clone, Copy)]
struct Entry {
    start: usize,
    name: usize,
    value: usize,
}

impl HeaderList {
    /// Of the ABI's form; none, if it is not that.
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let Ok(pairs) = Pairs::parse(&bytes) else { return Self::default() };
        // A count, two lengths for each pair, and then the pairs.
        let lengths = pairs.clone().map(|(name, value)| (name.len(), value.len()));
        let mut start = 4 + 8 * pairs.count();
        let entries = lengths.map(|(name, value)| {
            let entry = Entry { start, name, value };
            start += name + value + 2;
            entry
        });
        let entries = entries.collect();
        Self { bytes, entries }
    }

    /// All of them, in order, pseudo-headers first. Names are in lower case.
    ///
    /// ```
    /// # use portcullis_sdk::Request;
    /// fn size(request: &Request) -> usize {
    ///     request.headers().list().iter().map(|(name, value)| name.len() + value.len()).sum()
    /// }
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().map(|entry| {
            let value = entry.start + entry.name + 1;
            let name = self.bytes.get(entry.start..entry.start + entry.name).unwrap_or_default();
            (name, self.bytes.get(value..value + entry.value).unwrap_or_default())
        })
    }

    /// Every value of this name, which is written in lower case, in order.
    ///
    /// ```
    /// # use portcullis_sdk::Request;
    /// fn cookies(request: &Request) -> usize {
    ///     request.headers().list().get_all("cookie").map(<[u8]>::len).sum()
    /// }
    /// ```
    pub fn get_all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.iter().filter(move |(own, _)| *own == name.as_bytes()).map(|(_, value)| value)
    }

    /// The first value of this name, which is written in lower case, if it is text.
    ///
    /// ```
    /// # use portcullis_sdk::Request;
    /// fn is_post(request: &Request) -> bool {
    ///     request.headers().list().text(":method") == Some("POST")
    /// }
    /// ```
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get_all(name).next().and_then(|value| std::str::from_utf8(value).ok())
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> FromIterator<(N, V)> for HeaderList {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(entries: T) -> Self {
        let entries: Vec<(N, V)> = entries.into_iter().collect();
        let mut bytes = Vec::new();
        pairs::write(
            || entries.iter().map(|(name, value)| (name.as_ref(), value.as_ref())),
            |piece| bytes.extend_from_slice(piece),
        );
        Self::new(bytes)
    }
}

impl fmt::Debug for HeaderList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(name, value)| (name.escape_ascii(), value.escape_ascii()))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_where_the_form_has_them() {
        let entries = [("a", ""), ("", "b"), (":path", "/x"), ("a", "\0")];
        let list: HeaderList = entries.into_iter().collect();
        assert!(list.iter().eq(entries.map(|(name, value)| (name.as_bytes(), value.as_bytes()))));
        assert!(list.get_all("a").eq([&b""[..], b"\0"]));
        assert_eq!((list.text(":path"), list.text("b")), (Some("/x"), None));
        for bytes in [&b""[..], b"\x01\0\0\0", b"\xff\xff\xff\xff\0\0\0\0"] {
            assert_eq!(HeaderList::new(bytes.to_vec()).iter().count(), 0);
        }
    }
}
