//! Passes JSON bodies through jq programs, both ways.
//!
//! A body is held back only when there is a program for it and its content type is JSON; anything else streams past. Programs are
//! bounded in steps ([`steps`]), bodies and results in bytes.

mod obstacle;
mod program;
mod settings;
mod steps;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use jaq_json::{Map, Val};
use plugin_bodies::{Otherwise, Stale, Unread, Way};
use portcullis_sdk::metric::Counter;
use portcullis_sdk::{Bodies, BodyError, Filter, Headers, Host, Message, Next, Request, Response, StartError};

use obstacle::Obstacle;
use program::{Failure, Program};
use settings::Settings;

struct Jq {
    settings: Settings,
    request: Option<Program>,
    response: Option<Program>,
    host: Host,
    /// Bodies of requests, and of responses, that programs have changed.
    bodies: [Counter; 2],
}

impl Filter for Jq {
    type Config = Settings;
    const BODIES: Bodies = Bodies::BOTH;
    const HOLDS_HEADERS: bool = true;

    async fn start(settings: Settings, host: &Host) -> Result<Self, StartError> {
        let compiled = |name: &str, code: &Option<String>| match code {
            Some(code) => {
                Program::compile(code, settings.max_steps).map(Some).map_err(|why| format!("`{name}`: {why}"))
            }
            None => Ok(None),
        };
        let (request, response) = (compiled("request", &settings.request)?, compiled("response", &settings.response)?);
        if request.is_none() && response.is_none() {
            return Err(StartError::new("there is no program: write `request`, `response` or both"));
        }
        let bodies = ["jq_bodies.request", "jq_bodies.response"].map(|name| host.counter(name));
        Ok(Self { settings, request, response, host: host.clone(), bodies })
    }

    async fn handle(&self, mut request: Request, next: Next) -> Response {
        let about = shown(&request);
        let is_head = request.method() == "HEAD";
        if self.response.is_some() {
            // So that the response comes whole, and in the clear.
            ["accept-encoding", "range"].iter().for_each(|name| request.headers_mut().remove(name));
        }
        if let Some(program) = self.request.as_ref().filter(|_| request.has_body() && is_json(request.headers()))
            && let Err(reply) = self.change(&mut request, (Way::Request, program), [about.clone(), Val::Null]).await
        {
            return reply;
        }
        let mut response = next.run(request).await;
        let Some(program) = self.response.as_ref().filter(|_| is_json(response.headers())) else { return response };
        if response.has_body() {
            let status = Val::from(usize::from(response.status()));
            let answer = object([("status", status), ("headers", fields(response.headers()))]);
            if let Err(reply) = self.change(&mut response, (Way::Response, program), [about, answer]).await {
                return reply;
            }
        } else if is_head {
            // What it says is of a body that nobody gets.
            let mut headers = response.headers_mut();
            let _nobodys = Stale::remove(&mut headers);
            headers.remove("content-length");
        }
        response
    }
}

portcullis_sdk::export_filter!(Jq);

impl Jq {
    /// Changes a body, or says what its client gets instead.
    async fn change(
        &self,
        message: &mut impl Message,
        (way, program): (Way, &Program),
        globals: [Val; 2],
    ) -> Result<(), Response> {
        let head = message.headers();
        let length = head.text("content-length").and_then(|length| length.trim().parse::<usize>().ok());
        let coding = head.text("content-encoding").unwrap_or_default();
        let known = if head.contains("content-range") {
            Err(Obstacle::Body(Unread::Partial))
        } else if length.is_some_and(|length| length > self.settings.max_bytes) {
            Err(Obstacle::Body(Unread::TooLarge))
        } else if !coding.is_empty() && !coding.eq_ignore_ascii_case("identity") {
            Err(Obstacle::Body(Unread::Encoded))
        } else {
            Ok(())
        };
        if let Err(obstacle) = known {
            return self.otherwise(obstacle, way);
        }
        // Now, for a host that does not hold heads sends it before the body is here.
        let stale = Stale::remove(&mut message.headers_mut());
        let changed = match message.body_mut().collect(self.settings.max_bytes).await {
            // A message may have no body after all.
            Ok(body) if body.is_empty() => return Ok(()),
            Ok(body) => program.run(&body, globals, self.settings.max_bytes).map_err(|failure| {
                if let Failure::Failed(why) = &failure {
                    log::warn!("the program for bodies of {} failed: {why}", bodies_of(way));
                }
                Obstacle::from(&failure)
            }),
            // What the upstream did not wait for it does not get.
            Err(BodyError::AnsweredEarly) => {
                let emptied = message.body_mut().map_chunks(|_| Some(Vec::new()));
                return emptied.map_err(|_| Obstacle::Body(Unread::Malformed).reply(way));
            }
            Err(_) => Err(Obstacle::Body(Unread::TooLarge)),
        };
        let set = changed.and_then(|body| message.body_mut().set(body).map_err(|_| Obstacle::Body(Unread::Malformed)));
        let Err(obstacle) = set else {
            self.bodies(way).increment();
            return Ok(());
        };
        self.otherwise(obstacle, way)?;
        if self.host.holds_heads() {
            stale.restore(&mut message.headers_mut());
        }
        Ok(())
    }

    /// What becomes of a body that was not changed.
    fn otherwise(&self, obstacle: Obstacle, way: Way) -> Result<(), Response> {
        let otherwise = match obstacle {
            Obstacle::Body(Unread::TooLarge) | Obstacle::ResultTooLarge => self.settings.on_overflow,
            Obstacle::Body(Unread::Malformed | Unread::Encoded) | Obstacle::Body(Unread::Partial) => {
                self.settings.on_invalid
            }
            Obstacle::Failed | Obstacle::Steps => self.settings.on_failure,
        };
        let (what, result) = match otherwise {
            Otherwise::Pass => ("passed", Ok(())),
            Otherwise::Refuse => ("refused", Err(obstacle.reply(way))),
        };
        self.host.counter(&format!("jq_{what}.{}", obstacle.code(way))).increment();
        result
    }

    fn bodies(&self, way: Way) -> &Counter {
        let [request, response] = &self.bodies;
        if way == Way::Request { request } else { response }
    }
}

/// For messages to people.
fn bodies_of(way: Way) -> &'static str {
    match way {
        Way::Request => "requests",
        Way::Response => "responses",
    }
}

/// Whether the body is a JSON document.
fn is_json(headers: Headers<'_>) -> bool {
    let content_type = headers.text("content-type").unwrap_or_default();
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media == "application/json" || media.ends_with("+json")
}

/// A request, as programs see it.
fn shown(request: &Request) -> Val {
    let target = request.headers().text(":path").unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    object([
        ("method", text(&request.method())),
        ("host", text(&request.authority())),
        ("path", text(path)),
        ("query", text(query)),
        ("headers", fields(request.headers())),
    ])
}

/// Fields by their names; those of one name are one, with commas (RFC 9110 §5.3).
fn fields(headers: Headers<'_>) -> Val {
    let mut all: Vec<(String, String)> = Vec::new();
    for (name, value) in headers.all().into_iter().filter(|(name, _)| !name.starts_with(':')) {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => *values += &format!(", {value}"),
            None => all.push((name, value)),
        }
    }
    let all = all.into_iter().map(|(name, value)| (Val::from(name), Val::from(value)));
    Val::Obj(Rc::new(all.collect::<Map>()))
}

fn object<const N: usize>(members: [(&str, Val); N]) -> Val {
    Val::Obj(Rc::new(members.into_iter().map(|(name, value)| (text(name), value)).collect::<Map>()))
}

fn text(text: &str) -> Val {
    Val::from(text.to_owned())
}
