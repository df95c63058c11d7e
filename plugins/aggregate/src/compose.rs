//! The reply, out of the results of calls.
//!
//! Where every result has a place of its own and nothing is done to the whole, the reply is written from the texts of the results
//! as they came: that is the usual case, and costs no more than copying. Otherwise it is put together as a value, in the order of
//! the calls. Both make the same document.

use std::borrow::Cow;
use std::cell::OnceCell;

use serde_json::{Map, Value};

use crate::outcome::{Document, Outcome};
use crate::plan::{Call, Place, Reply};
use crate::shape;

/// How the reply is put together.
#[derive(Debug, PartialEq)]
pub(crate) enum Layout {
    /// As text.
    Written(Fields),
    /// As a value.
    Built,
}

/// The fields of an object, with their names as JSON has them.
type Fields = Vec<(String, Branch)>;

/// What stands in a field.
#[derive(Debug, PartialEq)]
pub(crate) enum Branch {
    /// The result of a call.
    Result(usize),
    /// An object.
    Fields(Fields),
}

/// Why there is no reply out of results that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// It would be longer than it may.
    TooLarge,
    /// The result of this call cannot stand where it should: there is no object, or it is none.
    Place(usize),
}

impl Layout {
    /// Of these calls, in a reply that is itself shaped or not.
    pub(crate) fn of(calls: &[Call], is_shaped: bool) -> Self {
        let mut fields = Vec::new();
        for (at, call) in calls.iter().enumerate() {
            match &call.place {
                Place::Nowhere => {}
                Place::At(keys) if !is_shaped && add(&mut fields, keys, at) => {}
                Place::At(_) | Place::Merged => return Self::Built,
            }
        }
        if is_shaped { Self::Built } else { Self::Written(fields) }
    }
}

/// False where another result is in the way.
fn add(fields: &mut Fields, keys: &[String], call: usize) -> bool {
    let Some((first, rest)) = keys.split_first() else { return false };
    let quoted = Value::from(first.as_str()).to_string();
    match (fields.iter_mut().find(|(name, _)| *name == quoted), rest.is_empty()) {
        (Some((_, Branch::Fields(inner))), false) => add(inner, rest, call),
        (Some(_), _) => false,
        (None, true) => {
            fields.push((quoted, Branch::Result(call)));
            true
        }
        (None, false) => {
            let mut inner = Vec::new();
            let added = add(&mut inner, rest, call);
            fields.push((quoted, Branch::Fields(inner)));
            added
        }
    }
}

/// The reply's document, out of what came of the calls; `failed` are the names of those that failed.
pub(crate) fn composed(
    reply: &Reply,
    calls: &[Call],
    outcomes: &[OnceCell<Outcome>],
    failed: &[&str],
) -> Result<String, Unfit> {
    let results = calls.iter().zip(outcomes).map(|(call, outcome)| result(call, outcome.get(), reply.max_bytes));
    let results: Vec<Option<Cow<'_, Document>>> = results.collect::<Result<_, _>>()?;
    let mark = reply.partial.as_deref().filter(|_| !failed.is_empty()).map(|name| (name, Value::from(failed)));
    let mut text = match &reply.layout {
        Layout::Written(fields) => {
            // Added up before anything is copied; names and brackets are counted below.
            let size: usize = results.iter().flatten().map(|result| result.text().len()).sum();
            if size > reply.max_bytes {
                return Err(Unfit::TooLarge);
            }
            let mut text = String::with_capacity(size + 32 * calls.len());
            write(fields, &results, mark, &mut text);
            text
        }
        Layout::Built => {
            let mut document = built(calls, results)?;
            shape::apply(&reply.shape, &mut document, reply.max_bytes).map_err(|_| Unfit::TooLarge)?;
            if let (Some((name, failed)), Value::Object(fields)) = (mark, &mut document) {
                fields.shift_remove(name);
                fields.insert(name.to_owned(), failed);
            }
            document.to_string()
        }
    };
    text.push('\n');
    if text.len() > reply.max_bytes { Err(Unfit::TooLarge) } else { Ok(text) }
}

/// What a call has for the reply. A stand-in is what its author wants to see there, so nothing is done to it.
fn result<'o>(call: &Call, outcome: Option<&'o Outcome>, room: usize) -> Result<Option<Cow<'o, Document>>, Unfit> {
    let Some(outcome) = outcome.filter(|_| call.place != Place::Nowhere) else { return Ok(None) };
    if let Outcome::Answered { document, .. } = outcome
        && !call.shape.is_empty()
    {
        let mut value = document.value().clone();
        shape::apply(&call.shape, &mut value, room).map_err(|_| Unfit::TooLarge)?;
        return Ok(Some(Cow::Owned(value.into())));
    }
    Ok(outcome.document().map(Cow::Borrowed))
}

/// An object with these fields, of which those without a result are left out. Whether it has any.
fn write(
    fields: &[(String, Branch)],
    results: &[Option<Cow<'_, Document>>],
    mark: Option<(&str, Value)>,
    text: &mut String,
) -> bool {
    let begin = text.len();
    text.push('{');
    let mut is_first = true;
    for (name, branch) in fields {
        let before = text.len();
        if !is_first {
            text.push(',');
        }
        text.push_str(name);
        text.push(':');
        let has = match branch {
            Branch::Result(call) => match results.get(*call).and_then(Option::as_ref) {
                Some(result) => {
                    text.push_str(result.text());
                    true
                }
                None => false,
            },
            Branch::Fields(inner) => write(inner, results, None, text),
        };
        if has { is_first = false } else { text.truncate(before) }
    }
    if let Some((name, failed)) = mark {
        let comma = if is_first { "" } else { "," };
        text.push_str(&format!("{comma}{}:{failed}", Value::from(name)));
    }
    text.push('}');
    text.len() > begin + 2
}

fn built(calls: &[Call], results: Vec<Option<Cow<'_, Document>>>) -> Result<Value, Unfit> {
    let mut document = Map::new();
    for (at, (call, result)) in calls.iter().zip(results).enumerate() {
        let Some(result) = result else { continue };
        let value = match result {
            Cow::Borrowed(result) => result.value().clone(),
            Cow::Owned(result) => result.into_value(),
        };
        match (&call.place, value) {
            (Place::Nowhere, _) => {}
            (Place::Merged, Value::Object(fields)) => document.extend(fields),
            (Place::Merged, _) => return Err(Unfit::Place(at)),
            (Place::At(keys), value) => put(&mut document, keys, value).ok_or(Unfit::Place(at))?,
        }
    }
    Ok(Value::Object(document))
}

/// Makes the objects that are missing on the way; nothing where something else is in it.
fn put(fields: &mut Map<String, Value>, keys: &[String], value: Value) -> Option<()> {
    let (first, rest) = keys.split_first()?;
    if rest.is_empty() {
        fields.insert(first.clone(), value);
        return Some(());
    }
    let inner = fields.entry(first.clone()).or_insert_with(|| Value::Object(Map::new()));
    put(inner.as_object_mut()?, rest, value)
}
