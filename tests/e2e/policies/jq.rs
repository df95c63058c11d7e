//! The page's configuration in front of an origin that says back what it got.

use portcullis_tests::docs;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};

use crate::plugins::code;

const ORDERS: &str =
    r#"{"orders":[{"id":1,"customer":"a","secret":9},{"id":2,"customer":"b"},{"id":3,"customer":"a"}]}"#;
const JSON: (&str, &str) = ("content-type", "application/json");

/// As `docs/policies/jq.md` prints it.
fn gateway(origin: &Origin) -> Gateway {
    let printed = docs::configurations(&docs::page("docs/policies/jq.md")).remove(0);
    Gateway::start(&docs::here(&printed, &[("127.0.0.1:9000", &*origin.to_string())]), &[])
}

#[test]
fn bodies_are_what_the_page_s_programs_make_of_them() {
    let origin = Origin::always(Answer::ok(ORDERS).header(JSON.0, JSON.1).header("etag", "\"v1\""));
    let gateway = gateway(&origin);
    let body = r#"{"items":[{"id":7,"price":2,"count":3,"x":1}]}"#;
    let answer = gateway.ask("POST", "/", &[JSON, ("x-user", "ann"), ("accept-encoding", "gzip")], body);
    assert_eq!(answer.text(), r#"{"orders":[{"customer":"a","orders":[1,3]},{"customer":"b","orders":[2]}]}"#);
    assert_eq!((answer.get("etag"), answer.get("content-length")), (None, Some("74")));
    let seen = origin.last();
    assert_eq!(&*seen.body, br#"{"items":[{"id":7,"total":6}],"by":"ann"}"#);
    assert_eq!(seen.get("accept-encoding"), None);
    assert_eq!(gateway.metric("portcullis_guest_events_total", &["jq_bodies.response"]), 1.0);
}

#[test]
fn a_body_that_a_program_fails_for_goes_no_further() {
    let origin = Origin::always(Answer::ok("5").header(JSON.0, JSON.1));
    let gateway = gateway(&origin);
    let ask = |body: &str| code(&gateway.ask("POST", "/", &[JSON], body));
    assert_eq!(ask(r#"{"items":[]}"#), (400, "program_failed".to_owned()));
    assert_eq!(ask("{"), (400, "body_malformed".to_owned()));
    assert_eq!(origin.begun(), 0);
    let good = r#"{"items":[{"id":7,"price":2,"count":3}]}"#;
    assert_eq!(ask(good), (502, "program_failed".to_owned()), "the answer has no orders");
    assert_eq!(gateway.metric("portcullis_guest_events_total", &["jq_refused.program_failed"]), 2.0);
}
