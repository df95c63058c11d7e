//! Places in JSON documents: JSON Pointers (RFC 6901) in which `*` is every item of an array.
//!
//! A place that is not there is none: whatever is done to it leaves the document as it is.

use std::borrow::Cow;

use plugin_common::pointer::unescaped;

use crate::json::text::{fields, items, quoted};
use crate::json::{Json, field, in_one_form};

/// A place in a document, or one in every item of an array. `""` is the whole document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pointer(pub(crate) Vec<Token>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// A field of an object, or the index of an item.
    Key(Key),
    /// Every item of an array.
    Every,
}

/// A field of an object, or the index of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// As documents have it.
    pub(crate) quoted: String,
    pub(crate) index: Option<usize>,
}

impl Pointer {
    /// # Errors
    /// Says how a pointer is written.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a JSON Pointer such as /user/name or /items/*/id");
        if text.is_empty() {
            return Ok(Self::default());
        }
        let tokens = text.strip_prefix('/').ok_or_else(wrong)?.split('/');
        tokens.map(|token| Token::parse(token).ok_or_else(wrong)).collect::<Result<_, _>>().map(Self)
    }

    /// The place that these names lead to.
    pub(crate) fn to(names: &[&str]) -> Self {
        Self(names.iter().map(|name| Token::named(name)).collect())
    }

    /// Its names, in quotes, where it has no `*`.
    pub(crate) fn names(&self) -> Option<Vec<String>> {
        self.0.iter().map(|token| token.key().map(|key| key.quoted.clone())).collect()
    }

    /// What is there: a value, or the array of the values in every item.
    pub(crate) fn get<'t>(&self, document: &Json<'t>) -> Option<Json<'t>> {
        let mut found = Vec::new();
        each(&self.0, document, &mut |value| found.push(value))?;
        if self.0.contains(&Token::Every) { Some(Json::Array(found)) } else { found.pop() }
    }

    /// Does something to each value there.
    pub(crate) fn change<'t>(&self, document: &mut Json<'t>, change: &mut dyn FnMut(&mut Json<'t>)) {
        change_in(&self.0, document, change);
    }

    /// Does something to whatever holds the value there, with the name it has in it.
    pub(crate) fn change_holder<'t>(&self, document: &mut Json<'t>, change: &mut dyn FnMut(&mut Json<'t>, &Token)) {
        if let Some((last, holders)) = self.0.split_last() {
            change_in(holders, document, &mut |holder| change(holder.open(), last));
        }
    }
}

impl Token {
    fn parse(token: &str) -> Option<Self> {
        if token == "*" {
            return Some(Self::Every);
        }
        unescaped(token).map(|name| Self::named(&name))
    }

    fn named(name: &str) -> Self {
        Self::Key(Key { quoted: quoted(name), index: index(name) })
    }

    pub(crate) fn key(&self) -> Option<&Key> {
        match self {
            Self::Key(key) => Some(key),
            Self::Every => None,
        }
    }
}

impl Key {
    /// Whether a field has this name, which is in quotes, however it is escaped.
    fn names(&self, name: &str) -> bool {
        self.quoted == name || name.contains('\\') && in_one_form(name) == self.quoted
    }
}

/// Nothing where the first `*` does not stand for an array.
fn each<'t>(tokens: &[Token], value: &Json<'t>, found: &mut dyn FnMut(Json<'t>)) -> Option<()> {
    let Some((first, rest)) = tokens.split_first() else {
        found(value.clone());
        return Some(());
    };
    match (first, value) {
        (Token::Key(key), Json::Written(Cow::Borrowed(text))) => each(rest, &Json::of(part(text, key)?), found)?,
        (Token::Key(key), Json::Object(fields)) => {
            each(rest, &fields.iter().find(|field| field.name == key.quoted)?.value, found)?;
        }
        (Token::Key(key), Json::Array(items)) => each(rest, items.get(key.index?)?, found)?,
        (Token::Every, Json::Array(items)) => items.iter().for_each(|item| _ = each(rest, item, found)),
        (Token::Every, Json::Written(Cow::Borrowed(text))) if text.starts_with('[') => {
            items(text).for_each(|item| _ = each(rest, &Json::of(item), found));
        }
        (Token::Every | Token::Key(_), _) => return None,
    }
    Some(())
}

/// A part of an array, or of an object: of several fields with the name the last.
fn part<'t>(text: &'t str, key: &Key) -> Option<&'t str> {
    match text.as_bytes().first()? {
        b'{' => fields(text).filter(|(name, _)| key.names(name)).last().map(|(_, value)| value),
        b'[' => items(text).nth(key.index?),
        _ => None,
    }
}

fn change_in<'t>(tokens: &[Token], value: &mut Json<'t>, change: &mut dyn FnMut(&mut Json<'t>)) {
    let Some((first, rest)) = tokens.split_first() else { return change(value) };
    match (first, value.open()) {
        (Token::Key(key), Json::Object(fields)) => {
            if let Some(field) = field(fields, &key.quoted) {
                change_in(rest, &mut field.value, change);
            }
        }
        (Token::Key(key), Json::Array(items)) => {
            if let Some(item) = key.index.and_then(|at| items.get_mut(at)) {
                change_in(rest, item, change);
            }
        }
        (Token::Every, Json::Array(items)) => {
            items.iter_mut().for_each(|item| change_in(rest, item, change));
        }
        (Token::Key(_) | Token::Every, _) => {}
    }
}

/// An array index as RFC 6901 §4 writes it: no sign, no leading zero.
fn index(key: &str) -> Option<usize> {
    let plain = key == "0" || !key.starts_with('0') && key.bytes().all(|byte| byte.is_ascii_digit());
    key.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"{"a": {"b/c": 1}, "l": [{"x": 1}, {"y": 2}, {"x": [3, 4]}], "": 5, "\u0061b": 6, "l": [{"x": 1}, {"y": 2}, {"x": [3, 4]}]}"#;

    #[test]
    fn a_pointer_finds_one_value_or_those_of_every_item() {
        for (pointer, want) in [
            ("", Some(DOCUMENT)),
            ("/a/b~1c", Some("1")),
            ("/ab", Some("6")),
            ("/", Some("5")),
            ("/l/2/x/1", Some("4")),
            ("/l/02", None),
            ("/l/9", None),
            ("/a/z", None),
            ("/l/*/x", Some("[1,[3, 4]]")),
            ("/l/*/x/*", Some("[3,4]")),
            ("/a/*", None),
            ("/z/*", None),
        ] {
            let pointer = Pointer::parse(pointer).unwrap();
            let found = |document: &Json<'_>| pointer.get(document).map(|found| found.to_text());
            let mut document = Json::of(DOCUMENT);
            assert_eq!(found(&document).as_deref(), want, "{pointer:?}");
            if pointer.0.is_empty() {
                continue;
            }
            // What is opened has the same in the same places.
            pointer.change(&mut document, &mut |_| {});
            assert_eq!(found(&document).as_deref(), want, "{pointer:?}");
        }
        for wrong in ["a", "a/b", "/~", "/~2"] {
            assert!(Pointer::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_there_is_changed_and_nothing_else() {
        let document = r#"{"a":1,"l":[{"x":1},{"y":2},3]}"#;
        for (pointer, want) in [
            ("/l/*/x", r#"{"a":1,"l":[{"x":null},{"y":2},3]}"#),
            ("/l/2", r#"{"a":1,"l":[{"x":1},{"y":2},null]}"#),
            ("/a/b", document),
            ("", "null"),
        ] {
            let mut changed = Json::of(document);
            Pointer::parse(pointer).unwrap().change(&mut changed, &mut |value| *value = Json::NULL);
            assert_eq!(changed.to_text(), want, "{pointer}");
        }
    }
}
