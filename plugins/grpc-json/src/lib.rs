//! REST and gRPC-Web clients to gRPC upstreams.
//!
//! A request that a `google.api.http` annotation describes becomes a call on its way to the route's upstream, and the call's
//! answer becomes JSON. The upstream's head is held until the trailers have said how the call ended, except for streams.

mod answer;
mod call;
mod details;
mod frames;
mod json;
mod rules;
mod settings;
mod status;
mod template;
#[cfg(test)]
mod tests;
mod web;

use std::cell::RefCell;
use std::rc::Rc;

use portcullis_sdk::metric::Counter;
use portcullis_sdk::{Bodies, BodyError, Filter, Headers, Host, Next, Request, Response, StartError};

use answer::{BadAnswer, Form, Stream, Written};
use call::Said;
use frames::framed;
use rules::{Found, Rule, Rules, path_of};
use settings::{Plan, Settings, Unmatched};
use status::Status;
use web::Web;

/// What gRPC says in trailers, or in the head of an answer that is nothing else.
const STATUS_HEADERS: [&str; 3] = ["grpc-status", "grpc-message", DETAILS];
const DETAILS: &str = "grpc-status-details-bin";

struct GrpcJson {
    plan: Plan,
    /// Whether an answer can be added to at its end; without that, a stream is collected.
    streams: bool,
    calls: Counter,
    failed: Counter,
}

impl Filter for GrpcJson {
    type Config = Settings;
    const BODIES: Bodies = Bodies::BOTH;
    const HOLDS_HEADERS: bool = true;

    async fn start(settings: Settings, host: &Host) -> Result<Self, StartError> {
        let (calls, failed) = (host.counter("grpc_json_calls"), host.counter("grpc_json_failed"));
        Ok(Self { plan: settings.checked()?, streams: host.adds_bodies(), calls, failed })
    }

    async fn handle(&self, request: Request, next: Next) -> Response {
        let kind = request.headers().text("content-type").unwrap_or_default();
        if let Some(web) = Web::of(&kind).filter(|_| self.plan.grpc_web) {
            self.calls.increment();
            return self.carry(web, request, next).await;
        }
        let Some(rules) = self.plan.rules.as_ref().filter(|_| !kind.starts_with("application/grpc")) else {
            return next.run(request).await;
        };
        self.transcode(rules, request, next).await
    }
}

portcullis_sdk::export_filter!(GrpcJson);

impl GrpcJson {
    async fn transcode(&self, rules: &Rules, mut request: Request, next: Next) -> Response {
        let path = request.path();
        let (rule, values) = match (rules.find(&request.method(), &path), self.plan.unmatched) {
            (Found::Call(rule, values), _) => (rule, values),
            (_, Unmatched::Pass) => return next.run(request).await,
            (Found::OtherVerb(verbs), Unmatched::Refuse) => {
                return Response::problem(405, "method_not_allowed").header("allow", verbs.join(", "));
            }
            (Found::Nothing, Unmatched::Refuse) => return Response::problem(404, "no_call"),
        };
        self.calls.increment();
        let form = Form::of(&request.headers().text("accept").unwrap_or_default());
        if let Err(refusal) = self.ask(rule, &values, &mut request).await {
            self.failed.increment();
            return refusal;
        }
        let response = next.run(request).await;
        let status = response.status();
        let response = self.answer(rule, form, response).await;
        if response.is_local() || status != 200 {
            self.failed.increment();
        }
        response
    }

    /// Makes the request a call.
    async fn ask(&self, rule: &Rule, values: &[(&str, String)], request: &mut Request) -> Result<(), Response> {
        if rule.method.is_client_streaming() {
            let title = "This method takes a stream of messages, which JSON over HTTP has no form for";
            return Err(Response::problem(501, "client_streaming").title(title));
        }
        if request.headers().get("content-encoding").is_some_and(|coding| coding.as_bytes() != b"identity") {
            return Err(Response::problem(415, "body_encoded").header("accept-encoding", "identity"));
        }
        let body = match request.has_body() {
            true => request.body_mut().collect(self.plan.max_bytes).await.map_err(|why| too_large(&why))?,
            false => Vec::new(),
        };
        let query = request.query().unwrap_or_default();
        let said = Said { body: &body, query: &query, ignores_unknown: self.plan.ignores_unknown };
        let message = call::encoded(rule, values, said, &self.plan.json).map_err(|why| why.reply())?;
        request.body_mut().set(framed(0, &message)).map_err(|why| {
            log::warn!("a request without a body cannot become a call on this host: {why}");
            Response::problem(501, "body_needed")
                .title("This gateway can call the service only for a request with a body")
        })?;
        let mut headers = request.headers_mut();
        headers.set(":method", "POST");
        headers.set(":path", path_of(&rule.method));
        headers.set("content-type", "application/grpc");
        headers.set("te", "trailers");
        headers.set("grpc-accept-encoding", "identity");
        for name in ["accept", "accept-encoding", "grpc-encoding"] {
            headers.remove(name);
        }
        Ok(())
    }

    async fn answer(&self, rule: &Rule, form: Form, mut response: Response) -> Response {
        if response.status() != 200 {
            // The gateway's own words, or an upstream's that speaks no gRPC: they are for the client as they are.
            return response;
        }
        if !response.headers().text("content-type").is_some_and(|kind| kind.starts_with("application/grpc")) {
            return Response::problem(502, "not_grpc").title("The service did not answer as gRPC");
        }
        // An answer that is nothing but its end has its status in the head.
        if let Some(status) = status(response.headers()).filter(|status| !status.is_ok()) {
            return self.failed(rule, &status, response.headers());
        }
        let written = Written::new(rule, &self.plan.json, self.plan.max_bytes);
        if rule.method.is_server_streaming() {
            return self.stream(Stream::new(written, form), form, response).await;
        }
        let body = match response.body_mut().collect(self.plan.max_bytes).await {
            Ok(body) => body,
            Err(_) => return too_long(),
        };
        let last = response.trailers().filter(|trailers| trailers.contains("grpc-status"));
        let last = last.unwrap_or_else(|| response.headers());
        match status(last) {
            None => return BadAnswer::NoStatus.reply(),
            Some(status) if !status.is_ok() => return self.failed(rule, &status, last),
            Some(_) => {}
        }
        match written.unary(&body) {
            Ok(json) => replaced(response, "application/json", json),
            Err(why) => why.reply(),
        }
    }

    /// A call that failed, with the details that its service gives.
    fn failed(&self, rule: &Rule, status: &Status, last: Headers<'_>) -> Response {
        let details = last.get(DETAILS);
        let details =
            details.and_then(|bytes| details::read(bytes.as_bytes(), rule.method.parent_pool(), &self.plan.json));
        match details {
            Some(details) => status.problem().json_member("details", details.to_string()),
            None => status.problem(),
        }
    }

    async fn stream(&self, mut stream: Stream, form: Form, mut response: Response) -> Response {
        if !self.streams {
            let Ok(body) = response.body_mut().collect(self.plan.max_bytes).await else { return too_long() };
            let mut json = stream.push(&body);
            json.extend(stream.end(response.trailers().and_then(status).as_ref()));
            return replaced(response, form.content_type(), json);
        }
        let stream = Rc::new(RefCell::new(stream));
        let ending = Rc::clone(&stream);
        let mapped = response.body_mut().map_chunks(move |chunk| Some(stream.borrow_mut().push(chunk.bytes())));
        if mapped.is_err() {
            return BadAnswer::NoStatus.reply();
        }
        response.headers_mut().set("content-type", form.content_type());
        without_status(&mut response);
        response.on_trailers(move |trailers| {
            let text = |name: &str| trailers.get(name).map(portcullis_sdk::HeaderValue::into_bytes);
            let code = text("grpc-status").map(|code| String::from_utf8_lossy(&code).into_owned());
            let status = code.map(|code| Status::of(&code, text("grpc-message").as_deref()));
            let last = ending.borrow_mut().end(status.as_ref());
            if !last.is_empty() && !trailers.append_to_body(&last) {
                log::warn!("the end of a stream could not be told");
            }
            STATUS_HEADERS.into_iter().for_each(|name| trailers.remove(name));
        });
        response
    }

    /// gRPC-Web, there and back.
    async fn carry(&self, web: Web, mut request: Request, next: Next) -> Response {
        if web.is_text {
            let body = match request.body_mut().collect(self.plan.max_bytes).await {
                Ok(body) => body,
                Err(why) => return too_large(&why),
            };
            let Some(body) = Web::request(&body) else {
                return Response::problem(400, "body_malformed").title("The body is no base64");
            };
            // Nothing in it: then there was none.
            if request.body_mut().set(body).is_err() {
                return Response::problem(400, "body_malformed").title("The request has no body");
            }
        }
        let mut headers = request.headers_mut();
        headers.set("content-type", web.upstream_type());
        headers.set("te", "trailers");
        for name in ["accept", "accept-encoding", "x-grpc-web"] {
            headers.remove(name);
        }
        let mut response = next.run(request).await;
        if !response.headers().text("content-type").is_some_and(|kind| kind.starts_with("application/grpc")) {
            return response;
        }
        response.headers_mut().set("content-type", web.client_type());
        if !response.has_body() {
            return response;
        }
        if !self.streams {
            let Ok(body) = response.body_mut().collect(self.plan.max_bytes).await else { return too_long() };
            let all = response.trailers().map(Headers::all).unwrap_or_default();
            let last = web.trailers(all.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
            let body = [web.piece(&body), last].concat();
            let kind = web.client_type();
            return replaced(response, &kind, body);
        }
        let pieces = web.clone();
        let _declared =
            response.body_mut().map_chunks(move |chunk| pieces.is_text.then(|| pieces.piece(chunk.bytes())));
        response.on_trailers(move |trailers| {
            let all = trailers.all();
            let last = web.trailers(all.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
            if !trailers.append_to_body(&last) {
                log::warn!("the trailers of a call could not be told");
            }
            all.iter().for_each(|(name, _)| trailers.remove(name));
        });
        response
    }
}

/// How a call ended, if these headers or trailers say it.
fn status(headers: Headers<'_>) -> Option<Status> {
    let code = headers.text("grpc-status")?;
    let message = headers.get("grpc-message");
    Some(Status::of(&code, message.as_ref().map(portcullis_sdk::HeaderValue::as_bytes)))
}

fn without_status(response: &mut Response) {
    let mut headers = response.headers_mut();
    for name in STATUS_HEADERS.into_iter().chain(["grpc-encoding", "grpc-accept-encoding"]) {
        headers.remove(name);
    }
}

/// The upstream's answer with another body, and without what gRPC alone understands.
fn replaced(mut response: Response, kind: &str, body: Vec<u8>) -> Response {
    response.headers_mut().set("content-type", kind);
    without_status(&mut response);
    response.on_trailers(|trailers| STATUS_HEADERS.into_iter().for_each(|name| trailers.remove(name)));
    match response.body_mut().set(body) {
        Ok(()) => response,
        Err(why) => {
            log::warn!("an answer could not be rewritten: {why}");
            Response::problem(502, "grpc_malformed")
        }
    }
}

fn too_large(why: &BodyError) -> Response {
    if *why == BodyError::AnsweredEarly {
        Response::problem(502, "answered_early")
    } else {
        Response::problem(413, "body_too_large")
    }
}

fn too_long() -> Response {
    Response::problem(502, "grpc_too_large").title("The answer of the service is too large")
}
