use portcullis_sdk::start;
use portcullis_testing::{Gateway, Outcome, Plugin, Reply, Request, Running};

use super::*;

const SETTINGS: &str = r#"{
    "request": { "headers": { "remove": ["x-a"], "rename": { "x-b": "x-c" }, "set": { "x-d": "1" }, "append": { "x-e": "2" } },
                 "body": { "set": { "/checked": true } } },
    "response": { "headers": { "remove": ["server"] }, "body": { "remove": ["/secret"] } },
    "max_bytes": 40
}"#;

fn transformed(request: Request, reply: Reply) -> Outcome {
    let plugin = Plugin::new("transform", start::<Transform>).config(SETTINGS);
    Gateway::new().origin(move |_| reply.clone()).plugin(plugin).start().send(request)
}

fn gateway(settings: &str) -> Running {
    Gateway::new().plugin(Plugin::new("transform", start::<Transform>).config(settings)).start()
}

fn json() -> Request {
    Request::post("/").header("content-type", "application/json")
}

#[test]
fn headers_and_bodies_are_changed_both_ways() {
    let request = json().header("x-a", "a").header("x-b", "b").header("x-e", "1").header("accept-encoding", "gzip");
    let reply = Reply::json(r#"{"secret":1,"shown":1.50}"#).header("server", "s");
    let outcome = transformed(request.chunks([r#"{"b""#, r#":2}"#]), reply);
    let seen = outcome.at_upstream();
    assert_eq!(seen.text(), r#"{"b":2,"checked":true}"#);
    let headers = ["x-a", "x-b", "x-c", "x-d", "accept-encoding"].map(|name| seen.header(name));
    assert_eq!(headers, [None, None, Some("b"), Some("1"), None]);
    assert_eq!(seen.all("x-e"), ["1", "2"]);
    assert_eq!(outcome.reply.text(), r#"{"shown":1.50}"#);
    assert_eq!(outcome.reply.header("server"), None);
}

#[test]
fn a_body_that_cannot_be_transformed_goes_no_further() {
    for (request, want) in [
        (json().body("{"), (400, "body_malformed")),
        (json().body(format!("\"{}\"", "a".repeat(40))), (413, "body_too_large")),
        (json().chunks(["\"", &"a".repeat(40), "\""]), (413, "body_too_large")),
        (json().header("content-encoding", "gzip").body("x"), (415, "body_encoded")),
    ] {
        let outcome = transformed(request, Reply::ok(""));
        assert_eq!((outcome.status(), outcome.details.as_str()), want);
        assert!(outcome.upstream.is_none_or(|seen| seen.body.is_empty() && !seen.complete));
    }
    for (reply, want) in [
        (Reply::json("{}").header("content-encoding", "br"), (502, "response_encoded")),
        (Reply::json("a".repeat(41)), (502, "response_too_large")),
    ] {
        let outcome = transformed(Request::get("/"), reply);
        assert_eq!((outcome.status(), outcome.details.as_str()), want);
    }
    // Its head has gone on: what is left is to cut it off.
    let outcome =
        transformed(Request::get("/"), Reply::status(200).header("content-type", "text/json+json").chunks(["{"]));
    assert!(!outcome.reply.complete && outcome.reply.body.is_empty(), "{outcome:?}");
}

#[test]
fn what_is_no_json_streams_past() {
    let outcome = transformed(Request::post("/").body("{"), Reply::ok("<p>").header("content-type", "text/html"));
    assert_eq!((outcome.at_upstream().text().as_str(), outcome.reply.text().as_str()), ("{", "<p>"));
    let outcome = transformed(json(), Reply::status(204).header("content-type", "application/json"));
    assert_eq!(outcome.status(), 204);
    let outcome = transformed(json().body(""), Reply::json("{}"));
    assert_eq!((outcome.at_upstream().text().as_str(), outcome.reply.text().as_str()), ("", "{}"));
}

#[test]
fn paths_and_headers_are_made_of_templates() {
    let mut gateway = gateway(
        r#"{
            "env": {"REGION": "eu"},
            "rewrite": [{"from": "/v1/orders/{id}", "to": "/orders/${captures.id}"}, {"from": "/old/*", "to": "/new?was=${captures.rest}"}],
            "request": {"headers": {"set": {
                "x-path": "${request.path}", "x-who": "${request.headers.x-user | default(\"nobody\")}", "x-region": "${env.REGION}"
            }}},
            "response": {"headers": {"set": {"x-from": "${request.method} ${response.status} ${captures.id}", "x-none": "${request.query.none}"}}}
        }"#,
    );
    let outcome = gateway.send(Request::get("/v1/orders/a%2Fb?x=1"));
    let seen = outcome.at_upstream();
    assert_eq!(seen.target(), "/orders/a%2Fb?x=1");
    let fields = ["x-path", "x-who", "x-region"].map(|name| seen.header(name));
    assert_eq!(fields, [Some("/v1/orders/a%2Fb"), Some("nobody"), Some("eu")]);
    assert_eq!((outcome.reply.header("x-from"), outcome.reply.header("x-none")), (Some("GET 200 a/b"), None));
    assert_eq!(gateway.send(Request::get("/old/a/b")).at_upstream().target(), "/new?was=a%2Fb");
    assert_eq!(gateway.send(Request::get("/other?x=1")).at_upstream().target(), "/other?x=1");
}

#[test]
fn a_value_that_would_leave_its_header_or_its_path_is_refused() {
    let mut gateway = gateway(
        r#"{"rewrite": [{"from": "/to/{where}", "to": "/${captures.where}"}], "request": {"headers": {"set": {"x-q": "${request.query.q}"}}}}"#,
    );
    for (target, want) in [
        ("/to/%2e%2e", 400),
        ("/to/%2e%2e%2fadmin", 400),
        ("/to/a%2f..", 400),
        ("/to/a%5c%2e", 400),
        ("/to/a%2fb", 200),
        ("/a?q=%0d%0ax:%20y", 400),
        ("/to/b", 200),
        ("/a?q=b", 200),
    ] {
        assert_eq!(gateway.send(Request::get(target)).status(), want, "{target}");
    }
}
