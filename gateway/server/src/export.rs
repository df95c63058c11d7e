//! `portcullis export envoy`: the same filters, routes and upstreams for Envoy, for Istio, for Envoy Gateway.
//!
//! A checked snapshot becomes resources of Envoy's API, or of Kubernetes, with the modules beside them. What they cannot say is
//! noted with its place; nothing is left out in silence.
//! **Invariant:** what is written depends on the configuration alone: the same one gives the same files, byte by byte.

mod chains;
mod envoy;
mod envoy_gateway;
mod istio;
mod kubernetes;
mod notes;
mod paths;
mod places;
mod secrets;
#[cfg(test)]
mod tests;
mod yaml;

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};

use self::chains::Order;
use self::notes::{Kind, Notes};
use self::places::Places;
use self::secrets::{Secrets, Show};
use crate::config::snapshot::{Filter, FilterIndex, Plugin, Snapshot, TenantIndex, UpstreamIndex};
use crate::config::{self, Whole};
use crate::modules::Fetcher;
use crate::{cli, diagnostic};

/// What a configuration can be exported to.
#[derive(Debug, Subcommand)]
pub(crate) enum ExportCommand {
    /// Write what makes an Envoy, or Istio's or Envoy Gateway's, run the same chains, and list what it does not express
    Envoy(Options),
}

/// How it is exported.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Files, or directories of .yaml files, that together are the configuration
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The directory to write to; it is made if need be
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What is written
    #[arg(long, value_enum, default_value = "envoy")]
    format: Format,
    /// Where the directory will be on Envoy's machine, if not where it is now
    #[arg(long, value_name = "DIR")]
    at: Option<PathBuf>,
    /// Where modules of other machines are kept
    #[arg(long, value_name = "DIR", env = "PORTCULLIS_CACHE")]
    cache: Option<PathBuf>,
    /// Where Kubernetes fetches modules from that are not in a registry yet
    #[arg(long, value_name = "REGISTRY/PATH", default_value = "registry.example/plugins")]
    registry: String,
    /// Write secrets out, to files that only their owner may read, instead of their references
    #[arg(long)]
    with_secrets: bool,
    /// Exit with 1 if anything is lost
    #[arg(long)]
    strict: bool,
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// envoy.yaml, a bootstrap that an Envoy starts with
    Envoy,
    /// istio.yaml, a WasmPlugin for each filter
    Istio,
    /// envoy-gateway.yaml, Gateway API routes with an EnvoyExtensionPolicy each
    EnvoyGateway,
}

impl Format {
    fn file(self) -> &'static str {
        match self {
            Self::Envoy => "envoy.yaml",
            Self::Istio => "istio.yaml",
            Self::EnvoyGateway => "envoy-gateway.yaml",
        }
    }
}

/// The list of what is not expressed.
const NOTES: &str = "NOT-EXPRESSED.txt";
/// The directory of the modules.
const MODULES: &str = "plugins";

/// Does it; problems of the configuration are printed.
///
/// # Errors
/// When files cannot be written.
pub(crate) fn run(ExportCommand::Envoy(options): ExportCommand, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let fetcher = Fetcher::keeping(options.cache.as_deref()).context("the cache for modules cannot be used")?;
    let whole = match config::load_whole(&options.files, &Arc::new(fetcher)) {
        Ok(whole) => whole,
        Err(problems) => {
            cli::print(&problems, out)?;
            writeln!(out, "nothing was exported")?;
            return Ok(ExitCode::FAILURE);
        }
    };
    write!(out, "{}", diagnostic::text(&whole.warnings))?;
    let at = options.at.clone().map_or_else(|| std::path::absolute(&options.out), Ok)?;
    let show = if options.with_secrets { Show::Values } else { Show::References };
    let mut export = Export::new(&whole, at, &options.registry, show);
    let text = match options.format {
        Format::Envoy => yaml::document(&export.bootstrap()),
        Format::Istio => yaml::documents(&export.wasm_plugins()),
        Format::EnvoyGateway => yaml::documents(&export.gateway_resources()),
    };
    let file = options.out.join(options.format.file());
    export.write(&options.out, &file, &text).with_context(|| format!("cannot write to {}", options.out.display()))?;
    export.report(&options, &file, out)?;
    let fails = options.strict && export.notes.count(Kind::Lost) > 0;
    Ok(if fails { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// An export while it is made.
struct Export<'c> {
    snapshot: &'c Snapshot,
    places: Places<'c>,
    secrets: Secrets,
    notes: Notes,
    order: Order,
    /// Where the directory will be.
    at: PathBuf,
    /// Where modules will be fetched from, for Kubernetes.
    registry: &'c str,
    /// What upstreams are called.
    clusters: HashMap<UpstreamIndex, String>,
    /// File names and code of the modules, by their digests.
    modules: BTreeMap<[u8; 32], (String, Bytes)>,
}

impl<'c> Export<'c> {
    fn new(whole: &'c Whole, at: PathBuf, registry: &'c str, show: Show) -> Self {
        let places = Places::of(&whole.snapshot, &whole.tree);
        let mut notes = Notes::default();
        let secrets = Secrets::find(places.sections(), show, &mut notes);
        Self {
            snapshot: &whole.snapshot,
            places,
            secrets,
            notes,
            order: Order::default(),
            at,
            registry,
            clusters: HashMap::new(),
            modules: BTreeMap::new(),
        }
    }

    fn plugin_of(&self, filter: FilterIndex) -> (&'c Filter, &'c Plugin) {
        let filter = self.snapshot.filter(filter);
        (filter, self.snapshot.plugin(filter.plugin))
    }

    fn tenant_name(&self, tenant: Option<TenantIndex>) -> Option<&'c str> {
        tenant.map(|tenant| &*self.snapshot.tenant(tenant).name)
    }

    /// The names by which the filters of a chain are told apart, as they stand in the one order of all chains.
    fn placed(&mut self, chain: &[FilterIndex]) -> Vec<String> {
        let names: Vec<String> = chain.iter().map(|filter| self.filter_name(*filter)).collect();
        self.order.place(chain, &names)
    }

    fn filter_name(&self, filter: FilterIndex) -> String {
        let (filter, plugin) = self.plugin_of(filter);
        self.owned(filter.tenant, &plugin.name)
    }

    /// A name for what a tenant, or the gateway, has.
    fn owned(&self, tenant: Option<TenantIndex>, name: &str) -> String {
        self.tenant_name(tenant).map_or_else(|| name.to_owned(), |tenant| format!("{tenant}/{name}"))
    }

    fn cluster_name(&self, upstream: UpstreamIndex) -> &str {
        self.clusters.get(&upstream).map_or("", String::as_str)
    }

    /// The file that a plugin's module will be in, relative to the directory.
    fn module(&mut self, plugin: &Plugin) -> String {
        let name = || {
            let name: String = plugin.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
            (format!("{MODULES}/{name}-{}.wasm", &hex(&plugin.digest[..6])), plugin.code.clone())
        };
        self.modules.entry(plugin.digest).or_insert_with(name).0.clone()
    }

    /// What a filter is configured with, as text.
    fn configuration(&mut self, filter: &Filter) -> String {
        let config = self.secrets.configuration(&filter.config);
        String::from_utf8_lossy(config).into_owned()
    }

    fn write(&self, folder: &Path, file: &Path, text: &str) -> io::Result<()> {
        fs::create_dir_all(folder.join(MODULES))?;
        for (name, code) in self.modules.values() {
            fs::write(folder.join(name), code)?;
        }
        let mode = if self.secrets.are_shown() { 0o600 } else { 0o644 };
        let mut opened = OpenOptions::new().create(true).write(true).truncate(true).mode(mode).open(file)?;
        // One that was there has kept its own.
        opened.set_permissions(Permissions::from_mode(mode))?;
        opened.write_all(text.as_bytes())?;
        fs::write(folder.join(NOTES), self.notes.iter().map(|note| format!("{note}\n")).collect::<String>())
    }

    fn report(&self, options: &Options, file: &Path, out: &mut impl Write) -> io::Result<()> {
        self.notes.iter().try_for_each(|note| writeln!(out, "{note}"))?;
        let (lost, differ) = (self.notes.count(Kind::Lost), self.notes.count(Kind::Differs));
        let modules = self.modules.len();
        let s = if modules == 1 { "" } else { "s" };
        writeln!(out, "wrote {}, {modules} module{s} beside it; {lost} lost, {differ} different", file.display())?;
        match options.format {
            Format::Envoy => {
                let workers = self.snapshot.worker_count();
                let file = self.at.join(Format::Envoy.file());
                writeln!(out, "start it: envoy -c {} --concurrency {workers}", file.display())
            }
            Format::Istio | Format::EnvoyGateway => Ok(()),
        }
    }
}

/// Bytes in hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
