//! Bodies on their way: framing, trailers, size, pace.

use std::sync::mpsc;

use bytes::Bytes;
use portcullis_tests::eventually;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::pieces::{Gate, Piece, fields};
use portcullis_tests::raw::RawOrigin;

/// No filter at all, and one that sees every piece.
const UNWATCHED_AND_WATCHED: [&str; 2] = ["[]", "[{ plugin: probe, config: \"\" }]"];

/// Bytes of which no two places look the same.
fn content(size: usize) -> Bytes {
    let words = (0_u32..).flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes());
    words.take(size).collect::<Vec<_>>().into()
}

#[test]
fn chunked_bodies_and_trailers_pass_both_ways() {
    let echo = |seen: &portcullis_tests::origin::Seen| {
        let trailer =
            seen.trailers.as_ref().and_then(|fields| fields.get("x-sum")).map(|sum| sum.to_str().unwrap().to_owned());
        let body = format!("{:?} {}", seen.body, trailer.unwrap_or_default());
        Answer::status(200).header("trailer", "x-after").data(body).trailers(&[("x-after", "9")])
    };
    for filters in UNWATCHED_AND_WATCHED {
        let origin = Origin::start(echo);
        let gateway = Gateway::in_front_of(&origin, filters);
        for path in ["/x", "/h2/x"] {
            let mut client = gateway.client();
            client.send(format!(
                "POST {path} HTTP/1.1\r\nhost: test\r\nte: trailers\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n\
                 3\r\nabc\r\n2\r\nde\r\n0\r\nx-sum: 5\r\n\r\n"
            ));
            let answer = client.answer();
            assert_eq!((answer.status(), answer.text().as_str()), (200, "b\"abcde\" 5"), "{path} {filters}");
            assert_eq!(answer.trailers, [("x-after".to_owned(), "9".to_owned())], "{path} {filters}");
            assert!(answer.complete);
            let body = [Piece::Data("abcde".into()), Piece::Trailers(fields(&[("x-sum", "5")]))];
            let answer = gateway.h2().ask("POST", path, &[("te", "trailers"), ("trailer", "x-sum")], body).unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (200, "b\"abcde\" 5"), "{path} {filters} from HTTP/2");
            let trailers = answer.trailers.unwrap_or_default();
            assert_eq!(trailers.get("x-after").map(|v| v.as_bytes()), Some(&b"9"[..]), "{path} {filters} from HTTP/2");
        }
    }
}

#[test]
fn lengths_that_were_announced_stay_announced() {
    for filters in UNWATCHED_AND_WATCHED {
        let origin = Origin::always(Answer::ok("0123456789"));
        let gateway = Gateway::in_front_of(&origin, filters);
        let answer = gateway.ask("POST", "/", &[], "hello");
        assert_eq!((answer.get("content-length"), answer.get("transfer-encoding")), (Some("10"), None), "{filters}");
        let seen = origin.last();
        assert_eq!((seen.get("content-length"), seen.get("transfer-encoding")), (Some("5"), None), "{filters}");
        let answer =
            gateway.h2().ask("POST", "/h2/", &[("content-length", "5")], [Piece::Data("hello".into())]).unwrap();
        assert_eq!(answer.get("content-length"), Some("10"), "{filters}");
        assert_eq!(origin.last().get("content-length"), Some("5"), "{filters}");
    }
}

#[test]
fn a_client_that_waits_for_100_is_told_to_go_on() {
    for filters in UNWATCHED_AND_WATCHED {
        let origin = Origin::plain();
        let gateway = Gateway::in_front_of(&origin, filters);
        let mut client = gateway.client();
        client.send("POST / HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n");
        assert_eq!(client.0.head().unwrap().status(), 100, "{filters}");
        client.send("body");
        assert_eq!(client.answer().status(), 200);
        assert_eq!((origin.last().body, origin.last().headers.get("expect")), (Bytes::from("body"), None));
    }
}

#[test]
fn a_refused_client_that_waits_for_100_never_sends_its_body() {
    let origin = Origin::plain();
    let gateway = Gateway::probed(&origin, "reply=403");
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n");
    assert_eq!(client.answer().status(), 403);
}

#[test]
fn large_bodies_arrive_as_they_were_sent() {
    let size = 32 << 20;
    let sent = content(size);
    for filters in UNWATCHED_AND_WATCHED {
        let body = sent.clone();
        let origin = Origin::start(move |_| {
            let pieces = (0..size).step_by(64 << 10).map(|at| body.slice(at..(at + (64 << 10)).min(size)));
            pieces.fold(Answer::status(200), Answer::data)
        });
        let gateway = Gateway::in_front_of(&origin, filters);
        let mut client = gateway.client();
        client.send(format!("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: {size}\r\n\r\n"));
        client.send(&sent);
        let answer = client.answer();
        assert!(answer.complete && answer.body == sent, "{filters}: {} bytes came back", answer.body.len());
        assert!(origin.last().body == sent, "{filters}: {} bytes went up", origin.last().body.len());
        let pieces: Vec<_> = (0..size).step_by(1 << 20).map(|at| Piece::Data(sent.slice(at..at + (1 << 20)))).collect();
        let answer = gateway.h2().ask("POST", "/h2/", &[], pieces).unwrap();
        assert!(answer.complete && answer.body == sent, "{filters}: {} bytes came back over HTTP/2", answer.body.len());
        assert!(origin.last().body == sent, "{filters}: {} bytes went up over HTTP/2", origin.last().body.len());
    }
}

#[test]
fn events_reach_the_client_while_the_origin_holds_the_rest() {
    for filters in UNWATCHED_AND_WATCHED {
        let gate = Gate::default();
        let answer = Answer::status(200).header("content-type", "text/event-stream").data("data: 1\n\n");
        let origin = Origin::always(answer.wait(&gate).data("data: 2\n\n"));
        let gateway = Gateway::in_front_of(&origin, filters);
        let mut client = gateway.client();
        client.send("GET /events HTTP/1.1\r\nhost: test\r\n\r\n");
        assert_eq!(client.0.head().unwrap().status(), 200);
        assert_eq!(client.0.chunk().unwrap(), b"data: 1\n\n", "{filters}");
        let h2 = gateway.h2();
        let mut body = h2.begin("/h2/events").into_body();
        assert_eq!(h2.data(&mut body).unwrap().as_deref(), Some(&b"data: 1\n\n"[..]), "{filters}");
        gate.open();
        assert_eq!(client.0.chunk().unwrap(), b"data: 2\n\n");
        assert_eq!(client.0.chunk().unwrap(), b"");
        assert_eq!(h2.data(&mut body).unwrap().as_deref(), Some(&b"data: 2\n\n"[..]), "{filters}");
    }
}

#[test]
fn an_upload_reaches_the_origin_piece_by_piece() {
    for filters in UNWATCHED_AND_WATCHED {
        let (told, heard) = mpsc::channel();
        let told = std::sync::Mutex::new(told);
        let origin = RawOrigin::start(move |wire, _| {
            let Ok(_) = wire.head() else { return };
            while let Ok(chunk) = wire.chunk() {
                let last = chunk.is_empty();
                let _test_is_over = told.lock().unwrap().send(chunk);
                if last {
                    let _gone = wire.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
                    return;
                }
            }
        });
        let gateway = Gateway::in_front_of(&origin, filters);
        let mut client = gateway.client();
        client.send("POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
        for piece in ["one", "two", "three"] {
            client.0.write_chunk(piece).unwrap();
            let arrived = heard.recv_timeout(portcullis_tests::PATIENCE).unwrap();
            assert_eq!(arrived, piece.as_bytes(), "{filters}: it arrives before the next is sent");
        }
        client.send("0\r\n\r\n");
        assert_eq!(client.answer().status(), 200);
    }
}

#[test]
fn a_client_that_leaves_cancels_what_it_asked_for() {
    for filters in UNWATCHED_AND_WATCHED {
        for path in ["/", "/h2/"] {
            let origin = Origin::always(Answer::status(200).data("begun").wait(&Gate::default()).data("never"));
            let gateway = Gateway::in_front_of(&origin, filters);
            let mut client = gateway.client();
            client.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"));
            assert_eq!(client.0.head().unwrap().status(), 200);
            assert_eq!(client.0.chunk().unwrap(), b"begun");
            drop(client);
            origin.wait_for_cancellation();
        }
    }
}

#[test]
fn a_client_that_leaves_before_the_answer_is_forgotten() {
    let origin = Origin::always(Answer::ok("late").after(&Gate::default()));
    let gateway = Gateway::in_front_of(&origin, "[]");
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
    origin.wait_for(1);
    drop(client);
    eventually("no request is active", || gateway.metric("http_server_active_requests", &[]) == 0.0);
}

#[test]
fn a_client_that_does_not_read_stops_the_origin() {
    let chunk = Bytes::from(vec![7; 64 << 10]);
    let pieces = 4096;
    for filters in UNWATCHED_AND_WATCHED {
        for path in ["/", "/h2/"] {
            let chunk = chunk.clone();
            let origin = Origin::start(move |seen| match seen.uri.path() {
                "/ping" => Answer::ok(""),
                _ => (0..pieces).fold(Answer::status(200), |answer, _| answer.data(chunk.clone())),
            });
            let gateway = Gateway::in_front_of(&origin, filters);
            let mut client = gateway.client();
            client.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"));
            assert_eq!(client.0.head().unwrap().status(), 200);
            // It has stopped when it does not get further while another request is served several times.
            let mut before = usize::MAX;
            eventually("the origin stands still", || {
                let _served = (0..20).map(|_| gateway.get("/ping").status()).sum::<u16>();
                std::mem::replace(&mut before, origin.pulled()) == origin.pulled()
            });
            let all = pieces * (64 << 10);
            assert!(before < all / 8, "{filters} {path}: {before} of {all} bytes for a client that does not read");
        }
    }
}

#[test]
fn an_origin_that_does_not_read_stops_the_client() {
    for filters in UNWATCHED_AND_WATCHED {
        let (release, held) = mpsc::channel::<()>();
        let held = std::sync::Mutex::new(held);
        let origin = RawOrigin::start(move |wire, _| {
            let _head = wire.head();
            let _test_is_over = held.lock().unwrap().recv();
        });
        let gateway = Gateway::in_front_of(&origin, filters);
        let client = gateway.client();
        let mut stream = client.0.stream().try_clone().unwrap();
        stream.set_write_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
        let length = 1_usize << 30;
        std::io::Write::write_all(
            &mut stream,
            format!("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n").as_bytes(),
        )
        .unwrap();
        let piece = vec![7; 64 << 10];
        let mut sent = 0;
        while let Ok(size) = std::io::Write::write(&mut stream, &piece) {
            sent += size;
            assert!(sent < 64 << 20, "{filters}: the gateway takes all there is");
        }
        drop(release);
        drop((client, stream));
        eventually("the client's connection is closed", || gateway.metric("portcullis_connections_open", &[]) == 0.0);
    }
}
