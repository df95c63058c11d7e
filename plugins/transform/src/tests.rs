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

#[test]
fn rules_are_made_where_their_conditions_hold() {
    let mut gateway = gateway(
        r#"{
            "request": [
                {"when": {"methods": ["PATCH"], "path": "/v1/{thing}/{id}"}, "method": {"PATCH": "PUT"},
                 "headers": {"set": {"x-id": "${captures.thing}:${captures.id}"}}},
                {"when": {"headers": {"x-beta": true}}, "unless": {"query": {"beta": "off"}}, "headers": {"set": {"x-is": "beta"}}},
                {"when": {"headers": {"x-is": "beta"}}, "headers": {"set": {"x-chained": "1"}}}
            ],
            "response": [
                {"when": {"status": "5xx"}, "status": {"500": 502, "5xx": 503}, "headers": {"set": {"retry-after": "1"}}},
                {"when": {"request_headers": {"x-beta": true}}, "headers": {"set": {"x-was": "${response.status}"}}}
            ]
        }"#,
    );
    let outcome = gateway.send(Request::new("PATCH", "/v1/orders/7"));
    let seen = outcome.at_upstream();
    assert_eq!(
        (seen.header(":method"), seen.header("x-id"), seen.header("x-is")),
        (Some("PUT"), Some("orders:7"), None)
    );
    assert_eq!((outcome.status(), outcome.reply.header("retry-after")), (200, None));
    let outcome = gateway.send(Request::get("/?beta=on").header("x-beta", "1"));
    let seen = outcome.at_upstream();
    // Conditions see what came, not what rules before them have made.
    assert_eq!((seen.header("x-is"), seen.header("x-chained")), (Some("beta"), None));
    assert_eq!(outcome.reply.header("x-was"), Some("200"));
    let outcome = gateway.send(Request::get("/?beta=off").header("x-beta", "1"));
    assert_eq!(outcome.at_upstream().header("x-is"), None);
}

#[test]
fn statuses_become_others() {
    let plugin = Plugin::new("transform", start::<Transform>)
        .config(r#"{"response": {"when": {"status": "5xx"}, "status": {"500": 502, "5xx": 503}, "headers": {"set": {"x-was": "${response.status}"}}}}"#);
    let mut gateway = Gateway::new()
        .origin(|seen| Reply::status(seen.target().trim_start_matches('/').parse().unwrap()))
        .plugin(plugin)
        .start();
    for (status, want, was) in
        [("200", 200, None), ("404", 404, None), ("500", 502, Some("500")), ("599", 503, Some("599"))]
    {
        let outcome = gateway.send(Request::get(&format!("/{status}")));
        assert_eq!((outcome.status(), outcome.reply.header("x-was")), (want, was), "{status}");
    }
}

#[test]
fn queries_are_edited() {
    let mut gateway = gateway(
        r#"{"request": {"query": {
            "remove": ["debug", "utm source"], "rename": {"q": "query"}, "set": {"page": "1", "who": "${request.headers.x-user}"}, "append": {"tag": "a&b"}
        }}}"#,
    );
    for (target, want) in [
        ("/", "/?page=1&tag=a%26b"),
        ("/?debug", "/?page=1&tag=a%26b"),
        ("/a?q=x+y&utm+source=m&utm%20source&z", "/a?query=x+y&z&page=1&tag=a%26b"),
        ("/?page=7&tag=c&page=8&&x=%zz", "/?page=1&tag=c&x=%zz&tag=a%26b"),
        ("/?q&q=2", "/?query&query=2&page=1&tag=a%26b"),
    ] {
        assert_eq!(gateway.send(Request::get(target)).at_upstream().target(), want, "{target}");
    }
    let outcome = gateway.send(Request::get("/").header("x-user", "a b"));
    assert_eq!(outcome.at_upstream().target(), "/?page=1&who=a%20b&tag=a%26b");
}

#[test]
fn headers_are_taken_and_renamed_by_prefix() {
    let mut gateway = gateway(
        r#"{"request": {"headers": {"remove": ["x-internal-*", "c*"], "rename": {"x-old-*": "x-new-*", "x-one": "x-other"}}}}"#,
    );
    let request = Request::post("/").header("content-type", "text/plain").header("x-internal-a", "1");
    let request = request.header("x-internal-b", "2").header("x-internal", "3").header("x-old-a", "4");
    let request = request.header("x-old-a", "5").header("x-new-a", "6").header("x-one", "7").body("body");
    let outcome = gateway.send(request);
    let seen = outcome.at_upstream();
    let gone = ["x-internal-a", "x-internal-b", "content-type", "x-old-a", "x-one"].map(|name| seen.header(name));
    assert_eq!(gone, [None; 5]);
    assert_eq!((seen.header("x-internal"), seen.header("x-other")), (Some("3"), Some("7")));
    assert_eq!((seen.all("x-new-a"), seen.text()), (vec!["4", "5"], "body".to_owned()));
}
