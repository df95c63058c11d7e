//! JSON Schemas of settings, made while the filter is compiled: they stand in the module, and nothing of them in its code.
//!
//! A schema is a rope of text, since a constant of a generic type may refer to those of its parameters, but not be as long
//! as they are. `render` makes one array of it where every type is known.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A piece of JSON text.
///
/// ```
/// use portcullis_sdk::schema::{Piece, Schema};
/// /// A colour: `#rrggbb`.
/// struct Colour(String);
/// impl Schema for Colour {
///     const SCHEMA: &'static [Piece] = &[Piece::Text(r##"{"type":"string","pattern":"^#[0-9a-f]{6}$"}"##)];
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Piece {
    /// As it is.
    Text(&'static str),
    /// A string of JSON, quotes and all, with this in it.
    Quoted(&'static str),
    /// A list of such strings.
    List(&'static [&'static str]),
    /// A list of the names of those that may not be left out.
    Required(&'static [Required]),
    /// Others.
    All(&'static [Piece]),
}

/// A field of an object, for the derive.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Required {
    /// Its name.
    pub name: &'static str,
    /// Whether it may be left out.
    pub optional: bool,
}

/// A type that says what it looks like in JSON. [`Config`](macro@crate::Config) derives it.
///
/// ```
/// use portcullis_sdk::schema::{Schema, text};
/// assert_eq!(text::<Vec<u8>>(), r#"{"type":"array","items":{"type":"integer","minimum":0,"maximum":255}}"#);
/// ```
pub trait Schema {
    /// Its schema.
    const SCHEMA: &'static [Piece];
    /// Whether a field of this type may be left out.
    const OPTIONAL: bool = false;
}

macro_rules! plain {
    ($($type:ty: $schema:literal),* $(,)?) => {
        $(impl Schema for $type {
            const SCHEMA: &'static [Piece] = &[Piece::Text($schema)];
        })*
    };
}

plain! {
    bool: r#"{"type":"boolean"}"#,
    u8: r#"{"type":"integer","minimum":0,"maximum":255}"#,
    u16: r#"{"type":"integer","minimum":0,"maximum":65535}"#,
    u32: r#"{"type":"integer","minimum":0,"maximum":4294967295}"#,
    u64: r#"{"type":"integer","minimum":0}"#,
    usize: r#"{"type":"integer","minimum":0}"#,
    std::num::NonZeroU32: r#"{"type":"integer","minimum":1,"maximum":4294967295}"#,
    std::num::NonZeroU64: r#"{"type":"integer","minimum":1}"#,
    std::num::NonZeroUsize: r#"{"type":"integer","minimum":1}"#,
    i8: r#"{"type":"integer","minimum":-128,"maximum":127}"#,
    i16: r#"{"type":"integer","minimum":-32768,"maximum":32767}"#,
    i32: r#"{"type":"integer","minimum":-2147483648,"maximum":2147483647}"#,
    i64: r#"{"type":"integer"}"#,
    f32: r#"{"type":"number"}"#,
    f64: r#"{"type":"number"}"#,
    char: r#"{"type":"string","minLength":1,"maxLength":1}"#,
    String: r#"{"type":"string"}"#,
    serde_json::Value: "true",
    serde_json::Map<String, serde_json::Value>: r#"{"type":"object"}"#,
    crate::NoConfig: r#"{"type":"object","additionalProperties":false}"#,
}

impl<T: Schema> Schema for Option<T> {
    const SCHEMA: &'static [Piece] = T::SCHEMA;
    const OPTIONAL: bool = true;
}

impl<T: Schema> Schema for Box<T> {
    const SCHEMA: &'static [Piece] = T::SCHEMA;
    const OPTIONAL: bool = T::OPTIONAL;
}

impl<T: Schema> Schema for Vec<T> {
    const SCHEMA: &'static [Piece] =
        &[Piece::Text(r#"{"type":"array","items":"#), Piece::All(T::SCHEMA), Piece::Text("}")];
}

impl<T: Schema> Schema for BTreeSet<T> {
    const SCHEMA: &'static [Piece] =
        &[Piece::Text(r#"{"type":"array","uniqueItems":true,"items":"#), Piece::All(T::SCHEMA), Piece::Text("}")];
}

impl<K, T: Schema> Schema for BTreeMap<K, T> {
    const SCHEMA: &'static [Piece] =
        &[Piece::Text(r#"{"type":"object","additionalProperties":"#), Piece::All(T::SCHEMA), Piece::Text("}")];
}

impl<K, T: Schema, S> Schema for HashMap<K, T, S> {
    const SCHEMA: &'static [Piece] = <BTreeMap<String, T> as Schema>::SCHEMA;
}

/// The schema as text.
///
/// ```
/// use portcullis_sdk::{NoConfig, schema};
/// assert_eq!(schema::text::<NoConfig>(), r#"{"type":"object","additionalProperties":false}"#);
/// ```
#[must_use]
pub fn text<T: Schema + ?Sized>() -> String {
    shown(T::SCHEMA)
}

/// Pieces as text, at run time.
#[doc(hidden)]
#[must_use]
pub fn shown(pieces: &[Piece]) -> String {
    let mut out = vec![0; len(pieces)];
    write(pieces, &mut out, 0);
    String::from_utf8(out).unwrap_or_default()
}

/// How many bytes pieces are.
#[doc(hidden)]
#[must_use]
#[allow(clippy::indexing_slicing, reason = "constants are evaluated by the compiler, which checks")]
pub const fn len(pieces: &[Piece]) -> usize {
    let (mut total, mut at) = (0, 0);
    while at < pieces.len() {
        total += match pieces[at] {
            Piece::Text(text) => text.len(),
            Piece::Quoted(text) => quoted_len(text.as_bytes()),
            Piece::List(items) => {
                let (mut list, mut item) = (2, 0);
                while item < items.len() {
                    list += quoted_len(items[item].as_bytes());
                    item += 1;
                }
                list + if items.is_empty() { 0 } else { items.len() - 1 }
            }
            Piece::Required(fields) => required_len(fields),
            Piece::All(pieces) => len(pieces),
        };
        at += 1;
    }
    total
}

/// Pieces as the bytes of a static; `N` is `len`'s answer.
#[doc(hidden)]
#[must_use]
pub const fn render<const N: usize>(pieces: &[Piece]) -> [u8; N] {
    let mut out = [0; N];
    write(pieces, &mut out, 0);
    out
}

#[allow(clippy::indexing_slicing, reason = "constants are evaluated by the compiler, which checks")]
const fn write(pieces: &[Piece], out: &mut [u8], mut at: usize) -> usize {
    let mut next = 0;
    while next < pieces.len() {
        at = match pieces[next] {
            Piece::Text(text) => copy(text.as_bytes(), out, at),
            Piece::Quoted(text) => quote(text.as_bytes(), out, at),
            Piece::List(items) => {
                at = copy(b"[", out, at);
                let mut item = 0;
                while item < items.len() {
                    if item > 0 {
                        at = copy(b",", out, at);
                    }
                    at = quote(items[item].as_bytes(), out, at);
                    item += 1;
                }
                copy(b"]", out, at)
            }
            Piece::Required(fields) => write_required(fields, out, at),
            Piece::All(pieces) => write(pieces, out, at),
        };
        next += 1;
    }
    at
}

#[allow(clippy::indexing_slicing, reason = "constants are evaluated by the compiler, which checks")]
const fn required_len(fields: &[Required]) -> usize {
    let (mut total, mut count, mut at) = (2, 0, 0);
    while at < fields.len() {
        if !fields[at].optional {
            total += quoted_len(fields[at].name.as_bytes());
            count += 1;
        }
        at += 1;
    }
    if count > 0 { total + count - 1 } else { total }
}

#[allow(clippy::indexing_slicing, reason = "constants are evaluated by the compiler, which checks")]
const fn write_required(fields: &[Required], out: &mut [u8], mut at: usize) -> usize {
    at = copy(b"[", out, at);
    let (mut count, mut next) = (0, 0);
    while next < fields.len() {
        if !fields[next].optional {
            if count > 0 {
                at = copy(b",", out, at);
            }
            at = quote(fields[next].name.as_bytes(), out, at);
            count += 1;
        }
        next += 1;
    }
    copy(b"]", out, at)
}

#[allow(clippy::indexing_slicing, reason = "constants are evaluated by the compiler, which checks")]
const fn copy(text: &[u8], out: &mut [u8], at: usize) -> usize {
    let mut byte = 0;
    while byte < text.len() {
        out[at + byte] = text[byte];
        byte += 1;
    }
    at + text.len()
}

#[allow(clippy::indexing_slicing, reason = "constants are evaluated by the compiler, which checks")]
const fn quoted_len(text: &[u8]) -> usize {
    let (mut total, mut at) = (2, 0);
    while at < text.len() {
        total += match text[at] {
            b'"' | b'\\' | b'\n' => 2,
            0..0x20 => 0,
            _ => 1,
        };
        at += 1;
    }
    total
}

/// Control characters other than the newline are left out: nobody means them in a description.
#[allow(clippy::indexing_slicing, reason = "constants are evaluated by the compiler, which checks")]
const fn quote(text: &[u8], out: &mut [u8], mut at: usize) -> usize {
    at = copy(b"\"", out, at);
    let mut byte = 0;
    while byte < text.len() {
        at = match text[byte] {
            b'"' => copy(b"\\\"", out, at),
            b'\\' => copy(b"\\\\", out, at),
            b'\n' => copy(b"\\n", out, at),
            0..0x20 => at,
            other => copy(&[other], out, at),
        };
        byte += 1;
    }
    copy(b"\"", out, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_quoted_as_json_has_it() {
        let pieces = [Piece::Quoted("say \"hi\"\\\n\té"), Piece::List(&["a", "b\""]), Piece::List(&[])];
        assert_eq!(shown(&pieces), r#""say \"hi\"\\\né"["a","b\""][]"#);
        let whole: serde_json::Value = serde_json::from_str(&shown(&[Piece::Quoted("say \"hi\"\\\n")])).unwrap();
        assert_eq!(whole, "say \"hi\"\\\n");
    }
}
