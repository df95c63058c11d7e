//! A guest in text format, and the way across to it and back.
//!
//! Its request-headers callback makes one hostcall as often as its second argument says. Called with 0 it costs what an empty
//! callback costs; called with many it costs that and many hostcalls, so the two can be told apart.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use portcullis_core::chain;
use portcullis_core::context::{ContextRef, Owner};
use portcullis_core::event::{Direction, End, Event, Part};
use portcullis_core::exchange::Exchanges;
use portcullis_core::filter::{Callback, Chain, ChainFilter, Filters as _, HeadersPause, OnFailure, VmIndex};
use portcullis_core::rollout::Version;
use portcullis_vm::{CompileLimits, Engine, EngineOptions, Isolation, Module, RootSpec, Shared, VmSpec, Vms};

use crate::traffic::Traffic;

/// What the guest asks of its host, over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hostcall {
    /// Nothing: its loop runs empty.
    Nothing,
    /// `proxy_get_log_level`: about the least a hostcall can do.
    LogLevel,
    /// `proxy_get_header_map_value` of a field. Like every value given, it is put where the guest's allocator says, so this
    /// crosses twice.
    Value,
    /// The same of `:path`.
    Path,
    /// `proxy_replace_header_map_value` of a field that is there.
    Replace,
    /// `proxy_get_header_map_pairs` of 20 pairs.
    Pairs,
}

impl Hostcall {
    /// Each of them.
    pub const ALL: [Self; 6] = [Self::Nothing, Self::LogLevel, Self::Value, Self::Path, Self::Replace, Self::Pairs];

    /// What to call it in a report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::LogLevel => "get_log_level",
            Self::Value => "get_header_map_value",
            Self::Path => "get_header_map_value_path",
            Self::Replace => "replace_header_map_value",
            Self::Pairs => "get_header_map_pairs_20",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Nothing => "(i32.const 0)",
            Self::LogLevel => "(call $log_level (i32.const 16))",
            Self::Value => "(call $value (i32.const 0) (i32.const 1024) (i32.const 12) (i32.const 16) (i32.const 20))",
            Self::Path => "(call $value (i32.const 0) (i32.const 1036) (i32.const 5) (i32.const 16) (i32.const 20))",
            Self::Replace => {
                "(call $replace (i32.const 0) (i32.const 1024) (i32.const 12) (i32.const 1041) (i32.const 8))"
            }
            Self::Pairs => "(call $pairs (i32.const 0) (i32.const 16) (i32.const 20))",
        }
    }
}

/// The guest's bytes. Its allocator always gives the same block: what an allocator costs is the guest's business.
#[must_use]
pub fn wasm(hostcall: Hostcall) -> Vec<u8> {
    let text = format!(
        r#"(module
        (import "env" "proxy_get_log_level" (func $log_level (param i32) (result i32)))
        (import "env" "proxy_get_header_map_value" (func $value (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_replace_header_map_value" (func $replace (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_get_header_map_pairs" (func $pairs (param i32 i32 i32) (result i32)))
        (memory (export "memory") 2)
        (data (i32.const 1024) "x-request-id:pathreplaced")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 65536))
        (func (export "proxy_on_context_create") (param i32 i32))
        (func (export "proxy_on_delete") (param i32))
        (func (export "proxy_on_request_headers") (param $context i32) (param $times i32) (param $end i32) (result i32)
            (block $done
                (loop $again
                    (br_if $done (i32.eqz (local.get $times)))
                    (if {} (then (unreachable)))
                    (local.set $times (i32.sub (local.get $times) (i32.const 1)))
                    (br $again)))
            ;; Pausing keeps the head where hostcalls find it.
            (i32.const 1)))"#,
        hostcall.text()
    );
    wat::parse_str(text).expect("the guest is well-formed")
}

/// An engine with room for so many VMs.
#[must_use]
pub fn engine(max_vms: u32) -> Arc<Engine> {
    let options = EngineOptions { max_vms, max_memory: 16 << 20, ..EngineOptions::default() };
    Engine::new(options).expect("the system has room for this engine")
}

/// A VM of this module for nobody, with time enough for any loop.
#[must_use]
pub fn spec(module: Arc<Module>) -> VmSpec {
    VmSpec {
        tenant: None,
        vm_id: Arc::default(),
        name: "guest".into(),
        version: Version::Current,
        module,
        memory: 16 << 20,
        cpu: Duration::from_secs(3600),
        isolation: Isolation::Vm,
        idle: None,
        configuration: Bytes::new(),
        roots: vec![RootSpec { name: "root".into(), configuration: Bytes::new() }],
        account: None,
        upstreams: Arc::default(),
    }
}

/// Starts a VM again and again.
pub struct Starter {
    engine: Arc<Engine>,
    specs: Arc<[VmSpec]>,
    shared: Arc<Shared>,
    exchanges: Exchanges,
}

impl Default for Starter {
    fn default() -> Self {
        let engine = engine(2);
        let module = engine.load("guest", &wasm(Hostcall::Nothing)).expect("the guest loads");
        Self { engine, specs: [spec(module)].into(), shared: Arc::default(), exchanges: Exchanges::default() }
    }
}

impl Starter {
    /// A place for a VM that has not been started.
    #[must_use]
    pub fn place(&self) -> Vms {
        Vms::new(self.engine.clone(), self.specs.clone(), self.shared.clone())
    }

    /// Starts it: instance, root context, `proxy_on_vm_start` and `proxy_on_configure`.
    pub fn start(&mut self, place: &mut Vms) {
        place.warm_up(&mut self.exchanges).expect("the guest starts");
    }
}

/// A live guest, and an exchange that waits for it with its head at hand.
pub struct Crossing {
    exchanges: Exchanges,
    vms: Vms,
    filter: ChainFilter,
    owner: Owner,
    context: ContextRef,
}

impl Crossing {
    /// Starts a guest that makes this hostcall.
    #[must_use]
    pub fn new(hostcall: Hostcall) -> Self {
        Self::of(&wasm(hostcall), Isolation::Vm)
    }

    /// Starts this guest.
    #[must_use]
    pub fn of(wasm: &[u8], isolation: Isolation) -> Self {
        // Half is for copies: the exchange's, the context's, and one that comes and goes.
        let engine = engine(8);
        let loaded = match isolation {
            Isolation::Vm => engine.load("guest", wasm),
            Isolation::Request => engine.load_copyable("guest", wasm, &CompileLimits::default()),
        };
        let module = loaded.expect("the guest loads");
        let filter = ChainFilter {
            name: "guest".into(),
            vm: VmIndex(0),
            root: 0,
            exports: module.exports(),
            on_failure: OnFailure::Closed,
            headers_pause: HeadersPause::StopsAll,
        };
        let mut exchanges = Exchanges::default();
        let mut vms = Vms::new(engine, [VmSpec { isolation, ..spec(module) }].into(), Arc::default());
        let Traffic { facts, request, .. } = Traffic::default();
        let exchange = exchanges.open(Arc::new(Chain::new(vec![filter.clone()])), facts);
        chain::feed(&mut exchanges, &mut vms, exchange, Event::Request(Part::Head(request, End::Yes)));
        let owner = Owner { exchange, filter: 0, root: 0 };
        let context = vms.open(&mut exchanges, &filter, owner).expect("the guest has started");
        Self { exchanges, vms, filter, owner, context }
    }

    /// One callback in which the guest makes its hostcall so many times.
    pub fn call(&mut self, times: u32) {
        let callback = Callback::Headers(Direction::Request, times, End::Yes);
        let answer = self.vms.call(&mut self.exchanges, self.context, callback);
        assert_eq!(answer, Ok(1), "every hostcall answers Ok");
    }

    /// A further context, created and deleted with both callbacks.
    pub fn create_and_delete(&mut self) {
        let context = self.vms.open(&mut self.exchanges, &self.filter, self.owner).expect("the guest lives");
        let deleted = self.vms.call(&mut self.exchanges, context, Callback::Delete);
        assert_eq!(deleted, Ok(0), "deleting answers nothing");
        self.vms.close(&mut self.exchanges, context);
    }
}
