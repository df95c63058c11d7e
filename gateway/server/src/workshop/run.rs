//! A gateway with one filter, for its author: what changes is rebuilt and swapped, and what cannot be used does not replace what
//! can.
//!
//! It is the gateway that `portcullis run` starts, on a configuration in a directory that is printed; changes of the module and
//! of that configuration are noticed and put into use as they are there. What is added is a thread that builds.

use std::fs;
use std::io::IsTerminal as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use http::Uri;
use serde_json::{Map, Value, json};
use tracing_subscriber::EnvFilter;

use super::{build, settings};
use crate::cli::{self, Sources, Watch};
use crate::config::Inputs;
use crate::supervisor;

/// How often sources are looked at.
const PERIOD: Duration = Duration::from_millis(300);

/// What is run, and with what.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// A module, or the directory of a crate: that is built first, and again when its sources change
    plugin: PathBuf,
    /// The filter's settings: a file, which is looked at too, or the text itself where it begins with `{`
    #[arg(long, value_name = "SETTINGS")]
    config: Option<String>,
    /// Where requests go: http://HOST:PORT or https://HOST
    #[arg(long, value_name = "URL")]
    upstream: String,
    /// An upstream that the filter may call; may be given again
    #[arg(long = "callout", value_name = "NAME=URL")]
    callouts: Vec<String>,
    /// The port to listen on, for this machine alone; 0 for any that is free
    #[arg(long, default_value = "8080")]
    port: u16,
    /// Log every callback and every hostcall
    #[arg(short, long)]
    verbose: bool,
}

/// Runs until it is told to end.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut upstreams = Map::from_iter([("origin".to_owned(), upstream("--upstream", &options.upstream)?)]);
    for callout in &options.callouts {
        let (name, url) = callout.split_once('=').ok_or_else(|| {
            anyhow!("--callout `{callout}` names no upstream; write NAME=URL, `idp=http://127.0.0.1:9100`")
        })?;
        upstreams.insert(name.to_owned(), upstream("--callout", url)?);
    }
    log_for_people(options.verbose);
    let mut plugin = Plugin::of(&options.plugin)?;
    plugin.note_settings(options.config.as_deref());
    let folder = Folder::make()?;
    let files = [folder.0.join("portcullis.yaml")];
    let [file] = &files;
    let write = {
        let (file, module, config, port) = (file.clone(), plugin.module.clone(), options.config.clone(), options.port);
        move || {
            let text = configuration(&module, settings::read(config.as_deref())?, &upstreams, port);
            fs::write(&file, format!("{text:#}")).with_context(|| format!("cannot write {}", file.display()))
        }
    };
    write()?;
    thread::spawn(move || plugin.follow(write));
    let from = Sources { paths: &files, watch: Watch::Yes, keep: None };
    let compiler = Some(portcullis_vm::Compiler::this_program());
    cli::serve(from, supervisor::Options { compiler, ..supervisor::Options::default() }, |gateway| {
        if let Some((_, address)) = gateway.listeners.first() {
            println!("serving http://{address}/ by {}; stop with Ctrl-C", file.display());
        }
    })
}

/// An upstream of the configuration, where a URL leads.
fn upstream(option: &str, url: &str) -> anyhow::Result<Value> {
    let wrong =
        || anyhow!("{option} `{url}` is no URL of an upstream; write http://HOST:PORT or https://HOST, without a path");
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let host = uri.host().ok_or_else(wrong)?;
    ensure!(matches!(uri.path(), "" | "/") && uri.query().is_none(), wrong());
    match uri.scheme_str() {
        Some("http") => Ok(json!({ "endpoints": [format!("{host}:{}", uri.port_u16().unwrap_or(80))] })),
        Some("https") => Ok(json!({ "endpoints": [format!("{host}:{}", uri.port_u16().unwrap_or(443))], "tls": {} })),
        _ => Err(wrong()),
    }
}

fn configuration(module: &Path, config: Value, upstreams: &Map<String, Value>, port: u16) -> Value {
    let filter =
        if config.is_null() { json!({ "plugin": "plugin" }) } else { json!({ "plugin": "plugin", "config": config }) };
    json!({
        "version": 1,
        "workers": 1,
        "listeners": { "run": { "bind": SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string() } },
        "upstreams": upstreams,
        "plugins": { "plugin": { "module": format!("file:{}", module.display()) } },
        "filters": [filter],
        "routes": [{ "name": "all", "match": { "path": "/*" }, "upstream": "origin" }],
    })
}

/// Lines for people on standard error, the guest's own among them; what `PORTCULLIS_LOG` says goes first.
fn log_for_people(verbose: bool) {
    if verbose {
        portcullis_vm::tell_of_calls();
    }
    let usual =
        if verbose { "info,portcullis::guest=trace,portcullis::abi=trace" } else { "info,portcullis::guest=debug" };
    let filter = std::env::var(crate::telemetry::LOG_VARIABLE).ok().and_then(|asked| EnvFilter::try_new(asked).ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new(usual));
    let lines = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).compact();
    let lines = lines.with_ansi(std::io::stderr().is_terminal());
    // Whoever has set up logging before wants it so.
    let _ours = lines.log_internal_errors(false).try_init();
}

/// A module, and what it is made from.
struct Plugin {
    module: PathBuf,
    /// The crate that it is built from, if it is.
    directory: Option<PathBuf>,
    /// The crate's sources, noted before they were compiled.
    sources: Inputs,
    /// The file with its settings.
    settings: Inputs,
}

impl Plugin {
    fn of(path: &Path) -> anyhow::Result<Self> {
        ensure!(
            path.exists(),
            "there is no {}; name a module (`portcullis plugin build` makes one), or the directory of a crate",
            path.display()
        );
        let absolute = std::path::absolute(path)?;
        let (sources, settings) = (Inputs::default(), Inputs::default());
        if !path.is_dir() {
            return Ok(Self { module: absolute, directory: None, sources, settings });
        }
        let mut plugin = Self { module: PathBuf::new(), directory: Some(absolute.clone()), sources, settings };
        plugin.build(&absolute)?;
        Ok(plugin)
    }

    /// Builds the crate. Sources that were known before stay as they were noted then, so that what changes while they are compiled
    /// is a change.
    fn build(&mut self, directory: &Path) -> anyhow::Result<()> {
        let built = build::build(directory)?;
        built.sources.iter().for_each(|source| self.sources.note(source));
        self.module = built.path;
        Ok(())
    }

    fn note_settings(&mut self, config: Option<&str>) {
        if let Some(path) = config.filter(|config| !config.trim_start().starts_with('{')) {
            self.settings.note(Path::new(path));
        }
    }

    /// Builds when sources change, and writes the configuration when settings do, as long as the process lives.
    fn follow(mut self, write: impl Fn() -> anyhow::Result<()>) {
        loop {
            #[allow(clippy::disallowed_methods, reason = "a thread of its own, which serves nobody")]
            thread::sleep(PERIOD);
            if let Some(directory) = self.directory.clone()
                && let Some(noted) = renewed(&self.sources)
            {
                self.sources = noted;
                match self.build(&directory) {
                    Ok(()) => tracing::info!("built; it is swapped in a moment"),
                    Err(why) => tracing::error!("not built: {why:#}; the last good module is still served"),
                }
            }
            if let Some(noted) = renewed(&self.settings) {
                self.settings = noted;
                if let Err(why) = write() {
                    tracing::error!("{why:#}; the last good settings are still used");
                }
            }
        }
    }
}

/// The same paths as they are now, if that is not as they were noted.
fn renewed(inputs: &Inputs) -> Option<Inputs> {
    (inputs.now() != inputs.noted()).then(|| inputs.again())
}

/// A directory that is removed when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn make() -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("portcullis-run-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to the system.
        let _removed = fs::remove_dir_all(&self.0);
    }
}
