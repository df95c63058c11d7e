//! The filter as a whole, on the core that gateways run.

mod claims;
mod compositions;
mod schedules;

use portcullis_sdk::{ms, start};
use portcullis_testing::{Gateway, Outcome, Plugin, Reply, Request, Running, Seen};

use super::*;

/// A gateway whose upstreams `a` to `d` answer as `answer` says.
fn gateway(settings: &str, answer: fn(&str, &Seen) -> Reply) -> Running {
    let gateway = ["a", "b", "c", "d"]
        .into_iter()
        .fold(Gateway::new(), |gateway, name| gateway.upstream(name, move |seen| answer(name, seen)));
    gateway.plugin(Plugin::new("aggregate", start::<Aggregate>).config(settings).holds_headers()).start()
}

/// One endpoint with these calls.
fn endpoint(calls: &str) -> String {
    format!("{{\"endpoints\":[{{\"calls\":[{calls}]}}]}}")
}

/// What is answered to a GET of `/`.
fn answered(settings: &str, answer: fn(&str, &Seen) -> Reply) -> Outcome {
    gateway(settings, answer).send(Request::get("/"))
}

fn text(outcome: &Outcome) -> (u16, String) {
    (outcome.status(), outcome.reply.text().trim_end().to_owned())
}

const TWO: &str = r#"{ "endpoints": [{
    "path": "/all", "forward_headers": ["authorization", "accept"],
    "calls": [
        { "name": "user", "upstream": "a", "path": "/me", "timeout": "100ms" },
        { "name": "orders", "upstream": "b", "path": "/o", "default": [], "host": "o.test", "max_bytes": 20, "max_depth": 2 }
    ]
}] }"#;

fn of_two(user: Reply, orders: Reply) -> Running {
    let gateway = Gateway::new().upstream("a", move |_| user.clone()).upstream("b", move |_| orders.clone());
    gateway.plugin(Plugin::new("aggregate", start::<Aggregate>).config(TWO)).start()
}

#[test]
fn a_reply_is_made_when_every_call_has_come_to_something() {
    let user = || Reply::ok(" {\"id\" : 1} ").after(ms(1));
    let whole = (200, "{\"user\":{\"id\" : 1},\"orders\":[1.50]}".to_owned(), None);
    let lacking = (200, "{\"user\":{\"id\" : 1},\"orders\":[],\"partial\":[\"orders\"]}".to_owned(), Some("orders"));
    for (name, orders, want) in [
        ("both", Reply::ok("[1.50]"), &whole),
        ("both, the other way round", Reply::ok("[1.50]").after(ms(5)), &whole),
        ("no success", Reply::status(500).body("[1]"), &lacking),
        ("no JSON", Reply::ok("<p>"), &lacking),
        ("more than JSON", Reply::ok("[],[]"), &lacking),
        ("empty", Reply::ok(""), &lacking),
        ("too long", Reply::ok("\"123456789012345678901\""), &lacking),
        ("too deep", Reply::ok("[[[1]]]"), &lacking),
        ("breaks off", Reply::broken(), &lacking),
        ("late", Reply::ok("[1]").after(ms(1001)), &lacking),
    ] {
        let outcome = of_two(user(), orders).send(Request::get("/all?x=1"));
        let (status, body) = text(&outcome);
        assert_eq!(&(status, body, outcome.reply.header("x-partial")), want, "{name}");
        assert_eq!(outcome.reply.header("content-type"), Some("application/json"));
        let is_partial = want.2.is_some();
        assert_eq!(outcome.details, if is_partial { "composed_partially" } else { "composed" });
        assert_eq!(outcome.reply.header("etag").is_none(), is_partial);
        assert_eq!(outcome.reply.header("cache-control"), is_partial.then_some("no-store"));
    }
    let outcome = of_two(user(), Reply::status(204)).send(Request::get("/all"));
    assert_eq!(
        outcome.reply.text(),
        "{\"user\":{\"id\" : 1},\"orders\":null}\n",
        "no content is nothing, and no failure"
    );
}

#[test]
fn a_call_that_cannot_be_done_without_is_named_at_once() {
    for (user, want) in [
        (Reply::status(404).body("{}"), (502, "call_failed")),
        (Reply::ok("{},\"x\":{}"), (502, "call_failed")),
        (Reply::broken(), (502, "call_failed")),
        (Reply::ok("not json"), (502, "call_failed")),
        (Reply::status(503), (503, "call_unavailable")),
        (Reply::ok("{}").after(ms(101)), (504, "call_timeout")),
    ] {
        let outcome = of_two(user, Reply::ok("[]").after(ms(500))).send(Request::get("/all"));
        assert_eq!((outcome.status(), outcome.details.as_str()), want);
        assert!(outcome.reply.text().contains("\"call\":\"user\""), "{}", outcome.reply.text());
        assert!(outcome.took <= ms(100), "nobody waits for the rest: {:?}", outcome.took);
    }
}

#[test]
fn the_path_and_the_method_say_which_endpoint_answers() {
    let settings = r#"{"endpoints":[
        {"path":"/u/*","calls":[{"name":"rest","upstream":"a","path":"/${captures.rest}"}]},
        {"path":"/u/{id}","calls":[{"name":"id","upstream":"a","path":"/${captures.id}"}]},
        {"path":"/u/me","methods":["PUT","PATCH"],"calls":[{"name":"me","upstream":"a","path":"/"}]}
    ]}"#;
    let mut gateway = gateway(settings, |_, seen| Reply::ok(format!("\"{}\"", seen.target())));
    for (method, path, want) in [
        ("GET", "/u/7?x=1", (200, r#"{"id":"/7"}"#)),
        ("GET", "/u/a%2fb", (200, r#"{"id":"/a%2Fb"}"#)),
        ("GET", "/u/7/8", (200, r#"{"rest":"/7%2F8"}"#)),
        ("PUT", "/u/me", (200, r#"{"me":"/"}"#)),
        ("GET", "/u/me", (200, r#"{"id":"/me"}"#)),
        ("GET", "/v", (200, "ok")),
        ("POST", "/v", (200, "ok")),
    ] {
        let outcome = gateway.send(Request::new(method, path));
        assert_eq!(text(&outcome), (want.0, want.1.to_owned()), "{method} {path}");
        assert_eq!(outcome.upstream.is_some(), want.1 == "ok", "{method} {path}");
    }
    let refused = gateway.send(Request::new("DELETE", "/u/me"));
    assert_eq!((refused.status(), refused.details.as_str()), (405, "method_not_allowed"));
    assert_eq!(refused.reply.header("allow"), Some("PUT, PATCH, GET, HEAD"));
    assert_eq!(gateway.send(Request::new("HEAD", "/u/7")).status(), 200);
    assert!(gateway.calls().iter().all(|call| call.request.method() == "GET"));
}

#[test]
fn calls_get_the_headers_that_are_to_be_forwarded_and_those_that_trace() {
    let mut gateway = of_two(Reply::ok("{}"), Reply::ok("[]"));
    let request =
        Request::get("/all").header("authorization", "Bearer x").header("cookie", "y").header("accept", "*/*");
    gateway.send(request.header("traceparent", "00-1-2-01").header("b3", "0"));
    for call in gateway.calls() {
        assert_eq!(call.request.all("authorization"), ["Bearer x"]);
        assert_eq!(call.request.all("accept"), ["*/*"]);
        assert_eq!(
            ["traceparent", "b3", "x-request-id"].map(|name| call.request.header(name)),
            [Some("00-1-2-01"), Some("0"), Some("test-request")]
        );
        assert_eq!(call.request.header("cookie"), None);
        assert_eq!(call.request.header(":authority"), Some(if call.upstream == "b" { "o.test" } else { "a" }));
    }
}

#[test]
fn a_call_is_made_of_the_request_and_of_earlier_answers() {
    let settings = r#"{"env":{"KEY":"secret"},"endpoints":[{"path":"/u/{id}","methods":["POST"],"calls":[
        {"name":"user","upstream":"a","path":"/users/${captures.id}","query":{"lang":"${request.query.lang}","none":"${request.query.none}","v":2},
         "headers":{"x-key":"${env.KEY}","x-none":"${request.headers.x-none}"}},
        {"name":"order","upstream":"b","path":"/of/${calls.user.body./id}/${calls.user.status}/${calls.user.headers.x-shard}",
         "body":{"n":"${request.body./n}","tags":"${request.body./items/*/tag}","text":"n is ${request.body./n}","none":"${request.body./none}","x":[true]}},
        {"name":"form","upstream":"c","path":"/","text":"ids=${request.body./items/*/id}","headers":{"content-type":"application/x-www-form-urlencoded"}}
    ]}]}"#;
    let mut gateway = gateway(settings, |_, _| Reply::ok(r#"{"id":1.50}"#).header("x-shard", "s/1"));
    let body = r#"{"n":9007199254740993,"items":[{"tag":"x","id":1},{"tag":"y","id":"2"},{"id":1}]}"#;
    let outcome = gateway.send(Request::post("/u/a%20b?lang=d+e").body(body));
    assert_eq!(outcome.status(), 200, "{}", outcome.reply.text());
    let calls = gateway.calls();
    let seen = |upstream: &str| calls.iter().find(|call| call.upstream == upstream).map(|call| &call.request).unwrap();
    assert_eq!((seen("a").method(), seen("a").target()), ("GET", "/users/a%20b?lang=d%20e&v=2"));
    assert_eq!((seen("a").header("x-key"), seen("a").header("x-none")), (Some("secret"), None));
    assert_eq!((seen("b").method(), seen("b").target()), ("POST", "/of/1.50/200/s%2F1"));
    let order = r#"{"n":9007199254740993,"tags":["x","y"],"text":"n is 9007199254740993","none":null,"x":[true]}"#;
    assert_eq!((seen("b").text().as_str(), seen("b").header("content-type")), (order, Some("application/json")));
    let form = (seen("c").text(), seen("c").all("content-type"));
    assert_eq!(form, ("ids=1,2".to_owned(), vec!["application/x-www-form-urlencoded"]));
}

#[test]
fn a_request_whose_body_cannot_be_read_goes_no_further() {
    let settings = r#"{"endpoints":[{"methods":["POST"],"max_request_bytes":40,"calls":[
        {"name":"a","upstream":"a","path":"/${request.body./id}"}]}]}"#;
    let mut gateway = gateway(settings, |_, _| Reply::ok("1"));
    let deep = format!("{}1{}", "[".repeat(101), "]".repeat(101));
    for (request, want) in [
        (Request::post("/").body(r#"{"id":1}"#), (200, "composed")),
        (Request::post("/").body("{"), (400, "body_malformed")),
        (Request::post("/").body(format!("{:50}", "1")), (413, "body_too_large")),
        (Request::post("/").header("content-encoding", "gzip").body("x"), (415, "body_encoded")),
        (Request::post("/").body("{}"), (400, "value_missing")),
        (Request::post("/"), (400, "value_missing")),
        (Request::post("/").body(r#"{"id":".."}"#), (400, "value_unfit")),
        (Request::post("/").body(r#"{"id":""}"#), (400, "value_missing")),
        (Request::post("/").chunks([&deep[..30], &deep[30..]]), (413, "body_too_large")),
    ] {
        let outcome = gateway.send(request);
        assert_eq!((outcome.status(), outcome.details.as_str()), want);
        assert_eq!(outcome.upstream, None);
    }
    assert_eq!(gateway.calls().len(), 1);
}

#[test]
fn what_a_call_needs_and_does_not_get_it_is_not_made_for() {
    let calls = r#"
        {"name":"user","upstream":"a","path":"/","optional":true},
        {"name":"orders","upstream":"b","path":"/of/${calls.user.body./id}","default":[]},
        {"name":"audit","upstream":"c","path":"/","after":["user"],"hidden":true},
        {"name":"greeting","upstream":"d","path":"/${calls.user.body./name | default(\"nobody\")}"}"#;
    for (user, want) in [
        (Reply::ok(r#"{"id":1,"name":"ann"}"#), r#"{"user":{"id":1,"name":"ann"},"orders":"/of/1","greeting":"/ann"}"#),
        (Reply::ok(r#"{"id":null}"#), r#"{"user":{"id":null},"orders":[],"greeting":"/nobody","partial":["orders"]}"#),
        (Reply::status(500), r#"{"orders":[],"greeting":"/nobody","partial":["user","orders"]}"#),
    ] {
        let gateway = Gateway::new().upstream("a", move |_| user.clone());
        let echo = |seen: &Seen| Reply::ok(format!("\"{}\"", seen.target()));
        let gateway = ["b", "c", "d"].iter().fold(gateway, |gateway, name| gateway.upstream(name, echo));
        let mut gateway = gateway.plugin(Plugin::new("aggregate", start::<Aggregate>).config(endpoint(calls))).start();
        assert_eq!(text(&gateway.send(Request::get("/"))), (200, want.to_owned()));
        assert!(gateway.calls().iter().any(|call| call.upstream == "c"), "it waits, and needs nothing");
    }
}

#[test]
fn a_call_whose_condition_does_not_hold_is_not_made_nor_are_those_that_need_it() {
    let calls = r#"
        {"name":"full","upstream":"a","path":"/","when":{"value":"${request.query.full}"}},
        {"name":"more","upstream":"b","path":"/${calls.full.body}"},
        {"name":"each","upstream":"b","path":"/${item}","each":{"of":"${calls.full.body./l}"}},
        {"name":"beta","upstream":"c","path":"/","when":{"value":"${request.headers.x-beta}","is":["1","2"]}},
        {"name":"old","upstream":"d","path":"/","when":{"value":"${request.headers.x-beta}","is_not":["1"]}}"#;
    let mut gateway = gateway(&endpoint(calls), |name, _| Reply::ok(format!("\"{name}\"")));
    for (request, want) in [
        (Request::get("/"), r#"{"old":"d"}"#),
        (Request::get("/?full=false"), r#"{"old":"d"}"#),
        (Request::get("/").header("x-beta", "1"), r#"{"beta":"c"}"#),
        (Request::get("/").header("x-beta", "2"), r#"{"beta":"c","old":"d"}"#),
    ] {
        let outcome = gateway.send(request);
        assert_eq!((text(&outcome), outcome.reply.header("x-partial")), ((200, want.to_owned()), None));
    }
    let refused = gateway.send(Request::get("/?full=1"));
    assert_eq!((refused.status(), refused.details.as_str()), (502, "call_failed"), "its answer has no such array");
}

#[test]
fn a_call_is_made_for_each_item_of_an_array() {
    let settings = |more: &str| {
        endpoint(&format!(
            r#"{{"name":"orders","upstream":"a","path":"/"}},
               {{"name":"products","upstream":"b","path":"/p/${{item./p}}","each":{{"of":"${{calls.orders.body}}","max_items":5,"concurrency":2}}{more}}}"#
        ))
    };
    let orders = |_: &Seen| Reply::ok(r#"[{"p":1},{"p":2},{"p":3},{"p":1}]"#);
    let product = |seen: &Seen| match seen.target() {
        "/p/2" => Reply::status(404),
        target => Reply::ok(format!("\"{target}\"")).after(ms(10)),
    };
    for (more, want) in [
        (r#","optional":true"#, (200, r#"["/p/1","/p/3","/p/1"]"#, 20)),
        (r#","default":null"#, (200, r#"["/p/1",null,"/p/3","/p/1"]"#, 20)),
        ("", (502, "call_failed", 10)),
    ] {
        let gateway = Gateway::new().upstream("a", orders).upstream("b", product);
        let mut gateway = gateway.plugin(Plugin::new("aggregate", start::<Aggregate>).config(settings(more))).start();
        let outcome = gateway.send(Request::get("/"));
        assert_eq!(outcome.status(), want.0, "{more}");
        assert!(outcome.reply.text().contains(want.1), "{more}: {}", outcome.reply.text());
        assert!(outcome.took <= ms(want.2), "{:?}", outcome.took);
        let asked = gateway.calls().iter().filter(|call| call.request.target() == "/p/1").count();
        assert_eq!(asked, 1, "the same is asked once");
    }
    for (answer, want) in [("{}", "no_array"), ("[1,2,3,4,5,6]", "too_many"), ("[]", "")] {
        let gateway = Gateway::new().upstream("a", move |_| Reply::ok(answer)).upstream("b", product);
        let settings = settings(r#","default":0"#);
        let mut gateway = gateway.plugin(Plugin::new("aggregate", start::<Aggregate>).config(settings)).start();
        let outcome = gateway.send(Request::get("/"));
        assert!(outcome.reply.text().contains("\"products\":[]"), "{}", outcome.reply.text());
        assert_eq!(outcome.reply.header("x-partial").is_some(), !want.is_empty(), "{answer}");
    }
}

#[test]
fn equal_calls_are_made_once_if_that_changes_nothing() {
    for (more, want) in [
        ("", 1),
        (r#","method":"POST""#, 2),
        (r#","method":"POST","idempotent":true"#, 1),
        (r#","idempotent":false"#, 2),
        (r#","after":["a"]"#, 1),
    ] {
        let second = format!(r#"{{"name":"b","upstream":"a","path":"/"{more}}}"#);
        let first = second.replace("\"b\"", "\"a\"").replace(r#","after":["a"]"#, "");
        let mut gateway = gateway(&endpoint(&format!("{first},{second}")), |_, _| Reply::ok("1").after(ms(5)));
        let outcome = gateway.send(Request::get("/"));
        assert_eq!((text(&outcome), gateway.calls().len()), ((200, r#"{"a":1,"b":1}"#.to_owned()), want), "{more}");
    }
}

#[test]
fn a_call_is_made_again_when_that_may_help() {
    let call = r#"{"name":"a","upstream":"a","path":"/","timeout":"50ms","retry":{"times":2,"backoff":"10ms"}}"#;
    // Pauses of 10 and 20 ms, less up to half of each.
    for (first, want, took) in [
        (Reply::status(503), (200, 3), 15..=31),
        (Reply::broken(), (200, 3), 15..=31),
        (Reply::ok("1").after(ms(60)), (200, 3), 115..=131),
        (Reply::status(500), (502, 1), 0..=0),
        (Reply::ok("<p>"), (502, 1), 0..=0),
    ] {
        let mut left = 2;
        let upstream = move |_: &Seen| {
            left -= 1;
            if left >= 0 { first.clone() } else { Reply::ok("1") }
        };
        let plugin = Plugin::new("aggregate", start::<Aggregate>).config(endpoint(call));
        let mut gateway = Gateway::new().upstream("a", upstream).plugin(plugin).start();
        let outcome = gateway.send(Request::get("/"));
        assert_eq!((outcome.status(), gateway.calls().len()), want, "{}", outcome.reply.text());
        assert!(took.contains(&outcome.took.as_millis()), "{:?}", outcome.took);
    }
}

#[test]
fn a_request_is_over_by_its_deadline_however_its_calls_go() {
    let settings = r#"{"endpoints":[{"deadline":"100ms","calls":[
        {"name":"a","upstream":"a","path":"/","timeout":"80ms","default":1,"retry":{"times":5}},
        {"name":"b","upstream":"b","path":"/${calls.a.body}","timeout":"80ms","optional":true},
        {"name":"c","upstream":"c","path":"/","after":["b"],"optional":true}
    ]}]}"#;
    let outcome = answered(settings, |_, _| Reply::ok("1").after(ms(1000)));
    assert_eq!(text(&outcome), (200, r#"{"a":1,"partial":["a","b","c"]}"#.to_owned()));
    assert_eq!(outcome.took, ms(100));
    assert!(outcome.logged("the call c failed: Timeout"));
}

#[test]
fn a_request_causes_no_more_calls_than_it_may() {
    let settings = r#"{"endpoints":[{"max_calls":2,"calls":[
        {"name":"a","upstream":"a","path":"/1"},{"name":"b","upstream":"a","path":"/2"},{"name":"c","upstream":"a","path":"/3"}
    ]}]}"#;
    let mut gateway = gateway(settings, |_, _| Reply::ok("1"));
    let outcome = gateway.send(Request::get("/"));
    assert_eq!((outcome.status(), outcome.details.as_str()), (502, "too_many_calls"));
    assert_eq!(gateway.calls().len(), 2);
}

#[test]
fn the_answers_of_a_request_are_bounded_together() {
    let calls = r#"{"name":"a","upstream":"a","path":"/1"},{"name":"b","upstream":"a","path":"/2","optional":true}"#;
    let settings = |more: &str| format!("{{\"endpoints\":[{{\"calls\":[{calls}]{more}}}]}}");
    let short = |_: &str, _: &Seen| Reply::ok("\"12345678\"");
    let many = |_: &str, _: &Seen| Reply::ok(format!("[{}1]", "1,".repeat(30_000)));
    for (more, answer, partial) in [
        (r#","max_answers_bytes":20"#, short as fn(&str, &Seen) -> Reply, None),
        (r#","max_answers_bytes":19"#, short, Some("b")),
        ("", many, Some("b")),
    ] {
        let outcome = answered(&settings(more), answer);
        assert_eq!((outcome.status(), outcome.reply.header("x-partial")), (200, partial), "{more}");
    }
}

#[test]
fn clients_are_told_the_statuses_that_are_meant_for_them() {
    let call = r#"{"name":"a","upstream":"a","path":"/","statuses":{"404":404,"418":403}}"#;
    for (status, want) in [(404, 404), (418, 403), (400, 502)] {
        let plugin = Plugin::new("aggregate", start::<Aggregate>).config(endpoint(call));
        let mut gateway = Gateway::new().upstream("a", move |_| Reply::status(status)).plugin(plugin).start();
        let outcome = gateway.send(Request::get("/"));
        assert_eq!(outcome.status(), want);
        assert_eq!(outcome.details, if want == 502 { "call_failed" } else { "call_refused" });
    }
}
