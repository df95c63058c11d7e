//! The gateways compared, and how each is started: one thread, kept-alive upstream connections, no logs.
//!
//! Everything else is left as it comes, so that a gateway is measured doing what it does for its users.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use portcullis_measure::process::{GATEWAY_CORE, pinned};

use crate::{cargo, plugins, root, run, target_dir, tools};

/// A gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Nginx,
    Haproxy,
    BareHyper,
    Envoy,
    Portcullis,
}

/// What stands in the filter chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filters {
    None,
    Noop,
    Headers,
    ThreeHeaders,
    /// So many no-op filters, each in a VM of its own.
    Vms(usize),
}

impl Filters {
    /// For people.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Noop => "1 no-op",
            Self::Headers => "1 headers",
            Self::ThreeHeaders => "3 headers",
            Self::Vms(_) => "no-ops in VMs of their own",
        }
    }

    /// The module that is used, and how many times.
    fn module(self) -> Option<(&'static str, usize)> {
        match self {
            Self::None => None,
            Self::Noop => Some(("noop", 1)),
            Self::Headers => Some(("headers", 1)),
            Self::ThreeHeaders => Some(("headers", 3)),
            Self::Vms(count) => Some(("noop", count)),
        }
    }
}

/// Where a gateway listens, where it sends requests, and a directory for its files.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) listen: SocketAddr,
    pub(super) origin: SocketAddr,
    pub(super) dir: &'a Path,
    /// In the clear without one.
    pub(super) certificate: Option<&'a Certificate>,
}

/// What a gateway shows its clients: files in PEM.
#[derive(Debug)]
pub(super) struct Certificate {
    pub(super) chain: PathBuf,
    pub(super) key: PathBuf,
    /// Both in one, as HAProxy wants it.
    pub(super) both: PathBuf,
}

impl Peer {
    /// In the order they are measured.
    pub(super) const ALL: [Self; 5] = [Self::Nginx, Self::Haproxy, Self::BareHyper, Self::Envoy, Self::Portcullis];

    /// As on the command line and in the tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::BareHyper => "bare-hyper",
            Self::Envoy => "envoy",
            Self::Portcullis => "portcullis",
        }
    }

    /// The peer of that name.
    pub(super) fn named(name: &str) -> Result<Self> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|peer| peer.name() == name)
            .with_context(|| format!("no peer `{name}` in: {}", known()))
    }

    /// The filter chains it is measured with; only two of them run wasm.
    pub(super) fn cases(self) -> &'static [Filters] {
        match self {
            Self::Nginx | Self::Haproxy | Self::BareHyper => &[Filters::None],
            Self::Envoy | Self::Portcullis => &[Filters::None, Filters::Noop, Filters::Headers, Filters::ThreeHeaders],
        }
    }

    /// Its executable, built or installed if need be.
    ///
    /// # Errors
    ///
    /// When it cannot be had on this machine; the others can still be measured.
    pub(super) fn obtain(self) -> Result<PathBuf> {
        match self {
            Self::Nginx => tools::require("nginx", "nginx-light"),
            Self::Haproxy => tools::require("haproxy", "haproxy"),
            Self::BareHyper => release_binary("portcullis-peers", "bare_proxy"),
            Self::Envoy => tools::envoy(),
            Self::Portcullis => release_binary("portcullis", "portcullis"),
        }
    }

    /// The command that starts it, pinned, with its configuration written to `place.dir`.
    pub(super) fn command(self, program: &Path, filters: Filters, place: &Place<'_>) -> Result<Command> {
        let mut command = pinned(&[GATEWAY_CORE], program);
        match self {
            Self::Nginx => command.arg("-c").arg(place.write("nginx.conf", include_str!("nginx.conf"))?),
            Self::Haproxy => command.args(["-db", "-f"]).arg(place.write("haproxy.cfg", include_str!("haproxy.cfg"))?),
            Self::BareHyper => command.args([place.listen, place.origin].map(|address| address.to_string())),
            Self::Envoy => {
                let config = include_str!("envoy.yaml").replace("@FILTERS@\n", &envoy_filters(filters));
                command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c"]);
                command.arg(place.write("envoy.yaml", &config)?)
            }
            Self::Portcullis => {
                let config = portcullis_filters(include_str!("portcullis.yaml"), filters);
                command.arg("run").arg(place.write("portcullis.yaml", &config)?)
            }
        };
        Ok(command)
    }
}

impl Place<'_> {
    /// Fills in the addresses and writes the file.
    fn write(&self, name: &str, template: &str) -> Result<PathBuf> {
        let text = template
            .replace("@DIR@", &self.dir.display().to_string())
            .replace("@LISTEN@", &self.listen.to_string())
            .replace("@HOST@", &self.listen.ip().to_string())
            .replace("@PORT@", &self.listen.port().to_string())
            .replace("@ORIGIN@", &self.origin.to_string())
            .replace("@ORIGIN_HOST@", &self.origin.ip().to_string())
            .replace("@ORIGIN_PORT@", &self.origin.port().to_string())
            .replace("@TLS@", &self.tls(name));
        let path = self.dir.join(name);
        fs::write(&path, text)?;
        Ok(path)
    }
}

impl Place<'_> {
    /// What the file of that name says of TLS: version 1.3, HTTP/2 by ALPN.
    fn tls(&self, name: &str) -> String {
        let Some(Certificate { chain, key, both }) = self.certificate else { return String::new() };
        let [chain, key, both] = [chain, key, both].map(|path| path.display().to_string());
        match name {
            "nginx.conf" => {
                format!(" ssl http2; ssl_certificate {chain}; ssl_certificate_key {key}; ssl_protocols TLSv1.3")
            }
            "haproxy.cfg" => format!(" ssl crt {both} alpn h2,http/1.1 ssl-min-ver TLSv1.3"),
            "envoy.yaml" => include_str!("envoy-tls.yaml").trim_end().replace("@CERT@", &chain).replace("@KEY@", &key),
            _ => format!(r#", tls: {{ certificates: [{{ cert: "{chain}", key: "{key}" }}], min_version: TLSv1.3 }}"#),
        }
    }
}

/// Builds a binary as users get it. Each package by itself: what one asks of hyper must not change the other.
pub(super) fn release_binary(package: &str, name: &str) -> Result<PathBuf> {
    run(cargo().current_dir(root()).args(["build", "--release", "--package", package, "--bin", name]))?;
    Ok(target_dir().join("release").join(name))
}

fn module_path(name: &str) -> PathBuf {
    plugins::output_dir().join(format!("{name}.wasm"))
}

/// Filters of one module share a VM with a root context each, as in Portcullis, unless each is to have its own.
fn envoy_filters(filters: Filters) -> String {
    let Some((module, count)) = filters.module() else { return String::new() };
    let filter = include_str!("envoy-filter.yaml").replace("@MODULE@", &module_path(module).display().to_string());
    let vm = |number: usize| if let Filters::Vms(_) = filters { format!("vm-{number}") } else { "bench".to_owned() };
    let filter = |number: usize| filter.replace("@NUMBER@", &number.to_string()).replace("@VM@", &vm(number));
    (1..=count).map(filter).collect()
}

fn portcullis_filters(template: &str, filters: Filters) -> String {
    let (plugins, chain) = filters.module().map_or_else(Default::default, |(module, count)| {
        let path = module_path(module);
        let uses: Vec<_> = (1..=count).map(|number| format!("{{ plugin: bench, config: \"{number}\" }}")).collect();
        (format!("bench: {{ module: \"file:{}\" }}", path.display()), uses.join(", "))
    });
    template.replace("@PLUGINS@", &format!("{{ {plugins} }}")).replace("@FILTERS@", &format!("[ {chain} ]"))
}
