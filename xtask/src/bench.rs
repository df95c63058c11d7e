//! `cargo xtask bench`: how fast it is, and how much memory it takes.
//!
//! `proxy` puts whole gateways side by side over real sockets and asks whether the targets of the project are met.
//! `edge` does so for TLS, HTTP/2, idle connections and reloads. `micro` times the core and the host ↔ guest crossing alone, counts
//! their instructions, which do not change with what else the machine is doing. `density` weighs idle VMs, ours and Envoy's. None of
//! these fails on a figure: noise is for people to judge.
//! `tenants` asks whether thousands of them fit into one gateway, and measures everything before it fails on what missed its target.
//! `policies` measures every plugin that has a `bench.yaml`, and fails when a figure is beyond its `budget.yaml`.
//! `soak` fails too: memory that grows is no noise.

mod density;
mod edge;
mod h2load;
mod options;
mod peer;
mod policies;
mod proxy;
mod report;
mod rig;
mod soak;
mod target;
mod tenants;
mod wrk;

use anyhow::{Result, bail};

use crate::{cargo, root, run as run_command, tools};

const USAGE: &str = "usage: cargo xtask bench proxy [--rounds N] [--seconds S] [--only PEER,…]
       cargo xtask bench micro [CRITERION ARGUMENTS]
       cargo xtask bench density
       cargo xtask bench edge [--rounds N] [--seconds S] [--only PEER,…]
       cargo xtask bench policies [PLUGIN …]
       cargo xtask bench soak [--requests N]
       cargo xtask bench tenants [--rounds N] [--swaps N] [--tenants FEW,SOME,MANY] [--only FIGURE,…]";

/// Dispatches to one of the kinds of benchmark.
pub(crate) fn run(args: &[String]) -> Result<()> {
    match args.split_first() {
        Some((kind, rest)) if kind == "proxy" => proxy::run(&options::Options::parse(rest)?),
        Some((kind, rest)) if kind == "edge" => edge::run(&options::Options::parse(rest)?),
        Some((kind, rest)) if kind == "micro" => micro(rest),
        Some((kind, [])) if kind == "density" => density::run(),
        Some((kind, rest)) if kind == "policies" => policies::run(rest),
        Some((kind, rest)) if kind == "soak" => soak::run(rest),
        Some((kind, rest)) if kind == "tenants" => tenants::run(rest),
        _ => bail!("{USAGE}"),
    }
}

/// Times and counts. Only the timed benches take arguments: the counter knows none of criterion's.
fn micro(args: &[String]) -> Result<()> {
    let bench = || {
        let mut bench = cargo();
        bench.current_dir(root()).args(["bench", "--package", "portcullis-benches"]);
        bench
    };
    run_command(bench().args(["--bench", "chain", "--bench", "crossing", "--"]).args(args))?;
    match tools::gungraun_runner() {
        Ok(runner) => run_command(bench().args(["--bench", "counts"]).env("GUNGRAUN_RUNNER", runner))?,
        Err(why) => eprintln!("instructions are not counted here: {why:#}"),
    }
    Ok(())
}
