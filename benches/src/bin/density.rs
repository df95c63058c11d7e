//! How much memory an idle VM takes: starts many in one process and asks the system.
//!
//! `density [VMS [MODULE.wasm]]`: 500 of the benches' own guest unless told otherwise. That guest never touches its memory, so its
//! figure is what the host keeps for a VM; a plugin's adds the pages that it writes to while it starts. Page tables are counted
//! apart: they are nobody's resident memory and still must be paid for, since each VM's memory has address space of its own.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use portcullis_benches::guests::{self, Hostcall};
use portcullis_core::exchange::Exchanges;
use portcullis_vm::{VmSpec, Vms};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let vms: u32 = args.next().map_or(Ok(500), |vms| vms.parse()).context("usage: density [VMS [MODULE.wasm]]")?;
    let wasm = match args.next() {
        Some(path) => std::fs::read(&path).with_context(|| format!("`{path}` cannot be read"))?,
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
    let each = |before: u64, after: u64| after.saturating_sub(before) * 1024 / u64::from(vms);
    println!("VMs                      {vms}");
    println!("resident per VM          {} bytes", each(before.resident_kib, after.resident_kib));
    println!("  of that anonymous      {} bytes", each(before.anonymous_kib, after.anonymous_kib));
    println!("page tables per VM       {} bytes", each(before.page_tables_kib, after.page_tables_kib));
    println!("start of one             {:.1} µs", elapsed.as_secs_f64() * 1e6 / f64::from(vms));
    Ok(())
}

/// What `/proc/self/status` says of this process.
struct Memory {
    resident_kib: u64,
    anonymous_kib: u64,
    page_tables_kib: u64,
}

impl Memory {
    fn read() -> Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let kib = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let value = line.and_then(|line| line.split_whitespace().next());
            value.and_then(|value| value.parse().ok()).with_context(|| format!("`/proc/self/status` has no {name}"))
        };
        Ok(Self { resident_kib: kib("VmRSS")?, anonymous_kib: kib("RssAnon")?, page_tables_kib: kib("VmPTE")? })
    }
}
