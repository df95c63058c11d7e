//! JSON as text (RFC 8259): whether it is that, and where its parts are.
//!
//! [`check`] reads a text once, without recursion and without memory of its own. Everything else here is for texts that have passed
//! it, and finds parts of them by stepping over what is not wanted: what has no end there ends with the text.

use std::borrow::Cow;

/// Why a text is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    NotJson,
    /// Its arrays and objects lie deeper in each other than they may.
    TooDeep,
}

/// Depths are bits of one number.
const DEEPEST: u32 = u128::BITS;

/// How many values there are in a text, if it is one value of JSON and white space, and at most so deep; 128 is the most.
pub(crate) fn check(text: &str, max_depth: usize) -> Result<usize, Flaw> {
    let mut cursor = Cursor::at_start(text);
    let mut open =
        Open { objects: 0, depth: 0, most: u32::try_from(max_depth).map_or(DEEPEST, |most| most.min(DEEPEST)) };
    let mut values = 0;
    loop {
        values += 1;
        match cursor.token().ok_or(Flaw::NotJson)? {
            b'{' => {
                open.push(1)?;
                if !cursor.skips(b'}') {
                    cursor.name().ok_or(Flaw::NotJson)?;
                    continue;
                }
                open.pop();
            }
            b'[' => {
                open.push(0)?;
                if !cursor.skips(b']') {
                    continue;
                }
                open.pop();
            }
            first => cursor.plain(first).ok_or(Flaw::NotJson)?,
        }
        if !cursor.follows(&mut open).ok_or(Flaw::NotJson)? {
            return Ok(values);
        }
    }
}

/// The arrays and objects around a place: a bit for each, the innermost last, which is 1 for an object.
struct Open {
    objects: u128,
    depth: u32,
    most: u32,
}

impl Open {
    fn push(&mut self, object: u128) -> Result<(), Flaw> {
        if self.depth == self.most {
            return Err(Flaw::TooDeep);
        }
        self.objects = self.objects << 1 | object;
        self.depth += 1;
        Ok(())
    }

    fn pop(&mut self) {
        self.objects >>= 1;
        self.depth -= 1;
    }
}

/// The fields of an object: their names, in quotes, and their values.
pub(crate) fn fields(object: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut parts = parts(object);
    std::iter::from_fn(move || Some((parts.next()?, parts.next()?)))
}

/// The items of an array.
pub(crate) fn items(array: &str) -> impl Iterator<Item = &str> {
    parts(array)
}

/// The values directly within an array or an object, and the names.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut cursor = Cursor { bytes: text.as_bytes(), at: 1 };
    std::iter::from_fn(move || {
        while matches!(cursor.peek(), Some(b' ' | b'\t' | b'\n' | b'\r' | b',' | b':')) {
            cursor.at += 1;
        }
        let start = cursor.at;
        cursor.step_over();
        text.get(start..cursor.at).filter(|part| !part.is_empty())
    })
}

/// What a string says; nothing where it is half a character (`"\ud800"`), which is no text.
pub(crate) fn said(string: &str) -> Option<Cow<'_, str>> {
    let inner = string.get(1..string.len().checked_sub(1)?)?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(string).ok().map(Cow::Owned)
}

/// A text as a string of JSON (§7), which has one form for each: only what must be escaped is.
pub(crate) fn quoted(said: &str) -> String {
    // A string can always be written.
    serde_json::to_string(said).unwrap_or_default()
}

/// Without white space between its parts, so that it may stand in a header.
pub(crate) fn compact(text: &str) -> String {
    let mut cursor = Cursor::at_start(text);
    let mut compact = String::with_capacity(text.len());
    let mut start = 0;
    while let Some(byte) = cursor.next() {
        match byte {
            b'"' => cursor.step_over_string(),
            b' ' | b'\t' | b'\n' | b'\r' => {
                compact.push_str(text.get(start..cursor.at - 1).unwrap_or_default());
                start = cursor.at;
            }
            _ => {}
        }
    }
    compact.push_str(text.get(start..).unwrap_or_default());
    compact
}

struct Cursor<'t> {
    bytes: &'t [u8],
    at: usize,
}

impl<'t> Cursor<'t> {
    fn at_start(text: &'t str) -> Self {
        Self { bytes: text.as_bytes(), at: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    /// The next byte that is no white space.
    fn token(&mut self) -> Option<u8> {
        loop {
            match self.next()? {
                b' ' | b'\t' | b'\n' | b'\r' => {}
                byte => return Some(byte),
            }
        }
    }

    /// Whether this comes next, after white space, and then it is behind us.
    fn skips(&mut self, byte: u8) -> bool {
        let before = self.at;
        let comes = self.token() == Some(byte);
        if !comes {
            self.at = before;
        }
        comes
    }

    /// The name of a field, and the colon after it.
    fn name(&mut self) -> Option<()> {
        (self.token()? == b'"').then_some(())?;
        self.string()?;
        (self.token()? == b':').then_some(())
    }

    /// What comes after a value, up to where the next begins; false where it was the last of all.
    fn follows(&mut self, open: &mut Open) -> Option<bool> {
        while open.depth > 0 {
            match (self.token()?, open.objects & 1) {
                (b',', 0) => return Some(true),
                (b',', _) => return self.name().map(|()| true),
                (b']', 0) | (b'}', 1) => open.pop(),
                (_, _) => return None,
            }
        }
        self.token().is_none().then_some(false)
    }

    /// A value that has no others in it, whose first byte is behind us.
    fn plain(&mut self, first: u8) -> Option<()> {
        match first {
            b'"' => self.string(),
            b't' => self.word(b"rue"),
            b'f' => self.word(b"alse"),
            b'n' => self.word(b"ull"),
            b'-' => {
                let first = self.next()?;
                self.number(first)
            }
            first => self.number(first),
        }
    }

    fn word(&mut self, rest: &[u8]) -> Option<()> {
        let found = self.bytes.get(self.at..)?.starts_with(rest);
        self.at += rest.len();
        found.then_some(())
    }

    /// RFC 8259 §6, after the sign.
    fn number(&mut self, first: u8) -> Option<()> {
        match first {
            b'0' => {}
            b'1'..=b'9' => self.step_over_digits(),
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    /// At least one.
    fn digits(&mut self) -> Option<()> {
        let before = self.at;
        self.step_over_digits();
        (self.at > before).then_some(())
    }

    fn step_over_digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    /// A string, after its first quote.
    fn string(&mut self) -> Option<()> {
        loop {
            self.step_over_characters();
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => match self.next()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        let digits = self.bytes.get(self.at..self.at + 4)?;
                        digits.iter().all(u8::is_ascii_hexdigit).then_some(())?;
                        self.at += 4;
                    }
                    _ => return None,
                },
                _ => return None,
            }
        }
    }

    /// To the next quote, backslash or control character of a string, eight bytes at a time.
    fn step_over_characters(&mut self) {
        while let Some(eight) = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk) {
            let marks = ends(u64::from_le_bytes(*eight));
            if marks != 0 {
                self.at += marks.trailing_zeros() as usize / 8;
                return;
            }
            self.at += 8;
        }
        while self.peek().is_some_and(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20)) {
            self.at += 1;
        }
    }

    /// A value, whatever it is. It ends at the latest where its holder does.
    fn step_over(&mut self) {
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                self.step_over_string();
            }
            Some(b'{' | b'[') => {
                let mut open = 0;
                while let Some(byte) = self.next() {
                    match byte {
                        b'"' => self.step_over_string(),
                        b'{' | b'[' => open += 1,
                        b'}' | b']' if open == 1 => return,
                        b'}' | b']' => open -= 1,
                        _ => {}
                    }
                }
            }
            _ => {
                while !matches!(self.peek(), None | Some(b' ' | b'\t' | b'\n' | b'\r' | b',' | b']' | b'}')) {
                    self.at += 1;
                }
            }
        }
    }

    /// What is left of a string, after its first quote.
    fn step_over_string(&mut self) {
        loop {
            self.step_over_characters();
            match self.next() {
                Some(b'"') | None => return,
                Some(b'\\') => self.at += 1,
                Some(_) => {}
            }
        }
    }
}

/// Marks the quotes, backslashes and control characters among eight bytes, each by the highest bit of its byte. The lowest mark is
/// always right; those above it need not be, since subtraction borrows from them.
fn ends(eight: u64) -> u64 {
    const fn all(byte: u8) -> u64 {
        u64::from_le_bytes([byte; 8])
    }
    let zeros = |bytes: u64| bytes.wrapping_sub(all(1)) & !bytes;
    let controls = eight.wrapping_sub(all(0x20)) & !eight;
    (zeros(eight ^ all(b'"')) | zeros(eight ^ all(b'\\')) | controls) & all(0x80)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;
    use serde_json::value::RawValue;

    #[test]
    fn values_are_counted_and_depth_is_bounded() {
        for (text, max_depth, want) in [
            ("1", 0, Ok(1)),
            (" [] ", 1, Ok(1)),
            (r#"{"a":[1,[2]],"b":[3]}"#, 3, Ok(7)),
            (r#"{"a":[1,[2]],"b":[3]}"#, 2, Err(Flaw::TooDeep)),
            (r#"["[[[", "\"[[,", "\\"]"#, 1, Ok(4)),
            ("[[],{},[]]", 2, Ok(4)),
            ("[[[", 2, Err(Flaw::TooDeep)),
            ("[[", 2, Err(Flaw::NotJson)),
            ("", 1, Err(Flaw::NotJson)),
        ] {
            assert_eq!(check(text, max_depth), want, "{text}");
        }
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!((check(&deep(128), 1000), check(&deep(129), 1000)), (Ok(128), Err(Flaw::TooDeep)));
    }

    #[test]
    fn parts_are_found_whatever_stands_between_them() {
        let text = "{ \"a\" : 1.50 ,\n\"b\\\"}\":[ {\"x\":\"]\"} , [] ],\"\":null}";
        let found: Vec<(&str, &str)> = fields(text).collect();
        assert_eq!(found, [("\"a\"", "1.50"), ("\"b\\\"}\"", "[ {\"x\":\"]\"} , [] ]"), ("\"\"", "null")]);
        assert_eq!(items("[ {\"x\":\"]\"} , [] ]").collect::<Vec<_>>(), ["{\"x\":\"]\"}", "[]"]);
        assert_eq!((fields("{ }").count(), items("[]").count()), (0, 0));
        assert_eq!(compact("{ \"a b\" : [ 1,\n2 ] }"), r#"{"a b":[1,2]}"#);
        assert_eq!((said(r#""a\u00e9""#).as_deref(), said(r#""\ud800""#)), (Some("aé"), None));
    }

    /// JSON, and what differs from it in a byte.
    fn texts() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"a\"",
            "\"b\\n\\u00e9\"",
            "\"\\",
            "\"long enough for eight bytes\"",
            " ",
            "\n",
            "1",
            "-0",
            "0.5e+3",
            "01",
            "1.",
            "-",
            "true",
            "nul",
            "null",
            "\"",
            "é",
            "\u{1}",
            "\"x\u{1f}\"",
            "\\",
            "{\"a\":1}",
            "[1,2]",
            "{\"a\":[",
        ]);
        prop::collection::vec(piece, 1..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

        /// Another parser says the same of what is JSON, and of what its parts are.
        #[test]
        fn what_is_json_is_so_to_everybody(text in texts()) {
            let known = serde_json::from_str::<&RawValue>(&text);
            prop_assert_eq!(check(&text, 128).is_ok(), known.is_ok());
            let Ok(known) = known else { return Ok(()) };
            let text = known.get();
            prop_assert_eq!(
                serde_json::from_str::<Value>(&compact(text)).ok(), serde_json::from_str::<Value>(text).ok()
            );
            let of_items = match text.as_bytes()[0] {
                b'[' => items(text).map(str::to_owned).collect(),
                b'{' => fields(text).map(|(name, value)| format!("{name}:{value}")).collect(),
                _ => vec![],
            };
            let bytes = text.as_bytes();
            if matches!(bytes[0], b'[' | b'{') {
                let built = format!("{}{}{}", char::from(bytes[0]), of_items.join(","), char::from(bytes[bytes.len() - 1]));
                prop_assert_eq!(serde_json::from_str::<Value>(&built).ok(), serde_json::from_str::<Value>(text).ok());
            }
        }
    }
}
