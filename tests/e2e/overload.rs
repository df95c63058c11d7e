//! Upstreams under too much load, and endpoints that are left alone: limits, ejection, health checks, names.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use portcullis_tests::client::request;
use portcullis_tests::eventually;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::pieces::Gate;
use portcullis_tests::wire::Message;
use serde_json::Value;

fn code(answer: &Message) -> (u16, String) {
    let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    (answer.status(), problem["code"].as_str().unwrap_or_default().to_owned())
}

fn overloaded() -> (u16, String) {
    (503, "upstream_overloaded".to_owned())
}

/// An origin that keeps requests under `/held` until the gate opens, and a gateway that asks it for only so much.
fn limited(limits: &str) -> (Gate, Origin, Gateway) {
    limited_with(limits, "60s")
}

/// The same; nobody waits for a connection for longer than this.
fn limited_with(limits: &str, connect: &str) -> (Gate, Origin, Gateway) {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::start(move |seen| {
        let answer = Answer::ok("ok");
        if seen.target() == "/held" { answer.after(&held) } else { answer }
    });
    let gateway = Gateway::start(
        r#"
upstreams:
  origin: { endpoints: ["{origin}"], limits: {limits}, timeouts: { connect: {connect} } }
  other: { endpoints: ["{origin}"] }
routes:
  - { name: all, match: { path: "/*" }, upstream: origin }
  - { name: other, match: { path: /other }, upstream: other }
"#,
        &[("origin", &origin), ("limits", &limits), ("connect", &connect)],
    );
    (gate, origin, gateway)
}

#[test]
fn requests_beyond_the_limit_are_refused_and_others_are_not() {
    let (gate, origin, gateway) = limited("{ requests: 2 }");
    let mut held = [gateway.client(), gateway.client()];
    for client in &mut held {
        client.send(request("GET", "/held", &[], ""));
    }
    origin.wait_for(2);
    assert_eq!(code(&gateway.get("/")), overloaded());
    assert_eq!(gateway.get("/other").text(), "ok");
    assert_eq!(gateway.metric("portcullis_upstream_overloaded_total", &["limit=\"requests\""]), 1.0);
    gate.open();
    assert!(held.iter_mut().all(|client| client.answer().text() == "ok"));
    eventually("there is room again", || gateway.get("/").status() == 200);
}

#[test]
fn a_response_counts_until_its_body_has_ended() {
    let gate = Gate::default();
    let origin = Origin::always(Answer::status(200).data("a").wait(&gate).data("b"));
    let gateway = Gateway::start(
        r#"
upstreams: { origin: { endpoints: ["{origin}"], limits: { requests: 1 } } }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", &origin)],
    );
    let mut client = gateway.client();
    client.send(request("GET", "/", &[], ""));
    let head = client.0.head().unwrap();
    assert_eq!(code(&gateway.get("/")), overloaded());
    gate.open();
    assert_eq!(client.0.body(head).text(), "ab");
    eventually("there is room again", || gateway.get("/").status() == 200);
    // A client that leaves gives its place back, too.
    let gate = Gate::default();
    let origin = Origin::always(Answer::ok("late").after(&gate));
    let gateway = Gateway::start(
        r#"
upstreams: { origin: { endpoints: ["{origin}"], limits: { requests: 1 } } }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", &origin)],
    );
    let mut client = gateway.client();
    client.send(request("GET", "/", &[], ""));
    origin.wait_for(1);
    assert_eq!(code(&gateway.get("/")), overloaded());
    drop(client);
    gate.open();
    eventually("there is room again", || gateway.get("/").status() == 200);
}

#[test]
fn requests_wait_in_line_for_a_connection() {
    let (gate, origin, gateway) = limited("{ connections: 1 }");
    let mut held = gateway.client();
    held.send(request("GET", "/held", &[], ""));
    origin.wait_for(1);
    let mut waiting: Vec<_> = (0..5).map(|_| gateway.client()).collect();
    for client in &mut waiting {
        client.send(request("GET", "/", &[], ""));
    }
    assert_eq!(gateway.get("/other").text(), "ok", "an upstream of its own");
    gate.open();
    assert_eq!(held.answer().text(), "ok");
    assert!(waiting.iter_mut().all(|client| client.answer().text() == "ok"));
    let over = |count: usize| {
        origin.seen().iter().filter(|seen| seen.target() != "/other" && seen.connection == count).count()
    };
    assert_eq!(over(1), 6, "all over one connection: {:?}", origin.seen());
    assert_eq!(gateway.metric("portcullis_upstream_connections_open", &["upstream=\"origin\""]), 1.0);
}

#[test]
fn a_line_has_an_end_and_nobody_stands_in_it_for_ever() {
    let (gate, origin, gateway) = limited_with("{ connections: 1, pending: 1 }", "2s");
    let mut held = gateway.client();
    held.send(request("GET", "/held", &[], ""));
    origin.wait_for(1);
    let mut waiting = gateway.client();
    waiting.send(request("GET", "/", &[], ""));
    eventually("the line is full", || code(&gateway.get("/")) == overloaded());
    assert_eq!(code(&waiting.answer()), overloaded(), "after the time that a connection may take");
    let counted = |limit: &str| gateway.metric("portcullis_upstream_overloaded_total", &[limit]);
    assert!(counted("limit=\"pending\"") >= 1.0 && counted("limit=\"connections\"") >= 1.0);
    gate.open();
    assert_eq!(held.answer().text(), "ok");
    assert_eq!(gateway.get("/").text(), "ok");
}

#[test]
fn a_connection_that_is_lost_makes_room() {
    let origin = portcullis_tests::raw::RawOrigin::start(|wire, _| {
        let _request = wire.message();
        let _gone = wire.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
    });
    let gateway = Gateway::start(
        r#"
upstreams: { origin: { endpoints: ["{origin}"], limits: { connections: 1 } } }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", &origin)],
    );
    let mut client = gateway.client();
    for count in 0..10 {
        assert_eq!(client.get("/").text(), "ok", "request {count}");
    }
}

#[test]
fn an_endpoint_that_keeps_failing_is_left_alone() {
    let bad = Origin::start(|_| Answer::status(503).data("bad"));
    let good = Origin::always(Answer::ok("good"));
    let gateway = Gateway::start(
        r#"
upstreams: { pair: { endpoints: ["{bad}", "{good}"], ejection: { errors: 3, first: 30s } } }
routes: [{ name: all, match: { path: "/*" }, upstream: pair }]
"#,
        &[("bad", &bad), ("good", &good)],
    );
    let mut client = gateway.client();
    let bads = (0..20).filter(|_| client.get("/").status() == 503).count();
    assert_eq!((bads, bad.seen().len()), (3, 3));
    assert_eq!(gateway.metric("portcullis_upstream_ejections_total", &[]), 1.0);
    let usable = ["portcullis_upstream=\"pair\"", "state=\"usable\""];
    eventually("it is shown", || gateway.metric("portcullis_upstream_endpoints", &usable) == 1.0);
}

#[test]
fn with_all_endpoints_failing_all_are_still_asked() {
    let bad = Origin::start(|_| Answer::status(503).data("bad"));
    let gateway = Gateway::start(
        r#"
upstreams: { one: { endpoints: ["{bad}"], ejection: { errors: 1, first: 30s } } }
routes: [{ name: all, match: { path: "/*" }, upstream: one }]
"#,
        &[("bad", &bad)],
    );
    let mut client = gateway.client();
    assert!((0..10).all(|_| client.get("/").text() == "bad"));
}

#[test]
fn an_endpoint_whose_health_checks_fail_is_not_asked_until_they_pass() {
    let well = Arc::new(AtomicBool::new(false));
    let says = well.clone();
    let sick = Origin::start(move |seen| match seen.target() {
        "/healthz?full" if says.load(Ordering::SeqCst) => Answer::ok("well"),
        "/healthz?full" => Answer::status(500),
        _ => Answer::ok("sick"),
    });
    let good = Origin::always(Answer::ok("good"));
    let gateway = Gateway::start(
        r#"
upstreams:
  pair:
    endpoints: ["{sick}", "{good}"]
    health: { path: "/healthz?full", host: check.test, interval: 30ms, timeout: 5s, healthy: 2, unhealthy: 2 }
routes: [{ name: all, match: { path: "/*" }, upstream: pair }]
"#,
        &[("sick", &sick), ("good", &good)],
    );
    let mut client = gateway.client();
    let mut only_good = || (0..6).all(|_| client.get("/").text() == "good");
    eventually("the sick one is no longer asked", &mut only_good);
    assert!(gateway.metric("portcullis_upstream_health_check_failures_total", &[]) >= 2.0);
    let checks: Vec<_> = sick.seen().into_iter().filter(|seen| seen.target() == "/healthz?full").collect();
    assert!(checks.iter().all(|check| check.get("host") == Some("check.test")), "{checks:?}");
    well.store(true, Ordering::SeqCst);
    let mut client = gateway.client();
    eventually("it is asked again", || client.get("/").text() == "sick");
}

#[test]
fn names_are_looked_up_and_all_their_addresses_are_used() {
    let origin = Origin::plain();
    let gateway = Gateway::start(
        r#"
upstreams:
  named: { endpoints: ["localhost:{port}"], resolve: 100ms }
  nowhere: { endpoints: ["no-such-host.invalid:80"] }
routes:
  - { name: all, match: { path: "/*" }, upstream: named }
  - { name: nowhere, match: { path: /nowhere }, upstream: nowhere }
"#,
        &[("port", &origin.address.port())],
    );
    assert_eq!(gateway.get("/").text(), "ok");
    assert_eq!(code(&gateway.get("/nowhere")), (503, "upstream_connect".to_owned()));
    // Where the name also means `::1`, nobody listens there: that endpoint is passed over.
    let mut client = gateway.client();
    assert!((0..10).all(|_| client.get("/").text() == "ok"));
}

#[test]
fn the_example_in_the_documentation_is_a_configuration() {
    let page = include_str!("../../docs/upstreams.md");
    let example = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let text = format!("version: 1\nlisteners: {{ main: {{ bind: '127.0.0.1:0' }} }}\n{example}");
    let problems =
        portcullis::config::from_text(std::path::Path::new("upstreams.yaml"), &text).map(|(_, warnings)| warnings);
    assert!(matches!(&problems, Ok(warnings) if warnings.is_empty()), "{problems:?}");
}
