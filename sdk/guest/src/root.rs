//! The root context: configuring, ticking, and what runs beside the exchanges.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as PollContext, Poll, Waker};

use proxy_wasm::traits::{HttpContext, RootContext};
use proxy_wasm::types::ContextType;

use crate::exchange::{Exchange, ExchangeContext};
use crate::executor::{self, Entered, Task, TaskId};
use crate::filter::{Bodies, Filter};
use crate::host::Host;
use crate::timer::Timers;
use crate::{config, guard};

/// What a filter's root and its exchanges share, whatever the filter.
pub(crate) struct Root {
    pub(crate) id: u32,
    pub(crate) timers: Timers,
    pub(crate) bodies: Bodies,
    /// Whether the host tells of ends.
    pub(crate) logs: bool,
    /// Whether heads are held while bodies are read.
    pub(crate) holds_heads: Cell<bool>,
    pub(crate) adds_bodies: Cell<bool>,
}

/// The filter of a root, once it has started.
pub(crate) struct Started<F> {
    state: RefCell<State<F>>,
}

enum State<F> {
    Starting(Vec<Waker>),
    Runs(Rc<F>),
    Failed,
}

impl<F> Started<F> {
    /// The filter, as soon as it has started; nothing if that has failed.
    pub(crate) async fn filter(&self) -> Option<Rc<F>> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&self, cx: &mut PollContext<'_>) -> Poll<Option<Rc<F>>> {
        match &mut *self.state.borrow_mut() {
            State::Runs(filter) => Poll::Ready(Some(Rc::clone(filter))),
            State::Failed => Poll::Ready(None),
            State::Starting(waiting) => {
                waiting.push(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn settle(&self, state: State<F>) {
        if let State::Starting(waiting) = self.state.replace(state) {
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

/// What contexts of both kinds are told of the calls they have made.
macro_rules! told {
    ($context:ident) => {
        impl<F: $crate::Filter> ::proxy_wasm::traits::Context for $context<F> {
            fn on_http_call_response(&mut self, token: u32, headers: usize, body: usize, _: usize) {
                self.told(|| $crate::callout::deliver(token, headers, body));
            }

            fn on_grpc_call_response(&mut self, token: u32, status: u32, size: usize) {
                self.told(|| $crate::grpc::deliver(token, status, size));
            }

            fn on_grpc_stream_initial_metadata(&mut self, token: u32, _: u32) {
                self.told(|| $crate::grpc::began(token));
            }

            fn on_grpc_stream_message(&mut self, token: u32, size: usize) {
                self.told(|| $crate::grpc::message(token, size));
            }

            fn on_grpc_stream_trailing_metadata(&mut self, token: u32, _: u32) {
                self.told(|| $crate::grpc::trailers(token));
            }

            fn on_grpc_stream_close(&mut self, token: u32, status: u32) {
                self.told(|| $crate::grpc::closed(token, status));
            }
        }
    };
}

pub(crate) use told;

/// A filter's root context.
pub(crate) struct Plugin<F> {
    root: Rc<Root>,
    started: Rc<Started<F>>,
}

impl<F: Filter> Plugin<F> {
    pub(crate) fn new(id: u32) -> Self {
        let timers = Timers::default();
        let root = Root {
            id,
            timers,
            bodies: F::BODIES,
            logs: F::LOGS,
            holds_heads: Cell::new(false),
            adds_bodies: Cell::new(false),
        };
        let started = Started { state: RefCell::new(State::Starting(Vec::new())) };
        Self { root: Rc::new(root), started: Rc::new(started) }
    }

    /// Reads the settings and starts the filter; whether it can be used, as far as that is known already.
    fn configure(&self) -> bool {
        let settings: F::Config = match config::load(&config::bytes()) {
            Ok(settings) => settings,
            Err(why) => {
                log::error!("the configuration is refused: {why}");
                return false;
            }
        };
        let abilities = config::abilities();
        self.root.holds_heads.set(F::HOLDS_HEADERS && abilities.holds_headers);
        self.root.adds_bodies.set(F::HOLDS_HEADERS && abilities.adds_bodies);
        let (host, started) = (Host::new(Rc::clone(&self.root)), Rc::clone(&self.started));
        let start = async move {
            match F::start(settings, &host).await {
                Ok(filter) => started.settle(State::Runs(Rc::new(filter))),
                Err(why) => {
                    log::error!("the filter does not start: {why}");
                    started.settle(State::Failed);
                }
            }
        };
        Rc::new(Background::new(Rc::clone(&self.root), start)).run();
        !matches!(*self.started.state.borrow(), State::Failed)
    }
}

impl<F: Filter> Plugin<F> {
    fn told(&self, of: impl FnOnce()) {
        guard((), || executor::enter(Entered::Root(self.root.id), of));
    }
}

told!(Plugin);

impl<F: Filter> RootContext for Plugin<F> {
    fn on_configure(&mut self, _: usize) -> bool {
        guard(false, || executor::enter(Entered::Configuring(self.root.id), || self.configure()))
    }

    fn on_tick(&mut self) {
        guard((), || executor::enter(Entered::Root(self.root.id), || self.root.timers.fire()));
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        let exchange = Exchange::new(id, Rc::clone(&self.root));
        Some(Box::new(ExchangeContext { exchange, started: Rc::clone(&self.started) }))
    }
}

/// A future that belongs to no exchange.
pub(crate) struct Background {
    id: TaskId,
    root: Rc<Root>,
    future: RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>>,
}

impl Background {
    pub(crate) fn new(root: Rc<Root>, future: impl Future<Output = ()> + 'static) -> Self {
        Self { id: executor::background_id(), root, future: RefCell::new(Some(Box::pin(future))) }
    }
}

impl Task for Background {
    fn id(&self) -> TaskId {
        self.id
    }

    fn context(&self) -> u32 {
        self.root.id
    }

    fn root(&self) -> &Rc<Root> {
        &self.root
    }

    fn run(self: Rc<Self>) {
        let Some(mut future) = self.future.take() else { return };
        match executor::poll(self.clone(), future.as_mut()) {
            Poll::Ready(()) => executor::forget(self.id),
            Poll::Pending => {
                self.future.replace(Some(future));
                executor::keep(self);
            }
        }
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root").field("id", &self.id).finish_non_exhaustive()
    }
}
