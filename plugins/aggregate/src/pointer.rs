//! Places in JSON documents: JSON Pointers (RFC 6901) in which `*` is every item of an array.
//!
//! A place that is not there is none: whatever is done to it leaves the document as it is.

use std::borrow::Cow;

use plugin_common::pointer::unescaped;
use serde_json::Value;

/// A place in a document, or one in every item of an array. `""` is the whole document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pointer(pub(crate) Vec<Token>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// A field of an object, or the index of an item.
    Key(String),
    /// Every item of an array.
    Every,
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

    /// Its names, where it has no `*`.
    pub(crate) fn keys(&self) -> Option<Vec<&str>> {
        let key = |token: &Token| match token {
            Token::Key(_) => true,
            Token::Every => false,
        };
        self.0.iter().all(key).then(|| self.0.iter().filter_map(Token::key).collect())
    }

    /// What is there: a value, or the array of the values in every item.
    pub(crate) fn get<'v>(&self, document: &'v Value) -> Option<Cow<'v, Value>> {
        if self.0.contains(&Token::Every) {
            let mut found = Vec::new();
            every(&self.0, document, &mut |value| found.push(value.clone()))?;
            return Some(Cow::Owned(Value::Array(found)));
        }
        let value = self.0.iter().try_fold(document, |value, token| child(value, token.key()?))?;
        Some(Cow::Borrowed(value))
    }

    /// Does something to each value there.
    pub(crate) fn change(&self, document: &mut Value, change: &mut dyn FnMut(&mut Value)) {
        change_in(&self.0, document, change);
    }

    /// Does something to whatever holds the value there, with the name it has in it.
    pub(crate) fn change_holder(&self, document: &mut Value, change: &mut dyn FnMut(&mut Value, &Token)) {
        if let Some((last, holders)) = self.0.split_last() {
            change_in(holders, document, &mut |holder| change(holder, last));
        }
    }
}

impl Token {
    fn parse(token: &str) -> Option<Self> {
        if token == "*" {
            return Some(Self::Every);
        }
        unescaped(token).map(Self::Key)
    }

    pub(crate) fn key(&self) -> Option<&str> {
        match self {
            Self::Key(key) => Some(key),
            Self::Every => None,
        }
    }
}

fn child<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    match value {
        Value::Object(fields) => fields.get(key),
        Value::Array(items) => items.get(index(key)?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// Nothing where the first `*` does not stand for an array.
fn every<'v>(tokens: &[Token], value: &'v Value, found: &mut dyn FnMut(&'v Value)) -> Option<()> {
    match tokens.split_first() {
        None => found(value),
        Some((Token::Key(key), rest)) => every(rest, child(value, key)?, found)?,
        Some((Token::Every, rest)) => {
            for item in value.as_array()? {
                _ = every(rest, item, found);
            }
        }
    }
    Some(())
}

fn change_in(tokens: &[Token], value: &mut Value, change: &mut dyn FnMut(&mut Value)) {
    match (tokens.split_first(), value) {
        (None, value) => change(value),
        (Some((Token::Key(key), rest)), Value::Object(fields)) => {
            if let Some(value) = fields.get_mut(key) {
                change_in(rest, value, change);
            }
        }
        (Some((Token::Key(key), rest)), Value::Array(items)) => {
            if let Some(value) = index(key).and_then(|at| items.get_mut(at)) {
                change_in(rest, value, change);
            }
        }
        (Some((Token::Every, rest)), Value::Array(items)) => {
            items.iter_mut().for_each(|item| change_in(rest, item, change));
        }
        (Some(_), _) => {}
    }
}

/// An array index as RFC 6901 §4 writes it: no sign, no leading zero.
pub(crate) fn index(key: &str) -> Option<usize> {
    let plain = key == "0" || !key.starts_with('0') && key.bytes().all(|byte| byte.is_ascii_digit());
    key.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pointer_finds_one_value_or_those_of_every_item() {
        let document = json!({"a": {"b/c": 1}, "l": [{"x": 1}, {"y": 2}, {"x": [3, 4]}], "": 5});
        for (pointer, want) in [
            ("", Some(document.clone())),
            ("/a/b~1c", Some(json!(1))),
            ("/", Some(json!(5))),
            ("/l/2/x/1", Some(json!(4))),
            ("/l/02", None),
            ("/l/9", None),
            ("/a/z", None),
            ("/l/*/x", Some(json!([1, [3, 4]]))),
            ("/l/*/x/*", Some(json!([3, 4]))),
            ("/a/*", None),
            ("/z/*", None),
        ] {
            let found = Pointer::parse(pointer).unwrap().get(&document).map(Cow::into_owned);
            assert_eq!(found, want, "{pointer}");
        }
        for wrong in ["a", "a/b", "/~", "/~2"] {
            assert!(Pointer::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_there_is_changed_and_nothing_else() {
        for (pointer, want) in [
            ("/l/*/x", json!({"a": 1, "l": [{"x": 0}, {"y": 2}, 3]})),
            ("/l/2", json!({"a": 1, "l": [{"x": 1}, {"y": 2}, 0]})),
            ("/a/b", json!({"a": 1, "l": [{"x": 1}, {"y": 2}, 3]})),
            ("", json!(0)),
        ] {
            let mut document = json!({"a": 1, "l": [{"x": 1}, {"y": 2}, 3]});
            Pointer::parse(pointer).unwrap().change(&mut document, &mut |value| *value = json!(0));
            assert_eq!(document, want, "{pointer}");
        }
    }
}
