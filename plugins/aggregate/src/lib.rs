//! Several calls, one JSON reply.
//!
//! An endpoint's calls are made as soon as those that they wait for have come to something; what came of them is put together into
//! one document. The route's own upstream sees none of it, and gets all requests that no endpoint answers.

mod caching;
mod compose;
mod failure;
mod graph;
mod json;
mod metrics;
mod outcome;
mod outgoing;
mod plan;
mod pointer;
mod reply;
mod run;
mod settings;
mod shape;
#[cfg(test)]
mod tests;
mod values;
mod written;

use portcullis_sdk::{Bodies, BodyError, Filter, Host, Next, Request, Response, StartError};

use compose::{Unfit, composed};
use json::text::check;
use metrics::Metrics;
use plan::{Asked, Endpoint, Plan, other_method};
use run::Run;
use settings::{MAX_DEPTH, Settings};
use values::Received;

struct Aggregate {
    plan: Plan,
    host: Host,
    metrics: Metrics,
}

impl Filter for Aggregate {
    type Config = Settings;
    const BODIES: Bodies = Bodies::REQUEST;
    const HOLDS_HEADERS: bool = true;

    async fn start(settings: Settings, host: &Host) -> Result<Self, StartError> {
        Ok(Self { plan: settings.checked()?, host: host.clone(), metrics: Metrics::new(host) })
    }

    async fn handle(&self, request: Request, next: Next) -> Response {
        let response = match self.plan.asked(&request.method(), &request.path()) {
            Asked::Pass => return next.run(request).await,
            Asked::OtherMethod(allowed) => other_method(&allowed),
            Asked::Compose(endpoint, captures) => {
                let received = Received { head: request.headers().list(), captures, ..Received::default() };
                match read_body(endpoint, &request, received).await {
                    Ok(received) => self.compose(endpoint, &received).await,
                    Err(refusal) => refusal,
                }
            }
        };
        if response.status() >= 400 {
            self.metrics.refused.increment();
        }
        response
    }
}

portcullis_sdk::export_filter!(Aggregate);

/// The request with its body, if a template names it.
async fn read_body(endpoint: &Endpoint, request: &Request, received: Received) -> Result<Received, Response> {
    let Some(limit) = endpoint.max_request_bytes.filter(|_| request.has_body()) else { return Ok(received) };
    if received.header("content-encoding").is_some_and(|coding| coding != b"identity") {
        return Err(Response::problem(415, "body_encoded").header("accept-encoding", "identity"));
    }
    let body = match request.body().collect(limit).await {
        Ok(body) => body,
        Err(BodyError::TooLarge { .. }) => return Err(Response::problem(413, "body_too_large")),
        Err(_) => return Err(Response::problem(400, "body_missing")),
    };
    if body.is_empty() {
        return Ok(received);
    }
    let malformed = || Response::problem(400, "body_malformed").title("The body is not JSON, or too deep");
    let text = String::from_utf8(body).map_err(|_| malformed())?;
    check(&text, MAX_DEPTH).map_err(|_| malformed())?;
    Ok(Received { body: Some(text), ..received })
}

impl Aggregate {
    async fn compose(&self, endpoint: &Endpoint, received: &Received) -> Response {
        let run = Run::new((endpoint, &self.plan.env), received, (&self.host, &self.metrics));
        if let Err(lacking) = run.all().await {
            let Some(call) = endpoint.calls.get(lacking.call) else { return Response::problem(502, "call_failed") };
            return lacking.failure.reply(&call.name, &call.statuses);
        }
        let failed = run.failed();
        match composed(&endpoint.reply, &endpoint.calls, &run.outcomes, &failed) {
            Ok(body) => {
                let count = if failed.is_empty() { &self.metrics.composed } else { &self.metrics.partial };
                count.increment();
                let response = endpoint.reply.response(body, &failed, &run.values());
                // A wrong configuration is told from an upstream that fails.
                if run.lacks_upstream.get() { response.with_code("upstream_unknown") } else { response }
            }
            Err(Unfit::TooLarge) => {
                Response::problem(502, "reply_too_large").title("The answers of the calls make too large a reply")
            }
            Err(Unfit::Place(call)) => {
                let name = endpoint.calls.get(call).map_or("", |call| call.name.as_str());
                let title = format!("The answer of the call `{name}` does not fit into the reply");
                Response::problem(502, "reply_unfit").title(title).member("call", name)
            }
        }
    }
}
