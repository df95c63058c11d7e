//! The two hosts, each with an origin of its own behind it.

use std::any::Any;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use portcullis::workshop::envoy::Process as Envoy;
use portcullis::workshop::envoy::configuration::{Protocol, Wasm, cluster, listener, route};
use portcullis_tests::guests::{Guest, module, with_strings};
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::process::{Start, free_address};
use serde_json::{Value, json};

use crate::case::{Case, case};
use crate::log::Log;

/// The case that is asked when a case is over: what its guest logs comes behind all that the case's did.
pub(crate) const FENCE: &str = "fence";

/// What the origin is to answer now, by the beginning of the path.
pub(crate) type Answers = Arc<Mutex<Vec<(&'static str, Answer)>>>;

/// A host that runs all cases of a group.
pub(crate) struct Side {
    pub(crate) name: &'static str,
    pub(crate) log: Log,
    pub(crate) origin: Origin,
    pub(crate) answers: Answers,
    addresses: HashMap<String, SocketAddr>,
    /// Ends when dropped.
    _process: Box<dyn Any + Send + Sync>,
}

impl Side {
    /// Where a case is asked.
    pub(crate) fn address(&self, case: &str) -> SocketAddr {
        self.addresses.get(case).or(self.addresses.get("main")).copied().unwrap()
    }
}

fn fence() -> Case {
    case("", FENCE, "request_headers: send_local_response 200 '' '' '' -1")
}

fn with_fence(cases: &[Case]) -> Vec<Case> {
    cases.iter().cloned().chain([fence()]).collect()
}

/// The guest's configuration: its label, and its script.
fn configuration(case: &Case, index: usize) -> String {
    format!("{}\n{}", case.label(index), case.filters[index])
}

/// The modules of a group: the guest's, and those that cases bring with them, in files for as long as this lives.
struct Modules {
    guest: PathBuf,
    own: HashMap<String, Guest>,
}

impl Modules {
    fn of(cases: &[Case]) -> Self {
        let own = cases.iter().filter_map(|case| {
            let text = case.module.as_ref()?.replace("LABEL", &case.label(0));
            Some((case.name.clone(), Guest::of_text(&with_strings(&text))))
        });
        Self { guest: module("parity"), own: own.collect() }
    }

    fn path(&self, case: &Case) -> PathBuf {
        self.own.get(&case.name).map_or_else(|| self.guest.clone(), Guest::path)
    }
}

fn origin() -> (Origin, Answers) {
    let answers = Answers::default();
    let there = Arc::clone(&answers);
    let origin = Origin::start(move |seen| {
        let answers = there.lock().unwrap();
        let found = answers.iter().find(|(path, _)| seen.uri.path().starts_with(path));
        found.map_or_else(|| Answer::ok("ok"), |(_, answer)| answer.clone())
    });
    (origin, answers)
}

/// Name, endpoints, protocol.
type Upstream = (&'static str, Vec<SocketAddr>, Protocol);

/// The upstreams that both sides have.
fn upstreams(origin: SocketAddr) -> Vec<Upstream> {
    let refuses = free_address();
    vec![
        ("origin", vec![origin], Protocol::Http1),
        ("h2", vec![origin], Protocol::Http2),
        // Envoy takes `h2` where a gRPC target is wanted for an empty message, and ends.
        ("over_h2", vec![origin], Protocol::Http2),
        ("refuses", vec![refuses], Protocol::Http1),
        ("refuses_h2", vec![refuses], Protocol::Http2),
    ]
}

/// Path prefix and upstream of the routes that every case has.
const ROUTES: [(&str, &str, &str); 3] =
    [("h2", "/h2/", "h2"), ("refuses", "/refuses/", "refuses"), ("all", "/", "origin")];

/// What the guest cannot do without.
const NEEDED: [&str; 8] = [
    "proxy_log",
    "proxy_get_buffer_bytes",
    "proxy_on_context_create",
    "proxy_on_configure",
    "proxy_on_delete",
    "environ_get",
    "environ_sizes_get",
    "random_get",
];

/// The functions that a case's filters may use, where they are not all.
fn granted(case: &Case) -> Option<impl Iterator<Item = &'static str>> {
    Some(NEEDED.into_iter().chain(case.granted?.iter().copied()))
}

/// A filter that may use no more. For Envoy what no module can do without is a function like any other.
fn restricted(mut filter: Value, case: &Case) -> Value {
    if let Some(granted) = granted(case) {
        let allowed: serde_json::Map<String, Value> =
            granted.chain(["proc_exit"]).map(|name| (name.to_owned(), json!({}))).collect();
        filter["typed_config"]["config"]["capability_restriction_config"] = json!({ "allowed_capabilities": allowed });
    }
    filter
}

/// An Envoy with a listener for each case.
pub(crate) fn envoy(program: &Path, cases: &[Case]) -> Side {
    let (origin, answers) = origin();
    let modules = Modules::of(cases);
    let listeners: Vec<Value> = with_fence(cases)
        .iter()
        .map(|case| {
            let filter = |index: usize| {
                let (name, configuration) = (case.plugin(index), configuration(case, index));
                let (vm_id, vm_configuration) = case.vm(index);
                let vm_id = if case.alone { &*case.name } else { vm_id };
                let (holds_headers, module) = (case.holds_headers, modules.path(case));
                let configuration = &configuration;
                let wasm = Wasm { name: &name, module: &module, configuration, vm_id, vm_configuration, holds_headers };
                restricted(wasm.filter(), case)
            };
            let routes = ROUTES.map(|(name, prefix, upstream)| route(name, prefix, upstream));
            listener(&case.name, (0..case.filters.len()).map(filter).collect(), &routes)
        })
        .collect();
    let clusters: Vec<Value> = upstreams(origin.address)
        .iter()
        .map(|(name, endpoints, protocol)| cluster(name, endpoints, *protocol))
        .collect();
    let resources = json!({ "listeners": listeners, "clusters": clusters });
    let format = ["--log-format", "%l|%v", "--log-level", "error", "--component-log-level", "wasm:trace"];
    let mut process = Envoy::start(program, &resources, &format).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let addresses = runtime.block_on(process.listeners()).unwrap().into_iter().collect();
    let log = Log::new(process.log_file(), |line| {
        let (level, said) = line.split_once('|')?;
        let said = said.split_once("wasm log ")?.1;
        // Name, root and VM stand before what was said, and a colon behind them.
        Some((level.to_owned(), said.split_once(": ")?.1.to_owned()))
    });
    Side { name: "Envoy", log, origin, answers, addresses, _process: Box::new((process, modules)) }
}

/// A gateway with a tenant for each case.
pub(crate) fn portcullis(cases: &[Case]) -> Side {
    let (origin, answers) = origin();
    let modules = Modules::of(cases);
    let tenants: serde_json::Map<String, Value> =
        with_fence(cases).iter().map(|case| (case.name.clone(), tenant(case, &modules.path(case)))).collect();
    let upstreams: serde_json::Map<String, Value> = upstreams(origin.address)
        .iter()
        .map(|(name, endpoints, protocol)| {
            let endpoints: Vec<String> = endpoints.iter().map(SocketAddr::to_string).collect();
            let protocol = if *protocol == Protocol::Http1 { "http1" } else { "http2" };
            ((*name).to_owned(), json!({ "endpoints": endpoints, "protocol": protocol }))
        })
        .collect();
    let text = format!("workers: 1\naccess_log: off\nupstreams: {}\ntenants: {}\n", json!(upstreams), json!(tenants));
    let start = Start::new(env!("CARGO_BIN_EXE_gateway"), &text, &[]);
    let process = start.variable("PORTCULLIS_LOG", "warn,portcullis::guest=trace").start();
    let log = Log::new(process.folder().join("stderr"), |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let word = |name: &str| line.get(name)?.as_str().map(str::to_owned);
        let level = word("level")?.to_lowercase();
        Some((if level == "warn" { "warning".to_owned() } else { level }, word("message")?))
    });
    let addresses = HashMap::from([("main".to_owned(), process.address)]);
    Side { name: "Portcullis", log, origin, answers, addresses, _process: Box::new((process, modules)) }
}

fn tenant(case: &Case, module: &Path) -> Value {
    let plugin = |index: usize| {
        let (vm_id, vm_config) = case.vm(index);
        let mut plugin = json!({
            "module": format!("file:{}", module.display()),
            "limits": { "cpu": "5s" },
            "vm_id": vm_id,
            "vm_config": vm_config,
            "allow_on_headers_stop_iteration": case.holds_headers,
        });
        if let Some(granted) = granted(case) {
            plugin["capabilities"] = granted.collect();
        }
        plugin
    };
    // A plugin for each filter: its name is a property, which is compared.
    let names: Vec<String> = (0..case.filters.len()).map(|index| case.plugin(index)).collect();
    let filters: Vec<Value> = names
        .iter()
        .enumerate()
        .map(|(index, name)| json!({ "plugin": name, "config": configuration(case, index) }))
        .collect();
    let plugins: serde_json::Map<String, Value> =
        names.iter().enumerate().map(|(index, name)| (name.clone(), plugin(index))).collect();
    let routes = ROUTES.map(|(name, prefix, upstream)| {
        json!({ "name": name, "match": { "path": format!("{prefix}*") }, "upstream": upstream })
    });
    json!({ "hosts": [format!("{}.test", case.name)], "plugins": plugins, "filters": filters, "routes": routes })
}
