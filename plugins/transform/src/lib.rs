//! Changes methods, paths, queries, statuses, headers and the fields of JSON bodies.
//!
//! A body is held back only when there are rules for it and its content type is JSON; anything else streams past.

mod body;
mod condition;
mod edit;
mod headers;
mod jsonpath;
mod location;
mod obstacle;
mod place;
mod pointer;
mod rule;
mod settings;
mod target;
mod values;

use portcullis_sdk::{Bodies, BodyError, Filter, Host, Message, Next, Request, Response, StartError};

use body::Head;
use condition::Way;
use edit::Edit;
use obstacle::Obstacle;
use rule::{Plan, Rule};
use settings::Settings;
use values::{Scope, Values};

struct Transform(Plan);

impl Filter for Transform {
    type Config = Settings;
    const BODIES: Bodies = Bodies::BOTH;

    async fn start(settings: Settings, _: &Host) -> Result<Self, StartError> {
        Ok(Self(settings.checked()?))
    }

    async fn handle(&self, mut request: Request, next: Next) -> Response {
        let plan = &self.0;
        let mut values = Values { env: Some(&plan.env), ..Values::default() };
        if plan.reads_request() {
            values.request = request.headers().all();
        }
        if let Err(obstacle) = plan.send(&mut request, &mut values).await {
            return obstacle.reply(Way::Request);
        }
        let mut response = next.run(request).await;
        if plan.reads_response() {
            values.response = response.headers().all();
            values.response.push((":status".to_owned(), response.status().to_string().as_str().into()));
        }
        match plan.receive(&mut response, &values).await {
            Ok(()) => response,
            Err(obstacle) => obstacle.reply(Way::Response),
        }
    }
}

portcullis_sdk::export_filter!(Transform);

impl Plan {
    /// What happens to a request on its way.
    async fn send(&self, request: &mut Request, values: &mut Values<'_>) -> Result<(), Obstacle> {
        for rewrite in &self.rewrites {
            if let Some((target, captures)) = rewrite.apply(values)? {
                request.headers_mut().set(":path", target);
                values.captures = captures;
                break;
            }
        }
        if self.response.iter().any(|rule| !rule.edits.is_empty()) {
            // So that the response comes whole and in the clear.
            request.headers_mut().remove("accept-encoding");
            request.headers_mut().remove("range");
        }
        let chosen = chosen(&self.request, values);
        let head = Head::of(request.headers());
        for (rule, scope) in &chosen {
            rule.change_request(request, scope)?;
        }
        change_body(request, &head, &chosen, self.max_bytes).await
    }

    /// What happens to its response.
    async fn receive(&self, response: &mut Response, values: &Values<'_>) -> Result<(), Obstacle> {
        let chosen = chosen(&self.response, values);
        let head = Head::of(response.headers());
        for (rule, scope) in &chosen {
            rule.change_response(response, scope)?;
        }
        change_body(response, &head, &chosen, self.max_bytes).await
    }
}

/// The rules that are for this exchange.
fn chosen<'r>(rules: &'r [Rule], values: &'r Values<'r>) -> Vec<(&'r Rule, Scope<'r>)> {
    rules.iter().filter_map(|rule| Some((rule, rule.guard.scope(values)?))).collect()
}

async fn change_body(
    message: &mut impl Message,
    head: &Head,
    chosen: &[(&Rule, Scope<'_>)],
    max_bytes: usize,
) -> Result<(), Obstacle> {
    let edits: Vec<(&Edit, &Scope<'_>)> =
        chosen.iter().flat_map(|(rule, scope)| rule.edits.iter().map(move |edit| (edit, scope))).collect();
    if edits.is_empty() || !message.has_body() || !head.is_json() {
        return Ok(());
    }
    head.check(max_bytes)?;
    match message.body_mut().collect(max_bytes).await {
        // A message may have no body after all; there is nothing in it to change or to hide.
        Ok(body) if body.is_empty() => {}
        Ok(body) => message.body_mut().set(body::changed(&edits, &body)?).map_err(|_| Obstacle::Malformed)?,
        // What the upstream did not wait for it does not get.
        Err(BodyError::AnsweredEarly) => {
            message.body_mut().map_chunks(|_| Some(Vec::new())).map_err(|_| Obstacle::Malformed)?;
        }
        Err(_) => return Err(Obstacle::TooLarge),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
