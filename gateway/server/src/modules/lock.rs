//! The lock file: what each reference stands for, written once and kept with the configuration.
//!
//! It lies in the directory of the files that name the references. Where there is one, it alone says what they stand for: a tag that
//! moves, or a file that is replaced, changes nothing here.

use std::collections::BTreeMap;
use std::fmt::Write as _;

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

impl Lock {
    pub(crate) fn new(modules: BTreeMap<String, Locked>) -> Self {
        Self { version: 1, modules }
    }

    /// What stands in a file, or a clause that says why it cannot be read.
    pub(crate) fn read(value: serde_json::Value) -> Result<Self, String> {
        let lock: Self = serde_json::from_value(value).map_err(|error| error.to_string())?;
        if lock.version == 1 { Ok(lock) } else { Err(format!("its version is {}, not 1", lock.version)) }
    }

    /// The text of the file.
    pub(crate) fn write(&self) -> String {
        let mut out =
            "# Written by `portcullis plugin lock`: what the references of modules beside this file stand for.\n"
                .to_owned();
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
            # Written by `portcullis plugin lock`: what the references of modules beside this file stand for.
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
