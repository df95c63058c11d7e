//! Arguments → configuration → run.

use std::process::ExitCode;

use clap::Parser as _;
use portcullis::cli;

/// Requests allocate much and briefly, on threads that share nothing: the system's allocator is the slower one for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<ExitCode> {
    cli::run(cli::Arguments::parse())
}
