//! Upstreams over HTTP/2: one connection for many, and what an endpoint refuses goes elsewhere.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::pieces::Gate;
use portcullis_tests::raw::RawOrigin;
use portcullis_tests::wire::Wire;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// For SETTINGS.
const ACK: u8 = 1;
/// The block and the stream end here.
const WHOLE: u8 = 0x5;
/// `:status: 200`, by its place in HPACK's table.
const OK: &[u8] = &[0x88];

/// An origin that speaks HTTP/2 as frames: the closure is told of each request when it is whole.
fn frames(max_streams: Option<u32>, answer: impl Fn(&mut Peer<'_>, usize, u32) + Send + Sync + 'static) -> RawOrigin {
    RawOrigin::start(move |wire, connection| {
        let mut peer = Peer { wire };
        let _ended = peer.serve(max_streams, |peer, stream| answer(peer, connection, stream));
    })
}

struct Peer<'a> {
    wire: &'a mut Wire,
}

impl Peer<'_> {
    fn serve(&mut self, max_streams: Option<u32>, answer: impl Fn(&mut Self, u32)) -> io::Result<()> {
        self.wire.exactly(24)?;
        let settings = max_streams.map(|max| [&3_u16.to_be_bytes()[..], &max.to_be_bytes()].concat());
        self.send(SETTINGS, 0, 0, &settings.unwrap_or_default());
        loop {
            let head = self.wire.exactly(9)?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            self.wire.exactly(length as usize)?;
            match kind {
                SETTINGS if flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[]),
                HEADERS | DATA if flags & 1 == 1 => answer(self, stream),
                DATA => self.send(WINDOW_UPDATE, 0, stream, &length.max(1).to_be_bytes()),
                _ => {}
            }
        }
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags];
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        let _gone = self.wire.write(bytes);
    }

    fn ok(&mut self, stream: u32) {
        self.send(HEADERS, WHOLE, stream, OK);
    }

    fn reset(&mut self, stream: u32, code: u32) {
        self.send(RST_STREAM, 0, stream, &code.to_be_bytes());
    }

    fn go_away(&mut self, last: u32) {
        self.send(GOAWAY, 0, 0, &[last.to_be_bytes(), 0_u32.to_be_bytes()].concat());
    }
}

fn over(origin: &dyn std::fmt::Display) -> Gateway {
    Gateway::start(
        r#"
upstreams: { origin: { endpoints: ["{origin}"], protocol: http2 } }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", origin)],
    )
}

fn retried(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric("portcullis_upstream_retries_total", &[&format!("reason=\"{reason}\"")])
}

#[test]
fn a_burst_on_a_cold_pool_opens_one_connection() {
    let gate = Gate::default();
    let origin = Origin::always(Answer::ok("ok").after(&gate));
    let gateway = over(&origin);
    let client = gateway.h2();
    let opener = std::thread::spawn(move || {
        let answers = client.get_at_once(&["/"; 80]);
        assert!(answers.into_iter().all(|answer| answer.unwrap().text() == "ok"));
    });
    origin.wait_for(80);
    gate.open();
    opener.join().unwrap();
    assert!(origin.seen().iter().all(|request| request.connection == 1));
    assert_eq!(gateway.metric("portcullis_upstream_connections_total", &[]), 1.0);
}

#[test]
fn a_limit_on_streams_is_kept_and_costs_no_request() {
    // The endpoint allows two streams at a time, refuses any beyond, and takes its time.
    let (open, most) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let peak = most.clone();
    let origin = frames(Some(2), move |peer, connection, stream| {
        let here = {
            let mut open = open.lock().unwrap();
            open.push(connection);
            open.iter().filter(|of| **of == connection).count()
        };
        peak.fetch_max(here, Ordering::SeqCst);
        let (open, socket) = (open.clone(), peer.wire.stream().try_clone().unwrap());
        std::thread::spawn(move || {
            std::thread::park_timeout(Duration::from_millis(5));
            let mut open = open.lock().unwrap();
            let at = open.iter().position(|of| *of == connection).unwrap();
            open.swap_remove(at);
            let mut wire = Wire::new(socket);
            let mut peer = Peer { wire: &mut wire };
            if here > 2 { peer.reset(stream, 7) } else { peer.ok(stream) }
        });
    });
    let gateway = over(&origin);
    let client = gateway.h2();
    for burst in [1, 3, 40] {
        let answers = client.get_at_once(&vec!["/"; burst]);
        let statuses: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().status).collect();
        assert!(statuses.iter().all(|status| *status == 200), "{burst} at once: {statuses:?}");
    }
    assert!(most.load(Ordering::SeqCst) <= 2, "streams beyond the limit were opened");
}

#[test]
fn what_an_endpoint_refuses_unprocessed_is_sent_again_whatever_it_is() {
    for method in ["GET", "POST"] {
        for body in ["", "a body"] {
            let asked = AtomicUsize::new(0);
            let origin = frames(None, move |peer, _, stream| match asked.fetch_add(1, Ordering::SeqCst) {
                0 => peer.reset(stream, 7),
                _ => peer.ok(stream),
            });
            let gateway = over(&origin);
            assert_eq!(gateway.ask(method, "/", &[], body).status(), 200, "{method} {body:?}");
            assert_eq!(retried(&gateway, "unprocessed"), 1.0, "{method} {body:?}");
        }
    }
    let origin = frames(None, |peer, _, stream| peer.reset(stream, 7));
    let gateway = over(&origin);
    assert_eq!(gateway.get("/").status(), 502, "not for ever");
    assert_eq!(retried(&gateway, "unprocessed"), 2.0);
}

#[test]
fn a_stream_that_is_reset_for_another_reason_is_not() {
    for code in [2, 8] {
        let origin = frames(None, move |peer, _, stream| peer.reset(stream, code));
        let gateway = over(&origin);
        for method in ["GET", "POST"] {
            assert_eq!(gateway.ask(method, "/", &[], "").status(), 502, "{method} {code}");
        }
        assert_eq!(retried(&gateway, "unprocessed"), 0.0);
    }
}

#[test]
fn going_away_costs_no_request() {
    // The first connection goes away when its second request has arrived, and takes only the first.
    let origin = frames(None, |peer, connection, stream| match (connection, stream) {
        (1, 3) => peer.go_away(1),
        (1, 1) | (2.., _) => peer.ok(stream),
        (_, _) => {}
    });
    for (method, body) in [("GET", ""), ("POST", "a body")] {
        let gateway = over(&origin);
        let mut client = gateway.client();
        assert_eq!(client.get("/").status(), 200);
        assert_eq!(client.ask(method, "/", &[], body).status(), 200, "{method}");
        assert_eq!(client.get("/").status(), 200);
    }
}

#[test]
fn a_connection_that_goes_away_finishes_what_it_took() {
    let gate = Arc::new((Mutex::new(false), std::sync::Condvar::new()));
    let held = gate.clone();
    let origin = frames(None, move |peer, connection, stream| {
        if connection > 1 {
            return peer.ok(stream);
        }
        peer.go_away(stream);
        let mut open = held.0.lock().unwrap();
        while !*open {
            open = held.1.wait(open).unwrap();
        }
        peer.ok(stream);
    });
    let gateway = over(&origin);
    let mut first = gateway.client();
    first.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
    portcullis_tests::eventually("the first connection is going away", || {
        gateway.get("/").status() == 200 && origin.connections() > 1
    });
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    assert_eq!(first.answer().status(), 200);
}

#[test]
fn heads_over_http2_are_bounded_too() {
    let many = (0..101).fold(Answer::ok("ok"), |answer, _| answer.header("x", "y"));
    let large = Answer::ok("ok").header("x", &"y".repeat(62 << 10));
    for answer in [many, large] {
        let origin = Origin::start(move |seen| if seen.target() == "/bad" { answer.clone() } else { Answer::ok("ok") });
        let gateway = over(&origin);
        assert_eq!(gateway.get("/bad").status(), 502);
        assert_eq!(gateway.get("/").text(), "ok");
    }
}
