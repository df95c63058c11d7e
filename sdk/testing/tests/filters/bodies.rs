//! Bodies: collected, changed as they stream, left alone; with heads that go on first, and heads that are held.

use portcullis_sdk::{Bodies, BodyError, Config, Filter, Host, Next, NoConfig, Request, Response, StartError, start};
use portcullis_testing::{Gateway, Outcome, Plugin, Reply, Request as Sent};

/// Collects both bodies and writes them in capitals; refuses requests with `bad` in them.
struct Capitals<const HOLDS: bool>;

impl<const HOLDS: bool> Filter for Capitals<HOLDS> {
    type Config = NoConfig;
    const BODIES: Bodies = Bodies::BOTH;
    const HOLDS_HEADERS: bool = HOLDS;

    async fn start(_: NoConfig, _: &Host) -> Result<Self, StartError> {
        Ok(Self)
    }

    async fn handle(&self, mut request: Request, next: Next) -> Response {
        let body = match request.body_mut().collect(16).await {
            Ok(body) => body,
            Err(BodyError::TooLarge { .. }) => return Response::problem(413, "body_too_large"),
            Err(why) => panic!("{why}"),
        };
        if body.windows(3).any(|three| three == b"bad") {
            return Response::problem(400, "bad");
        }
        request.headers_mut().set("x-length", body.len().to_string());
        if !body.is_empty() {
            request.body_mut().set([&body.to_ascii_uppercase()[..], b"!"].concat()).unwrap();
        }
        let mut response = next.run(request).await;
        let body = response.body_mut().collect(16).await.unwrap_or_default();
        if !body.is_empty() {
            response.body_mut().set(body.to_ascii_uppercase()).unwrap();
        }
        response
    }
}

fn capitals(request: Sent, reply: Reply) -> [Outcome; 2] {
    let (first, second) = (reply.clone(), reply);
    let goes_on = Plugin::new("capitals", start::<Capitals<false>>);
    let held = Plugin::new("capitals", start::<Capitals<true>>).holds_headers();
    let mut goes_on = Gateway::new().plugin(goes_on).origin(move |_| first.clone()).start();
    let mut held = Gateway::new().plugin(held).origin(move |_| second.clone()).start();
    [goes_on.send(request.clone()), held.send(request)]
}

#[test]
fn a_collected_body_is_replaced_on_both_kinds_of_host() {
    for request in [Sent::post("/").body("one two"), Sent::post("/").chunks(["one", " ", "two"])] {
        let [goes_on, held] = capitals(request.trailer("x-after", "1"), Reply::ok("three"));
        for outcome in [&goes_on, &held] {
            assert_eq!(outcome.at_upstream().text(), "ONE TWO!", "{outcome:?}");
            assert_eq!(outcome.at_upstream().trailer("x-after"), Some("1"));
            assert_eq!(outcome.reply.text(), "THREE");
            assert!(outcome.reply.complete);
        }
        // The documented difference: the head is out of reach where it has gone on.
        assert_eq!(held.at_upstream().header("x-length"), Some("7"));
        assert_eq!(goes_on.at_upstream().header("x-length"), None);
        assert!(goes_on.logged("the header `x-length` was left as it is: the headers have been sent on"));
        assert!(!held.logged("x-length"));
    }
}

#[test]
fn a_request_may_be_refused_for_its_body() {
    let [goes_on, held] = capitals(Sent::post("/").chunks(["ba", "d"]), Reply::ok(""));
    assert_eq!([goes_on.status(), held.status()], [400, 400]);
    assert_eq!(held.upstream, None, "the upstream has seen nothing where the head is held");
    assert!(goes_on.upstream.is_some_and(|seen| !seen.complete && seen.body.is_empty()));
}

#[test]
fn a_body_beyond_the_limit_is_a_typed_error() {
    for request in [Sent::post("/").body("a".repeat(17)), Sent::post("/").chunks(["a"; 17])] {
        let outcomes = capitals(request, Reply::ok(""));
        assert_eq!(
            outcomes.map(|outcome| (outcome.status(), outcome.details)),
            [(); 2].map(|()| (413, "body_too_large".to_owned()))
        );
    }
}

#[test]
fn messages_without_bodies_are_collected_at_once() {
    for outcome in capitals(Sent::get("/"), Reply::status(204)) {
        assert_eq!(outcome.status(), 204);
        assert_eq!(outcome.at_upstream().header("x-length"), Some("0"));
    }
}

#[derive(Config)]
struct Marks {
    mark: String,
}

/// Puts marks around every chunk of both bodies, and into the trailers.
struct Stream(Marks);

impl Filter for Stream {
    type Config = Marks;
    const BODIES: Bodies = Bodies::BOTH;

    async fn start(marks: Marks, _: &Host) -> Result<Self, StartError> {
        Ok(Self(marks))
    }

    async fn handle(&self, mut request: Request, next: Next) -> Response {
        let mark = self.0.mark.clone();
        request
            .body_mut()
            .map_chunks(move |chunk| {
                (!chunk.bytes().is_empty()).then(|| [mark.as_bytes(), chunk.bytes(), mark.as_bytes()].concat())
            })
            .unwrap();
        request.on_trailers(|trailers| trailers.set("x-seen", "request"));
        let mut response = next.run(request).await;
        let mut chunks = 0;
        response
            .body_mut()
            .map_chunks(move |chunk| {
                chunks += 1;
                chunk.is_last().then(|| format!("{}({chunks})", String::from_utf8_lossy(chunk.bytes())).into_bytes())
            })
            .unwrap();
        response.on_trailers(|trailers| trailers.set("x-seen", "response"));
        response
    }
}

#[test]
fn chunks_are_changed_as_they_stream() {
    let plugin = || Plugin::new("stream", start::<Stream>).config(r#"{"mark":"|"}"#);
    let origin = |_: &_| Reply::status(200).chunks(["one", "two"]);
    let mut gateway = Gateway::new().plugin(plugin()).origin(origin).start();
    let outcome = gateway.send(Sent::post("/").header("content-length", "4").chunks(["ab", "cd"]));
    assert_eq!(outcome.at_upstream().text(), "|ab||cd|");
    assert_eq!(outcome.at_upstream().header("content-length"), None);
    assert_eq!(outcome.reply.text(), "onetwo(2)");
    let mut twice = Gateway::new().plugin(plugin()).plugin(plugin()).origin(origin).start();
    assert_eq!(twice.send(Sent::post("/").chunks(["ab"])).at_upstream().text(), "||ab||");
}

#[test]
fn trailers_are_changed_when_they_come() {
    let plugin = Plugin::new("stream", start::<Stream>).config(r#"{"mark":"|"}"#);
    let origin = |_: &_| Reply::status(200).chunks(["one"]).trailer("x-end", "1");
    let mut gateway = Gateway::new().plugin(plugin).origin(origin).start();
    let outcome = gateway.send(Sent::post("/").chunks(["ab"]).trailer("x-end", "1"));
    assert_eq!(outcome.at_upstream().trailer("x-seen"), Some("request"));
    assert_eq!(outcome.reply.trailer("x-seen"), Some("response"));
    assert_eq!(outcome.reply.text(), "one");
}

/// Reads a body that it does not declare.
struct Undeclared;

impl Filter for Undeclared {
    type Config = NoConfig;

    async fn start(_: NoConfig, _: &Host) -> Result<Self, StartError> {
        Ok(Self)
    }

    async fn handle(&self, request: Request, next: Next) -> Response {
        match request.body().collect(10).await {
            Err(BodyError::Undeclared { of: "request" }) => next.run(request).await,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_body_that_is_not_declared_is_refused_with_the_remedy() {
    let mut gateway = Gateway::new().plugin(Plugin::new("undeclared", start::<Undeclared>)).start();
    let outcome = gateway.send(Sent::post("/").body("body"));
    assert_eq!(outcome.at_upstream().text(), "body");
    assert!(outcome.logged("add `const BODIES: Bodies = Bodies::REQUEST;` to its `impl Filter`"), "{:?}", outcome.log);
}

/// Collects the request's body, then removes a header of the response.
struct Early;

impl Filter for Early {
    type Config = NoConfig;
    const BODIES: Bodies = Bodies::REQUEST;

    async fn start(_: NoConfig, _: &Host) -> Result<Self, StartError> {
        Ok(Self)
    }

    async fn handle(&self, request: Request, next: Next) -> Response {
        let early = request.body().collect(100).await == Err(BodyError::AnsweredEarly);
        let mut response = next.run(request).await;
        response.headers_mut().remove("x-internal");
        response.headers_mut().set("x-early", early.to_string());
        response
    }
}

#[test]
fn a_response_that_comes_before_the_body_passes_the_filter_all_the_same() {
    let secret = |_: &_| Reply::status(413).header("x-internal", "1");
    let mut gateway = Gateway::new().plugin(Plugin::new("early", start::<Early>)).impatient_origin(secret).start();
    let outcome = gateway.send(Sent::post("/").chunks(["a", "b", "c"]));
    assert_eq!((outcome.status(), outcome.reply.header("x-internal")), (413, None));
    assert_eq!(outcome.reply.header("x-early"), Some("true"));
}
