//! `cargo xtask demo`: builds the plugins and the gateway, and runs `portcullis demo`.

use anyhow::Result;

use crate::{cargo, plugins, root, run};

/// Builds what the demo needs and serves until Ctrl-C. Arguments go to cargo: `--release`, for one.
pub(crate) fn run_demo(args: &[String]) -> Result<()> {
    plugins::run(&[])?;
    run(cargo().current_dir(root()).args(["run", "--package", "portcullis"]).args(args).args(["--", "demo"]))
}

/// What CI runs: installs what the machine lacks, then `cargo xtask test`.
pub(crate) fn run_ci(_: &[String]) -> Result<()> {
    run(std::process::Command::new("bash").current_dir(root()).arg(".ci/run"))
}
