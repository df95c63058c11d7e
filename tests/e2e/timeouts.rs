//! Clients that take too long: to send a head, a body, anything; to read what they asked for.

use std::time::{Duration, Instant};

use bytes::Bytes;
use portcullis_tests::frames::{self, Frames};
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::pieces::Gate;
use portcullis_tests::{PATIENCE, eventually};
use serde_json::Value;

/// What somebody is given who has something to do meanwhile: a machine that does other things too may keep any thread waiting for a
/// second or two. Where the gateway alone has to act, limits are shorter.
const IN_TIME: Duration = Duration::from_secs(3);
/// Longer than that.
const TOO_LONG: Duration = Duration::from_millis(3500);

/// A gateway whose clients have this much patience to rely on; the origin may take its time.
fn patient(origin: &Origin, timeouts: &str) -> Gateway {
    Gateway::start(
        r#"
listeners: { main: { bind: "127.0.0.1:0", timeouts: { {timeouts} } } }
upstreams:
  origin: { endpoints: ["{origin}"], timeouts: { response: 60s } }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", origin), ("timeouts", &timeouts)],
    )
}

/// One whose filter looks at bodies, so that they are fed through it.
fn patient_and_watched(origin: &Origin, timeouts: &str) -> Gateway {
    Gateway::start(
        r#"
listeners: { main: { bind: "127.0.0.1:0", timeouts: { {timeouts} } } }
upstreams:
  origin: { endpoints: ["{origin}"], timeouts: { response: 60s } }
plugins: { probe: {guest:probe} }
filters: [{ plugin: probe, config: "" }]
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", origin), ("timeouts", &timeouts)],
    )
}

fn timed_out(gateway: &Gateway, kind: &str) -> f64 {
    gateway.metric("portcullis_connections_timed_out_total", &[&format!("kind=\"{kind}\"")])
}

fn open(gateway: &Gateway) -> f64 {
    gateway.metric("portcullis_connections_open", &[])
}

fn code(body: &[u8]) -> String {
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    problem["code"].as_str().unwrap_or_default().to_owned()
}

fn assert_timed_out(gateway: &Gateway, kind: &str, count: f64) {
    eventually("it is counted", || timed_out(gateway, kind) >= count);
    assert_eq!(timed_out(gateway, kind), count, "{kind}");
}

#[test]
fn a_client_that_sends_nothing_is_closed_without_a_word() {
    let origin = Origin::plain();
    let gateway = patient(&origin, "header: 3s");
    let began = Instant::now();
    let mut client = gateway.client();
    assert_eq!(client.0.rest(), b"");
    assert!(began.elapsed() >= IN_TIME, "closed after {:?}", began.elapsed());
    assert_timed_out(&gateway, "header", 1.0);
    assert_eq!(gateway.get("/").status(), 200);
}

#[test]
fn a_head_that_drips_in_is_answered_with_408() {
    let origin = Origin::plain();
    let gateway = patient(&origin, "header: 3s");
    let beginnings = ["G", "PRI * HT", "GET / HTTP/1.1\r\nhost: test\r\nx-a: b"];
    let mut clients = beginnings.map(|beginning| {
        let mut client = gateway.client();
        for byte in beginning.as_bytes() {
            client.send([*byte]);
        }
        client
    });
    // Dripping is no progress: the limit is for the whole head.
    let began = Instant::now();
    while clients[2].0.write("b").is_ok() {
        assert!(began.elapsed() < PATIENCE, "still read after {:?}", began.elapsed());
        std::thread::park_timeout(Duration::from_millis(20));
    }
    for (beginning, client) in beginnings.iter().zip(&mut clients) {
        let answer = client.answer();
        assert_eq!((answer.status(), code(&answer.body).as_str()), (408, "client_slow"), "{beginning}");
        assert!(client.0.is_closed());
    }
    assert_timed_out(&gateway, "header", 3.0);
    assert_eq!(origin.begun(), 0);
}

#[test]
fn the_head_after_a_kept_alive_request_is_timed_too() {
    let origin = Origin::plain();
    let gateway = patient(&origin, "header: 3s, idle: 60s");
    let mut client = gateway.client();
    assert_eq!(client.get("/").status(), 200);
    std::thread::park_timeout(TOO_LONG);
    assert_eq!(client.get("/").status(), 200, "silence between requests is not a slow head");
    client.send("GET / HTTP/1.1\r\n");
    assert_eq!(client.answer().status(), 408);
    assert!(client.0.is_closed());
}

#[test]
fn an_idle_connection_is_closed() {
    let origin = Origin::plain();
    let gateway = patient(&origin, "idle: 3s");
    let (mut client, mut frames) = (gateway.client(), Frames::connect(gateway.address(), &[]));
    frames.send(&frames::get(1, "/"));
    assert_eq!(frames.status(1), 200);
    assert_eq!(client.get("/").status(), 200);
    assert_eq!(client.0.rest(), b"");
    assert_eq!(frames.goodbye(), Some(0), "told with GOAWAY that nothing is wrong");
    assert_timed_out(&gateway, "idle", 2.0);
    assert_eq!(timed_out(&gateway, "header"), 0.0);
}

/// PINGs keep nothing open: only requests do.
#[test]
fn an_idle_http2_connection_is_closed_even_if_it_chatters() {
    let origin = Origin::plain();
    let gateway = patient(&origin, "idle: 3s");
    let mut frames = Frames::connect(gateway.address(), &[]);
    let began = Instant::now();
    while frames.try_send(&frames::frame(frames::PING, 0, 0, &[0; 8])) {
        assert!(began.elapsed() < PATIENCE, "still open");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    eventually("it is gone", || open(&gateway) == 0.0);
    assert_timed_out(&gateway, "idle", 1.0);
}

#[test]
fn a_long_request_is_not_idle() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::start(move |_| Answer::ok("late").after(&held));
    let gateway = patient(&origin, "idle: 3s, header: 3s");
    let (mut client, mut frames) = (gateway.client(), Frames::connect(gateway.address(), &[]));
    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
    frames.send(&frames::get(1, "/"));
    origin.wait_for(2);
    std::thread::park_timeout(TOO_LONG);
    gate.open();
    assert_eq!(client.answer().status(), 200);
    assert_eq!(frames.status(1), 200);
}

#[test]
fn a_body_that_stops_coming_is_given_up_and_its_upstream_freed() {
    for start in [patient as fn(&Origin, &str) -> Gateway, patient_and_watched] {
        let origin = Origin::plain();
        let gateway = start(&origin, "stream_idle: 3s");
        let (mut client, mut frames) = (gateway.client(), Frames::connect(gateway.address(), &[]));
        client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nab");
        frames.send(&[frames::post(1, "/"), frames::frame(frames::DATA, 0, 1, b"ab")].concat());
        let answer = client.answer();
        assert_eq!((answer.status(), code(&answer.body).as_str()), (504, "idle_timeout"));
        assert!(client.0.is_closed(), "the rest of the body could still come");
        assert_eq!(frames.status(1), 504);
        frames.send(&frames::get(3, "/"));
        assert_eq!(frames.status(3), 200, "the other streams go on");
        eventually("nothing is active", || gateway.metric("http_server_active_requests", &[]) == 0.0);
        assert_eq!(gateway.get("/").status(), 200);
    }
}

#[test]
fn a_body_that_keeps_coming_may_take_long_unless_the_request_is_limited() {
    let origin = Origin::start(|seen| Answer::ok(seen.body.clone()));
    let drip = |gateway: &Gateway| {
        let mut client = gateway.client();
        client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 35\r\n\r\n");
        for _ in 0..35 {
            std::thread::park_timeout(Duration::from_millis(100));
            if client.0.write("x").is_err() {
                break;
            }
        }
        client.answer()
    };
    let answer = drip(&patient(&origin, "stream_idle: 3s"));
    assert_eq!((answer.status(), answer.text().len()), (200, 35));
    let answer = drip(&patient(&origin, "stream_idle: 3s, request: 500ms"));
    assert_eq!((answer.status(), code(&answer.body).as_str()), (408, "client_slow"));
}

/// An origin with more than any buffer holds at `/`.
fn endless() -> Origin {
    let chunk = Bytes::from(vec![7; 64 << 10]);
    Origin::start(move |seen| match seen.uri.path() {
        "/ping" => Answer::ok("pong"),
        _ => (0..2048).fold(Answer::status(200), |answer, _| answer.data(chunk.clone())),
    })
}

#[test]
fn a_client_that_does_not_read_is_cut_off_and_its_upstream_freed() {
    for start in [patient as fn(&Origin, &str) -> Gateway, patient_and_watched] {
        let origin = endless();
        let gateway = start(&origin, "stream_idle: 3s");
        let mut client = gateway.client();
        client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
        assert_eq!(client.0.head().unwrap().status(), 200);
        origin.wait_for_cancellation();
        eventually("it is gone", || open(&gateway) == 0.0);
        assert!(timed_out(&gateway, "stream_idle") >= 1.0);
        assert_eq!(gateway.get("/ping").status(), 200);
    }
}

#[test]
fn an_http2_client_that_opens_no_window_loses_the_stream_and_keeps_the_others() {
    for start in [patient as fn(&Origin, &str) -> Gateway, patient_and_watched] {
        let origin = endless();
        let gateway = start(&origin, "stream_idle: 3s");
        // SETTINGS_INITIAL_WINDOW_SIZE
        let mut frames = Frames::connect(gateway.address(), &[(4, 0)]);
        frames.send(&frames::get(1, "/"));
        assert_eq!(frames.status(1), 200);
        let reset = frames.find(|frame| frame.kind == frames::RST_STREAM).unwrap();
        assert_eq!(reset.stream, 1);
        origin.wait_for_cancellation();
        frames.send(&[frames::get(3, "/ping"), frames::frame(frames::WINDOW_UPDATE, 0, 3, &[0, 0, 1, 0])].concat());
        assert_eq!(frames.status(3), 200);
        assert_eq!(frames.find(|frame| frame.kind == frames::DATA).unwrap().payload, b"pong");
        eventually("nothing is active", || gateway.metric("http_server_active_requests", &[]) == 0.0);
    }
}

/// The last piece has left the exchange and waits for the client's window: nothing but the stream itself is left of it.
#[test]
fn the_last_of_a_response_does_not_wait_for_ever() {
    let origin = Origin::always(Answer::ok("a short answer"));
    let gateway = patient(&origin, "stream_idle: 3s, idle: 60s");
    let mut frames = Frames::connect(gateway.address(), &[(4, 0)]);
    frames.send(&frames::get(1, "/"));
    assert_eq!(frames.status(1), 200);
    assert_eq!(frames.find(|frame| frame.kind == frames::RST_STREAM).unwrap().stream, 1);
    assert_timed_out(&gateway, "stream_idle", 1.0);
}

#[test]
fn a_header_block_that_drips_in_ends_the_connection() {
    let origin = Origin::plain();
    let gateway = patient(&origin, "header: 3s");
    let (mut frames, mut silent) = (Frames::connect(gateway.address(), &[]), Frames::silent(gateway.address()));
    frames.send(&frames::frame(frames::HEADERS, frames::END_STREAM, 1, &frames::request("GET", "/")));
    silent.send(&frames::PREFACE[..20]);
    let _closed = frames.goodbye();
    let _refused = silent.wire.rest();
    assert_timed_out(&gateway, "header", 2.0);
    assert_eq!(gateway.get("/").status(), 200);
}

#[test]
fn a_client_that_answers_no_ping_is_closed() {
    let gate = Gate::default();
    let origin = Origin::always(Answer::ok("late").after(&gate));
    let gateway = Gateway::start(
        r#"
listeners: { main: { bind: "127.0.0.1:0", http2: { ping: 200ms } } }
upstreams: { origin: { endpoints: ["{origin}"] } }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", &origin)],
    );
    let mut frames = Frames::connect(gateway.address(), &[]);
    frames.send(&frames::get(1, "/"));
    for _ in 0..3 {
        let ping = frames.find(|frame| frame.kind == frames::PING).unwrap();
        frames.send(&frames::frame(frames::PING, frames::ACK, 0, &ping.payload));
    }
    gate.open();
    assert_eq!(frames.status(1), 200);
}
