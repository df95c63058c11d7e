//! Tenants whose filters take long: they are served apart, and neither they nor their clients can tell.

use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use portcullis_tests::client::Client;
use portcullis_tests::eventually;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::pieces::Gate;
use portcullis_tests::tunnel::{Echo, handshake};

use crate::plugins::code;

const APART: &str = r#"
workers: 2
drain: { deadline: 20s }
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins: { probe: { module: "file:{file:probe}", limits: { memory: 64MiB, cpu: 100ms } } }
tenants:
  acme:
    hosts: [acme.test]
    filters: [{ plugin: probe, config: "spin=4 headers {script}" }]
    routes: [{ name: all, match: { path: "/*" }, upstream: origin, upgrades: [websocket] }]
  initech:
    hosts: [initech.test]
    filters: [{ plugin: probe, config: "spin=4 headers" }]
    routes:
      - { name: all, match: { path: "/*" }, upstream: origin }
      - { name: hasty, match: { path: /hasty }, upstream: origin, timeouts: { request: 20ms } }
  globex:
    hosts: [globex.test]
    filters: [{ plugin: probe, config: "headers" }]
    routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#;

/// A gateway with a tenant that is set apart already.
fn apart(origin: &dyn std::fmt::Display, script: &str) -> Gateway {
    let gateway = Gateway::start(APART, &[("origin", origin), ("script", &script)]);
    set_apart(&gateway);
    gateway
}

fn set_apart(gateway: &Gateway) {
    set_tenant_apart(gateway, "acme");
}

fn set_tenant_apart(gateway: &Gateway, tenant: &str) {
    let host = format!("{tenant}.test");
    let ask = || {
        let answer = gateway.ask("GET", "/", &[("host", &host)], "");
        assert_eq!(answer.get("connection"), None, "{}", answer.text());
    };
    eventually("its filters have taken long", || {
        ask();
        gateway.metric("portcullis_tenant_set_apart", &[&format!("\"{tenant}\"")]) == 1.0
    });
    // Each adds eight seconds to how long it stays so.
    (0..10).for_each(|_| ask());
}

/// So many clients, each of whom has asked for this.
fn crowd(gateway: &Gateway, size: usize, host: &str, path: &str) -> Vec<Client> {
    let one = |_| {
        let mut client = gateway.client();
        client.send(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n"));
        client
    };
    (0..size).map(one).collect()
}

fn of_acme(gateway: &Gateway, metric: &str) -> f64 {
    gateway.metric(metric, &["\"acme\""])
}

fn served_apart(gateway: &Gateway) -> f64 {
    of_acme(gateway, "portcullis_tenant_apart_requests_total")
}

#[test]
fn requests_are_answered_as_before_and_others_stay_where_they_are() {
    let origin = Origin::plain();
    let gateway = apart(&origin, "");
    let before = served_apart(&gateway);
    let mut client = gateway.client();
    for _ in 0..3 {
        let answer = client.ask("GET", "/", &[("host", "acme.test")], "");
        assert_eq!((answer.status(), answer.get("x-probe-response").is_some()), (200, true));
        let answer = client.ask("GET", "/", &[("host", "globex.test")], "");
        assert_eq!((answer.status(), answer.get("x-probe-response").is_some()), (200, true));
    }
    assert_eq!(served_apart(&gateway), before + 3.0, "over a connection that others' requests come over too");
    assert!(gateway.page("/stats").text().contains("tenant acme: set apart for "));
    let name = "portcullis_tenant_apart_requests_total";
    assert_eq!(gateway.metric(name, &["\"globex\""]), 0.0);
    let counted = |host: &str| gateway.metric("http_server_request_duration_seconds_count", &[host, "\"200\""]);
    assert!(counted("\"acme\"") >= served_apart(&gateway) && counted("\"globex\"") == 3.0);
}

#[test]
fn bodies_and_trailers_pass_both_ways() {
    for script in ["", "upper@request_body upper@response_body"] {
        let body = "x".repeat(300_000);
        let answer = Answer::status(200).header("trailer", "x-sum").data(body.clone()).trailers(&[("x-sum", "1")]);
        let origin = Origin::always(answer);
        let gateway = apart(&origin, script);
        let before = served_apart(&gateway);
        let answer = gateway.ask("POST", "/", &[("host", "acme.test")], &body);
        let as_sent = if script.is_empty() { body.clone() } else { body.to_uppercase() };
        assert_eq!((answer.status(), answer.text().len()), (200, body.len()));
        assert!(answer.text() == as_sent && origin.last().body == as_sent.as_bytes(), "{script}");
        let answer = gateway.h2().ask("GET", "/", &[("host", "acme.test"), ("te", "trailers")], []).unwrap();
        assert!(answer.text() == as_sent, "{script}");
        assert_eq!(answer.trailers.unwrap()["x-sum"], "1", "{script}");
        assert_eq!(served_apart(&gateway), before + 2.0);
    }
}

#[test]
fn tunnels_open_and_close() {
    let origin = Echo::start();
    let gateway = Gateway::start(APART, &[("origin", &origin), ("script", &"")]);
    // What the origin says of other requests does not matter.
    set_apart(&gateway);
    let before = served_apart(&gateway);
    let mut client = gateway.client();
    client.send(handshake("/", "").replace("host: test", "host: acme.test"));
    assert_eq!(client.0.head().unwrap().status(), 101);
    client.send("over the bulkhead");
    assert_eq!(client.0.exactly(17).unwrap(), b"over the bulkhead");
    assert_eq!(served_apart(&gateway), before + 1.0);
    let active = || of_acme(&gateway, "portcullis_tenant_requests_active");
    assert_eq!(active(), 1.0);
    client.0.stream().shutdown(Shutdown::Both).unwrap();
    eventually("the tunnel has ended", || active() == 0.0);
}

#[test]
fn bodies_that_were_on_their_way_take_turns_and_arrive_whole() {
    let origin = Origin::plain();
    let gateway = Gateway::start(APART, &[("origin", &origin), ("script", &"spin=4@request_body")]);
    let chunk = "5\r\nhello\r\n";
    let begin = |_| {
        let mut client = gateway.client();
        client.send(format!("POST /slow HTTP/1.1\r\nhost: acme.test\r\ntransfer-encoding: chunked\r\n\r\n{chunk}"));
        client
    };
    let mut clients: Vec<Client> = (0..3).map(begin).collect();
    set_apart(&gateway);
    for _ in 0..2 {
        clients.iter_mut().for_each(|client| client.send(chunk));
    }
    for client in &mut clients {
        client.send("0\r\n\r\n");
        assert_eq!(client.answer().status(), 200);
    }
    let bodies = origin.seen().into_iter().filter(|seen| seen.target() == "/slow").map(|seen| seen.body.len());
    assert_eq!(bodies.collect::<Vec<_>>(), [15, 15, 15]);
}

#[test]
fn a_request_that_is_refused_waits_for_no_turn() {
    let origin = Origin::plain();
    let config = APART
        .replace("workers: 2", "workers: 1")
        .replace("cpu: 100ms", "cpu: 2s")
        .replace("hosts: [acme.test]", "hosts: [acme.test]\n    limits: { in_flight: 1 }");
    let gateway = Gateway::start(&config, &[("origin", &origin), ("script", &"spin=200@request_body")]);
    let mut under_way = gateway.client();
    under_way.send("POST / HTTP/1.1\r\nhost: acme.test\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n");
    eventually("it is set apart", || of_acme(&gateway, "portcullis_tenant_set_apart") == 1.0);
    // The next part of that body waits for twenty times as long as this one took, 4 s.
    let began = Instant::now();
    assert_eq!(code(&gateway.ask("GET", "/", &[("host", "acme.test")], "")), (503, "tenant_in_flight".to_owned()));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[test]
fn answers_to_callouts_reach_filters_that_are_set_apart() {
    let origin = Origin::always(Answer::ok("called"));
    let gateway = apart(&origin, "callout=origin@request_headers");
    let before = served_apart(&gateway);
    for _ in 0..3 {
        assert_eq!(gateway.ask("GET", "/", &[("host", "acme.test")], "").status(), 200);
    }
    assert_eq!(served_apart(&gateway), before + 3.0);
}

#[test]
fn requests_beyond_what_one_tenant_may_have_under_way_are_refused() {
    let gate = Gate::default();
    let slow = Answer::status(200).after(&gate);
    let origin = Origin::start(move |seen| if seen.target() == "/slow" { slow.clone() } else { Answer::ok("") });
    let gateway = apart(&origin, "");
    let all = crowd(&gateway, 257, "acme.test", "/slow");
    eventually("there is no room", || of_acme(&gateway, "portcullis_tenant_refused_total") >= 1.0);
    assert_eq!(gateway.ask("GET", "/", &[("host", "globex.test")], "").status(), 200);
    gate.open();
    let statuses: Vec<u16> = all.into_iter().map(|mut client| client.answer().status()).collect();
    let refused = statuses.iter().filter(|status| **status == 503).count();
    assert!(refused >= 1 && statuses.iter().filter(|status| **status == 200).count() == 257 - refused, "{statuses:?}");
}

#[test]
fn a_tenant_that_asks_much_there_waits_for_itself() {
    let origin = Origin::plain();
    let gateway = apart(&origin, "");
    set_tenant_apart(&gateway, "initech");
    let before = origin.seen().len();
    let busy = crowd(&gateway, 200, "acme.test", "/");
    assert_eq!(gateway.ask("GET", "/modest", &[("host", "initech.test")], "").status(), 200);
    assert!(busy.into_iter().all(|mut client| client.answer().status() == 200));
    let seen = origin.seen().split_off(before);
    let place = seen.iter().position(|seen| seen.target() == "/modest").unwrap();
    assert!(seen.len() == 201 && place < 150, "{place}");
}

#[test]
fn waiting_there_counts_as_part_of_the_request() {
    let origin = Origin::plain();
    let gateway = Gateway::start(APART, &[("origin", &origin), ("script", &"")]);
    set_tenant_apart(&gateway, "initech");
    let sum = |metric: &str| gateway.metric(metric, &["\"initech\""]);
    let duration = || sum("http_server_request_duration_seconds_sum");
    let before = duration();
    let statuses: Vec<u16> =
        crowd(&gateway, 100, "initech.test", "/hasty").into_iter().map(|mut client| client.answer().status()).collect();
    let late = statuses.iter().filter(|status| **status == 504).count();
    assert!(late > 50 && statuses.iter().all(|status| [200, 504].contains(status)), "{statuses:?}");
    let begun = origin.seen().iter().filter(|seen| seen.target() == "/hasty").count();
    assert!(begun < 50, "{begun} were begun, and most had waited for too long");
    let waited = sum("portcullis_tenant_apart_wait_seconds_total");
    assert!(waited > 1.0 && duration() - before > 1.0, "{waited} s, {} s in all", duration() - before);
}

#[test]
fn whoever_goes_away_while_it_waits_is_not_begun() {
    let origin = Origin::plain();
    let gateway = apart(&origin, "");
    let busy = crowd(&gateway, 100, "acme.test", "/");
    drop(crowd(&gateway, 1, "acme.test", "/gone"));
    assert!(busy.into_iter().all(|mut client| client.answer().status() == 200));
    eventually("nothing is under way", || of_acme(&gateway, "portcullis_tenant_requests_active") == 0.0);
    assert!(origin.seen().iter().all(|seen| seen.target() != "/gone"));
}

#[test]
fn a_client_that_goes_away_ends_its_exchange() {
    for before_the_head in [true, false] {
        let gate = Gate::default();
        let answer = Answer::status(200);
        let slow = if before_the_head { answer.after(&gate) } else { answer.data("begun").wait(&gate) };
        let origin = Origin::start(move |seen| if seen.target() == "/slow" { slow.clone() } else { Answer::ok("") });
        let gateway = apart(&origin, "");
        let mut client = gateway.client();
        client.send("GET /slow HTTP/1.1\r\nhost: acme.test\r\n\r\n");
        if before_the_head {
            eventually("the upstream has it", || origin.last().target() == "/slow");
        } else {
            client.0.head().unwrap();
        }
        let active = || of_acme(&gateway, "portcullis_tenant_requests_active");
        assert_eq!(active(), 1.0);
        drop(client);
        eventually("nothing is under way", || active() == 0.0);
        origin.wait_for_cancellation();
    }
}

#[test]
fn a_response_that_breaks_off_is_seen_to() {
    let gate = Gate::default();
    let broken = Answer::status(200).data("some").wait(&gate).broken();
    let origin = Origin::start(move |seen| if seen.target() == "/broken" { broken.clone() } else { Answer::ok("") });
    let gateway = apart(&origin, "");
    let mut client = gateway.client();
    client.send("GET /broken HTTP/1.1\r\nhost: acme.test\r\n\r\n");
    let head = client.0.head().unwrap();
    assert_eq!(head.status(), 200);
    gate.open();
    assert!(!client.0.body(head).complete);
}

#[test]
fn a_change_of_the_configuration_holds_from_the_next_request_on() {
    let origin = Origin::plain();
    let gateway = apart(&origin, "");
    for (script, status) in [("reply", 418), ("", 200), ("reply", 418)] {
        let before = served_apart(&gateway);
        gateway.apply(APART, &[("origin", &origin), ("script", &script)]).unwrap();
        assert_eq!(gateway.ask("GET", "/", &[("host", "acme.test")], "").status(), status);
        assert_eq!(served_apart(&gateway), before + 1.0);
    }
}

#[test]
fn what_is_under_way_at_the_end_is_finished() {
    let gate = Gate::default();
    let slow = Answer::status(200).data("begun").wait(&gate).data(" and done");
    let origin = Origin::start(move |seen| if seen.target() == "/slow" { slow.clone() } else { Answer::ok("") });
    let gateway = apart(&origin, "");
    let mut client: Client = gateway.client();
    client.send("GET /slow HTTP/1.1\r\nhost: acme.test\r\n\r\n");
    let head = client.0.head().unwrap();
    let stopping = thread::spawn(move || gateway.into_inner().stop());
    gate.open();
    let message = client.0.body(head);
    assert!(message.complete, "{}", message.text());
    drop(client);
    stopping.join().unwrap();
}
