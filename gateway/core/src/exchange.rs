//! One request and its response.
//!
//! An exchange is fed events and drained of effects. What guests ask for while they run is only recorded here; the chain acts on
//! it when they have returned, so no guest is ever called while another is.

mod facts;
mod live;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use self::facts::{Facts, Place, Times};
pub use self::live::{ExchangeId, Exchanges, Live};
use crate::chain::Side;
use crate::context::ContextRef;
use crate::event::{Direction, Effect};
use crate::filter::{Callback, Chain, ChainFilter, FilterIndex};
use crate::flow::{Flow, Stage};
use crate::limits::Limits;
use crate::reply::{Asker, Details, Failure, LocalReply};
use crate::rollout::{Comparison, Trial, Version};
use crate::time::Time;
use crate::timing::Timings;

/// What one direction of an exchange has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// The next part.
    More,
    /// Nothing until something else happens.
    Wait,
    /// Nothing any more: the end has been sent.
    Nothing,
    /// Nothing any more: the direction was closed before its end.
    Closed,
}

/// Where an exchange stands as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stand {
    /// The response's head has not come in.
    #[default]
    Requesting,
    /// The upstream's response is on its way to the client.
    Responding,
    /// Both messages have ended, and bytes that no filter sees pass in a tunnel.
    Tunnelling {
        /// How long it may be silent.
        idle: Duration,
    },
    /// A local reply is in its place, or the stream was broken off: what the upstream still says is of no interest.
    Replying,
    /// The last callbacks run; nothing a guest asks for has an effect any more.
    Ending,
}

/// One filter's part in an exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Not called yet.
    #[default]
    Idle,
    /// It has a context.
    Live(ContextRef),
    /// Its VM died while the exchange waited for it; the failure policy has yet to be applied.
    Orphaned,
    /// It failed, and is passed over.
    Failed,
}

/// What a guest, or a failure, has asked for and the chain has yet to do.
#[derive(Debug)]
pub(crate) enum Asked {
    /// A filter's reply.
    Reply(LocalReply),
    /// The gateway's own.
    Fail(Failure),
    /// Break the stream off.
    Close,
}

/// One request and its response.
#[derive(Debug)]
pub struct Exchange {
    life: u32,
    live: bool,
    facts: Option<Facts>,
    pub(crate) chain: Arc<Chain>,
    pub(crate) stand: Stand,
    pub(crate) request: Flow,
    pub(crate) response: Flow,
    pub(crate) slots: Vec<Slot>,
    /// How many filters the request's head has reached.
    pub(crate) entered: usize,
    pub(crate) asked: Option<Asked>,
    /// The callback that runs now: some questions can be asked only during one.
    pub(crate) calling: Option<(FilterIndex, Callback)>,
    pub(crate) asker: Asker,
    pub(crate) details: Option<Details>,
    blamed: Option<Failure>,
    pub(crate) properties: Vec<(Bytes, Bytes)>,
    pub(crate) started: Time,
    pub(crate) last_progress: Time,
    pub(crate) paused_since: Option<Time>,
    pub(crate) responded: Option<Time>,
    pub(crate) upstream_address: Option<SocketAddr>,
    pub(crate) attempts: u32,
    pub(crate) reached: Option<Reached>,
    upload: Upload,
    woken: bool,
    /// A filter wants the route chosen again.
    reroutes: bool,
    pub(crate) timings: Option<Box<Timings>>,
    /// The filters that have a candidate, as far as the exchange has come.
    pub(crate) trials: Vec<Trial>,
    /// What it is beside, where it is a shadow.
    pub(crate) shadow: Option<Box<Side>>,
}

/// How an upstream was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// How many endpoints it has.
    pub endpoints: usize,
    /// How long the request waited for a connection; no time where one lay ready.
    pub waited: Duration,
}

/// Whose turn it is while a request's body is on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Upload {
    /// The client's: it has not sent more.
    #[default]
    FromClient,
    /// The upstream's: it has not taken what there is.
    ToUpstream,
}

impl Exchange {
    fn new(chain: Arc<Chain>) -> Self {
        Self {
            life: 0,
            live: false,
            facts: None,
            chain,
            stand: Stand::default(),
            request: Flow::default(),
            response: Flow::default(),
            slots: Vec::new(),
            entered: 0,
            asked: None,
            calling: None,
            asker: Asker::default(),
            details: None,
            blamed: None,
            properties: Vec::new(),
            started: Time::default(),
            last_progress: Time::default(),
            paused_since: None,
            responded: None,
            upstream_address: None,
            attempts: 0,
            reached: None,
            upload: Upload::default(),
            woken: false,
            reroutes: false,
            timings: None,
            trials: Vec::new(),
            shadow: None,
        }
    }

    pub(crate) fn flow(&self, direction: Direction) -> &Flow {
        match direction {
            Direction::Request => &self.request,
            Direction::Response => &self.response,
        }
    }

    pub(crate) fn flow_mut(&mut self, direction: Direction) -> &mut Flow {
        match direction {
            Direction::Request => &mut self.request,
            Direction::Response => &mut self.response,
        }
    }

    /// Whether nothing more will be sent in this direction.
    pub(crate) fn is_over(&self, direction: Direction) -> bool {
        matches!(self.flow(direction).stage, Stage::Closed | Stage::Done)
    }

    pub(crate) fn filter(&self, index: FilterIndex) -> Option<&ChainFilter> {
        self.chain.version(index, self.version(index))
    }

    /// Which version of a filter the exchange has.
    #[must_use]
    pub fn version(&self, index: FilterIndex) -> Version {
        self.trials.iter().find(|trial| trial.filter == index).map_or(Version::Current, |trial| trial.version)
    }

    pub(crate) fn trial(&mut self, index: FilterIndex) -> Option<&mut Trial> {
        self.trials.iter_mut().find(|trial| trial.filter == index)
    }

    /// Whether a head is kept after it was sent: some filter may look back at it.
    pub(crate) fn keeps_heads(&self) -> bool {
        self.chain.looks_back()
    }

    /// What was known from the start.
    #[must_use]
    pub fn facts(&self) -> Option<&Facts> {
        self.facts.as_ref()
    }

    /// The next thing to do in this direction.
    pub fn next_effect(&mut self, direction: Direction) -> Option<Effect> {
        self.flow_mut(direction).out.pop_front()
    }

    /// Whether something is ready to be done in this direction.
    #[must_use]
    pub fn has_effects(&self, direction: Direction) -> bool {
        !self.flow(direction).out.is_empty()
    }

    /// What may happen next in this direction. Not reading is how back-pressure works: while what was read is still here, or a
    /// filter has stopped the direction, nothing more is wanted.
    #[must_use]
    pub fn wants(&self, direction: Direction, limits: &Limits) -> Wants {
        let flow = self.flow(direction);
        match flow.stage {
            Stage::Closed => Wants::Closed,
            Stage::Done => Wants::Nothing,
            Stage::Waiting | Stage::HeadAt(_) | Stage::HeadParked | Stage::Sent => {
                if flow.wants_more(limits.held_bytes) { Wants::More } else { Wants::Wait }
            }
        }
    }

    /// Whether the body of this direction must be fed through, because some filter looks at it.
    #[must_use]
    pub fn watches_body(&self, direction: Direction) -> bool {
        self.chain.watches_body(direction)
    }

    /// Records the endpoint that was tried last, and how often one has been tried.
    pub fn set_tried(&mut self, address: Option<SocketAddr>, attempts: u32) {
        self.upstream_address = address.or(self.upstream_address);
        self.attempts = attempts;
    }

    /// Records how the upstream was reached.
    pub fn set_reached(&mut self, reached: Reached) {
        self.reached = Some(reached);
    }

    /// How often an endpoint was tried: once, where nothing failed.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The endpoint that was chosen.
    #[must_use]
    pub fn upstream_address(&self) -> Option<SocketAddr> {
        self.upstream_address
    }

    /// Why the response is not the upstream's, if it is not: the gateway's code word, or a filter's own words.
    #[must_use]
    pub fn details(&self) -> Option<&Details> {
        self.details.as_ref()
    }

    /// Notes whose fault a coming failure is, where the side that notices it first knows and the side that reports it does not.
    pub fn blame(&mut self, failure: Failure) {
        self.blamed.get_or_insert(failure);
    }

    /// What [`Self::blame`] noted.
    #[must_use]
    pub fn blamed(&self) -> Option<Failure> {
        self.blamed
    }

    /// When the response's head came in, if the upstream answered.
    #[must_use]
    pub fn responded(&self) -> Option<Time> {
        self.responded
    }

    /// When the request's head came in.
    #[must_use]
    pub fn started(&self) -> Time {
        self.started
    }

    /// Notes from now on what filters do, and how long that takes.
    pub fn time_filters(&mut self) {
        self.timings = Some(Box::default());
    }

    /// What filters have left in properties of their own, by name.
    #[must_use]
    pub fn properties(&self) -> &[(Bytes, Bytes)] {
        &self.properties
    }

    /// What filters did, if that was noted.
    #[must_use]
    pub fn timings(&self) -> Option<&Timings> {
        self.timings.as_deref()
    }

    /// Whether every filter has let a TCP connection in: the upstream may be connected to.
    #[must_use]
    pub fn is_let_in(&self) -> bool {
        self.request.stage == Stage::Sent
    }

    /// A filter wants the route chosen again, by the request as it has become.
    pub(crate) fn reroute(&mut self) {
        self.reroutes = true;
    }

    /// Whether the route is to be chosen again: true once after filters have asked for it.
    pub fn takes_reroute(&mut self) -> bool {
        std::mem::take(&mut self.reroutes)
    }

    /// A shadow wants what it is not given.
    pub(crate) fn give_up(&mut self) {
        if let Some(side) = &mut self.shadow {
            side.given_up.get_or_insert(Comparison::Incomplete);
        }
    }

    /// Goes another way from here on, through the same filters.
    pub fn move_to(&mut self, place: Arc<Place>) {
        if let Some(facts) = &mut self.facts {
            facts.place = place;
        }
    }

    /// Its filters.
    #[must_use]
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The client has been told that protocols are switched. Silence in the tunnel for longer than `idle` ends it.
    pub fn open_tunnel(&mut self, idle: Duration) {
        self.stand = Stand::Tunnelling { idle };
    }

    /// It began earlier than it was opened: its request has waited since then.
    pub fn began(&mut self, at: Time) {
        self.started = at.min(self.started);
    }

    /// Counts body bytes that pass by without being fed through, and notes that something moved.
    pub fn passed(&mut self, direction: Direction, bytes: u64, now: Time) {
        self.last_progress = now;
        self.upload = Upload::ToUpstream;
        let flow = self.flow_mut(direction);
        flow.received += bytes;
        flow.sent += bytes;
    }

    /// The request's body, which passes by without being fed through, has ended.
    pub fn passed_all(&mut self, now: Time) {
        self.last_progress = now;
        if self.request.stage == Stage::Sent {
            self.request.stage = Stage::Done;
        }
    }

    /// There is nothing of the request to be sent: its client is waited for.
    pub fn waits_for_client(&mut self) {
        self.upload = Upload::FromClient;
    }

    /// Whether the whole request has been sent. Until then its connection to the upstream is not fit for another.
    #[must_use]
    pub fn request_is_sent(&self) -> bool {
        self.request.stage == Stage::Done
    }

    /// Body bytes received and sent in this direction.
    #[must_use]
    pub fn body_bytes(&self, direction: Direction) -> (u64, u64) {
        let flow = self.flow(direction);
        (flow.received, flow.sent)
    }

    /// Which deadline has passed, if one has.
    fn overdue(&self, now: Time, limits: &Limits) -> Option<Failure> {
        let waited = |since: Time| now.saturating_since(since);
        if let Stand::Tunnelling { idle } = self.stand {
            return (waited(self.last_progress) > idle).then_some(Failure::Idle);
        }
        if self.paused_since.is_some_and(|since| waited(since) > limits.filter_pause) {
            return Some(Failure::FilterTimeout);
        }
        let usual = Times::with_response(limits.exchange_idle);
        let times = self.facts().map_or(usual, |facts| facts.place.times);
        if waited(self.started) > times.request {
            return Some(Failure::RequestTimeout);
        }
        let patience = self.facts().map(|facts| facts.patience);
        let is_in = self.request.headers_end || self.request.stage == Stage::Done;
        if !is_in && patience.and_then(|patience| patience.request).is_some_and(|limit| waited(self.started) > limit) {
            return Some(Failure::ClientSlow);
        }
        if self.stand == Stand::Requesting && self.is_upstreams_turn() && waited(self.last_progress) > times.response {
            return Some(Failure::UpstreamTimeout);
        }
        let idle = patience.map_or(times.idle, |patience| times.idle.min(patience.stream_idle));
        (waited(self.last_progress) > idle).then_some(Failure::Idle)
    }

    /// Whether all there is of the request has been handed on. The upstream's time runs from the last that it was sent: neither
    /// a filter's callout nor a client's slow upload eats into it, but an upstream that reads no more does.
    fn is_upstreams_turn(&self) -> bool {
        match self.request.stage {
            Stage::Done => true,
            Stage::Sent => self.upload == Upload::ToUpstream && self.paused_since.is_none(),
            Stage::Waiting | Stage::HeadAt(_) | Stage::HeadParked | Stage::Closed => false,
        }
    }

    /// The callback of this direction that the filter is in, if it is in one.
    pub(crate) fn running(&self, filter: FilterIndex, direction: Direction) -> Option<Callback> {
        let (index, callback) = self.calling?;
        let of = match callback {
            Callback::Headers(of, ..) | Callback::Body(of, ..) | Callback::Trailers(of, _) | Callback::Data(of, ..) => {
                of
            }
            Callback::NewConnection => Direction::Request,
            Callback::Closed(..) | Callback::Log | Callback::Done | Callback::Delete => return None,
        };
        (index == filter && of == direction).then_some(callback)
    }

    /// Every rule this type lives by; checked after each event in debug builds and by the random driver.
    #[cfg(debug_assertions)]
    pub(crate) fn check(&self) {
        use crate::flow::Gate;
        for flow in [&self.request, &self.response] {
            assert_eq!(flow.stations.len(), self.chain.len());
            for station in &flow.stations {
                assert!(station.gate != Gate::Open || station.held() == 0, "an open station holds bytes");
                assert!(station.gate != Gate::Open || !station.trailers, "an open station holds trailers");
                assert!(!station.resume, "a resume was left undone");
            }
            let aborts = flow.out.iter().filter(|effect| matches!(effect, Effect::Abort(_))).count();
            assert!(aborts <= 1, "a stream can break off only once");
        }
        assert!(self.asked.is_none(), "something asked for was left undone");
        assert!(self.calling.is_none(), "a callback that has returned is still running");
        assert!(self.entered <= self.chain.len());
    }
}
