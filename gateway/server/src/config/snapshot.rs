//! The configuration as workers read it: names are indices, defaults are filled in, nothing is left to fail.
//!
//! Made by `check` only. Immutable, shared by `Arc`; an exchange keeps the one it began with. What the gateway and each tenant have is
//! a share of their own ([`Share`]), which the next snapshot has too where it did not change.
//! **Invariant:** an index is used with the snapshot it came from, or with one that has the same share of whose it is.

mod rollout;
mod share;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use portcullis_core::admission::Rules;
use portcullis_core::downstream::Patience;
use portcullis_core::exchange::Times;
pub use portcullis_core::filter::{HeadersPause, OnFailure, Speaks};
pub use portcullis_core::forward::Forwarding;
use portcullis_core::health;
use portcullis_core::retry::Policy;
use portcullis_core::route::Router;
use portcullis_core::trace;
use portcullis_core::upgrade::Tunnels;
pub use portcullis_core::upstream::Balance;
use portcullis_core::upstream::Ejection;
pub use portcullis_vm::{Capabilities, CompileLimits, Isolation};
use sha2::{Digest as _, Sha256};

pub use self::rollout::Rollout;
use self::share::keep_clients;
pub use self::share::{FilterIndex, PluginIndex, RouteIndex, Share, Tenant, TenantIndex, Tenants, UpstreamIndex};
pub use super::file::{Protocol, ProxyProtocol, Service};
use super::standing::Held;
pub use super::written::{Endpoint, LogTarget, Module, Rate, Token};
use crate::config::ForwardedCertificate;
use crate::config::private::Configuration;
use crate::services::rate_limit::{OnFailure as OnStoreFailure, SharedLimits, StoreSettings};
use crate::tls::client::Client;
use crate::tls::server::Server;
use crate::upstream::reach::Reach;

/// The whole checked configuration.
#[derive(Debug)]
pub struct Snapshot {
    /// How many threads serve requests; `None` is one for each processor.
    pub workers: Option<u16>,
    /// How many clients' connections may be open at once; `None` is what descriptors allow.
    pub max_connections: Option<u32>,
    /// Where a line about each request goes.
    pub access_log: AccessLog,
    /// What is done about traces; `None` passes on what clients say of them.
    pub tracing: Option<trace::Policy>,
    /// The collector; `None` where there is none.
    pub otlp: Option<Otlp>,
    /// The addresses that requests are accepted on, by name.
    pub listeners: Vec<Arc<Listener>>,
    /// Where the gateway's own pages are served.
    pub admin: Option<Admin>,
    /// Where limits are counted for other gateways, and which.
    pub(crate) rate_limit: Option<RateLimitService>,
    /// How old an answer may be before a module on another machine is asked for again; `None` is for ever.
    pub refresh: Option<Duration>,
    /// How the gateway ends when it is told to.
    pub drain: Drain,
    /// One for every `tcp` listener.
    pub tcp_routes: Vec<TcpRoute>,
    /// What the gateway itself has, and everyone sees. Its chain is that of requests that no tenant owns and no route takes.
    pub gateway: Arc<Share>,
    /// Every tenant.
    pub tenants: Tenants,
    /// The tenants whose own files are not in use, and why.
    pub held: Arc<Held>,
    /// Finds routes, or the tenant whose host it is; `None` stands for the gateway.
    pub router: Router<Option<TenantIndex>, RouteIndex>,
}

/// What is written about each request, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    /// Where to.
    pub to: LogTarget,
    /// The share of requests, from 0 to 1. Those that fail are always written.
    pub sample: f64,
    /// Whether the collector gets it too.
    pub otlp: bool,
    /// Whether each line says what every filter did.
    pub filters: bool,
    /// Request header fields that are written too.
    pub request_headers: Vec<HeaderName>,
    /// Response header fields that are written too.
    pub response_headers: Vec<HeaderName>,
    /// Properties that filters leave and that are written too, by name.
    pub properties: Vec<String>,
}

impl AccessLog {
    /// One line for each request goes there.
    #[must_use]
    pub fn to(to: LogTarget) -> Self {
        let (request_headers, response_headers, properties) = (Vec::new(), Vec::new(), Vec::new());
        Self { to, sample: 1.0, otlp: false, filters: false, request_headers, response_headers, properties }
    }
}

/// The collector that is told of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Otlp {
    /// Where it listens.
    pub upstream: UpstreamIndex,
    /// What the gateway calls itself there.
    pub service: Arc<str>,
    /// Header fields of every request to it.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// An address that requests are accepted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// What logs and metrics call it.
    pub name: Arc<str>,
    /// The address.
    pub bind: SocketAddr,
    /// Networks whose word on the client's address is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// What it lets in where there is a choice.
    pub rules: Rules,
    /// How its connections are encrypted. What it reads from files changes with them.
    pub(crate) tls: Option<Arc<Server>>,
    /// What becomes of `x-forwarded-client-cert`.
    pub(crate) forwarded_certificate: ForwardedCertificate,
    /// Whether it holds the whole certificate.
    pub(crate) forwarded_pem: bool,
    /// Whether connections begin with a PROXY protocol header.
    pub proxy_protocol: ProxyProtocol,
    /// Which fields say who the client is.
    pub forwarding: Forwarding,
    /// How many connections may be open at once; `None` is as many as the process may have.
    pub max_connections: Option<u32>,
    /// How long clients may take.
    pub patience: Patience,
    /// What holds for HTTP/2 alone.
    pub http2: Http2,
    /// What is spoken on it.
    pub speaks: Speaks,
    /// Who is told how long a request took; `None` is nobody.
    pub server_timing: Option<ServerTiming>,
}

/// Who is told how long a request took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTiming {
    /// The field by which a request asks.
    pub header: HeaderName,
    /// Whether trusted proxies are not the only ones who may.
    pub from_anyone: bool,
}

/// Where the connections of a `tcp` listener go.
#[derive(Clone, Debug)]
pub struct TcpRoute {
    /// The listener's name.
    pub listener: Arc<str>,
    /// Whose it is; `None` is the gateway.
    pub tenant: Option<TenantIndex>,
    /// Its filters, outermost first.
    pub filters: Vec<FilterIndex>,
    /// Where its connections go.
    pub upstream: UpstreamIndex,
    /// How long a connection may be silent.
    pub idle: Duration,
}

/// What holds for HTTP/2 alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2 {
    /// Streams a client may have open at once.
    pub max_streams: u32,
    /// How long it may be silent before it is sent a PING; `None` is for ever.
    pub ping: Option<Duration>,
}

/// Where the gateway's own pages are served.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The address.
    pub bind: SocketAddr,
    /// What whoever asks for a page must show; nothing on a loopback address, perhaps.
    pub token: Option<Token>,
    /// How its connections are encrypted.
    pub(crate) tls: Option<Arc<Server>>,
    /// The directory of the tenants that are changed over it.
    pub tenants: Option<PathBuf>,
}

/// A service that counts for several gateways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RateLimitService {
    /// Where other gateways reach it; nowhere if absent.
    pub(crate) bind: Option<SocketAddr>,
    pub(crate) rules: Arc<SharedLimits>,
    pub(crate) store: StoreSettings,
    pub(crate) on_failure: OnStoreFailure,
}

/// How the gateway ends when it is told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How long it goes on as before while it says that it is not ready.
    pub delay: Duration,
    /// How long exchanges under way may then take to end.
    pub deadline: Duration,
}

/// A group of equal origins.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// What logs and metrics call it.
    pub name: Arc<str>,
    /// The tenant who alone sees it; `None` when everyone does.
    pub tenant: Option<TenantIndex>,
    /// That tenant's name; empty when everyone sees it.
    pub owner: Arc<str>,
    /// Where its origins listen; at least one, unless it is a service.
    pub endpoints: Vec<Endpoint>,
    /// The service of this gateway that it is.
    pub service: Option<Service>,
    /// How one is chosen.
    pub balance: Balance,
    /// What is spoken to them.
    pub protocol: Protocol,
    /// How long to wait for them.
    pub timeouts: Timeouts,
    /// When a request is tried again, where its route says nothing.
    pub retry: Policy,
    /// How much is asked of it at the same time, by all workers together.
    pub limits: UpstreamLimits,
    /// When an endpoint that fails is left alone.
    pub ejection: Ejection,
    /// How it is found out whether an endpoint is well.
    pub health: Option<Health>,
    /// How often names of endpoints are looked up.
    pub resolve: Duration,
    /// Which addresses its endpoints may have.
    pub reach: Reach,
    /// How connections to them are encrypted. What it reads from files changes with them.
    pub(crate) tls: Option<Arc<Client>>,
}

/// How much is asked of an upstream at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamLimits {
    /// Requests; `None`: any number.
    pub requests: Option<u32>,
    /// Connections; `None`: any number.
    pub connections: Option<u32>,
    /// Requests that wait for one of the connections.
    pub pending: u32,
}

/// A request that shows whether an endpoint is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Its path.
    pub path: http::uri::PathAndQuery,
    /// Its host; `None`: the endpoint's.
    pub host: Option<http::uri::Authority>,
    /// When it is made, and what it means.
    pub rules: health::Rules,
}

impl Upstream {
    /// Whether connections to one are as good as connections to the other. Whose they are is not compared: that is an index,
    /// and means nothing in another snapshot.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let Self { name, tenant: _, owner: _, endpoints, service, balance, protocol, timeouts, .. } = self;
        let Self { retry, limits, ejection, health, resolve, reach, tls, .. } = self;
        *name == other.name
            && *endpoints == other.endpoints
            && *service == other.service
            && *balance == other.balance
            && *protocol == other.protocol
            && *timeouts == other.timeouts
            && *retry == other.retry
            && *limits == other.limits
            && *ejection == other.ejection
            && *health == other.health
            && *resolve == other.resolve
            && *reach == other.reach
            && *tls == other.tls
    }
}

/// How long to wait for an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection to be made.
    pub connect: Duration,
    /// For a response to begin once the request has been sent. A route's own times are already in [`Route::times`].
    pub response: Duration,
    /// How long an unused connection is kept.
    pub idle: Duration,
    /// How long an exchange may be without progress.
    pub stream: Duration,
    /// For a whole exchange; `None`: any time.
    pub request: Option<Duration>,
}

/// A module with its bounds.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// What logs and metrics call it.
    pub name: Arc<str>,
    /// The tenant who alone sees it; `None` when everyone does.
    pub tenant: Option<TenantIndex>,
    /// Where the module was found.
    pub module: Module,
    /// The module itself: what was checked is what runs, whatever happens to the file.
    pub code: Bytes,
    /// Its SHA-256 digest, computed from `code`.
    pub digest: [u8; 32],
    /// What one running instance may use.
    pub limits: PluginLimits,
    /// What exchanges are kept apart by.
    pub isolation: Isolation,
    /// What happens to an exchange whose filter fails.
    pub on_failure: OnFailure,
    /// What a pause in a headers callback means.
    pub headers_pause: HeadersPause,
    /// Whether its VMs are there before they are needed; where nothing is said, the gateway's own are.
    pub warm: Option<bool>,
    /// How long the others stay when nobody needs them.
    pub idle: Duration,
    /// The functions of the ABI that its module may use.
    pub capabilities: Capabilities,
    /// What tells its VMs' shared data and queues from those of others of the same tenant.
    pub vm_id: Arc<str>,
    /// What its VMs are configured with, as it is written; or, for a module of the SDK's, what that cannot ask a host.
    pub vm_config: Configuration,
    /// Its next version, if one is rolled out.
    pub rollout: Option<Rollout>,
}

/// What one running instance of a plugin may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PluginLimits {
    /// Memory in bytes, a multiple of 64 KiB up to 4 GiB.
    pub memory: u64,
    /// Processor time of one callback, at least 1 ms.
    pub cpu: Duration,
    /// What compiling its module may take.
    pub compile: CompileLimits,
}

impl Plugin {
    /// How long its VMs on behalf of this tenant stay when nobody needs them; nothing where they always do.
    #[must_use]
    pub fn idle(&self, tenant: Option<TenantIndex>) -> Option<Duration> {
        let warm = self.warm.unwrap_or(tenant.is_none());
        (!warm).then_some(self.idle)
    }
}

/// A plugin with its configuration: a root context.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Filter {
    /// The plugin.
    pub plugin: PluginIndex,
    /// The tenant on whose behalf it runs: whoever placed it, not whoever owns the plugin. `None` is the gateway.
    pub tenant: Option<TenantIndex>,
    /// What the plugin is configured with.
    pub config: Configuration,
}

/// What applies to the requests that fit a match.
#[derive(Clone, Debug)]
pub struct Route {
    /// What logs and metrics call it; unique within its tenant.
    pub name: Arc<str>,
    /// Whose it is; `None` is the gateway.
    pub tenant: Option<TenantIndex>,
    /// The path pattern as it was written.
    pub pattern: Arc<str>,
    /// Its whole chain, outermost first: the gateway's filters, the tenant's, its own; skipped ones left out.
    pub filters: Vec<FilterIndex>,
    /// Where its requests go.
    pub upstream: UpstreamIndex,
    /// How long its exchanges may take.
    pub times: Times,
    /// When its requests are tried again.
    pub retry: Policy,
    /// What its requests may leave HTTP for.
    pub tunnels: Tunnels,
}

impl Snapshot {
    /// How many threads serve requests.
    #[must_use]
    pub fn worker_count(&self) -> usize {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        self.workers.map_or_else(processors, usize::from)
    }

    /// A name for what is configured that is the same wherever the same is: of the configuration as written and of the modules'
    /// code, not of secrets.
    #[must_use]
    pub fn digest(&self) -> String {
        // A sum does not depend on the order of the tenants, and takes no sorting.
        let mut sum = [0_u64; 4];
        for tenant in self.tenants.iter() {
            for (sum, bytes) in sum.iter_mut().zip(tenant.digest.as_chunks().0) {
                *sum = sum.wrapping_add(u64::from_le_bytes(*bytes));
            }
        }
        let digest = Sha256::new_with_prefix(self.gateway.digest);
        let digest = sum.iter().fold(digest, |digest, part| digest.chain_update(part.to_le_bytes()));
        digest.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }

    /// What differs in another configuration and can only be had by starting anew.
    #[must_use]
    pub fn only_at_start(&self, other: &Self) -> Vec<&'static str> {
        let differs = [
            ("workers", self.workers != other.workers),
            ("access_log", self.access_log != other.access_log),
            ("admin.bind", self.admin.as_ref().map(|admin| admin.bind) != other.admin.as_ref().map(|admin| admin.bind)),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }

    /// Goes on with the TLS of an earlier snapshot wherever it is meant to be the same: with its sessions, and with the last good
    /// files.
    pub(crate) fn keep_tls_of(&mut self, earlier: &Self) {
        if let (Some(admin), Some(before)) = (&mut self.admin, &earlier.admin)
            && admin.tls == before.tls
        {
            admin.tls.clone_from(&before.tls);
        }
        for listener in &mut self.listeners {
            let mut before = earlier.listeners.iter().filter_map(|before| before.tls.as_ref());
            if let Some(same) = before.find(|before| listener.tls.as_ref() == Some(before)) {
                Arc::make_mut(listener).tls = Some(same.clone());
            }
        }
        if !Arc::ptr_eq(&self.gateway, &earlier.gateway) {
            keep_clients(&mut self.gateway, &earlier.gateway);
        }
        self.tenants.keep_clients_of(&earlier.tenants);
    }

    /// The configuration as it was written, all files merged, secrets by reference only.
    #[must_use]
    pub fn dump(&self) -> serde_json::Value {
        let mut written = serde_json::Value::clone(&self.gateway.written);
        if let Some(sections) = written.as_object_mut().filter(|_| !self.tenants.is_empty()) {
            let tenants = self.tenants.iter().map(|tenant| (tenant.name.to_string(), tenant.dump()));
            sections.insert("tenants".to_owned(), serde_json::Value::Object(tenants.collect()));
        }
        written
    }
}
