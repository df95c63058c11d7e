//! The configuration as operators write it.
//!
//! The JSON Schema, its descriptions and the structural check are derived from these types: their doc comments are the
//! reference that users read. What names mean and whether things fit together is left to `check`.
//! **Invariant:** every type has a default, so that a file with problems can still be typed and all its problems found;
//! what must be written is listed in the schema's `required` instead.

mod grants;
mod modules;
mod observe;
mod plugin;
mod rollout;
mod services;
mod tls;
mod upstream;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use portcullis_core::downstream::Patience;
use portcullis_core::upgrade::Upgrade;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::defaults;
use super::written::{ByteRate, CpuShare, Rate, Size, Text, Token};
use crate::config::private::Private;

pub(crate) use self::grants::{Grants, PluginBounds, TenantDefaults, TightenOnly};
pub(crate) use self::modules::{Modules, Registry, TenantModules};
pub(crate) use self::observe::{AccessLog, AccessLogSettings, Askers, Otlp, Parents, ServerTiming, Tracing};
pub(crate) use self::plugin::{Isolation, OnFailure, Plugin, PluginLimits};
pub(crate) use self::rollout::{Candidate, Rollout};
pub(crate) use self::services::{OnStoreFailure, Redis, ServiceLimit, Services};
pub(crate) use self::tls::{
    ClientAuth, ClientAuthMode, ForwardClientCertificate, ForwardedCertificate, ListenerTls, TlsVersion,
};
pub(crate) use self::upstream::{Balance, Ejection, Health, Retries, RetryOn, RouteTimeouts, Timeouts, Upstream};
pub use self::upstream::{Protocol, Service};

/// The configuration of a Portcullis gateway.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["version", "listeners"]))]
pub(crate) struct File {
    /// The version of this format. The only one is 1.
    #[schemars(range(min = 1, max = 1))]
    pub(crate) version: u32,
    /// How many threads serve requests. Absent: one for each processor.
    #[schemars(range(min = 1, max = 1024))]
    pub(crate) workers: Option<u16>,
    /// How many clients' connections may be open at once, over all listeners. Absent: half of what the process may open, so that
    /// each can have one to an upstream.
    #[schemars(range(min = 1))]
    pub(crate) max_connections: Option<u32>,
    /// Where a line about each request goes.
    pub(crate) access_log: AccessLog,
    /// Which requests are traced. Absent: none, and what clients say of their traces is passed on as it is.
    #[schemars(extend("x-explicit" = true))]
    pub(crate) tracing: Option<Tracing>,
    /// The collector that traces and, if asked, the access log are sent to. Absent: nowhere.
    pub(crate) otlp: Option<Otlp>,
    /// What the gateway offers beside passing requests on.
    pub(crate) services: Services,
    /// Where the gateway's own pages (`/live`, `/ready`, `/metrics`, `/config`) are served. Absent: nowhere.
    pub(crate) admin: Option<Admin>,
    /// How the gateway ends when it is told to.
    pub(crate) drain: Drain,
    /// The addresses that requests are accepted on, by name.
    #[schemars(extend("minProperties" = 1))]
    pub(crate) listeners: BTreeMap<String, Listener>,
    /// The origins that requests are sent to, by name. These are shared with every tenant.
    pub(crate) upstreams: BTreeMap<String, Upstream>,
    /// How modules of plugins are fetched from other machines, and whose signatures they need.
    pub(crate) modules: Modules,
    /// The modules that filters may use, by name. These are shared with every tenant.
    pub(crate) plugins: BTreeMap<String, Plugin>,
    /// Lists of filters that can be used by name wherever a filter can stand.
    pub(crate) policies: BTreeMap<String, Vec<Filter>>,
    /// The filters of every request, outermost first.
    pub(crate) filters: Vec<Filter>,
    /// What holds for every tenant whose own entry says nothing else.
    pub(crate) tenant_defaults: TenantDefaults,
    /// What holds before that for tenants by their names: a name, or the beginning of names with `*`. A name itself comes first, then the
    /// longest beginning.
    pub(crate) tenant_tiers: BTreeMap<String, TenantDefaults>,
    /// Who owns hosts, and what applies to requests for those hosts, by name.
    pub(crate) tenants: BTreeMap<String, Tenant>,
    /// Routes for hosts that no tenant owns.
    pub(crate) routes: Vec<Route>,
}

/// The gateway's own pages.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["bind"]))]
pub(crate) struct Admin {
    /// The address and port to listen on: a loopback address, unless there is a `token` or `tls.client_auth`.
    pub(crate) bind: Text<SocketAddr>,
    /// What whoever asks for a page must show, as `Authorization: Bearer`; `/live` and `/ready` are open to all. By reference
    /// (`${file:…}`, `${env:…}`), or as `sha256:` with the digest of the token in hexadecimal digits.
    pub(crate) token: Option<Text<Token>>,
    /// How connections are encrypted. Absent: not at all. With `client_auth`, a certificate that is good will do in place of the
    /// token.
    pub(crate) tls: Option<ListenerTls>,
    /// The directory of the tenants that `/v1/tenants` makes, changes and removes: for each a folder with its `tenant.yaml`, which
    /// has what would stand under `tenants.NAME`, and its modules. Needs `token` or `tls.client_auth`. Absent: there are none.
    pub(crate) tenants: Option<String>,
}

/// How the gateway ends when it is told to.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Drain {
    /// How long it goes on as before while `/ready` answers 503, so that load balancers notice. Default: not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delay: Option<Text<Duration>>,
    /// How long requests under way may then take to end.
    pub(crate) deadline: Text<Duration>,
}

/// An address that connections are accepted on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["bind"]))]
pub(crate) struct Listener {
    /// The address and port to listen on.
    pub(crate) bind: Text<SocketAddr>,
    /// What is spoken on it.
    pub(crate) protocol: Speaks,
    /// Where the connections of a `tcp` listener go: an upstream with `protocol: tcp`.
    pub(crate) upstream: Option<String>,
    /// The filters of a `tcp` listener's connections, outermost first. Those of `filters:` at the top see requests only.
    pub(crate) filters: Vec<Filter>,
    /// On whose behalf a `tcp` listener's filters run, and whose upstreams and plugins it may name beside the shared ones.
    /// Absent: the gateway's.
    pub(crate) tenant: Option<String>,
    /// Networks of proxies in front of the gateway: what they say of the client's address is believed. Default: none.
    pub(crate) trusted_proxies: Vec<Text<IpNet>>,
    /// What becomes of header fields with an underscore in their name.
    pub(crate) underscores_in_headers: Underscores,
    /// What becomes of `%2F`, `%5C` and `\` in a path.
    pub(crate) encoded_slashes: EncodedSlashes,
    /// How connections are encrypted. Absent: not at all.
    #[schemars(extend("x-explicit" = true))]
    pub(crate) tls: Option<ListenerTls>,
    /// What upstreams are told of the client's certificate, in `x-forwarded-client-cert`.
    pub(crate) forward_client_certificate: ForwardClientCertificate,
    /// Whether connections begin with a PROXY protocol header, version 1 or 2. Only `trusted_proxies` may send one.
    pub(crate) proxy_protocol: ProxyProtocol,
    /// Which fields say who the client is: they are read from `trusted_proxies` only, and written for upstreams.
    pub(crate) forwarding: Forwarding,
    /// How many connections may be open at once. Absent: as many as the process may have.
    #[schemars(range(min = 1))]
    pub(crate) max_connections: Option<u32>,
    /// How long clients may take.
    pub(crate) timeouts: ClientTimeouts,
    /// What holds for HTTP/2 alone.
    pub(crate) http2: Http2,
    /// Who is told how long a request took, in `server-timing`. Absent: nobody.
    #[schemars(extend("x-explicit" = true))]
    pub(crate) server_timing: Option<ServerTiming>,
}

/// What is spoken on a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Speaks {
    /// HTTP/1.1, and HTTP/2 with prior knowledge or, with `tls`, by ALPN.
    #[default]
    Http,
    /// Bytes, which pass the listener's own filters on their way to its upstream and back.
    Tcp,
}

/// What becomes of header fields with an underscore in their name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Underscores {
    /// They are left out: some origins take `x_user` for `x-user`, and would believe a client's where they should believe yours.
    #[default]
    Drop,
    /// The request is refused.
    Reject,
    /// They are fields like any other.
    Allow,
}

/// What becomes of encoded slashes in a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EncodedSlashes {
    /// The request is refused.
    #[default]
    Reject,
    /// They stay encoded, as part of one segment.
    Keep,
    /// They become slashes.
    Decode,
}

/// Whether connections begin with a PROXY protocol header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocol {
    /// They do not.
    #[default]
    Off,
    /// Those of `trusted_proxies` may.
    Optional,
    /// All must, so only `trusted_proxies` can connect.
    Required,
}

/// Which fields say who the client is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Forwarding {
    /// `x-forwarded-for`, `-proto`, `-host` and `-port`; `forwarded` is removed.
    #[default]
    XForwarded,
    /// `forwarded` (RFC 7239); the others are removed.
    Forwarded,
    /// `x-forwarded-*` are read, all are written.
    Both,
}

/// How long clients may take.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ClientTimeouts {
    /// For the head of a request: the first from when the connection was accepted, later ones from their first byte.
    pub(crate) header: Text<Duration>,
    /// For the next request on a connection without any.
    pub(crate) idle: Text<Duration>,
    /// For the next piece of a body to be sent, or to be taken. On a `tcp` listener: for anything to move in either direction.
    pub(crate) stream_idle: Text<Duration>,
    /// For a whole request to come in. Absent: no limit, for uploads and streams.
    pub(crate) request: Option<Text<Duration>>,
}

/// What holds for HTTP/2 alone.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Http2 {
    /// How many requests a client may have open at once on one connection.
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) max_streams: u32,
    /// How long a client may be silent before it is sent a PING; without an answer within 20s its connection is closed. Absent:
    /// no PINGs.
    pub(crate) ping: Option<Text<Duration>>,
}

/// One entry of a list of filters: a plugin with its configuration, or a policy.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("oneOf" = [{ "required": ["plugin"] }, { "required": ["policy"] }]))]
pub(crate) struct Filter {
    /// What routes call it when they skip it. Default: the name of its plugin or policy.
    pub(crate) name: Option<String>,
    /// The plugin to run.
    pub(crate) plugin: Option<String>,
    /// The policy whose filters stand here.
    pub(crate) policy: Option<String>,
    /// What the plugin is configured with: a string is passed as it is, anything else as JSON. Only with `plugin`.
    pub(crate) config: Option<Private>,
    /// Whether routes may skip it.
    pub(crate) optional: bool,
}

/// An owner of hosts.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["hosts"]))]
pub(crate) struct Tenant {
    /// The hosts that belong to this tenant and to no other. `*.` stands for one or more labels.
    #[schemars(length(min = 1))]
    pub(crate) hosts: Vec<String>,
    /// What the tenant may use in all.
    pub(crate) limits: TenantLimits,
    /// What the tenant may say in files of its own. Key by key, the grants of its tier or `tenant_defaults.grants` where this says nothing.
    pub(crate) grants: Grants,
    /// Which modules its own files may fetch, and whose signatures they need. What is absent is as `modules.tenants` says.
    pub(crate) modules: TenantModules,
    /// A file or a directory of `.yaml` files with more of this tenant's `upstreams`, `plugins`, `policies`, `filters` and
    /// `routes`, relative to this file. Those files may not name files outside that directory, nor read the environment.
    pub(crate) include: Option<String>,
    /// Upstreams that only this tenant sees.
    pub(crate) upstreams: BTreeMap<String, Upstream>,
    /// Plugins that only this tenant sees.
    pub(crate) plugins: BTreeMap<String, Plugin>,
    /// Policies that only this tenant sees.
    pub(crate) policies: BTreeMap<String, Vec<Filter>>,
    /// The filters of every request to this tenant's hosts, after the gateway's own, outermost first.
    pub(crate) filters: Vec<Filter>,
    /// Where requests to this tenant's hosts go.
    pub(crate) routes: Vec<Route>,
}

/// What a tenant may use in all.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TenantLimits {
    /// Requests in a time.
    pub(crate) requests: Option<Text<Rate>>,
    /// Requests at the same time.
    #[schemars(range(min = 1))]
    pub(crate) in_flight: Option<u32>,
    /// Processor time of the tenant's plugins in each second.
    pub(crate) cpu: Option<Text<CpuShare>>,
    /// Memory of all the tenant's plugins together.
    pub(crate) memory: Option<Text<Size>>,
    /// Calls of the tenant's plugins to upstreams in a time, gRPC calls and streams included.
    pub(crate) callouts: Option<Text<Rate>>,
    /// Such calls at the same time.
    #[schemars(range(min = 1))]
    pub(crate) callouts_in_flight: Option<u32>,
    /// What the tenant's plugins log in each second.
    pub(crate) log: Option<Text<ByteRate>>,
    /// The data that the tenant's plugins share. An entry takes at most a sixteenth of it. Default: `16MiB`.
    pub(crate) shared_data: Option<Text<Size>>,
}

/// A match, and what applies to the requests that fit it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "match", "upstream"]))]
pub(crate) struct Route {
    /// What logs and metrics call it. Unique within its tenant.
    #[schemars(length(min = 1))]
    pub(crate) name: String,
    /// The requests that fit. No two routes may fit the same requests equally well: file order never decides.
    pub(crate) r#match: Match,
    /// Its filters, after the gateway's and the tenant's, outermost first.
    pub(crate) filters: Vec<Filter>,
    /// Names of the gateway's or the tenant's filters that do not apply here. Only `optional` ones can be skipped.
    pub(crate) skip: Vec<String>,
    /// The upstream that its requests are sent to.
    pub(crate) upstream: String,
    /// How long the upstream may take to begin its response. Default: the upstream's `timeouts.response`.
    pub(crate) timeout: Option<Text<Duration>>,
    /// How long its exchanges may take beyond that.
    pub(crate) timeouts: RouteTimeouts,
    /// When its requests are tried again. Default: the upstream's `retries`.
    pub(crate) retries: Option<Retries>,
    /// The protocols that its requests may leave HTTP for, `websocket` above all. What they then send passes no filter.
    /// Default: none.
    pub(crate) upgrades: Vec<Text<Upgrade>>,
    /// How long an upgraded connection may be silent. Default: `5m`.
    pub(crate) tunnel_idle: Option<Text<Duration>>,
}

/// Which requests fit a route: all the conditions that are written must hold.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["path"]))]
pub(crate) struct Match {
    /// Hosts, each an exact name or `*.` with one. A tenant's route chooses among the tenant's hosts. Default: all.
    pub(crate) hosts: Vec<String>,
    /// The path: literal segments, `{name}` for any one segment, and `*` at the end for any rest.
    pub(crate) path: String,
    /// Methods. Default: all.
    pub(crate) methods: Vec<Text<http::Method>>,
    /// Header fields and the values they must have.
    pub(crate) headers: BTreeMap<String, String>,
    /// Query parameters and the values they must have.
    pub(crate) query: BTreeMap<String, String>,
}

const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl Default for Admin {
    fn default() -> Self {
        Self { bind: Text(NOWHERE), token: None, tls: None, tenants: None }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self { delay: None, deadline: Text(defaults::DRAIN) }
    }
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            bind: Text(NOWHERE),
            protocol: Speaks::default(),
            upstream: None,
            filters: Vec::new(),
            tenant: None,
            trusted_proxies: Vec::new(),
            underscores_in_headers: Underscores::default(),
            encoded_slashes: EncodedSlashes::default(),
            tls: None,
            forward_client_certificate: ForwardClientCertificate::default(),
            proxy_protocol: ProxyProtocol::default(),
            forwarding: Forwarding::default(),
            max_connections: None,
            timeouts: ClientTimeouts::default(),
            http2: Http2::default(),
            server_timing: None,
        }
    }
}

impl Default for ClientTimeouts {
    fn default() -> Self {
        let Patience { header, idle, stream_idle, request } = Patience::DEFAULT;
        Self { header: Text(header), idle: Text(idle), stream_idle: Text(stream_idle), request: request.map(Text) }
    }
}

impl Default for Http2 {
    fn default() -> Self {
        Self { max_streams: defaults::MAX_STREAMS, ping: None }
    }
}
