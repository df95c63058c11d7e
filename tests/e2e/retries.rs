//! Requests that are tried again: when that is asked for, when it is safe, and how much of it there may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use portcullis_tests::client::request;
use portcullis_tests::eventually;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::pieces::Gate;
use portcullis_tests::process::free_address;
use portcullis_tests::raw::RawOrigin;
use portcullis_tests::wire::Message;

const ONE: &str = r#"
upstreams: { origin: { endpoints: ["{origin}"], retries: {retries} } }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#;
const TWO: &str = r#"
upstreams: { pair: { endpoints: ["{one}", "{two}"], retries: {retries} } }
routes: [{ name: all, match: { path: "/*" }, upstream: pair }]
"#;

fn over(origin: &dyn std::fmt::Display, retries: &str) -> Gateway {
    Gateway::start(ONE, &[("origin", origin), ("retries", &retries)])
}

fn over_two(one: &dyn std::fmt::Display, two: &dyn std::fmt::Display, retries: &str) -> Gateway {
    Gateway::start(TWO, &[("one", one), ("two", two), ("retries", &retries)])
}

fn retried(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric("portcullis_upstream_retries_total", &[&format!("reason=\"{reason}\"")])
}

/// An origin that answers 503 so often, and then `ok`.
fn failing(times: usize) -> Origin {
    let asked = AtomicUsize::new(0);
    Origin::start(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        count if count < times => Answer::status(503).data("busy"),
        _ => Answer::ok("ok"),
    })
}

#[test]
fn a_status_is_tried_again_as_often_as_is_asked() {
    for retries in [
        "{ attempts: 2, on: [gateway_error] }",
        "{ attempts: 2, on: [5xx] }",
        "{ attempts: 2, on: [], statuses: [503] }",
    ] {
        let origin = failing(2);
        let gateway = over(&origin, retries);
        assert_eq!(gateway.get("/").text(), "ok", "{retries}");
        assert_eq!((origin.seen().len(), retried(&gateway, "status")), (3, 2.0), "{retries}");
        let origin = failing(3);
        let answer = over(&origin, retries).get("/");
        assert_eq!((answer.status(), answer.text().as_str()), (503, "busy"), "{retries}: the last answer is passed on");
    }
    let origin = failing(1);
    assert_eq!(over(&origin, "{ attempts: 2 }").get("/").status(), 503, "nobody asked for it");
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_routes_retries_replace_its_upstreams() {
    let origin = Origin::start(|_| Answer::status(503));
    let gateway = Gateway::start(
        r#"
upstreams: { origin: { endpoints: ["{origin}"], retries: { attempts: 1, on: [5xx] } } }
routes:
  - { name: all, match: { path: "/*" }, upstream: origin }
  - { name: none, match: { path: "/none" }, upstream: origin, retries: { attempts: 0 } }
  - { name: more, match: { path: "/more" }, upstream: origin, retries: { attempts: 3, on: [5xx], backoff: { base: 1ms, max: 2ms } } }
"#,
        &[("origin", &origin)],
    );
    for (path, want) in [("/", 2), ("/none", 1), ("/more", 4)] {
        let before = origin.seen().len();
        assert_eq!(gateway.get(path).status(), 503);
        assert_eq!(origin.seen().len() - before, want, "{path}");
    }
}

#[test]
fn only_what_cannot_happen_twice_is_repeated() {
    for (method, want) in [("GET", 2), ("PUT", 2), ("DELETE", 2), ("OPTIONS", 2), ("POST", 1), ("PATCH", 1)] {
        let origin = failing(1);
        let body = if matches!(method, "GET" | "DELETE" | "OPTIONS") { "" } else { "the body" };
        let answer = over(&origin, "{ attempts: 1, on: [5xx, reset] }").ask(method, "/", &[], body);
        let seen = origin.seen();
        assert_eq!((seen.len(), answer.status()), (want, if want == 2 { 200 } else { 503 }), "{method}");
        assert!(seen.iter().all(|request| request.body == body && request.complete), "{method}: {seen:?}");
    }
}

#[test]
fn a_body_is_repeated_while_it_is_small_through_filters_or_not() {
    for (filters, h2) in [("[]", false), ("[{ plugin: probe, config: \"\" }]", false), ("[]", true)] {
        for (size, want) in [(60 << 10, 2), (80 << 10, 1)] {
            let origin = failing(1);
            let gateway = Gateway::start(
                r#"
plugins: { probe: {guest:probe} }
filters: {filters}
upstreams: { origin: { endpoints: ["{origin}"], protocol: {protocol}, retries: { attempts: 1, on: [5xx] } } }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
                &[("origin", &origin), ("filters", &filters), ("protocol", &if h2 { "http2" } else { "http1" })],
            );
            let body = "0123456789abcdef".repeat(size / 16);
            let answer = gateway.ask("PUT", "/", &[], &body);
            let seen = origin.seen();
            let shown = format!("{size} bytes through {filters}, h2: {h2}");
            assert_eq!((seen.len(), answer.status()), (want, if want == 2 { 200 } else { 503 }), "{shown}");
            assert!(seen.iter().all(|request| request.body == body), "{shown}");
        }
    }
}

#[test]
fn a_chunked_body_with_trailers_is_repeated_whole() {
    let origin = failing(1);
    let gateway = over(&origin, "{ attempts: 1, on: [5xx] }");
    let mut client = gateway.client();
    client.send("PUT / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
    origin_begins(&origin);
    client.send("3\r\ndef\r\n0\r\n\r\n");
    assert_eq!(client.answer().text(), "ok");
    assert!(origin.seen().iter().all(|request| request.body == "abcdef"), "{:?}", origin.seen());
}

fn origin_begins(origin: &Origin) {
    eventually("the upload has begun", || origin.begun() > 0);
}

#[test]
fn another_endpoint_is_preferred() {
    let bad = Origin::start(|_| Answer::status(500));
    let good = Origin::always(Answer::ok("good"));
    let gateway = over_two(&bad, &good, "{ attempts: 1, on: [5xx] }");
    let mut client = gateway.client();
    for count in 0..10 {
        assert_eq!(client.get("/").text(), "good", "request {count}");
    }
    assert_eq!(bad.seen().len(), 5, "round robin still gives it its turns");
}

/// An origin that reads a request and drops the connection, so often; then it answers.
fn dropping(times: usize) -> (RawOrigin, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let origin = RawOrigin::start(move |wire, _| {
        while wire.message().is_ok() {
            if counted.fetch_add(1, Ordering::SeqCst) < times {
                return;
            }
            let _gone = wire.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    (origin, asked)
}

#[test]
fn a_broken_connection_is_tried_again_only_where_that_is_asked_for() {
    for (retries, method, want, times) in [
        ("{ attempts: 2, on: [reset] }", "GET", 200, 3),
        ("{ attempts: 1, on: [reset] }", "GET", 502, 2),
        ("{ attempts: 2, on: [reset] }", "POST", 502, 1),
        ("{ attempts: 2, on: [connect_failure] }", "GET", 502, 1),
        ("{}", "GET", 502, 1),
    ] {
        let (origin, asked) = dropping(2);
        let gateway = over(&origin, retries);
        let answer = gateway.ask(method, "/", &[], "");
        assert_eq!((answer.status(), asked.load(Ordering::SeqCst)), (want, times), "{retries} {method}");
    }
}

#[test]
fn a_malformed_answer_is_tried_again_elsewhere() {
    let bad = RawOrigin::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc");
    let good = Origin::always(Answer::ok("good"));
    let gateway = over_two(&bad, &good, "{ attempts: 1, on: [reset] }");
    let mut client = gateway.client();
    for _ in 0..4 {
        assert_eq!(client.get("/").text(), "good");
    }
    assert!(retried(&gateway, "reset") > 0.0);
}

#[test]
fn a_try_that_takes_too_long_is_tried_elsewhere() {
    let stuck = Origin::always(Answer::ok("late").after(&Gate::default()));
    let good = Origin::always(Answer::ok("good"));
    let gateway = over_two(&stuck, &good, "{ attempts: 1, on: [timeout], per_try_timeout: 3s }");
    let mut client = gateway.client();
    for _ in 0..4 {
        assert_eq!(client.get("/").text(), "good");
    }
    assert_eq!((stuck.begun(), retried(&gateway, "timeout")), (2, 2.0), "every other one");
}

/// Every connection answers one request and promises more; the next request on it is read, and the connection dropped: as if it
/// had been closed just before.
fn stale() -> (RawOrigin, Arc<AtomicUsize>) {
    let lost = Arc::new(AtomicUsize::new(0));
    let counted = lost.clone();
    let origin = RawOrigin::start(move |wire, _| {
        let _request = wire.message();
        let _gone = wire.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        if wire.message().is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (origin, lost)
}

#[test]
fn a_request_lost_on_a_stale_connection_is_sent_again_only_when_safe() {
    for (method, body, want) in
        [("GET", "", 200), ("PUT", "body", 200), ("DELETE", "", 200), ("POST", "body", 502), ("POST", "", 502)]
    {
        let (origin, lost) = stale();
        let gateway = Gateway::in_front_of(&origin, "[]");
        let mut client = gateway.client();
        assert_eq!(client.get("/").status(), 200);
        let began = Instant::now();
        eventually("the connection has been unused for a while", || began.elapsed() > Duration::from_millis(80));
        let answer: Message = client.ask(method, "/", &[], body);
        assert_eq!((answer.status(), lost.load(Ordering::SeqCst)), (want, 1), "{method}");
        let again = if want == 200 { 1.0 } else { 0.0 };
        assert_eq!(retried(&gateway, "stale_connection"), again, "{method}");
    }
}

#[test]
fn retries_are_kept_within_their_budget() {
    let origin = Origin::start(|_| Answer::status(503));
    let gateway = over(&origin, "{ attempts: 3, on: [5xx], budget: { percent: 0, min: 0 } }");
    assert_eq!(gateway.get("/").status(), 503);
    assert_eq!(origin.seen().len(), 1);
    assert_eq!(gateway.metric("portcullis_upstream_retry_budget_exhausted_total", &[]), 1.0);
}

#[test]
fn a_request_that_is_being_tried_again_takes_its_place_in_the_budget() {
    let gate = Gate::default();
    let (held, asked) = (gate.clone(), AtomicUsize::new(0));
    let origin = Origin::start(move |seen| match seen.target() {
        "/held" if asked.fetch_add(1, Ordering::SeqCst) == 1 => Answer::ok("late").after(&held),
        _ => Answer::status(503),
    });
    let policy = "{ attempts: 1, on: [5xx], backoff: { base: 1ms, max: 1ms }, budget: { percent: 0, min: 1 } }";
    let gateway = over(&origin, policy);
    let mut client = gateway.client();
    client.send(request("GET", "/held", &[], ""));
    origin.wait_for(2);
    assert_eq!(gateway.get("/").status(), 503);
    assert_eq!(origin.seen().len(), 3, "there is room for one retry, and it is taken");
    gate.open();
    assert_eq!(client.answer().text(), "late");
    assert_eq!(gateway.get("/").status(), 503);
    assert_eq!(origin.seen().len(), 5, "there is room again");
}

#[test]
fn the_last_failure_is_the_one_that_is_reported() {
    let nobody = free_address();
    let gateway = over(&nobody, "{ attempts: 2, on: [connect_failure, reset, 5xx], backoff: { base: 1ms, max: 5ms } }");
    let answer = gateway.get("/");
    assert_eq!((answer.status(), answer.text().contains("\"upstream_connect\"")), (503, true));
    assert_eq!(gateway.metric("portcullis_upstream_connect_failures_total", &[]), 3.0);
}

#[test]
fn a_client_that_breaks_its_upload_off_costs_no_endpoint_its_place() {
    for protocol in ["http1", "http2"] {
        let origin = Origin::plain();
        let gateway = Gateway::start(
            r#"
upstreams: { origin: { endpoints: ["{origin}"], protocol: {protocol} } }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
            &[("origin", &origin), ("protocol", &protocol)],
        );
        for count in 1..=5 {
            let mut client = gateway.client();
            client.send("POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
            eventually("the upload has begun", || origin.begun() >= count);
            client.send("no chunk\r\n");
            assert_eq!(client.answer().status(), 400, "{protocol}");
        }
        assert_eq!(gateway.metric("portcullis_upstream_ejections_total", &[]), 0.0, "{protocol}");
    }
}

#[test]
fn a_malformed_answer_does_not_take_its_endpoint_out_at_once() {
    let origin = RawOrigin::answering("HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok");
    let gateway = over(&origin, "{}");
    assert!((0..4).all(|_| gateway.get("/").status() == 502));
    assert_eq!(gateway.metric("portcullis_upstream_ejections_total", &[]), 0.0);
    assert_eq!(gateway.get("/").status(), 502);
    assert_eq!(gateway.metric("portcullis_upstream_ejections_total", &[]), 1.0, "five in a row do");
}
