//! Requests that could be read in two ways, as bytes on a socket: what is refused, how, and that nothing of it arrives.

mod downgrade;
mod frames;
mod paths;
mod smuggling;

use std::sync::{Arc, Mutex};

use portcullis_tests::gateway::Gateway;
use portcullis_tests::raw::RawOrigin;
use portcullis_tests::wire::Message;

/// An origin that answers 200 with the target it was asked for, and keeps what came, byte for byte as far as it can be split.
struct Recorder {
    origin: RawOrigin,
    seen: Arc<Mutex<Vec<Message>>>,
}

impl Recorder {
    fn start() -> Self {
        let seen: Arc<Mutex<Vec<Message>>> = Arc::default();
        let kept = seen.clone();
        let origin = RawOrigin::start(move |wire, _| {
            while let Ok(message) = wire.message() {
                let target = message.head.start.split(' ').nth(1).unwrap_or_default().to_owned();
                let complete = message.complete;
                kept.lock().unwrap().push(message);
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{target}", target.len());
                if !complete || wire.write(answer).is_err() {
                    return;
                }
            }
        });
        Self { origin, seen }
    }

    /// What came since this was last asked. Each of it could be read in one way only.
    fn take(&self) -> Vec<Message> {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        seen.iter().filter(|message| message.complete).for_each(assert_plain);
        seen
    }

    /// The targets of what came whole.
    fn targets(&self) -> Vec<String> {
        let whole = self.take().into_iter().filter(|message| message.complete);
        whole.map(|message| message.head.start.split(' ').nth(1).unwrap().to_owned()).collect()
    }
}

/// Whether a message is what RFC 9112 says and no more: any parser there is reads it in the same way.
fn assert_plain(message: &Message) {
    let words: Vec<_> = message.head.start.split(' ').collect();
    assert!(matches!(words[..], [_, target, "HTTP/1.1"] if target.starts_with('/') || target == "*"), "{message:?}");
    assert_eq!(message.head.all("host").len(), 1, "{message:?}");
    let (lengths, codings) = (message.head.all("content-length"), message.head.all("transfer-encoding"));
    assert!(lengths.len() + codings.len() <= 1 && codings.iter().all(|coding| *coding == "chunked"), "{message:?}");
    assert!(lengths.iter().all(|length| length.bytes().all(|byte| byte.is_ascii_digit())), "{message:?}");
    for (name, value) in &message.head.fields {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        assert!(!name.is_empty() && name.bytes().all(token), "{message:?}");
        assert!(value.bytes().all(|byte| byte == b'\t' || !byte.is_ascii_control()), "{message:?}");
    }
}

/// Sends the bytes on a connection of their own; every status that comes back until it is closed.
fn statuses(gateway: &Gateway, bytes: &[u8]) -> Vec<u16> {
    let mut client = gateway.client();
    client.send(bytes);
    let mut statuses = Vec::new();
    while let Ok(message) = client.0.message() {
        assert!(message.complete, "{message:?}");
        statuses.push(message.status());
    }
    statuses
}

/// Each row is refused with its status, the connection is closed, nothing of it arrives, and the next client is served.
fn check(gateway: &Gateway, origin: &Recorder, rows: &[(&str, Vec<u8>, u16)]) {
    for (what, bytes, want) in rows {
        assert_eq!(statuses(gateway, bytes), [*want], "{what}: {}", String::from_utf8_lossy(bytes));
        assert_eq!(gateway.get("/next").status(), 200, "{what}: the next client");
        assert_eq!(origin.targets(), ["/next"], "{what}");
    }
}

/// A good head with these fields, and what follows it.
fn request(fields: &str, rest: &str) -> Vec<u8> {
    format!("POST /evil HTTP/1.1\r\nhost: test\r\n{fields}\r\n\r\n{rest}").into_bytes()
}

#[test]
fn heads_that_are_not_strictly_http_are_refused() {
    let origin = Recorder::start();
    let gateway = Gateway::in_front_of(&origin.origin, "[]");
    let line = |line: &str| format!("{line}\r\nhost: test\r\n\r\n").into_bytes();
    let rows = [
        ("bare LF behind the first line", b"GET /evil HTTP/1.1\nhost: test\r\n\r\n".to_vec(), 400),
        ("bare LF behind a field", b"GET /evil HTTP/1.1\r\nhost: test\nx: y\r\n\r\n".to_vec(), 400),
        ("bare LF at the end", b"GET /evil HTTP/1.1\r\nhost: test\r\n\n".to_vec(), 400),
        ("only bare LF", b"GET /evil HTTP/1.1\nhost: test\n\n".to_vec(), 400),
        ("bare CR in a value", request("x: a\rb", ""), 400),
        ("bare CR at the end", b"GET /evil HTTP/1.1\r\nhost: test\r\n\rX\n".to_vec(), 400),
        ("a folded field", request("x: a\r\n b", ""), 400),
        ("a folded first field", b"GET /evil HTTP/1.1\r\n host: test\r\n\r\n".to_vec(), 400),
        ("NUL in a value", request("x: a\0b", ""), 400),
        ("a control byte in a value", request("x: a\u{1}b", ""), 400),
        ("DEL in a value", request("x: a\u{7f}b", ""), 400),
        ("NUL in a name", request("x\0: a", ""), 400),
        ("NUL in the target", line("GET /evil\0 HTTP/1.1"), 400),
        ("a control byte in the target", line("GET /evil\u{1} HTTP/1.1"), 400),
        ("a tab for a space", line("GET\t/evil HTTP/1.1"), 400),
        ("two spaces", line("GET  /evil HTTP/1.1"), 400),
        ("a space at the end", line("GET /evil HTTP/1.1 "), 400),
        ("white space before a colon", request("x : a", ""), 400),
        ("white space before a name", request(" x: a", ""), 400),
        ("an empty name", request(": a", ""), 400),
        ("no colon", request("x", ""), 400),
        ("a name that is no token", request("x(: a", ""), 400),
        ("a method that is no token", line("G(T /evil HTTP/1.1"), 400),
        ("a fragment", line("GET /evil#x HTTP/1.1"), 400),
        ("a target beyond ASCII", line("GET /evil\u{e9} HTTP/1.1"), 400),
        ("a relative target", line("GET evil HTTP/1.1"), 400),
        ("another scheme", line("GET ftp://test/evil HTTP/1.1"), 400),
        ("user information in the target", line("GET http://u@test/evil HTTP/1.1"), 400),
        ("an asterisk for GET", line("GET * HTTP/1.1"), 400),
        ("an authority for GET", line("GET test:80 HTTP/1.1"), 400),
        ("a tunnel", line("CONNECT test:80 HTTP/1.1"), 501),
        ("no version", b"GET /evil\r\n\r\n".to_vec(), 400),
        ("a version in small letters", line("GET /evil http/1.1"), 400),
        ("HTTP/1.2", line("GET /evil HTTP/1.2"), 505),
        ("HTTP/2.0 without its preface", line("GET /evil HTTP/2.0"), 505),
        ("no host", b"GET /evil HTTP/1.1\r\nx: y\r\n\r\n".to_vec(), 400),
        ("no host beside an absolute target", b"GET http://test/evil HTTP/1.1\r\n\r\n".to_vec(), 400),
        ("a forged stand-in", b"GET /evil HTTP/1.1\r\nx-portcullis-refused: connect\r\n\r\n".to_vec(), 400),
        ("an empty host", b"GET /evil HTTP/1.1\r\nhost:\r\n\r\n".to_vec(), 400),
        ("two hosts", request("host: test", ""), 400),
        ("two hosts in one", b"GET /evil HTTP/1.1\r\nhost: a, b\r\n\r\n".to_vec(), 400),
        ("a host with a path", b"GET /evil HTTP/1.1\r\nhost: test/x\r\n\r\n".to_vec(), 400),
        ("a host with user information", b"GET /evil HTTP/1.1\r\nhost: u@test\r\n\r\n".to_vec(), 400),
        ("a host with a bad port", b"GET /evil HTTP/1.1\r\nhost: test:99999\r\n\r\n".to_vec(), 400),
        ("noise", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(), 400),
    ];
    check(&gateway, &origin, &rows);
}

#[test]
fn heads_that_are_too_large_are_refused_with_the_status_for_it() {
    let origin = Recorder::start();
    let gateway = Gateway::in_front_of(&origin.origin, "[]");
    let long = |bytes: usize| format!("GET /{} HTTP/1.1\r\nhost: test\r\n\r\n", "e".repeat(bytes - 1)).into_bytes();
    let fields = |count: usize| request(&vec!["x: y"; count].join("\r\n"), "");
    let value = |bytes: usize| request(&format!("x: {}", "v".repeat(bytes)), "");
    let rows = [
        ("a long target", long((16 << 10) + 1), 414),
        ("an endless target", b"GET /".iter().copied().chain([b'e'; 70 << 10]).collect(), 414),
        ("many fields", fields(100), 431),
        ("a large head", value(60 << 10), 431),
        ("an endless name", b"GET /evil HTTP/1.1\r\n".iter().copied().chain([b'x'; 70 << 10]).collect(), 431),
    ];
    check(&gateway, &origin, &rows);
    for good in [long(16 << 10), fields(98), value(59 << 10)] {
        let mut client = gateway.client();
        client.send(good);
        assert_eq!(client.answer().status(), 200);
    }
    assert_eq!(origin.take().len(), 3);
}

#[test]
fn a_refusal_is_a_problem_document_that_is_counted_and_answered_in_its_turn() {
    let origin = Recorder::start();
    let gateway = Gateway::in_front_of(&origin.origin, "[]");
    for (bytes, status, code) in [
        (request("content-length: 3\r\ncontent-length: 3", "abc"), 400, "bad_framing"),
        (b"GET /a HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".to_vec(), 400, "bad_host"),
        (request("x: a\0", ""), 400, "bad_request"),
        (b"GET /a HTTP/3.0\r\nhost: a\r\n\r\n".to_vec(), 505, "version_not_supported"),
        (b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n".to_vec(), 501, "not_implemented"),
    ] {
        let mut client = gateway.client();
        client.send([portcullis_tests::client::request("GET", "/first", &[], "").into_bytes(), bytes].concat());
        assert_eq!(client.answer().text(), "/first");
        let answer = client.answer();
        assert_eq!((answer.status(), answer.get("content-type")), (status, Some("application/problem+json")));
        assert_eq!(answer.get("connection"), Some("close"));
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(problem["code"], code);
        assert!(client.0.is_closed());
        let counted =
            || gateway.metric("http_server_request_duration_seconds_count", &[&format!("error_type=\"{code}\"")]);
        portcullis_tests::eventually("the refusal was counted", || counted() == 1.0);
        assert_eq!(origin.targets(), ["/first"]);
    }
}

#[test]
fn it_does_not_matter_how_the_bytes_come() {
    let origin = Recorder::start();
    let gateway = Gateway::in_front_of(&origin.origin, "[]");
    let mut client = gateway.client();
    let good = "POST /good HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\nx: y\r\n\r\n";
    for byte in good.bytes() {
        client.send([byte]);
    }
    assert_eq!(client.answer().text(), "/good");
    let seen = origin.take();
    assert_eq!((seen[0].text().as_str(), seen.len()), ("abcde", 1));
    for byte in request("x : y", "").iter().take(52) {
        client.send([*byte]);
    }
    assert_eq!(client.answer().status(), 400);
    assert!(client.0.is_closed());
    let large = format!("x: {}", "v".repeat(40 << 10));
    let mut client = gateway.client();
    let bytes = request(&format!("content-length: 5\r\n{large}"), "abcde");
    for piece in bytes.chunks(1000) {
        client.send(piece);
    }
    assert_eq!(client.answer().text(), "/evil");
}

#[test]
fn a_client_that_goes_on_sending_still_gets_its_answer() {
    let origin = Recorder::start();
    let gateway = Gateway::in_front_of(&origin.origin, "[]");
    for bytes in [request("x : y", ""), request("transfer-encoding: chunked", "x\r\n")] {
        let mut client = gateway.client();
        client.send([bytes, vec![b'e'; 500_000]].concat());
        assert_eq!(client.answer().status(), 400);
        assert!(client.0.is_closed());
    }
    assert_eq!(origin.targets(), [""; 0]);
}

#[test]
fn underscores_in_names_are_for_the_listener_to_say() {
    for (choice, status, want) in [("drop", 200, None), ("reject", 400, None), ("allow", 200, Some("1"))] {
        let origin = Recorder::start();
        let gateway = Gateway::start(
            r#"
listeners: { main: { bind: "127.0.0.1:0", underscores_in_headers: {choice} } }
upstreams: { origin: { endpoints: ["{origin}"] } }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
            &[("origin", &origin.origin), ("choice", &choice)],
        );
        let fields = [("x_user", "1"), ("x-user", "2")];
        let answer = gateway.ask("GET", "/a", &fields, "");
        assert_eq!(answer.status(), status, "{choice}");
        let h2 = gateway.h2().ask("GET", "/a", &fields, []).unwrap();
        assert_eq!(h2.status, status, "{choice}");
        for seen in origin.take() {
            assert_eq!((seen.get("x_user"), seen.get("x-user")), (want, Some("2")), "{choice}");
        }
    }
}
