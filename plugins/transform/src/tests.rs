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

/// On a host that holds heads while bodies are read.
fn held(settings: &str, reply: Reply, request: Request) -> Outcome {
    let plugin = Plugin::new("transform", start::<Transform>).config(settings).holds_headers();
    Gateway::new().origin(move |_| reply.clone()).plugin(plugin).start().send(request)
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
    assert_eq!(headers, [None, None, Some("b"), Some("1"), Some("gzip")]);
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
        (json().header("content-encoding", "compress").body("x"), (415, "body_encoded")),
        (json().header("content-encoding", "gzip").body("x"), (400, "body_malformed")),
        (json().header("content-range", "bytes 0-1/9").body("{}"), (400, "body_partial")),
    ] {
        let outcome = transformed(request, Reply::ok(""));
        assert_eq!((outcome.status(), outcome.details.as_str()), want);
        assert!(outcome.upstream.is_none_or(|seen| seen.body.is_empty() && !seen.complete));
    }
    for (reply, want) in [
        (Reply::json("{}").header("content-encoding", "compress"), (502, "response_encoded")),
        (Reply::json("a".repeat(41)), (502, "response_too_large")),
    ] {
        let outcome = transformed(Request::get("/"), reply);
        assert_eq!((outcome.status(), outcome.details.as_str()), want);
    }
    let broken = Reply::status(200).header("content-type", "text/json+json").chunks(["{"]);
    let outcome = held(SETTINGS, broken.clone(), Request::get("/"));
    assert_eq!((outcome.status(), outcome.details.as_str()), (502, "response_malformed"));
    // Where its head has gone on, what is left is to cut it off.
    let outcome = transformed(Request::get("/"), broken);
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

#[test]
fn what_a_head_says_of_the_old_body_goes_with_it() {
    let settings = r#"{"request": {"body": {"set": {"/a": 1}}}, "response": {"body": {"remove": ["/secret"]}}}"#;
    let request = json().header("content-digest", "sha-256=:x:").header("content-length", "2").body("{}");
    let reply = Reply::json(r#"{"secret":1}"#).header("etag", "\"v1\"").header("repr-digest", "sha-256=:y:");
    let reply = reply.header("accept-ranges", "bytes").header("last-modified", "Sat, 01 Jan 2000 00:00:00 GMT");
    let outcome = held(settings, reply.clone(), request);
    let seen = outcome.at_upstream();
    assert_eq!((seen.text().as_str(), seen.header("content-length")), (r#"{"a":1}"#, Some("7")));
    assert_eq!(seen.header("content-digest"), None);
    let told = ["etag", "repr-digest", "accept-ranges", "content-length"].map(|name| outcome.reply.header(name));
    assert_eq!((outcome.reply.text().as_str(), told), ("{}", [None, None, None, Some("2")]));
    assert!(outcome.reply.header("last-modified").is_some());
    // Other bodies keep theirs.
    let text = Reply::ok("{}").header("content-type", "text/plain").header("etag", "\"v1\"");
    let outcome = held(settings, text, Request::get("/"));
    assert_eq!(outcome.reply.header("etag"), Some("\"v1\""));
    // A body that nobody gets has none of it either.
    let head = Reply::status(200)
        .header("content-type", "application/json")
        .header("content-length", "12")
        .header("etag", "x");
    let outcome = held(settings, head, Request::new("HEAD", "/"));
    assert_eq!(["etag", "content-length"].map(|name| outcome.reply.header(name)), [None, None]);
}

#[test]
fn codings_are_undone_and_done_again() {
    use coding::Coding;
    let settings =
        r#"{"max_bytes": 100, "request": {"body": {"set": {"/a": 1}}}, "response": {"body": {"remove": ["/secret"]}}}"#;
    for (coding, name) in [(Coding::Gzip, "gzip"), (Coding::Zstd, "zstd"), (Coding::Brotli, "br")] {
        let encoded = |plain: &str| coding.encoded(plain.as_bytes().to_vec()).unwrap();
        let plain = |body: &[u8]| String::from_utf8(coding.decoded(body.to_vec(), 1000).unwrap()).unwrap();
        let to_read = json().header("content-encoding", name);
        let request = to_read.clone().header("accept-encoding", format!("compress, {name}")).body(encoded("{}"));
        let reply = Reply::json(encoded(r#"{"secret":1,"b":2}"#)).header("content-encoding", name);
        let outcome = held(settings, reply.clone(), request);
        let seen = outcome.at_upstream();
        assert_eq!((plain(&seen.body).as_str(), seen.header("accept-encoding")), (r#"{"a":1}"#, Some(name)));
        assert_eq!(
            (plain(&outcome.reply.body).as_str(), outcome.reply.header("content-encoding")),
            (r#"{"b":2}"#, Some(name))
        );
        let bomb = encoded(&" ".repeat(10_000));
        assert!(bomb.len() < 100);
        let outcome = held(settings, reply, to_read.body(bomb));
        assert_eq!((outcome.status(), outcome.details.as_str()), (413, "body_too_large"));
    }
}

#[test]
fn what_cannot_be_transformed_passes_where_the_settings_say_so() {
    let settings = r#"{"max_bytes": 20, "on_overflow": "pass", "on_invalid": "pass", "response": {"body": {"remove": ["/secret"]}}}"#;
    let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(20));
    for (reply, want) in [
        (Reply::json("{"), "{"),
        (Reply::json(&long), long.as_str()),
        (Reply::status(200).header("content-type", "application/json").chunks([&long[..9], &long[9..]]), &long),
        (Reply::json("xyz").header("content-encoding", "compress"), "xyz"),
        (Reply::json("xyz").header("content-encoding", "gzip"), "xyz"),
        (Reply::json("xyz").header("content-encoding", "br"), "xyz"),
        (Reply::json(r#"{"secret":1}"#), "{}"),
    ] {
        let reply = reply.header("etag", "e");
        let outcome = held(settings, reply.clone(), Request::get("/"));
        assert_eq!((outcome.status(), outcome.reply.text().as_str(), outcome.reply.complete), (200, want, true));
        assert_eq!(outcome.reply.header("etag").is_some(), want != "{}", "{want}");
        let plugin = Plugin::new("transform", start::<Transform>).config(settings);
        let outcome = Gateway::new().origin(move |_| reply.clone()).plugin(plugin).start().send(Request::get("/"));
        assert_eq!((outcome.status(), outcome.reply.text().as_str(), outcome.reply.complete), (200, want, true));
    }
}

#[test]
fn decisions_are_counted() {
    let plugin = Plugin::new("transform", start::<Transform>).config(r#"{"request": {"body": {"remove": ["/a"]}}}"#);
    let mut gateway = Gateway::new().plugin(plugin.holds_headers()).start();
    gateway.send(json().body("{}"));
    gateway.send(json().body("{"));
    gateway.send(Request::post("/").body("{"));
    let counts = ["transform_bodies.request", "transform_refused.body_malformed"].map(|name| gateway.metric(name));
    assert_eq!(counts, [Some(1), Some(1)]);
}

#[test]
fn records_of_streams_are_changed_as_they_pass() {
    let settings = r#"{"max_record_bytes": 40, "response": [
        {"format": "ndjson", "body": {"remove": ["/secret"], "set": {"/m": "${request.method}"}}},
        {"format": "sse", "body": {"remove": ["/secret"]}}
    ]}"#;
    let stream = |kind: &str| Reply::status(200).header("content-type", kind).header("etag", "e");
    let lines = stream("application/x-ndjson").chunks(["{\"a\":1,\"sec", "ret\":2}\n{\"a\":3}\nnone\n{\"a", "\":4}"]);
    let want = "{\"a\":1,\"m\":\"GET\"}\n{\"a\":3,\"m\":\"GET\"}\n{\"a\":4,\"m\":\"GET\"}";
    let outcome = held(settings, lines.clone(), Request::get("/").header("accept-encoding", "gzip"));
    assert_eq!((outcome.reply.text().as_str(), outcome.reply.header("etag")), (want, None));
    assert_eq!(outcome.at_upstream().header("accept-encoding"), None);
    // Where bodies can be added to when trailers are here, a last record without an end is not lost.
    assert_eq!(held(settings, lines.trailer("x-sum", "1"), Request::get("/")).reply.text(), want);
    let events = stream("text/event-stream").chunks(["id: 1\ndata: {\"secret\":1}\n", "\ndata: [DONE]\n\n"]);
    assert_eq!(held(settings, events, Request::get("/")).reply.text(), "id: 1\ndata: {}\n\ndata: [DONE]\n\n");
    let plugin = Plugin::new("transform", start::<Transform>).config(settings).holds_headers();
    let mut gateway = Gateway::new()
        .origin(move |_| {
            stream("application/x-ndjson").chunks([format!("[\"{}\"]\n", "x".repeat(40)), "{\n[1]\n".to_owned()])
        })
        .plugin(plugin)
        .start();
    assert_eq!(gateway.send(Request::get("/")).reply.text(), "[1]\n");
    let counts = ["transform_dropped.response_too_large", "transform_dropped.response_malformed"]
        .map(|name| gateway.metric(name));
    assert_eq!(counts, [Some(1), Some(1)]);
}

#[test]
fn forms_and_xml_become_json() {
    let settings = r#"{
        "request": [
            {"format": "form", "to": "json", "body": {"rename": {"/q": "query"}}},
            {"when": {"headers": {"x-form": true}}, "to": "form", "body": {"wrap": "w", "unwrap": "/a"}}
        ],
        "response": {"format": "xml", "body": {"unwrap": "/order"}}
    }"#;
    let xml = Reply::ok("<order id='7'><line>a</line><line>b</line></order>")
        .header("content-type", "text/xml; charset=utf-8");
    let form = Request::post("/").header("content-type", "application/x-www-form-urlencoded").body("q=a+b&n=1&n=2");
    let outcome = held(settings, xml.clone(), form.clone());
    let seen = outcome.at_upstream();
    assert_eq!(
        (seen.text().as_str(), seen.header("content-type")),
        (r#"{"query":"a b","n":["1","2"]}"#, Some("application/json"))
    );
    let kind = outcome.reply.header("content-type");
    assert_eq!((outcome.reply.text().as_str(), kind), (r#"{"@id":"7","line":["a","b"]}"#, Some("application/json")));
    let outcome = held(settings, xml, json().header("x-form", "1").body(r#"{"a":"b c"}"#));
    let seen = outcome.at_upstream();
    assert_eq!(
        (seen.text().as_str(), seen.header("content-type")),
        ("w=b%20c", Some("application/x-www-form-urlencoded"))
    );
    let evil = Reply::ok("<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>").header("content-type", "text/xml");
    let outcome = held(settings, evil, form);
    assert_eq!((outcome.status(), outcome.details.as_str()), (502, "response_malformed"));
}
