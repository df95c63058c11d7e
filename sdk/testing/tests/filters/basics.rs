//! Headers, local replies, chains, settings.

use portcullis_sdk::{Config, Filter, Host, Next, NoConfig, Request, Response, StartError, start};
use portcullis_testing::{Gateway, Plugin, Reply, Request as Sent};

#[derive(Config)]
struct Settings {
    name: String,
}

/// Marks requests and responses with its name, the latter with what it knows from the former.
struct Mark(Settings);

impl Filter for Mark {
    type Config = Settings;

    async fn start(settings: Settings, _: &Host) -> Result<Self, StartError> {
        if settings.name.is_empty() {
            return Err("`name` is empty; give the filter a name".into());
        }
        Ok(Self(settings))
    }

    async fn handle(&self, mut request: Request, next: Next) -> Response {
        let path = request.path();
        request.headers_mut().append("x-mark", &self.0.name);
        let mut response = next.run(request).await;
        response.headers_mut().append("x-mark", format!("{} {path}", self.0.name));
        response
    }
}

fn mark(name: &str) -> Plugin {
    Plugin::new(name, start::<Mark>).config(format!("{{\"name\":\"{name}\"}}"))
}

/// Answers one path itself.
struct Gate;

impl Filter for Gate {
    type Config = NoConfig;

    async fn start(_: NoConfig, _: &Host) -> Result<Self, StartError> {
        Ok(Self)
    }

    async fn handle(&self, request: Request, next: Next) -> Response {
        match request.path().as_str() {
            "/closed" => {
                let refusal = Response::problem(403, "closed").title("Not \"here\"").member("gate", "\"1\"");
                refusal.header("x-why", "closed")
            }
            "/replaced" => {
                let response = next.run(request).await;
                Response::json(502, format!("{{\"upstream\":{}}}", response.status())).with_code("replaced")
            }
            _ => next.run(request).await,
        }
    }
}

#[test]
fn local_variables_live_from_request_to_response_through_a_chain() {
    let mut gateway = Gateway::new().plugin(mark("outer")).plugin(mark("inner")).start();
    let outcome = gateway.send(Sent::get("/a?b"));
    assert_eq!(outcome.at_upstream().all("x-mark"), ["outer", "inner"]);
    assert_eq!(outcome.reply.all("x-mark"), ["inner /a", "outer /a"]);
    assert_eq!((outcome.status(), outcome.reply.text().as_str()), (200, "ok"));
}

#[test]
fn a_filters_own_reply_ends_the_request_and_carries_its_code() {
    let gate = Plugin::new("gate", start::<Gate>);
    let mut gateway = Gateway::new().plugin(mark("outer")).plugin(gate).plugin(mark("inner")).start();
    let outcome = gateway.send(Sent::get("/closed"));
    assert_eq!(outcome.upstream, None);
    assert_eq!((outcome.status(), outcome.details.as_str()), (403, "closed"));
    assert_eq!(outcome.reply.header("x-why"), Some("closed"));
    assert_eq!(outcome.reply.all("x-mark"), ["outer /closed"], "filters before it decorate the reply");
    assert_eq!(outcome.reply.header("content-type"), Some("application/problem+json"));
    assert_eq!(
        outcome.reply.text(),
        "{\"type\":\"about:blank\",\"title\":\"Not \\\"here\\\"\",\"status\":403,\"code\":\"closed\",\
         \"gate\":\"\\\"1\\\"\",\"request_id\":\"test-request\"}\n"
    );
}

#[test]
fn a_filter_may_replace_the_upstreams_response() {
    let mut gateway = Gateway::new().origin(|_| Reply::status(418)).plugin(Plugin::new("gate", start::<Gate>)).start();
    let outcome = gateway.send(Sent::get("/replaced"));
    assert_eq!((outcome.status(), outcome.reply.text().as_str()), (502, "{\"upstream\":418}"));
    assert_eq!((outcome.details.as_str(), outcome.upstream.is_some()), ("replaced", true));
}

#[test]
fn settings_that_cannot_be_used_are_refused_with_the_reason() {
    for (config, want) in [
        ("", "missing field `name`"),
        ("{\"name\":7}", "`name`: invalid type: integer `7`, expected a string"),
        ("{\"name\":\"a\",\"nmae\":1}", "unknown field `nmae`, expected `name`"),
        ("{\"name\":\"a\"} x", "trailing characters at line 1 column 14"),
        ("{\"name\":\"\"}", "`name` is empty; give the filter a name"),
    ] {
        let plugin = Plugin::new("mark", start::<Mark>).config(config);
        let failed = Gateway::new().plugin(plugin).try_start().unwrap_err();
        assert!(failed.log[0].text.ends_with(want), "{config}: {failed}");
    }
}

#[test]
fn gateways_in_one_test_do_not_see_each_other() {
    let mut first = Gateway::new().plugin(mark("first")).start();
    let mut second = Gateway::new().plugin(mark("second")).start();
    for _ in 0..3 {
        assert_eq!(first.send(Sent::get("/")).at_upstream().all("x-mark"), ["first"]);
        assert_eq!(second.send(Sent::get("/")).at_upstream().all("x-mark"), ["second"]);
    }
}
