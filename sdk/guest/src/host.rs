//! What a filter asks of the host beside its exchanges.

use std::fmt;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::executor;
use crate::metric::{Counter, Gauge, Histogram};
use crate::root::{Background, Root};
use crate::sys;
use crate::timer::sleep;

/// The host, as [`Filter::start`](crate::Filter::start) gets it; a filter keeps a clone for later.
///
/// ```
/// # use portcullis_sdk::{secs, Host, Upstream};
/// fn refresh(host: &Host, idp: Upstream) {
///     host.every(secs(300), move || {
///         let idp = idp.clone();
///         async move {
///             if let Err(why) = idp.get("/jwks.json").send().await {
///                 log::warn!("no keys: {why}");
///             }
///         }
///     });
/// }
/// ```
#[derive(Clone)]
pub struct Host {
    root: Rc<Root>,
}

impl Host {
    pub(crate) fn new(root: Rc<Root>) -> Self {
        Self { root }
    }

    /// Whether a head is held while its body is collected, so that it can still be changed afterwards: the filter declares
    /// `HOLDS_HEADERS`, and the host lets it.
    ///
    /// ```
    /// # use portcullis_sdk::{Host, StartError};
    /// fn checked(host: &Host) -> Result<(), StartError> {
    ///     if host.holds_heads() { Ok(()) } else { Err(StartError::new("this host cannot refuse a response for its body")) }
    /// }
    /// ```
    #[must_use]
    pub fn holds_heads(&self) -> bool {
        self.root.holds_heads.get()
    }

    /// Whether a filter that declares `HOLDS_HEADERS` may give a body to a request that has none, and add to a body when its
    /// trailers are there ([`TrailersMut::append_to_body`](crate::HeadersMut::append_to_body)). Portcullis lets it; Envoy does not.
    ///
    /// ```
    /// # use portcullis_sdk::{Host, StartError};
    /// fn checked(host: &Host) -> Result<(), StartError> {
    ///     if host.adds_bodies() { Ok(()) } else { Err(StartError::new("this host cannot turn a GET into a POST")) }
    /// }
    /// ```
    #[must_use]
    pub fn adds_bodies(&self) -> bool {
        self.root.adds_bodies.get()
    }

    /// Runs something beside the exchanges, to its end.
    ///
    /// ```
    /// # use portcullis_sdk::{Host, Upstream};
    /// fn tell(host: &Host, audit: Upstream) {
    ///     host.spawn(async move { _ = audit.post("/started", "").send().await });
    /// }
    /// ```
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        let task = Rc::new(Background::new(Rc::clone(&self.root), future));
        let id = executor::Task::id(&*task);
        executor::keep(task);
        executor::wake(id);
    }

    /// Runs something now, and again `period` after each time it has ended.
    ///
    /// ```
    /// # use std::{cell::Cell, rc::Rc};
    /// # use portcullis_sdk::{Host, secs};
    /// fn minutes(host: &Host) -> Rc<Cell<u32>> {
    ///     let minutes = Rc::new(Cell::new(0));
    ///     let passed = Rc::clone(&minutes);
    ///     host.every(secs(60), move || {
    ///         passed.set(passed.get() + 1);
    ///         async {}
    ///     });
    ///     minutes
    /// }
    /// ```
    pub fn every<F>(&self, period: Duration, mut make: impl FnMut() -> F + 'static)
    where
        F: Future<Output = ()> + 'static,
    {
        self.spawn(async move {
            loop {
                make().await;
                sleep(period).await;
            }
        });
    }

    /// The wall clock; it may step backwards.
    ///
    /// ```
    /// # use portcullis_sdk::Host;
    /// fn is_past(host: &Host, expires: std::time::SystemTime) -> bool {
    ///     host.now() > expires
    /// }
    /// ```
    #[must_use]
    pub fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(sys::now())
    }

    /// A metric that only grows.
    ///
    /// ```
    /// # use portcullis_sdk::Host;
    /// fn count(host: &Host) {
    ///     host.counter("geo_refused").increment();
    /// }
    /// ```
    #[must_use]
    pub fn counter(&self, name: &str) -> Counter {
        Counter::new(name)
    }

    /// A metric that goes up and down.
    ///
    /// ```
    /// # use portcullis_sdk::Host;
    /// fn tell(host: &Host, keys: usize) {
    ///     host.gauge("auth_keys").set(keys as u64);
    /// }
    /// ```
    #[must_use]
    pub fn gauge(&self, name: &str) -> Gauge {
        Gauge::new(name)
    }

    /// A metric that is a distribution.
    ///
    /// ```
    /// # use portcullis_sdk::Host;
    /// fn tell(host: &Host, body: &[u8]) {
    ///     host.histogram("body_bytes").record(body.len() as u64);
    /// }
    /// ```
    #[must_use]
    pub fn histogram(&self, name: &str) -> Histogram {
        Histogram::new(name)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("root", &self.root).finish()
    }
}
