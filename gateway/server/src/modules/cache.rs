//! Modules that were fetched, by their digest, and what references stood for: in memory and, where there is a directory, on disk.
//!
//! What is on disk survives a restart, so a gateway starts while its registries are away. A module whose bytes do not have the
//! digest it is named by is not used. What references stand for is believed: a directory that others can write to is not used.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::fetch::MAX_MODULE;
use super::signature::Signature;
use crate::config::{Digest, Text, Written as _};

/// The most bytes of modules that the directory keeps, beyond those in use.
pub(super) const FOLDER_BYTES: u64 = 1 << 30;
/// A file that has not been finished for so long never will be.
const UNFINISHED: Duration = Duration::from_secs(3600);

/// What a reference stood for when it was last asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Resolved {
    /// The module's digest.
    pub(super) module: Text<Digest>,
    /// That of the artefact's manifest, where it came from a registry.
    pub(super) manifest: Option<Text<Digest>>,
    /// The module's signature, in base64.
    signature: Option<String>,
    /// When it was asked for, in seconds since the Unix epoch.
    pub(super) asked: u64,
}

impl Resolved {
    pub(super) fn new(module: Digest, manifest: Option<Digest>, signature: Option<Signature>, asked: u64) -> Self {
        let signature = signature.map(|signature| signature.text());
        Self { module: Text(module), manifest: manifest.map(Text), signature, asked }
    }

    /// The same, asked for at another time.
    pub(super) fn asked_at(self, asked: u64) -> Self {
        Self { asked, ..self }
    }

    pub(super) fn signature(&self) -> Option<Signature> {
        self.signature.as_deref().and_then(Signature::of_text)
    }
}

/// Modules, and what references stood for.
#[derive(Debug, Default)]
pub(super) struct Cache {
    folder: Option<PathBuf>,
    #[allow(clippy::disallowed_types, reason = "taken while a configuration is read, which no request waits for")]
    memory: std::sync::Mutex<Memory>,
    /// Whether a module was written since the directory was last looked through.
    has_grown: AtomicBool,
}

#[derive(Debug, Default)]
struct Memory {
    modules: HashMap<Digest, Held>,
    resolved: HashMap<String, Resolved>,
}

/// A module in memory.
#[derive(Debug)]
struct Held {
    module: Bytes,
    age: Age,
}

/// Whether a module has had the time to be put into use.
#[derive(Debug, PartialEq, Eq)]
enum Age {
    /// It has come since the last sweep: a configuration is read more than once where a tenant has to be held.
    New,
    /// It was there before that.
    Old,
}

impl Memory {
    fn hold(&mut self, digest: Digest, module: Bytes) {
        self.modules.insert(digest, Held { module, age: Age::New });
    }
}

impl Cache {
    /// One that keeps what it has in this directory too.
    pub(super) fn in_folder(folder: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        if fs::metadata(&folder)?.mode() & 0o022 != 0 {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "others can write to the directory"));
        }
        Ok(Self { folder: Some(folder), ..Self::default() })
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anything outlives the process.
    pub(super) fn is_kept(&self) -> bool {
        self.folder.is_some()
    }

    /// Forgets, in memory, the modules that nobody else holds and that are not new.
    pub(super) fn sweep(&self) {
        let mut memory = self.memory();
        let Memory { modules, resolved } = &mut *memory;
        modules.retain(|digest, held| {
            let age = std::mem::replace(&mut held.age, Age::Old);
            let stays = age == Age::New || !held.module.is_unique();
            if !stays {
                self.was_used(digest);
            }
            stays
        });
        resolved.retain(|_, resolved| modules.contains_key(&resolved.module.0));
    }

    /// The module of this digest.
    pub(super) fn module(&self, digest: &Digest) -> Option<Bytes> {
        if let Some(held) = self.memory().modules.get(digest) {
            return Some(held.module.clone());
        }
        let path = self.module_path(digest)?;
        let module = match fs::read(&path) {
            Ok(module) => Bytes::from(module),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a fetched module cannot be read; fetching it again");
                return None;
            }
        };
        if Sha256::digest(&module)[..] != digest.0 {
            tracing::warn!(path = %path.display(), "a fetched module is damaged; fetching it again");
            return None;
        }
        self.was_used(digest);
        self.memory().hold(*digest, module.clone());
        Some(module)
    }

    /// Notes on disk that a module is used now: what was used longest ago goes first.
    fn was_used(&self, digest: &Digest) {
        let Some(path) = self.module_path(digest) else { return };
        let noted = File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
        if let Err(error) = noted {
            tracing::debug!(%error, "when a module was used cannot be noted");
        }
    }

    /// Makes the modules on disk fit `most` bytes, if any were written: those go that were used longest ago, but none that is in memory,
    /// where everything is that a configuration names. What references stood for goes with their modules.
    pub(super) fn sweep_folder(&self, most: u64) {
        let Some(folder) = self.folder.as_ref().filter(|_| self.has_grown.swap(false, Ordering::Relaxed)) else {
            return;
        };
        if let Err(error) = self.try_sweep_folder(folder, most) {
            tracing::warn!(path = %folder.display(), %error, "fetched modules that nobody uses cannot be removed");
        }
    }

    fn try_sweep_folder(&self, folder: &Path, most: u64) -> io::Result<()> {
        let mut modules = Vec::new();
        let mut references = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            // Another process may take a file away meanwhile.
            let Ok(there) = fs::metadata(&path) else { continue };
            match path.extension().and_then(OsStr::to_str) {
                Some("wasm") => modules.push((there.modified()?, there.len(), path)),
                Some("json") => references.push(path),
                Some("tmp") if there.modified()?.elapsed().is_ok_and(|age| age > UNFINISHED) => fs::remove_file(path)?,
                _ => {}
            }
        }
        let mut bytes: u64 = modules.iter().map(|(_, len, _)| len).sum();
        modules.sort();
        let mut gone = 0;
        for (_, len, path) in modules {
            if bytes <= most {
                break;
            }
            if !self.is_in_memory(&path) {
                fs::remove_file(&path)?;
                bytes -= len;
                gone += 1;
            }
        }
        if gone > 0 {
            tracing::info!(path = %folder.display(), modules = gone, "fetched modules that were not used for long are gone");
            references.iter().filter(|path| self.leads_nowhere(path)).try_for_each(fs::remove_file)?;
        }
        Ok(())
    }

    fn is_in_memory(&self, module: &Path) -> bool {
        let digest = module.file_stem().and_then(OsStr::to_str).and_then(|name| Digest::read(name).ok());
        digest.is_some_and(|digest| self.memory().modules.contains_key(&digest))
    }

    /// Whether a file says what a reference stood for, and that is not there.
    fn leads_nowhere(&self, reference: &Path) -> bool {
        let kept = fs::read(reference).ok().and_then(|text| serde_json::from_slice::<Kept>(&text).ok());
        kept.is_some_and(|kept| self.module_path(&kept.resolved.module.0).is_some_and(|module| !module.exists()))
    }

    /// What a reference stood for.
    pub(super) fn resolved(&self, reference: &str) -> Option<Resolved> {
        if let Some(resolved) = self.memory().resolved.get(reference) {
            return Some(resolved.clone());
        }
        let text = fs::read(self.reference_path(reference)?).ok()?;
        let kept: Kept = serde_json::from_slice(&text).ok()?;
        (kept.reference == reference).then_some(kept.resolved)
    }

    /// Keeps a module and what its reference stands for. Not being able to write them is no failure now: it will be one when the
    /// gateway starts while the registry is away.
    pub(super) fn keep(&self, reference: &str, resolved: &Resolved, module: &Bytes) {
        let mut memory = self.memory();
        memory.hold(resolved.module.0, module.clone());
        memory.resolved.insert(reference.to_owned(), resolved.clone());
        drop(memory);
        let (Some(module_path), Some(reference_path)) =
            (self.module_path(&resolved.module.0), self.reference_path(reference))
        else {
            return;
        };
        let kept = Kept { reference: reference.to_owned(), resolved: resolved.clone() };
        let kept = serde_json::to_vec(&kept).unwrap_or_default();
        // The module first: what a reference stands for shall be there.
        let is_there = fs::metadata(&module_path).is_ok_and(|there| there.len() == module.len() as u64);
        let written = if is_there { Ok(()) } else { replace(&module_path, module) };
        self.has_grown.fetch_or(!is_there, Ordering::Relaxed);
        if let Err(error) = written.and_then(|()| replace(&reference_path, &kept)) {
            tracing::warn!(reference, %error, "a fetched module cannot be kept");
        }
    }

    fn module_path(&self, digest: &Digest) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(format!("{}.wasm", digest.write())))
    }

    fn reference_path(&self, reference: &str) -> Option<PathBuf> {
        let name = Digest(Sha256::digest(reference).into()).write();
        Some(self.folder.as_ref()?.join(format!("{name}.json")))
    }
}

/// A file that says what a reference stood for.
#[derive(Serialize, Deserialize)]
struct Kept {
    reference: String,
    #[serde(flatten)]
    resolved: Resolved,
}

/// Under its name there is always a whole file: it is written under another and renamed.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    debug_assert!(content.len() <= MAX_MODULE, "nothing larger is fetched");
    let unfinished =
        path.with_extension(format!("{}.{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    let written = file.write_all(content).and_then(|()| fs::rename(&unfinished, path));
    if written.is_err() {
        let _already_failing = fs::remove_file(&unfinished);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const REFERENCE: &str = "oci://r.example/geo:1";

    fn module() -> (Bytes, Resolved) {
        let module = Bytes::from_static(b"\0asm");
        let resolved = Resolved::new(Digest(Sha256::digest(&module).into()), None, None, 7);
        (module, resolved)
    }

    #[test]
    fn what_is_kept_on_disk_outlives_the_process_unless_it_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let (module, resolved) = module();
        let open = || Cache::in_folder(folder.path().join("modules")).unwrap();
        open().keep(REFERENCE, &resolved, &module);
        let again = open();
        assert_eq!(again.resolved(REFERENCE), Some(resolved.clone()));
        assert_eq!(again.module(&resolved.module.0), Some(module));
        assert_eq!(again.resolved("oci://r.example/geo:2"), None);
        let path = again.module_path(&resolved.module.0).unwrap();
        fs::write(path, b"\0bsm").unwrap();
        assert_eq!(open().module(&resolved.module.0), None);
    }

    #[test]
    fn memory_holds_what_somebody_uses() {
        let cache = Cache::default();
        let (module, resolved) = module();
        cache.keep(REFERENCE, &resolved, &Bytes::from(module.to_vec()));
        let used = cache.module(&resolved.module.0).unwrap();
        cache.sweep();
        cache.sweep();
        assert_eq!(cache.resolved(REFERENCE), Some(resolved.clone()));
        drop(used);
        cache.sweep();
        assert_eq!((cache.resolved(REFERENCE), cache.module(&resolved.module.0)), (None, None));
    }

    #[test]
    fn on_disk_stays_what_is_used_and_of_the_rest_what_was_used_last() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Cache::in_folder(folder.path().to_owned()).unwrap();
        let module = |n: u8| {
            let module = Bytes::from(vec![n; 100]);
            let resolved = Resolved::new(Digest(Sha256::digest(&module).into()), None, None, 7);
            (format!("oci://r.example/geo:{n}"), resolved, module)
        };
        for n in 0..5 {
            let (reference, resolved, bytes) = module(n);
            let cache = open();
            cache.keep(&reference, &resolved, &bytes);
            let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1000 + u64::from(n));
            let file = File::open(cache.module_path(&resolved.module.0).unwrap()).unwrap();
            file.set_modified(long_ago).unwrap();
        }
        let cache = open();
        // One is in use, and another has been used since.
        let used = cache.module(&module(0).1.module.0).unwrap();
        assert!(open().module(&module(1).1.module.0).is_some());
        cache.sweep_folder(0);
        let there = |n: u8| {
            let (reference, resolved, _) = module(n);
            let cache = open();
            (cache.resolved(&reference).is_some(), cache.module_path(&resolved.module.0).unwrap().exists())
        };
        assert_eq!((0..5).map(there).collect::<Vec<_>>(), [(true, true); 5], "nothing was written");
        let (reference, resolved, bytes) = module(5);
        cache.keep(&reference, &resolved, &bytes);
        cache.sweep_folder(350);
        let stays = [0, 1, 5];
        assert_eq!(
            (0..6).map(there).collect::<Vec<_>>(),
            (0..6).map(|n| [(false, false), (true, true)][usize::from(stays.contains(&n))]).collect::<Vec<_>>()
        );
        drop(used);
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Cache::in_folder(folder.path().to_owned()).is_err());
    }
}
