//! JSON Pointer (RFC 6901): reading, writing and removing one place of a document.

use plugin_common::pointer::unescaped;
use serde_json::map::Entry;
use serde_json::{Map, Value};

use crate::location::{Location, Step};

/// A place in a document, never the document itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pointer {
    parents: Vec<String>,
    last: String,
}

impl Pointer {
    /// # Errors
    /// Says how a pointer is written.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a JSON Pointer such as /user/name");
        let mut tokens =
            text.strip_prefix('/').ok_or_else(wrong)?.split('/').map(|token| unescaped(token).ok_or_else(wrong));
        let mut parents = tokens.by_ref().collect::<Result<Vec<_>, _>>()?;
        let last = parents.pop().ok_or_else(wrong)?;
        Ok(Self { parents, last })
    }

    /// Where the value is, if it is there.
    pub(crate) fn location(&self, document: &Value) -> Option<Location> {
        let (mut location, mut place) = (Location::new(), document);
        for token in self.parents.iter().chain([&self.last]) {
            let step;
            (step, place) = match place {
                Value::Object(fields) => (Step::Key(token.clone()), fields.get(token)?),
                Value::Array(items) => {
                    let at = index(token)?;
                    (Step::Index(at), items.get(at)?)
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
            };
            location.push(step);
        }
        Some(location)
    }

    /// Takes the value out, if it is there.
    pub(crate) fn remove(&self, document: &mut Value) -> Option<Value> {
        let parent = self.parents.iter().try_fold(document, |value, token| child(value, token))?;
        match parent {
            // Not `remove`: that one would put the last field in its place.
            Value::Object(fields) => fields.shift_remove(&self.last),
            Value::Array(items) => {
                let at = index(&self.last).filter(|at| *at < items.len())?;
                Some(items.remove(at))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        }
    }

    /// Puts a value there, making the objects on the way that are missing. `-` is the end of a list.
    ///
    /// False where something other than an object or a list is in the way.
    pub(crate) fn set(&self, document: &mut Value, value: Value) -> bool {
        let Some(parent) = self.parents.iter().try_fold(document, |value, token| child_or_new(value, token)) else {
            return false;
        };
        match parent {
            Value::Object(fields) => {
                fields.insert(self.last.clone(), value);
                true
            }
            Value::Array(items) if self.last == "-" => {
                items.push(value);
                true
            }
            Value::Array(items) => match index(&self.last).and_then(|at| items.get_mut(at)) {
                Some(item) => {
                    *item = value;
                    true
                }
                None => false,
            },
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        }
    }

    /// Whether [`Self::set`] would find a place.
    pub(crate) fn is_free(&self, document: &Value) -> bool {
        let mut place = document;
        for token in &self.parents {
            place = match place {
                Value::Object(fields) => match fields.get(token) {
                    Some(value) => value,
                    None => return true,
                },
                Value::Array(items) => match index(token).and_then(|at| items.get(at)) {
                    Some(value) => value,
                    None => return false,
                },
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return false,
            };
        }
        match place {
            Value::Object(_) => true,
            Value::Array(items) => self.last == "-" || index(&self.last).is_some_and(|at| at < items.len()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        }
    }
}

fn child<'a>(value: &'a mut Value, token: &str) -> Option<&'a mut Value> {
    match value {
        Value::Object(fields) => fields.get_mut(token),
        Value::Array(items) => items.get_mut(index(token)?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn child_or_new<'a>(value: &'a mut Value, token: &str) -> Option<&'a mut Value> {
    let Value::Object(fields) = value else { return child(value, token) };
    match fields.entry(token) {
        Entry::Occupied(field) => Some(field.into_mut()),
        Entry::Vacant(field) => Some(field.insert(Value::Object(Map::new()))),
    }
}

/// An array index as RFC 6901 §4 writes it: no sign, no leading zero.
fn index(token: &str) -> Option<usize> {
    let plain = token == "0" || !token.starts_with('0') && token.bytes().all(|byte| byte.is_ascii_digit());
    token.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_put_where_the_pointer_says_or_nowhere() {
        for (document, pointer, want) in [
            (r#"{"a":1}"#, "/b", r#"{"a":1,"b":0}"#),
            (r#"{"a":1,"b":2}"#, "/a", r#"{"a":0,"b":2}"#),
            (r#"{}"#, "/a/b/c", r#"{"a":{"b":{"c":0}}}"#),
            (r#"{"a":[1,2]}"#, "/a/1", r#"{"a":[1,0]}"#),
            (r#"{"a":[1,2]}"#, "/a/-", r#"{"a":[1,2,0]}"#),
            (r#"{"a":[1,2]}"#, "/a/2", r#"{"a":[1,2]}"#),
            (r#"{"a":[1,2]}"#, "/a/01", r#"{"a":[1,2]}"#),
            (r#"{"a":[1,2]}"#, "/a/+1", r#"{"a":[1,2]}"#),
            (r#"{"a":[{"b":1}]}"#, "/a/0/b", r#"{"a":[{"b":0}]}"#),
            (r#"{"a":"text"}"#, "/a/b", r#"{"a":"text"}"#),
            (r#"{}"#, "/", r#"{"":0}"#),
            (r#"{}"#, "/a~1b~0c", r#"{"a/b~c":0}"#),
            (r#"[1]"#, "/0", "[0]"),
            (r#""text""#, "/a", r#""text""#),
        ] {
            let (mut value, pointer) = (serde_json::from_str(document).unwrap(), Pointer::parse(pointer).unwrap());
            let free = pointer.is_free(&value);
            assert_eq!(pointer.set(&mut value, Value::from(0)), free, "{pointer:?} {document}");
            assert_eq!(value.to_string(), want, "{pointer:?}");
        }
    }

    #[test]
    fn a_value_is_taken_out_if_it_is_there() {
        for (document, pointer, want) in [
            (r#"{"a":1,"b":2,"c":3}"#, "/b", r#"{"a":1,"c":3}"#),
            (r#"{"a":{"b":1}}"#, "/a/b", r#"{"a":{}}"#),
            (r#"{"a":[1,2,3]}"#, "/a/1", r#"{"a":[1,3]}"#),
            (r#"{"a":[1]}"#, "/a/-", r#"{"a":[1]}"#),
            (r#"{"a":[1]}"#, "/a/9", r#"{"a":[1]}"#),
            (r#"{"a":1}"#, "/x/y", r#"{"a":1}"#),
            (r#"3"#, "/a", "3"),
        ] {
            let mut value = serde_json::from_str(document).unwrap();
            Pointer::parse(pointer).unwrap().remove(&mut value);
            assert_eq!(value.to_string(), want, "{pointer}");
        }
    }

    #[test]
    fn text_that_is_no_pointer_is_refused() {
        for text in ["", "a", "a/b", "/a~", "/a~2", "#/a"] {
            assert!(Pointer::parse(text).is_err(), "{text}");
        }
    }
}
