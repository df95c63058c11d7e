//! Upstreams that fail, and how requests are spread over the endpoints of one.

use portcullis_tests::eventually;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::pieces::Gate;
use portcullis_tests::process::free_address;
use portcullis_tests::raw::RawOrigin;
use portcullis_tests::wire::Message;
use serde_json::Value;

fn code(answer: &Message) -> (u16, String) {
    let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    (answer.status(), problem["code"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn an_origin_that_is_not_there_is_a_503() {
    let gateway = Gateway::in_front_of(&free_address(), "[]");
    let mut client = gateway.client();
    for path in ["/", "/h2/", "/"] {
        assert_eq!(code(&client.get(path)), (503, "upstream_connect".to_owned()), "{path}");
    }
    assert_eq!(code(&client.ask("POST", "/", &[], "body")), (503, "upstream_connect".to_owned()));
}

#[test]
fn an_origin_that_does_not_answer_in_time_is_a_504() {
    let origin = Origin::always(Answer::ok("late").after(&Gate::default()));
    let gateway = Gateway::start(
        r#"
upstreams:
  slow: { endpoints: ["{origin}"], timeouts: { response: 200ms } }
  patient: { endpoints: ["{origin}"] }
routes:
  - { name: own, match: { path: /own }, upstream: slow }
  - { name: route, match: { path: /route }, upstream: patient, timeout: 200ms }
"#,
        &[("origin", &origin)],
    );
    for path in ["/own", "/route"] {
        assert_eq!(code(&gateway.get(path)), (504, "upstream_timeout".to_owned()), "{path}");
    }
}

#[test]
fn a_slow_body_is_no_timeout() {
    let gate = Gate::default();
    let origin = Origin::always(Answer::status(200).data("a").wait(&gate).data("b"));
    let gateway = Gateway::start(
        r#"
upstreams: { origin: { endpoints: ["{origin}"], timeouts: { response: 2500ms } } }
routes:
  - { name: all, match: { path: "/*" }, upstream: origin }
  - { name: none, match: { path: /late }, upstream: origin, timeout: 1ms }
"#,
        &[("origin", &origin)],
    );
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(client.0.head().unwrap().status(), 200);
    assert_eq!(client.0.chunk().unwrap(), b"a");
    let began = std::time::Instant::now();
    eventually("the response's time is long over", || began.elapsed().as_secs() >= 3);
    gate.open();
    assert_eq!(client.0.chunk().unwrap(), b"b");
}

#[test]
fn an_origin_that_breaks_off_or_answers_nonsense_is_a_502() {
    for (what, bytes, want) in [
        ("nothing", "", "upstream_reset"),
        ("half a head", "HTTP/1.1 200 OK\r\ncontent-", "upstream_reset"),
        ("nonsense", "SSH-2.0-OpenSSH\r\n\r\n", "upstream_protocol"),
        ("two lengths", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc", "upstream_protocol"),
    ] {
        let origin = RawOrigin::start(move |wire, _| {
            let _request = wire.message();
            let _gone = wire.write(bytes);
        });
        let gateway = Gateway::in_front_of(&origin, "[]");
        assert_eq!(code(&gateway.get("/")), (502, want.to_owned()), "{what}");
        assert_eq!(code(&gateway.ask("POST", "/", &[], "body")), (502, want.to_owned()), "{what}, after a body");
    }
}

#[test]
fn a_body_that_breaks_off_looks_broken_off() {
    for filters in ["[]", "[{ plugin: probe, config: \"\" }]"] {
        for head in ["content-length: 10", "transfer-encoding: chunked"] {
            let body = if head.contains("chunked") { "3\r\nabc\r\n" } else { "abc" };
            let origin = RawOrigin::start(move |wire, _| {
                let _request = wire.message();
                let _gone = wire.write(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}"));
            });
            let gateway = Gateway::in_front_of(&origin, filters);
            let mut client = gateway.client();
            let answer = client.get("/");
            assert_eq!((answer.status(), answer.complete), (200, false), "{filters} {head}");
            assert!(client.0.is_closed(), "{filters} {head}");
            let answer = gateway.h2().ask("GET", "/", &[], []);
            assert!(answer.is_err() || !answer.unwrap().complete, "{filters} {head} over HTTP/2");
        }
        let gate = Gate::default();
        let origin = Origin::always(Answer::status(200).data("abc").wait(&gate).broken());
        let gateway = Gateway::in_front_of(&origin, filters);
        let mut client = gateway.client();
        client.send("GET /h2/ HTTP/1.1\r\nhost: test\r\n\r\n");
        let head = client.0.head().unwrap();
        let h2 = gateway.h2();
        let mut body = h2.begin("/h2/").into_body();
        gate.open();
        assert!(!client.0.body(head).complete, "{filters}: HTTP/2 above only");
        assert_eq!(h2.data(&mut body).unwrap().as_deref(), Some(&b"abc"[..]));
        assert!(h2.data(&mut body).is_err(), "{filters}: HTTP/2 on both sides");
    }
}

#[test]
fn an_answer_that_ends_with_its_connection_is_whole() {
    let origin = RawOrigin::start(|wire, _| {
        let _request = wire.message();
        let _gone = wire.write("HTTP/1.1 200 OK\r\n\r\nuntil the end");
    });
    let gateway = Gateway::in_front_of(&origin, "[]");
    let mut client = gateway.client();
    for _ in 0..2 {
        let answer = client.get("/");
        assert_eq!((answer.status(), answer.text().as_str(), answer.complete), (200, "until the end", true));
    }
}

#[test]
fn informational_answers_are_not_taken_for_the_answer() {
    let origin = RawOrigin::answering(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    );
    let gateway = Gateway::in_front_of(&origin, "[]");
    let mut client = gateway.client();
    let mut answer = client.get("/");
    while answer.status() < 200 {
        answer = client.answer();
    }
    assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"));
}

#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let origin = RawOrigin::start(|wire, _| {
        let _head = wire.head();
        let _gone = wire.write("HTTP/1.1 413 Too Large\r\ncontent-length: 4\r\nconnection: close\r\n\r\nstop");
        let _until_closed = wire.rest();
    });
    let gateway = Gateway::in_front_of(&origin, "[]");
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000\r\n\r\nsome");
    let answer = client.answer();
    assert_eq!((answer.status(), answer.text().as_str()), (413, "stop"));
}

/// Two origins that say which they are.
fn pair() -> (Origin, Origin) {
    (Origin::always(Answer::ok("one")), Origin::always(Answer::ok("two")))
}

fn over(one: &dyn std::fmt::Display, two: &dyn std::fmt::Display, balance: &str) -> Gateway {
    Gateway::start(
        r#"
upstreams: { pair: { endpoints: ["{one}", "{two}"], balance: {balance}, timeouts: { connect: 1s } } }
routes: [{ name: all, match: { path: "/*" }, upstream: pair }]
"#,
        &[("one", one), ("two", two), ("balance", &balance)],
    )
}

#[test]
fn round_robin_gives_each_endpoint_its_turn() {
    let (one, two) = pair();
    let gateway = over(&one, &two, "round_robin");
    let mut client = gateway.client();
    let texts: Vec<_> = (0..10).map(|_| client.get("/").text()).collect();
    assert!(texts.windows(2).all(|pair| pair[0] != pair[1]), "{texts:?}");
}

#[test]
fn least_requests_leaves_a_busy_endpoint_alone() {
    let gate = Gate::default();
    let (busy_one, busy_two) = (gate.clone(), gate.clone());
    let slow = |name: &'static str, gate: Gate| {
        Origin::start(move |seen| {
            let answer = Answer::ok(name);
            if seen.uri.path() == "/slow" { answer.after(&gate) } else { answer }
        })
    };
    let (one, two) = (slow("one", busy_one), slow("two", busy_two));
    let gateway = over(&one, &two, "least_requests");
    let mut held = gateway.client();
    held.send("GET /slow HTTP/1.1\r\nhost: test\r\n\r\n");
    eventually("the slow request has arrived", || one.begun() + two.begun() == 1);
    let idle = if one.begun() == 0 { "one" } else { "two" };
    let mut client = gateway.client();
    let texts: Vec<_> = (0..6).map(|_| client.get("/").text()).collect();
    assert_eq!(texts, [idle; 6]);
    gate.open();
    assert_ne!(held.answer().text(), idle);
}

#[test]
fn an_endpoint_that_is_down_is_passed_over() {
    let two = Origin::always(Answer::ok("two"));
    let gateway = over(&free_address(), &two, "round_robin");
    let mut client = gateway.client();
    for _ in 0..8 {
        assert_eq!(client.get("/").text(), "two");
        assert_eq!(client.ask("POST", "/", &[], "body").text(), "two", "what was not sent can be sent elsewhere");
    }
}

#[test]
fn a_kept_connection_that_has_died_costs_no_request() {
    // Every connection serves one request, promises more, closes, and says that it has.
    let (tell, told) = std::sync::mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let origin = RawOrigin::start(move |wire, _| {
        let _request = wire.message();
        let _gone = wire.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        let _closed = wire.stream().shutdown(std::net::Shutdown::Both);
        let _test_is_over = tell.lock().unwrap().send(());
    });
    let other = Origin::plain();
    let gateway = Gateway::start(
        r#"
upstreams: { origin: { endpoints: ["{origin}"] }, other: { endpoints: ["{other}"] } }
routes:
  - { name: all, match: { path: "/*" }, upstream: origin }
  - { name: other, match: { path: /other }, upstream: other }
"#,
        &[("origin", &origin), ("other", &other)],
    );
    let mut client = gateway.client();
    for count in 1..=20 {
        assert_eq!(client.get("/").status(), 200, "request {count}");
        told.recv_timeout(portcullis_tests::PATIENCE).unwrap();
        // While the worker serves this, it learns of the end. What is written before it has cannot be sent again.
        assert_eq!(client.get("/other").status(), 200);
    }
    assert_eq!(origin.connections(), 20);
}

#[test]
fn connections_are_closed_after_their_idle_time() {
    let origin = Origin::plain();
    let gateway = Gateway::start(
        r#"
upstreams: { origin: { endpoints: ["{origin}"], timeouts: { idle: 100ms } } }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", &origin)],
    );
    assert_eq!(gateway.get("/").status(), 200);
    eventually("a new connection is made", || {
        let before = std::time::Instant::now();
        eventually("the idle time is over", || before.elapsed().as_millis() > 250);
        gateway.get("/").status() == 200 && origin.last().connection > 1
    });
}

#[test]
fn a_connection_is_kept_after_a_response_without_a_body() {
    for status in [200, 204, 304] {
        let origin = Origin::always(Answer::status(status));
        let gateway = Gateway::in_front_of(&origin, "[]");
        let mut client = gateway.client();
        for _ in 0..3 {
            assert_eq!(client.get("/").status(), status);
            assert_eq!(client.ask("HEAD", "/", &[], "").status(), status);
        }
        assert_eq!(origin.last().connection, 1, "{status}");
    }
}
