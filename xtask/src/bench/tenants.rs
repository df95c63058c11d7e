//! `cargo xtask bench tenants`: whether thousands of tenants fit into one gateway, and leave each other alone.
//!
//! `benches/peers/src/bin/tenants` measures; here is built what it needs.

use std::thread;

use anyhow::{Result, ensure};
use portcullis_measure::process::{LOAD_CORE, pinned};

use super::peer::{Peer, release_binary};
use crate::{plugins, run as run_command, target_dir, tools};

/// Passes on the arguments.
///
/// # Errors
/// When something cannot be built, or a figure misses its target.
pub(super) fn run(args: &[String]) -> Result<()> {
    let cores = thread::available_parallelism()?;
    ensure!(cores.get() > LOAD_CORE, "a core for the gateway and one for the load are needed; there is {cores}");
    for program in ["taskset", "setpriv"] {
        tools::require(program, "util-linux")?;
    }
    plugins::build()?;
    let gateway = Peer::Portcullis.obtain()?;
    let [origin, tenants] = ["origin", "tenants"].map(|name| release_binary("portcullis-peers", name));
    let mut command = pinned(&[LOAD_CORE], &tenants?);
    command.args([gateway, origin?, plugins::output_dir(), target_dir().join("bench").join("tenants")]);
    run_command(command.args(args))
}
