//! The project's own commands: `cargo xtask COMMAND`.
//!
//! Kept to `anyhow` and the standard library, so that it compiles in seconds on a fresh machine. A command is one row of
//! [`COMMANDS`] and one module.

mod autobahn;
mod bench;
mod demo;
mod fuzz;
mod plugins;
mod test;
mod tools;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

/// Name, what it does, how.
type Row = (&'static str, &'static str, fn(&[String]) -> Result<()>);

const COMMANDS: &[Row] = &[
    ("demo", "build everything and serve two tenants, with curl lines to try", demo::run_demo),
    ("test", "everything CI runs: format, lints, tests, documentation", test::run),
    ("plugins", "build the plugins to target/plugins/NAME.wasm; --test runs their native tests instead", plugins::run),
    (
        "bench",
        "proxy: beside nginx, HAProxy and Envoy; micro: the core and the crossing alone; tenants: thousands of them",
        bench::run,
    ),
    (
        "fuzz",
        "SECONDS for each fuzz target in tests/fuzz; --light leaves out the one that builds for minutes",
        fuzz::run_fuzz,
    ),
    (
        "autobahn",
        "Autobahn's WebSocket suite through the gateway; --all for the cases that take minutes",
        autobahn::run_suite,
    ),
    ("languages", "install what guests in Go, AssemblyScript and C++ are built with", |_| tools::languages::install()),
    ("ci", "install what this machine lacks (Debian, as root), then run the tests as CI does", demo::run_ci),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: &[String]) -> Result<()> {
    let Some((name, rest)) = args.split_first() else { bail!("no command given\n{}", usage()) };
    let Some((_, _, run)) = COMMANDS.iter().find(|(known, ..)| known == name) else {
        bail!("there is no command `{name}`\n{}", usage())
    };
    run(rest)
}

fn usage() -> String {
    let rows = COMMANDS.iter().map(|(name, what, _)| format!("  cargo xtask {name:<8} {what}\n"));
    format!("commands:\n{}", rows.collect::<String>())
}

/// The workspace's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(1).map(Path::to_owned).unwrap_or_default()
}

/// Where build output goes: `CARGO_TARGET_DIR`, else `target` under the root.
fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The cargo that runs us.
fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs to the end and fails when the command does.
fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !status.success() {
        bail!("`{}` failed: {status}", shown(command));
    }
    Ok(())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
