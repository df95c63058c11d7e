//! What operators read when a configuration is wrong, and what workers get when it is right.

mod files;
mod grants;
mod listeners;
mod modules;
mod names;
mod observe;
mod plugins;
mod reading;
mod rollouts;
mod standing;
mod structure;
mod syntax;
mod tiers;
mod tls;
mod upgrades;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Diagnostic, Inputs, Snapshot, from_text};
use crate::diagnostic::text as render;
use expect_test::Expect;

/// The least there is, for tests to add to.
const BASE: &str = "\
version: 1
listeners: { public: { bind: \"127.0.0.1:0\" } }
upstreams: { origin: { endpoints: [\"127.0.0.1:9001\"] } }
";

/// A gateway with a directory for tenants, for tests to add routes to: an upstream for all, and a filter for every request.
pub(crate) const WITH_TENANTS: &str = "\
version: 1
listeners: { public: { bind: \"127.0.0.1:0\" } }
admin: { bind: \"127.0.0.1:0\", token: \"sha256:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\", tenants: tenants.d }
upstreams: { shared: { endpoints: [\"127.0.0.1:9001\"] } }
plugins: { common: { module: \"file:module.wasm\" } }
filters: [{ plugin: common, config: all }]
";

/// Checks what is said about a whole file.
fn check(text: &str, want: &Expect) {
    let said = match from_text(Path::new("gateway.yaml"), text) {
        Ok((_, warnings)) => format!("{}ok\n", render(&warnings)),
        Err(problems) => render(&problems),
    };
    want.assert_eq(&said);
}

fn read(text: &str) -> Snapshot {
    from_text(Path::new("gateway.yaml"), text).map_err(|problems| panic!("{}", render(&problems))).unwrap().0
}

/// A directory that goes when the test ends.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Reads some of its files as one configuration; paths in what is said begin at the directory.
    fn load(&self, names: &[&str]) -> Result<(Snapshot, Vec<Diagnostic>), String> {
        let paths: Vec<PathBuf> = names.iter().map(|name| self.path(name)).collect();
        let here = format!("{}/", self.0.path().display());
        let loaded = super::load(&paths, &Inputs::default(), &Arc::default());
        loaded.map_err(|problems| render(&problems).replace(&here, ""))
    }

    fn check(&self, names: &[&str], want: &Expect) {
        want.assert_eq(&self.load(names).map_or_else(|said| said, |_| "ok\n".to_owned()));
    }
}
