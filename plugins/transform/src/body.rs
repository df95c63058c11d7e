//! Bodies: what a message's head makes of its body, and what the rules make of a document.
//!
//! A body that cannot be transformed goes no further, in either direction: a rule may be there to take something out. So a
//! request gets 400, 413 or 415; a response becomes 502, or is cut off where its head has gone out already.

use portcullis_sdk::Headers;
use serde_json::Value;

use crate::edit::Edit;
use crate::obstacle::Obstacle;
use crate::values::Scope;

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

/// A body as edits make it, one after another.
pub(crate) fn changed(edits: &[(&Edit, &Scope<'_>)], body: &[u8]) -> Result<Vec<u8>, Obstacle> {
    let mut document: Value = serde_json::from_slice(body).map_err(|_| Obstacle::Malformed)?;
    edits.iter().try_for_each(|(edit, scope)| edit.apply(&mut document, scope))?;
    serde_json::to_vec(&document).map_err(|_| Obstacle::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use crate::values::Values;

    fn transformed(rules: &str, body: &str) -> Result<String, Obstacle> {
        let settings = format!("{{\"request\":{{\"body\":{rules}}}}}");
        let rules = portcullis_sdk::parse_config::<Settings>(settings.as_bytes()).unwrap().checked().unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.into());
        let request = vec![pair(":method", "GET"), pair(":path", "/a?q=x")];
        let values = Values { request, ..Values::default() };
        let scope = Scope { values: &values, captures: Vec::new() };
        let edits: Vec<_> = rules.request[0].edits.iter().map(|edit| (edit, &scope)).collect();
        let body = changed(&edits, body.as_bytes())?;
        Ok(String::from_utf8(body).unwrap())
    }

    #[test]
    fn a_body_is_transformed_rule_by_rule() {
        for (rules, body, want) in [
            ("{}", r#"{ "b" : 1, "a" : 1.50 }"#, r#"{"b":1,"a":1.50}"#),
            ("{}", r#"{"id":123456789012345678901234567890}"#, r#"{"id":123456789012345678901234567890}"#),
            (r#"{"set":{"/a/b":[1,null]}}"#, "{}", r#"{"a":{"b":[1,null]}}"#),
            (r#"{"move":{"/old":"/new"}}"#, r#"{"old":1,"x":2}"#, r#"{"x":2,"new":1}"#),
            (r#"{"move":{"/old":"/x/y"}}"#, r#"{"x":2,"old":1}"#, r#"{"x":2,"old":1}"#),
            (r#"{"move":{"/old":"/old/deeper"}}"#, r#"{"old":1}"#, r#"{"old":{"deeper":1}}"#),
            (r#"{"remove":["/secret"]}"#, r#"{"a":1,"secret":{"b":2},"c":3}"#, r#"{"a":1,"c":3}"#),
            (r#"{"remove":["$..id","$.a[0,2]"]}"#, r#"{"a":[1,{"id":2,"x":3},4],"id":5}"#, r#"{"a":[{"x":3}]}"#),
            (r#"{"remove":["$"]}"#, r#"{"a":1}"#, r#"{"a":1}"#),
            (r#"{"rename":{"/a":"z"}}"#, r#"{"a":1,"b":2,"z":3}"#, r#"{"z":1,"b":2}"#),
            (r#"{"rename":{"$..a":"b"}}"#, r#"{"a":{"a":[{"a":1}]}}"#, r#"{"b":{"b":[{"b":1}]}}"#),
            (r#"{"copy":{"/a":"/b/c"}}"#, r#"{"a":[1]}"#, r#"{"a":[1],"b":{"c":[1]}}"#),
            (
                r#"{"copy":{"$.l[*].id":"/ids"}}"#,
                r#"{"l":[{"id":1},{"id":2}]}"#,
                r#"{"l":[{"id":1},{"id":2}],"ids":[1,2]}"#,
            ),
            (r#"{"default":{"/a":0,"/b/c":0}}"#, r#"{"a":null}"#, r#"{"a":null,"b":{"c":0}}"#),
            (r#"{"default":{"$.l[*].n":0}}"#, r#"{"l":[{"n":1},{},3]}"#, r#"{"l":[{"n":1},{"n":0},3]}"#),
            (r#"{"set":{"$.l[*].n":0}}"#, r#"{"l":[{"n":1},{},3]}"#, r#"{"l":[{"n":0},{"n":0},3]}"#),
            (r#"{"set":{"$.l[*]":0}}"#, r#"{"l":[1,[2]]}"#, r#"{"l":[0,0]}"#),
            (
                r#"{"set":{"/m":"${request.method}","/q":["${request.query.q}"],"/n":"${request.query.none}"}}"#,
                "{}",
                r#"{"m":"GET","q":["x"]}"#,
            ),
            (
                r#"{"pick":["/b","$.l[*].id"]}"#,
                r#"{"a":1,"b":{"c":2},"l":[{"id":1,"x":2},3]}"#,
                r#"{"b":{"c":2},"l":[{"id":1}]}"#,
            ),
            (
                r#"{"redact":["$..password"]}"#,
                r#"{"u":{"password":{"x":1}},"password":"p"}"#,
                r#"{"u":{"password":"***"},"password":"***"}"#,
            ),
            (
                r#"{"mask":{"$.c[*]":4}}"#,
                r#"{"c":["4111111111111111","12345",null,1234567890]}"#,
                r#"{"c":["************1111","*****","***","******7890"]}"#,
            ),
            (r#"{"unwrap":"/data","wrap":"result"}"#, r#"{"data":[1]}"#, r#"{"result":[1]}"#),
            (r#"{"unwrap":"/none"}"#, r#"{"data":1}"#, r#"{"data":1}"#),
            (
                r#"{"each":{"/l":{"remove":["/x"],"each":{"/m":[{"set":{"/y":1}},{"wrap":"w"}]}}}}"#,
                r#"{"l":[{"x":1,"m":[{}]},2]}"#,
                r#"{"l":[{"m":[{"w":{"y":1}}]},2]}"#,
            ),
            (
                r#"[{"set":{"/b":"first"}},{"remove":["/a"],"rename":{"/b":"a"},"set":{"/b":"set"}}]"#,
                r#"{"a":"old"}"#,
                r#"{"a":"first","b":"set"}"#,
            ),
            (r#"{"set":{"/a":1}}"#, "[1]", "[1]"),
        ] {
            assert_eq!(transformed(rules, body).as_deref(), Ok(want), "{rules} {body}");
        }
    }

    #[test]
    fn a_query_may_not_cost_too_much() {
        let body = format!("[{}1]", "[1,1,1,1,1,1,1,1,1],".repeat(20_000));
        assert_eq!(transformed(r#"{"remove":["$..x"]}"#, &body), Err(Obstacle::Complex));
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
