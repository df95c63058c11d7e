//! What the tests stand on: guests in text format, VMs over a fixed clock, and everything that was logged.
//!
//! In a guest's text `'abc'` stands for the address and the length of that string in its memory. `$text`, `$n` and `$end`
//! build a line of text and numbers and log it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::{Debug, Write as _};
use std::fs;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use portcullis_core::chain;
use portcullis_core::context::UpstreamId;
use portcullis_core::downstream::Patience;
use portcullis_core::event::{Direction, Effect, End, Event, Part};
use portcullis_core::exchange::{ExchangeId, Exchanges, Facts, Place, Times};
use portcullis_core::filter::{Chain, ChainFilter, HeadersPause, OnFailure, VmIndex};
use portcullis_core::headers::{Headers, Scheme};
use portcullis_core::retry::Policy;
use portcullis_core::rollout::Version;
use portcullis_core::time::Time;
use portcullis_vm::{Engine, EngineOptions, Isolation, LoadError, RootSpec, Shared, VmSpec, Vms};

use crate::abi;

/// The engine of all tests in this process.
pub(crate) fn engine() -> Arc<Engine> {
    static ENGINE: OnceLock<Arc<Engine>> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::new(EngineOptions { max_vms: 64, ..EngineOptions::default() }).unwrap()).clone()
}

/// A whole guest in text format around the given functions.
pub(crate) fn guest(functions: &str) -> String {
    let prelude = r#"
        (memory (export "memory") 2)
        (global $heap (mut i32) (i32.const 65536))
        (global $len (mut i32) (i32.const 0))
        (func (export "proxy_abi_version_0_2_1"))
        (func $alloc (param $size i32) (result i32)
            (global.get $heap)
            (global.set $heap (i32.add (global.get $heap) (local.get $size))))
        (func $text (param $at i32) (param $size i32)
            (memory.copy (i32.add (i32.const 8192) (global.get $len)) (local.get $at) (local.get $size))
            (global.set $len (i32.add (global.get $len) (local.get $size))))
        (func $digits (param $number i32)
            (if (i32.ge_u (local.get $number) (i32.const 10))
                (then (call $digits (i32.div_u (local.get $number) (i32.const 10)))))
            (i32.store8 (i32.add (i32.const 8192) (global.get $len))
                (i32.add (i32.const 48) (i32.rem_u (local.get $number) (i32.const 10))))
            (global.set $len (i32.add (global.get $len) (i32.const 1))))
        (func $n (param $number i32)
            (call $digits (local.get $number))
            (call $text ' '))
        (func $end
            (drop (call $proxy_log (i32.const 2) (i32.const 8192) (global.get $len)))
            (global.set $len (i32.const 0)))
        ;; What a hostcall gave: "status [value]", from the addresses 16 and 20.
        (func $given (param $status i32)
            (call $n (local.get $status))
            (call $text '[')
            (call $text (i32.load (i32.const 16)) (i32.load (i32.const 20)))
            (call $text ']')
            (call $end))
    "#;
    let alloc = r#"(export "proxy_on_memory_allocate" (func $alloc))"#;
    let alloc = if functions.contains("proxy_on_memory_allocate") { "" } else { alloc };
    with_strings(&format!("(module {}{prelude}{alloc}{functions})", abi::imports()))
}

/// Puts the strings between single quotes into memory, from 1024 on; equal ones once.
pub(crate) fn with_strings(text: &str) -> String {
    let (mut out, mut data, mut at) = (String::new(), String::new(), 1024);
    let mut places = HashMap::new();
    for (index, piece) in text.split('\'').enumerate() {
        if index % 2 == 0 {
            out.push_str(piece);
            continue;
        }
        let len = piece.len() - 2 * piece.matches('\\').count();
        let place = *places.entry(piece).or_insert_with(|| {
            write!(data, "(data (i32.const {at}) \"{piece}\")").unwrap();
            at += len;
            at - len
        });
        write!(out, "(i32.const {place}) (i32.const {len})").unwrap();
    }
    assert!(at < 8192, "strings run into the line that is being built");
    let end = out.rfind(')').unwrap();
    out.insert_str(end, &data);
    out
}

/// The bytes of a guest in text format.
pub(crate) fn wasm(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}

/// Loads a module that is expected not to load.
pub(crate) fn refused(text: &str) -> LoadError {
    engine().load("test", &wasm(text)).expect_err("it must not load")
}

/// The specification of a VM of this guest, for nobody.
pub(crate) fn spec(text: &str) -> VmSpec {
    let module = engine().load("test", &wasm(text)).unwrap_or_else(|error| panic!("{error}"));
    VmSpec {
        tenant: None,
        vm_id: "vm".into(),
        name: "plugin".into(),
        version: Version::Current,
        module,
        memory: 1 << 20,
        cpu: Duration::from_millis(20),
        isolation: Isolation::Vm,
        idle: None,
        configuration: Bytes::from_static(b"vm!"),
        roots: vec![RootSpec { name: "root".into(), configuration: Bytes::from_static(b"settings") }],
        account: None,
        upstreams: Arc::new(HashMap::from([(Box::from("origin"), UpstreamId(7))])),
    }
}

/// A worker: VMs, exchanges and a clock that stands still until it is moved.
pub(crate) struct Worker {
    pub(crate) exchanges: Exchanges,
    pub(crate) vms: Vms,
    chain: Arc<Chain>,
}

impl Worker {
    /// A worker whose only chain has one filter in each of these VMs.
    pub(crate) fn of(specs: Vec<VmSpec>, shared: &Arc<Shared>) -> Self {
        let filter = |(index, spec): (usize, &VmSpec)| ChainFilter {
            name: spec.name.clone(),
            vm: VmIndex(u32::try_from(index).unwrap()),
            root: 0,
            exports: spec.module.exports(),
            on_failure: OnFailure::Closed,
            headers_pause: HeadersPause::StopsAll,
        };
        let chain = Arc::new(Chain::new(specs.iter().enumerate().map(filter).collect()));
        let mut exchanges = Exchanges::default();
        exchanges.now = Time::from_nanos(1_000_000_000_000);
        Self { exchanges, vms: Vms::new(engine(), specs.into(), shared.clone()), chain }
    }

    /// A worker with one VM of one guest.
    pub(crate) fn new(functions: &str) -> Self {
        Self::of(vec![spec(&guest(functions))], &Arc::default())
    }

    /// Moves the clock.
    pub(crate) fn wait(&mut self, time: Duration) {
        self.exchanges.now = self.exchanges.now + time;
    }

    /// Opens an exchange with a fixed request head; what happens to it is for [`Self::effects`] to tell.
    pub(crate) fn request(&mut self, end: End) -> ExchangeId {
        let facts = Facts {
            source: "192.0.2.7:4000".parse().unwrap(),
            destination: "192.0.2.1:80".parse().unwrap(),
            protocol: "HTTP/1.1",
            connection_id: 5,
            request_id: HeaderValue::from_static("id"),
            tls: None,
            place: Arc::new(Place {
                route: "route".into(),
                pattern: "/*".into(),
                upstream: "origin".into(),
                tenant: "".into(),
                times: Times::with_response(Duration::from_secs(5)),
                retry: Policy::connect_only(),
            }),
            patience: Patience::DEFAULT,
            trace: None,
        };
        let mut fields = HeaderMap::new();
        for (name, value) in [("host", "acme.test"), ("x-one", "1"), ("x-two", "a"), ("x-two", "b"), ("x-empty", "")] {
            fields.append(name, HeaderValue::from_static(value));
        }
        let headers = Headers::request(Method::GET, Scheme::Http, "/path?q=1".parse().unwrap(), fields);
        let id = self.exchanges.open(self.chain.clone(), facts);
        self.feed(id, Event::Request(Part::Head(headers, end)));
        id
    }

    /// Feeds an event.
    pub(crate) fn feed(&mut self, id: ExchangeId, event: Event) {
        chain::feed(&mut self.exchanges, &mut self.vms, id, event);
    }

    /// Feeds a response with an empty body.
    pub(crate) fn respond(&mut self, id: ExchangeId) {
        let headers = Headers::response(StatusCode::OK, HeaderMap::new());
        self.feed(id, Event::Response(Part::Head(headers, End::Yes)));
    }

    /// Ends an exchange.
    pub(crate) fn end(&mut self, id: ExchangeId) {
        chain::end(&mut self.exchanges, &mut self.vms, id, None, |_| {});
    }

    /// What must happen to an exchange, as one line for each direction that has something.
    pub(crate) fn effects(&mut self, id: ExchangeId) -> String {
        let mut shown = String::new();
        for (direction, name) in [(Direction::Request, "request"), (Direction::Response, "response")] {
            while let Some(effect) = self.exchanges.get_mut(id).and_then(|exchange| exchange.next_effect(direction)) {
                shown.push_str(name);
                shown.push_str(&show(effect));
                shown.push('\n');
            }
        }
        shown
    }

    /// The head that a fresh request leaves the chain with, or what happened instead.
    pub(crate) fn head(&mut self) -> String {
        let id = self.request(End::Yes);
        self.effects(id)
    }
}

fn show(effect: Effect) -> String {
    let pairs = |headers: &Headers| {
        headers.iter().fold(String::new(), |all, (name, value)| {
            all + " " + &String::from_utf8_lossy(name) + "=" + &String::from_utf8_lossy(value)
        })
    };
    let end = |end: End| if end.is_end() { " end" } else { "" };
    match effect {
        Effect::Send(Part::Head(headers, last)) => pairs(&headers) + end(last),
        Effect::Send(Part::Body(data, last)) => format!(" {data:?}{}", end(last)),
        Effect::Send(Part::Trailers(fields)) => pairs(&Headers::trailers(fields)) + " trailers",
        Effect::Abort(failure) => format!(" abort {failure:?}"),
    }
}

/// Runs `act` and returns what was logged meanwhile: guests' lines as they are, the gateway's own after a `#`.
pub(crate) fn logged(act: impl FnOnce()) -> String {
    LINES.with_borrow_mut(Vec::clear);
    tracing::subscriber::with_default(Listener, act);
    LINES.take().join("\n")
}

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Listener;

struct Line {
    message: String,
    fields: String,
}

impl tracing::field::Visit for Line {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn Debug) {
        match field.name() {
            "message" => write!(self.message, "{value:?}").unwrap(),
            name => write!(self.fields, " {name}={value:?}").unwrap(),
        }
    }
}

impl tracing::Subscriber for Listener {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("portcullis")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line { message: String::new(), fields: String::new() };
        event.record(&mut line);
        let guests = event.metadata().target() == "portcullis::guest";
        let Line { message, fields } = line;
        LINES.with_borrow_mut(|lines| lines.push(if guests { message } else { format!("# {message}{fields}") }));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// Bytes of this process that are in memory.
pub(crate) fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}
