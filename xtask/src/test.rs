//! `cargo xtask test`: everything CI runs.
//!
//! Every step runs, whatever became of the ones before it: one run tells all that is wrong. What a tool prints passes
//! through unchanged, and is counted on the way, so that the last line can say how many tests there were.

mod documents;
mod hygiene;
mod tally;

use std::io::{BufRead as _, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tally::Tally;

use crate::{cargo, root, shown, target_dir, tools};

/// One thing that CI insists on.
struct Step {
    name: &'static str,
    task: Task,
}

enum Task {
    Run(Command),
    /// Returns what is wrong, a line each.
    Check(fn() -> Result<Vec<String>>),
}

struct Outcome {
    name: &'static str,
    took: Duration,
    failure: Option<String>,
}

/// Runs all steps, then says which failed.
///
/// # Errors
///
/// When any step failed.
pub(crate) fn run(args: &[String]) -> Result<()> {
    ensure!(args.is_empty(), "usage: cargo xtask test");
    let mut total = Tally::default();
    let outcomes: Vec<Outcome> = steps()?.into_iter().map(|step| step.run(&mut total)).collect();
    println!("\n== summary");
    for Outcome { name, took, failure } in &outcomes {
        let verdict = if failure.is_none() { "ok  " } else { "FAIL" };
        let why = failure.as_ref().map(|why| format!("  {why}")).unwrap_or_default();
        println!("{verdict}  {:>4} s  {name}{why}", took.as_secs());
    }
    println!("tests: {total}");
    let failed = outcomes.iter().filter(|outcome| outcome.failure.is_some()).count();
    ensure!(failed == 0, "{failed} of {} steps failed", outcomes.len());
    Ok(())
}

/// In this order: the quick ones first, except that the gateway embeds the plugins and so needs them built.
fn steps() -> Result<Vec<Step>> {
    let runner = if has_nextest() {
        main_workspace(&["nextest", "run", "--workspace", "--no-fail-fast", "--no-tests=pass"])
    } else {
        main_workspace(&["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"])
    };
    let mut documentation = main_workspace(&["doc", "--workspace", "--no-deps"]);
    documentation.env("RUSTDOCFLAGS", "-D warnings");
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    Ok(vec![
        step("format", Task::Run(main_workspace(&["fmt", "--all", "--check"]))),
        step("format of the plugins", Task::Run(plugin_workspace(&["fmt", "--all", "--check"]))),
        step("hygiene", Task::Check(hygiene::check)),
        step("plugins to wasm", Task::Run(xtask(&["plugins"])?)),
        step("tests of the plugins", Task::Run(xtask(&["plugins", "--test"])?)),
        step("clippy", Task::Run(main_workspace(&clippy))),
        step("format of the fuzz targets", Task::Run(fuzz_workspace(&["fmt", "--all", "--check"]))),
        step("clippy of the plugins", Task::Run(plugin_workspace(&clippy))),
        // Tests that want it say that they were skipped where it is not; here that is a failure.
        step("Envoy", Task::Check(|| tools::envoy().map(|_| Vec::new()))),
        step("Redis", Task::Check(|| tools::require("redis-server", "redis-server").map(|_| Vec::new()))),
        step("registry", Task::Check(|| tools::registry().map(|_| Vec::new()))),
        step("promtool", Task::Check(|| tools::promtool().map(|_| Vec::new()))),
        step("compilers of other languages", Task::Check(|| tools::languages::install().map(|()| Vec::new()))),
        step("identity provider", Task::Check(|| tools::identity_provider().map(|()| Vec::new()))),
        step("tests", Task::Run(runner)),
        step("fuzzing", Task::Run(xtask(&["fuzz", "5", "--light"])?)),
        step("WebSockets by Autobahn", Task::Run(xtask(&["autobahn"])?)),
        step("tests in documentation", Task::Run(main_workspace(&["test", "--workspace", "--doc", "--no-fail-fast"]))),
        step("documentation", Task::Run(documentation)),
        step("commands and links", Task::Check(documents::check)),
    ])
}

fn step(name: &'static str, task: Task) -> Step {
    Step { name, task }
}

fn main_workspace(args: &[&str]) -> Command {
    let mut command = cargo();
    command.current_dir(root()).args(args);
    command
}

/// The plugins as native code, beside their tests' build output.
fn plugin_workspace(args: &[&str]) -> Command {
    let mut command = cargo();
    command.current_dir(root().join("plugins")).env("CARGO_TARGET_DIR", target_dir().join("plugins-native")).args(args);
    command
}

/// The fuzz targets.
fn fuzz_workspace(args: &[&str]) -> Command {
    let mut command = cargo();
    command.current_dir(root().join("tests/fuzz")).args(args);
    command
}

/// Another command of this program, as a process, so that its output can be counted like any other.
fn xtask(args: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(args);
    Ok(command)
}

fn has_nextest() -> bool {
    let asked = cargo().args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

impl Step {
    fn run(self, total: &mut Tally) -> Outcome {
        println!("\n== {}", self.name);
        let began = Instant::now();
        let mut tally = Tally::default();
        let result = match self.task {
            Task::Run(command) => run_counted(command, &mut tally),
            Task::Check(check) => check().and_then(|wrong| report(&wrong)),
        };
        let failure = result.err().map(|error| format!("{error:#}"));
        if let Some(failure) = &failure {
            println!("{failure}");
            tally.fail_at_least_once();
        }
        *total += tally;
        Outcome { name: self.name, took: began.elapsed(), failure }
    }
}

fn report(wrong: &[String]) -> Result<()> {
    for line in wrong {
        println!("{line}");
    }
    match wrong.len() {
        0 => Ok(()),
        count => bail!("{count} found"),
    }
}

/// Runs to the end; both streams go where ours go, and are counted.
fn run_counted(mut command: Command, tally: &mut Tally) -> Result<()> {
    let line = shown(&command);
    println!("$ {line}");
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().with_context(|| format!("cannot run `{line}`"))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (out, err) = std::thread::scope(|scope| {
        let err = scope.spawn(|| pass_on(stderr, std::io::stderr()));
        let out = pass_on(stdout, std::io::stdout());
        (out, err.join().unwrap_or_default())
    });
    *tally += out;
    *tally += err;
    let status = child.wait()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// Copies line by line until the writer hangs up. A reader of ours that left is no reason to stop the step.
fn pass_on(from: Option<impl Read>, mut to: impl Write) -> Tally {
    let mut tally = Tally::default();
    let mut line = Vec::new();
    let Some(mut from) = from.map(BufReader::new) else { return tally };
    while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        to.write_all(&line).and_then(|()| to.flush()).unwrap_or_default();
        tally.read(&String::from_utf8_lossy(&line));
        line.clear();
    }
    tally
}
