use super::*;
use std::rc::Rc;

use crate::settings::Settings;
use crate::values::Values;

fn transformed(rules: &str, body: &str) -> Result<String, Obstacle> {
    let settings = format!("{{\"request\":{{\"body\":{rules}}}}}");
    let rules = portcullis_sdk::parse_config::<Settings>(settings.as_bytes()).unwrap().checked().unwrap();
    let pair = |name: &str, value: &str| (name.to_owned(), value.into());
    let request = vec![pair(":method", "GET"), pair(":path", "/a?q=x")];
    let values = Values { request, ..Values::default() };
    let scope = Scope { values: Rc::new(values), captures: Vec::new() };
    let mut document = serde_json::from_str(body).unwrap();
    rules.request[0].edits.iter().try_for_each(|edit| edit.apply(&mut document, &scope))?;
    Ok(document.to_string())
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
