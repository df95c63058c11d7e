//! What stands in the reply, and where; and what its head says.

use portcullis_sdk::start;
use portcullis_testing::{Gateway, Plugin, Reply, Request};

use super::{answered, endpoint, gateway, text};
use crate::Aggregate;

/// Three services with records that belong to each other.
fn shop(settings: &str) -> (u16, String) {
    text(&answered(settings, |name, _| {
        Reply::ok(match name {
            "a" => {
                r#"{"data":{"id":7,"name":"Ada","mail":"ada@a.test","hash":"x","address":{"city":"Ulm","zip":"89073"}}}"#
            }
            "b" => {
                r#"[{"id":1,"product":3,"total":"12.50"},{"id":2,"product":"4","total":"7.00"},{"id":5,"product":9}]"#
            }
            _ => r#"{"items":[{"sku":3,"name":"Lamp"},{"sku":4,"name":"Desk"}],"name":"catalogue"}"#,
        })
    }))
}

#[test]
fn results_are_shaped_placed_merged_and_joined() {
    let user = |more: &str| format!(r#"{{"name":"user","upstream":"a","path":"/"{more}}}"#);
    let orders = |more: &str| format!(r#"{{"name":"orders","upstream":"b","path":"/"{more}}}"#);
    let catalogue = |more: &str| format!(r#"{{"name":"catalogue","upstream":"c","path":"/"{more}}}"#);
    for (calls, reply, want) in [
        (
            user(
                r#","shape":[{"take":"/data"},{"drop":["/hash"]},{"rename":{"/mail":"email"}},{"flatten":"/address"}]"#,
            ),
            "{}",
            r#"{"user":{"id":7,"name":"Ada","email":"ada@a.test","city":"Ulm","zip":"89073"}}"#,
        ),
        (
            user(r#","shape":[{"take":"/data"},{"pick":["/id","/address/city"]}],"place":"/me/who""#)
                + ","
                + &orders(r#","shape":[{"take":"/*/id"}],"place":"/me/orders""#),
            "{}",
            r#"{"me":{"who":{"id":7,"address":{"city":"Ulm"}},"orders":[1,2,5]}}"#,
        ),
        (
            user(r#","shape":[{"take":"/data"},{"pick":["/id","/name"]}],"place":"""#)
                + ","
                + &catalogue(r#","shape":[{"pick":["/name"]}],"place":"""#)
                + ","
                + &orders(r#","shape":[{"take":"/0/id"}],"place":"/first/order""#),
            "{}",
            r#"{"id":7,"name":"catalogue","first":{"order":1}}"#,
        ),
        (
            orders("") + "," + &catalogue(""),
            r#"{"shape":[
                {"join":{"into":"/orders","by":"/product","from":"/catalogue/items","key":"/sku","as":"product"}},
                {"drop":["/catalogue","/orders/*/product/sku"]}]}"#,
            r#"{"orders":[{"id":1,"product":{"name":"Lamp"},"total":"12.50"},{"id":2,"product":{"name":"Desk"},"total":"7.00"},{"id":5,"product":null}]}"#,
        ),
        (
            orders("") + "," + &user(r#","hidden":true"#),
            r#"{"shape":[{"take":"/orders/0"}]}"#,
            r#"{"id":1,"product":3,"total":"12.50"}"#,
        ),
    ] {
        let settings = format!("{{\"endpoints\":[{{\"calls\":[{calls}],\"reply\":{reply}}}]}}");
        assert_eq!(shop(&settings), (200, want.to_owned()), "{settings}");
    }
}

#[test]
fn a_result_that_does_not_fit_into_the_reply_is_named() {
    for (calls, want) in [
        (r#"{"name":"a","upstream":"b","path":"/","place":""}"#, "reply_unfit"),
        (
            r#"{"name":"a","upstream":"b","path":"/"},{"name":"b","upstream":"a","path":"/","place":"/a/b"}"#,
            "reply_unfit",
        ),
    ] {
        let (status, body) = shop(&endpoint(calls));
        assert!(status == 502 && body.contains(want), "{body}");
    }
    let small = r#"{"endpoints":[{"calls":[{"name":"a","upstream":"a","path":"/"}],"reply":{"max_bytes":60}}]}"#;
    let (status, body) = shop(small);
    assert!(status == 502 && body.contains("reply_too_large"), "{body}");
}

#[test]
fn a_client_that_has_the_reply_is_told_so() {
    let settings = r#"{"endpoints":[{"methods":["GET","POST"],"calls":[{"name":"a","upstream":"a","path":"/"}],
        "reply":{"headers":{"x-kind":"${calls.a.headers.x-kind}"},"forward_headers":["cache-control"]}}]}"#;
    let mut gateway =
        gateway(settings, |_, _| Reply::ok("1").header("x-kind", "k").header("cache-control", "public, max-age=9"));
    let first = gateway.send(Request::get("/"));
    let tag = first.reply.header("etag").unwrap().to_owned();
    for (method, known, want) in [
        ("GET", tag.clone(), 304),
        ("HEAD", tag.clone(), 304),
        ("GET", format!("\"x\", W/{tag}"), 304),
        ("GET", "\"x\"".to_owned(), 200),
        ("POST", tag.clone(), 200),
    ] {
        let outcome = gateway.send(Request::new(method, "/").header("if-none-match", &known));
        assert_eq!(outcome.status(), want, "{method} {known}");
        assert_eq!(outcome.reply.header("etag"), (method != "POST").then_some(tag.as_str()));
        assert_eq!(
            [outcome.reply.header("x-kind"), outcome.reply.header("cache-control")],
            [Some("k"), Some("max-age=9")]
        );
        assert_eq!(outcome.reply.body.is_empty(), want == 304 || method == "HEAD", "{method}");
        assert_eq!(outcome.details, if want == 304 { "not_modified" } else { "composed" });
    }
}

#[test]
fn headers_of_answers_reach_the_client_if_they_are_to() {
    let settings = r#"{"endpoints":[{"calls":[
        {"name":"a","upstream":"a","path":"/"},{"name":"b","upstream":"b","path":"/"},
        {"name":"c","upstream":"c","path":"/","when":{"value":"${request.query.c}"}}],
        "reply":{"status":201,"forward_headers":["set-cookie","x-first","cache-control","x-none"],"headers":{"vary":"accept"}}}]}"#;
    let mut gateway = gateway(settings, |name, _| {
        let reply = Reply::ok("1").header("set-cookie", format!("{name}=1")).header("x-other", "o");
        let reply = if name == "a" { reply } else { reply.header("x-first", name).header("set-cookie", "z=2") };
        reply.header("cache-control", if name == "c" { "no-store" } else { "max-age=60, private" })
    });
    let outcome = gateway.send(Request::get("/"));
    assert_eq!(outcome.status(), 201);
    assert_eq!(outcome.reply.all("set-cookie"), ["a=1", "b=1", "z=2"]);
    let fields =
        ["x-first", "cache-control", "vary", "x-other", "x-none", "etag"].map(|name| outcome.reply.header(name));
    assert_eq!(fields, [Some("b"), Some("private, max-age=60"), Some("accept"), None, None, None]);
    assert_eq!(gateway.send(Request::get("/?c=1")).reply.header("cache-control"), Some("no-store"));
}

#[test]
fn what_happens_is_counted() {
    let calls = r#"{"name":"a","upstream":"a","path":"/${request.query.p}"},{"name":"b","upstream":"b","path":"/","optional":true}"#;
    let plugin = Plugin::new("aggregate", start::<Aggregate>).config(endpoint(calls));
    let gateway = Gateway::new().upstream("a", |_| Reply::ok("1")).upstream("b", |seen| {
        if seen.header("x-request-id") == Some("bad") { Reply::status(500) } else { Reply::ok("2") }
    });
    let mut gateway = gateway.plugin(plugin).start();
    gateway.send(Request::get("/?p=1"));
    gateway.send(Request::get("/?p=1").header("x-request-id", "bad"));
    gateway.send(Request::get("/"));
    for (metric, want) in
        [("composed", 1), ("partial", 1), ("refused", 1), ("failed.a.value_missing", 1), ("failed.b.status", 1)]
    {
        assert_eq!(gateway.metric(&format!("aggregate_{metric}")), Some(want), "{metric}");
    }
}

#[test]
fn a_call_to_an_upstream_that_is_not_there_is_told_from_one_that_fails() {
    let calls = |more: &str| {
        endpoint(&format!(
            r#"{{"name":"a","upstream":"a","path":"/"}},{{"name":"b","upstream":"nowhere","path":"/"{more}}}"#
        ))
    };
    for (more, want) in [(r#","optional":true"#, (200, "upstream_unknown")), ("", (502, "upstream_unknown"))] {
        let mut gateway = gateway(&calls(more), |_, _| Reply::ok("1"));
        let outcomes = [(); 2].map(|()| gateway.send(Request::get("/")));
        for outcome in &outcomes {
            assert_eq!((outcome.status(), outcome.details.as_str()), want);
        }
        let said = outcomes.map(|outcome| outcome.logged("knows no upstream `nowhere` that this filter may call"));
        assert_eq!(said, [true, false], "once");
        assert_eq!(gateway.metric("aggregate_failed.b.unknown_upstream"), Some(2));
    }
}
