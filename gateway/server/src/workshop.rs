//! `portcullis plugin …`: what authors of filters use. It makes, builds, shows, tries, measures and runs
//! modules, and brings them to gateways.

mod bench;
mod body;
mod build;
mod cases;
mod create;
mod distribute;
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

use self::distribute::Access;
use crate::modules::lock::Update;

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
        /// The module: a file, or `builtin:NAME`
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
    /// Put a module into a registry, with its signature if it has one beside it
    Push {
        /// The module
        file: PathBuf,
        /// Where to: oci://HOST/REPOSITORY:TAG
        #[arg(value_name = "REFERENCE")]
        to: String,
        /// Sign it with this Ed25519 private key in PEM
        #[arg(long, value_name = "KEY")]
        sign: Option<PathBuf>,
        #[command(flatten)]
        access: Access,
    },
    /// Get a module from a registry or a web server, with its signature if it has one
    Pull {
        /// Where from: oci://HOST/REPOSITORY:TAG, oci://HOST/REPOSITORY@sha256:DIGEST or https://…
        reference: String,
        /// The file to write; by default called as the last part of the reference
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        access: Access,
    },
    /// Sign a module: its signature is written beside it, with .sig after its name
    Sign {
        /// The module
        file: PathBuf,
        /// The Ed25519 private key, in PEM
        #[arg(long)]
        key: PathBuf,
    },
    /// Say whether a module is signed by one of these keys: exits with 1 if not
    Verify {
        /// A file, whose signature lies beside it, or a reference
        module: String,
        /// An Ed25519 public key: a file with PEM, or with ed25519: and base64
        #[arg(long = "key", value_name = "FILE", required = true)]
        keys: Vec<PathBuf>,
        #[command(flatten)]
        access: Access,
    },
    /// Write what the references of a configuration stand for into portcullis.lock, beside the files that name them
    Lock {
        /// Files, or directories of .yaml files, that together are the configuration
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Ask for all of them again, not only for those that are not locked
        #[arg(long)]
        update: bool,
        /// Where fetched modules are kept
        #[arg(long, value_name = "DIR", env = "PORTCULLIS_CACHE")]
        cache: Option<PathBuf>,
    },
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
        PluginCommand::Push { file, to, sign, access } => {
            distribute::push(&file, &to, sign.as_deref(), &access, &mut out)?;
        }
        PluginCommand::Pull { reference, output, access } => {
            distribute::pull(&reference, output, &access, &mut out)?;
        }
        PluginCommand::Sign { file, key } => distribute::sign(&file, &key, &mut out)?,
        PluginCommand::Verify { module, keys, access } => distribute::verify(&module, &keys, &access, &mut out)?,
        PluginCommand::Lock { files, update, cache } => {
            let update = if update { Update::All } else { Update::Missing };
            return distribute::lock(&files, update, cache.as_deref(), &mut out);
        }
    }
    Ok(ExitCode::SUCCESS)
}
