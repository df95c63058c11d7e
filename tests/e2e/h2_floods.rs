//! HTTP/2 clients that make work instead of requests: each is ended or bounded, and somebody else is served meanwhile.

use std::time::{Duration, Instant};

use portcullis_tests::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, PADDED, PING, PREFACE, PRIORITY, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, block, frame, get, post, request, settings,
};
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::pieces::Gate;
use portcullis_tests::{eventually, memory};

/// RFC 9113 §7.
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const COMPRESSION_ERROR: u32 = 9;
const CALM: u32 = 11;

fn gateway(origin: &Origin) -> Gateway {
    Gateway::start(
        r#"
upstreams: { origin: { endpoints: ["{origin}"], timeouts: { response: 60s } } }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", origin)],
    )
}

/// An origin that answers `/ping` and lets everything else wait.
fn waiting() -> Origin {
    let gate = Gate::default();
    Origin::start(move |seen| match seen.uri.path() {
        "/ping" => Answer::ok("pong"),
        _ => Answer::ok("late").after(&gate),
    })
}

/// Sends the same bytes over and over, for as long as they are taken and a time at most. Asks for a page now and then, over
/// another connection, and wants it. Answers how the connection was ended.
fn flood(gateway: &Gateway, frames: &mut Frames, mut bytes: impl FnMut(u32) -> Vec<u8>) -> Option<u32> {
    let (began, before) = (Instant::now(), memory());
    let mut round = 0;
    while round < 200_000 && began.elapsed() < Duration::from_secs(10) && frames.try_send(&bytes(round)) {
        round += 1;
        if round % 500 == 0 {
            assert_eq!(gateway.get("/ping").status(), 200, "another client after {round} rounds");
        }
    }
    assert_eq!(gateway.get("/ping").status(), 200, "the next client");
    let grown = memory().saturating_sub(before);
    assert!(grown < 100 << 20, "{grown} bytes more after {round} rounds");
    frames.goodbye()
}

/// Waits until that many requests have reached the origin, but not for ever: a connection that was ended sends no more.
fn wait_for_requests(origin: &Origin, many: usize) {
    let began = Instant::now();
    let late = || origin.seen().iter().filter(|seen| seen.uri.path() == "/late").count();
    while late() < many && began.elapsed() < Duration::from_secs(1) {
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

fn floods(gateway: &Gateway, kind: &str) -> f64 {
    gateway.metric("portcullis_http2_floods_total", &[&format!("kind=\"{kind}\"")])
}

/// A connection that gave in sent GOAWAY with this code, or was reset by the system while the flood still came in.
fn assert_ended(what: &str, gateway: &Gateway, code: Option<u32>, want: &[u32]) {
    assert!(code.is_none_or(|code| want.contains(&code)), "{what}: {code:?}");
    eventually("its connection is gone", || gateway.metric("portcullis_connections_open", &[]) == 0.0);
    eventually("its requests are gone", || gateway.metric("http_server_active_requests", &[]) == 0.0);
}

#[test]
fn frames_that_move_nothing_end_the_connection() {
    for (kind, bytes) in [
        ("settings", frame(SETTINGS, 0, 0, &settings(&[(4, 70_000)]))),
        ("settings", frame(SETTINGS, 0, 0, &[])),
        ("ping", frame(PING, 0, 0, &[7; 8])),
        ("priority", frame(PRIORITY, 0, 5, &[0, 0, 0, 0, 1])),
        ("window_update", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("other", frame(0xee, 0, 0, b"?")),
    ] {
        let origin = waiting();
        let gateway = gateway(&origin);
        let mut frames = Frames::connect(gateway.address(), &[]);
        let code = flood(&gateway, &mut frames, |_| bytes.repeat(10));
        assert_eq!(floods(&gateway, kind), 1.0, "{kind}");
        assert_ended(kind, &gateway, code, &[CALM]);
    }
}

/// As above, but the client reads nothing of what it provokes: answers must not pile up.
#[test]
fn answers_to_pings_do_not_pile_up_for_a_client_that_does_not_read() {
    let origin = waiting();
    let gateway = gateway(&origin);
    let before = memory();
    let mut all: Vec<Frames> = (0..20).map(|_| Frames::connect(gateway.address(), &[])).collect();
    for frames in &mut all {
        for _ in 0..1000 {
            if !frames.try_send(&frame(PING, 0, 0, &[7; 8]).repeat(10)) {
                break;
            }
        }
    }
    assert_eq!(gateway.get("/ping").status(), 200);
    assert!(memory().saturating_sub(before) < 100 << 20);
    eventually("all are gone", || gateway.metric("portcullis_connections_open", &[]) == 0.0);
    assert_eq!(floods(&gateway, "ping"), 20.0);
}

/// CVE-2023-44487. The upstream sees no more requests than the connection was allowed to begin.
#[test]
fn requests_taken_back_at_once_end_the_connection() {
    for pause in [Duration::ZERO, Duration::from_micros(200)] {
        let origin = waiting();
        let gateway = gateway(&origin);
        let mut frames = Frames::connect(gateway.address(), &[]);
        let code = flood(&gateway, &mut frames, |round| {
            std::thread::park_timeout(pause);
            let stream = round * 2 + 1;
            [get(stream, "/late"), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
        });
        assert_ended("rapid reset", &gateway, code, &[CALM]);
        let begun = origin.seen().iter().filter(|seen| seen.uri.path() == "/late").count();
        assert!(begun <= 500, "{begun} requests reached the upstream");
    }
}

/// The same with the request given time to reach the upstream, so that the library never finds it unseen.
#[test]
fn requests_taken_back_after_they_were_sent_on_end_the_connection() {
    let origin = waiting();
    let gateway = gateway(&origin);
    let mut frames = Frames::connect(gateway.address(), &[]);
    let code = flood(&gateway, &mut frames, |round| {
        let stream = round * 2 + 1;
        let resets = (0..90).map(|at| frame(RST_STREAM, 0, stream.saturating_sub(2 + at * 2), &[0, 0, 0, 8]));
        // Ninety open at a time, taken back together once the others of them are under way.
        if round % 90 == 89 {
            wait_for_requests(&origin, round as usize / 90 * 89 + 89);
            [get(stream, "/late"), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]), resets.take(89).flatten().collect()]
                .concat()
        } else {
            get(stream, "/late")
        }
    });
    assert_eq!(floods(&gateway, "reset"), 1.0);
    assert_ended("resets in flight", &gateway, code, &[CALM]);
}

/// CVE-2025-8671: the client errs so that the gateway does the resetting.
#[test]
fn requests_that_the_gateway_is_made_to_reset_end_the_connection() {
    type Mistake = fn(u32) -> Vec<u8>;
    let mistakes: [(&str, Mistake); 6] = [
        ("no increment", |stream| [get(stream, "/late"), frame(WINDOW_UPDATE, 0, stream, &[0; 4])].concat()),
        ("too large a window", |stream| {
            [get(stream, "/late"), frame(WINDOW_UPDATE, 0, stream, &[0x7f, 255, 255, 255])].concat()
        }),
        ("DATA after the end", |stream| [get(stream, "/late"), frame(DATA, 0, stream, b"x")].concat()),
        ("HEADERS after the end", |stream| {
            [get(stream, "/late"), frame(HEADERS, END_HEADERS, stream, &block(&[("a", "b")]))].concat()
        }),
        ("a bad PRIORITY", |stream| {
            [get(stream, "/late"), frame(PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[1]].concat())].concat()
        }),
        ("more than announced", |stream| {
            let fields = [request("POST", "/late"), block(&[("content-length", "1")])].concat();
            [frame(HEADERS, END_HEADERS, stream, &fields), frame(DATA, 0, stream, b"xyz")].concat()
        }),
    ];
    for (what, mistake) in mistakes {
        let origin = waiting();
        let gateway = gateway(&origin);
        let mut frames = Frames::connect(gateway.address(), &[]);
        let code = flood(&gateway, &mut frames, |round| mistake(round * 2 + 1));
        assert_ended(what, &gateway, code, &[CALM, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, 5]);
        let begun = origin.seen().iter().filter(|seen| seen.uri.path() == "/late").count();
        assert!(begun <= 250, "{what}: {begun} requests reached the upstream");
    }
}

#[test]
fn a_header_block_without_end_ends_the_connection() {
    let origin = waiting();
    let gateway = gateway(&origin);
    for (what, piece) in
        [("empty", Vec::new()), ("fields", block(&[("a", "b")])), ("large", block(&[("a", &"b".repeat(8000))]))]
    {
        let mut frames = Frames::connect(gateway.address(), &[]);
        frames.send(&frame(HEADERS, END_STREAM, 1, &request("GET", "/late")));
        let code = flood(&gateway, &mut frames, |_| frame(CONTINUATION, 0, 1, &piece));
        assert_ended(what, &gateway, code, &[CALM, COMPRESSION_ERROR, PROTOCOL_ERROR]);
    }
}

#[test]
fn empty_and_tiny_pieces_of_a_body_nobody_reads_end_the_connection_or_wait() {
    let origin = waiting();
    let gateway = gateway(&origin);
    for (what, piece) in [
        ("empty", frame(DATA, 0, 1, &[])),
        ("only padding", frame(DATA, PADDED, 1, &[3, 0, 0, 0])),
        ("one byte", frame(DATA, 0, 1, b"x")),
    ] {
        let mut frames = Frames::connect(gateway.address(), &[]);
        frames.send(&post(1, "/late"));
        let code = flood(&gateway, &mut frames, |_| piece.repeat(10));
        assert!(code.is_none_or(|code| [CALM, FLOW_CONTROL_ERROR, PROTOCOL_ERROR].contains(&code)), "{what}: {code:?}");
        drop(frames);
        assert_ended(what, &gateway, None, &[]);
    }
}

/// An entry of the table that is large, and then named over and over: few bytes that stand for many.
#[test]
fn a_head_that_unpacks_to_too_much_is_refused() {
    let origin = waiting();
    let gateway = gateway(&origin);
    let before = memory();
    let mut frames = Frames::connect(gateway.address(), &[]);
    let mut bomb = request("GET", "/late");
    // A literal that enters the table: index 62 from now on.
    bomb.extend([0x40, 1, b'a', 127, 0x81, 0x1e]);
    bomb.extend(vec![b'b'; 4000]);
    bomb.extend(vec![0xbe; 12_000]);
    frames.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb[..bomb.len().min(16_384)]));
    let answered = frames.find(|frame| matches!(frame.kind, HEADERS | RST_STREAM | 7));
    let refused = answered.is_err() || answered.is_ok_and(|frame| frame.status().is_none_or(|status| status == 431));
    assert!(refused);
    assert!(memory().saturating_sub(before) < 50 << 20);
    assert_eq!(gateway.get("/ping").status(), 200);
    assert_eq!(origin.seen().iter().filter(|seen| seen.uri.path() == "/late").count(), 0);
}

#[test]
fn more_streams_than_are_allowed_are_refused_one_by_one() {
    let origin = waiting();
    let gateway = gateway(&origin);
    let mut frames = Frames::connect(gateway.address(), &[]);
    let all: Vec<u8> = (0..110).flat_map(|number| get(number * 2 + 1, "/late")).collect();
    frames.send(&all);
    for _ in 0..10 {
        let refused = frames.find(|frame| frame.kind == RST_STREAM).unwrap();
        assert_eq!(refused.code(), Some(7), "REFUSED_STREAM: it may be sent again");
        assert!(refused.stream > 200, "{}", refused.stream);
    }
    origin.wait_for(100);
    assert_eq!(gateway.get("/ping").status(), 200);
}

/// Windows that are never opened, or one byte at a time, on every stream of several connections.
#[test]
fn readers_that_do_not_read_cost_little_and_harm_nobody() {
    let big = bytes::Bytes::from(vec![7; 1 << 20]);
    let origin = Origin::start(move |seen| match seen.uri.path() {
        "/ping" => Answer::ok("pong"),
        _ => Answer::ok(big.clone()),
    });
    let gateway = gateway(&origin);
    let before = memory();
    let mut all = Vec::new();
    for window in [0, 1] {
        let mut frames = Frames::connect(gateway.address(), &[(4, window)]);
        for number in 0..50 {
            frames.send(&get(number * 2 + 1, "/big"));
        }
        for _ in 0..50 {
            // In whatever order they come.
            let head = frames.find(|frame| matches!(frame.kind, HEADERS | RST_STREAM)).unwrap();
            assert_eq!(head.status(), Some(200), "stream {}", head.stream);
        }
        all.push(frames);
    }
    for _ in 0..100 {
        let updates: Vec<u8> = (0..50).flat_map(|at| frame(WINDOW_UPDATE, 0, at * 2 + 1, &[0, 0, 0, 1])).collect();
        if !all[1].try_send(&updates) {
            break;
        }
        assert_eq!(gateway.get("/ping").status(), 200);
    }
    // A hundred responses of a mebibyte each, of which the origin's side in this process holds one copy.
    let grown = memory().saturating_sub(before);
    assert!(grown < 100 << 20, "{grown}");
    drop(all);
    eventually("nothing is active", || gateway.metric("http_server_active_requests", &[]) == 0.0);
}

#[test]
fn windows_cannot_be_opened_beyond_their_end() {
    let origin = waiting();
    let gateway = gateway(&origin);
    let mut frames = Frames::connect(gateway.address(), &[]);
    let most = frame(WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255]);
    frames.send(&most.repeat(2));
    assert_eq!(frames.goodbye(), Some(FLOW_CONTROL_ERROR));
    let mut frames = Frames::connect(gateway.address(), &[]);
    frames.send(&[get(1, "/late"), frame(WINDOW_UPDATE, 0, 1, &[0x7f, 255, 255, 255])].concat());
    let reset = frames.find(|frame| frame.kind == RST_STREAM).unwrap();
    assert_eq!((reset.stream, reset.code()), (1, Some(FLOW_CONTROL_ERROR)));
    frames.send(&get(3, "/ping"));
    assert_eq!(frames.status(3), 200);
}

/// What is a flood for one is a busy day for another: none of these may be mistaken.
#[test]
fn busy_clients_are_not_taken_for_attackers() {
    let origin = Origin::start(|seen| Answer::ok(format!("{} bytes", seen.body.len())));
    let gateway = gateway(&origin);
    let mut frames = Frames::connect(gateway.address(), &[]);
    for round in 0..1000 {
        let stream = round * 2 + 1;
        let bytes = [
            post(stream, "/"),
            frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 1]),
            frame(DATA, 0, stream, b"some"),
            frame(DATA, END_STREAM, stream, &[]),
            frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 7]),
            frame(PING, 0, 0, &[0; 8]),
        ];
        frames.send(&bytes.concat());
        assert_eq!(frames.status(stream), 200, "round {round}");
    }
    // Half of a browser's tabs are closed at once.
    let begun: Vec<u8> = (1000..1080).flat_map(|round| get(round * 2 + 1, "/")).collect();
    let ended: Vec<u8> = (1000..1080).flat_map(|round| frame(RST_STREAM, 0, round * 2 + 1, &[0, 0, 0, 8])).collect();
    frames.send(&begun);
    std::thread::park_timeout(Duration::from_millis(100));
    frames.send(&ended);
    frames.send(&get(5001, "/"));
    assert_eq!(frames.status(5001), 200);
}

#[test]
fn a_preface_that_is_none_is_refused() {
    let origin = waiting();
    let gateway = gateway(&origin);
    for bytes in [&b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\n\r\n", b"PRI / HTTP/1.1\r\n\r\n"] {
        let mut frames = Frames::silent(gateway.address());
        frames.send(bytes);
        frames.wire.finish_sending();
        let answer = String::from_utf8_lossy(&frames.wire.rest()).into_owned();
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 505"),
            "{answer}"
        );
    }
    let mut frames = Frames::silent(gateway.address());
    frames.send(&[PREFACE, &get(1, "/ping")].concat());
    assert_eq!(frames.goodbye(), Some(PROTOCOL_ERROR), "SETTINGS come first");
    assert_eq!(gateway.get("/ping").status(), 200);
}
