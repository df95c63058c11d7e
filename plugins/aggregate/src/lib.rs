//! Several callouts, one JSON reply.

mod policy;
mod settings;

use portcullis_sdk::{Filter, HeaderValue, Host, Next, Request, Response, StartError, try_join_all};

use policy::{Asked, Part, Plan, lacking, wrong_method};
use settings::Settings;

struct Aggregate(Plan);

impl Filter for Aggregate {
    type Config = Settings;

    async fn start(settings: Settings, _: &Host) -> Result<Self, StartError> {
        Ok(Self(settings.checked()?))
    }

    async fn handle(&self, request: Request, next: Next) -> Response {
        match self.0.asked(&request.method(), &request.path()) {
            Asked::Pass => next.run(request).await,
            Asked::WrongMethod => wrong_method(),
            Asked::Gather => self.gather(&request).await,
        }
    }
}

portcullis_sdk::export_filter!(Aggregate);

impl Aggregate {
    async fn gather(&self, request: &Request) -> Response {
        let headers = request.headers();
        let forwarded: Vec<(&str, HeaderValue)> =
            self.0.forward_headers.iter().filter_map(|name| Some((name.as_str(), headers.get(name)?))).collect();
        match try_join_all(self.0.parts.iter().map(|part| self.ask(part, &forwarded))).await {
            Ok(answers) => Response::json(200, self.0.merged(&answers)),
            Err(part) => lacking(part),
        }
    }

    /// A part's JSON, or what stands in for it; the part's name when there is neither.
    async fn ask<'p>(&self, part: &'p Part, forwarded: &[(&str, HeaderValue)]) -> Result<String, &'p str> {
        let mut call = part.upstream.get(part.path.as_str()).authority(part.host.as_str()).timeout(part.timeout);
        call = call.limit(self.0.max_bytes).header("accept", "application/json");
        for (name, value) in forwarded {
            // A header of ours would otherwise be there twice; and one that is no text cannot be sent.
            if *name != "accept" && value.to_str().is_ok() {
                call = call.header(name, value);
            }
        }
        match call.send().await {
            Ok(reply) => policy::usable(reply.body()),
            Err(why) => {
                log::debug!("no part {}: {why}", part.name);
                None
            }
        }
        .or_else(|| part.stand_in.clone())
        .ok_or(&part.name)
    }
}

#[cfg(test)]
mod tests;
