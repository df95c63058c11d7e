//! Changes methods, paths, queries, statuses, headers and bodies, by rules with conditions.
//!
//! A body is held back only when there are rules for it and its content type is what they are for; records of a stream are
//! changed as they pass; anything else streams past.

mod change;
mod coding;
mod condition;
mod document;
mod edit;
mod form;
mod headers;
mod jsonpath;
mod location;
mod media;
mod obstacle;
mod place;
mod pointer;
mod records;
mod rule;
mod settings;
mod target;
mod values;
mod xml;

use std::rc::Rc;

use plugin_bodies::{Stale, Way};
use portcullis_sdk::metric::Counter;
use portcullis_sdk::{Bodies, Filter, Host, Next, Request, Response, StartError};

use change::Work;
use coding::Coding;
use media::{Head, ask_for_readable, taken};
use obstacle::Obstacle;
use rule::Plan;
use settings::Settings;
use values::{Scope, Values};

#[derive(Clone)]
struct Transform {
    plan: Rc<Plan>,
    host: Host,
    holds_heads: bool,
    /// Bodies of requests, and of responses.
    bodies: [Counter; 2],
}

impl Filter for Transform {
    type Config = Settings;
    const BODIES: Bodies = Bodies::BOTH;
    const HOLDS_HEADERS: bool = true;

    async fn start(settings: Settings, host: &Host) -> Result<Self, StartError> {
        let bodies = ["transform_bodies.request", "transform_bodies.response"].map(|name| host.counter(name));
        let plan = Rc::new(settings.checked()?);
        Ok(Self { plan, host: host.clone(), holds_heads: host.holds_heads(), bodies })
    }

    async fn handle(&self, mut request: Request, next: Next) -> Response {
        let mut values = Values { env: Rc::clone(&self.plan.env), ..Values::default() };
        if self.plan.reads_request() {
            values.request = request.headers().all();
        }
        let is_head = self.plan.reads_responses().is_some() && request.method() == "HEAD";
        let taken = if self.plan.reads_responses().is_some() { taken(request.headers()) } else { Vec::new() };
        let mut values = Rc::new(values);
        if let Err(obstacle) = self.send(&mut request, &mut values, &taken).await {
            return self.refuse(Way::Request, obstacle);
        }
        let mut response = next.run(request).await;
        if self.plan.reads_response() {
            let status = response.status().to_string();
            let mut head = response.headers().all();
            head.retain(|(name, _)| name != ":status");
            head.push((":status".to_owned(), status.as_str().into()));
            let _once = values.response.set(head);
        }
        let head = Head::of(response.headers());
        match self.receive(&mut response, &head, &values, is_head).await {
            Ok(()) => response,
            Err(obstacle) => self.refuse(Way::Response, obstacle),
        }
    }
}

portcullis_sdk::export_filter!(Transform);

impl Transform {
    /// What happens to a request on its way.
    async fn send(&self, request: &mut Request, values: &mut Rc<Values>, taken: &[Coding]) -> Result<(), Obstacle> {
        for rewrite in &self.plan.rewrites {
            if let Some((target, captures)) = rewrite.apply(values)? {
                request.headers_mut().set(":path", target);
                if let Some(values) = Rc::get_mut(values) {
                    values.captures = captures;
                }
                break;
            }
        }
        if let Some(streams) = self.plan.reads_responses() {
            ask_for_readable(&mut request.headers_mut(), streams, taken);
        }
        let chosen = self.chosen(Way::Request, values);
        let head = Head::of(request.headers());
        for (index, scope) in &chosen {
            let Some(rule) = self.plan.request.get(*index) else { continue };
            rule.change_request(request, scope)?;
        }
        match Work::new(&self.plan, Way::Request, &head, &chosen).filter(|_| request.has_body()) {
            Some(work) => self.change_body(request, &head, work).await,
            None => Ok(()),
        }
    }

    /// What happens to its response.
    async fn receive(
        &self,
        response: &mut Response,
        head: &Head,
        values: &Rc<Values>,
        is_head: bool,
    ) -> Result<(), Obstacle> {
        let chosen = self.chosen(Way::Response, values);
        for (index, scope) in &chosen {
            let Some(rule) = self.plan.response.get(*index) else { continue };
            rule.change_response(response, scope)?;
        }
        let Some(work) = Work::new(&self.plan, Way::Response, head, &chosen) else { return Ok(()) };
        if response.has_body() {
            return self.change_body(response, head, work).await;
        }
        if is_head {
            // What it says is of a body that nobody gets.
            let mut headers = response.headers_mut();
            headers.remove("content-length");
            let _nobodys = Stale::remove(&mut headers);
        }
        Ok(())
    }

    /// The rules that are for this exchange.
    fn chosen(&self, way: Way, values: &Rc<Values>) -> Vec<(usize, Scope)> {
        let rules = self.plan.rules(way).iter().enumerate();
        rules.filter_map(|(index, rule)| Some((index, rule.guard.scope(values)?))).collect()
    }

    fn refuse(&self, way: Way, obstacle: Obstacle) -> Response {
        self.count("refused", way, obstacle);
        obstacle.reply(way)
    }

    /// Counts a body, or a record of one, that was not transformed: by its code, of which there are a dozen.
    fn count(&self, what: &str, way: Way, obstacle: Obstacle) {
        self.host.counter(&format!("transform_{what}.{}", obstacle.code(way))).increment();
    }

    fn changed(&self, way: Way) -> &Counter {
        let [request, response] = &self.bodies;
        if way == Way::Request { request } else { response }
    }
}

#[cfg(test)]
mod tests;
