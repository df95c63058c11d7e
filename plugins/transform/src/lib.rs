//! Changes paths, headers and the fields of JSON bodies.
//!
//! A body is held back only when there are rules for it and its content type is JSON; anything else streams past.

mod pointer;
mod policy;
mod settings;
mod values;

use portcullis_sdk::{Bodies, BodyError, Filter, Host, Message, Next, Request, Response, StartError};

use policy::{Head, Obstacle, Rewrite, Rules, Side, Way};
use settings::Settings;
use values::Values;

struct Transform(Rules);

impl Filter for Transform {
    type Config = Settings;
    const BODIES: Bodies = Bodies::BOTH;

    async fn start(settings: Settings, _: &Host) -> Result<Self, StartError> {
        Ok(Self(settings.checked()?))
    }

    async fn handle(&self, mut request: Request, next: Next) -> Response {
        let Rules { rewrites, request: inward, response: outward, max_bytes, env } = &self.0;
        let mut values = Values { env: Some(env), ..Values::default() };
        if !rewrites.is_empty() || inward.headers.has_values() || outward.headers.has_values() {
            values.request = request.headers().all();
        }
        if let Err(obstacle) = rewrite(&mut request, rewrites, &mut values) {
            return obstacle.reply(Way::Request);
        }
        if outward.body.is_some() {
            // So that the response comes whole and in the clear.
            request.headers_mut().remove("accept-encoding");
            request.headers_mut().remove("range");
        }
        if let Err(obstacle) = inward.apply(&mut request, &values, *max_bytes).await {
            return obstacle.reply(Way::Request);
        }
        let mut response = next.run(request).await;
        if outward.headers.has_values() {
            values.response = response.headers().all();
            values.response.push((":status".to_owned(), response.status().to_string().as_str().into()));
        }
        match outward.apply(&mut response, &values, *max_bytes).await {
            Ok(()) => response,
            Err(obstacle) => obstacle.reply(Way::Response),
        }
    }
}

portcullis_sdk::export_filter!(Transform);

fn rewrite(request: &mut Request, rewrites: &[Rewrite], values: &mut Values<'_>) -> Result<(), Obstacle> {
    for rewrite in rewrites {
        if let Some(target) = rewrite.apply(values)? {
            request.headers_mut().set(":path", target);
            return Ok(());
        }
    }
    Ok(())
}

impl Side {
    async fn apply(&self, message: &mut impl Message, values: &Values<'_>, max_bytes: usize) -> Result<(), Obstacle> {
        let head = Head::of(message.headers());
        self.headers.apply(message.headers_mut(), values)?;
        let Some(rules) = self.body.as_ref().filter(|_| message.has_body() && head.is_json()) else { return Ok(()) };
        head.check(max_bytes)?;
        match message.body_mut().collect(max_bytes).await {
            // A message may have no body after all; there is nothing in it to change or to hide.
            Ok(body) if body.is_empty() => {}
            Ok(body) => message.body_mut().set(rules.apply(&body)?).map_err(|_| Obstacle::Malformed)?,
            // What the upstream did not wait for it does not get.
            Err(BodyError::AnsweredEarly) => {
                message.body_mut().map_chunks(|_| Some(Vec::new())).map_err(|_| Obstacle::Malformed)?;
            }
            Err(_) => return Err(Obstacle::TooLarge),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
