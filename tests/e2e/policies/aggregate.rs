//! What the page about `aggregate` shows, over real sockets.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portcullis_tests::client::request;
use portcullis_tests::docs;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin, Seen};
use portcullis_tests::pieces::Gate;

use crate::plugins::code;

fn json(body: &str) -> Answer {
    Answer::ok(body.to_owned()).header("content-type", "application/json").header("cache-control", "max-age=60")
}

fn users(seen: &Seen) -> Answer {
    match seen.uri.path() {
        "/users/7" => json(r#"{"id":7,"name":"Ada","hash":"x"}"#),
        "/users/8" => json(r#"{"id":8,"name":"Bob"}"#),
        "/users/9" => Answer::ok("<p>"),
        _ => Answer::status(404).data("no such user"),
    }
}

fn orders(seen: &Seen) -> Answer {
    match seen.target() {
        "/orders?of=7" => json(r#"{"items":[{"id":1,"product":3},{"id":2,"product":4},{"id":5,"product":3}]}"#),
        _ => json(r#"{"items":[{"id":6,"product":5}]}"#),
    }
}

fn catalogue(seen: &Seen) -> Answer {
    match seen.uri.path() {
        "/products/3" => json(r#"{"sku":3,"name":"Lamp"}"#),
        "/products/4" => json(r#"{"sku":"4","name":"Desk"}"#),
        "/offers" => json(r#"["sale"]"#),
        _ => Answer::status(500),
    }
}

/// The example of the page: calls that need each other, one for each item of an array, joined to one reply.
#[test]
fn the_example_of_the_page_makes_one_reply_of_several_calls() {
    let origins = [Origin::start(users), Origin::start(orders), Origin::start(catalogue)];
    let at = origins.each_ref().map(Origin::to_string);
    let page = docs::page("docs/policies/aggregate.md");
    let printed = docs::configurations(&page).remove(0);
    let places = ["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"];
    let places: Vec<(&str, &str)> = places.into_iter().zip(at.iter().map(String::as_str)).collect();
    let gateway = Gateway::start(&docs::here(&printed, &places), &[]);
    let ask = |path: &str, fields: &[(&str, &str)]| gateway.ask("GET", path, fields, "");

    let whole = ask("/users/7/home", &[("authorization", "Bearer x"), ("cookie", "c")]);
    let want = concat!(
        r#"{"user":{"id":7,"name":"Ada"},"orders":{"items":[{"id":1,"product":{"sku":3,"name":"Lamp"}},"#,
        r#"{"id":2,"product":{"sku":"4","name":"Desk"}},{"id":5,"product":{"sku":3,"name":"Lamp"}}]},"offers":["sale"]}"#,
        "\n"
    );
    assert_eq!((whole.status(), whole.text().as_str()), (200, want));
    assert_eq!(whole.get("cache-control"), Some("max-age=60"));
    let seen: Vec<Seen> = origins.iter().flat_map(Origin::seen).collect();
    assert_eq!(seen.len(), 5, "the same product is asked for once: {seen:?}");
    assert!(seen.iter().all(|seen| seen.get("authorization") == Some("Bearer x") && seen.get("cookie").is_none()));

    let tag = whole.get("etag").unwrap().to_owned();
    let known = ask("/users/7/home", &[("if-none-match", &tag)]);
    assert_eq!((known.status(), known.text(), known.get("etag")), (304, String::new(), Some(tag.as_str())));
    let head = gateway.ask("HEAD", "/users/7/home", &[], "");
    assert_eq!((head.status(), head.get("etag")), (200, Some(tag.as_str())));

    let partial = ask("/users/8/home", &[]);
    let want = r#"{"user":{"id":8,"name":"Bob"},"orders":{"items":[{"id":6,"product":null}]},"offers":["sale"],"partial":["products"]}"#;
    assert_eq!((partial.status(), partial.text().trim_end()), (200, want));
    let fields = ["x-partial", "cache-control", "etag"].map(|name| partial.get(name));
    assert_eq!(fields, [Some("products"), Some("no-store"), None]);

    let nobody = ask("/users/1/home", &[]);
    assert_eq!(code(&nobody), (404, "call_refused".to_owned()));
    assert!(nobody.text().contains(r#""call":"user""#), "{}", nobody.text());
    assert_eq!(code(&ask("/users/9/home", &[])), (502, "call_failed".to_owned()));
    assert_eq!(code(&gateway.ask("POST", "/users/7/home", &[], "x")), (405, "method_not_allowed".to_owned()));
    let counted = |name: &str| gateway.metric("portcullis_guest_events_total", &[name]);
    assert_eq!(counted("aggregate_failed.products.status"), 1.0);
    assert_eq!(
        (counted("aggregate_composed"), counted("aggregate_partial"), counted("aggregate_refused")),
        (3.0, 1.0, 3.0)
    );
}

const FIVE: &str = r#"
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins: { aggregate: {guest:aggregate} }
filters:
  - plugin: aggregate
    config:
      endpoints:
        - path: /all
          calls:
            - { name: a, upstream: origin, path: /a }
            - { name: b, upstream: origin, path: /b }
            - { name: c, upstream: origin, path: /c }
            - { name: d, upstream: origin, path: /d }
            - { name: e, upstream: origin, path: /e }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#;

/// No call is answered before all have arrived: so they are made at the same time, or never answered.
#[test]
fn calls_that_need_nothing_are_under_way_together() {
    let (gate, arrived) = (Gate::default(), AtomicUsize::new(0));
    let origin = Origin::start(move |_| {
        if arrived.fetch_add(1, Ordering::SeqCst) + 1 == 5 {
            gate.open();
        }
        Answer::ok("1").after(&gate)
    });
    let gateway = Gateway::start(FIVE, &[("origin", &origin)]);
    let answer = gateway.get("/all");
    assert_eq!((answer.status(), answer.text().as_str()), (200, "{\"a\":1,\"b\":1,\"c\":1,\"d\":1,\"e\":1}\n"));
}

/// The last of five calls is answered when the others have been, and the reply follows as fast as the answer itself would have. A busy
/// machine only ever adds to that, so the least of many counts.
#[test]
fn the_reply_follows_the_slowest_call_at_once() {
    const ROUNDS: usize = 30;
    let gate = Arc::new(Mutex::new(Gate::default()));
    let held = Arc::clone(&gate);
    let body = format!("\"{}\"", "x".repeat(1022));
    let origin = Origin::start(move |seen| match seen.uri.path() {
        "/e" => json(&body).after(&held.lock().unwrap()),
        _ => json(&body),
    });
    let gateway = Gateway::start(FIVE, &[("origin", &origin)]);
    let mut client = gateway.client();
    let mut least = |path: &str, calls: usize| {
        let after_the_slowest = |_| {
            *gate.lock().unwrap() = Gate::default();
            let expected = origin.begun() + calls;
            client.send(request("GET", path, &[("host", "test")], ""));
            origin.wait_for(expected);
            let began = Instant::now();
            gate.lock().unwrap().open();
            assert_eq!(client.answer().status(), 200);
            began.elapsed()
        };
        (0..ROUNDS).map(after_the_slowest).min().unwrap()
    };
    let mut rounds = (0..5).map(|_| (least("/e", 1), least("/all", 5))).inspect(|(one, five)| {
        println!("one: {one:?}, five: {five:?}");
    });
    assert!(rounds.any(|(one, five)| five < one + Duration::from_millis(1)));
}
