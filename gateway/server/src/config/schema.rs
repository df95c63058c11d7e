//! The JSON Schema of a configuration: what `portcullis schema` prints, and what `shape` checks files against.
//!
//! It is schemars' schema of `file::File`, made simpler where that says things that a YAML configuration has no use for.
//! Two keywords are ours: `x-format` names a row of `written::FORMATS`, `x-explicit` marks a key that
//! must not be left without a value, since leaving it out means something else.

use serde_json::Value;

use super::file::File;

/// The schema of a configuration file.
#[must_use]
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(File).to_value();
    simplify(&mut schema);
    schema
}

fn simplify(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            without_null(object);
            without_idle_defaults(object);
            object.remove("format");
            object.values_mut().for_each(simplify);
        }
        Value::Array(items) => items.iter_mut().for_each(simplify),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// An absent key is left out, not written as `null`; an empty value counts as absent.
fn without_null(object: &mut serde_json::Map<String, Value>) {
    if let Some(Value::Array(types)) = object.get("type")
        && let [only, Value::String(null)] = types.as_slice()
        && null == "null"
    {
        let only = only.clone();
        object.insert("type".to_owned(), only);
    }
    if let Some(Value::Array(choices)) = object.get("anyOf")
        && let [Value::Object(only), Value::Object(null)] = choices.as_slice()
        && null.get("type").is_some_and(|kind| kind == "null")
    {
        let only = only.clone();
        object.remove("anyOf");
        object.extend(only);
    }
}

/// Defaults of what must be written, and defaults that say no more than "nothing".
fn without_idle_defaults(object: &mut serde_json::Map<String, Value>) {
    let required: Vec<Value> = object.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let Some(Value::Object(properties)) = object.get_mut("properties") else { return };
    for (name, property) in properties {
        let Value::Object(property) = property else { continue };
        let idle = match property.get("default") {
            Some(Value::Array(items)) => items.is_empty(),
            Some(Value::Object(entries)) => entries.is_empty(),
            default => default == Some(&Value::Null),
        };
        if idle || required.iter().any(|key| key == name) {
            property.remove("default");
        }
    }
}
