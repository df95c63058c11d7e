//! The whole filter, against a service that is a closure: `proto/library.proto`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_sdk::start;
use portcullis_testing::{Gateway, Outcome, Plugin, Reply, Request, Running};
use prost_reflect::prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};

use super::*;

/// By the compiler's own writer: `prost`'s messages do not keep annotations.
fn descriptors() -> Vec<u8> {
    let mut compiler = protox::Compiler::new([concat!(env!("CARGO_MANIFEST_DIR"), "/proto")]).unwrap();
    compiler.include_imports(true).open_file("library.proto").unwrap();
    compiler.encode_file_descriptor_set()
}

fn settings(more: &str) -> String {
    format!(r#"{{ "descriptors": "{}"{more} }}"#, STANDARD.encode(descriptors()))
}

/// A message of the library, of its JSON.
fn message(of: &str, json: &str) -> Vec<u8> {
    let pool = DescriptorPool::decode(descriptors().as_slice()).unwrap();
    let descriptor = pool.get_message_by_name(&format!("library.v1.{of}")).unwrap();
    let json = crate::json::Json { read: Default::default(), write: Default::default() }
        .message(&descriptor, &serde_json::from_str(json).unwrap());
    json.unwrap().encode_to_vec()
}

/// What a message of the library says, as JSON.
fn said(of: &str, framed: &[u8]) -> String {
    let pool = DescriptorPool::decode(descriptors().as_slice()).unwrap();
    let descriptor = pool.get_message_by_name(&format!("library.v1.{of}")).unwrap();
    let message = DynamicMessage::decode(descriptor, framed.get(5..).unwrap()).unwrap();
    serde_json::to_string(&message).unwrap()
}

fn answer(of: &str, json: &str) -> Reply {
    grpc().chunks([framed(0, &message(of, json))]).trailer("grpc-status", "0")
}

fn grpc() -> Reply {
    Reply::status(200).header("content-type", "application/grpc")
}

/// A gateway that lets bodies be added, or one that does not, as Envoy.
fn gateway(more: &str, reply: Reply) -> Running {
    let plugin = Plugin::new("grpc-json", start::<GrpcJson>).config(settings(more)).holds_headers();
    Gateway::new().plugin(plugin).origin(move |_| reply.clone()).start()
}

fn sent(request: Request, reply: Reply) -> Outcome {
    gateway("", reply).send(request)
}

#[test]
fn a_failure_comes_with_the_details_that_its_service_gives() {
    let any = |url: &str, message: &[u8]| {
        let mut any = Vec::new();
        portcullis_abi::protobuf::bytes(&mut any, 1, url.as_bytes());
        portcullis_abi::protobuf::bytes(&mut any, 2, message);
        any
    };
    let mut status = Vec::new();
    let shelf = any("type.googleapis.com/library.v1.Shelf", &message("Shelf", r#"{"name":"a","width":1.5}"#));
    for detail in
        [shelf, any("type.googleapis.com/no.Such", b"\x08\x01"), any("x/google.protobuf.Duration", b"\x08\x07")]
    {
        portcullis_abi::protobuf::bytes(&mut status, 3, &detail);
    }
    let encoded = STANDARD.encode(&status);
    let want = r#","details":[{"@type":"type.googleapis.com/library.v1.Shelf","name":"a","width":1.5},{"@type":"type.googleapis.com/no.Such","value":"CAE="},{"@type":"x/google.protobuf.Duration","#;
    for details in [encoded.as_str(), encoded.trim_end_matches('=')] {
        for reply in [
            grpc().trailer("grpc-status", "3").trailer(DETAILS, details),
            grpc().header("grpc-status", "3").header(DETAILS, details),
        ] {
            let outcome = sent(Request::get("/v1/shelves/1"), reply);
            assert_eq!((outcome.status(), outcome.details.as_str()), (400, "invalid_argument"));
            assert!(outcome.reply.text().contains(want), "{}", outcome.reply.text());
        }
    }
    for none in ["", "%", "CAE=", "GgP/"] {
        let outcome = sent(Request::get("/v1/shelves/1"), grpc().trailer("grpc-status", "3").trailer(DETAILS, none));
        assert!(outcome.status() == 400 && !outcome.reply.text().contains("details"), "{}", outcome.reply.text());
    }
}

#[test]
fn requests_become_calls() {
    let shelf = r#"{"shelf":{"name":"a","bookCount":"9007199254740993","width":1.5}}"#;
    for (request, path, of, want) in [
        (Request::get("/v1/shelves/7"), "GetShelf", "GetShelfRequest", r#"{"name":"shelves/7"}"#),
        (Request::get("/v1/theme/a%2Fb"), "GetShelf", "GetShelfRequest", r#"{"name":"a/b"}"#),
        (
            Request::post("/v1/shelves?request_id=r+1&dryRun=true")
                .body(r#"{"name":"a","book_count":9007199254740993,"width":1.5}"#),
            "CreateShelf",
            "CreateShelfRequest",
            &shelf.replace("}}", r#"},"requestId":"r 1","dryRun":true}"#),
        ),
        (
            Request::post("/v1/shelves/7:move?ignored=1").body(r#"{"to":"b","books":[1,2.0],"name":"x"}"#),
            "MoveBooks",
            "MoveBooksRequest",
            r#"{"name":"shelves/7","to":"b","books":[1,2]}"#,
        ),
        (
            Request::get("/v1/shelves/7/books?page_size=3&order=TITLE&year.from=1900"),
            "ListBooks",
            "ListBooksRequest",
            r#"{"parent":"shelves/7","pageSize":3,"order":"TITLE","year":{"from":1900}}"#,
        ),
    ] {
        let outcome = sent(request, answer("Shelf", "{}"));
        let upstream = outcome.at_upstream();
        assert_eq!((upstream.method(), upstream.target()), ("POST", &*format!("/library.v1.Library/{path}")));
        assert_eq!(upstream.header("content-type"), Some("application/grpc"));
        assert_eq!(upstream.header("te"), Some("trailers"));
        assert_eq!(said(of, &upstream.body), want, "{path}");
    }
}

#[test]
fn an_answer_becomes_json_and_its_status_http() {
    let shelf = r#"{"name":"a","bookCount":"3","built":"2026-11-27T00:00:00Z","width":0.5}"#;
    let refused = |code: &str| grpc().trailer("grpc-status", code).trailer("grpc-message", "no %E2%82%AC");
    for (name, reply, status, details, body) in [
        ("a message", answer("Shelf", shelf), 200, "via_upstream", shelf),
        (
            "its chunks",
            grpc().chunks([&b"\0\0"[..], b"\0\0\x03\x0a\x01", b"b"]).trailer("grpc-status", "0"),
            200,
            "via_upstream",
            r#"{"name":"b"}"#,
        ),
        ("not found", refused("5"), 404, "not_found", "no €"),
        ("unavailable", refused("14"), 503, "unavailable", "no €"),
        ("after a message", grpc().chunks([framed(0, b"")]).trailer("grpc-status", "13"), 500, "internal", ""),
        ("in the head", grpc().header("grpc-status", "16"), 401, "unauthenticated", ""),
        ("no status", grpc().chunks([framed(0, b"")]), 502, "grpc_malformed", ""),
        ("no message", grpc().trailer("grpc-status", "0"), 502, "grpc_malformed", ""),
        (
            "two messages",
            grpc().chunks([framed(0, b""), framed(0, b"")]).trailer("grpc-status", "0"),
            502,
            "grpc_malformed",
            "",
        ),
        ("4 GiB", grpc().chunks([b"\0\xff\xff\xff\xffab"]).trailer("grpc-status", "0"), 502, "grpc_malformed", ""),
        ("cut", grpc().chunks([b"\0\0\0\0\x05ab"]).trailer("grpc-status", "0"), 502, "grpc_malformed", ""),
        ("compressed", grpc().chunks([b"\x01\0\0\0\x01a"]).trailer("grpc-status", "0"), 502, "grpc_malformed", ""),
        ("no such message", grpc().chunks([framed(0, b"\xff")]).trailer("grpc-status", "0"), 502, "grpc_malformed", ""),
        ("no gRPC", Reply::ok("<p>"), 502, "not_grpc", ""),
        ("the gateway's own", Reply::status(503).body("busy"), 503, "via_upstream", "busy"),
    ] {
        let outcome = sent(Request::get("/v1/shelves/7"), reply);
        assert_eq!((outcome.status(), outcome.details.as_str()), (status, details), "{name}: {}", outcome.reply);
        assert!(outcome.reply.text().contains(body), "{name}: {}", outcome.reply);
        assert!(outcome.reply.trailers.is_empty() && outcome.reply.header("grpc-status").is_none(), "{name}");
        let kind = outcome.reply.header("content-type").unwrap_or("none");
        assert!(!kind.contains("grpc"), "{name}: {kind}");
    }
}

#[test]
fn what_fits_no_message_is_refused_and_goes_no_further() {
    let post = |body: &str| Request::post("/v1/shelves").body(body);
    for (request, status, details, title) in [
        (post("{"), 400, "body_malformed", "The body is no JSON"),
        (post(r#"{"nam":1}"#), 400, "field_invalid", "nam"),
        (post(r#"{"width":1e400}"#), 400, "field_invalid", "out of range"),
        (post(r#"{"tags":"x"}"#), 400, "field_invalid", ""),
        (
            Request::get("/v1/shelves/7/books?page_size=x"),
            400,
            "field_invalid",
            "`page_size`: `x` is no 32-bit integer",
        ),
        (Request::get("/v1/shelves/7/books?order=NO"), 400, "field_invalid", "`order`"),
        (Request::get("/v1/shelves/7/books?what=1"), 400, "field_invalid", "has no field `what`"),
        (Request::get("/v1/shelves/7/books?year=1"), 400, "field_invalid", "`year`"),
        (Request::post("/v1/upload").body("{}"), 501, "client_streaming", "takes a stream"),
        (post("{}").header("content-encoding", "gzip"), 415, "body_encoded", ""),
    ] {
        let outcome = sent(request, answer("Shelf", "{}"));
        assert_eq!((outcome.status(), outcome.details.as_str()), (status, details), "{}", outcome.reply);
        assert!(outcome.reply.text().contains(title), "{}", outcome.reply);
        assert_eq!(outcome.upstream, None);
    }
    let mut gateway = gateway(r#", "max_bytes": 8"#, answer("Shelf", "{}"));
    let outcome = gateway.send(post(r#"{"name":"long"}"#));
    assert_eq!((outcome.status(), outcome.details.as_str()), (413, "body_too_large"));
}

#[test]
fn a_part_of_an_answer_may_be_all_of_it() {
    let outcome = sent(Request::get("/v1/theme/a"), answer("Shelf", r#"{"theme":"sea"}"#));
    assert_eq!(outcome.reply.text(), r#""sea""#);
    let outcome = sent(Request::get("/v1/theme/a"), answer("Shelf", "{}"));
    assert_eq!(outcome.reply.text(), r#""""#);
}

#[test]
fn what_is_no_call_passes_or_is_refused() {
    for (more, request, status, at) in [
        ("", Request::get("/other"), 200, Some("/other")),
        ("", Request::new("DELETE", "/v1/shelves/7"), 200, Some("/v1/shelves/7")),
        (r#", "unmatched": "refuse""#, Request::get("/other"), 404, None),
        (r#", "unmatched": "refuse""#, Request::new("DELETE", "/v1/shelves/7"), 405, None),
        (
            "",
            Request::post("/v1/shelves/7").header("content-type", "application/grpc+proto").body("x"),
            200,
            Some("/v1/shelves/7"),
        ),
    ] {
        let outcome = gateway(more, Reply::ok("ok")).send(request);
        let upstream = outcome.upstream.as_ref().map(portcullis_testing::Seen::target);
        assert_eq!((outcome.status(), upstream), (status, at));
    }
    let mut gateway = gateway(
        r#", "methods_without_rules": true, "json": { "defaults": true, "names": "proto" }"#,
        answer("Shelf", "{}"),
    );
    let outcome = gateway.send(Request::post("/library.v1.Library/Ping").body("{}"));
    assert!(outcome.reply.text().contains(r#""book_count":"0""#), "{}", outcome.reply);
}

#[test]
fn a_stream_is_lines_or_events_with_its_failure_at_the_end() {
    let books = || {
        let book = |title: &str| framed(0, &message("Book", &format!(r#"{{"title":"{title}"}}"#)));
        grpc().chunks([book("a"), [book("b"), book("c")].concat()])
    };
    let request = |accept: &str| Request::get("/v1/shelves/7/books").header("accept", accept);
    let lines = "{\"title\":\"a\"}\n{\"title\":\"b\"}\n{\"title\":\"c\"}\n";
    for (name, accept, reply, kind, want) in [
        ("lines", "*/*", books().trailer("grpc-status", "0"), "application/x-ndjson", lines.to_owned()),
        (
            "events",
            "text/event-stream",
            books().trailer("grpc-status", "0"),
            "text/event-stream",
            lines.replace("{\"", "data: {\"").replace('\n', "\n\n"),
        ),
        (
            "a failure",
            "*/*",
            books().trailer("grpc-status", "5").trailer("grpc-message", "gone"),
            "application/x-ndjson",
            format!("{lines}{}\n", r#"{"error":{"code":5,"status":"not_found","message":"gone"}}"#),
        ),
        (
            "a lie",
            "*/*",
            books().chunks([b"\0\xff\xff\xff\xff"]).trailer("grpc-status", "0"),
            "application/x-ndjson",
            format!(
                "{lines}{}\n",
                r#"{"error":{"code":13,"status":"internal","message":"the answer of the service could not be read"}}"#
            ),
        ),
        ("empty", "*/*", grpc().trailer("grpc-status", "0"), "application/x-ndjson", String::new()),
    ] {
        let outcome = sent(request(accept), reply);
        assert_eq!((outcome.status(), outcome.reply.header("content-type")), (200, Some(kind)), "{name}");
        assert_eq!(outcome.reply.text(), want, "{name}");
        assert!(outcome.reply.complete && outcome.reply.trailer("grpc-status").is_none(), "{name}");
    }
    let refused = sent(request("*/*"), grpc().header("grpc-status", "7"));
    assert_eq!((refused.status(), refused.details.as_str()), (403, "permission_denied"));
}

#[test]
fn grpc_web_is_carried_with_its_trailers_in_the_body() {
    let call = framed(0, b"\x0a\x01a");
    let trailers = [&b"\x80\0\0\0\x0f"[..], b"grpc-status: 0\r\n"].concat();
    let trailers = {
        let mut t = trailers;
        t[4] = 16;
        t
    };
    let plain = [framed(0, b"\x0a\x01b"), trailers.clone()].concat();
    for (kind, body, want) in [
        ("application/grpc-web+proto", call.clone(), plain),
        (
            "application/grpc-web-text",
            STANDARD.encode(&call).into_bytes(),
            [STANDARD.encode(framed(0, b"\x0a\x01b")), STANDARD.encode(&trailers)].concat().into_bytes(),
        ),
    ] {
        let request = Request::post("/library.v1.Library/Ping").header("content-type", kind).body(body);
        let reply = grpc().chunks([framed(0, b"\x0a\x01b")]).trailer("grpc-status", "0");
        let outcome = sent(request, reply);
        assert_eq!(outcome.at_upstream().body, call);
        assert!(outcome.at_upstream().header("content-type").unwrap().starts_with("application/grpc"));
        assert_eq!(outcome.reply.body, want, "{kind}: {}", outcome.reply.text());
        assert_eq!(outcome.reply.header("content-type"), Some(kind));
        assert!(outcome.reply.trailer("grpc-status").is_none());
    }
    let text = |body: &str| Request::post("/x").header("content-type", "application/grpc-web-text").body(body);
    let outcome = sent(text("*"), grpc());
    // The gateway tells a client of gRPC in its own way.
    assert_eq!((outcome.details.as_str(), outcome.upstream), ("body_malformed", None));
}

#[test]
fn settings_say_what_is_wrong_with_them() {
    for (settings, want) in [
        (r#"{"descriptors":"?"}"#.to_owned(), "`descriptors` is no base64"),
        (r#"{"descriptors":"YWJj"}"#.to_owned(), "`descriptors` is no descriptor set"),
        (r#"{"grpc_web":false}"#.to_owned(), "there is nothing to do"),
        (settings(r#", "max_bytes": 0"#), "`max_bytes` is at least 1"),
        (
            settings(r#", "services": ["library.v1.Libary"]"#),
            "`library.v1.Libary` is not in `descriptors`, which has library.v1.Library",
        ),
        (settings(""), ""),
        ("{}".to_owned(), ""),
    ] {
        let got = portcullis_sdk::parse_config::<Settings>(settings.as_bytes()).and_then(Settings::checked);
        let why = got.err().unwrap_or_default();
        assert!(why.contains(want) && why.is_empty() == want.is_empty(), "{why}");
    }
}

/// `UPDATE_EXPECT=1` writes it.
#[test]
fn the_descriptor_set_of_the_notes_is_of_its_source() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
    let mut compiler = protox::Compiler::new([folder]).unwrap();
    compiler.include_imports(true).open_file("notes.proto").unwrap();
    let (file, text) = (format!("{folder}/notes.base64"), STANDARD.encode(compiler.encode_file_descriptor_set()));
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    assert!(std::fs::read_to_string(&file).unwrap() == text, "{file} is not of notes.proto; set UPDATE_EXPECT=1");
}
