//! Modules made up at random, valid each, as plugins: whatever they do they do to themselves.
//!
//! A module's exports are a plugin's, with bodies made of the input; its imports are among the host's functions. It is loaded, run
//! through a whole exchange, and after each step another tenant's guest on the same worker is asked, and must answer as always.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arbitrary::Unstructured;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use portcullis_core::chain;
use portcullis_core::downstream::Patience;
use portcullis_core::event::{Direction, Effect, End, Event, Part};
use portcullis_core::exchange::{ExchangeId, Exchanges, Facts, Place, Times};
use portcullis_core::filter::{Chain, ChainFilter, HeadersPause, OnFailure, VmIndex};
use portcullis_core::headers::{Headers, Scheme};
use portcullis_core::retry::Policy;
use portcullis_core::rollout::Version;
use portcullis_vm::{Engine, EngineOptions, Isolation, Module, RootSpec, Shared, VmSpec, Vms};
use wasm_smith::Config;

/// What a plugin exports, less what runs when it starts, where a loop may take a second.
const EXPORTS: &str = r#"(module
    (memory (export "memory") 1 16)
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) unreachable)
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) unreachable)
    (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) unreachable)
    (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) unreachable)
    (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) unreachable)
    (func (export "proxy_on_log") (param i32) unreachable)
    (func (export "proxy_on_done") (param i32) (result i32) unreachable)
    (func (export "proxy_on_delete") (param i32) unreachable))"#;

/// Some of the host's functions, of every shape there is.
const IMPORTS: &str = r#"(module
    (import "env" "proxy_log" (func (param i32 i32 i32) (result i32)))
    (import "env" "proxy_get_header_map_pairs" (func (param i32 i32 i32) (result i32)))
    (import "env" "proxy_set_header_map_pairs" (func (param i32 i32 i32) (result i32)))
    (import "env" "proxy_add_header_map_value" (func (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_get_header_map_value" (func (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_get_buffer_bytes" (func (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_buffer_bytes" (func (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_get_property" (func (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_property" (func (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_continue_stream" (func (param i32) (result i32)))
    (import "env" "proxy_close_stream" (func (param i32) (result i32)))
    (import "env" "proxy_set_effective_context" (func (param i32) (result i32)))
    (import "env" "proxy_send_local_response" (func (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_http_call" (func (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_define_metric" (func (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_increment_metric" (func (param i32 i64) (result i32)))
    (import "env" "proxy_set_shared_data" (func (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_call_foreign_function" (func (param i32 i32 i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func (param i32))))"#;

/// The other tenant's: puts a field on every request.
const GOOD: &str = r#"(module
    (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 16) "x-good")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (call $add (i32.const 0) (i32.const 16) (i32.const 6) (i32.const 16) (i32.const 6))))"#;

fn engine() -> &'static Arc<Engine> {
    static ENGINE: OnceLock<Arc<Engine>> = OnceLock::new();
    ENGINE.get_or_init(|| {
        Engine::new(EngineOptions { max_vms: 8, ..EngineOptions::default() })
            .expect("the machine has room for eight VMs")
    })
}

fn good() -> Arc<Module> {
    static MODULE: OnceLock<Arc<Module>> = OnceLock::new();
    MODULE.get_or_init(|| engine().load("good", &text(GOOD)).expect("it is a plugin")).clone()
}

fn text(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("it is a module")
}

/// Makes a module of these bytes, and runs it.
pub fn modules(bytes: &[u8]) {
    let _ran = runs(bytes);
}

/// Whether these bytes made a module that could be loaded; it has then been run.
pub fn runs(bytes: &[u8]) -> bool {
    let config = Config {
        available_imports: Some(text(IMPORTS)),
        exports: Some(text(EXPORTS)),
        allow_start_export: false,
        max_instructions: 200,
        // Beside the one that is exported.
        max_memories: 0,
        max_memory32_bytes: 1 << 20,
        max_table_elements: 1000,
        // What the gateway does not run is refused when it is loaded, and of no interest here.
        gc_enabled: false,
        reference_types_enabled: false,
        exceptions_enabled: false,
        threads_enabled: false,
        memory64_enabled: false,
        relaxed_simd_enabled: false,
        ..Config::default()
    };
    let Ok(made) = wasm_smith::Module::new(config, &mut Unstructured::new(bytes)) else { return false };
    let Ok(module) = engine().load("random", &made.to_bytes()) else { return false };
    let mut worker = Worker::new([module, good()]);
    worker.bad_exchange();
    true
}

/// A worker with both tenants' VMs.
struct Worker {
    exchanges: Exchanges,
    vms: Vms,
    chains: [Arc<Chain>; 2],
}

impl Worker {
    fn new(modules: [Arc<Module>; 2]) -> Self {
        let filter = |vm: u32, module: &Module| ChainFilter {
            name: "plugin".into(),
            vm: VmIndex(vm),
            root: 0,
            exports: module.exports(),
            on_failure: OnFailure::Closed,
            headers_pause: HeadersPause::StopsAll,
        };
        let [bad, good] = &modules;
        let chains = [(0, bad), (1, good)].map(|(vm, module)| Arc::new(Chain::new(vec![filter(vm, module)])));
        let specs: Vec<VmSpec> =
            ["bad", "good"].into_iter().zip(modules).map(|(tenant, module)| spec(tenant, module)).collect();
        let vms = Vms::new(engine().clone(), specs.into(), Arc::<Shared>::default());
        Self { exchanges: Exchanges::default(), vms, chains }
    }

    fn open(&mut self, which: usize) -> ExchangeId {
        let chain = self.chains.get(which).expect("there are two").clone();
        let id = self.exchanges.open(chain, facts());
        let mut fields = HeaderMap::new();
        fields.insert("host", HeaderValue::from_static("a.test"));
        let headers = Headers::request(Method::POST, Scheme::Http, "/".parse().expect("a path"), fields);
        self.feed(id, Event::Request(Part::Head(headers, End::No)));
        id
    }

    fn feed(&mut self, id: ExchangeId, event: Event) {
        chain::feed(&mut self.exchanges, &mut self.vms, id, event);
        while let Some(woken) = self.exchanges.next_woken() {
            chain::feed(&mut self.exchanges, &mut self.vms, woken, Event::Woken);
        }
        self.exchanges.callouts.clear();
    }

    fn bad_exchange(&mut self) {
        let id = self.open(0);
        self.good_exchange();
        let body = |end| Part::Body(Bytes::from_static(b"some body"), end);
        let head = Part::Head(Headers::response(StatusCode::OK, HeaderMap::new()), End::No);
        for event in [
            Event::Request(body(End::No)),
            Event::Request(body(End::Yes)),
            Event::Response(head),
            Event::Response(body(End::Yes)),
        ] {
            self.feed(id, event);
            self.good_exchange();
        }
        chain::end(&mut self.exchanges, &mut self.vms, id, None, |_| {});
        self.good_exchange();
        assert!(self.exchanges.is_empty());
    }

    fn good_exchange(&mut self) {
        let id = self.open(1);
        let exchange = self.exchanges.get_mut(id).expect("it has just been opened");
        let Some(Effect::Send(Part::Head(headers, _))) = exchange.next_effect(Direction::Request) else {
            panic!("the other tenant's request goes nowhere")
        };
        assert_eq!(headers.get(b"x-good"), Some(&b"x-good"[..]));
        chain::end(&mut self.exchanges, &mut self.vms, id, None, |_| {});
    }
}

fn spec(tenant: &str, module: Arc<Module>) -> VmSpec {
    VmSpec {
        tenant: Some(tenant.into()),
        vm_id: Arc::default(),
        name: "plugin".into(),
        version: Version::Current,
        module,
        memory: 1 << 20,
        // For the other tenant's it is only time that it does not take.
        cpu: Duration::from_millis(if tenant == "bad" { 2 } else { 1000 }),
        isolation: Isolation::Vm,
        idle: None,
        configuration: Bytes::new(),
        roots: vec![RootSpec { name: "root".into(), configuration: Bytes::new() }],
        account: None,
        upstreams: Arc::new(HashMap::new()),
    }
}

fn facts() -> Facts {
    Facts {
        source: ([192, 0, 2, 7], 4000).into(),
        destination: ([192, 0, 2, 1], 80).into(),
        protocol: "HTTP/1.1",
        connection_id: 1,
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
    }
}
