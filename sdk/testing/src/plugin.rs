//! Plugins as a test writes them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use portcullis_core::context::UpstreamId;
use portcullis_core::filter::{ChainFilter, Export, Exports, HeadersPause, OnFailure, VmIndex};

use crate::thread::Spec;

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

    /// What its VM is started with, with these upstreams.
    pub(crate) fn spec(&self, upstreams: Arc<HashMap<Box<str>, UpstreamId>>) -> Spec {
        Spec {
            name: self.name.clone(),
            entry: self.entry,
            config: self.config.clone(),
            vm_config: self.vm_config.clone(),
            upstreams,
        }
    }

    pub(crate) fn filter(&self, index: u32) -> ChainFilter {
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
