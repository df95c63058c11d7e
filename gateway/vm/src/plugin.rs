//! What a VM is made of: a module with its configuration and budgets.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use portcullis_core::context::UpstreamId;
use portcullis_core::rollout::Version;
use portcullis_core::tenant::Account;

use crate::module::Module;

/// One VM of every worker: the unit of isolation.
#[derive(Clone, Debug)]
pub struct VmSpec {
    /// Whose it is; nobody's for the gateway's own plugins. Two tenants never share a VM, nor its shared data.
    pub tenant: Option<Arc<str>>,
    /// What tells shared data and queues of one tenant's VMs apart: they have those in common that have the same. Usually empty.
    pub vm_id: Arc<str>,
    /// The plugin's name, for logs and metrics.
    pub name: Arc<str>,
    /// Which version of the plugin it runs: two versions never share a VM, whatever their modules are.
    pub version: Version,
    /// Its code.
    pub module: Arc<Module>,
    /// The most bytes of memory it may have.
    pub memory: u64,
    /// How much processor time one callback may take.
    pub cpu: Duration,
    /// Whether exchanges share it. One that they do not share is of a module loaded by [`crate::Engine::load_copyable`].
    pub isolation: Isolation,
    /// How long it stays when no exchange comes, if it may go away at all: the next one then starts it anew.
    pub idle: Option<Duration>,
    /// The VM's own configuration, given to `proxy_on_vm_start`; usually empty.
    pub configuration: Bytes,
    /// One for each configuration the plugin is used with.
    pub roots: Vec<RootSpec>,
    /// What its tenant may use up; nothing where nobody counts.
    pub account: Option<Arc<Account>>,
    /// The upstreams it may call, by the names it knows them by.
    pub upstreams: Arc<HashMap<Box<str>, UpstreamId>>,
}

impl VmSpec {
    /// Whether a VM of this kind is as good as one of the other: a revision of the configuration may take it over running.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        // One tenant has one account.
        let Self { tenant, vm_id, name, version, module, memory, cpu, isolation, idle, configuration, .. } = self;
        let Self { account: _, roots, upstreams, .. } = self;
        *tenant == other.tenant
            && *vm_id == other.vm_id
            && *name == other.name
            && *version == other.version
            && module.digest() == other.module.digest()
            && module.capabilities() == other.module.capabilities()
            && *memory == other.memory
            && *cpu == other.cpu
            && *isolation == other.isolation
            && *idle == other.idle
            && *configuration == other.configuration
            && *roots == other.roots
            && *upstreams == other.upstreams
    }
}

/// What exchanges of one plugin are kept apart by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// Their contexts: they share the VM, and what a guest keeps in it.
    #[default]
    Vm,
    /// A VM for each, which is a copy of the one that was started, and ends with it.
    Request,
}

/// A plugin's configuration, for a root context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootSpec {
    /// What guests read as `plugin_name` and `plugin_root_id`.
    pub name: Arc<str>,
    /// What guests read as buffer 7.
    pub configuration: Bytes,
}
