//! One exchange: the host's callbacks turned into one future, and its progress turned into "continue" and "pause".
//!
//! | the future … | the request | the response |
//! | --- | --- | --- |
//! | waits for a callout, a timer, a task | is held | is held |
//! | collects a body | its head goes on, its body is held | the same |
//! | collects a body, heads being held | head and body are held | the same |
//! | has called `next.run` | goes on | is awaited |
//! | has returned the response | | goes on |
//! | has returned a response of its own | is answered with that | is replaced by that |
//!
//! **Invariant:** a side is continued only after the host was told to pause it, and only once: a host may crash on less.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as PollContext, Poll, Waker};

use portcullis_abi::{BufferType, MapType, StreamType};
use proxy_wasm::traits::HttpContext;
use proxy_wasm::types::Action;

use crate::body::{self, Map};
use crate::ended::{Ended, OnLog};
use crate::executor::{self, Entered, Task, TaskId};
use crate::filter::Filter;
use crate::headers::TrailersMut;
use crate::message::Next;
use crate::request::Request;
use crate::response::Response;
use crate::root::{Root, Started, told};
use crate::{guard, sys};

/// Which way a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Request,
    Response,
}

impl Way {
    pub(crate) fn map(self) -> MapType {
        match self {
            Self::Request => MapType::HttpRequestHeaders,
            Self::Response => MapType::HttpResponseHeaders,
        }
    }

    pub(crate) fn trailers(self) -> MapType {
        match self {
            Self::Request => MapType::HttpRequestTrailers,
            Self::Response => MapType::HttpResponseTrailers,
        }
    }

    pub(crate) fn buffer(self) -> BufferType {
        match self {
            Self::Request => BufferType::HttpRequestBody,
            Self::Response => BufferType::HttpResponseBody,
        }
    }

    fn stream(self) -> StreamType {
        match self {
            Self::Request => StreamType::HttpRequest,
            Self::Response => StreamType::HttpResponse,
        }
    }

    /// For messages to people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
        }
    }
}

/// Where a head is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Head {
    #[default]
    NotYet,
    /// It can be read and changed.
    Here,
    /// It has been sent on.
    Gone,
}

/// What the filter wants of a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Wish {
    /// To let it pass.
    #[default]
    Pass,
    /// To have it whole, up to this many bytes.
    Collect { limit: usize },
}

/// How far a body has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Bytes that the host holds for us and shows us.
    pub(crate) size: usize,
    /// Whether they are at hand now.
    pub(crate) shown: bool,
    /// Whether nothing follows.
    pub(crate) ended: bool,
    /// Whether the trailers are here.
    pub(crate) trailers: bool,
}

/// Whether a head may announce how long its body is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Length {
    /// The body will be as it came.
    #[default]
    Stays,
    /// The filter may change the body.
    MayChange,
}

type OnTrailers = Box<dyn FnOnce(&mut TrailersMut)>;

/// One direction.
#[derive(Default)]
pub(crate) struct Side {
    pub(crate) head: Cell<Head>,
    pub(crate) wish: Cell<Wish>,
    pub(crate) seen: Cell<Seen>,
    pub(crate) length: Cell<Length>,
    pub(crate) map: RefCell<Option<Map>>,
    pub(crate) on_trailers: RefCell<Option<OnTrailers>>,
    paused: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Side {
    /// Lets a future of the running task wait for this side. The task itself needs no waker: it is polled anyway.
    pub(crate) fn wait(&self, cx: &PollContext<'_>) {
        if !executor::is_own(cx.waker()) {
            self.waker.set(Some(cx.waker().clone()));
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// How far the filter has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It has the request.
    HasRequest,
    /// It has let the request go.
    HasRun,
    /// It has let the response go, or was called off.
    Done,
    /// It has answered itself.
    Replied,
}

/// One exchange of a filter.
pub(crate) struct Exchange {
    pub(crate) id: u32,
    pub(crate) root: Rc<Root>,
    pub(crate) request: Side,
    pub(crate) response: Side,
    pub(crate) progress: Cell<Progress>,
    pub(crate) on_log: RefCell<Option<OnLog>>,
    future: RefCell<Option<Pin<Box<dyn Future<Output = Response>>>>>,
}

impl Exchange {
    pub(crate) fn new(id: u32, root: Rc<Root>) -> Rc<Self> {
        Rc::new(Self {
            id,
            root,
            request: Side::default(),
            response: Side::default(),
            progress: Cell::new(Progress::HasRequest),
            on_log: RefCell::new(None),
            future: RefCell::new(None),
        })
    }

    pub(crate) fn side(&self, way: Way) -> &Side {
        match way {
            Way::Request => &self.request,
            Way::Response => &self.response,
        }
    }

    /// The upstream answers while the filter still reads the request's body.
    pub(crate) fn is_answered_early(&self) -> bool {
        self.progress.get() == Progress::HasRequest && self.response.head.get() == Head::Here
    }

    fn poll(self: &Rc<Self>) {
        let Some(mut future) = self.future.take() else { return };
        match executor::poll(self.clone(), future.as_mut()) {
            Poll::Pending => _ = self.future.replace(Some(future)),
            Poll::Ready(response) => {
                drop(future);
                self.finish(response);
            }
        }
    }

    fn finish(self: &Rc<Self>, response: Response) {
        match response.into_local() {
            None => self.progress.set(Progress::Done),
            Some(local) => {
                self.progress.set(Progress::Replied);
                local.send();
            }
        }
    }

    /// Whether a side's message may go on as far as it is here.
    fn flows(&self, way: Way) -> bool {
        let side = self.side(way);
        let done = match (way, self.progress.get()) {
            (_, Progress::Replied) => false,
            (Way::Request, progress) => progress != Progress::HasRequest,
            (Way::Response, progress) => progress == Progress::Done,
        };
        let reads = matches!(side.wish.get(), Wish::Collect { .. }) && !self.root.holds_heads.get();
        done || (side.head.get() == Head::Here && reads)
    }

    /// What a callback of this direction answers.
    fn answer(&self, way: Way) -> Action {
        if self.progress.get() == Progress::Replied {
            // A reply made while the response was away is seen by its own filter, and has to pass.
            let is_reply = way == Way::Response && self.response.head.get() == Head::NotYet;
            return if is_reply { Action::Continue } else { Action::Pause };
        }
        let flows = self.flows(way);
        self.side(way).paused.set(!flows);
        if !flows {
            return Action::Pause;
        }
        self.let_go(way);
        Action::Continue
    }

    /// Makes what is here ready to go on.
    fn let_go(&self, way: Way) {
        let side = self.side(way);
        let seen = side.seen.get();
        let collects = matches!(side.wish.get(), Wish::Collect { .. });
        if side.head.get() == Head::Here {
            side.head.set(Head::Gone);
            if side.length.get() == Length::MayChange {
                let _absent = sys::remove_header(way.map(), "content-length");
            }
        }
        if seen.shown && !collects {
            body::apply_map(side, way);
        }
        if seen.trailers
            && let Some(change) = side.on_trailers.take()
        {
            change(&mut TrailersMut::new(way.trailers()));
        }
        side.seen.set(Seen { size: 0, shown: false, ..side.seen.get() });
    }

    /// Continues whatever was paused and need not be any more, except the direction whose callback will say so itself.
    fn settle(&self, in_callback: Option<Way>) {
        for way in [Way::Request, Way::Response] {
            let side = self.side(way);
            if in_callback != Some(way) && side.paused.get() && self.flows(way) {
                side.paused.set(false);
                self.let_go(way);
                sys::continue_stream(way.stream());
            }
        }
    }

    /// Polls in a callback of this direction, and says what that callback answers.
    fn step(self: &Rc<Self>, way: Way) -> Action {
        self.side(way).wake();
        self.poll();
        self.settle(Some(way));
        self.answer(way)
    }

    fn on_response_head(self: &Rc<Self>, end: bool) -> Action {
        self.response.seen.set(Seen { ended: end, ..Seen::default() });
        match self.progress.get() {
            // Its own reply, which is as it should be.
            Progress::Replied => return Action::Continue,
            Progress::HasRequest if self.request.head.get() != Head::Gone => {
                // Nothing of the request has gone on, so this is a reply of the gateway's own: the filter took too long, or
                // another one has answered.
                self.call_off();
                return Action::Continue;
            }
            Progress::HasRequest | Progress::HasRun | Progress::Done => {}
        }
        self.response.head.set(Head::Here);
        self.request.wake();
        self.step(Way::Response)
    }

    fn on_body(self: &Rc<Self>, way: Way, size: usize, end: bool) -> Action {
        let side = self.side(way);
        let seen = Seen { size, shown: true, ended: end, ..side.seen.get() };
        side.seen.set(seen);
        match side.wish.get() {
            Wish::Collect { limit } if end || size > limit => self.step(way),
            Wish::Collect { .. } | Wish::Pass => self.answer(way),
        }
    }

    fn on_trailers(self: &Rc<Self>, way: Way) -> Action {
        let side = self.side(way);
        side.seen.set(Seen { ended: true, trailers: true, ..side.seen.get() });
        match side.wish.get() {
            Wish::Collect { .. } => self.step(way),
            Wish::Pass => self.answer(way),
        }
    }

    /// Drops the filter's future; what it held goes on.
    fn call_off(&self) {
        self.progress.set(Progress::Done);
        let future = self.future.take();
        drop(future);
        executor::forget(self.id);
    }
}

impl Task for Exchange {
    fn id(&self) -> TaskId {
        self.id
    }

    fn context(&self) -> u32 {
        self.id
    }

    fn root(&self) -> &Rc<Root> {
        &self.root
    }

    fn run(self: Rc<Self>) {
        self.poll();
        self.settle(None);
    }
}

/// What the dispatcher knows of an exchange.
pub(crate) struct ExchangeContext<F> {
    pub(crate) exchange: Rc<Exchange>,
    pub(crate) started: Rc<Started<F>>,
}

impl<F: Filter> ExchangeContext<F> {
    fn enter(&self, callback: impl FnOnce(&Rc<Exchange>) -> Action) -> Action {
        guard(Action::Pause, || executor::enter(Entered::Exchange(self.exchange.id), || callback(&self.exchange)))
    }

    fn told(&self, of: impl FnOnce()) {
        guard((), || executor::enter(Entered::Exchange(self.exchange.id), of));
    }

    /// The filter's future: the exchange's only allocation that grows with the filter.
    fn begin(&self) {
        let (request, next) = (Request::new(Rc::clone(&self.exchange)), Next::new(Rc::clone(&self.exchange)));
        let started = Rc::clone(&self.started);
        self.exchange.future.replace(Some(Box::pin(async move {
            match started.filter().await {
                Some(filter) => filter.handle(request, next).await,
                None => Response::problem(503, "filter_not_started").title("A policy of this route is not available"),
            }
        })));
    }
}

told!(ExchangeContext);

impl<F: Filter> HttpContext for ExchangeContext<F> {
    fn on_http_request_headers(&mut self, _: usize, end: bool) -> Action {
        self.enter(|exchange| {
            exchange.request.head.set(Head::Here);
            exchange.request.seen.set(Seen { ended: end, ..Seen::default() });
            self.begin();
            exchange.step(Way::Request)
        })
    }

    fn on_http_request_body(&mut self, size: usize, end: bool) -> Action {
        self.enter(|exchange| exchange.on_body(Way::Request, size, end))
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.enter(|exchange| exchange.on_trailers(Way::Request))
    }

    fn on_http_response_headers(&mut self, _: usize, end: bool) -> Action {
        self.enter(|exchange| exchange.on_response_head(end))
    }

    fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        self.enter(|exchange| exchange.on_body(Way::Response, size, end))
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        self.enter(|exchange| exchange.on_trailers(Way::Response))
    }

    fn on_log(&mut self) {
        self.told(|| {
            if let Some(record) = self.exchange.on_log.take() {
                record(&Ended::new());
            }
        });
    }
}

impl<F> Drop for ExchangeContext<F> {
    /// The future holds the exchange that holds it: this is where that ends, and with it the exchange's callouts.
    fn drop(&mut self) {
        self.exchange.call_off();
    }
}
