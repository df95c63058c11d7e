//! Metrics about guests: what `portcullis_vm` counts for each VM, added up over workers by plugin and tenant.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_vm::{Cause, VmCells};

use super::exposition::Exposition;

/// The sums over the VMs of one plugin and tenant.
#[derive(Debug, Default)]
struct Sums {
    calls: u64,
    starts: u64,
    start_failures: u64,
    live: u64,
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
        self.memory += cells.memory.get();
        self.log_lines_dropped += cells.log_lines_dropped.get();
        for (sum, cause) in self.traps.iter_mut().zip(Cause::ALL) {
            *sum += cells.traps(*cause);
        }
    }
}

pub(super) fn render(text: &mut Exposition, vms: &[Arc<VmCells>]) {
    let mut all = BTreeMap::<(&str, &str), Sums>::new();
    for cells in vms {
        all.entry((&cells.plugin, cells.tenant.as_deref().unwrap_or_default())).or_default().add(cells);
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
    let name = "portcullis_filter_traps_total";
    text.family(name, "counter", "VMs that ended for a fault, by its cause.");
    for ((plugin, tenant), sums) in &all {
        for (cause, traps) in Cause::ALL.iter().zip(sums.traps) {
            text.sample(name, &[("plugin", plugin), ("tenant", tenant), ("cause", cause.as_str())], traps);
        }
    }
}
