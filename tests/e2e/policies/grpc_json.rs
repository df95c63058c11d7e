//! The page's configuration in front of a real gRPC service, tonic's own server.

use portcullis_tests::docs;
use portcullis_tests::gateway::Gateway;

use crate::grpc::notes::Notes;

const DESCRIPTORS: &str = include_str!("../../../plugins/grpc-json/proto/notes.base64");

/// As `docs/policies/grpc-json.md` prints it.
fn gateway(notes: &Notes) -> Gateway {
    let printed = docs::configurations(&docs::page("docs/policies/grpc-json.md")).remove(0);
    let places = [("127.0.0.1:50051", &*notes.to_string()), ("${file:notes.base64}", DESCRIPTORS)];
    Gateway::start(&docs::here(&printed, &places), &[])
}

#[test]
fn a_rest_client_calls_a_grpc_service() {
    let notes = Notes::start();
    let gateway = gateway(&notes);
    for (method, path, body, status, want) in [
        ("GET", "/notes/hello%20there", "", 200, r#"{"text":"HELLO THERE"}"#),
        ("GET", "/notes/hi?number=3", "", 200, r#"{"text":"HI"}"#),
        ("POST", "/notes", r#"{"text":"hi"}"#, 200, r#"{"text":"HI"}"#),
        ("GET", "/notes/fail", "", 400, r#""title":"no: é %","status":400,"code":"failed_precondition""#),
        ("POST", "/notes", r#"{"words":1}"#, 400, r#""code":"field_invalid""#),
        ("POST", "/notes", "{", 400, r#""code":"body_malformed""#),
        ("GET", "/other", "", 404, r#""code":"no_call""#),
    ] {
        let answer = gateway.ask(method, path, &[("content-type", "application/json")], body);
        assert_eq!(answer.status(), status, "{method} {path}: {}", answer.text());
        assert!(answer.text().contains(want), "{method} {path}: {}", answer.text());
    }
}

#[test]
fn a_stream_comes_as_lines_or_as_events_and_says_how_it_failed() {
    let notes = Notes::start();
    let gateway = gateway(&notes);
    let lines = "{\"number\":1}\n{\"number\":2}\n{\"number\":3}\n";
    let answer = gateway.get("/count/3");
    assert_eq!((answer.status(), answer.get("content-type")), (200, Some("application/x-ndjson")));
    assert_eq!(answer.text(), lines);
    let answer = gateway.ask("GET", "/count/2", &[("accept", "text/event-stream")], "");
    assert_eq!(answer.get("content-type"), Some("text/event-stream"));
    assert_eq!(answer.text(), "data: {\"number\":1}\n\ndata: {\"number\":2}\n\n");
    let failure = r#"{"error":{"code":8,"status":"resource_exhausted","message":"three is enough"}}"#;
    assert_eq!(gateway.get("/count/1003").text(), format!("{lines}{failure}\n"));
    // Over HTTP/2 the status does not leak into the client's trailers either.
    let answer = gateway.h2().get("/count/1003");
    assert_eq!(answer.text(), format!("{lines}{failure}\n"));
}

#[test]
fn a_stream_without_end_begins_at_once() {
    let notes = Notes::start();
    let gateway = gateway(&notes);
    let h2 = gateway.h2();
    let mut body = h2.begin("/count/0").into_body();
    let first = h2.data(&mut body).unwrap().unwrap();
    assert!(first.starts_with(b"{\"number\":1}\n"), "{first:?}");
    // Its runtime runs only while something is asked of it, so it is the connection that ends.
    drop((body, h2));
    portcullis_tests::eventually("the call ends with its client", || notes.live() == 0);
}

#[test]
fn a_grpc_web_client_calls_the_same_service() {
    let notes = Notes::start();
    let gateway = gateway(&notes);
    let call = "\0\0\0\0\x04\x0a\x02hi";
    let answer = gateway.ask("POST", "/test.Notes/Say", &[("content-type", "application/grpc-web+proto")], call);
    assert_eq!((answer.status(), answer.get("content-type")), (200, Some("application/grpc-web+proto")));
    let text = answer.text();
    assert!(text.starts_with("\0\0\0\0\x04\x0a\x02HI"), "{text:?}");
    assert!(text.contains("grpc-status: 0\r\n"), "{text:?}");
}
