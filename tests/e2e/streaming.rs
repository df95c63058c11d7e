//! Bodies that are larger than memory, slower than patience, or under way in both directions at once.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use portcullis_tests::client::H2;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::pieces::{Gate, Piece, fields};
use portcullis_tests::process::{Process, Start, free_address};
use portcullis_tests::raw::RawOrigin;
use portcullis_tests::streamer::Streamer;
use portcullis_tests::{PATIENCE, eventually};

/// No filter at all, and one that sees every piece.
const UNWATCHED_AND_WATCHED: [&str; 2] = ["[]", "[{ plugin: probe, config: \"\" }]"];

const PIECE: usize = 64 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

/// How many KiB more than at rest the gateway may have while anything passes, at any size.
const FLAT: u64 = 24 << 10;

const ROUTES: &str = r#"
upstreams:
  origin: { endpoints: ["{origin}"] }
  h2: { endpoints: ["{origin}"], protocol: http2 }
plugins: { probe: {guest:probe} }
routes:
  - { name: all, match: { path: "/*" }, upstream: origin }
  - { name: h2, match: { path: "/h2/*" }, upstream: h2 }
  - { name: seen, match: { path: "/seen/*" }, upstream: origin, filters: [{ plugin: probe, config: "" }] }
"#;

/// A process and the most memory it was seen to have.
struct Weighed {
    process: Process,
    most: u64,
}

impl Weighed {
    fn look(&mut self) {
        self.most = self.most.max(self.process.resident_kib());
    }

    /// Sends that much up; every so often looks at the memory.
    fn upload(&mut self, path: &str, size: usize) {
        let mut client = self.process.client();
        client.send(format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {size}\r\n\r\n"));
        let piece = vec![7; MIB];
        for number in 0..size / MIB {
            client.send(&piece);
            if number % 32 == 0 {
                self.look();
            }
        }
        assert_eq!(client.answer().text(), size.to_string(), "{path}");
    }

    fn download(&mut self, path: &str, size: usize) {
        let mut client = self.process.client();
        client.send(format!("GET {path}/bytes?{size} HTTP/1.1\r\nhost: test\r\n\r\n"));
        assert_eq!(client.0.head().unwrap().get("content-length"), Some(size.to_string().as_str()));
        let (mut left, mut next) = (size, size);
        while left > 0 {
            left -= client.0.some().unwrap().len();
            if left <= next {
                self.look();
                next = left.saturating_sub(32 * MIB);
            }
        }
    }

    fn upload_h2(&mut self, h2: &H2, path: &str, size: usize) {
        let piece = Bytes::from(vec![7; PIECE]);
        let answer = h2.ask("POST", path, &[], (0..size / PIECE).map(|_| Piece::Data(piece.clone()))).unwrap();
        self.look();
        assert_eq!(answer.text(), size.to_string(), "{path}");
    }

    fn download_h2(&mut self, h2: &H2, path: &str, size: usize) {
        let mut body = h2.begin(&format!("{path}/bytes?{size}")).into_body();
        let (mut got, mut number) = (0, 0);
        while let Some(piece) = h2.data(&mut body).unwrap() {
            got += piece.len();
            number += 1;
            if number % 2048 == 0 {
                self.look();
            }
        }
        assert_eq!(got, size, "{path}");
    }
}

/// The memory at rest after something has passed each way, and while `then` runs.
fn weigh(then: impl FnOnce(&mut Weighed)) -> (u64, u64) {
    let origin = Streamer::start();
    let process =
        Start::new(env!("CARGO_BIN_EXE_gateway"), &format!("workers: 1\n{ROUTES}"), &[("origin", &origin)]).start();
    let mut weighed = Weighed { process, most: 0 };
    for path in ["/x", "/h2/x", "/seen/x"] {
        weighed.upload(path, 8 * MIB);
        weighed.download(path, 8 * MIB);
    }
    let at_rest = weighed.process.resident_kib();
    weighed.most = 0;
    then(&mut weighed);
    (at_rest, weighed.most)
}

fn assert_flat((at_rest, most): (u64, u64)) {
    eprintln!("{at_rest} KiB at rest, {most} KiB at most");
    assert!(most > 0 && most < at_rest + FLAT, "{at_rest} KiB at rest, {most} KiB at most");
}

#[test]
fn a_gibibyte_passes_each_way_over_http1_in_flat_memory() {
    assert_flat(weigh(|weighed| {
        weighed.upload("/up", GIB);
        weighed.download("/down", GIB);
    }));
}

#[test]
fn a_quarter_of_that_passes_each_way_over_http2_in_flat_memory() {
    assert_flat(weigh(|weighed| {
        let h2 = H2::connect(weighed.process.address);
        weighed.upload_h2(&h2, "/h2/up", 256 * MIB);
        weighed.download_h2(&h2, "/h2/down", 256 * MIB);
    }));
}

#[test]
fn a_filter_that_watches_makes_no_difference_to_memory() {
    assert_flat(weigh(|weighed| {
        weighed.upload("/seen/up", 128 * MIB);
        weighed.download("/seen/down", 128 * MIB);
    }));
}

#[test]
fn both_sides_stream_at_once_and_answer_each_other() {
    let origin = Streamer::start();
    for filters in UNWATCHED_AND_WATCHED {
        let gateway = Gateway::in_front_of(&origin, filters);
        for path in ["/echo", "/h2/echo"] {
            let mut client = gateway.client();
            client.send(format!("POST {path} HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n"));
            client.0.write_chunk("one").unwrap();
            assert_eq!(client.0.head().unwrap().status(), 200, "{filters} {path}");
            assert_eq!(client.0.chunk().unwrap(), b"one", "{filters} {path}");
            for word in ["two", "three"] {
                client.0.write_chunk(word).unwrap();
                assert_eq!(client.0.chunk().unwrap(), word.as_bytes(), "{filters} {path}");
            }
            client.send("0\r\n\r\n");
            assert_eq!(client.0.chunk().unwrap(), b"");
            let gates = [Gate::default(), Gate::default()];
            let [first, second] = gates.clone();
            let (one, two, three) = (Piece::Data("one".into()), Piece::Data("two".into()), Piece::Data("three".into()));
            let h2 = gateway.h2();
            let pieces =
                [one, Piece::Wait(first), two, Piece::Wait(second), three, Piece::Trailers(fields(&[("x-a", "1")]))];
            let mut body = h2.start("POST", path, pieces).into_body();
            assert_eq!(h2.data(&mut body).unwrap().as_deref(), Some(&b"one"[..]), "{filters} {path} over HTTP/2");
            gates[0].open();
            assert_eq!(h2.data(&mut body).unwrap().as_deref(), Some(&b"two"[..]), "{filters} {path} over HTTP/2");
            gates[1].open();
            assert_eq!(h2.data(&mut body).unwrap().as_deref(), Some(&b"three"[..]), "{filters} {path} over HTTP/2");
        }
    }
}

#[test]
fn both_sides_stream_as_fast_as_they_can_without_a_deadlock() {
    let origin = Streamer::start();
    let size = 8 * MIB;
    for filters in UNWATCHED_AND_WATCHED {
        let gateway = Gateway::in_front_of(&origin, filters);
        for path in ["/echo", "/h2/echo"] {
            let mut client = gateway.client();
            client.send(format!("POST {path} HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n"));
            let mut writing = client.0.stream().try_clone().unwrap();
            let writer = thread::spawn(move || {
                let chunk = [format!("{PIECE:x}\r\n").as_bytes(), &vec![7; PIECE], b"\r\n"].concat();
                (0..size / PIECE).for_each(|_| writing.write_all(&chunk).unwrap());
                writing.write_all(b"0\r\n\r\n").unwrap();
            });
            let answer = client.answer();
            writer.join().unwrap();
            assert_eq!((answer.body.len(), answer.complete), (size, true), "{filters} {path}");
            let piece = Bytes::from(vec![7; PIECE]);
            let pieces = (0..size / PIECE).map(|_| Piece::Data(piece.clone()));
            let answer = gateway.h2().ask("POST", path, &[], pieces).unwrap();
            assert_eq!((answer.body.len(), answer.complete), (size, true), "{filters} {path} over HTTP/2");
        }
    }
}

#[test]
fn an_upload_that_breaks_off_never_looks_complete_to_the_upstream() {
    let origin = Streamer::start();
    for filters in UNWATCHED_AND_WATCHED {
        let gateway = Gateway::in_front_of(&origin, filters);
        for path in ["/up", "/h2/up"] {
            let (before, received) = (origin.broken(), origin.received());
            let mut client = gateway.client();
            client.send(format!("POST {path} HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n"));
            client.0.write_chunk("half").unwrap();
            eventually("the half has arrived", || origin.received() == received + 4);
            drop(client);
            eventually("the upstream sees it break off", || origin.broken() == before + 1);
            let (gate, h2) = (Gate::default(), gateway.h2());
            let body = [Piece::Data("half".into()), Piece::Wait(gate.clone()), Piece::Break];
            thread::scope(|scope| {
                scope.spawn(|| h2.ask("POST", path, &[], body));
                eventually("the half has arrived over HTTP/2", || origin.received() == received + 8);
                gate.open();
            });
            eventually("the upstream sees it break off over HTTP/2", || origin.broken() == before + 2);
        }
        eventually("no request is active", || gateway.metric("http_server_active_requests", &[]) == 0.0);
    }
}

#[test]
fn a_client_that_leaves_while_it_waits_is_missed_by_the_upstream() {
    let gone = Arc::new(AtomicBool::new(false));
    let seen = gone.clone();
    let (told, heard) = mpsc::channel();
    let told = Mutex::new(told);
    let origin = RawOrigin::start(move |wire, _| {
        let Ok(_) = wire.head() else { return };
        let _test_is_over = told.lock().unwrap().send(());
        seen.store(wire.is_closed(), Ordering::SeqCst);
    });
    let gateway = Gateway::in_front_of(&origin, "[]");
    let mut client = gateway.client();
    client.send("GET /slow HTTP/1.1\r\nhost: test\r\n\r\n");
    heard.recv_timeout(PATIENCE).unwrap();
    drop(client);
    eventually("the upstream's connection is closed", || gone.load(Ordering::SeqCst));
}

#[test]
fn an_upstream_that_leaves_during_an_upload_is_answered_for_at_once() {
    for filters in UNWATCHED_AND_WATCHED {
        let origin = RawOrigin::start(|wire, _| {
            let _head = wire.head();
            let _first = wire.chunk();
        });
        let gateway = Gateway::in_front_of(&origin, filters);
        let mut client = gateway.client();
        client.send("POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
        client.0.write_chunk("first").unwrap();
        assert_eq!(client.answer().status(), 502, "{filters}");
    }
}

#[test]
fn an_early_answer_reaches_the_client_although_its_upload_has_not_ended() {
    for filters in UNWATCHED_AND_WATCHED {
        let origin = RawOrigin::start(|wire, _| {
            let _head = wire.head();
            let _sent =
                wire.write("HTTP/1.1 413 Payload Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig");
            let _rest = wire.rest();
        });
        let gateway = Gateway::in_front_of(&origin, filters);
        let mut client = gateway.client();
        client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000\r\n\r\nbeginning");
        let answer = client.answer();
        assert_eq!((answer.status(), answer.text().as_str()), (413, "big"), "{filters}");
        assert!(client.0.is_closed(), "what it would still send is no request");
    }
}

#[test]
fn readers_that_have_stopped_do_not_stop_others_of_the_same_upstream_connection() {
    let origin = Streamer::start();
    let gateway = Gateway::in_front_of(&origin, "[]");
    let stopped: Vec<_> = (0..12)
        .map(|_| {
            let mut client = gateway.client();
            client.send(format!("GET /h2/bytes?{} HTTP/1.1\r\nhost: test\r\n\r\n", 8 * MIB));
            assert_eq!(client.0.head().unwrap().status(), 200);
            client
        })
        .collect();
    for _ in 0..10 {
        assert_eq!(gateway.get("/h2/bytes?100000").body.len(), 100_000);
    }
    drop(stopped);
}

#[test]
fn an_upload_that_is_stuck_does_not_stop_others_of_the_same_client_connection() {
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let stuck = RawOrigin::start(move |wire, _| {
        let _head = wire.head();
        let _released = held.lock().unwrap().recv();
    });
    let origin = Streamer::start();
    let text = format!("{ROUTES}  - {{ name: stuck, match: {{ path: /stuck }}, upstream: stuck }}\n")
        .replace("upstreams:", "upstreams:\n  stuck: { endpoints: [\"{stuck}\"] }");
    let gateway = Gateway::start(&text, &[("origin", &origin), ("stuck", &stuck)]);
    let h2 = gateway.h2();
    let piece = Bytes::from(vec![7; PIECE]);
    let many = |size: usize| (0..size / PIECE).map(|_| Piece::Data(piece.clone())).collect::<Vec<_>>();
    h2.offer("POST", "/stuck", many(8 * MIB));
    for _ in 0..3 {
        assert_eq!(h2.ask("POST", "/up", &[], many(MIB)).unwrap().text(), MIB.to_string());
    }
    drop(release);
}

#[test]
fn a_filter_that_pauses_stops_the_client_and_one_that_buffers_refuses_too_much() {
    let origin = Streamer::start();
    let gateway = Gateway::probed(&origin, "pause");
    let client = gateway.client();
    let mut stream = client.0.stream();
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    stream.write_all(format!("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: {GIB}\r\n\r\n").as_bytes()).unwrap();
    let piece = vec![7; PIECE];
    let mut sent = 0;
    while let Ok(size) = stream.write(&piece) {
        sent += size;
        assert!(sent < 64 * MIB, "a paused request is read to its end");
    }
    assert_eq!(origin.received(), 0);
    let gateway = Gateway::probed(&origin, "upper@request_body");
    let mut client = gateway.client();
    client.send(format!("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: {GIB}\r\n\r\n"));
    client.send(vec![7; 2 * MIB]);
    assert_eq!(client.answer().status(), 413);
    let gateway = Gateway::probed(&origin, "upper@response_body");
    let answer = gateway.get(&format!("/bytes?{}", 4 * MIB));
    assert!(answer.status() == 502 || !answer.complete, "{} with {} bytes", answer.status(), answer.body.len());
    assert_eq!(origin.received(), 0);
}

#[test]
fn no_body_is_asked_for_while_there_is_nobody_to_send_it_to() {
    let nobody = free_address();
    let gateway = Gateway::in_front_of(&nobody, "[]");
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n");
    assert_eq!(client.0.head().unwrap().status(), 503, "not 100 first");
}
