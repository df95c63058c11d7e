//! Guests that fail: what it costs their request, and that it costs nobody else anything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use portcullis_tests::eventually;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::Origin;
use serde_json::Value;

/// Where a guest can fail while a request is on its way, with what must be sent for it to get there.
const PLACES: [&str; 4] = ["request_headers", "request_body", "response_headers", "response_body"];
/// How it can, with the cause the metrics then name.
const WAYS: [(&str, &str); 5] =
    [("trap", "panic"), ("panic", "panic"), ("exit", "panic"), ("loop", "deadline"), ("memory", "oom")];

fn failing(origin: &Origin, on_failure: &str) -> Gateway {
    Gateway::start(
        r#"
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins:
  probe: { module: "file:{file:probe}", limits: { cpu: 100ms, memory: 8MiB }, on_failure: {policy} }
tenants:
  bad:
    hosts: [test]
    filters: [{ plugin: probe, config: "" }]
    routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
  good:
    hosts: [good.test]
    filters: [{ plugin: probe, config: headers }]
    routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", origin), ("policy", &on_failure)],
    )
}

fn is_served_again(gateway: &Gateway) {
    eventually("the next request is served", || gateway.ask("POST", "/", &[], "body").status() == 200);
}

#[test]
fn a_failing_guest_costs_its_own_request_a_503() {
    let origin = Origin::plain();
    for (way, cause) in WAYS {
        for place in PLACES {
            // One gateway each: a guest that keeps failing is left alone for longer and longer.
            let gateway = failing(&origin, "closed");
            let answer = gateway.ask("POST", "/", &[("x-probe", &format!("{way}@{place}"))], "body");
            if place == "response_body" && answer.status() == 200 {
                assert!(!answer.complete, "{way}@{place}: the head had gone out, the body must not look whole");
            } else {
                let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                assert_eq!((answer.status(), &problem["code"]), (503, &Value::from("filter_failed")), "{way}@{place}");
            }
            assert_eq!(
                gateway.ask("POST", "/", &[], "body").status(),
                200,
                "{way}@{place}: the next request is served"
            );
            let good = gateway.ask("GET", "/", &[("host", "good.test")], "");
            assert_eq!((good.status(), good.get("x-probe-response")), (200, Some("seen")));
            let traps = |with: &[&str]| gateway.metric("portcullis_filter_traps_total", with);
            assert_eq!(traps(&[&format!("\"{cause}\""), "\"bad\""]), 1.0, "{way}@{place}");
            assert_eq!(traps(&[]), 1.0, "{way}@{place}");
        }
    }
}

#[test]
fn a_request_passes_a_failing_guest_that_may_be_skipped() {
    let origin = Origin::plain();
    for (way, _) in WAYS {
        let gateway = failing(&origin, "open");
        for place in PLACES {
            let answer = gateway.ask("POST", "/", &[("x-probe", &format!("{way}@{place}"))], "body");
            assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"), "{way}@{place}");
            assert!(answer.complete, "{way}@{place}");
            assert_eq!(origin.last().body, "body", "{way}@{place}");
        }
    }
}

#[test]
fn a_guest_that_fails_after_the_response_changes_it_no_more() {
    let origin = Origin::plain();
    for place in ["log", "done"] {
        let gateway = failing(&origin, "closed");
        let answer = gateway.ask("GET", "/", &[("x-probe", &format!("trap@{place}"))], "");
        assert_eq!((answer.status(), answer.text().as_str(), answer.complete), (200, "ok", true), "{place}");
        eventually("the trap is counted", || gateway.metric("portcullis_filter_traps_total", &["bad"]) > 0.0);
        is_served_again(&gateway);
    }
}

#[test]
fn a_guest_that_fails_when_its_callout_is_back_costs_its_request_a_503() {
    let origin = Origin::plain();
    let gateway = failing(&origin, "closed");
    let answer = gateway.ask("GET", "/", &[("x-probe", "callout=origin trap@callout")], "");
    assert_eq!(answer.status(), 503);
    is_served_again(&gateway);
}

#[test]
fn other_tenants_notice_nothing() {
    let origin = Origin::plain();
    let gateway = failing(&origin, "closed");
    let attacks = || WAYS.iter().flat_map(|(way, _)| PLACES.iter().map(move |place| format!("{way}@{place}")));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let attackers = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for attack in attacks() {
                    let _whatever = gateway.ask("POST", "/", &[("x-probe", &attack)], "body");
                }
            }
        });
        let mut client = gateway.client();
        for _ in 0..200 {
            let answer = client.ask("GET", "/", &[("host", "good.test")], "");
            assert_eq!((answer.status(), answer.get("x-probe-response")), (200, Some("seen")));
        }
        over.store(true, Ordering::Relaxed);
        attackers.join().unwrap();
    });
}

#[test]
fn requests_that_share_a_failing_instance_share_its_end_and_the_next_do_not() {
    let origin = Origin::plain();
    let gateway = failing(&origin, "closed");
    let mut paused = gateway.client();
    paused.send("GET / HTTP/1.1\r\nhost: test\r\nx-probe: pause\r\n\r\n");
    eventually("it is paused", || gateway.metric("http_server_active_requests", &[]) == 1.0);
    assert_eq!(gateway.ask("GET", "/", &[("x-probe", "trap")], "").status(), 503);
    assert_eq!(paused.answer().status(), 503);
    is_served_again(&gateway);
}
