//! Bodies: what a message's head makes of its body, and what the rules make of a document.
//!
//! A body that cannot be transformed goes no further, in either direction: a rule may be there to take something out. So a
//! request gets 400, 413 or 415; a response becomes 502, or is cut off where its head has gone out already.

use portcullis_sdk::Headers;
use serde_json::Value;

use crate::obstacle::Obstacle;
use crate::pointer::Pointer;

/// Changes to a JSON document, in this order.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct BodyRules {
    pub(crate) remove: Vec<Pointer>,
    pub(crate) rename: Vec<(Pointer, Pointer)>,
    pub(crate) set: Vec<(Pointer, Value)>,
}

/// What stands in a head about its body.
#[derive(Debug, Default)]
pub(crate) struct Head {
    pub(crate) content_type: Vec<u8>,
    pub(crate) content_encoding: Vec<u8>,
    pub(crate) content_length: Option<Vec<u8>>,
}

impl Head {
    /// What a message's head says.
    pub(crate) fn of(headers: Headers<'_>) -> Self {
        let value = |name| headers.get(name).unwrap_or_default().into_bytes();
        Self {
            content_type: value("content-type"),
            content_encoding: value("content-encoding"),
            content_length: headers.get("content-length").map(portcullis_sdk::HeaderValue::into_bytes),
        }
    }

    /// Whether the body is JSON: then it is held back and transformed.
    pub(crate) fn is_json(&self) -> bool {
        let essence = self.content_type.split(|byte| *byte == b';').next().unwrap_or_default();
        let essence = essence.trim_ascii().to_ascii_lowercase();
        essence == b"application/json" || essence.ends_with(b"+json")
    }

    /// Whether a JSON body can be read as it will come.
    pub(crate) fn check(&self, max_bytes: usize) -> Result<(), Obstacle> {
        let encoding = self.content_encoding.trim_ascii();
        if !encoding.is_empty() && !encoding.eq_ignore_ascii_case(b"identity") {
            return Err(Obstacle::Encoded);
        }
        let length =
            self.content_length.as_ref().and_then(|length| std::str::from_utf8(length).ok()?.trim().parse().ok());
        check_size(length.unwrap_or(0), max_bytes)
    }
}

/// Whether that much may be held.
fn check_size(bytes: usize, max_bytes: usize) -> Result<(), Obstacle> {
    if bytes > max_bytes { Err(Obstacle::TooLarge) } else { Ok(()) }
}

/// A body as rules make it, one after another.
pub(crate) fn changed(rules: &[&BodyRules], body: &[u8]) -> Result<Vec<u8>, Obstacle> {
    let mut document: Value = serde_json::from_slice(body).map_err(|_| Obstacle::Malformed)?;
    for rules in rules {
        rules.apply(&mut document);
    }
    serde_json::to_vec(&document).map_err(|_| Obstacle::Malformed)
}

impl BodyRules {
    fn apply(&self, document: &mut Value) {
        for place in &self.remove {
            place.remove(document);
        }
        for (from, to) in &self.rename {
            rename(document, from, to);
        }
        for (place, value) in &self.set {
            place.set(document, value.clone());
        }
    }
}

/// Moves a value, unless there is no place for it: then it stays where it is.
fn rename(document: &mut Value, from: &Pointer, to: &Pointer) {
    let Some(value) = from.remove(document) else { return };
    let place = if to.is_free(document) { to } else { from };
    place.set(document, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn transformed(rules: &str, body: &str) -> Result<String, Obstacle> {
        let settings = format!("{{\"request\":{{\"body\":{rules}}}}}");
        let rules = portcullis_sdk::parse_config::<Settings>(settings.as_bytes()).unwrap().checked().unwrap();
        let body = changed(&[rules.request[0].body.as_ref().unwrap()], body.as_bytes())?;
        Ok(String::from_utf8(body).unwrap())
    }

    #[test]
    fn a_body_is_transformed_rule_by_rule() {
        for (rules, body, want) in [
            ("{}", r#"{ "b" : 1, "a" : 1.50 }"#, r#"{"b":1,"a":1.50}"#),
            ("{}", r#"{"id":123456789012345678901234567890}"#, r#"{"id":123456789012345678901234567890}"#),
            (r#"{"set":{"/a/b":[1,null]}}"#, "{}", r#"{"a":{"b":[1,null]}}"#),
            (r#"{"rename":{"/old":"/new"}}"#, r#"{"old":1,"x":2}"#, r#"{"x":2,"new":1}"#),
            (r#"{"rename":{"/old":"/x/y"}}"#, r#"{"x":2,"old":1}"#, r#"{"x":2,"old":1}"#),
            (r#"{"rename":{"/old":"/old/deeper"}}"#, r#"{"old":1}"#, r#"{"old":{"deeper":1}}"#),
            (r#"{"remove":["/secret"]}"#, r#"{"a":1,"secret":{"b":2},"c":3}"#, r#"{"a":1,"c":3}"#),
            (
                r#"{"remove":["/a"],"rename":{"/b":"/a"},"set":{"/b":"set"}}"#,
                r#"{"a":"old","b":"b"}"#,
                r#"{"a":"b","b":"set"}"#,
            ),
            (r#"{"set":{"/a":1}}"#, "[1]", "[1]"),
        ] {
            assert_eq!(transformed(rules, body).as_deref(), Ok(want), "{rules} {body}");
        }
    }

    #[test]
    fn what_is_not_one_json_document_is_malformed() {
        let deep = "[".repeat(100_000);
        for body in ["", "{", "{} {}", "nul", "\"\u{1}\"", deep.as_str()] {
            assert_eq!(transformed("{}", body), Err(Obstacle::Malformed));
        }
    }

    #[test]
    fn the_head_says_whether_the_body_is_json_and_can_be_read() {
        let head = |kind: &str, encoding: &str, length: Option<&str>| Head {
            content_type: kind.into(),
            content_encoding: encoding.into(),
            content_length: length.map(Into::into),
        };
        for (kind, want) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/problem+json", true),
            ("application/json-seq", false),
            ("text/plain", false),
            ("", false),
        ] {
            assert_eq!(head(kind, "", None).is_json(), want, "{kind}");
        }
        for (encoding, length, want) in [
            ("", None, Ok(())),
            ("identity", Some("10"), Ok(())),
            ("gzip", None, Err(Obstacle::Encoded)),
            ("", Some("11"), Err(Obstacle::TooLarge)),
            ("", Some("nonsense"), Ok(())),
        ] {
            assert_eq!(head("application/json", encoding, length).check(10), want, "{encoding} {length:?}");
        }
    }
}
