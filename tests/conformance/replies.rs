//! §7.4 and §7.5, local responses and closing.

use portcullis_tests::origin::Origin;

use crate::guest::{gateway, pairs};

/// A request-headers callback that does this and answers `action`.
fn on_request(body: &str, action: i32) -> String {
    format!(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {body} (i32.const {action}))"#
    )
}

fn reply(status: i32, body: &str, fields: &[(&str, &str)]) -> String {
    let fields = if fields.is_empty() { "''".to_owned() } else { format!("'{}'", pairs(fields)) };
    format!("(drop (call $reply (i32.const {status}) 'some words' '{body}' {fields} (i32.const -1)))")
}

#[test]
fn a_local_response_is_composed_as_envoy_composes_it() {
    for (status, body, fields, want) in [
        (200, "", &[][..], (200, "", Some("0"), None)),
        (403, "no", &[], (403, "no", Some("2"), Some("text/plain"))),
        (
            403,
            "{}",
            &[("content-type", "application/json"), ("content-length", "99")],
            (403, "{}", Some("2"), Some("application/json")),
        ),
        (201, "x", &[(":status", "500")], (201, "x", Some("1"), Some("text/plain"))),
        (204, "dropped", &[], (204, "", None, None)),
        // Below 200 is no answer; §7.4 leaves open what to make of it.
        (99, "x", &[], (500, "x", Some("1"), Some("text/plain"))),
    ] {
        let origin = Origin::plain();
        for action in [0, 1] {
            let gateway = gateway(&origin, &on_request(&reply(status, body, fields), action));
            let answer = gateway.get("/");
            let got = (answer.status(), answer.text(), answer.get("content-length"), answer.get("content-type"));
            assert_eq!(
                (got.0, got.1.as_str(), got.2, got.3),
                (want.0, want.1, want.2, want.3),
                "{status} {body}, then {action}"
            );
        }
        assert_eq!(origin.begun(), 0, "what the callback answers makes no difference");
    }
}

#[test]
fn of_two_local_responses_in_one_callback_the_first_is_sent() {
    let origin = Origin::plain();
    let both = format!("{} {}", reply(401, "one", &[]), reply(402, "two", &[]));
    let answer = gateway(&origin, &on_request(&both, 0)).get("/");
    assert_eq!((answer.status(), answer.text().as_str()), (401, "one"));
}

#[test]
fn a_local_response_wins_over_going_on() {
    let origin = Origin::plain();
    let both = format!("{} (drop (call $continue (i32.const 0)))", reply(401, "one", &[]));
    assert_eq!(gateway(&origin, &on_request(&both, 1)).get("/").status(), 401);
    assert_eq!(origin.begun(), 0);
}

#[test]
fn a_filter_sees_the_response_it_made_itself() {
    let origin = Origin::plain();
    let guest = on_request(&reply(401, "one", &[]), 1)
        + r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
               (call $add (i32.const 2) 'x-decorated' '1') (i32.const 0))"#;
    let answer = gateway(&origin, &guest).get("/");
    assert_eq!((answer.status(), answer.get("x-decorated")), (401, Some("1")));
}

#[test]
fn grpc_requests_get_their_answer_in_grpcs_form() {
    let origin = Origin::plain();
    let gateway = gateway(&origin, &on_request(&reply(403, "not you", &[]), 1));
    let answer = gateway.h2().ask("POST", "/h2/s/m", &[("content-type", "application/grpc")], []).unwrap();
    assert_eq!(
        (answer.status, answer.get("grpc-status"), answer.get("grpc-message")),
        (200, Some("7"), Some("not you"))
    );
}

#[test]
fn going_on_inside_the_callback_that_pauses_is_going_on() {
    let origin = Origin::plain();
    assert_eq!(gateway(&origin, &on_request("(drop (call $continue (i32.const 0)))", 1)).get("/").status(), 200);
    // §12.7: the response has not begun; Envoy crashes here.
    assert_eq!(gateway(&origin, &on_request("(drop (call $continue (i32.const 1)))", 0)).get("/").status(), 200);
}

#[test]
fn closing_leaves_the_client_without_an_answer() {
    let origin = Origin::plain();
    for kind in [0, 1] {
        let gateway = gateway(&origin, &on_request(&format!("(drop (call $close (i32.const {kind})))"), 0));
        let mut client = gateway.client();
        client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
        assert!(client.0.is_closed(), "{kind}");
    }
    // 2 and 3 are for TCP and do nothing here.
    assert_eq!(gateway(&origin, &on_request("(drop (call $close (i32.const 2)))", 0)).get("/").status(), 200);
}
