//! Plugins, as operators write them: modules with their bounds.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Rollout;
use crate::config::defaults;
use crate::config::granted::Capability;
use crate::config::private::Private;
use crate::config::written::{Digest, Module, Size, Text};

/// A module with its bounds.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["module"]))]
pub(crate) struct Plugin {
    /// The WebAssembly module: `builtin:NAME` for one that comes with the gateway, `file:PATH`, relative to this file,
    /// `oci://HOST/REPOSITORY:TAG` or `oci://HOST/REPOSITORY@sha256:DIGEST` for one in a registry, or `https://…`.
    pub(crate) module: Text<Module>,
    /// The SHA-256 digest that the module must have, in hexadecimal digits.
    pub(crate) sha256: Option<Text<Digest>>,
    /// What one running instance may use.
    pub(crate) limits: PluginLimits,
    /// What happens to a request whose filter fails: traps, or exceeds its limits.
    pub(crate) on_failure: OnFailure,
    /// What one request's filter shares with another's.
    pub(crate) isolation: Isolation,
    /// Whether its VMs are started with the configuration and stay. Those that are not are started for their first request, and go
    /// away when they have been idle. Default: those that run for a tenant are not.
    #[schemars(extend("x-explicit" = true))]
    pub(crate) warm: Option<bool>,
    /// How long a VM that is not warm stays without a request. Default: 60s.
    pub(crate) idle: Option<Text<Duration>>,
    /// The functions of the ABI that its module may use: hostcalls, WASI's functions and callbacks by their names, as in Envoy's
    /// `capability_restriction_config`. Default: all.
    #[schemars(length(min = 1), extend("x-explicit" = true))]
    pub(crate) capabilities: Option<Vec<Text<Capability>>>,
    /// What tells the shared data and queues of its VMs from those of others: they have them in common with VMs that run for the same
    /// tenant and have the same `vm_id`, and with no other tenant's. Guests read it as `plugin_vm_id`.
    pub(crate) vm_id: String,
    /// What its VMs are configured with, which `proxy_on_vm_start` is told of: a string is passed as it is, anything else as JSON.
    pub(crate) vm_config: Option<Private>,
    /// Whether a plugin that answers "stop iteration" to headers goes on being shown the body, as Envoy's option of this name
    /// has it. If not, the whole stream stops. Default: as the module's manifest asks, which those of the SDK have.
    #[schemars(extend("x-explicit" = true))]
    pub(crate) allow_on_headers_stop_iteration: Option<bool>,
    /// The plugin's next version, tried on a share of the exchanges. Absent: there is none.
    pub(crate) rollout: Option<Rollout>,
}

/// What one running instance of a plugin may use.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PluginLimits {
    /// Memory, in units of 64KiB.
    pub(crate) memory: Text<Size>,
    /// Processor time in one call from the gateway.
    pub(crate) cpu: Text<Duration>,
    /// What compiling the module may take, in a process of its own.
    pub(crate) compile: CompileLimits,
}

/// What compiling a module may take.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CompileLimits {
    /// Processor time, in whole seconds.
    pub(crate) cpu: Text<Duration>,
    /// Memory.
    pub(crate) memory: Text<Size>,
}

/// What happens to a request whose filter fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnFailure {
    /// It is answered with 503.
    #[default]
    Closed,
    /// It goes on without the filter.
    Open,
}

/// What filters of one plugin share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Isolation {
    /// All that run for one tenant share a VM on each worker, and what the module keeps in its memory.
    #[default]
    Vm,
    /// Each request, and each TCP connection, has a VM of its own: a copy of the one that was started, as it was when nothing had
    /// come to it. It ends with the request.
    Request,
}

impl Default for PluginLimits {
    fn default() -> Self {
        let (memory, cpu) = (Text(Size(defaults::PLUGIN_MEMORY)), Text(defaults::PLUGIN_CPU));
        Self { memory, cpu, compile: CompileLimits::default() }
    }
}

impl Default for CompileLimits {
    fn default() -> Self {
        let portcullis_vm::CompileLimits { cpu, memory } = portcullis_vm::CompileLimits::default();
        Self { cpu: Text(cpu), memory: Text(Size(memory)) }
    }
}
