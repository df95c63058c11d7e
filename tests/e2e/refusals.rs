//! Requests that go nowhere: malformed ones, ones without a route, and how the gateway's own replies look.

use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::Origin;
use serde_json::Value;

#[test]
fn what_could_be_read_in_two_ways_is_refused_and_its_connection_closed() {
    let origin = Origin::plain();
    let gateway = Gateway::in_front_of(&origin, "[]");
    for (what, bytes) in [
        ("no host", "GET / HTTP/1.1\r\n\r\n"),
        ("two hosts", "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"),
        ("two lengths", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd"),
        ("a bad length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc"),
        ("an unknown coding", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
        ("a tunnel", "CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n"),
        ("a space before a colon", "GET / HTTP/1.1\r\nhost: a\r\nx-a : 1\r\n\r\n"),
        ("no target", "GET  HTTP/1.1\r\nhost: a\r\n\r\n"),
    ] {
        let mut client = gateway.client();
        client.send(bytes);
        let answer = client.answer();
        assert_eq!(answer.status(), 400, "{what}: {answer:?}");
        assert!(client.0.is_closed(), "{what}: the connection stays open");
    }
    assert_eq!(origin.begun(), 0);
}

/// RFC 9112 §6.3 leaves two ways: to refuse such a request, or to take its chunks and nothing after them. The HTTP library
/// takes the chunks and drops the length before anyone sees it.
#[test]
fn a_request_with_two_framings_smuggles_nothing() {
    let origin = Origin::plain();
    let gateway = Gateway::in_front_of(&origin, "[]");
    for framings in
        ["content-length: 5\r\ntransfer-encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: 5"]
    {
        let mut client = gateway.client();
        let outer = format!("POST /outer HTTP/1.1\r\nhost: a\r\n{framings}\r\n\r\n0\r\n\r\n");
        client.send(format!("{outer}GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"));
        let all = String::from_utf8(client.0.rest()).unwrap();
        assert!(all.matches("HTTP/1.1 ").count() <= 1, "{all}");
        let mut client = gateway.client();
        client.send(outer);
        assert_eq!(client.answer().get("connection"), Some("close"));
        assert!(client.0.is_closed());
    }
    for seen in origin.seen() {
        assert_eq!((seen.uri.path(), seen.get("content-length")), ("/outer", None));
    }
}

#[test]
fn no_route_is_a_problem_document_that_names_the_request() {
    let origin = Origin::plain();
    let gateway = Gateway::start(
        r#"
upstreams: { origin: { endpoints: ["{origin}"] } }
routes: [{ name: one, match: { path: "/one", methods: [GET] }, upstream: origin }]
"#,
        &[("origin", &origin)],
    );
    assert_eq!(gateway.get("/one").status(), 200);
    let id = [("x-request-id", "id-42")];
    for (method, path) in [("GET", "/two"), ("POST", "/one"), ("GET", "/one/more")] {
        let answer = gateway.ask(method, path, &id, "");
        assert_eq!((answer.status(), answer.get("content-type")), (404, Some("application/problem+json")));
        let problem: Value = serde_json::from_slice(&answer.body).unwrap();
        let told = ["code", "status", "request_id", "type"].map(|key| problem[key].clone());
        assert_eq!(told, [Value::from("no_route"), 404.into(), "id-42".into(), "about:blank".into()]);
    }
    let answer = gateway.h2().ask("GET", "/two", &id, []).unwrap();
    assert_eq!((answer.status, answer.get("content-type")), (404, Some("application/problem+json")));
}

#[test]
fn a_reply_comes_in_the_form_that_its_client_can_read() {
    let gateway = Gateway::start("upstreams: { o: { endpoints: [\"127.0.0.1:9\"] } }", &[]);
    let text = gateway.ask("GET", "/", &[("accept", "text/plain")], "");
    assert_eq!((text.status(), text.get("content-type")), (404, Some("text/plain")));
    assert!(!text.text().contains('{'), "{}", text.text());
    let head = gateway.ask("HEAD", "/", &[], "");
    assert_eq!((head.status(), head.get("content-type")), (404, Some("application/problem+json")));
    assert_ne!(head.get("content-length"), None);
    let grpc = gateway.h2().ask("POST", "/pkg.Service/Method", &[("content-type", "application/grpc")], []).unwrap();
    assert_eq!((grpc.status, grpc.get("grpc-status"), grpc.body.len()), (200, Some("12"), 0));
    assert_eq!(grpc.get("content-type"), Some("application/grpc"));
}
