//! The manifest, as tools read it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The custom section that has it. Named in `sdk/guest` too; a test of the plugins keeps the two the same.
pub(crate) const SECTION: &str = "portcullis";

/// The VM configuration of a module whose heads are held while it reads bodies: its SDK cannot ask the host.
pub const HOLDS_HEADERS: &[u8] = br#"{"holds_headers":true}"#;

/// The same on Portcullis, which also lets a filter give a body to a message without one, and add to one that has ended.
pub const HOLDS_HEADERS_HERE: &[u8] = br#"{"holds_headers":true,"adds_bodies":true}"#;

/// What a module says of itself.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Manifest {
    /// The manifest's own version: 1.
    pub manifest: u32,
    /// The plugin's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it does, in one sentence.
    #[serde(default)]
    pub description: String,
    /// The SDK's version.
    pub sdk: String,
    /// Whose bodies it touches: `request`, `response`.
    #[serde(default)]
    pub bodies: Vec<String>,
    /// Whether it changes heads after it has read bodies.
    #[serde(default)]
    pub holds_headers: bool,
    /// Whether it wants to know how exchanges ended.
    #[serde(default)]
    pub logs: bool,
    /// What it makes known to later filters.
    #[serde(default)]
    pub provides: Vec<String>,
    /// What earlier filters have to make known.
    #[serde(default)]
    pub requires: Vec<String>,
    /// The JSON Schema of its settings.
    #[serde(default)]
    pub schema: Value,
}

/// The settings of a schema that name upstreams, as JSON Pointers with `*` for any item.
#[must_use]
pub fn upstreams(schema: &Value) -> Vec<String> {
    let mut found = Vec::new();
    visit(schema, "", &mut found);
    found.sort();
    found.dedup();
    found
}

fn visit(schema: &Value, at: &str, found: &mut Vec<String>) {
    if schema.get("format").and_then(Value::as_str) == Some("portcullis-upstream") {
        found.push(at.to_owned());
    }
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        visit(property, &format!("{at}/{name}"), found);
    }
    for inside in ["items", "additionalProperties"] {
        if let Some(item) = schema.get(inside) {
            visit(item, &format!("{at}/*"), found);
        }
    }
    for choice in ["allOf", "anyOf"] {
        let choices = schema.get(choice).and_then(Value::as_array).into_iter().flatten();
        choices.for_each(|one| visit(one, at, found));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_are_found_wherever_settings_have_them() {
        let schema = serde_json::json!({"properties": {
            "a": {"allOf": [{"type": "string", "format": "portcullis-upstream"}]},
            "b": {"type": "string"},
            "parts": {"items": {"anyOf": [{"properties": {"to": {"format": "portcullis-upstream"}}}, {"const": "x"}]}},
            "map": {"additionalProperties": {"format": "portcullis-upstream"}},
        }});
        assert_eq!(upstreams(&schema), ["/a", "/map/*", "/parts/*/to"]);
    }
}
