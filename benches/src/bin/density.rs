//! How much memory an idle VM takes: starts many in one process and asks the system.
//!
//! `density [VMS [MODULE.wasm]]`: 500 of the benches' own guest unless told otherwise. That guest never touches its memory, so its
//! figure is what the host keeps for a VM; a plugin's adds the pages that it writes to while it starts. Pages that VMs share, those of a
//! module's data that none has written to, are resident in each and in memory once: a VM is charged for its share of them (`Pss` of
//! `/proc/self/smaps_rollup`). Page tables are counted apart: they are nobody's resident memory and still must be paid for, since each
//! VM's memory has address space of its own.
//!
//! It fails when a VM takes more memory or time than it should.

use std::fs;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use portcullis_benches::guests::{self, Hostcall};
use portcullis_core::exchange::Exchanges;
use portcullis_measure::target::{Target, markdown};
use portcullis_vm::{VmSpec, Vms};

/// KiB that a VM may take, page tables included.
const MEMORY_LIMIT: f64 = 64.0;
/// Microseconds that its start may take.
const START_LIMIT: f64 = 100.0;

fn main() -> Result<ExitCode> {
    let mut args = std::env::args().skip(1);
    let vms: u32 = args.next().map_or(Ok(500), |vms| vms.parse()).context("usage: density [VMS [MODULE.wasm]]")?;
    let wasm = match args.next() {
        Some(path) => fs::read(&path).with_context(|| format!("`{path}` cannot be read"))?,
        None => guests::wasm(Hostcall::Nothing),
    };
    let engine = guests::engine(vms + 1);
    let module = engine.load("guest", &wasm)?;
    let place = |count: u32| {
        let specs: Arc<[VmSpec]> = (0..count).map(|_| guests::spec(module.clone())).collect();
        Vms::new(engine.clone(), specs, Arc::default())
    };
    let mut exchanges = Exchanges::default();
    // What only the first VM needs, such as the image its memory is mapped from, is not counted against the others.
    let mut first = place(1);
    first.warm_up(&mut exchanges)?;
    let mut all = place(vms);
    let before = Memory::read()?;
    let start = Instant::now();
    all.warm_up(&mut exchanges)?;
    let elapsed = start.elapsed();
    let after = Memory::read()?;
    let each = |of: fn(&Memory) -> u64| of(&after).saturating_sub(of(&before)) as f64 / f64::from(vms);
    let (share, tables) = (each(|memory| memory.share), each(|memory| memory.page_tables));
    println!("{vms} VMs, each: resident {:.1} KiB, shared ones counted in every one", each(|memory| memory.resident));
    println!("its share of memory {share:.1} KiB, its page tables {tables:.1} KiB\n");
    let target =
        |what: &str, limit, unit, measured| Target { what: what.to_owned(), unit, limit, measured: Some(measured) };
    let targets = [
        target("memory of one", MEMORY_LIMIT, "KiB", share + tables),
        target("start of one", START_LIMIT, "µs", elapsed.as_secs_f64() * 1e6 / f64::from(vms)),
    ];
    println!("{}", markdown(&targets));
    Ok(if targets.iter().all(Target::met) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the system says of this process, in KiB.
struct Memory {
    resident: u64,
    /// What is its alone, and its part of what is mapped several times.
    share: u64,
    page_tables: u64,
}

impl Memory {
    fn read() -> Result<Self> {
        let kib = |file: &str, name: &str| -> Result<u64> {
            let text = fs::read_to_string(file)?;
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let value = line.and_then(|line| line.split_whitespace().next());
            value.and_then(|value| value.parse().ok()).with_context(|| format!("`{file}` has no {name}"))
        };
        let (status, maps) = ("/proc/self/status", "/proc/self/smaps_rollup");
        Ok(Self { resident: kib(status, "VmRSS")?, share: kib(maps, "Pss")?, page_tables: kib(status, "VmPTE")? })
    }
}
