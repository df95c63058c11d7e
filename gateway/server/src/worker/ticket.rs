//! An exchange's beginning and its end: what it is opened with, and the right to end it.

use std::rc::Rc;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use portcullis_core::chain;
use portcullis_core::context::UpstreamId;
use portcullis_core::event::Direction;
use portcullis_core::exchange::{Exchange, ExchangeId, Facts, Place, Reached};
use portcullis_core::filter::Chain;
use portcullis_core::headers::Headers;
use portcullis_core::reply::{Details, Failure};
use portcullis_core::tenant::{Account, Admitted};
use portcullis_core::time::Time;

use super::{State, Waiting, Worker};
use crate::bulkhead::{self, NoPlace, Tether};
use crate::clock::Clock;
use crate::listener::Lane;
use crate::revision::Revision;
use crate::telemetry::{Chosen, ConnectionRecord, Record, server_timing};

/// What ties an exchange to its client's connection, and it can be cut off with.
pub(crate) enum Tie {
    /// The connection is this worker's.
    Lane(Rc<Lane>),
    /// It is another's, which learns of the end when the last of these is dropped.
    Tether(Rc<Tether>),
}

impl Tie {
    fn began(&self) {
        if let Self::Lane(lane) = self {
            lane.began();
        }
    }

    fn ended(&self) {
        if let Self::Lane(lane) = self {
            lane.ended();
        }
    }

    /// Ends the connection, or resets the stream, whatever it is at.
    pub(super) fn cut(&self) {
        match self {
            Self::Lane(lane) => lane.cut(),
            Self::Tether(tether) => tether.cut(),
        }
    }
}

/// Where a request is served.
pub(crate) enum LetIn {
    /// Here; with it, one more of its tenant's, if it is one's.
    Here(Option<Admitted>),
    /// In the bulkhead.
    Elsewhere(Admitted, bulkhead::Place),
}

/// What an exchange begins with.
pub(crate) struct Opening {
    pub(crate) revision: Rc<Revision>,
    pub(crate) chain: Arc<Chain>,
    pub(crate) facts: Facts,
    /// When it began, if that was before.
    pub(crate) began: Option<Time>,
    /// Nothing for a TCP connection.
    pub(crate) request: Option<Described>,
    pub(crate) tie: Tie,
    /// Who pays for what its filters use.
    pub(crate) account: Option<Arc<Account>>,
    pub(crate) admitted: Option<Admitted>,
}

/// What the access log says of a request.
pub(crate) struct Described {
    pub(crate) method: Method,
    pub(crate) path: PathAndQuery,
    pub(crate) host: Option<HeaderValue>,
    pub(crate) user_agent: Option<HeaderValue>,
    /// The fields that are to be logged.
    pub(crate) fields: Chosen,
    /// Whether the client is told how long it took.
    pub(crate) tells_times: bool,
}

/// The right to end an exchange, held by whoever sends its response. Dropped early, the client has gone away.
pub(crate) struct Ticket {
    worker: Rc<Worker>,
    id: ExchangeId,
    /// Nothing for a TCP connection.
    request: Option<Described>,
    /// The status the client was sent; 0 until then.
    pub(crate) status: u16,
    ended: bool,
    /// The response's fields that are to be logged.
    fields: Chosen,
    /// What the exchange began with lives as long as it does.
    revision: Rc<Revision>,
    /// Its tenant has one more under way for as long.
    _admitted: Option<Admitted>,
}

impl Ticket {
    pub(crate) fn parts(&self) -> (Rc<Worker>, ExchangeId) {
        (self.worker.clone(), self.id)
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.worker.clock
    }

    /// Chooses the route again, if a filter has asked for that: where the request goes now, if elsewhere.
    pub(crate) fn reroute(&self, head: &Headers) -> Option<(Arc<Place>, Result<UpstreamId, Failure>)> {
        let table = &self.revision.table;
        self.worker.with(self.id, |exchange| {
            let (place, target) = exchange.takes_reroute().then(|| table.route_again(exchange, head))??;
            exchange.move_to(place.clone());
            Some((place, target))
        })?
    }

    /// The upstream has been reached like this.
    pub(crate) fn reached(&self, reached: Reached) {
        self.worker.with(self.id, |exchange| exchange.set_reached(reached));
    }

    /// The client is sent this head.
    pub(crate) fn answers(&mut self, status: StatusCode, fields: &HeaderMap) {
        self.status = status.as_u16();
        self.fields = self.worker.telemetry.chosen_of_response(fields);
    }

    /// How long the request has taken so far, where the client is told.
    pub(crate) fn times(&self) -> Option<HeaderValue> {
        self.request.as_ref().filter(|request| request.tells_times)?;
        let now = self.worker.clock.now();
        self.worker.with(self.id, |exchange| server_timing(exchange, now)).flatten()
    }

    /// The response has been sent.
    pub(crate) fn finish(&mut self) {
        self.end(None);
    }

    /// The response broke off.
    pub(crate) fn fail(&mut self, failure: Failure) {
        self.end(Some(failure));
    }

    fn end(&mut self, failure: Option<Failure>) {
        if !std::mem::replace(&mut self.ended, true) {
            self.worker.clone().end(self, failure);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.end(Some(Failure::ClientGone));
    }
}

impl Worker {
    /// Lets a request of this tenant in, or says which of its limits it meets.
    pub(crate) fn let_in(&self, account: Option<&Arc<Account>>, tenant: &str) -> Result<LetIn, Failure> {
        let Some(account) = account else { return Ok(LetIn::Here(None)) };
        let now = self.clock.now();
        let admitted = account.admit(now)?;
        let Some(bulkhead) = self.bulkhead.as_ref().filter(|_| account.apart.is_now(now)) else {
            return Ok(LetIn::Here(Some(admitted)));
        };
        let full = || {
            account.turned_away();
            Err(Failure::TenantCpu)
        };
        if account.in_flight() > bulkhead::MOST_OF_ONE {
            return full();
        }
        match bulkhead.reserve(tenant) {
            Ok(place) => Ok(LetIn::Elsewhere(admitted, place)),
            Err(NoPlace::Full) => full(),
            // It has ended before this worker: better here than not at all.
            Err(NoPlace::Closed) => Ok(LetIn::Here(Some(admitted))),
        }
    }

    /// Opens an exchange; without a request it is a TCP connection's. It lives until its ticket is finished or dropped.
    pub(crate) fn open(self: &Rc<Self>, opening: Opening) -> Ticket {
        let Opening { revision, chain, facts, began, request, tie, account, admitted } = opening;
        let mut state = self.present();
        let sampled = facts.trace.is_some_and(|trace| trace.is_sampled());
        let id = state.exchanges.open(chain, facts);
        let tells_times = request.as_ref().is_some_and(|request| request.tells_times);
        if let Some(exchange) = state.exchanges.get_mut(id) {
            if sampled || tells_times || self.telemetry.logs_filters() {
                exchange.time_filters();
            }
            if let Some(began) = began {
                exchange.began(began);
            }
        }
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() <= id.index() {
            waiting.resize_with(id.index() + 1, Waiting::default);
        }
        tie.began();
        if let Some(waiting) = waiting.get_mut(id.index()) {
            waiting.tie = Some(tie);
            waiting.account = account;
        }
        if request.is_some() {
            self.telemetry.began();
        }
        Ticket {
            worker: self.clone(),
            id,
            request,
            status: 0,
            ended: false,
            fields: Chosen::default(),
            revision,
            _admitted: admitted,
        }
    }

    fn end(self: &Rc<Self>, ticket: &Ticket, failure: Option<Failure>) {
        self.act(|State { exchanges, vms }| {
            let now = exchanges.now;
            chain::end(exchanges, vms, ticket.id, failure, |exchange| {
                let Some(facts) = exchange.facts() else { return };
                match &ticket.request {
                    Some(request) => self.record_request(ticket, request, (exchange, facts), now),
                    None => self.record_connection((exchange, facts), now),
                }
            });
            self.had_turn(ticket.id, now);
            if ticket.request.is_some() {
                self.telemetry.ended();
            }
            // Whoever still sends the request hears that it is over.
            self.wake(ticket.id, Direction::Request);
            if let Some(waiting) = self.waiting.borrow_mut().get_mut(ticket.id.index())
                && let Some(tie) = std::mem::take(waiting).tie
            {
                tie.ended();
            }
        });
    }

    fn record_request(&self, ticket: &Ticket, request: &Described, (exchange, facts): (&Exchange, &Facts), now: Time) {
        let (request_bytes, _) = exchange.body_bytes(Direction::Request);
        let (_, response_bytes) = exchange.body_bytes(Direction::Response);
        self.telemetry.record(&Record {
            tenant: &facts.place.tenant,
            route: &facts.place.route,
            pattern: &facts.place.pattern,
            upstream: &facts.place.upstream,
            upstream_address: exchange.upstream_address(),
            method: &request.method,
            host: request.host.as_ref().map_or(&[], HeaderValue::as_bytes),
            path: request.path.as_str(),
            protocol: facts.protocol,
            source: facts.source,
            request_id: facts.request_id.as_bytes(),
            status: ticket.status,
            reason: exchange.details().map_or("via_upstream", Details::as_str),
            request_bytes,
            response_bytes,
            duration: now.saturating_since(exchange.started()),
            upstream_wait: exchange.responded().map(|at| at.saturating_since(exchange.started())),
            time: exchange.started(),
            trace: facts.trace.as_ref(),
            attempts: exchange.attempts(),
            scheme: if facts.tls.is_some() { "https" } else { "http" },
            tries: self.waiting.borrow().get(ticket.id.index()).map_or(&[], |waiting| &waiting.attempts),
            request_fields: &request.fields,
            response_fields: &ticket.fields,
            properties: exchange.properties(),
            chain: exchange.chain(),
            timings: exchange.timings(),
            user_agent: request.user_agent.as_ref().map_or(&[], HeaderValue::as_bytes),
        });
    }

    fn record_connection(&self, (exchange, facts): (&Exchange, &Facts), now: Time) {
        let (received, _) = exchange.body_bytes(Direction::Request);
        let (_, sent) = exchange.body_bytes(Direction::Response);
        self.telemetry.record_connection(&ConnectionRecord {
            tenant: &facts.place.tenant,
            listener: &facts.place.route,
            upstream: &facts.place.upstream,
            upstream_address: exchange.upstream_address(),
            source: facts.source,
            failure: exchange.details().map(Details::as_str),
            received,
            sent,
            duration: now.saturating_since(exchange.started()),
            upstream_wait: exchange.responded().map(|at| at.saturating_since(exchange.started())),
            time: exchange.started(),
            properties: exchange.properties(),
            chain: exchange.chain(),
            timings: exchange.timings(),
        });
    }
}
