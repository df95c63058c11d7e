//! `cargo xtask autobahn`: Autobahn's WebSocket suite through the gateway, compared with its echo server alone.
//!
//! All of it is in `autobahn.py`, which needs nothing but Python; here the gateway is built for it.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::{cargo, root, run, target_dir, tools};

/// Builds the gateway and runs the suite; with `--all`, also the cases that take minutes.
///
/// # Errors
///
/// When a case ends otherwise through the gateway than without it.
pub(crate) fn run_suite(args: &[String]) -> Result<()> {
    ensure!(args.is_empty() || args == ["--all"], "usage: cargo xtask autobahn [--all]");
    // As the tests build it: with other features, the engine would be compiled once more.
    run(cargo().current_dir(root()).args(["test", "--workspace", "--no-run", "--quiet"]))?;
    let python = tools::require("python3", "python3")?;
    let mut suite = Command::new(python);
    suite.arg(root().join("xtask/src/autobahn.py")).arg(target_dir().join("tools/autobahn"));
    suite.arg(target_dir().join("debug/gateway")).args(args);
    run(&mut suite).context("the gateway makes a difference to WebSockets")
}
