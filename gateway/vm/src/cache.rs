//! Compiled modules on disk, so that a restart does not compile again.
//!
//! An entry is named by the module's digest and by everything its machine code depends on, and carries a checksum: one that
//! does not match is compiled again, never run. The checksum finds damage, not forgery: whoever can write here can run code in
//! the gateway, so a directory that others can write to is not used.

use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use sha2::{Digest as _, Sha256};

/// A directory of compiled modules.
#[derive(Debug)]
pub(crate) struct Cache {
    directory: PathBuf,
    /// Engine version, compiler settings, processor features.
    environment: String,
}

impl Cache {
    /// The cache in `directory`, which is made if need be.
    pub(crate) fn open(directory: &Path, environment: impl Hash) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let mode = fs::metadata(directory)?.mode();
        if mode & 0o022 != 0 {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "others can write to the directory"));
        }
        let mut hasher = Sha256Hasher(Sha256::new());
        environment.hash(&mut hasher);
        let environment = hex(hasher.0.finalize().get(..8).unwrap_or_default());
        Ok(Self { directory: directory.to_owned(), environment })
    }

    fn path(&self, digest: &[u8; 32]) -> PathBuf {
        self.directory.join(format!("{}-{}.cwasm", hex(digest), self.environment))
    }

    /// The machine code of the module with this digest, if there is any and it is undamaged.
    pub(crate) fn read(&self, digest: &[u8; 32]) -> Option<Vec<u8>> {
        let path = self.path(digest);
        let mut entry = match fs::read(&path) {
            Ok(entry) => entry,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a compiled module cannot be read; compiling it again");
                return None;
            }
        };
        let intact = entry.split_first_chunk::<32>().is_some_and(|(sum, code)| Sha256::digest(code)[..] == sum[..]);
        if !intact {
            tracing::warn!(path = %path.display(), "a compiled module is damaged; compiling it again");
            return None;
        }
        entry.drain(..32);
        Some(entry)
    }

    /// Keeps a module's machine code. Not being able to is no failure: it costs time at the next start.
    pub(crate) fn write(&self, digest: &[u8; 32], code: &[u8]) {
        let path = self.path(digest);
        if let Err(error) = self.replace(&path, code) {
            tracing::warn!(path = %path.display(), %error, "a compiled module cannot be kept");
        }
    }

    /// Under its name there is always a whole entry: it is written under another and renamed.
    fn replace(&self, path: &Path, code: &[u8]) -> io::Result<()> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("{}.{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let unfinished = self.directory.join(unique);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        let written = file.write_all(&Sha256::digest(code)).and_then(|()| file.write_all(code));
        let done = written.and_then(|()| fs::rename(&unfinished, path));
        if done.is_err() {
            let _already_failing = fs::remove_file(&unfinished);
        }
        done
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// wasmtime describes what code depends on as something to be hashed; a name on disk needs a hash that stays the same.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let sum = self.0.clone().finalize();
        sum.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
    }
}
