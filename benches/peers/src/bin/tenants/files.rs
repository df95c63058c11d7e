//! What the gateway is told: its own file, and a directory with as many tenants as a figure asks for.
//!
//! Every tenant is alike: a host, two routes to the shared upstream, and the filter `banner`, which puts the tenant's name on each
//! answer. So an answer shows whose filter it went through.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use portcullis_measure::free_address;

/// What opens the admin listener.
pub(crate) const TOKEN: &str = "what-opens-the-admin-listener";
/// The field with the name of the tenant.
pub(crate) const HEADER: &str = "x-tenant";

const FOLDER: &str = "tenants.d";

/// The files of one gateway.
pub(crate) struct Files {
    dir: PathBuf,
    /// Where the gateway listens for requests, and for the admin's.
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) workers: usize,
}

impl Files {
    /// Writes a gateway's file, with no tenant yet, in the place of what is in `dir`.
    pub(crate) fn new(dir: &Path, workers: usize, origin: SocketAddr, banner: &Path) -> Result<Self> {
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
        fs::create_dir_all(dir.join(FOLDER))?;
        let (public, admin, banner) = (free_address()?, free_address()?, banner.display());
        let text = format!(
            r#"version: 1
workers: {workers}
access_log: off
listeners: {{ public: {{ bind: "{public}" }} }}
admin: {{ bind: "{admin}", token: "${{env:BENCH_TOKEN}}", tenants: {FOLDER} }}
upstreams: {{ shared: {{ endpoints: ["{origin}"] }} }}
plugins: {{ banner: {{ module: "file:{banner}" }} }}
"#
        );
        let files = Self { dir: dir.to_owned(), public, admin, workers };
        fs::write(files.config(), text)?;
        Ok(files)
    }

    /// The gateway's own file.
    pub(crate) fn config(&self) -> PathBuf {
        self.dir.join("portcullis.yaml")
    }

    /// Where what the gateway prints goes.
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("output.log")
    }

    /// Adds so many tenants.
    pub(crate) fn tenants(&self, count: usize) -> Result<()> {
        (0..count).map(nth).try_for_each(|name| self.tenant(&name, &tenant(&name), &[]))
    }

    /// Adds a tenant with modules of its own.
    pub(crate) fn tenant(&self, name: &str, text: &str, modules: &[(&str, &[u8])]) -> Result<()> {
        let folder = self.dir.join(FOLDER).join(name);
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        for (file, module) in modules {
            fs::write(folder.join(file), module)?;
        }
        Ok(fs::write(folder.join("tenant.yaml"), text)?)
    }
}

/// The name of a tenant by its number.
pub(crate) fn nth(number: usize) -> String {
    format!("t{number:05}")
}

/// So many tenants, evenly spread over `of`.
pub(crate) fn spread(count: usize, of: usize) -> Vec<String> {
    let count = count.min(of);
    (0..count).map(|number| nth(number * of / count)).collect()
}

/// Where a tenant is asked.
pub(crate) fn host(tenant: &str) -> String {
    format!("{tenant}.example.com")
}

/// What a tenant says.
pub(crate) fn tenant(name: &str) -> String {
    format!(
        r#"hosts: [{host}]
filters: [{{ plugin: banner, config: {{ header: {HEADER}, value: {name} }} }}]
routes:
  - {{ name: all, match: {{ path: "/*" }}, upstream: shared }}
  - {{ name: api, match: {{ path: "/api/{{id}}" }}, upstream: shared }}
"#,
        host = host(name)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_asked_are_spread_over_all_and_never_more_than_there_are() {
        assert_eq!(spread(4, 1_000), ["t00000", "t00250", "t00500", "t00750"]);
        assert_eq!(spread(9, 2), ["t00000", "t00001"]);
    }
}
