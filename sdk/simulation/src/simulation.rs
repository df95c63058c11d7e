//! The loop: what is ready happens, in order; when nothing is, time goes on to the next thing that waits for it.

mod grpc;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use portcullis_core::chain;
use portcullis_core::context::{Callout, CalloutResponse, ContextRef, UpstreamId};
use portcullis_core::downstream::Patience;
use portcullis_core::event::{Direction, Event};
use portcullis_core::exchange::{Exchanges, Facts, Place, Times};
use portcullis_core::filter::{Chain, Filters};
use portcullis_core::grpc::News;
use portcullis_core::headers::Headers;
use portcullis_core::retry::Policy;
use portcullis_core::time::Time;

use crate::flight::Flight;
use crate::seen::{Line, Outcome, Seen, pairs};
use crate::sent::{Reply, Request, fields};

/// What an upstream does with a request.
pub type Stub = Box<dyn FnMut(&Seen) -> Reply>;

/// How long nothing may happen before an exchange is given up: beyond the gateway's own limits.
const PATIENCE: Duration = Duration::from_secs(400);
/// With nothing to wait for, the gateway's own deadlines are looked at this often.
const STRIDE: Duration = Duration::from_millis(500);

/// Those who run the filters.
pub trait Guests: Filters {
    /// When [`Self::tick`] has something to do.
    fn next_tick(&self) -> Option<Time>;
    /// Runs the timers that are due.
    fn tick(&mut self, exchanges: &mut Exchanges);
    /// Tells a root what came of its callout.
    fn deliver(&mut self, exchanges: &mut Exchanges, root: ContextRef, token: u32, response: CalloutResponse);
    /// Tells a root what came of its gRPC call or stream.
    fn hear(&mut self, exchanges: &mut Exchanges, root: ContextRef, token: u32, news: News);
    /// Tells one root of one item in its queue, if there is news of one; whether there was.
    fn read_letter(&mut self, exchanges: &mut Exchanges) -> bool;
    /// What was logged since this was last asked.
    fn take_log(&mut self) -> Vec<Line>;
    /// Waits until then, where time is real.
    fn wait(&mut self, _now: Time, _until: Time) {}
}

/// A call that a filter made.
///
/// ```
/// # use portcullis_simulation::Call;
/// fn count(calls: &[Call], upstream: &str) -> usize {
///     calls.iter().filter(|call| call.upstream == upstream).count()
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The upstream.
    pub upstream: String,
    /// What it got.
    pub request: Seen,
}

/// When the upstream of the route answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// When it has the whole request.
    #[default]
    AnswersAtEnd,
    /// As soon as it has the head.
    AnswersAtHead,
}

/// A gateway with one route.
pub struct Simulation<G> {
    exchanges: Exchanges,
    guests: G,
    chain: Arc<Chain>,
    origin: Stub,
    when: Origin,
    upstreams: Vec<(String, Stub)>,
    waiting: Vec<Waiting>,
    streams: Vec<grpc::Open>,
    calls: Vec<Call>,
    connections: u64,
}

struct Waiting {
    due: Time,
    root: ContextRef,
    token: u32,
    what: Due,
}

enum Due {
    Response(CalloutResponse),
    News(News),
}

/// The names that filters call upstreams by, in the order that [`Simulation::new`] gets them.
#[must_use]
pub fn numbered(names: &[String]) -> Arc<HashMap<Box<str>, UpstreamId>> {
    Arc::new(names.iter().map(|name| name.as_str().into()).zip((0..).map(UpstreamId)).collect())
}

impl<G: Guests> Simulation<G> {
    /// A gateway whose route has these filters, and whose filters know these upstreams.
    pub fn new(
        exchanges: Exchanges,
        guests: G,
        chain: Chain,
        (origin, when): (Stub, Origin),
        upstreams: Vec<(String, Stub)>,
    ) -> Self {
        Self {
            exchanges,
            guests,
            chain: Arc::new(chain),
            origin,
            when,
            upstreams,
            waiting: Vec::new(),
            streams: Vec::new(),
            calls: Vec::new(),
            connections: 0,
        }
    }

    /// Those who run the filters.
    pub fn guests(&mut self) -> &mut G {
        &mut self.guests
    }

    /// The present.
    #[must_use]
    pub fn now(&self) -> Time {
        self.exchanges.now
    }

    /// The calls that filters made since this was last asked.
    pub fn take_calls(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.calls)
    }

    /// Sends requests, all at once, and waits until each has its response. In the order of the requests; what was logged is with
    /// the first.
    pub fn send(&mut self, requests: &[Request]) -> Vec<Outcome> {
        let mut flights: Vec<Flight> = requests.iter().map(|request| self.take_off(request)).collect();
        let mut idle = Duration::ZERO;
        while flights.iter().any(|flight| !flight.over) && idle < PATIENCE {
            if self.step(&mut flights) {
                idle = Duration::ZERO;
                continue;
            }
            let before = self.exchanges.now;
            self.pass(&flights, before + STRIDE);
            idle += self.exchanges.now.saturating_since(before);
        }
        let mut outcomes: Vec<Outcome> = flights.into_iter().map(|flight| self.land(flight)).collect();
        if let Some(first) = outcomes.first_mut() {
            first.log = self.guests.take_log();
        }
        outcomes
    }

    /// Lets time pass, with everything that it brings about.
    pub fn advance(&mut self, time: Duration) {
        let end = self.exchanges.now + time;
        while self.exchanges.now < end {
            while self.step(&mut []) {}
            self.pass(&[], end);
        }
        while self.step(&mut []) {}
    }

    fn take_off(&mut self, request: &Request) -> Flight {
        self.connections += 1;
        let facts = Facts {
            source: request.client,
            destination: ([192, 0, 2, 1], 80).into(),
            protocol: "HTTP/1.1",
            connection_id: self.connections,
            request_id: HeaderValue::from_static("test-request"),
            tls: None,
            place: Arc::new(Place {
                route: "route".into(),
                pattern: "/*".into(),
                upstream: "origin".into(),
                tenant: "".into(),
                times: Times::with_response(Duration::from_secs(15)),
                retry: Policy::connect_only(),
            }),
            patience: Patience::DEFAULT,
            trace: None,
        };
        let id = self.exchanges.open(self.chain.clone(), facts);
        Flight::new(id, request, self.exchanges.now)
    }

    fn land(&mut self, flight: Flight) -> Outcome {
        let mut details = String::new();
        let id = flight.id;
        chain::end(&mut self.exchanges, &mut self.guests, id, None, |exchange| {
            details = exchange.details().map_or("via_upstream", |details| details.as_str()).to_owned();
        });
        self.start_callouts();
        flight.outcome(details, self.exchanges.now)
    }

    /// Does one thing that is ready. Whether there was one.
    fn step(&mut self, flights: &mut [Flight]) -> bool {
        self.start_callouts();
        if let Some(id) = self.exchanges.next_woken() {
            chain::feed(&mut self.exchanges, &mut self.guests, id, Event::Woken);
            return true;
        }
        if self.guests.read_letter(&mut self.exchanges) {
            return true;
        }
        let now = self.exchanges.now;
        flights.iter_mut().filter(|flight| flight.over).for_each(|flight| _ = flight.ended.get_or_insert(now));
        flights.iter_mut().filter(|flight| !flight.over).any(|flight| self.step_flight(flight)) || self.step_time()
    }

    fn step_flight(&mut self, flight: &mut Flight) -> bool {
        let now = self.exchanges.now;
        let Some(exchange) = self.exchanges.get_mut(flight.id) else {
            flight.over = true;
            return true;
        };
        for direction in [Direction::Request, Direction::Response] {
            if let Some(effect) = exchange.next_effect(direction) {
                flight.sent(direction, effect);
                self.ask_origin(flight);
                return true;
            }
        }
        if flight.gone_at.is_some_and(|at| at <= now) {
            flight.over = true;
            return true;
        }
        let Some(exchange) = self.exchanges.get(flight.id) else { return false };
        let Some((direction, part)) = flight.next_part(exchange, &self.exchanges.limits, now) else { return false };
        let event = Event::part(direction, part);
        chain::feed(&mut self.exchanges, &mut self.guests, flight.id, event);
        true
    }

    /// Has the route's upstream answer, once it has what it waits for.
    fn ask_origin(&mut self, flight: &mut Flight) {
        let Some(seen) = flight.upstream.as_ref().filter(|_| !flight.asked) else { return };
        if seen.complete || self.when == Origin::AnswersAtHead {
            flight.asked = true;
            let reply = (self.origin)(seen);
            flight.answer(&reply, self.exchanges.now);
        }
    }

    fn step_time(&mut self) -> bool {
        let now = self.exchanges.now;
        if let Some(at) = self.waiting.iter().position(|waiting| waiting.due <= now) {
            let Waiting { root, token, what, .. } = self.waiting.remove(at);
            match what {
                Due::Response(response) => self.guests.deliver(&mut self.exchanges, root, token, response),
                Due::News(news) => self.guests.hear(&mut self.exchanges, root, token, news),
            }
            return true;
        }
        if self.guests.next_tick().is_some_and(|due| due <= now) {
            self.guests.tick(&mut self.exchanges);
            return true;
        }
        let expired = self.exchanges.expired();
        for (id, failure) in &expired {
            chain::feed(&mut self.exchanges, &mut self.guests, *id, Event::Deadline(*failure));
        }
        !expired.is_empty()
    }

    /// Moves on to the next thing that waits for its time, but not beyond `limit`.
    fn pass(&mut self, flights: &[Flight], limit: Time) {
        let now = self.exchanges.now;
        let answers = flights.iter().filter_map(|flight| flight.waits_for_upstream(now));
        let gone = flights.iter().filter_map(|flight| flight.gone_at);
        let calls = self.waiting.iter().map(|waiting| waiting.due);
        let next = answers.chain(gone).chain(calls).chain(self.guests.next_tick()).filter(|due| *due > now).min();
        let until = next.map_or(limit, |next| next.min(limit));
        self.guests.wait(now, until);
        self.exchanges.now = until;
    }

    fn start_callouts(&mut self) {
        for callout in std::mem::take(&mut self.exchanges.callouts) {
            self.start_callout(callout);
        }
        self.grant_wishes();
    }

    fn start_callout(&mut self, callout: Callout) {
        let Some((name, stub)) = self.upstreams.get_mut(callout.upstream.0 as usize) else { return };
        let request = Seen {
            body: callout.body.to_vec(),
            trailers: pairs(&callout.trailers),
            complete: true,
            ..Seen::of(&callout.headers)
        };
        let reply = stub(&request);
        self.calls.push(Call { upstream: name.clone(), request });
        let in_time = reply.delay <= callout.timeout;
        self.waiting.push(Waiting {
            due: self.exchanges.now + reply.delay.min(callout.timeout),
            root: callout.root,
            token: callout.token,
            what: Due::Response(if in_time { answered(&reply) } else { timed_out() }),
        });
    }
}

fn answered(reply: &Reply) -> CalloutResponse {
    if reply.breaks_off {
        return CalloutResponse::default();
    }
    let trailers = (!reply.trailers.is_empty()).then(|| Headers::trailers(fields(&reply.trailers)));
    CalloutResponse { headers: Some(reply.head()), body: reply.chunks.concat().into(), trailers }
}

/// As hosts say it: a response in the upstream's place (ABI reference §9.2).
fn timed_out() -> CalloutResponse {
    let headers = Headers::response(StatusCode::GATEWAY_TIMEOUT, HeaderMap::new());
    CalloutResponse { headers: Some(headers), body: "upstream request timeout".into(), trailers: None }
}

impl<G> std::fmt::Debug for Simulation<G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulation").field("now", &self.exchanges.now).finish_non_exhaustive()
    }
}
