//! What tenants are granted, as operators write it.

use std::time::Duration;

use ipnet::IpNet;
use portcullis_core::route::HostPattern;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Isolation, RouteTimeouts, TenantLimits};
use crate::config::granted::{Capability, ModulePattern, Pattern};
use crate::config::written::{Size, Text};

/// What holds for tenants whose own entry says nothing else.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TenantDefaults {
    /// What each may use in all, key by key. A tenant of `admin.tenants` may set itself less, and never more.
    pub(crate) limits: TenantLimits,
    /// What each may say in files of its own, key by key.
    pub(crate) grants: Grants,
}

/// What a tenant may say in files of its own: those of its `include`, and those of `admin.tenants`. What the gateway's own files
/// say of it needs no grant.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Grants {
    /// Hosts that a tenant of `admin.tenants` may claim: a host itself, or with `*.` those below it. Default: all that no other
    /// tenant has.
    #[schemars(extend("x-explicit" = true))]
    pub(crate) hosts: Option<Vec<Text<HostPattern>>>,
    /// The gateway's upstreams that its routes may send to, and the only ones of the gateway's that its filters may call: names, or
    /// beginnings of names with `*`. Default: all.
    #[schemars(extend("x-explicit" = true))]
    pub(crate) upstreams: Option<Vec<Text<Pattern>>>,
    /// Networks that the endpoints of its own upstreams may lie in; names, as they resolve. Default: all, but not this machine
    /// (loopback), its link (link-local), multicast, nor where clouds keep a machine's credentials.
    #[schemars(extend("x-explicit" = true))]
    pub(crate) networks: Option<Vec<Text<IpNet>>>,
    /// The modules that its own plugins may use: references, or beginnings of references with `*`, or `sha256:` with a digest.
    /// Default: all.
    #[schemars(extend("x-explicit" = true))]
    pub(crate) plugins: Option<Vec<Text<ModulePattern>>>,
    /// The functions of the ABI that modules of its own plugins may use. Default: all.
    #[schemars(extend("x-explicit" = true))]
    pub(crate) capabilities: Option<Vec<Text<Capability>>>,
    /// Values that it may lower, and not raise.
    pub(crate) tighten_only: TightenOnly,
}

/// Values that a tenant may lower, and not raise. Where it says nothing, they hold unless the default is less.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TightenOnly {
    /// `timeout` of its routes.
    pub(crate) timeout: Option<Text<Duration>>,
    /// `timeouts` of its routes.
    pub(crate) timeouts: RouteTimeouts,
    /// `limits` of its plugins.
    pub(crate) limits: PluginBounds,
    /// `isolation` of its plugins: with `request`, none of them runs otherwise. Absent: as they say.
    #[schemars(extend("x-explicit" = true))]
    pub(crate) isolation: Option<Isolation>,
}

/// What instances of a tenant's plugins may use at most.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PluginBounds {
    /// Memory.
    pub(crate) memory: Option<Text<Size>>,
    /// Processor time in one call from the gateway.
    pub(crate) cpu: Option<Text<Duration>>,
    /// What compiling a module may take.
    pub(crate) compile: CompileBounds,
}

/// What compiling a module of a tenant's may take at most; unless told otherwise what any may where nothing is said.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CompileBounds {
    /// Processor time, in whole seconds.
    pub(crate) cpu: Option<Text<Duration>>,
    /// Memory.
    pub(crate) memory: Option<Text<Size>>,
}
