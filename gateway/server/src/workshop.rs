//! `portcullis plugin …`: what authors of filters use. It makes, builds, shows, tries, measures and runs modules.

mod bench;
mod build;
mod cases;
mod create;
pub mod envoy;
mod inspect;
mod run;
mod settings;
mod stage;
mod trial;
mod written;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

/// What can be done with a plugin.
#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// Make a crate with one filter, its settings, a native test and a case file
    New {
        /// The directory to make; its last part is the plugin's name
        directory: PathBuf,
        /// The `sdk` directory of Portcullis' sources
        #[arg(long, value_name = "DIR", env = "PORTCULLIS_SDK")]
        sdk: Option<PathBuf>,
    },
    /// Compile the plugin of a crate to wasm, without the callbacks that it has no use for
    Build {
        /// The crate's directory
        #[arg(default_value = ".")]
        directory: PathBuf,
    },
    /// Show what stands in a module: ABI, imports, exports, manifest, size, and which hosts can run it
    Inspect {
        /// The module
        file: PathBuf,
    },
    /// Try a module by the cases of a file: exits with 1 if any fails
    Test {
        /// The module
        file: PathBuf,
        /// The cases
        #[arg(long, value_name = "FILE", default_value = "cases.yaml")]
        cases: PathBuf,
        /// Where
        #[arg(long, value_enum, default_value = "portcullis")]
        host: trial::On,
        /// Envoy's program; the one on PATH unless told otherwise
        #[arg(long, value_name = "PROGRAM", env = "PORTCULLIS_ENVOY")]
        envoy: Option<PathBuf>,
    },
    /// Serve requests with this one filter before an upstream; what changes is rebuilt and swapped
    Run(run::Options),
    /// Measure a module: time, instructions and memory, of callbacks and of whole exchanges
    Bench(bench::Options),
}

/// Does it; what cannot be done is said in one sentence on standard error, with what would help.
pub(crate) fn run(command: PluginCommand) -> ExitCode {
    act(command).unwrap_or_else(|why| {
        eprintln!("error: {why:#}");
        ExitCode::FAILURE
    })
}

fn act(command: PluginCommand) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    match command {
        PluginCommand::New { directory, sdk } => {
            let name = create::create(&directory, sdk.as_deref())?;
            let at = directory.display();
            writeln!(out, "made the plugin `{name}` in {at}. Next:\n  cd {at}\n  cargo test")?;
            writeln!(out, "  portcullis plugin build\n  portcullis plugin test {name}.wasm")?;
        }
        PluginCommand::Build { directory } => {
            let built = build::build(&directory)?;
            writeln!(out, "{}: {} KiB", built.path.display(), built.bytes.div_ceil(1024))?;
        }
        PluginCommand::Inspect { file } => out.write_all(inspect::inspect(&file)?.as_bytes())?,
        PluginCommand::Test { file, cases, host, envoy } => {
            return trial::try_cases(&file, &cases, host, envoy, &mut out);
        }
        PluginCommand::Run(options) => {
            drop(out);
            return run::run(&options);
        }
        PluginCommand::Bench(options) => return bench::bench(&options, &mut out),
    }
    Ok(ExitCode::SUCCESS)
}
