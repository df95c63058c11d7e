//! Metrics about guests: what `portcullis_vm` counts for each VM, added up over workers by plugin and tenant.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis_vm::{Cause, VmCells};

use super::exposition::Exposition;

/// The sums over the VMs of one plugin and tenant.
#[derive(Clone, Debug, Default)]
struct Sums {
    calls: u64,
    starts: u64,
    start_failures: u64,
    live: u64,
    resting: u64,
    queue_items_dropped: u64,
    memory: u64,
    log_lines_dropped: u64,
    traps: [u64; Cause::ALL.len()],
}

impl Sums {
    fn add(&mut self, cells: &VmCells) {
        self.calls += cells.calls.get();
        self.starts += cells.starts.get();
        self.start_failures += cells.start_failures.get();
        self.live += cells.live.get();
        self.resting += cells.resting.get();
        self.queue_items_dropped += cells.queue_items_dropped.get();
        self.memory += cells.memory.get();
        self.log_lines_dropped += cells.log_lines_dropped.get();
        for (sum, cause) in self.traps.iter_mut().zip(Cause::ALL) {
            *sum += cells.traps(*cause);
        }
    }
}

/// What VMs that are gone have counted, by plugin and tenant.
#[derive(Clone, Debug, Default)]
pub(super) struct Past(BTreeMap<(Arc<str>, Arc<str>), Sums>);

impl Past {
    pub(super) fn add(&mut self, cells: &VmCells) {
        let tenant = cells.tenant.clone().unwrap_or_default();
        self.0.entry((cells.plugin.clone(), tenant)).or_default().add(cells);
    }

    /// Forgets plugins that the configuration no longer has.
    pub(super) fn keep_only(&mut self, vms: &[Arc<VmCells>]) {
        let names = |cells: &Arc<VmCells>| (cells.plugin.clone(), cells.tenant.clone().unwrap_or_default());
        let there: BTreeSet<_> = vms.iter().map(names).collect();
        self.0.retain(|key, _| there.contains(key));
    }
}

pub(super) fn render(text: &mut Exposition, vms: &[Arc<VmCells>], past: Past) {
    let mut all = past.0;
    for cells in vms {
        let tenant = cells.tenant.clone().unwrap_or_default();
        all.entry((cells.plugin.clone(), tenant)).or_default().add(cells);
    }
    let mut metric = |name: &str, kind: &str, help: &str, more: Option<(&str, &str)>, of: fn(&Sums) -> u64| {
        text.family(name, kind, help);
        for ((plugin, tenant), sums) in &all {
            text.sample(name, &[("plugin", plugin), ("tenant", tenant), more.unwrap_or_default()], of(sums));
        }
    };
    metric("portcullis_filter_calls_total", "counter", "Callbacks made to guests.", None, |sums| sums.calls);
    let live = Some(("state", "live"));
    metric("portcullis_filter_instances", "gauge", "VMs of guests.", live, |sums| sums.live);
    metric("portcullis_filter_starts_total", "counter", "Times VMs were started.", None, |sums| sums.starts);
    let help = "Times VMs could not be started.";
    metric("portcullis_filter_start_failures_total", "counter", help, None, |sums| sums.start_failures);
    let committed = Some(("kind", "committed"));
    metric("portcullis_filter_memory_bytes", "gauge", "Memory of guests.", committed, |sums| sums.memory);
    let help = "Log lines of guests dropped because they wrote too many.";
    metric("portcullis_filter_log_lines_dropped_total", "counter", help, None, |sums| sums.log_lines_dropped);
    let help = "VMs that have failed again and again and are left alone for a while.";
    metric("portcullis_filter_resting", "gauge", help, None, |sums| sums.resting);
    let help = "Items of guests dropped because their queue was full.";
    metric("portcullis_filter_queue_items_dropped_total", "counter", help, None, |sums| sums.queue_items_dropped);
    let name = "portcullis_filter_traps_total";
    text.family(name, "counter", "VMs that ended for a fault, by its cause.");
    for ((plugin, tenant), sums) in &all {
        for (cause, traps) in Cause::ALL.iter().zip(sums.traps) {
            text.sample(name, &[("plugin", plugin), ("tenant", tenant), ("cause", cause.as_str())], traps);
        }
    }
}
