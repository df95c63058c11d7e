//! Forms (`application/x-www-form-urlencoded`, WHATWG URL §5) as objects: a field that is there several times is a list.

use plugin_common::percent;
use serde_json::{Map, Value};

use crate::document;
use crate::target::decoded;

/// An object of texts and lists of texts; none if the form is not text.
pub(crate) fn read(body: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(body).ok()?;
    let mut fields: Map<String, Value> = Map::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        document::add(&mut fields, decoded(name), Value::String(decoded(value)));
    }
    Some(Value::Object(fields))
}

/// The form of an object whose fields are texts, numbers, truth values, nulls, which are left out, or lists of such.
pub(crate) fn write(document: &Value) -> Option<Vec<u8>> {
    let mut form = String::new();
    for (name, value) in document.as_object()? {
        let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for item in items {
            let text = match item {
                Value::Null => continue,
                Value::String(text) => text.clone(),
                Value::Bool(_) | Value::Number(_) => item.to_string(),
                Value::Array(_) | Value::Object(_) => return None,
            };
            if !form.is_empty() {
                form.push('&');
            }
            percent::encode(name, &mut form);
            form.push('=');
            percent::encode(&text, &mut form);
        }
    }
    Some(form.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_an_object_and_the_other_way_round() {
        for (form, json, back) in [
            ("", "{}", ""),
            ("a=1&b=x+y%26", r#"{"a":"1","b":"x y&"}"#, "a=1&b=x%20y%26"),
            ("a=1&a=2&a=&b", r#"{"a":["1","2",""],"b":""}"#, "a=1&a=2&a=&b="),
            ("%C3%A9=%zz&&", r#"{"é":"%zz"}"#, "%C3%A9=%25zz"),
        ] {
            let document = read(form.as_bytes()).unwrap();
            assert_eq!(document.to_string(), json, "{form}");
            assert_eq!(write(&document).unwrap(), back.as_bytes(), "{form}");
        }
        let written =
            |json: &str| write(&serde_json::from_str(json).unwrap()).map(|form| String::from_utf8(form).unwrap());
        assert_eq!(written(r#"{"a":1.50,"b":true,"c":null,"d":[1,null]}"#).as_deref(), Some("a=1.50&b=true&d=1"));
        for refused in [r#"{"a":{}}"#, r#"{"a":[[1]]}"#, "[]", "1"] {
            assert_eq!(written(refused), None, "{refused}");
        }
        assert_eq!(read(b"\xff"), None);
    }
}
