//! A module on a stage: the real one in the real core, with upstreams that are written down.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use portcullis_core::context::{CalloutResponse, ContextRef, Owner};
use portcullis_core::exchange::Exchanges;
use portcullis_core::filter::{
    Callback, Chain, ChainFilter, Failed, Filters, HeadersPause, NotOpened, OnFailure, VmIndex,
};
use portcullis_core::grpc::News;
use portcullis_core::rollout::Version;
use portcullis_core::time::Time;
use portcullis_module::HOLDS_HEADERS_HERE;
use portcullis_simulation::{Guests, Line, Origin, Reply, Simulation, Stub, numbered};
use portcullis_vm::{Engine, Isolation, Module, RootSpec, Shared, StartError, VmSpec, Vms};

use super::cases::{Case, Suite};
use crate::clock;
use crate::config::defaults::PLUGIN_MEMORY;

/// What cases are tried on: a module, ready to be started.
pub(super) struct Stage {
    engine: Arc<Engine>,
    pub(super) module: Arc<Module>,
    holds: bool,
}

impl Stage {
    /// Compiles a module; `holds` says whether heads are held while its filter reads bodies.
    pub(super) fn new(engine: Arc<Engine>, name: &str, wasm: &[u8], holds: bool) -> anyhow::Result<Self> {
        let module = engine.load(name, wasm).with_context(|| name.to_owned())?;
        Ok(Self { engine, module, holds })
    }

    /// A gateway for a case, with the module started in a VM of its own. `wrap` may put something around it.
    pub(super) fn set<G: Guests>(
        &self,
        suite: &Suite,
        case: &Case,
        wrap: impl FnOnce(Modules) -> G,
    ) -> anyhow::Result<Simulation<G>> {
        let mut answers = suite.upstreams.clone();
        answers.extend(case.upstreams.clone());
        let upstreams: Vec<(String, Stub)> =
            answers.into_iter().map(|(name, answer)| (name, Box::new(move |_: &_| answer.reply()) as Stub)).collect();
        let origin = case.origin.clone();
        let origin: Stub = Box::new(move |_: &_| origin.as_ref().map_or_else(|| Reply::ok("ok"), |o| o.reply()));
        let mut exchanges = exchanges();
        let modules = self.start(suite, case, &mut exchanges)?;
        let chain = Chain::new(vec![self.filter()]);
        Ok(Simulation::new(exchanges, wrap(modules), chain, (origin, Origin::AnswersAtEnd), upstreams))
    }

    /// A VM of the module's, configured as a case says.
    pub(super) fn start(&self, suite: &Suite, case: &Case, exchanges: &mut Exchanges) -> Result<Modules, StartError> {
        let mut vms = Vms::new(self.engine.clone(), [self.spec(suite, case)].into(), Arc::new(Shared::default()));
        vms.warm_up(exchanges)?;
        Ok(Modules(vms))
    }

    fn spec(&self, suite: &Suite, case: &Case) -> VmSpec {
        // In the order of the stubs that `set` makes.
        let names: BTreeSet<&String> = suite.upstreams.keys().chain(case.upstreams.keys()).collect();
        let names: Vec<String> = names.into_iter().cloned().collect();
        let config = case.config.as_ref().unwrap_or(&suite.config);
        let config = if config.is_null() { Bytes::new() } else { config.to_string().into() };
        VmSpec {
            tenant: None,
            vm_id: Arc::default(),
            name: "plugin".into(),
            version: Version::Current,
            module: self.module.clone(),
            memory: PLUGIN_MEMORY,
            cpu: Duration::from_secs(1),
            isolation: Isolation::Vm,
            idle: None,
            configuration: Bytes::from_static(if self.holds { HOLDS_HEADERS_HERE } else { b"" }),
            roots: vec![RootSpec { name: "plugin".into(), configuration: config }],
            account: None,
            upstreams: numbered(&names),
        }
    }

    fn filter(&self) -> ChainFilter {
        ChainFilter {
            name: "plugin".into(),
            vm: VmIndex(0),
            root: 0,
            exports: self.module.exports(),
            on_failure: OnFailure::Closed,
            headers_pause: if self.holds { HeadersPause::HoldsHeaders } else { HeadersPause::StopsAll },
        }
    }
}

/// No exchanges, at the present time.
pub(super) fn exchanges() -> Exchanges {
    let mut exchanges = Exchanges::default();
    exchanges.now = clock::now();
    exchanges
}

/// Does something, and keeps what is logged meanwhile for [`Modules`] to tell.
pub(super) fn hear<R>(act: impl FnOnce() -> R) -> R {
    let _before = LINES.take();
    tracing::subscriber::with_default(Ears, act)
}

/// Modules in VMs, whose clock is the real one.
pub(super) struct Modules(pub(super) Vms);

impl Filters for Modules {
    fn open(&mut self, exchanges: &mut Exchanges, filter: &ChainFilter, owner: Owner) -> Result<ContextRef, NotOpened> {
        self.0.open(exchanges, filter, owner)
    }

    fn call(&mut self, exchanges: &mut Exchanges, context: ContextRef, callback: Callback) -> Result<u32, Failed> {
        self.0.call(exchanges, context, callback)
    }

    fn close(&mut self, exchanges: &mut Exchanges, context: ContextRef) {
        self.0.close(exchanges, context);
    }
}

impl Guests for Modules {
    fn next_tick(&self) -> Option<Time> {
        self.0.next_tick()
    }

    fn tick(&mut self, exchanges: &mut Exchanges) {
        self.0.tick(exchanges);
    }

    fn deliver(&mut self, exchanges: &mut Exchanges, root: ContextRef, token: u32, response: CalloutResponse) {
        self.0.deliver(exchanges, root, token, response);
    }

    fn hear(&mut self, exchanges: &mut Exchanges, root: ContextRef, token: u32, news: News) {
        self.0.hear(exchanges, root, token, news);
    }

    fn read_letter(&mut self, exchanges: &mut Exchanges) -> bool {
        let is_there = self.0.inbox().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        if is_there {
            self.0.read_letter(exchanges);
        }
        is_there
    }

    fn take_log(&mut self) -> Vec<Line> {
        LINES.take()
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "no worker runs here: guests read the real clock, so time has to pass"
    )]
    fn wait(&mut self, now: Time, until: Time) {
        std::thread::sleep(until.saturating_since(now));
    }
}

thread_local! {
    static LINES: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// Hears what guests say, and what the gateway says of them.
struct Ears;

#[derive(Default)]
struct Heard(String);

impl tracing::field::Visit for Heard {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

impl tracing::Subscriber for Ears {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("portcullis")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut heard = Heard::default();
        event.record(&mut heard);
        let filter = if event.metadata().target() == "portcullis::guest" { "plugin" } else { "gateway" };
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => "error",
            tracing::Level::WARN => "warn",
            tracing::Level::INFO => "info",
            tracing::Level::DEBUG => "debug",
            tracing::Level::TRACE => "trace",
        };
        LINES.with_borrow_mut(|lines| lines.push(Line { filter: filter.to_owned(), level, text: heard.0 }));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
