//! `cargo xtask bench policies`: what a request costs in each of the policies that come with the gateway.
//!
//! A plugin's `bench.yaml` has the requests, in the form of its cases; its `budget.yaml` what the figures may be at most.

use std::fs;
use std::process::Command;

use anyhow::{Result, bail, ensure};

use super::peer::Peer;
use crate::{plugins, root, run as run_command};

/// Measures the plugins of these names; all that can be measured, without names.
///
/// # Errors
/// When a name is not that of such a plugin, or a figure is beyond its budget.
pub(super) fn run(names: &[String]) -> Result<()> {
    let folder = root().join("plugins");
    let mut measurable = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let entry = entry?;
        if entry.path().join("bench.yaml").is_file() {
            measurable.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    measurable.sort();
    if let Some(unknown) = names.iter().find(|name| !measurable.contains(name)) {
        bail!("`{unknown}` has no plugins/{unknown}/bench.yaml; these have one: {}", measurable.join(", "));
    }
    plugins::build()?;
    let portcullis = Peer::Portcullis.obtain()?;
    let mut beyond = Vec::new();
    for name in measurable.into_iter().filter(|name| names.is_empty() || names.contains(name)) {
        println!();
        let mut bench = Command::new(&portcullis);
        bench.args(["plugin", "bench"]).arg(plugins::output_dir().join(format!("{name}.wasm")));
        bench.arg("--cases").arg(folder.join(&name).join("bench.yaml"));
        let budget = folder.join(&name).join("budget.yaml");
        if budget.is_file() {
            bench.arg("--budget").arg(budget);
        }
        if let Err(why) = run_command(&mut bench) {
            eprintln!("{why:#}");
            beyond.push(name);
        }
    }
    ensure!(beyond.is_empty(), "beyond their budgets: {}", beyond.join(", "));
    Ok(())
}
