//! Guests whose every callback is measured: by the clock, or by the instructions that they execute.

use std::time::Instant;

use portcullis_core::context::{CalloutResponse, ContextRef, Owner};
use portcullis_core::exchange::Exchanges;
use portcullis_core::filter::{Callback, ChainFilter, Failed, Filters, NotOpened, VmIndex};
use portcullis_core::grpc::News;
use portcullis_core::time::{Time, nanos};
use portcullis_simulation::{Guests, Line};

use crate::workshop::stage::Modules;

const CREATE: &str = "proxy_on_context_create";
const CALLOUT: &str = "proxy_on_http_call_response";
const TICK: &str = "proxy_on_tick";

/// What is read before and after a callback.
#[derive(Clone, Copy, Debug)]
pub(super) enum Meter {
    /// Nanoseconds; reading the clock takes some itself.
    Clock { since: Instant, reading: u64 },
    /// WebAssembly instructions.
    Instructions,
}

impl Meter {
    /// A clock, and how long it takes to be read here.
    pub(super) fn clock() -> Self {
        const TIMES: usize = 10_000;
        let since = Instant::now();
        let once = || nanos(since.elapsed()).abs_diff(nanos(since.elapsed()));
        let reading = (0..TIMES).map(|_| once()).min().unwrap_or(0);
        Self::Clock { since, reading }
    }

    fn read(&self, modules: &Modules) -> u64 {
        match self {
            Self::Clock { since, .. } => nanos(since.elapsed()),
            Self::Instructions => modules.0.instructions(VmIndex(0)).unwrap_or(0),
        }
    }

    /// What lies between two readings.
    fn between(&self, before: u64, after: u64) -> u64 {
        let all = after.saturating_sub(before);
        match self {
            Self::Clock { reading, .. } => all.saturating_sub(*reading),
            Self::Instructions => all,
        }
    }
}

/// The callback that news becomes.
fn heard(news: &News) -> &'static str {
    match news {
        News::Began(_) => "proxy_on_grpc_receive_initial_metadata",
        News::Message(_) => "proxy_on_grpc_receive",
        News::Trailers(_) => "proxy_on_grpc_receive_trailing_metadata",
        News::Ended(_) => "proxy_on_grpc_close",
    }
}

/// How often a callback was called, and what that cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    pub(super) name: &'static str,
    pub(super) calls: u64,
    pub(super) cost: u64,
}

/// A module in a VM, measured.
pub(super) struct Measured {
    pub(super) modules: Modules,
    meter: Meter,
    /// In the order in which they were first called.
    tallies: Vec<Tally>,
}

impl Measured {
    pub(super) fn new(modules: Modules, meter: Meter) -> Self {
        Self { modules, meter, tallies: Vec::new() }
    }

    /// What was counted since this was last asked.
    pub(super) fn take_tallies(&mut self) -> Vec<Tally> {
        let counted = self.tallies.clone();
        self.tallies.iter_mut().for_each(|tally| (tally.calls, tally.cost) = (0, 0));
        counted
    }

    fn measure<R>(&mut self, name: &'static str, act: impl FnOnce(&mut Modules) -> R) -> R {
        let before = self.meter.read(&self.modules);
        let result = act(&mut self.modules);
        let cost = self.meter.between(before, self.meter.read(&self.modules));
        match self.tallies.iter_mut().find(|tally| tally.name == name) {
            Some(tally) => (tally.calls, tally.cost) = (tally.calls + 1, tally.cost + cost),
            None => self.tallies.push(Tally { name, calls: 1, cost }),
        }
        result
    }
}

impl Filters for Measured {
    fn open(&mut self, exchanges: &mut Exchanges, filter: &ChainFilter, owner: Owner) -> Result<ContextRef, NotOpened> {
        self.measure(CREATE, |modules| modules.open(exchanges, filter, owner))
    }

    fn call(&mut self, exchanges: &mut Exchanges, context: ContextRef, callback: Callback) -> Result<u32, Failed> {
        self.measure(callback.export().name(), |modules| modules.call(exchanges, context, callback))
    }

    fn close(&mut self, exchanges: &mut Exchanges, context: ContextRef) {
        self.modules.close(exchanges, context);
    }
}

impl Guests for Measured {
    fn next_tick(&self) -> Option<Time> {
        self.modules.next_tick()
    }

    fn tick(&mut self, exchanges: &mut Exchanges) {
        self.measure(TICK, |modules| modules.tick(exchanges));
    }

    fn deliver(&mut self, exchanges: &mut Exchanges, root: ContextRef, token: u32, response: CalloutResponse) {
        self.measure(CALLOUT, |modules| modules.deliver(exchanges, root, token, response));
    }

    fn hear(&mut self, exchanges: &mut Exchanges, root: ContextRef, token: u32, news: News) {
        self.measure(heard(&news), |modules| modules.hear(exchanges, root, token, news));
    }

    fn read_letter(&mut self, exchanges: &mut Exchanges) -> bool {
        self.modules.read_letter(exchanges)
    }

    fn take_log(&mut self) -> Vec<Line> {
        self.modules.take_log()
    }

    fn wait(&mut self, now: Time, until: Time) {
        self.modules.wait(now, until);
    }
}
