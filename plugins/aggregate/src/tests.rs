use portcullis_sdk::{ms, start};
use portcullis_testing::{Gateway, Outcome, Plugin, Reply, Request, Running};

use super::*;

const SETTINGS: &str = r#"{
    "path": "/all", "max_bytes": 20, "forward_headers": ["authorization", "accept"],
    "parts": [
        { "name": "user", "upstream": "users", "path": "/me", "timeout": "100ms" },
        { "name": "orders", "upstream": "orders", "path": "/o", "required": false, "default": [], "host": "o.test" }
    ]
}"#;

fn gateway(user: Reply, orders: Reply) -> Running {
    Gateway::new()
        .upstream("users", move |_| user.clone())
        .upstream("orders", move |_| orders.clone())
        .plugin(Plugin::new("aggregate", start::<Aggregate>).config(SETTINGS))
        .start()
}

fn gathered(user: Reply, orders: Reply) -> Outcome {
    gateway(user, orders).send(Request::get("/all?x=1"))
}

#[test]
fn a_reply_is_made_when_every_part_has_answered() {
    let user = || Reply::ok(" {\"id\" : 1} ");
    let whole = "{\"user\":{\"id\" : 1},\"orders\":[1.50]}\n";
    let without_orders = "{\"user\":{\"id\" : 1},\"orders\":[]}\n";
    for (name, orders, want) in [
        ("both", Reply::ok("[1.50]"), whole),
        ("both, the other way round", Reply::ok("[1.50]").after(ms(5)), whole),
        ("optional is 500", Reply::status(500).body("[1]"), without_orders),
        ("optional is no JSON", Reply::ok("<p>"), without_orders),
        ("optional is empty", Reply::status(204), without_orders),
        ("optional is too long", Reply::ok("\"123456789012345678901\""), without_orders),
        ("optional breaks off", Reply::broken(), without_orders),
        ("optional is late", Reply::ok("[1]").after(ms(1001)), without_orders),
    ] {
        let outcome = gathered(user().after(ms(1)), orders);
        assert_eq!((outcome.status(), outcome.reply.text().as_str()), (200, want), "{name}");
        assert_eq!(outcome.reply.header("content-type"), Some("application/json"));
    }
}

#[test]
fn a_required_part_that_fails_is_named_at_once() {
    for user in [
        Reply::status(404).body("{}"),
        Reply::ok("{},\"x\":{}"),
        Reply::ok("{}").after(ms(101)),
        Reply::broken(),
        Reply::ok("not json"),
    ] {
        let outcome = gathered(user, Reply::ok("[]").after(ms(500)));
        assert_eq!((outcome.status(), outcome.details.as_str()), (502, "part_failed"));
        assert!(outcome.reply.text().contains("The part `user` of this answer could not be had"));
        assert!(outcome.took <= ms(100), "nobody waits for the rest: {:?}", outcome.took);
    }
}

#[test]
fn the_path_and_the_method_say_whether_a_request_is_answered_here() {
    for (method, path, status, passes) in [
        ("GET", "/all", 200, false),
        ("HEAD", "/all?x=1", 200, false),
        ("POST", "/all", 405, false),
        ("GET", "/all/", 200, true),
        ("POST", "/other", 200, true),
    ] {
        let outcome = gateway(Reply::ok("{}"), Reply::ok("[]")).send(Request::new(method, path));
        assert_eq!((outcome.status(), outcome.upstream.is_some()), (status, passes), "{method} {path}");
    }
}

#[test]
fn the_parts_get_the_headers_that_are_to_be_forwarded_and_no_others() {
    let mut gateway = gateway(Reply::ok("{}"), Reply::ok("[]"));
    let request =
        Request::get("/all").header("authorization", "Bearer x").header("cookie", "y").header("accept", "*/*");
    gateway.send(request);
    for call in gateway.calls() {
        assert_eq!(call.request.all("authorization"), ["Bearer x"]);
        assert_eq!(call.request.all("accept"), ["application/json"]);
        assert_eq!(call.request.header("cookie"), None);
        assert_eq!(call.request.header(":authority"), Some(if call.upstream == "orders" { "o.test" } else { "users" }));
    }
}
