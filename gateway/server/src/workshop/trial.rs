//! A module tried by cases: the real one, in the real core, with upstreams that are written down.

use std::cell::RefCell;
use std::fmt::Debug;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use bytes::Bytes;
use portcullis_core::context::{CalloutResponse, ContextRef, Owner};
use portcullis_core::exchange::Exchanges;
use portcullis_core::filter::{Callback, Chain, ChainFilter, Failed, Filters, HeadersPause, OnFailure, VmIndex};
use portcullis_core::time::Time;
use portcullis_module::Outline;
use portcullis_simulation::{Guests, Line, Origin, Outcome, Reply, Simulation, Stub, numbered};
use portcullis_vm::{Engine, EngineOptions, Module, RootSpec, Shared, VmSpec, Vms};

use super::cases::{self, Case, Suite};
use super::envoy::Envoy;

/// Where cases are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum On {
    /// In the gateway's own core
    Portcullis,
    /// In an Envoy of its own for each case
    Envoy,
    /// On one, then on the other
    Both,
}

/// Tries every case, and says how each went.
pub(crate) fn try_cases(
    file: &Path,
    cases: &Path,
    on: On,
    envoy: Option<PathBuf>,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let shown = file.display();
    let wasm =
        std::fs::read(file).with_context(|| format!("cannot read {shown}; `portcullis plugin build` makes it"))?;
    let suite = cases::read(cases)?;
    let holds = Outline::of(&wasm)?.manifest.is_some_and(|manifest| manifest.holds_headers);
    let mut failed = 0;
    if on != On::Envoy {
        let engine = Engine::new(EngineOptions { max_vms: 2, ..EngineOptions::default() })?;
        let module = engine.load(&shown.to_string(), &wasm).with_context(|| shown.to_string())?;
        let bench = Bench { engine, module, holds };
        failed += try_each(&suite, "Portcullis", |case| bench.outcome(&suite, case), out)?;
    }
    if on != On::Portcullis {
        let envoy = Envoy::with(envoy, file, holds)?;
        failed += try_each(&suite, "Envoy", |case| envoy.outcome(&suite, case), out)?;
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tries every case on one host; how many fail.
fn try_each(
    suite: &Suite,
    host: &str,
    outcome: impl Fn(&Case) -> anyhow::Result<Outcome>,
    out: &mut impl Write,
) -> anyhow::Result<usize> {
    let mut failed = 0;
    for case in &suite.cases {
        let wrong = match outcome(case) {
            Ok(outcome) => case.expect.differences(&outcome),
            Err(why) => vec![format!("+ {why:#}")],
        };
        writeln!(out, "{}  {}", if wrong.is_empty() { "ok  " } else { "FAIL" }, case.name)?;
        wrong.iter().flat_map(|lines| lines.lines()).try_for_each(|line| writeln!(out, "      {line}"))?;
        failed += usize::from(!wrong.is_empty());
    }
    writeln!(out, "{} passed, {failed} failed, on {host}", suite.cases.len() - failed)?;
    Ok(failed)
}

/// What a case is tried on.
struct Bench {
    engine: Arc<Engine>,
    module: Arc<Module>,
    holds: bool,
}

impl Bench {
    /// What becomes of a case's request, in a VM of its own.
    fn outcome(&self, suite: &Suite, case: &Case) -> anyhow::Result<Outcome> {
        let mut answers = suite.upstreams.clone();
        answers.extend(case.upstreams.clone());
        let upstreams: Vec<(String, Stub)> =
            answers.into_iter().map(|(name, answer)| (name, Box::new(move |_: &_| answer.reply()) as Stub)).collect();
        let names: Vec<String> = upstreams.iter().map(|(name, _)| name.clone()).collect();
        let config = case.config.as_ref().unwrap_or(&suite.config);
        let config = if config.is_null() { Bytes::new() } else { config.to_string().into() };
        let spec = VmSpec {
            tenant: None,
            name: "plugin".into(),
            module: self.module.clone(),
            memory: 64 << 20,
            cpu: Duration::from_secs(1),
            configuration: Bytes::from_static(if self.holds { b"{\"holds_headers\":true}" } else { b"" }),
            roots: vec![RootSpec { name: "plugin".into(), configuration: config }],
            upstreams: numbered(&names),
        };
        let filter = ChainFilter {
            name: "plugin".into(),
            vm: VmIndex(0),
            root: 0,
            exports: self.module.exports(),
            on_failure: OnFailure::Closed,
            headers_pause: if self.holds { HeadersPause::HoldsHeaders } else { HeadersPause::StopsAll },
        };
        let origin = case.origin.clone();
        let origin: Stub = Box::new(move |_: &_| origin.as_ref().map_or_else(|| Reply::ok("ok"), |o| o.reply()));
        tracing::subscriber::with_default(Ears, || {
            let mut exchanges = Exchanges::default();
            exchanges.now = now();
            let mut vms = Vms::new(self.engine.clone(), [spec].into(), Arc::new(Shared::default()));
            let _before = LINES.take();
            vms.warm_up(&mut exchanges)?;
            let chain = Chain::new(vec![filter]);
            let mut gateway =
                Simulation::new(exchanges, Modules(vms), chain, (origin, Origin::AnswersAtEnd), upstreams);
            Ok(gateway.send(&[case.request.request()]).pop().unwrap_or_default())
        })
    }
}

fn now() -> Time {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_nanos(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
}

/// Modules in VMs, whose clock is the real one.
struct Modules(Vms);

impl Filters for Modules {
    fn open(&mut self, exchanges: &mut Exchanges, filter: &ChainFilter, owner: Owner) -> Result<ContextRef, Failed> {
        self.0.open(exchanges, filter, owner)
    }

    fn call(&mut self, exchanges: &mut Exchanges, context: ContextRef, callback: Callback) -> Result<u32, Failed> {
        self.0.call(exchanges, context, callback)
    }

    fn close(&mut self, context: ContextRef) {
        self.0.close(context);
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
