//! HTTP/2 requests that would become two once written as HTTP/1.1.

use portcullis_tests::gateway::Gateway;

use super::Recorder;
use super::frames::{Frames, Outcome};

/// A name and a value.
type Field<'a> = (&'a str, &'a [u8]);

const USUAL: [Field<'_>; 4] =
    [(":method", b"POST"), (":scheme", b"http"), (":authority", b"test"), (":path", b"/evil")];

/// The usual pseudo-headers but for those given.
fn fields<'a>(given: &[Field<'a>]) -> Vec<Field<'a>> {
    let usual = USUAL.into_iter().filter(|(name, _)| given.iter().all(|(own, _)| own != name));
    let (pseudo, rest): (Vec<_>, Vec<_>) = given.iter().partition(|(name, _)| name.starts_with(':'));
    usual.chain(pseudo).chain(rest).collect()
}

#[test]
fn nothing_that_http1_would_read_differently_is_written_as_http1() {
    let origin = Recorder::start();
    let gateway = Gateway::in_front_of(&origin.origin, "[]");
    let refused = Outcome::Status(400);
    let rows: &[(&str, &[Field<'_>], &[u8], Outcome)] = &[
        ("a length beyond the body", &[("content-length", b"10")], b"hello", Outcome::Broken),
        ("a length within the body", &[("content-length", b"1")], b"hello", Outcome::Broken),
        ("two lengths", &[("content-length", b"5"), ("content-length", b"5")], b"hello", refused),
        ("a signed length", &[("content-length", b"+5")], b"hello", Outcome::Broken),
        ("a list of lengths", &[("content-length", b"5, 5")], b"hello", Outcome::Broken),
        ("a coding", &[("transfer-encoding", b"chunked")], b"0\r\n\r\n", Outcome::Broken),
        ("connection", &[("connection", b"close")], b"", Outcome::Broken),
        ("keep-alive", &[("keep-alive", b"1")], b"", Outcome::Broken),
        ("proxy-connection", &[("proxy-connection", b"close")], b"", Outcome::Broken),
        ("upgrade", &[("upgrade", b"h2c")], b"", Outcome::Broken),
        ("te", &[("te", b"gzip")], b"", Outcome::Broken),
        ("CRLF in a value", &[("x", b"a\r\ntransfer-encoding: chunked")], b"", Outcome::Broken),
        ("LF in a value", &[("x", b"a\nb: c")], b"", Outcome::Broken),
        ("CR in a value", &[("x", b"a\rb")], b"", Outcome::Broken),
        ("NUL in a value", &[("x", b"a\0b")], b"", Outcome::Broken),
        ("CRLF in a name", &[("x\r\nb", b"c")], b"", Outcome::Broken),
        ("a colon in a name", &[("x: y\r\nz", b"c")], b"", Outcome::Broken),
        ("a space in a name", &[("x y", b"c")], b"", Outcome::Broken),
        ("capitals in a name", &[("X-Y", b"c")], b"", Outcome::Broken),
        ("an empty name", &[("", b"c")], b"", Outcome::Broken),
        ("CRLF in the path", &[(":path", b"/ HTTP/1.1\r\nhost: b\r\n\r\nGET /smuggled")], b"", Outcome::Broken),
        ("a space in the path", &[(":path", b"/a HTTP/1.1")], b"", Outcome::Broken),
        ("an empty path", &[(":path", b"")], b"", Outcome::Broken),
        ("a relative path", &[(":path", b"evil")], b"", Outcome::Broken),
        ("bytes beyond ASCII in the path", &[(":path", b"/\xc3\xa9")], b"", refused),
        ("a quotation mark in the path", &[(":path", b"/a\"b")], b"", refused),
        ("an asterisk", &[(":path", b"*")], b"", refused),
        ("a space in the method", &[(":method", b"GET /smuggled HTTP/1.1\r\n")], b"", Outcome::Broken),
        ("CRLF in the authority", &[(":authority", b"a\r\nx: y")], b"", Outcome::Broken),
        ("a path in the authority", &[(":authority", b"test/smuggled")], b"", Outcome::Broken),
        ("user information", &[(":authority", b"u@test")], b"", refused),
        ("another host", &[("host", b"other")], b"", refused),
        ("two hosts", &[("host", b"test"), ("host", b"test")], b"", refused),
    ];
    for (what, given, body, want) in rows {
        let mut frames = Frames::connect(&gateway);
        let got = frames.ask(1, &fields(given), body);
        assert_eq!(got, *want, "{what}");
        assert_eq!(gateway.h2().get("/next").status, 200, "{what}: the next client");
        assert_eq!(origin.targets(), ["/next"], "{what}");
    }
}

/// The head alone is a whole request, which may have gone on before the body shows that it is not.
#[test]
fn what_follows_a_length_of_nothing_goes_nowhere() {
    let origin = Recorder::start();
    let gateway = Gateway::in_front_of(&origin.origin, "[]");
    let mut frames = Frames::connect(&gateway);
    let smuggled = b"GET /smuggled HTTP/1.1\r\nhost: test\r\n\r\n";
    assert_eq!(frames.ask(1, &fields(&[("content-length", b"0")]), smuggled), Outcome::Broken);
    assert_eq!(gateway.h2().get("/next").status, 200);
    let passed = origin.take();
    let of = |target: &str| passed.iter().filter(|message| message.head.start.contains(target)).collect::<Vec<_>>();
    assert!(of("/evil").iter().all(|message| message.body.is_empty()), "{passed:?}");
    assert_eq!((of("/smuggled").len(), of("/next").len()), (0, 1), "{passed:?}");
}

#[test]
fn good_frames_are_served() {
    let origin = Recorder::start();
    let gateway = Gateway::in_front_of(&origin.origin, "[]");
    let mut frames = Frames::connect(&gateway);
    for (stream, given, body) in [
        (1, &[][..], &b""[..]),
        (3, &[("content-length", &b"5"[..])], b"hello"),
        (5, &[], b"hello"),
        (7, &[("host", b"test"), ("te", b"trailers")], b""),
        (9, &[(":path", b"/evil{}?{}")], b""),
    ] {
        assert_eq!(frames.ask(stream, &fields(given), body), Outcome::Status(200), "{given:?}");
    }
    let bodies: Vec<_> = origin.take().iter().map(|message| message.text()).collect();
    assert_eq!(bodies, ["", "hello", "hello", "", ""]);
}

#[test]
fn heads_over_http2_are_bounded_like_those_over_http1() {
    let origin = Recorder::start();
    let gateway = Gateway::in_front_of(&origin.origin, "[]");
    let names: Vec<_> = (0..101).map(|index| format!("x-{index}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "y")).collect();
    assert_eq!(gateway.h2().ask("GET", "/evil", &many, []).unwrap().status, 431);
    let long = format!("/{}", "e".repeat(16 << 10));
    assert_eq!(gateway.h2().ask("GET", &long, &[], []).unwrap().status, 414);
    let large = "v".repeat(10 << 10);
    let large: Vec<_> = names.iter().take(7).map(|name| (name.as_str(), large.as_str())).collect();
    assert_eq!(gateway.h2().ask("GET", "/evil", &large, []).map(|answer| answer.status).ok(), Some(431));
    assert_eq!(gateway.h2().ask("GET", "/next", &large[..5], []).unwrap().status, 200);
    assert_eq!(origin.targets(), ["/next"]);
}
