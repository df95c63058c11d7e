//! The command line: what each command does with its arguments.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tokio::sync::mpsc::unbounded_channel;

use crate::config::standing::{Looking, Refused, Settled, Standing, Unusable, Used};
use crate::config::{self, Inputs, Kept, Node};
use crate::diagnostic::{self, Diagnostic, Severity};
use crate::inherited::Inherited;
use crate::life::{self, Files, Life};
use crate::modules::Fetcher;
use crate::supervisor::{self, Gateway, Options, RunError};
use crate::{compile, demo, export, telemetry, tryout, workshop};

/// An API gateway whose policies are sandboxed WebAssembly.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve requests as the configuration says, until SIGTERM or Ctrl-C
    Run {
        /// Files, or directories of .yaml files, that together are the configuration
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Where modules that were fetched, and all that were compiled, are kept between starts
        #[arg(long, value_name = "DIR", env = "PORTCULLIS_CACHE")]
        cache: Option<PathBuf>,
        /// Where is kept what the next start needs: a copy of the last good configuration, to be served if the files cannot be used,
        /// and what was decided about roll-outs
        #[arg(long, value_name = "DIR", env = "PORTCULLIS_KEEP")]
        keep: Option<PathBuf>,
        /// How many VMs there may be, over all workers; address space is reserved for each
        #[arg(long, value_name = "COUNT", env = "PORTCULLIS_MAX_VMS", value_parser = clap::value_parser!(u32).range(1..))]
        max_vms: Option<u32>,
        /// Do not look for changes of the configuration's files; SIGHUP and `POST /reload` read them anew all the same
        #[arg(long)]
        no_watch: bool,
    },
    /// Check a configuration, with what its plugins say to their settings: exits with 0 if it can be used, with 1 if not
    Check {
        /// Files, or directories of .yaml files, that together are the configuration
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Where fetched and compiled modules are kept
        #[arg(long, value_name = "DIR", env = "PORTCULLIS_CACHE")]
        cache: Option<PathBuf>,
        /// Compile no modules and start no plugins: only the gateway's own settings are checked
        #[arg(long)]
        no_start: bool,
    },
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    /// Print which functions of the Proxy-Wasm ABI and of WASI guests may import
    Abi,
    /// Compile the module on standard input, under limits: what a gateway does with modules, in a process of its own
    #[command(hide = true)]
    Compile {
        /// Processor time
        #[arg(long)]
        cpu_seconds: u64,
        /// Bytes of memory
        #[arg(long)]
        memory: u64,
    },
    /// Serve two tenants with all built-in policies, and say what to try
    Demo(demo::Addresses),
    /// Write the configuration for another proxy that runs the same plugins
    Export {
        #[command(subcommand)]
        to: export::ExportCommand,
    },
    /// Make, build, show and try plugins
    Plugin {
        #[command(subcommand)]
        command: workshop::PluginCommand,
    },
}

/// Does what the arguments ask for.
///
/// # Errors
/// When the gateway cannot be started, with the reason; a configuration's problems are printed instead.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    match arguments.command {
        Command::Check { files, cache, no_start } => {
            let fetcher = Fetcher::keeping(cache.as_deref()).context("the cache for modules cannot be used")?;
            let plugins = if no_start { Plugins::Unstarted } else { Plugins::Started { cache } };
            Ok(check(&files, &Arc::new(fetcher), plugins, &mut out)?)
        }
        Command::Schema => {
            schema(&mut out)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Abi => {
            out.write_all(abi().as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Compile { cpu_seconds, memory } => compile::alone(cpu_seconds, memory, out),
        Command::Run { files, cache, keep, max_vms, no_watch } => {
            drop(out);
            let watch = if no_watch { Watch::No } else { Watch::Yes };
            let from = Sources { paths: &files, watch, keep: keep.map(Kept::new) };
            let decisions = from.keep.as_ref().map(Kept::decisions);
            let compiler = Some(portcullis_vm::Compiler::this_program());
            serve(from, Options { cache, max_vms, compiler, decisions, ..Options::default() }, |gateway| {
                for (name, address) in &gateway.listeners {
                    tracing::info!(listener = %name, %address, "serving");
                }
            })
        }
        Command::Export { to } => export::run(to, &mut out),
        Command::Plugin { command } => {
            drop(out);
            Ok(workshop::run(command))
        }
        Command::Demo(addresses) => {
            drop(out);
            let demo = demo::prepare(addresses).context("the demo cannot be set up")?;
            let files = [demo.config];
            let from = Sources { paths: &files, watch: Watch::Yes, keep: None };
            serve(from, Options::default(), |gateway| {
                let [config] = &files;
                if let Some((_, address)) = gateway.listeners.first() {
                    println!("{}", demo::guide(*address, gateway.admin, config));
                }
            })
        }
    }
}

/// Where a configuration comes from.
pub(crate) struct Sources<'a> {
    pub(crate) paths: &'a [PathBuf],
    pub(crate) watch: Watch,
    pub(crate) keep: Option<Kept>,
}

/// A gateway that has been started, and from what.
struct Started {
    settled: Settled<Gateway>,
    /// Why the configuration could not be used, where the last good one is in its place.
    refused: Option<String>,
}

impl Sources<'_> {
    /// Starts a gateway from the configuration, or else from the last good one; nothing when neither can be used, which has been said.
    fn start(&self, inputs: &Inputs, options: &Options) -> anyhow::Result<Option<Started>> {
        let start = |snapshot, tree: &Node| {
            let made = supervisor::start(snapshot, options).map_err(|why| Unusable::written(why, tree))?;
            let snapshot = made.handle().snapshot();
            Ok(Used { made, snapshot })
        };
        let copy = self.keep.as_ref().and_then(|keep| keep.paths(self.paths));
        let fetcher =
            Arc::new(Fetcher::keeping(options.cache.as_deref()).context("the cache for modules cannot be used")?);
        let standing = Standing::in_copy(copy.clone(), &fetcher);
        let refused = match standing.settle(self.paths, inputs, Looking::Everywhere, start) {
            Ok(settled) => {
                // Where nobody can be told, what can be served is served all the same.
                let _unheard = print(&settled.warnings, &mut io::stderr());
                return Ok(Some(Started { settled, refused: None }));
            }
            Err(refused) => refused,
        };
        let Some((paths, inputs)) = copy else { return not_started(refused) };
        match Standing::in_copy(None, &fetcher).settle(&paths, &inputs, Looking::Everywhere, start) {
            Ok(settled) => {
                let why = refused.text();
                // Without the sentence that nothing was started: the copy is, and the log says so next.
                let _unheard = writeln!(io::stderr(), "{}", why.trim_end());
                Ok(Some(Started { settled, refused: Some(why) }))
            }
            Err(neither) => {
                tracing::error!("the last good configuration cannot be used either: {}", neither.text().trim_end());
                not_started(refused)
            }
        }
    }
}

/// Says why nothing was started, where that is written; else the caller shall.
fn not_started(refused: Refused<RunError>) -> anyhow::Result<Option<Started>> {
    let problems = match refused {
        Refused::Unusable(unusable) if unusable.problems.is_empty() => {
            return Err(unusable.why).context("the gateway cannot start");
        }
        Refused::Unusable(Unusable { problems, .. }) | Refused::Problems(problems) => problems,
    };
    report(&problems, &mut io::stderr())?;
    Ok(None)
}

/// Runs a gateway until the process is told to end.
pub(crate) fn serve(
    from: Sources<'_>,
    mut options: Options,
    started: impl FnOnce(&Gateway),
) -> anyhow::Result<ExitCode> {
    telemetry::init_logging();
    let (inherited, predecessor) = Inherited::of_this_process();
    let inputs = Inputs::default();
    let (reloads, requests) = unbounded_channel();
    options.reloads = Some(reloads);
    options.inherited = inherited;
    let Some(Started { settled, refused }) = from.start(&inputs, &options)? else { return Ok(ExitCode::FAILURE) };
    // It serves already: whoever ends it now shall see it drain.
    let life = Life::begin()?;
    let Settled { made: gateway, standing, held, .. } = settled;
    life::tell_held(&held);
    if let Some(why) = refused {
        tracing::error!("the configuration cannot be used; the last good one is served in its place");
        gateway.handle().refused(&why);
    } else if let Some(keep) = &from.keep {
        life::keep(keep, &inputs, &held);
    }
    started(&gateway);
    let watch = from.watch == Watch::Yes;
    let files = Files { paths: from.paths.into(), inputs, watch, keep: from.keep, standing };
    Ok(life.live(gateway, files, requests, predecessor))
}

/// Whether changes of files are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    Yes,
    No,
}

/// Whether a check hears what plugins say to their settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plugins {
    /// Each is started once.
    Started {
        /// Where compiled modules are kept; nowhere if absent.
        cache: Option<PathBuf>,
    },
    /// None is.
    Unstarted,
}

/// `portcullis check FILE…`: every problem to `out`. Exits with 1 if the configuration cannot be used.
///
/// # Errors
/// When `out` cannot be written to.
pub fn check(
    paths: &[PathBuf],
    fetcher: &Arc<Fetcher>,
    plugins: Plugins,
    out: &mut impl Write,
) -> io::Result<ExitCode> {
    let whole = match config::load_whole(paths, fetcher) {
        Ok(whole) => whole,
        Err(problems) => {
            report(&problems, out)?;
            return Ok(ExitCode::FAILURE);
        }
    };
    print(&whole.warnings, out)?;
    print(&tryout::unknown_upstreams(&whole), out)?;
    let snapshot = &whole.snapshot;
    let routes = counted(snapshot.routes().count(), "route");
    let filters = counted(snapshot.filters().count(), "filter");
    let said = format!("ok: {routes}, {filters}, {}", counted(snapshot.tenants.len(), "tenant"));
    let problems = match plugins {
        Plugins::Started { cache } => tryout::problems(whole, cache),
        Plugins::Unstarted => Vec::new(),
    };
    if problems.is_empty() {
        writeln!(out, "{said}")?;
        return Ok(ExitCode::SUCCESS);
    }
    report(&problems, out)?;
    Ok(ExitCode::FAILURE)
}

/// Every problem, and how many there are.
fn report(problems: &[Diagnostic], out: &mut impl Write) -> io::Result<()> {
    print(problems, out)?;
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    writeln!(out, "{}; nothing was started or changed", counted(errors, "error"))
}

fn counted(number: usize, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

/// Diagnostics as operators read them, with an empty line after each; of very many the first.
///
/// # Errors
/// When `out` cannot be written to.
pub fn print(diagnostics: &[Diagnostic], out: &mut impl Write) -> io::Result<()> {
    out.write_all(diagnostic::text(diagnostics).as_bytes())
}

/// `portcullis schema`: the JSON Schema of a configuration to `out`.
///
/// # Errors
/// When `out` cannot be written to.
pub fn schema(out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{:#}", config::schema())
}

/// `portcullis abi`: what guests may import, and what of theirs is called, as the README shows it.
#[must_use]
pub fn abi() -> String {
    let list = |names: &mut dyn Iterator<Item = &'static str>| {
        names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    };
    format!(
        "Imports from `env`: {}.\n\nFrom WASI: {}.\n\nForeign functions: {}.\n\nCallbacks: {}.\n",
        list(&mut portcullis_vm::hostcalls()),
        list(&mut portcullis_vm::wasi_functions()),
        list(&mut portcullis_vm::foreign_functions()),
        list(&mut portcullis_vm::callbacks())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_shows_the_abi_as_it_is() {
        let readme = include_str!("../../../README.md");
        assert!(readme.contains(&abi()), "the README needs:\n{}", abi());
    }

    #[test]
    fn arguments_are_consistent() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }
}
