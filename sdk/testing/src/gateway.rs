//! The gateway of a test: built, started, asked.

use std::fmt;
use std::time::Duration;

use portcullis_core::exchange::Exchanges;
use portcullis_core::filter::Chain;
use portcullis_core::time::Time;
use portcullis_simulation::{
    Call, Guests as _, Line, Origin, Outcome, Reply, Request, Seen, Simulation, Stub, numbered,
};

use crate::plugin::Plugin;
use crate::services::Services;
use crate::threads::Threads;

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
        let mut threads = Threads::new(self.services.clone());
        for plugin in &self.plugins {
            threads.add(plugin.spec(upstreams.clone()), &mut exchanges)?;
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
