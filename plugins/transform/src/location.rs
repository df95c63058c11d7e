//! Where a value is in a document: the keys and indices on the way to it.

use serde_json::{Map, Value};

/// A step on the way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Index(usize),
    Key(String),
}

/// All steps from the document's root. It may have become wrong since it was found: then nothing is there.
pub(crate) type Location = Vec<Step>;

pub(crate) fn get<'d>(document: &'d Value, at: &[Step]) -> Option<&'d Value> {
    at.iter().try_fold(document, |value, step| match (value, step) {
        (Value::Object(fields), Step::Key(key)) => fields.get(key),
        (Value::Array(items), Step::Index(index)) => items.get(*index),
        _ => None,
    })
}

pub(crate) fn get_mut<'d>(document: &'d mut Value, at: &[Step]) -> Option<&'d mut Value> {
    at.iter().try_fold(document, |value, step| match (value, step) {
        (Value::Object(fields), Step::Key(key)) => fields.get_mut(key),
        (Value::Array(items), Step::Index(index)) => items.get_mut(*index),
        _ => None,
    })
}

/// Takes them all away, from the last to the first, so that no index shifts before its turn. The root itself stays.
pub(crate) fn remove_all(document: &mut Value, mut all: Vec<Location>) {
    all.sort_unstable();
    all.dedup();
    for at in all.iter().rev() {
        let Some((last, parents)) = at.split_last() else { continue };
        match (get_mut(document, parents), last) {
            // Not `remove`: that one would put the last field in its place.
            (Some(Value::Object(fields)), Step::Key(key)) => _ = fields.shift_remove(key),
            (Some(Value::Array(items)), Step::Index(index)) if *index < items.len() => _ = items.remove(*index),
            _ => {}
        }
    }
}

/// Gives a field another name in its place. A field that had the name is gone.
pub(crate) fn rename(document: &mut Value, at: &[Step], name: &str) {
    let Some((Step::Key(key), parents)) = at.split_last() else { return };
    let Some(Value::Object(fields)) = get_mut(document, parents) else { return };
    if key == name || !fields.contains_key(key) {
        return;
    }
    let named = |(own, value): (String, Value)| match () {
        () if own == *key => Some((name.to_owned(), value)),
        () if own == name => None,
        () => Some((own, value)),
    };
    *fields = std::mem::take(fields).into_iter().filter_map(named).collect();
}

/// A tree of locations: what is to be kept of a document.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    whole: bool,
    parts: std::collections::BTreeMap<Step, Kept>,
}

impl Kept {
    pub(crate) fn insert(&mut self, at: &[Step]) {
        match at.split_first() {
            None => self.whole = true,
            Some((step, rest)) => self.parts.entry(step.clone()).or_default().insert(rest),
        }
    }

    /// The document without the rest. Lists close up.
    pub(crate) fn of(&self, value: Value) -> Value {
        if self.whole {
            return value;
        }
        match value {
            Value::Object(fields) => {
                let kept = |(key, value): (String, Value)| {
                    let step = Step::Key(key);
                    let kept = self.parts.get(&step)?;
                    let Step::Key(key) = step else { return None };
                    Some((key, kept.of(value)))
                };
                Value::Object(fields.into_iter().filter_map(kept).collect::<Map<_, _>>())
            }
            Value::Array(items) => {
                let kept = |(index, item)| Some(self.parts.get(&Step::Index(index))?.of(item));
                Value::Array(items.into_iter().enumerate().filter_map(kept).collect())
            }
            plain @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => plain,
        }
    }
}
