//! The gateway's command line as a program of this package, so that cargo builds it for the tests that need a process.

use std::process::ExitCode;

use clap::Parser as _;
use portcullis::cli;

fn main() -> anyhow::Result<ExitCode> {
    cli::run(cli::Arguments::parse())
}
