//! Values as YAML that people read: blocks, plain words where YAML lets them stand, everything else in double quotes.
//!
//! JSON would do for Envoy, which takes it for YAML, but not for whoever has to review it. Values that are null are left out, as
//! protocol buffers do; JSON's escapes are YAML's too.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// One document.
pub(super) fn document(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(map) if !is_empty(value) => block_map(&mut text, map, 0, false),
        Value::Array(items) if !is_empty(value) => block_list(&mut text, items, 0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            text.push_str(&inline(value));
            text.push('\n');
        }
    }
    text
}

/// A stream of documents.
pub(super) fn documents(values: &[Value]) -> String {
    values.iter().map(document).collect::<Vec<_>>().join("---\n")
}

/// The entries of a mapping; the first goes on where the text is when the mapping is an item of a list.
fn block_map(text: &mut String, map: &Map<String, Value>, indent: usize, mut begun: bool) {
    for (key, value) in map.iter().filter(|(_, value)| !value.is_null()) {
        if !std::mem::take(&mut begun) {
            pad(text, indent);
        }
        text.push_str(&scalar(key));
        text.push(':');
        match value {
            Value::Object(map) if !is_empty(value) => {
                text.push('\n');
                block_map(text, map, indent + 1, false);
            }
            Value::Array(items) if !is_empty(value) => {
                text.push('\n');
                block_list(text, items, indent);
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                let _in_memory = writeln!(text, " {}", inline(value));
            }
        }
    }
}

fn block_list(text: &mut String, items: &[Value], indent: usize) {
    for item in items {
        pad(text, indent);
        text.push_str("- ");
        match item {
            Value::Object(map) if !is_empty(item) => block_map(text, map, indent + 1, true),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                let _in_memory = writeln!(text, "{}", inline(item));
            }
        }
    }
}

fn pad(text: &mut String, indent: usize) {
    text.extend(std::iter::repeat_n("  ", indent));
}

/// Whether nothing of it would be written.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.values().all(Value::is_null),
        Value::Array(items) => items.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// A value on one line.
fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        Value::Object(_) if is_empty(value) => "{}".to_owned(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// A string: plain where every reader of YAML, 1.1 or 1.2, takes it for one.
fn scalar(text: &str) -> String {
    const WORDS: [&str; 11] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "inf", "nan"];
    let first = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_' || first == '/');
    let plain = text.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-./".contains(letter));
    if first && plain && !WORDS.contains(&text.to_ascii_lowercase().as_str()) {
        return text.to_owned();
    }
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::config::yaml::read;
    use crate::diagnostic::Source;

    #[test]
    fn values_are_written_in_blocks_and_nulls_are_not() {
        let value = json!({
            "@type": "a.b/C", "name": "x", "none": null, "empty": {}, "hollow": { "a": null }, "list": [],
            "items": [{ "a": 1, "b": { "c": true } }, "0s", [1, "two"], {}], "word": "no",
        });
        expect![[r#"
            "@type": a.b/C
            empty: {}
            hollow: {}
            items:
            - a: 1
              b:
                c: true
            - "0s"
            - [1,"two"]
            - {}
            list: []
            name: x
            word: "no"
        "#]]
        .assert_eq(&document(&value));
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        let values = [
            json!({ "a": "line\nfeed \"quoted\" \\ \u{1} ü 𝄞 \u{2028}", "1": "1", "true": "True", "~": "" }),
            json!([{ "x": [{ "y": [[], {}, ["z: #"]] }] }, "- a", "k: v", "#", "/path/x.wasm", "1e3", "0x1f", ".5"]),
            json!({ "n": [1, -2, 1.5, true] }),
        ];
        for value in values {
            let source = Arc::new(Source { text: document(&value), ..Source::named(Path::new("a.yaml")) });
            assert_eq!(read(&source, &mut Vec::new()).unwrap().json(), value, "{}", source.text);
        }
    }
}
