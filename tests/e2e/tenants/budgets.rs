//! What a tenant may use up: beyond its limits it is refused, and nobody else notices.

use std::fmt::Display;
use std::time::{Duration, Instant};

use portcullis_tests::eventually;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::pieces::Gate;
use portcullis_tests::wire::Message;

use crate::plugins::code;

const LIMITED: &str = r#"
workers: 2
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins: { probe: { module: "file:{file:probe}", limits: { memory: 64MiB, cpu: 100ms } } }
tenants:
  acme:
    hosts: [acme.test]
    limits: {limits}
    filters: [{ plugin: probe, config: "{script}" }]
    routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
  globex:
    hosts: [globex.test]
    filters: [{ plugin: probe, config: "headers" }]
    routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#;

fn limited(origin: &Origin, limits: &str, script: &str) -> Gateway {
    Gateway::start(LIMITED, &[("origin", origin), ("limits", &limits), ("script", &script)])
}

fn ask(gateway: &Gateway, host: &str) -> Message {
    gateway.ask("GET", "/", &[("host", host)], "")
}

fn refused(gateway: &Gateway, limit: &str) -> f64 {
    gateway.metric("portcullis_tenant_refused_total", &["\"acme\"", &format!("\"{limit}\"")])
}

#[test]
fn requests_beyond_their_rate_are_refused_over_all_workers() {
    let origin = Origin::plain();
    let gateway = limited(&origin, "{ requests: 5/h }", "headers");
    // Connections go to either worker.
    let statuses: Vec<u16> = (0..12).map(|_| ask(&gateway, "acme.test").status()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 5, "{statuses:?}");
    let answer = ask(&gateway, "acme.test");
    assert_eq!(code(&answer), (429, "tenant_requests".to_owned()));
    assert_eq!((answer.get("retry-after"), answer.get("x-probe-response")), (Some("1"), None), "no filter has seen it");
    assert_eq!(ask(&gateway, "globex.test").status(), 200);
    assert_eq!(refused(&gateway, "requests"), 8.0);
    let served = gateway.metric("http_server_request_duration_seconds_count", &["tenant_requests", "\"acme\""]);
    assert_eq!(served, 8.0);
}

#[test]
fn requests_at_once_are_refused_until_one_is_over() {
    let gate = Gate::default();
    let origin = Origin::always(Answer::status(200).data("begun").wait(&gate).data(" and done"));
    let gateway = limited(&origin, "{ in_flight: 1 }", "headers");
    let mut first = gateway.client();
    first.send("GET / HTTP/1.1\r\nhost: acme.test\r\n\r\n");
    let head = first.0.head().unwrap();
    let mut second = gateway.client();
    for _ in 0..2 {
        let answer = second.ask("GET", "/", &[("host", "acme.test")], "");
        assert_eq!(code(&answer), (503, "tenant_in_flight".to_owned()), "and the connection stays");
    }
    assert_eq!(gateway.metric("portcullis_tenant_requests_active", &["\"acme\""]), 1.0);
    gate.open();
    assert!(first.0.body(head).complete);
    eventually("there is room again", || ask(&gateway, "acme.test").status() == 200);
}

#[test]
fn a_tenant_whose_filters_use_too_much_processor_time_waits_and_nobody_else_does() {
    let origin = Origin::plain();
    let gateway = limited(&origin, "{ cpu: 20ms/s }", "spin=4 reply");
    let mut refusals = 0;
    let began = Instant::now();
    while refusals < 20 {
        let answer = ask(&gateway, "acme.test");
        if answer.status() != 418 {
            assert_eq!(code(&answer), (503, "tenant_cpu".to_owned()));
            refusals += 1;
        }
        assert_eq!(ask(&gateway, "globex.test").status(), 200);
        assert!(began.elapsed() < portcullis_tests::PATIENCE, "refused {refusals} times");
    }
    eventually("it has processor time again", || ask(&gateway, "acme.test").status() == 418);
    assert!(refused(&gateway, "cpu") >= 20.0);
}

#[test]
fn bodies_wait_for_processor_time_and_arrive_whole() {
    let origin = Origin::plain();
    let gateway = limited(&origin, "{ cpu: 10ms/s }", "spin=8@request_body");
    let mut client = gateway.client();
    let began = Instant::now();
    let chunks = "5\r\nhello\r\n".repeat(12);
    client.send(format!("POST / HTTP/1.1\r\nhost: acme.test\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"));
    assert_eq!(client.0.message().unwrap().status(), 200);
    assert_eq!(origin.last().body.len(), 60);
    // The guest is busy for up to 96 ms, of which a second's worth, 10 ms, is there at once; each of the rest waits a hundred times as long
    // as it takes. It would wait twenty times as long for keeping others waiting, which is less than 2 s.
    assert!(began.elapsed() > Duration::from_secs(3), "{:?}", began.elapsed());
}

#[test]
fn memory_is_bounded_over_all_vms_of_a_tenant() {
    let origin = Origin::plain();
    let gateway = limited(&origin, "{ memory: 16MiB }", "memory");
    assert_eq!(code(&ask(&gateway, "acme.test")), (503, "filter_failed".to_owned()));
    assert!(refused(&gateway, "memory") >= 1.0);
    assert!(gateway.metric("portcullis_tenant_memory_bytes", &["\"acme\""]) <= 16.0 * 1024.0 * 1024.0);
    let traps = gateway.metric("portcullis_filter_traps_total", &["\"acme\"", "\"oom\""]);
    assert!(traps >= 1.0, "{}", gateway.page("/metrics").text());
    assert_eq!(ask(&gateway, "globex.test").status(), 200);
}

#[test]
fn limits_change_with_the_configuration_and_what_is_used_stays_used() {
    let origin = Origin::plain();
    let gateway = limited(&origin, "{ requests: 2/h }", "headers");
    let ask = || ask(&gateway, "acme.test").status();
    assert_eq!([ask(), ask(), ask()], [200, 200, 429]);
    for (limits, want) in [("{}", 200), ("{ requests: 2/h }", 429)] {
        let places: [(&str, &dyn Display); 3] = [("origin", &origin), ("limits", &limits), ("script", &"headers")];
        gateway.apply(LIMITED, &places).unwrap();
        assert_eq!(ask(), want, "{limits}");
    }
}

#[test]
fn callouts_beyond_their_rate_are_not_made() {
    let origin = Origin::always(Answer::ok("called"));
    let gateway = limited(&origin, "{ callouts: 3/h }", "callout=origin@response_headers");
    let statuses: Vec<u16> = (0..5).map(|_| ask(&gateway, "acme.test").status()).collect();
    assert_eq!(statuses, [200, 200, 200, 502, 502], "the guest hears of a failure, and this one gives up");
    assert_eq!(refused(&gateway, "callouts"), 2.0);
    assert_eq!(ask(&gateway, "globex.test").status(), 200);
}

#[test]
fn callouts_at_once_are_not_made_until_one_is_over() {
    let gate = Gate::default();
    let origin = {
        let gate = gate.clone();
        Origin::start(move |request| match request.target() {
            "/probe-callout" => Answer::status(200).wait(&gate).data("at last"),
            _ => Answer::ok("plain"),
        })
    };
    let gateway = limited(&origin, "{ callouts_in_flight: 1 }", "callout=origin@response_headers");
    let active = || gateway.metric("portcullis_tenant_callouts_active", &["\"acme\""]);
    // The guest does not wait for ever for its callout, which on a busy machine may be over before the other begins.
    eventually("a second one is refused", || {
        let mut first = gateway.client();
        first.send("GET / HTTP/1.1\r\nhost: acme.test\r\n\r\n");
        eventually("the first is under way or over", || active() == 1.0 || origin.begun() > 0);
        let answer = ask(&gateway, "acme.test");
        answer.status() == 502 && answer.text().contains("InternalFailure")
    });
    assert!(refused(&gateway, "callouts_in_flight") >= 1.0);
    gate.open();
    eventually("all are over", || active() == 0.0);
    assert_eq!(ask(&gateway, "acme.test").get("x-probe-callout"), Some("200 at last"));
}

#[test]
fn lines_beyond_a_tenants_bytes_of_log_are_dropped() {
    let origin = Origin::plain();
    // What it says at its end is logged whatever the level; a line of more than there is takes all of it.
    let gateway = limited(&origin, "{ log: 20B/s }", "panic");
    let dropped = || gateway.metric("portcullis_filter_log_lines_dropped_total", &["\"acme\""]);
    eventually("lines are dropped", || ask(&gateway, "acme.test").status() == 503 && dropped() >= 1.0);
    assert!(refused(&gateway, "log") >= 1.0);
}
