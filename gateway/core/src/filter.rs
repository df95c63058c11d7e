//! What the chain asks of a guest: callbacks, and the one trait that answers them.
//!
//! `gateway/vm` implements [`Filters`] with wasm instances, the tests with fakes. A guest's failure is one value, [`Failed`];
//! what then happens to the exchange is the chain's business.

use std::sync::Arc;

use crate::context::{ContextRef, Owner};
use crate::event::{Direction, End};
use crate::exchange::Exchanges;
use crate::rollout::{Rollout, Version};
use crate::time::Time;
use crate::timing::{Outcome, Phase};

/// A VM among the worker's: which module for which tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VmIndex(pub u32);

/// A filter's place in its chain; 0 is nearest the client.
pub type FilterIndex = usize;

/// What happens to an exchange whose filter fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// It ends with 503.
    #[default]
    Closed,
    /// It goes on without the filter.
    Open,
}

/// How Envoy's "stop iteration" from a headers callback is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeadersPause {
    /// The whole stream stops until it is resumed; the default, as on Envoy.
    #[default]
    StopsAll,
    /// Only the headers are held; body callbacks go on (`allow_on_headers_stop_iteration`).
    HoldsHeaders,
}

/// What the connections that a chain stands between carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speaks {
    /// Requests and responses.
    #[default]
    Http,
    /// Bytes, of which nothing is known: what comes from the client is the request's body, what the upstream says the response's.
    Tcp,
}

/// Who closed a connection, as the ABI numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// It is not known.
    Unknown = 0,
    /// The gateway.
    Local = 1,
    /// The other end.
    Remote = 2,
}

/// One call into a guest, with its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callback {
    /// `proxy_on_request_headers` or `proxy_on_response_headers`: how many pairs, and whether nothing follows.
    Headers(Direction, u32, End),
    /// `proxy_on_request_body` or `proxy_on_response_body`: how many bytes the buffer shows.
    Body(Direction, u32, End),
    /// `proxy_on_request_trailers` or `proxy_on_response_trailers`.
    Trailers(Direction, u32),
    /// `proxy_on_new_connection`.
    NewConnection,
    /// `proxy_on_downstream_data` or `proxy_on_upstream_data`: how many bytes the buffer shows.
    Data(Direction, u32, End),
    /// `proxy_on_downstream_connection_close` or `proxy_on_upstream_connection_close`.
    Closed(Direction, Peer),
    /// `proxy_on_log`.
    Log,
    /// `proxy_on_done`.
    Done,
    /// `proxy_on_delete`.
    Delete,
}

impl Callback {
    /// The export that answers it.
    #[must_use]
    pub fn export(self) -> Export {
        match self {
            Self::Headers(Direction::Request, ..) => Export::RequestHeaders,
            Self::Headers(Direction::Response, ..) => Export::ResponseHeaders,
            Self::Body(direction, ..) => Export::body(direction),
            Self::Trailers(direction, _) => Export::trailers(direction),
            Self::NewConnection => Export::NewConnection,
            Self::Data(direction, ..) => Export::data(direction),
            Self::Closed(Direction::Request, _) => Export::DownstreamClose,
            Self::Closed(Direction::Response, _) => Export::UpstreamClose,
            Self::Log => Export::Log,
            Self::Done => Export::Done,
            Self::Delete => Export::Delete,
        }
    }
}

/// A callback a module may export and the chain may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Export {
    /// `proxy_on_request_headers`.
    RequestHeaders = 1,
    /// `proxy_on_request_body`.
    RequestBody = 1 << 1,
    /// `proxy_on_request_trailers`.
    RequestTrailers = 1 << 2,
    /// `proxy_on_response_headers`.
    ResponseHeaders = 1 << 3,
    /// `proxy_on_response_body`.
    ResponseBody = 1 << 4,
    /// `proxy_on_response_trailers`.
    ResponseTrailers = 1 << 5,
    /// `proxy_on_log`.
    Log = 1 << 6,
    /// `proxy_on_done`.
    Done = 1 << 7,
    /// `proxy_on_delete`.
    Delete = 1 << 8,
    /// `proxy_on_new_connection`.
    NewConnection = 1 << 9,
    /// `proxy_on_downstream_data`.
    DownstreamData = 1 << 10,
    /// `proxy_on_upstream_data`.
    UpstreamData = 1 << 11,
    /// `proxy_on_downstream_connection_close`.
    DownstreamClose = 1 << 12,
    /// `proxy_on_upstream_connection_close`.
    UpstreamClose = 1 << 13,
}

impl Export {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::RequestHeaders,
        Self::RequestBody,
        Self::RequestTrailers,
        Self::ResponseHeaders,
        Self::ResponseBody,
        Self::ResponseTrailers,
        Self::Log,
        Self::Done,
        Self::Delete,
        Self::NewConnection,
        Self::DownstreamData,
        Self::UpstreamData,
        Self::DownstreamClose,
        Self::UpstreamClose,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RequestHeaders => "proxy_on_request_headers",
            Self::RequestBody => "proxy_on_request_body",
            Self::RequestTrailers => "proxy_on_request_trailers",
            Self::ResponseHeaders => "proxy_on_response_headers",
            Self::ResponseBody => "proxy_on_response_body",
            Self::ResponseTrailers => "proxy_on_response_trailers",
            Self::Log => "proxy_on_log",
            Self::Done => "proxy_on_done",
            Self::Delete => "proxy_on_delete",
            Self::NewConnection => "proxy_on_new_connection",
            Self::DownstreamData => "proxy_on_downstream_data",
            Self::UpstreamData => "proxy_on_upstream_data",
            Self::DownstreamClose => "proxy_on_downstream_connection_close",
            Self::UpstreamClose => "proxy_on_upstream_connection_close",
        }
    }

    pub(crate) fn body(direction: Direction) -> Self {
        match direction {
            Direction::Request => Self::RequestBody,
            Direction::Response => Self::ResponseBody,
        }
    }

    pub(crate) fn trailers(direction: Direction) -> Self {
        match direction {
            Direction::Request => Self::RequestTrailers,
            Direction::Response => Self::ResponseTrailers,
        }
    }

    pub(crate) fn data(direction: Direction) -> Self {
        match direction {
            Direction::Request => Self::DownstreamData,
            Direction::Response => Self::UpstreamData,
        }
    }
}

/// What is called in the middle of an HTTP exchange or after it, when its heads have been sent on.
const AFTER_HEADS: u16 = Export::RequestBody as u16
    | Export::RequestTrailers as u16
    | Export::ResponseHeaders as u16
    | Export::ResponseBody as u16
    | Export::ResponseTrailers as u16
    | Export::Log as u16
    | Export::Done as u16
    | Export::Delete as u16;

/// The callbacks a module exports. One that is missing is never called and costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exports(u16);

impl Exports {
    /// These and `export`.
    #[must_use]
    pub fn with(self, export: Export) -> Self {
        Self(self.0 | export as u16)
    }

    /// Whether `export` is among them.
    #[must_use]
    pub fn has(self, export: Export) -> bool {
        self.0 & export as u16 != 0
    }

    /// Whether it looks at what follows the head in this direction; of a TCP connection, at what passes, or wants to know of the
    /// upstream's end.
    fn watches(self, speaks: Speaks, direction: Direction) -> bool {
        match (speaks, direction) {
            (Speaks::Http, _) => self.has(Export::body(direction)) || self.has(Export::trailers(direction)),
            (Speaks::Tcp, Direction::Request) => self.has(Export::DownstreamData),
            (Speaks::Tcp, Direction::Response) => self.has(Export::UpstreamData) || self.has(Export::UpstreamClose),
        }
    }

    /// Whether it may ask for a head after that head has been sent on. A TCP connection has none.
    fn looks_back(self, speaks: Speaks) -> bool {
        speaks == Speaks::Http && self.0 & AFTER_HEADS != 0
    }
}

/// One filter of a chain.
#[derive(Clone, Debug)]
pub struct ChainFilter {
    /// Its plugin's name, for logs and metrics.
    pub name: Arc<str>,
    /// The VM it runs in.
    pub vm: VmIndex,
    /// Which of the VM's root contexts carries its configuration.
    pub root: usize,
    /// What its module exports.
    pub exports: Exports,
    /// What to do when it fails.
    pub on_failure: OnFailure,
    /// What a pause in a headers callback means.
    pub headers_pause: HeadersPause,
}

/// The next version of a filter, which is being rolled out.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What stands in the filter's place in the exchanges that are given to it.
    pub filter: ChainFilter,
    /// The candidate alone, where it is shown copies of exchanges.
    pub shadow: Option<Arc<Chain>>,
    /// Which those are, and how it fares.
    pub rollout: Arc<Rollout>,
}

/// A route's ordered filters.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    filters: Box<[ChainFilter]>,
    /// Those that have a candidate. Most chains have none.
    candidates: Vec<(FilterIndex, Candidate)>,
    speaks: Speaks,
    looks_back: bool,
    watches: [bool; 2],
}

impl Chain {
    /// A chain of these filters, nearest the client first.
    #[must_use]
    pub fn new(filters: Vec<ChainFilter>) -> Self {
        Self::between(Speaks::Http, filters)
    }

    /// The same, for TCP connections.
    #[must_use]
    pub fn tcp(filters: Vec<ChainFilter>) -> Self {
        Self::between(Speaks::Tcp, filters)
    }

    fn between(speaks: Speaks, filters: Vec<ChainFilter>) -> Self {
        let mut chain = Self { speaks, ..Self::default() };
        filters.iter().for_each(|filter| chain.note(filter.exports));
        Self { filters: filters.into(), ..chain }
    }

    /// Lets the chain know what a filter with these callbacks looks at.
    fn note(&mut self, exports: Exports) {
        for (watched, direction) in self.watches.iter_mut().zip([Direction::Request, Direction::Response]) {
            *watched |= exports.watches(self.speaks, direction);
        }
        self.looks_back |= exports.looks_back(self.speaks);
    }

    /// The same with a candidate for the filter at `index`. What either version looks at is shown to the chain.
    #[must_use]
    pub fn with_candidate(mut self, index: FilterIndex, candidate: Candidate) -> Self {
        self.note(candidate.filter.exports);
        self.candidates.push((index, candidate));
        self
    }

    /// The candidate for the filter at `index`, if it has one.
    #[must_use]
    pub fn candidate(&self, index: FilterIndex) -> Option<&Candidate> {
        self.candidates.iter().find(|(of, _)| *of == index).map(|(_, candidate)| candidate)
    }

    /// This version of the filter at `index`.
    #[must_use]
    pub fn version(&self, index: FilterIndex, version: Version) -> Option<&ChainFilter> {
        match version {
            Version::Current => self.get(index),
            Version::Candidate | Version::Shadow => self.candidate(index).map(|candidate| &candidate.filter),
        }
    }

    /// What it stands between.
    #[must_use]
    pub fn speaks(&self) -> Speaks {
        self.speaks
    }

    /// How many filters there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.filters.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// The filter at `index`.
    #[must_use]
    pub fn get(&self, index: FilterIndex) -> Option<&ChainFilter> {
        self.filters.get(index)
    }

    /// Whether the same filters, configured alike, stand in the same order in both.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let what = |filter: &ChainFilter| (filter.vm, filter.root, filter.on_failure, filter.headers_pause);
        let candidate = |(index, candidate): &(FilterIndex, Candidate)| (*index, what(&candidate.filter));
        self.speaks == other.speaks
            && self.filters.iter().map(what).eq(other.filters.iter().map(what))
            && self.candidates.iter().map(candidate).eq(other.candidates.iter().map(candidate))
    }

    /// Whether some filter looks at what follows the head. If none does, the body never enters this crate.
    #[must_use]
    pub fn watches_body(&self, direction: Direction) -> bool {
        match (direction, self.watches) {
            (Direction::Request, [request, _]) => request,
            (Direction::Response, [_, response]) => response,
        }
    }

    /// Whether some filter may ask for a head after it has been sent on; if so, it is kept.
    #[must_use]
    pub fn looks_back(&self) -> bool {
        self.looks_back
    }
}

/// A guest that trapped, ran out of its budget, or could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

/// Why an exchange got no context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotOpened {
    /// The VM could not be started, or failed.
    Failed,
    /// There is no room for its VM now, or for one of its own where it was to have that.
    NoRoom,
}

impl From<Failed> for NotOpened {
    fn from(Failed: Failed) -> Self {
        Self::Failed
    }
}

/// The guests of one worker, as the chain sees them.
pub trait Filters {
    /// Creates a context for an exchange in the filter's VM, starting the VM if need be.
    ///
    /// # Errors
    /// When the VM cannot be started, or fails while it creates the context.
    fn open(&mut self, exchanges: &mut Exchanges, filter: &ChainFilter, owner: Owner) -> Result<ContextRef, NotOpened>;

    /// Calls a guest and returns what it answered; callbacks without a result answer 0.
    ///
    /// The exchanges are lent to the guest for the call: what it asks of any of them is recorded there, and acted on after it
    /// has returned.
    ///
    /// # Errors
    /// When the VM failed, now or since the context was created.
    fn call(&mut self, exchanges: &mut Exchanges, context: ContextRef, callback: Callback) -> Result<u32, Failed>;

    /// Takes note of what a call made of its part of an exchange.
    fn count(&mut self, _context: ContextRef, _phase: Phase, _outcome: Outcome) {}

    /// The time, for whoever wants to know how long a call takes. [`Exchanges`] know only when the event came in.
    fn now(&self) -> Option<Time> {
        None
    }

    /// Forgets a context, after its last callback.
    fn close(&mut self, exchanges: &mut Exchanges, context: ContextRef);
}
