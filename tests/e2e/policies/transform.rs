//! The page's configuration in front of an origin that says back what it got.

use portcullis_tests::docs;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::pieces::Gate;
use serde_json::{Value, json};

use crate::plugins::code;

/// As `docs/policies/transform.md` prints it.
fn gateway(origin: &Origin) -> Gateway {
    let printed = docs::configurations(&docs::page("docs/policies/transform.md")).remove(0);
    Gateway::start(&docs::here(&printed, &[("127.0.0.1:9000", &*origin.to_string())]), &[])
}

fn orders() -> Answer {
    let items = r#"{"items":[{"mail":"a@b","card":"4111111111111111","secret":1}]}"#;
    Answer::ok(items).header("content-type", "application/json").header("etag", "\"v1\"")
}

#[test]
fn requests_are_rewritten_as_the_page_says() {
    let origin = Origin::always(orders());
    let gateway = gateway(&origin);
    let fields = [("content-type", "application/json"), ("x-old", "1"), ("x-internal-a", "1"), ("x-debug", "1")];
    let body = r#"{"internal":true,"old":1.50}"#;
    let answer = gateway.ask("PATCH", "/v1/orders/a%20b?debug=1&q=x+y", &fields, body);
    assert_eq!(answer.get("x-answered"), Some("PATCH /v1/orders/a%20b 200"));
    let seen = origin.last();
    assert_eq!((seen.method.as_str(), seen.target()), ("PUT", "/orders/a%20b?query=x+y"));
    let told = ["x-old", "x-new", "x-internal-a", "x-debug", "x-region", "x-who"].map(|name| seen.get(name));
    assert_eq!(told, [None, Some("1"), None, None, Some("eu"), Some("nobody")]);
    assert_eq!(&*seen.body, br#"{"new":1.50,"checked":true,"id":"a b"}"#);
    assert_eq!(gateway.ask("GET", "/legacy/a/b", &[], "").status(), 200);
    assert_eq!(origin.last().target(), "/new?was=a%2Fb");
    let form = [("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(gateway.ask("POST", "/", &form, "a=1&a=2&b=x+y").status(), 200);
    let seen = origin.last();
    assert_eq!(seen.get("content-type"), Some("application/json"));
    assert_eq!(serde_json::from_slice::<Value>(&seen.body).unwrap(), json!({"a": ["1", "2"], "b": "x y"}));
    let begun = origin.begun();
    let refused = gateway.ask("POST", "/", &[("content-type", "application/json")], "{");
    assert_eq!((code(&refused), origin.begun()), ((400, "body_malformed".to_owned()), begun));
}

#[test]
fn responses_are_edited_for_those_whom_the_condition_names() {
    let origin = Origin::start(|seen| if seen.uri.path() == "/500" { Answer::status(500) } else { orders() });
    let gateway = gateway(&origin);
    let answer = gateway.get("/v1/orders/7");
    assert_eq!(answer.text(), r#"{"items":[{"email":"a@b","card":"************1111","currency":"EUR"}]}"#);
    let length = answer.body.len().to_string();
    assert_eq!((answer.get("etag"), answer.get("content-length")), (None, Some(length.as_str())));
    let admin = gateway.ask("GET", "/v1/orders/7", &[("x-role", "admin")], "");
    assert!(admin.text().contains("4111111111111111") && admin.get("etag").is_some(), "{}", admin.text());
    let failed = gateway.get("/500");
    assert_eq!((failed.status(), failed.get("retry-after")), (503, Some("5")));
    assert_eq!(gateway.metric("portcullis_guest_events_total", &["transform_bodies.response"]), 1.0);
}

#[test]
fn an_event_is_edited_before_the_next_has_come() {
    let gate = Gate::default();
    let after = gate.clone();
    let origin = Origin::start(move |_| {
        let answer = Answer::ok("id: 1\ndata: {\"n\":1,\"debug\":{}}\n").header("content-type", "text/event-stream");
        answer.data("\ndata: {\"n\"").wait(&after).data(":2}\n\n")
    });
    let gateway = gateway(&origin);
    let h2 = gateway.h2();
    let mut body = h2.begin("/events").into_body();
    let mut came = String::new();
    while !came.ends_with("\n\n") {
        came.push_str(std::str::from_utf8(&h2.data(&mut body).unwrap().unwrap()).unwrap());
    }
    assert_eq!(came, "id: 1\ndata: {\"n\":1}\n\n");
    gate.open();
    while let Ok(Some(data)) = h2.data(&mut body) {
        came.push_str(std::str::from_utf8(&data).unwrap());
    }
    assert_eq!(came, "id: 1\ndata: {\"n\":1}\n\ndata: {\"n\":2}\n\n");
}
