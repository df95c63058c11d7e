//! `portcullis compile`: the child process in which a gateway has modules compiled.
//!
//! Its limits are set before it reads a byte of the module, and hold for all that the compiler does. It is also nice: the
//! gateway's own threads go first.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, nice, setrlimit};

/// Lowest priority.
const NICE: i32 = 19;

/// Compiles standard input to `output`.
pub(crate) fn alone(cpu_seconds: u64, memory: u64, output: impl Write) -> anyhow::Result<ExitCode> {
    let most = |limit| Rlimit { current: Some(limit), maximum: Some(limit) };
    // A process that gets the signal and goes on is killed a second later.
    let cpu = Rlimit { current: Some(cpu_seconds), maximum: Some(cpu_seconds.saturating_add(1)) };
    for (resource, limit) in [
        (Resource::Cpu, cpu),
        (Resource::As, most(memory)),
        // It has its three streams, and makes no files.
        (Resource::Fsize, most(0)),
        (Resource::Core, most(0)),
    ] {
        setrlimit(resource, limit).context("the compiler's limits cannot be set")?;
    }
    let _as_it_is = nice(NICE);
    let code = portcullis_vm::compile_alone(io::stdin().lock(), output, io::stderr().lock())?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
