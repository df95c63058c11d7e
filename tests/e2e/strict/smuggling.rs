//! The known shapes of request smuggling over HTTP/1.1: whatever the shape, no second request arrives.
//!
//! Each is sent to the gateway the way an attacker would; a hidden request for `/smuggled` is in all of them. Either the request that
//! carries it is refused, or it arrives whole, with the hidden one as plain data in its body.

use portcullis_tests::gateway::Gateway;

use super::{Recorder, check, request, statuses};

const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nhost: test\r\nx: y\r\n\r\n";

/// The hidden request as a chunk, and the end of the chunks.
fn chunked() -> String {
    format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len())
}

#[test]
fn two_framings_are_refused_whatever_their_order_and_spelling() {
    let origin = Recorder::start();
    let gateway = Gateway::in_front_of(&origin.origin, "[]");
    let mut rows = Vec::new();
    // CL.TE and TE.CL.
    for fields in [
        "content-length: 6\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 6",
        "content-length: 0\r\ntransfer-encoding: chunked",
        "Content-Length: 4\r\nTRANSFER-ENCODING: CHUNKED",
        "transfer-encoding: chunked\r\ncontent-length: 6\r\nconnection: content-length",
        "transfer-encoding: chunked\r\ncontent-length: 6\r\nconnection: transfer-encoding",
    ] {
        rows.push((fields, request(fields, &format!("0\r\n\r\n{HIDDEN}")), 400));
    }
    // TE.TE: a coding that one side recognises and the other does not.
    for fields in [
        "transfer-encoding: xchunked",
        "transfer-encoding: chunkedx",
        "transfer-encoding: \"chunked\"",
        "transfer-encoding: 'chunked'",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: identity, chunked",
        "transfer-encoding: chunked, chunked",
        "transfer-encoding: chunked,",
        "transfer-encoding: ,chunked",
        "transfer-encoding: chunked;q=1",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: gzip",
        "transfer-encoding: identity",
        "transfer-encoding: cow",
        "transfer-encoding:",
        "transfer-encoding: chunked\r\ntransfer-encoding: x",
        "transfer-encoding: x\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding:\u{b}chunked",
        "transfer-encoding:\u{c}chunked",
        "transfer-encoding: chunked\u{b}",
        "transfer-encoding:\0chunked",
        "transfer-encoding: \u{a0}chunked",
        "transfer-encoding : chunked",
        "transfer-encoding\t: chunked",
        "transfer-encoding\0: chunked",
        "\u{b}transfer-encoding: chunked",
        " transfer-encoding: chunked",
        "x: y\r\n transfer-encoding: chunked",
        "x: y\ntransfer-encoding: chunked",
        "x: y\rtransfer-encoding: chunked",
        "x: y\r\rtransfer-encoding: chunked",
        "transfer-encoding\r\n: chunked",
        "transfer-encoding:\r\n chunked",
        "transfer-encoding\n: chunked",
        "transfer-\r\nencoding: chunked",
    ] {
        rows.push((fields, request(fields, &chunked()), 400));
    }
    // Lengths that two parsers read differently.
    for fields in [
        "content-length: 5\r\ncontent-length: 6",
        "content-length: 5\r\ncontent-length: 5",
        "content-length: 5, 6",
        "content-length: 5,5",
        "content-length: +5",
        "content-length: -5",
        "content-length: 0x5",
        "content-length: 5_0",
        "content-length: 5 0",
        "content-length: 5.0",
        "content-length: 5e1",
        "content-length: \"5\"",
        "content-length:",
        "content-length: 18446744073709551621",
        "content-length: 99999999999999999999999999999",
        "content-length : 5",
        "content-length\u{b}: 5",
        "content-length:\u{b}5",
        "content-length:\n5",
        "content-length: 5\0",
        "content-length: \u{661}",
    ] {
        rows.push((fields, request(fields, &format!("hello{HIDDEN}")), 400));
    }
    check(&gateway, &origin, &rows);
    let old = format!("POST /evil HTTP/1.0\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n{}", chunked());
    check(&gateway, &origin, &[("HTTP/1.0", old.into_bytes(), 400)]);
}

#[test]
fn chunks_that_two_parsers_read_differently_break_the_request_off() {
    let origin = Recorder::start();
    let gateway = Gateway::in_front_of(&origin.origin, "[]");
    let filtered = Gateway::probed(&origin.origin, "upper@request_body");
    for body in [
        "5;a=b\r\nhello\r\n0\r\n\r\n",
        "5;\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\t;x\r\nhello\r\n0\r\n\r\n",
        "5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n",
        "5;\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "\r\n5\r\nhello\r\n0\r\n\r\n",
        "5_0\r\nhello\r\n0\r\n\r\n",
        "00000000000000005\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\n",
        "5\r\nhello\r\n0\r\n\n",
        "5\r\nhello\r\n0;x\r\n\r\n",
        "5\r\nhello\r\n0\r\ncontent-length: 5\r\n\r\n",
        "5\r\nhello\r\n0\r\ntransfer-encoding: chunked\r\n\r\n",
        "5\r\nhello\r\n0\r\nx: a\nb: c\r\n\r\n",
        "5\r\nhello\r\n0\r\nx : a\r\n\r\n",
        "5\r\nhello\r\n0\r\n x: a\r\n\r\n",
    ] {
        for gateway in [&gateway, &filtered] {
            let bytes = request("transfer-encoding: chunked", &format!("{body}{HIDDEN}"));
            assert_eq!(statuses(gateway, &bytes), [400], "{body:?}");
            assert_eq!(gateway.get("/next").status(), 200, "{body:?}: the next client");
            portcullis_tests::eventually("the origin saw the next request", || {
                origin.seen.lock().unwrap().iter().any(|message| message.head.start.contains("/next"))
            });
            assert_eq!(origin.targets(), ["/next"], "{body:?}");
        }
    }
}

/// CL.0, 0.CL and their kin want one side to forget that there is a body. Here every request has the body it says it has.
#[test]
fn a_body_is_a_body_whatever_the_method_and_the_path() {
    let origin = Recorder::start();
    let gateway = Gateway::in_front_of(&origin.origin, "[]");
    let length = HIDDEN.len();
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "POST", "TRACE", "BREW"] {
        for (fields, body) in [
            (format!("content-length: {length}"), HIDDEN.to_owned()),
            (format!("Content-Length:\t{length} "), HIDDEN.to_owned()),
            (format!("expect: 100-continue\r\ncontent-length: {length}"), HIDDEN.to_owned()),
            (format!("expect: y 100-continue\r\ncontent-length: {length}"), HIDDEN.to_owned()),
            (format!("connection: content-length\r\ncontent-length: {length}"), HIDDEN.to_owned()),
            ("transfer-encoding: chunked".to_owned(), chunked()),
            ("connection: transfer-encoding\r\ntransfer-encoding: chunked".to_owned(), chunked()),
        ] {
            let mut client = gateway.client();
            let bytes = format!("{method} /outer HTTP/1.1\r\nhost: test\r\n{fields}\r\n\r\n{body}");
            client.send(format!("{bytes}GET /after HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"));
            let _answers = client.0.rest();
            let seen = origin.take();
            let targets: Vec<_> = seen.iter().map(|message| message.head.start.split(' ').nth(1).unwrap()).collect();
            assert_eq!(targets, ["/outer", "/after"], "{method} {fields}");
            assert_eq!(seen[0].text(), HIDDEN, "{method} {fields}");
        }
    }
    let mut client = gateway.client();
    client.send(format!("POST /outer HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n{HIDDEN}"));
    assert_eq!((client.answer().text(), client.answer().text()), ("/outer".to_owned(), "/smuggled".to_owned()));
    assert_eq!(origin.targets(), ["/outer", "/smuggled"], "two requests of one client are two requests");
}

#[test]
fn what_follows_a_refused_request_is_never_a_request() {
    let origin = Recorder::start();
    let gateway = Gateway::in_front_of(&origin.origin, "[]");
    let rows = [
        ("behind a bad head", request("x : y", HIDDEN), 400),
        ("behind a tunnel", format!("CONNECT test:80 HTTP/1.1\r\nhost: test:80\r\n\r\n{HIDDEN}").into_bytes(), 501),
        ("behind two empty lines", format!("\r\n\r\n{HIDDEN}").into_bytes(), 400),
        ("behind another version", format!("GET /evil HTTP/2.0\r\nhost: test\r\n\r\n{HIDDEN}").into_bytes(), 505),
        ("behind an encoded slash", format!("GET /evil%2f HTTP/1.1\r\nhost: test\r\n\r\n{HIDDEN}").into_bytes(), 400),
        ("behind no version", format!("GET /evil\r\n{HIDDEN}").into_bytes(), 400),
    ];
    check(&gateway, &origin, &rows);
}

/// What is sent before an upgrade is granted is the next request if it is not, and nothing else.
#[test]
fn a_wish_for_another_protocol_hides_nothing() {
    let origin = Recorder::start();
    let gateway = Gateway::in_front_of(&origin.origin, "[]");
    for upgrade in ["websocket", "h2c", "TLS/1.0", "x"] {
        let wish = format!("GET /wish HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: {upgrade}\r\n\r\n");
        let mut client = gateway.client();
        client.send(format!("{wish}{HIDDEN}"));
        // A WebSocket that the route does not allow is refused; what means something without is answered.
        let (wished, status) = (client.answer(), if upgrade == "websocket" { 403 } else { 200 });
        assert_eq!((wished.status(), client.answer().text()), (status, "/smuggled".to_owned()), "{upgrade}");
        let reached: &[&str] = if status == 200 { &["/wish", "/smuggled"] } else { &["/smuggled"] };
        assert_eq!(origin.targets(), reached, "{upgrade}");
        let mut client = gateway.client();
        client.send(format!("{wish}PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{HIDDEN}"));
        assert_eq!((client.answer().status(), client.answer().status()), (status, 400), "{upgrade}");
        assert!(client.0.is_closed());
        assert_eq!(origin.targets(), reached.split_last().map_or(&[][..], |(_, before)| before), "{upgrade}");
    }
}
