//! `cargo xtask fuzz`: the targets in `tests/fuzz`, each for a bounded time.
//!
//! libFuzzer needs instrumented code and a C++ compiler, and no more: the stable compiler can instrument. What it cannot is add
//! the address sanitizer, which would look for what safe Rust cannot do.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{root, run, target_dir, tools};

/// Coverage counters and traced comparisons, which is what libFuzzer steers by.
const INSTRUMENTED: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions --cfg fuzzing";
/// What a run without a number takes for each target.
const SECONDS: u32 = 60;
/// The targets that are built in seconds.
const LIGHT: [&str; 5] = ["heads", "paths", "pairs", "proxied", "frames"];
/// Those that come with the whole server or the engine, whose build takes minutes. Each is a feature of its own.
const HEAVY: [&str; 2] = ["configuration", "modules"];

/// Runs every target, or with `--light` those that build quickly.
///
/// # Errors
///
/// When a target fails, or cannot be built.
pub(crate) fn run_fuzz(args: &[String]) -> Result<()> {
    let (mut seconds, mut targets) = (SECONDS, [&LIGHT[..], &HEAVY].concat());
    for arg in args {
        match (arg.as_str(), arg.parse()) {
            ("--light", _) => targets = LIGHT.to_vec(),
            (_, Ok(number)) => seconds = number,
            _ => bail!("usage: cargo xtask fuzz [SECONDS] [--light]"),
        }
    }
    if tools::find("c++").or_else(|| tools::find("g++")).is_none() {
        println!(
            "SKIPPED: fuzzing needs a C++ compiler (`apt-get install g++`); the seeds are tried by the ordinary tests"
        );
        return Ok(());
    }
    let built = build(&targets)?;
    for target in targets {
        fuzz(&built.join(target), target, seconds)?;
    }
    Ok(())
}

/// Builds the targets; the directory they are in.
fn build(targets: &[&str]) -> Result<PathBuf> {
    let host = host()?;
    let directory = target_dir().join("fuzz");
    let mut cargo = crate::cargo();
    cargo.current_dir(root().join("tests/fuzz")).env("CARGO_TARGET_DIR", &directory).env("RUSTFLAGS", INSTRUMENTED);
    // With a target given, build scripts and macros are left without instruments.
    cargo.args(["build", "--release", "--target", &host]);
    let heavy = HEAVY.into_iter().filter(|heavy| targets.contains(heavy));
    let features: Vec<&str> = std::iter::once("libfuzzer").chain(heavy).collect();
    cargo.args(["--features", &features.join(",")]).args(targets.iter().flat_map(|target| ["--bin", *target]));
    run(&mut cargo)?;
    Ok(directory.join(host).join("release"))
}

/// Runs one target. What it finds interesting is kept below the target directory; the seeds are only read.
fn fuzz(program: &PathBuf, target: &str, seconds: u32) -> Result<()> {
    println!("\n== fuzz {target}, {seconds} s");
    let found = target_dir().join("fuzz/corpus").join(target);
    let failures = target_dir().join("fuzz/failures").join(target);
    std::fs::create_dir_all(&found)?;
    std::fs::create_dir_all(&failures)?;
    let mut command = Command::new(program);
    command.arg(format!("-max_total_time={seconds}")).arg(format!("-artifact_prefix={}/", failures.display()));
    command.args(["-timeout=10", "-verbosity=0", "-print_final_stats=1"]);
    command.arg(found).arg(root().join("tests/fuzz/corpus").join(target));
    let status = command.status().with_context(|| format!("cannot run {}", program.display()))?;
    let kept = failures.display();
    ensure!(
        status.success(),
        "target `{target}` failed: make the input in {kept} a seed in tests/fuzz/corpus/{target}"
    );
    Ok(())
}

/// The triple of this machine.
fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").stderr(Stdio::inherit()).output().context("cannot run rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned).context("rustc names no host")
}
