//! Arguments → configuration → run.

use std::process::ExitCode;

use clap::Parser as _;
use portcullis::cli;

fn main() -> anyhow::Result<ExitCode> {
    cli::run(cli::Arguments::parse())
}
