//! Upstreams that answer what is no answer, or two: row 33 of the threat model.
//!
//! Each answer comes from an origin that sends bytes. After each, three things are looked at: what the client got, that the
//! connection was not used again, and that the next request is served as if nothing had happened.

use std::sync::Arc;

use portcullis_tests::client::{Client, request};
use portcullis_tests::eventually;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::raw::RawOrigin;
use portcullis_tests::wire::Message;
use serde_json::Value;

/// What a client sees of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    /// A 502 with this code word.
    Refused(&'static str),
    /// The head, and a body that is visibly cut.
    Cut,
    /// The whole answer, with this body.
    Whole(u16, &'static str),
}

const MALFORMED: View = View::Refused("upstream_protocol");
const BROKEN: View = View::Refused("upstream_reset");
const GOOD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood";

/// An origin whose first connection answers its first request with these bytes and then waits, or closes. Anything else that is
/// asked of that connection is answered with `reused`. Other connections answer as they should.
fn hostile(bytes: &[u8], then: Then) -> RawOrigin {
    let bytes = Arc::new(bytes.to_vec());
    RawOrigin::start(move |wire, number| {
        if number > 1 {
            while wire.message().is_ok() {
                let _gone = wire.write(GOOD);
            }
            return;
        }
        if wire.message().is_err() {
            return;
        }
        let _gone = wire.write(&*bytes);
        if then != Then::Closes {
            while wire.message().is_ok() {
                let _gone = wire.write("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nreused");
            }
        }
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// The connection stays open.
    Stays,
    /// It is closed after the bytes.
    Closes,
}

fn view(answer: &Message) -> View {
    let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match (answer.status(), problem["code"].as_str(), answer.complete) {
        (502, Some("upstream_protocol"), true) => MALFORMED,
        (502, Some("upstream_reset"), true) => BROKEN,
        (_, _, false) => View::Cut,
        (status, _, true) => View::Whole(status, String::leak(answer.text())),
    }
}

/// Asks, and looks at what comes of it over a client's connection.
fn look(gateway: &Gateway, method: &str) -> (View, Client) {
    let mut client = gateway.client();
    let answer = client.ask(method, "/", &[], "");
    (view(&answer), client)
}

fn check(method: &str, bytes: impl AsRef<[u8]>, then: Then, want: View) {
    let bytes = bytes.as_ref();
    let shown = String::from_utf8_lossy(bytes.get(..bytes.len().min(200)).unwrap()).into_owned();
    for filters in ["[]", "[{ plugin: probe, config: \"\" }]"] {
        let what = format!("{method} {shown:?} {then:?} through {filters}");
        let origin = hostile(bytes, then);
        let gateway = Gateway::in_front_of(&origin, filters);
        let (seen, mut client) = look(&gateway, method);
        assert_eq!(seen, want, "{what}");
        if seen == View::Cut {
            assert!(client.0.is_closed(), "{what}: a client that was cut off must not take what follows for the rest");
            client = gateway.client();
        }
        for _ in 0..2 {
            let next = client.get("/");
            assert_eq!((next.status(), next.text().as_str(), next.complete), (200, "good", true), "{what}: the next");
        }
        let logged = gateway.metric("portcullis_upstream_violations_total", &[]);
        let is_violation = want == MALFORMED || origin.connections() == 2 && then == Then::Stays;
        assert!(logged > 0.0 || !is_violation, "{what}: it was not counted");
        assert_eq!(origin.connections(), 2, "{what}: one connection for the answer, one for all that follows");
    }
}

#[test]
fn heads_that_can_be_read_in_two_ways_are_refused() {
    for head in [
        "content-length: 2\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 2",
        "content-length: 2\r\ncontent-length: 3",
        "content-length: 2\r\ncontent-length: 2",
        "content-length: 2, 3",
        "content-length: +2",
        "content-length: -2",
        "content-length: 0x2",
        "content-length: two",
        "content-length: 18446744073709551616",
        "content-length: 99999999999999999999999999999999",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding: xchunked",
        "transfer-encoding : chunked",
        "x: y\n content-length: 2",
        "x: y\r\n folded: z",
        "x: y\rcontent-length: 2",
        "x: a\0b",
        "x: a\x01b",
        "x y: z",
        ": z",
        "nonsense",
    ] {
        check("GET", format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n2\r\nok\r\n0\r\n\r\n"), Then::Stays, MALFORMED);
    }
    for start in [
        "HTTP/0.9 200 OK",
        "HTTP/1.2 200 OK",
        "HTTP/2.0 200 OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 abc OK",
        "HTTP/1.1 200 O\0K",
        "http/1.1 200 OK",
        "ICY 200 OK",
        "<html>hello</html>",
        "SSH-2.0-OpenSSH_9.2",
        "\x16\x03\x01\x02",
        "",
    ] {
        check("GET", format!("{start}\r\ncontent-length: 2\r\n\r\nok"), Then::Stays, MALFORMED);
    }
    check("GET", "HTTP/1.1 200 OK\ncontent-length: 2\n\nok", Then::Stays, MALFORMED);
    check("GET", "no line end at all", Then::Stays, MALFORMED);
    check("GET", "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", Then::Stays, MALFORMED);
    check("GET", "HTTP/1.1 204 No\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", Then::Stays, MALFORMED);
}

#[test]
fn heads_are_bounded() {
    let many = "x: y\r\n".repeat(101);
    check("GET", format!("HTTP/1.1 200 OK\r\n{many}\r\n"), Then::Stays, MALFORMED);
    let large = format!("x: {}\r\n", "y".repeat(62 << 10));
    check("GET", format!("HTTP/1.1 200 OK\r\n{large}content-length: 0\r\n\r\n"), Then::Stays, MALFORMED);
    let endless = "y".repeat(100 << 10);
    check("GET", format!("HTTP/1.1 200 OK\r\nx: {endless}"), Then::Stays, MALFORMED);
}

#[test]
fn interim_answers_are_bounded_and_switching_must_be_asked_for() {
    let early = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    check("GET", early.repeat(1000), Then::Stays, MALFORMED);
    check("GET", "HTTP/1.1 100 Continue\r\n\r\n".repeat(17), Then::Stays, MALFORMED);
    let bytes = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n\x01\x02";
    check("GET", bytes, Then::Stays, MALFORMED);
    check("GET", "HTTP/1.1 103 Early\r\ncontent-length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\n\r\n", Then::Stays, MALFORMED);
}

#[test]
fn chunks_that_are_none_cut_the_answer() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for body in [
        "5;ext=1\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        "\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhelloo\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "ffffffffffffffffff\r\nhello",
        "00000000000000005\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\ncontent-length: 7\r\n\r\n",
        "5\r\nhello\r\n0\r\ntransfer-encoding: chunked\r\n\r\n",
        "5\r\nhello\r\n0\r\nx: a\0b\r\n\r\n",
        "5\r\nhello\r\n0\r\n folded\r\n\r\n",
    ] {
        check("GET", format!("{head}{body}"), Then::Stays, MALFORMED);
    }
}

/// The same, where the head has long reached the client.
#[test]
fn a_body_that_goes_wrong_later_is_visibly_cut() {
    for filters in ["[]", "[{ plugin: probe, config: \"\" }]"] {
        for (head, body) in [
            ("transfer-encoding: chunked", "5;ext=1\r\nhello\r\n0\r\n\r\n"),
            ("transfer-encoding: chunked", "zz\r\n"),
            ("transfer-encoding: chunked", "0\r\ncontent-length: 7\r\n\r\n"),
        ] {
            let (seen, waits) = std::sync::mpsc::channel::<()>();
            let waits = std::sync::Mutex::new(waits);
            let origin = RawOrigin::start(move |wire, number| {
                while wire.message().is_ok() {
                    if number > 1 {
                        let _gone = wire.write(GOOD);
                        continue;
                    }
                    let _gone = wire.write(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n3\r\nabc\r\n"));
                    let _test_is_over = waits.lock().unwrap().recv();
                    let _gone = wire.write(body);
                }
            });
            let gateway = Gateway::in_front_of(&origin, filters);
            let mut client = gateway.client();
            client.send(request("GET", "/", &[], ""));
            let head = client.0.head().unwrap();
            assert_eq!((head.status(), client.0.chunk().unwrap().as_slice()), (200, &b"abc"[..]));
            seen.send(()).unwrap();
            assert!(!client.0.body(head).complete, "{body:?} through {filters}");
            assert!(client.0.is_closed(), "{body:?} through {filters}");
            let next = gateway.get("/");
            assert_eq!((next.text().as_str(), origin.connections()), ("good", 2), "{body:?} through {filters}");
            let reason = ["error_type=\"upstream_protocol\"", "http_response_status_code=\"200\""];
            eventually("it is logged", || gateway.metric("http_server_request_duration_seconds_count", &reason) == 1.0);
        }
    }
}

#[test]
fn answers_that_break_off_are_never_taken_for_whole() {
    for (bytes, want) in [
        ("", BROKEN),
        ("HTTP/1.1 200", BROKEN),
        ("HTTP/1.1 200 OK\r\ncontent-", BROKEN),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n", BROKEN),
        ("HTTP/1.1 103 Early\r\n\r\n", BROKEN),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", View::Cut),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab", View::Cut),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", View::Cut),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", View::Cut),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\n", View::Cut),
    ] {
        check("GET", bytes, Then::Closes, want);
    }
}

#[test]
fn what_follows_a_complete_answer_is_nobodys_answer() {
    let splitting = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad";
    for (method, answer, want) in [
        ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", View::Whole(200, "ok")),
        ("GET", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", View::Whole(200, "ok")),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", View::Whole(204, "")),
        ("GET", "HTTP/1.1 304 Not Modified\r\ncontent-length: 3\r\n\r\n", View::Whole(304, "")),
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", View::Whole(200, "")),
    ] {
        for extra in [splitting, "bad", "\r\n", "\0"] {
            check(method, format!("{answer}{extra}"), Then::Stays, want);
        }
    }
}

#[test]
fn an_answer_that_nobody_asked_for_is_nobodys_answer() {
    // The origin speaks first. Whether the gateway reads that before or after it has written its request is the system's choice;
    // either way the request gets an answer that was made for it.
    let origin = RawOrigin::start(|wire, number| {
        if number == 1 {
            let _gone = wire.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
            while wire.message().is_ok() {
                // The connection is idle again; before the next request there is an answer for it.
                let _gone = wire.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
                std::thread::park_timeout(std::time::Duration::from_millis(50));
                let _gone = wire.write("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison");
            }
        }
        while wire.message().is_ok() {
            let _gone = wire.write(GOOD);
        }
    });
    let gateway = Gateway::in_front_of(&origin, "[]");
    let _whichever = gateway.get("/");
    eventually("the poison has arrived", || {
        gateway.metric("portcullis_upstream_violations_total", &["unsolicited"]) > 0.0
    });
    for _ in 0..3 {
        assert_eq!(gateway.get("/").text(), "good");
    }
}
