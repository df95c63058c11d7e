//! `cargo xtask bench`: how fast it is, in two ways.
//!
//! `proxy` puts whole gateways side by side over real sockets and asks whether the targets of the project are met.
//! `micro` times the core and the host ↔ guest crossing alone, and counts their instructions, which do not change with
//! what else the machine is doing. Neither fails on a figure: noise is for people to judge.

mod options;
mod peer;
mod process;
mod proxy;
mod report;
mod target;
mod wrk;

use anyhow::{Result, bail};

use crate::{cargo, root, run as run_command, tools};

const USAGE: &str = "usage: cargo xtask bench proxy [--rounds N] [--seconds S] [--only PEER,…]
       cargo xtask bench micro [CRITERION ARGUMENTS]";

/// Dispatches to one of the two kinds of benchmark.
pub(crate) fn run(args: &[String]) -> Result<()> {
    match args.split_first() {
        Some((kind, rest)) if kind == "proxy" => proxy::run(&options::Options::parse(rest)?),
        Some((kind, rest)) if kind == "micro" => micro(rest),
        _ => bail!("{USAGE}"),
    }
}

/// Runs every bench target of `benches/`; those that count instructions need valgrind and say so when it is missing.
fn micro(args: &[String]) -> Result<()> {
    let mut bench = cargo();
    bench.current_dir(root()).args(["bench", "--package", "portcullis-benches", "--benches"]);
    match tools::gungraun_runner() {
        Ok(runner) => {
            bench.env("GUNGRAUN_RUNNER", runner);
        }
        Err(why) => eprintln!("instructions cannot be counted here: {why:#}"),
    }
    if !args.is_empty() {
        bench.arg("--").args(args);
    }
    run_command(&mut bench)
}
