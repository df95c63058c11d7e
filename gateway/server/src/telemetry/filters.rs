//! Metrics about guests: what `portcullis_vm` counts for each VM, added up over workers by plugin and tenant.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::time::Time;
use portcullis_core::timing::Outcome;
use portcullis_vm::{Cause, Occasion, VmCells, VmState};

use super::exposition::{Exposition, Seconds};
use super::metrics::named;
use super::room::{FILTERS, OVERFLOW, Roster};
use super::stats::{Table, mean, roughly};

/// A plugin, and whose it is; nobody's is empty.
pub(super) type Name = (Arc<str>, Arc<str>);

/// By plugin and tenant.
pub(super) type ByName = BTreeMap<Name, Sums>;

/// The lines there are of one plugin and tenant, at most: [`Sums`] in text.
const LINES: usize = 12 + Cause::ALL.len() + Occasion::ALL.len() * Outcome::ALL.len();
/// The most bytes of one, but for its names.
const LINE_BYTES: usize = 100;

/// How many VMs' troubles are told.
const TROUBLES: usize = 20;

pub(super) fn name_of(cells: &VmCells) -> Name {
    (cells.plugin.clone(), cells.tenant.clone().unwrap_or_default())
}

/// The sums over the VMs of one plugin and tenant.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    calls: [[u64; Outcome::ALL.len()]; Occasion::ALL.len()],
    cpu_nanos: u64,
    starts: u64,
    copies: u64,
    start_failures: u64,
    running: u64,
    failed: u64,
    resting: u64,
    queue_items_dropped: u64,
    memory: u64,
    log_lines_dropped: u64,
    traps: [u64; Cause::ALL.len()],
}

impl Sums {
    fn add_vm(&mut self, cells: &VmCells, now: Time) {
        for (sums, occasion) in self.calls.iter_mut().zip(Occasion::ALL) {
            for (sum, outcome) in sums.iter_mut().zip(Outcome::ALL) {
                *sum += cells.calls(occasion, outcome);
            }
        }
        self.cpu_nanos += cells.cpu_nanos.get();
        self.starts += cells.starts.get();
        self.copies += cells.copies.get();
        self.start_failures += cells.start_failures.get();
        match cells.state(now) {
            VmState::Absent => {}
            VmState::Running => self.running += 1,
            VmState::Failed => self.failed += 1,
            VmState::Resting(_) => self.resting += 1,
        }
        self.queue_items_dropped += cells.queue_items_dropped.get();
        self.memory += cells.memory.get();
        self.log_lines_dropped += cells.log_lines_dropped.get();
        for (sum, cause) in self.traps.iter_mut().zip(Cause::ALL) {
            *sum += cells.traps(*cause);
        }
    }

    fn add(&mut self, other: &Self) {
        let Self { calls, cpu_nanos, starts, copies, start_failures, running, failed, resting, .. } = other;
        let Self { queue_items_dropped, memory, log_lines_dropped, traps, .. } = other;
        for (sum, more) in self.calls.as_flattened_mut().iter_mut().zip(calls.as_flattened()) {
            *sum += more;
        }
        for (sum, more) in self.traps.iter_mut().zip(traps) {
            *sum += more;
        }
        self.cpu_nanos += cpu_nanos;
        self.starts += starts;
        self.copies += copies;
        self.start_failures += start_failures;
        self.running += running;
        self.failed += failed;
        self.resting += resting;
        self.queue_items_dropped += queue_items_dropped;
        self.memory += memory;
        self.log_lines_dropped += log_lines_dropped;
    }
}

/// Every VM there is, and what those that are gone have counted: nobody else has their cells any more, and counters must not go
/// back.
#[derive(Debug)]
pub(super) struct Vms {
    cells: Vec<Arc<VmCells>>,
    past: ByName,
    roster: Roster<Name>,
    /// With so many, it is looked which are gone.
    most: usize,
}

/// So few may be gone unnoticed.
const FEW: usize = 64;

impl Default for Vms {
    fn default() -> Self {
        Self { cells: Vec::new(), past: BTreeMap::new(), roster: Roster::of(&FILTERS), most: FEW }
    }
}

impl Vms {
    /// Adds those that a worker has started. Workers wait for it: a look at all there are is put off until as many have come.
    pub(super) fn add(&mut self, more: Vec<Arc<VmCells>>) {
        if self.cells.len() + more.len() > self.most {
            self.forget_gone();
        }
        self.cells.extend(more);
    }

    /// Those there are.
    pub(super) fn cells(&mut self) -> &[Arc<VmCells>] {
        self.forget_gone();
        &self.cells
    }

    /// Also forgets plugins that the configuration no longer has.
    fn forget_gone(&mut self) {
        for gone in self.cells.extract_if(.., |cells| Arc::strong_count(cells) == 1) {
            self.past.entry(name_of(&gone)).or_default().add_vm(&gone, Time::default());
        }
        let there: BTreeSet<_> = self.cells.iter().map(|cells| name_of(cells)).collect();
        self.past.retain(|name, _| there.contains(name));
        self.roster.keep_only(|name| there.contains(name));
        self.most = 2 * self.cells.len() + FEW;
    }

    /// What is shown.
    pub(super) fn sums(&mut self, now: Time) -> ByName {
        self.forget_gone();
        let mut all = self.past.clone();
        for cells in &self.cells {
            all.entry(name_of(cells)).or_default().add_vm(cells, now);
        }
        let mut rest = Sums::default();
        let mut has_rest = false;
        for (_, sums) in all.extract_if(.., |name, _| !admits(&mut self.roster, name)) {
            rest.add(&sums);
            has_rest = true;
        }
        if has_rest {
            all.insert((OVERFLOW.into(), OVERFLOW.into()), rest);
        }
        all
    }
}

fn admits(roster: &mut Roster<Name>, name: &Name) -> bool {
    let (plugin, tenant) = name;
    roster.admits(name.clone(), tenant, LINES * (LINE_BYTES + plugin.len() + tenant.len()))
}

pub(super) fn render(text: &mut Exposition, all: &ByName) {
    render_calls(text, all);
    let name = "portcullis_filter_cpu_seconds_total";
    text.family(name, "counter", "Processor time of guests, hostcalls included; short callbacks by samples.");
    for ((plugin, tenant), sums) in all {
        text.sample(name, &[("plugin", plugin), ("tenant", tenant)], Seconds(sums.cpu_nanos));
    }
    let name = "portcullis_filter_instances";
    text.family(name, "gauge", "VMs of guests, by how they fare.");
    for ((plugin, tenant), sums) in all {
        for (state, count) in [("running", sums.running), ("failed", sums.failed), ("resting", sums.resting)] {
            text.sample(name, &[("plugin", plugin), ("tenant", tenant), ("state", state)], count);
        }
    }
    let mut metric = |name: &str, kind: &str, help: &str, of: fn(&Sums) -> u64| {
        text.family(name, kind, help);
        for ((plugin, tenant), sums) in all {
            text.sample(name, &[("plugin", plugin), ("tenant", tenant)], of(sums));
        }
    };
    metric("portcullis_filter_starts_total", "counter", "Times VMs were started.", |sums| sums.starts);
    let help = "Copies of VMs that were made for exchanges.";
    metric("portcullis_filter_copies_total", "counter", help, |sums| sums.copies);
    let help = "Times VMs could not be started.";
    metric("portcullis_filter_start_failures_total", "counter", help, |sums| sums.start_failures);
    metric("portcullis_filter_memory_bytes", "gauge", "Linear memory of guests.", |sums| sums.memory);
    let help = "Log lines of guests dropped because they wrote too many.";
    metric("portcullis_filter_log_lines_dropped_total", "counter", help, |sums| sums.log_lines_dropped);
    let help = "Items of guests dropped because their queue was full.";
    metric("portcullis_filter_queue_items_dropped_total", "counter", help, |sums| sums.queue_items_dropped);
    let name = "portcullis_filter_traps_total";
    text.family(name, "counter", "VMs that ended for a fault, by its cause.");
    for ((plugin, tenant), sums) in all {
        for (cause, traps) in Cause::ALL.iter().zip(sums.traps) {
            text.sample(name, &[("plugin", plugin), ("tenant", tenant), ("cause", cause.as_str())], traps);
        }
    }
}

pub(super) fn table(all: &ByName) -> Table<9> {
    let line = |((plugin, tenant), sums): (&Name, &Sums)| {
        let calls: u64 = sums.calls.as_flattened().iter().sum();
        let failed: u64 = sums.calls.iter().filter_map(|counts| counts.get(Outcome::Fail as usize)).sum();
        let line = [
            named(plugin),
            named(tenant),
            calls.to_string(),
            failed.to_string(),
            mean(sums.cpu_nanos, 1, Duration::from_secs(1)),
            mean(sums.cpu_nanos, calls, Duration::from_micros(1)),
            (sums.memory >> 10).to_string(),
            format!("{} {} {}", sums.running, sums.failed, sums.resting),
            sums.traps.iter().sum::<u64>().to_string(),
        ];
        (calls, line)
    };
    let columns = ["PLUGIN", "TENANT", "CALLS", "FAILED", "CPU s", "µs/CALL", "KiB", "RUN FAILED REST", "TRAPS"];
    Table { columns, lines: all.iter().map(line).collect() }
}

/// What is to be said of VMs that do not run because they failed.
pub(super) fn troubles(cells: &[Arc<VmCells>], now: Time) -> Vec<String> {
    let mut counted = BTreeMap::<String, usize>::new();
    for cells in cells {
        let fares = match cells.state(now) {
            VmState::Absent | VmState::Running => continue,
            VmState::Failed => "starts anew when it is needed".to_owned(),
            VmState::Resting(until) => format!("rests for {} more", roughly(until.saturating_since(now))),
        };
        let (plugin, tenant) = name_of(cells);
        let owner = if tenant.is_empty() { String::new() } else { format!(" of {tenant}") };
        let (why, failures) = (cells.last_failure().unwrap_or_default(), cells.failures_in_a_row.get());
        *counted.entry(format!("{plugin}{owner}: {why}, {failures} in a row; {fares}")).or_default() += 1;
    }
    counted.into_iter().map(|(trouble, vms)| format!("{vms} × {trouble}")).take(TROUBLES).collect()
}

/// Those that there were: most of what there could be never happens.
fn render_calls(text: &mut Exposition, all: &ByName) {
    let name = "portcullis_filter_calls_total";
    text.family(name, "counter", "Callbacks made to guests, by what they were for and what the guest made of it.");
    for ((plugin, tenant), sums) in all {
        for (occasion, counts) in Occasion::ALL.iter().zip(sums.calls) {
            for (outcome, count) in Outcome::ALL.iter().zip(counts).filter(|(_, count)| *count > 0) {
                let of = [("phase", occasion.as_str()), ("outcome", outcome.as_str())];
                text.sample(name, &[("plugin", plugin), ("tenant", tenant), of[0], of[1]], count);
            }
        }
    }
}
