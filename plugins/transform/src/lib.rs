//! Changes headers and the fields of JSON bodies.
//!
//! A body is held back only when there are rules for it and its content type is JSON; anything else streams past.

mod pointer;
mod policy;
mod settings;

use portcullis_sdk::{Bodies, BodyError, Filter, Host, Message, Next, Request, Response, StartError};

use policy::{Head, Obstacle, Rules, Side, Way};
use settings::Settings;

struct Transform(Rules);

impl Filter for Transform {
    type Config = Settings;
    const BODIES: Bodies = Bodies::BOTH;

    async fn start(settings: Settings, _: &Host) -> Result<Self, StartError> {
        Ok(Self(settings.checked()?))
    }

    async fn handle(&self, mut request: Request, next: Next) -> Response {
        let Rules { request: inward, response: outward, max_bytes } = &self.0;
        if outward.body.is_some() {
            // So that the response comes whole and in the clear.
            request.headers_mut().remove("accept-encoding");
            request.headers_mut().remove("range");
        }
        if let Err(obstacle) = inward.apply(&mut request, *max_bytes).await {
            return obstacle.reply(Way::Request);
        }
        let mut response = next.run(request).await;
        match outward.apply(&mut response, *max_bytes).await {
            Ok(()) => response,
            Err(obstacle) => obstacle.reply(Way::Response),
        }
    }
}

portcullis_sdk::export_filter!(Transform);

impl Side {
    async fn apply(&self, message: &mut impl Message, max_bytes: usize) -> Result<(), Obstacle> {
        let head = Head::of(message.headers());
        self.headers.apply(message.headers_mut());
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
