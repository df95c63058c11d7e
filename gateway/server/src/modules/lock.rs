//! The lock file: what each reference stands for, written once and kept with the configuration.
//!
//! It lies in the directory of the files that name the references. Where there is one, it alone says what they stand for: a tag that
//! moves, or a file that is replaced, changes nothing here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use serde::Deserialize;

use crate::config::{Digest, Written as _};

/// Its name.
pub(crate) const LOCK_FILE: &str = "portcullis.lock";

/// What a lock file says.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lock {
    /// The version of the format.
    version: u32,
    /// By the one spelling of the reference.
    pub(crate) modules: BTreeMap<String, Locked>,
}

/// What one reference stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Locked {
    /// The digest of the artefact's manifest, if it is in a registry.
    #[serde(default, deserialize_with = "some_digest")]
    pub(crate) manifest: Option<Digest>,
    /// The module's digest.
    #[serde(deserialize_with = "digest")]
    pub(crate) module: Digest,
    /// The module's size in bytes.
    pub(crate) size: usize,
}

/// Whether a lock file's entries are made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Update {
    /// Those that are missing.
    Missing,
    /// All of them.
    All,
}

/// Lock files that are made anew while a configuration is read, and what they are to say.
#[derive(Debug)]
pub(crate) struct Locking {
    update: Update,
    /// The only one; all, if absent.
    only: Option<PathBuf>,
    #[allow(clippy::disallowed_types, reason = "taken while a configuration is read, which no request waits for")]
    seen: std::sync::Mutex<Seen>,
}

/// By the lock file and the one spelling of the reference.
type Seen = BTreeMap<PathBuf, BTreeMap<String, Locked>>;

impl Locking {
    /// All there are.
    pub(crate) fn all(update: Update) -> Self {
        Self { update, only: None, seen: Default::default() }
    }

    /// This one.
    pub(crate) fn one(update: Update, file: PathBuf) -> Self {
        Self { only: Some(file), ..Self::all(update) }
    }

    /// What is to be made anew of a lock file; nothing where it holds.
    pub(crate) fn of(&self, file: &Path) -> Option<Update> {
        self.only.as_ref().is_none_or(|only| only == file).then_some(self.update)
    }

    /// Notes what a lock file is to say of a reference.
    pub(crate) fn note(&self, file: &Path, reference: String, locked: Locked) {
        if self.of(file).is_some() {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.entry(file.to_owned()).or_default().insert(reference, locked);
        }
    }

    /// What every lock file is to say.
    pub(crate) fn noted(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Lock {
    pub(crate) fn new(modules: BTreeMap<String, Locked>) -> Self {
        Self { version: 1, modules }
    }

    /// With what the other says besides; where both name a reference, the other's.
    pub(crate) fn with(mut self, other: &Self) -> Self {
        self.version = other.version;
        self.modules.extend(other.modules.clone());
        self
    }

    /// What stands in a file, or a clause that says why it cannot be read.
    pub(crate) fn read(value: serde_json::Value) -> Result<Self, String> {
        let lock: Self = serde_json::from_value(value).map_err(|error| error.to_string())?;
        if lock.version == 1 { Ok(lock) } else { Err(format!("its version is {}, not 1", lock.version)) }
    }

    /// The text of the file.
    pub(crate) fn write(&self) -> String {
        let mut out =
            "# Written by `portcullis`: what the references of modules beside this file stand for.\n".to_owned();
        let modules = if self.modules.is_empty() { " {}" } else { "" };
        let _in_memory = writeln!(out, "version: 1\nmodules:{modules}");
        for (reference, Locked { manifest, module, size }) in &self.modules {
            let _in_memory = writeln!(out, "  {}:", serde_json::Value::from(reference.as_str()));
            if let Some(manifest) = manifest {
                let _in_memory = writeln!(out, "    manifest: sha256:{}", manifest.write());
            }
            let _in_memory = writeln!(out, "    module: sha256:{}\n    size: {size}", module.write());
        }
        out
    }
}

fn digest<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
    let text = String::deserialize(deserializer)?;
    let digest = text.strip_prefix("sha256:").ok_or("it is not of `sha256:`".to_owned()).and_then(Digest::read);
    digest.map_err(|why| serde::de::Error::custom(format!("`{text}` is not a digest: {why}")))
}

fn some_digest<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Digest>, D::Error> {
    digest(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let (module, manifest) = (Digest([0x5e; 32]), Some(Digest([0x77; 32])));
        let lock = Lock::new(BTreeMap::from([
            ("oci://r.example/geo:1".to_owned(), Locked { manifest, module, size: 7 }),
            ("https://m.example/geo.wasm".to_owned(), Locked { manifest: None, module, size: 7 }),
        ]));
        expect![[r#"
            # Written by `portcullis`: what the references of modules beside this file stand for.
            version: 1
            modules:
              "https://m.example/geo.wasm":
                module: sha256:5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e
                size: 7
              "oci://r.example/geo:1":
                manifest: sha256:7777777777777777777777777777777777777777777777777777777777777777
                module: sha256:5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e
                size: 7
        "#]]
        .assert_eq(&lock.write());
        for lock in [lock, Lock::new(BTreeMap::new())] {
            assert_eq!(crate::config::lock(&lock.write()).unwrap(), lock);
        }
    }

    #[test]
    fn what_is_none_is_refused_with_a_reason() {
        for (text, why) in [
            ("version: 2\nmodules: {}", "its version is 2, not 1"),
            ("version: 1", "missing field `modules`"),
            ("version: 1\nmodules: { a: { module: '9f', size: 1 } }", "`9f` is not a digest: it is not of `sha256:`"),
        ] {
            assert_eq!(crate::config::lock(text), Err(why.to_owned()));
        }
    }
}
