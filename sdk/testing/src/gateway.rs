//! The gateway of a test: built, started, asked.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use portcullis_core::context::{CalloutResponse, ContextRef, Owner};
use portcullis_core::exchange::Exchanges;
use portcullis_core::filter::{
    Callback, Chain, ChainFilter, Export, Exports, Failed, Filters, HeadersPause, NotOpened, OnFailure, VmIndex,
};
use portcullis_core::grpc::News;
use portcullis_core::time::Time;
use portcullis_simulation::{Call, Guests, Line, Origin, Outcome, Reply, Request, Seen, Simulation, Stub, numbered};

use crate::services::{Letter, Services};
use crate::thread::{Spec, Vm};

/// A plugin's entry: what its module's `_initialize` does.
///
/// ```
/// use portcullis_testing::Entry;
/// extern "C" fn initialize() {}
/// let entry = Entry::C(initialize);
/// ```
#[derive(Clone, Copy)]
pub enum Entry {
    /// `portcullis_sdk::start::<MyFilter>`.
    Rust(fn()),
    /// The `_initialize` that `proxy_wasm::main!` defines.
    C(extern "C" fn()),
}

impl Entry {
    /// One after another: the `proxy-wasm` crate installs its logger in the first, for the whole process.
    pub(crate) fn run(self) {
        static ONE: Mutex<()> = Mutex::new(());
        let _alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        match self {
            Self::Rust(entry) => entry(),
            Self::C(entry) => entry(),
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entry")
    }
}

impl From<fn()> for Entry {
    fn from(entry: fn()) -> Self {
        Self::Rust(entry)
    }
}

impl From<extern "C" fn()> for Entry {
    fn from(entry: extern "C" fn()) -> Self {
        Self::C(entry)
    }
}

/// A plugin with its configuration.
///
/// ```
/// use portcullis_testing::{Gateway, Plugin};
/// # fn start() {}
/// let gateway = Gateway::new().plugin(Plugin::new("geo", start).config(r#"{ "country": "geo" }"#));
/// ```
#[derive(Clone, Debug)]
pub struct Plugin {
    name: String,
    entry: Entry,
    config: Bytes,
    vm_config: Bytes,
    on_failure: OnFailure,
    headers_pause: HeadersPause,
}

impl Plugin {
    /// A filter of the SDK: `Plugin::new("geo", portcullis_sdk::start::<Geo>)`.
    ///
    /// ```
    /// use portcullis_testing::Plugin;
    /// # fn start() {}
    /// let plugin = Plugin::new("geo", start); // `portcullis_sdk::start::<Geo>` in your tests
    /// ```
    #[must_use]
    pub fn new(name: &str, entry: fn()) -> Self {
        Self::of(name, entry.into())
    }

    /// A plugin of the `proxy-wasm` crate as it is: `Plugin::unmodified("auth", my_plugin::_initialize)`.
    ///
    /// ```
    /// use portcullis_testing::Plugin;
    /// extern "C" fn initialize() {}
    /// let plugin = Plugin::unmodified("auth", initialize);
    /// ```
    #[must_use]
    pub fn unmodified(name: &str, initialize: extern "C" fn()) -> Self {
        Self::of(name, initialize.into())
    }

    fn of(name: &str, entry: Entry) -> Self {
        Self {
            name: name.to_owned(),
            entry,
            config: Bytes::new(),
            vm_config: Bytes::new(),
            on_failure: OnFailure::Closed,
            headers_pause: HeadersPause::StopsAll,
        }
    }

    /// With this configuration, JSON as a rule.
    ///
    /// ```
    /// use portcullis_testing::Plugin;
    /// # fn start() {}
    /// let plugin = Plugin::new("mark", start).config(r#"{ "header": "x-mark" }"#);
    /// ```
    #[must_use]
    pub fn config(mut self, config: impl AsRef<[u8]>) -> Self {
        self.config = Bytes::copy_from_slice(config.as_ref());
        self
    }

    /// Exchanges go on without the plugin when it fails.
    ///
    /// ```
    /// use portcullis_testing::Plugin;
    /// # fn start() {}
    /// let plugin = Plugin::new("mark", start).fails_open();
    /// ```
    #[must_use]
    pub fn fails_open(mut self) -> Self {
        self.on_failure = OnFailure::Open;
        self
    }

    /// On a host that holds heads while bodies are read, and says so: `allow_on_headers_stop_iteration` on Envoy.
    ///
    /// ```
    /// use portcullis_testing::Plugin;
    /// # fn start() {}
    /// let plugin = Plugin::new("mark", start).holds_headers();
    /// ```
    #[must_use]
    pub fn holds_headers(mut self) -> Self {
        self.headers_pause = HeadersPause::HoldsHeaders;
        self.vm_config = Bytes::from_static(b"{\"holds_headers\":true,\"adds_bodies\":true}");
        self
    }

    fn filter(&self, index: u32) -> ChainFilter {
        ChainFilter {
            name: self.name.as_str().into(),
            vm: VmIndex(index),
            root: 0,
            exports: all_exports(),
            on_failure: self.on_failure,
            headers_pause: self.headers_pause,
        }
    }
}

/// The `proxy-wasm` crate exports them all.
fn all_exports() -> Exports {
    use Export::{
        Delete, Done, Log, RequestBody, RequestHeaders, RequestTrailers, ResponseBody, ResponseHeaders,
        ResponseTrailers,
    };
    let requests = [RequestHeaders, RequestBody, RequestTrailers];
    let responses = [ResponseHeaders, ResponseBody, ResponseTrailers];
    requests.into_iter().chain(responses).chain([Log, Done, Delete]).fold(Exports::default(), Exports::with)
}

/// A gateway to be started.
///
/// ```
/// use portcullis_testing::{Gateway, Reply, Request};
/// let mut gateway = Gateway::new().origin(|_| Reply::status(204)).start();
/// assert_eq!(gateway.send(Request::get("/")).status(), 204);
/// ```
pub struct Gateway {
    plugins: Vec<Plugin>,
    upstreams: Vec<(String, Stub)>,
    origin: Stub,
    when: Origin,
    services: Services,
}

impl Default for Gateway {
    fn default() -> Self {
        Self::new()
    }
}

impl Gateway {
    /// One without plugins, whose upstream answers everything with 200 and `ok`.
    ///
    /// ```
    /// use portcullis_testing::{Gateway, Request};
    /// assert_eq!(Gateway::new().start().send(Request::get("/")).reply.text(), "ok");
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self {
            plugins: Vec::new(),
            upstreams: Vec::new(),
            origin: Box::new(|_| Reply::ok("ok")),
            when: Origin::AnswersAtEnd,
            services: Services::default(),
        }
    }

    /// With one more plugin, further from the client than those before.
    ///
    /// ```
    /// use portcullis_testing::{Gateway, Plugin};
    /// # fn start() {}
    /// let gateway = Gateway::new().plugin(Plugin::new("outer", start)).plugin(Plugin::new("inner", start));
    /// ```
    #[must_use]
    pub fn plugin(mut self, plugin: Plugin) -> Self {
        self.plugins.push(plugin);
        self
    }

    /// With an upstream that plugins may call.
    ///
    /// ```
    /// use portcullis_testing::{Gateway, Reply};
    /// let gateway = Gateway::new().upstream("geo", |request| Reply::ok(request.target()));
    /// ```
    #[must_use]
    pub fn upstream(mut self, name: &str, stub: impl FnMut(&Seen) -> Reply + 'static) -> Self {
        self.upstreams.push((name.to_owned(), Box::new(stub)));
        self
    }

    /// With a foreign function that plugins may call by this name. It gets their bytes and gives its own, or the number of a
    /// status. The gateway's own functions are not here: they are the host's to test.
    ///
    /// ```
    /// use portcullis_testing::Gateway;
    /// let gateway = Gateway::new().foreign_function("compress", |bytes| Ok(bytes.to_vec()));
    /// ```
    #[must_use]
    pub fn foreign_function(
        self,
        name: &str,
        function: impl FnMut(&[u8]) -> Result<Vec<u8>, u32> + Send + 'static,
    ) -> Self {
        self.services.offer(name, Box::new(function));
        self
    }

    /// With this upstream for the requests themselves.
    ///
    /// ```
    /// use portcullis_testing::{Gateway, Reply, Request};
    /// let mut gateway = Gateway::new().origin(|request| Reply::ok(request.target())).start();
    /// assert_eq!(gateway.send(Request::get("/a")).reply.text(), "/a");
    /// ```
    #[must_use]
    pub fn origin(mut self, stub: impl FnMut(&Seen) -> Reply + 'static) -> Self {
        self.origin = Box::new(stub);
        self
    }

    /// With an upstream for the requests themselves that answers as soon as it has their head.
    ///
    /// ```
    /// use portcullis_testing::{Gateway, Reply, Request};
    /// let mut gateway = Gateway::new().impatient_origin(|_| Reply::status(413)).start();
    /// assert_eq!(gateway.send(Request::post("/").body("too much")).status(), 413);
    /// ```
    #[must_use]
    pub fn impatient_origin(mut self, stub: impl FnMut(&Seen) -> Reply + 'static) -> Self {
        self.when = Origin::AnswersAtHead;
        self.origin(stub)
    }

    /// Starts the plugins.
    ///
    /// # Panics
    /// When one does not start, with what it logged.
    ///
    /// ```
    /// use portcullis_testing::{Gateway, Request};
    /// assert_eq!(Gateway::new().start().send(Request::get("/")).status(), 200);
    /// ```
    #[must_use]
    #[track_caller]
    pub fn start(self) -> Running {
        match self.try_start() {
            Ok(running) => running,
            Err(why) => panic!("{why}"),
        }
    }

    /// Starts the plugins.
    ///
    /// # Errors
    /// When one does not start, with what it logged.
    ///
    /// ```
    /// use portcullis_testing::Gateway;
    /// assert!(Gateway::new().try_start().is_ok());
    /// ```
    pub fn try_start(self) -> Result<Running, StartFailed> {
        let names: Vec<String> = self.upstreams.iter().map(|(name, _)| name.clone()).collect();
        let upstreams = numbered(&names);
        let mut exchanges = Exchanges::default();
        // Some moment in 2023, the same in every test.
        exchanges.now = Time::from_nanos(1_700_000_000_000_000_000);
        let mut threads = Threads { vms: Vec::new(), services: self.services.clone(), log: Vec::new() };
        for plugin in &self.plugins {
            let spec = Spec {
                name: plugin.name.clone(),
                entry: plugin.entry,
                config: plugin.config.clone(),
                vm_config: plugin.vm_config.clone(),
                upstreams: upstreams.clone(),
            };
            threads.add(spec, &mut exchanges)?;
        }
        let filters = (0..).zip(&self.plugins).map(|(index, plugin)| plugin.filter(index)).collect();
        let (origin, upstreams) = ((self.origin, self.when), self.upstreams);
        let simulation = Simulation::new(exchanges, threads, Chain::new(filters), origin, upstreams);
        Ok(Running { simulation, services: self.services })
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("plugins", &self.plugins).finish_non_exhaustive()
    }
}

/// A plugin that does not start.
///
/// ```
/// use portcullis_testing::StartFailed;
/// let why = StartFailed { plugin: "geo".to_owned(), log: Vec::new() };
/// assert_eq!(why.to_string(), "the plugin `geo` does not start");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartFailed {
    /// Which one.
    pub plugin: String,
    /// What it logged.
    pub log: Vec<Line>,
}

impl fmt::Display for StartFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the plugin `{}` does not start", self.plugin)?;
        self.log.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl std::error::Error for StartFailed {}

/// A gateway that runs.
///
/// ```
/// use portcullis_testing::{Gateway, Request, Running};
/// let mut gateway: Running = Gateway::new().start();
/// assert_eq!(gateway.send(Request::get("/")).status(), 200);
/// ```
#[derive(Debug)]
pub struct Running {
    simulation: Simulation<Threads>,
    services: Services,
}

impl Running {
    /// Sends a request, and waits for what becomes of it.
    ///
    /// ```
    /// use portcullis_testing::{Gateway, Request};
    /// let outcome = Gateway::new().start().send(Request::get("/a"));
    /// assert_eq!(outcome.at_upstream().target(), "/a");
    /// ```
    pub fn send(&mut self, request: Request) -> Outcome {
        self.send_all([request]).pop().unwrap_or_default()
    }

    /// Sends requests, all at once. Their outcomes are in the same order; what was logged is with the first.
    ///
    /// ```
    /// use portcullis_testing::{Gateway, Request};
    /// let outcomes = Gateway::new().start().send_all(["/a", "/b"].map(Request::get));
    /// assert_eq!(outcomes[1].at_upstream().target(), "/b");
    /// ```
    pub fn send_all(&mut self, requests: impl IntoIterator<Item = Request>) -> Vec<Outcome> {
        let requests: Vec<Request> = requests.into_iter().collect();
        self.simulation.send(&requests)
    }

    /// Lets time pass, with everything that it brings about.
    ///
    /// ```
    /// use std::time::Duration;
    /// use portcullis_testing::Gateway;
    /// let mut gateway = Gateway::new().start();
    /// let before = gateway.unix_time();
    /// gateway.advance(Duration::from_secs(60));
    /// assert_eq!(gateway.unix_time(), before + 60);
    /// ```
    pub fn advance(&mut self, time: Duration) {
        self.simulation.advance(time);
    }

    /// The calls that plugins made since this was last asked.
    ///
    /// ```
    /// use portcullis_testing::{Gateway, Request};
    /// let mut gateway = Gateway::new().start();
    /// gateway.send(Request::get("/"));
    /// assert!(gateway.calls().is_empty());
    /// ```
    pub fn calls(&mut self) -> Vec<Call> {
        self.simulation.take_calls()
    }

    /// What plugins logged since this was last asked, outcomes included.
    ///
    /// ```
    /// use portcullis_testing::Gateway;
    /// assert!(Gateway::new().start().log().is_empty());
    /// ```
    pub fn log(&mut self) -> Vec<Line> {
        self.simulation.guests().take_log()
    }

    /// The value of a metric; nothing if nobody has defined it.
    ///
    /// ```
    /// use portcullis_testing::Gateway;
    /// assert_eq!(Gateway::new().start().metric("geo_refused"), None);
    /// ```
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<u64> {
        self.services.named(name)
    }

    /// The shared data under a key.
    ///
    /// ```
    /// use portcullis_testing::Gateway;
    /// assert_eq!(Gateway::new().start().shared_data("seen"), None);
    /// ```
    #[must_use]
    pub fn shared_data(&self, key: &str) -> Option<Vec<u8>> {
        self.services.data(key.as_bytes()).ok().map(|(value, _)| value)
    }

    /// Makes a hostcall do nothing and answer this number instead, so many times: any number, also those that no host should
    /// answer.
    ///
    /// ```
    /// use portcullis_testing::Gateway;
    /// let mut gateway = Gateway::new().start();
    /// // The next time a filter wants to store something, the host refuses with `InternalFailure`.
    /// gateway.fail("proxy_set_shared_data", 10, 1);
    /// ```
    pub fn fail(&mut self, hostcall: &'static str, status: u32, times: usize) {
        self.services.fail(hostcall, status, times);
    }

    /// The wall clock, in seconds since the Unix epoch.
    ///
    /// ```
    /// use portcullis_testing::Gateway;
    /// assert_eq!(Gateway::new().start().unix_time(), 1_700_000_000);
    /// ```
    #[must_use]
    pub fn unix_time(&self) -> u64 {
        self.simulation.now().as_nanos() / 1_000_000_000
    }
}

/// The plugins' threads, as the chain sees them.
struct Threads {
    vms: Vec<Place>,
    services: Services,
    log: Vec<Line>,
}

struct Place {
    spec: Spec,
    life: u32,
    vm: Option<Vm>,
}

impl Threads {
    fn add(&mut self, spec: Spec, exchanges: &mut Exchanges) -> Result<(), StartFailed> {
        let index = VmIndex(u32::try_from(self.vms.len()).unwrap_or(u32::MAX));
        let vm = Vm::start(&spec, (index, 1), self.services.clone(), exchanges)
            .map_err(|log| StartFailed { plugin: spec.name.clone(), log })?;
        self.vms.push(Place { spec, life: 1, vm: Some(vm) });
        Ok(())
    }

    /// Does something in a VM, in this of its lives if that matters. One that fails is orphaned of its exchanges.
    fn enter<R>(
        &mut self,
        exchanges: &mut Exchanges,
        (index, life): (VmIndex, Option<u32>),
        act: impl FnOnce(&mut Vm, &mut Exchanges) -> Result<R, Failed>,
    ) -> Result<R, Failed> {
        let place = self.vms.get_mut(index.0 as usize).ok_or(Failed)?;
        if life.is_some_and(|life| life != place.life) {
            return Err(Failed);
        }
        let vm = place.vm.as_mut().ok_or(Failed)?;
        let done = act(vm, exchanges);
        self.log.extend(vm.take_log());
        if done.is_err() {
            for owner in vm.owners() {
                exchanges.orphan(owner.exchange, owner.filter);
            }
            place.vm = None;
        }
        done
    }

    /// Makes sure that a VM is live.
    fn revive(&mut self, exchanges: &mut Exchanges, index: VmIndex) -> Result<(), Failed> {
        let place = self.vms.get_mut(index.0 as usize).ok_or(Failed)?;
        if place.vm.is_some() {
            return Ok(());
        }
        place.life += 1;
        match Vm::start(&place.spec, (index, place.life), self.services.clone(), exchanges) {
            Ok(vm) => {
                place.vm = Some(vm);
                Ok(())
            }
            Err(log) => {
                self.log.extend(log);
                Err(Failed)
            }
        }
    }
}

impl Filters for Threads {
    fn open(&mut self, exchanges: &mut Exchanges, filter: &ChainFilter, owner: Owner) -> Result<ContextRef, NotOpened> {
        self.revive(exchanges, filter.vm)?;
        Ok(self.enter(exchanges, (filter.vm, None), |vm, exchanges| vm.open(exchanges, owner))?)
    }

    fn call(&mut self, exchanges: &mut Exchanges, context: ContextRef, callback: Callback) -> Result<u32, Failed> {
        let place = (context.vm, Some(context.life));
        self.enter(exchanges, place, |vm, exchanges| vm.callback(exchanges, context.id, callback))
    }

    fn close(&mut self, _: &mut Exchanges, context: ContextRef) {
        if let Some(place) = self.vms.get_mut(context.vm.0 as usize)
            && place.life == context.life
            && let Some(vm) = &mut place.vm
        {
            vm.close(context.id);
        }
    }
}

impl Guests for Threads {
    fn next_tick(&self) -> Option<Time> {
        self.vms.iter().filter_map(|place| place.vm.as_ref()?.next_tick()).min()
    }

    fn tick(&mut self, exchanges: &mut Exchanges) {
        for index in (0..self.vms.len()).filter_map(|index| u32::try_from(index).ok()).map(VmIndex) {
            let now = exchanges.now;
            let _failed = self.enter(exchanges, (index, None), |vm, exchanges| {
                if vm.next_tick().is_some_and(|due| due <= now) { vm.tick(exchanges) } else { Ok(()) }
            });
        }
    }

    fn deliver(&mut self, exchanges: &mut Exchanges, root: ContextRef, token: u32, response: CalloutResponse) {
        let place = (root.vm, Some(root.life));
        let _failed = self.enter(exchanges, place, |vm, exchanges| vm.deliver(exchanges, token, response));
    }

    fn hear(&mut self, exchanges: &mut Exchanges, root: ContextRef, token: u32, news: News) {
        let place = (root.vm, Some(root.life));
        let _failed = self.enter(exchanges, place, |vm, exchanges| vm.hear(exchanges, token, news));
    }

    fn read_letter(&mut self, exchanges: &mut Exchanges) -> bool {
        let Some(Letter { root, queue }) = self.services.next_letter() else { return false };
        let place = (root.vm, Some(root.life));
        // One that is meant for a life that is over has nobody to read it.
        let _failed = self.enter(exchanges, place, |vm, exchanges| vm.queue_ready(exchanges, queue));
        true
    }

    fn take_log(&mut self) -> Vec<Line> {
        for place in &mut self.vms {
            if let Some(vm) = &mut place.vm {
                self.log.extend(vm.take_log());
            }
        }
        std::mem::take(&mut self.log)
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads").field("vms", &self.vms.len()).finish_non_exhaustive()
    }
}
