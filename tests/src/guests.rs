//! Guests: the plugins of this repository as `cargo xtask plugins` left them, and small ones in text format.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};

/// Generous: tests run on busy machines. A test of the limit itself names its own.
const LIMITS: &str = "{ cpu: 5s }";

/// The target directory: the nearest above this program that cargo has marked as one.
///
/// # Panics
/// When this program is not in one.
#[must_use]
pub fn target() -> PathBuf {
    let program = env::current_exe().unwrap();
    let marked = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    marked.expect("the tests run from cargo's target directory").to_owned()
}

/// The module of a plugin.
///
/// # Panics
/// When it is not built.
#[must_use]
pub fn module(name: &str) -> PathBuf {
    let path = target().join("plugins").join(name).with_extension("wasm");
    assert!(path.is_file(), "{} is missing: run `cargo xtask plugins`", path.display());
    path
}

/// The entry of a plugin's module in a configuration.
#[must_use]
pub fn entry(path: &Path) -> String {
    format!("{{ module: \"file:{}\", limits: {LIMITS} }}", path.display())
}

/// A guest in a file of its own, for as long as this lives. Shown, it is its entry in a configuration.
#[derive(Debug)]
pub struct Guest {
    folder: tempfile::TempDir,
}

impl Guest {
    /// Out of text format.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        Self::of_bytes(&wat::parse_str(text).unwrap_or_else(|error| panic!("{error}")))
    }

    /// Out of a module's bytes, or of anything else.
    ///
    /// # Panics
    /// When they cannot be written.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let guest = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(guest.path(), bytes).unwrap();
        guest
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("guest.wasm")
    }
}

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&entry(&self.path()))
    }
}
