//! How long an upstream may take, and whose delay it is: black holes, drips, stalls.

use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use portcullis_tests::client::request;
use portcullis_tests::eventually;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::pieces::Gate;
use portcullis_tests::raw::RawOrigin;
use portcullis_tests::wire::Message;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

fn code(answer: &Message) -> (u16, String) {
    let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    (answer.status(), problem["code"].as_str().unwrap_or_default().to_owned())
}

/// An address where connecting takes for ever: its backlog is full, and nobody accepts.
pub(crate) struct BlackHole {
    pub(crate) address: std::net::SocketAddr,
    _listener: Socket,
    _queue: Vec<TcpStream>,
}

impl BlackHole {
    pub(crate) fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut queue = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
            queue.push(stream);
            assert!(queue.len() < 64, "the backlog has no end");
        }
        Self { address, _listener: listener, _queue: queue }
    }
}

#[test]
fn a_connection_that_is_not_made_in_time_is_a_504_of_its_own() {
    let hole = BlackHole::new();
    let gateway = Gateway::start(
        r#"
upstreams: { hole: { endpoints: ["{hole}"], timeouts: { connect: 200ms }, retries: { attempts: 0 } } }
routes: [{ name: all, match: { path: "/*" }, upstream: hole }]
"#,
        &[("hole", &hole.address)],
    );
    let began = Instant::now();
    assert_eq!(code(&gateway.get("/")), (504, "upstream_connect_timeout".to_owned()));
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert!(gateway.metric("portcullis_upstream_connect_failures_total", &["hole"]) > 0.0);
}

#[test]
fn one_try_has_a_time_of_its_own() {
    let origin = Origin::always(Answer::ok("late").after(&Gate::default()));
    let gateway = Gateway::start(
        r#"
upstreams: { slow: { endpoints: ["{origin}"], retries: { per_try_timeout: 100ms } } }
routes: [{ name: all, match: { path: "/*" }, upstream: slow }]
"#,
        &[("origin", &origin)],
    );
    assert_eq!(code(&gateway.get("/")), (504, "upstream_try_timeout".to_owned()));
    assert_eq!(gateway.metric("portcullis_upstream_retries_total", &[]), 0.0, "it was not asked to be tried again");
    assert!(origin.begun() <= 1);
}

#[test]
fn a_head_that_drips_in_is_late() {
    let origin = RawOrigin::start(|wire, _| {
        let _request = wire.message();
        for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-one: 1\r\nx-two: 2\r\n\r\n" {
            if wire.write([*byte]).is_err() {
                return;
            }
            thread::park_timeout(Duration::from_millis(30));
        }
    });
    let gateway = Gateway::start(
        r#"
upstreams: { slow: { endpoints: ["{origin}"], timeouts: { response: 300ms } } }
routes: [{ name: all, match: { path: "/*" }, upstream: slow }]
"#,
        &[("origin", &origin)],
    );
    assert_eq!(code(&gateway.get("/")), (504, "upstream_timeout".to_owned()));
}

const TIMED: &str = r#"
plugins: { probe: {guest:probe} }
filters: {filters}
upstreams:
  origin: { endpoints: ["{origin}"], timeouts: { response: 10s, stream: 3s } }
  whole: { endpoints: ["{origin}"], timeouts: { request: 3s } }
  patient: { endpoints: ["{origin}"] }
routes:
  - { name: idle, match: { path: "/idle/*" }, upstream: origin }
  - { name: whole, match: { path: "/whole/*" }, upstream: whole }
  - { name: route, match: { path: "/route/*" }, upstream: patient, timeouts: { request: 3s } }
  - { name: longer, match: { path: "/longer/*" }, upstream: origin, timeouts: { stream: 1h } }
  - { name: quick, match: { path: "/quick/*" }, upstream: origin, timeout: 2s }
"#;

/// Longer than the usual time of a stream.
const LONGER: Duration = Duration::from_millis(3500);

fn timed(origin: &dyn std::fmt::Display, filters: &str) -> Gateway {
    Gateway::start(TIMED, &[("origin", origin), ("filters", &filters)])
}

fn counted(gateway: &Gateway, code: &str) {
    let label = format!("error_type=\"{code}\"");
    eventually(code, || gateway.metric("http_server_request_duration_seconds_count", &[&label]) >= 1.0);
}

#[test]
fn a_body_that_stalls_is_cut_when_the_stream_has_been_idle() {
    for filters in ["[]", "[{ plugin: probe, config: \"\" }]"] {
        let gate = Gate::default();
        let origin = Origin::always(Answer::status(200).data("a").wait(&gate).data("b"));
        let gateway = timed(&origin, filters);
        let answer = gateway.get("/idle/");
        assert_eq!((answer.status(), answer.text().as_str(), answer.complete), (200, "a", false), "{filters}");
        counted(&gateway, "idle_timeout");
        let mut client = gateway.client();
        client.send(request("GET", "/longer/", &[], ""));
        let head = client.0.head().unwrap();
        assert_eq!(client.0.chunk().unwrap(), b"a");
        let began = Instant::now();
        eventually("the usual time is over", || began.elapsed() > LONGER);
        gate.open();
        let answer = client.0.body(head);
        assert_eq!((answer.text().as_str(), answer.complete), ("b", true), "{filters}: the route allows more");
    }
}

#[test]
fn a_body_that_drips_is_cut_when_the_whole_request_has_taken_too_long() {
    let origin = RawOrigin::start(|wire, _| {
        let _request = wire.message();
        let _gone = wire.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        while wire.write_chunk("drip").is_ok() {
            thread::park_timeout(Duration::from_millis(20));
        }
    });
    for filters in ["[]", "[{ plugin: probe, config: \"\" }]"] {
        let gateway = timed(&origin, filters);
        let began = Instant::now();
        let ask = |path| {
            let mut client = gateway.client();
            client.send(request("GET", path, &[], ""));
            (path, client)
        };
        for (path, mut client) in ["/whole/", "/route/"].map(ask) {
            let answer = client.answer();
            assert_eq!((answer.status(), answer.complete), (200, false), "{path} {filters}");
            assert!(answer.body.len() > 8 && began.elapsed() >= Duration::from_secs(3), "{path} {filters}");
        }
        counted(&gateway, "request_timeout");
    }
}

#[test]
fn an_answer_that_has_not_begun_when_the_whole_time_is_over_is_a_504() {
    let origin = Origin::always(Answer::ok("late").after(&Gate::default()));
    let gateway = timed(&origin, "[]");
    for path in ["/whole/", "/route/"] {
        assert_eq!(code(&gateway.get(path)), (504, "request_timeout".to_owned()), "{path}");
    }
}

#[test]
fn a_client_that_stalls_its_upload_is_not_the_upstreams_delay() {
    let origin = Origin::plain();
    for filters in ["[]", "[{ plugin: probe, config: \"\" }]"] {
        let gateway = timed(&origin, filters);
        let mut client = gateway.client();
        // The upstream's time is 2 s, the stream's 3 s.
        client.send("POST /quick/ HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\nab");
        assert_eq!(code(&client.answer()), (504, "idle_timeout".to_owned()), "{filters}");
        let mut client = gateway.client();
        client.send("POST /quick/ HTTP/1.1\r\nhost: test\r\ncontent-length: 40\r\n\r\n");
        for _ in 0..40 {
            // In all for longer than the upstream may take, and never silent for as long as the stream may be.
            thread::park_timeout(Duration::from_millis(70));
            client.send("x");
        }
        assert_eq!(client.answer().text(), "ok", "{filters}: a slow upload that goes on is served");
    }
}

#[test]
fn an_upstream_that_reads_no_more_is_late() {
    let (done, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let origin = RawOrigin::start(move |wire, _| {
        let _head = wire.head();
        let _test_is_over = wait.lock().unwrap().recv();
    });
    for filters in ["[]", "[{ plugin: probe, config: \"\" }]"] {
        let gateway = timed(&origin, filters);
        let client = gateway.client();
        let size = 64 << 20;
        let mut sending = client.0.stream().try_clone().unwrap();
        let sender = thread::spawn(move || {
            use std::io::Write as _;
            let head = format!("POST /quick/ HTTP/1.1\r\nhost: test\r\ncontent-length: {size}\r\n\r\n");
            let _cut_off = sending.write_all(head.as_bytes()).and_then(|()| sending.write_all(&vec![b'x'; size]));
        });
        let mut client = client;
        // Where the client, too, happened to be slow when the last of its body was asked for, nobody can tell whose delay it is.
        let (status, word) = code(&client.answer());
        assert!(status == 504 && matches!(&*word, "upstream_timeout" | "idle_timeout"), "{filters}: {word}");
        drop(client);
        drop(gateway);
        sender.join().unwrap();
    }
    drop(done);
}
