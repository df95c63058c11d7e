//! Ten short filters, each with what it comes to. Copy what fits.
#![allow(clippy::unwrap_used, reason = "what cannot go on in a test panics")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use portcullis_sdk::metric::Counter;
use portcullis_sdk::{
    Bodies, Config, Filter, HeaderName, HeaderText, Host, Next, NoConfig, Period, Request, Response, StartError,
    Upstream, join, secs, start, timeout,
};
use portcullis_testing::{Gateway, Plugin, Reply, Request as Sent, Running};

fn running(entry: fn(), config: &str) -> Running {
    with_upstream(entry, config, |_| Reply::ok(""))
}

fn with_upstream(entry: fn(), config: &str, stub: impl FnMut(&portcullis_testing::Seen) -> Reply + 'static) -> Running {
    Gateway::new().upstream("side", stub).plugin(Plugin::new("recipe", entry).config(config)).start()
}

macro_rules! recipe {
    ($(#[$doc:meta])* $name:ident($settings:ty), |$this:ident, $request:ident, $next:ident| $body:block) => {
        $(#[$doc])*
        struct $name($settings);

        impl Filter for $name {
            type Config = $settings;

            async fn start(settings: $settings, _: &Host) -> Result<Self, StartError> {
                Ok(Self(settings))
            }

            #[allow(unused_mut, reason = "not every recipe changes the request")]
            async fn handle(&self, mut $request: Request, $next: Next) -> Response {
                let $this = &self.0;
                $body
            }
        }
    };
}

#[derive(Config)]
struct Headers {
    /// Headers that every response gets.
    set: BTreeMap<HeaderName, HeaderText>,
}

recipe! {
    /// 1. Security headers on every response.
    Harden(Headers), |settings, request, next| {
        let mut response = next.run(request).await;
        for (name, value) in &settings.set {
            response.headers_mut().set(name, value);
        }
        response
    }
}

#[test]
fn responses_are_hardened() {
    let outcome = running(start::<Harden>, r#"{"set":{"x-frame-options":"DENY"}}"#).send(Sent::get("/"));
    assert_eq!(outcome.reply.header("x-frame-options"), Some("DENY"));
}

#[derive(Config)]
struct Allowed {
    /// Who gets in.
    addresses: Vec<String>,
}

/// 2. Only these addresses. Settings become what the filter needs at its start.
struct AllowList(Vec<IpAddr>);

impl Filter for AllowList {
    type Config = Allowed;

    async fn start(allowed: Allowed, _: &Host) -> Result<Self, StartError> {
        let parse = |text: &String| text.parse().map_err(|_| format!("`addresses`: `{text}` is no IP address"));
        Ok(Self(allowed.addresses.iter().map(parse).collect::<Result<_, _>>()?))
    }

    async fn handle(&self, request: Request, next: Next) -> Response {
        match request.client_ip() {
            Some(ip) if self.0.contains(&ip) => next.run(request).await,
            _ => Response::problem(403, "address_not_allowed"),
        }
    }
}

#[test]
fn only_these_addresses_get_in() {
    let mut gateway = running(start::<AllowList>, r#"{"addresses":["192.0.2.7"]}"#);
    assert_eq!(gateway.send(Sent::get("/")).status(), 200);
    assert_eq!(gateway.send(Sent::get("/").from(([192, 0, 2, 8], 1).into())).details, "address_not_allowed");
    let plugin = Plugin::new("recipe", start::<AllowList>).config(r#"{"addresses":["here"]}"#);
    let failed = Gateway::new().plugin(plugin).try_start().unwrap_err();
    assert!(failed.to_string().contains("`addresses`: `here` is no IP address"));
}

recipe! {
    /// 3. The preflight of CORS, answered here.
    Cors(NoConfig), |_settings, request, next| {
        let origin = request.headers().text("origin");
        if request.method() == "OPTIONS" && request.headers().contains("access-control-request-method") {
            let reply = Response::new(204).header("access-control-allow-methods", "GET, POST");
            return reply.header("access-control-allow-origin", origin.unwrap_or_default());
        }
        let mut response = next.run(request).await;
        if let Some(origin) = origin {
            response.headers_mut().set("access-control-allow-origin", origin);
        }
        response
    }
}

#[test]
fn preflights_are_answered_here() {
    let mut gateway = running(start::<Cors>, "");
    let preflight = Sent::new("OPTIONS", "/").header("origin", "https://a.test");
    let outcome = gateway.send(preflight.header("access-control-request-method", "POST"));
    assert_eq!((outcome.status(), outcome.upstream.is_none()), (204, true));
    let outcome = gateway.send(Sent::get("/").header("origin", "https://a.test"));
    assert_eq!(outcome.reply.header("access-control-allow-origin"), Some("https://a.test"));
}

#[derive(Config)]
struct Service {
    upstream: Upstream,
    #[serde(default = "quick")]
    timeout: Period,
}

fn quick() -> Period {
    Period(secs(1))
}

recipe! {
    /// 4. Another service says whether a request may pass, and its words go on.
    AskFirst(Service), |settings, request, next| {
        let token = request.headers().get("authorization").unwrap_or_default();
        let call = settings.upstream.get("/check").header("authorization", token).timeout(settings.timeout.0);
        match call.send().await {
            Ok(reply) => request.headers_mut().set("x-user", reply.body()),
            Err(portcullis_sdk::CalloutError::Status(reply)) if reply.status() == 401 => {
                return Response::problem(401, "not_signed_in");
            }
            Err(_) => return Response::problem(503, "check_unavailable"),
        }
        next.run(request).await
    }
}

#[test]
fn another_service_is_asked_first() {
    let service = |seen: &portcullis_testing::Seen| match seen.header("authorization") {
        Some("good") => Reply::ok("ann"),
        Some("slow") => Reply::ok("ann").after(secs(2)),
        _ => Reply::status(401),
    };
    let mut gateway = with_upstream(start::<AskFirst>, r#"{"upstream":"side"}"#, service);
    let mut send = |token: &str| gateway.send(Sent::get("/").header("authorization", token));
    assert_eq!(send("good").at_upstream().header("x-user"), Some("ann"));
    assert_eq!([send("bad").details, send("slow").details], ["not_signed_in", "check_unavailable"]);
}

recipe! {
    /// 5. Two questions at once, and half a second for both.
    Enrich(Service), |settings, request, next| {
        let Service { upstream, .. } = settings;
        let both = async { join!(upstream.get("/country").send(), upstream.get("/plan").send()) };
        if let Ok((country, plan)) = timeout(portcullis_sdk::ms(500), both).await {
            for (name, reply) in [("x-country", country), ("x-plan", plan)] {
                if let Ok(reply) = reply {
                    request.headers_mut().set(name, reply.body());
                }
            }
        }
        next.run(request).await
    }
}

#[test]
fn two_questions_are_asked_at_once() {
    let service = |seen: &portcullis_testing::Seen| Reply::ok(seen.target()).after(portcullis_sdk::ms(300));
    let outcome = with_upstream(start::<Enrich>, r#"{"upstream":"side"}"#, service).send(Sent::get("/"));
    assert_eq!(outcome.at_upstream().header("x-plan"), Some("/plan"));
    assert_eq!(outcome.took, portcullis_sdk::ms(300));
}

/// 6. Bodies up to a size, and counted when they are not.
struct Cap(Counter);

impl Filter for Cap {
    type Config = NoConfig;
    const BODIES: Bodies = Bodies::REQUEST;

    async fn start(_: NoConfig, host: &Host) -> Result<Self, StartError> {
        Ok(Self(host.counter("bodies_refused")))
    }

    async fn handle(&self, request: Request, next: Next) -> Response {
        if request.body().collect(8).await.is_err() {
            self.0.increment();
            return Response::problem(413, "body_too_large");
        }
        next.run(request).await
    }
}

#[test]
fn large_bodies_are_refused_and_counted() {
    let mut gateway = running(start::<Cap>, "");
    assert_eq!(gateway.send(Sent::post("/").body("12345678")).at_upstream().text(), "12345678");
    assert_eq!(gateway.send(Sent::post("/").chunks(["12345", "6789"])).status(), 413);
    assert_eq!(gateway.metric("bodies_refused"), Some(1));
}

/// 7. Digits in responses become `#`, as they stream by.
struct Redact;

impl Filter for Redact {
    type Config = NoConfig;
    const BODIES: Bodies = Bodies::RESPONSE;

    async fn start(_: NoConfig, _: &Host) -> Result<Self, StartError> {
        Ok(Self)
    }

    async fn handle(&self, request: Request, next: Next) -> Response {
        let mut response = next.run(request).await;
        let hidden = |byte: &u8| if byte.is_ascii_digit() { b'#' } else { *byte };
        let declared = response.body_mut().map_chunks(move |chunk| Some(chunk.bytes().iter().map(hidden).collect()));
        debug_assert!(declared.is_ok(), "BODIES says so");
        response
    }
}

#[test]
fn digits_are_redacted_as_they_stream() {
    let plugin = Plugin::new("recipe", start::<Redact>);
    let origin = |_: &_| Reply::status(200).chunks(["card 12", "34"]);
    assert_eq!(Gateway::new().origin(origin).plugin(plugin).start().send(Sent::get("/")).reply.text(), "card ####");
}

/// 8. A list that is fetched every minute; the last good one stays.
struct Blocked(Rc<RefCell<String>>);

impl Filter for Blocked {
    type Config = Service;

    async fn start(service: Service, host: &Host) -> Result<Self, StartError> {
        let list = Rc::new(RefCell::new(String::new()));
        let kept = Rc::clone(&list);
        host.every(secs(60), move || {
            let (kept, upstream) = (Rc::clone(&kept), service.upstream.clone());
            async move {
                if let Ok(reply) = upstream.get("/blocked").send().await {
                    kept.replace(reply.text().unwrap_or_default().to_owned());
                }
            }
        });
        Ok(Self(list))
    }

    async fn handle(&self, request: Request, next: Next) -> Response {
        let agent = request.headers().text("user-agent").unwrap_or_default();
        let blocked = self.0.borrow().lines().any(|line| line == agent);
        if blocked { Response::problem(403, "blocked") } else { next.run(request).await }
    }
}

#[test]
fn a_list_is_fetched_in_the_background() {
    let mut round = 0;
    let list = move |_: &_| {
        round += 1;
        if round == 1 { Reply::ok("bot") } else { Reply::status(500) }
    };
    let mut gateway = with_upstream(start::<Blocked>, r#"{"upstream":"side"}"#, list);
    gateway.advance(secs(200));
    assert_eq!(gateway.send(Sent::get("/").header("user-agent", "bot")).details, "blocked");
    assert_eq!(gateway.send(Sent::get("/").header("user-agent", "browser")).status(), 200);
}

recipe! {
    /// 9. One in so many requests goes to a canary, counted over all workers.
    Canary(NoConfig), |_settings, request, next| {
        let count = portcullis_sdk::shared::Cell::<u64>::new("canary/count");
        if let Ok(Some(count)) = count.update(|count| Some(count.unwrap_or(0) + 1)) && count.is_multiple_of(3) {
            request.headers_mut().set("x-canary", "1");
        }
        next.run(request).await
    }
}

#[test]
fn every_third_request_is_the_canarys() {
    let mut gateway = running(start::<Canary>, "");
    let canaries: Vec<bool> =
        (0..6).map(|_| gateway.send(Sent::get("/")).at_upstream().header("x-canary").is_some()).collect();
    assert_eq!(canaries, [false, false, true, false, false, true]);
}

recipe! {
    /// 10. Errors of the upstream become problem documents, and say nothing of what is inside.
    Tidy(NoConfig), |_settings, request, next| {
        let response = next.run(request).await;
        if response.status() >= 500 {
            return Response::problem(response.status(), "upstream_failed").title("Something went wrong");
        }
        response
    }
}

#[test]
fn errors_say_nothing_of_what_is_inside() {
    let plugin = Plugin::new("recipe", start::<Tidy>);
    let origin = |_: &_| Reply::status(500).body("stack trace");
    let outcome = Gateway::new().origin(origin).plugin(plugin).start().send(Sent::get("/"));
    assert_eq!((outcome.status(), outcome.details.as_str()), (500, "upstream_failed"));
    assert!(!outcome.reply.text().contains("stack"));
}
