//! What a configuration was read from, so that a change of any of it can be noticed.
//!
//! Every path that is looked at while a configuration is read is noted, whether or not something is there: a file that was
//! missing may come. **Invariant:** a path's state is noted before it is looked at, so what happens to a file while it is read
//! is a change.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf, absolute};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::{fs, io};

use bytes::Bytes;

use super::directory::TENANT_FILE;
use crate::modules::lock::Locking;
use crate::regular;

/// The files and directories of one configuration. Clones note into the same list.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    #[allow(clippy::disallowed_types, reason = "taken while a configuration is read, which no request waits for")]
    states: Arc<std::sync::Mutex<States>>,
    /// Where absolute paths are taken to start, for a copy of the files.
    root: Option<Arc<Path>>,
    /// Files that are taken to be so, whatever is there: with this content, or gone.
    changes: Arc<Changes>,
    /// Lock files that are made anew; none, if absent.
    locking: Option<Arc<Locking>>,
}

type Changes = BTreeMap<PathBuf, Option<Bytes>>;

/// The paths that were looked at, by whose they are: a tenant's, whose own files name them, or the gateway's.
type States = BTreeMap<Option<Arc<str>>, Arc<BTreeMap<PathBuf, State>>>;

/// What the file system says of all of them at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp(Vec<State>);

/// What tells one state of a path from another, links followed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Missing,
    /// Replacing a file changes its inode, as does the exchange of a link on the way to it (Kubernetes' `..data`); writing to
    /// it changes its times, of which one cannot be set back.
    File {
        device: u64,
        inode: u64,
        size: u64,
        modified: (i64, i64),
        changed: (i64, i64),
    },
    /// Only which files of configuration are in it: others come and go.
    Folder(BTreeSet<OsString>),
}

impl Inputs {
    fn states(&self) -> MutexGuard<'_, States> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of a copy, in which everything has the path it had, below `root`.
    pub(super) fn below(root: PathBuf) -> Self {
        Self { root: Some(root.into()), ..Self::default() }
    }

    /// Those of a configuration as it would be after these changes.
    pub(crate) fn changed(changes: Changes) -> Self {
        Self { changes: Arc::new(changes), ..Self::default() }
    }

    /// The same, to find out what lock files are to say.
    pub(crate) fn locking_anew(self, locking: Arc<Locking>) -> Self {
        Self { locking: Some(locking), ..self }
    }

    /// The lock files that are made anew.
    pub(super) fn locking(&self) -> Option<&Locking> {
        self.locking.as_deref()
    }

    /// What is in a file.
    ///
    /// # Errors
    /// When it cannot be read, is no regular file, or has more than `most` bytes.
    pub(crate) fn read(&self, path: &Path, most: u64) -> io::Result<Bytes> {
        match self.changes.get(path) {
            Some(Some(content)) => Ok(content.clone()),
            Some(None) => Err(io::ErrorKind::NotFound.into()),
            None => regular::read(path, most).map(Bytes::from),
        }
    }

    /// What is in a file, or comes through a pipe until that is closed.
    ///
    /// # Errors
    /// When it cannot be read, or has more than `most` bytes.
    pub(super) fn read_piped(&self, path: &Path, most: u64) -> io::Result<Bytes> {
        if self.changes.contains_key(path) || path.is_file() {
            return self.read(path, most);
        }
        let mut content = Vec::new();
        fs::File::open(path)?.take(most + 1).read_to_end(&mut content)?;
        if content.len() as u64 > most {
            return Err(regular::too_large(most));
        }
        Ok(content.into())
    }

    /// The names of the folders in `folder` that have a file of this name, in order.
    pub(crate) fn folders_with(&self, folder: &Path, file: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries.collect::<io::Result<Vec<_>>>()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let there = entries.iter().map(fs::DirEntry::path);
        let changed = self.changes.keys().filter_map(|path| path.parent()).filter(|path| path.parent() == Some(folder));
        let all: BTreeSet<PathBuf> = there.chain(changed.map(Path::to_path_buf)).collect();
        let names = all.into_iter().filter(|path| self.is_file(&path.join(file)));
        Ok(names.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }

    /// Whether there is a file.
    pub(super) fn is_file(&self, path: &Path) -> bool {
        self.changes.get(path).map_or_else(|| path.is_file(), Option::is_some)
    }

    /// The file that `written` means in a file in this folder.
    pub(crate) fn locate(&self, folder: &Path, written: &str) -> PathBuf {
        match &self.root {
            Some(root) if Path::new(written).is_absolute() => below(root, Path::new(written)),
            Some(_) | None => folder.join(written),
        }
    }

    /// Every path that was noted, and whose it is.
    pub(super) fn owned_paths(&self) -> Vec<(PathBuf, Option<Arc<str>>)> {
        let states = self.states();
        let owned = states.iter().flat_map(|(owner, paths)| paths.keys().map(|path| (path.clone(), owner.clone())));
        owned.collect()
    }

    /// Notes a path that is about to be looked at.
    pub(crate) fn note(&self, path: &Path) {
        self.note_of(path, None);
    }

    /// The same, for one that a tenant's own files name.
    pub(crate) fn note_of(&self, path: &Path, tenant: Option<&Arc<str>>) {
        let mut states = self.states();
        let paths = Arc::make_mut(states.entry(tenant.cloned()).or_default());
        paths.entry(path.to_path_buf()).or_insert_with(|| state(path));
    }

    /// Notes a path of the gateway's as it was noted in others: nobody looks at it, so what has become of it since is a change.
    pub(super) fn note_as_in(&self, path: &Path, others: &Self) {
        let noted = others.states().get(&None).and_then(|paths| paths.get(path).cloned());
        let Some(noted) = noted else { return self.note(path) };
        Arc::make_mut(self.states().entry(None).or_default()).entry(path.to_path_buf()).or_insert(noted);
    }

    /// Notes that a directory of tenants has come to have this one or to have it no more, by our own doing: that is no change.
    pub(crate) fn note_folder(&self, folder: &Path, is_there: bool) {
        if let (Some(directory), Some(name)) = (folder.parent(), folder.file_name())
            && let Some(paths) = self.states().get_mut(&None)
            && let Some(State::Folder(names)) = Arc::make_mut(paths).get_mut(directory)
        {
            let _ = if is_there { names.insert(name.to_owned()) } else { names.remove(name) };
        }
    }

    /// Notes what has become of a tenant's path by our own doing: that is no change.
    pub(crate) fn note_again(&self, path: &Path, tenant: &str) {
        if let Some(paths) = self.states().get_mut(&Some(tenant.into()))
            && let Some(noted) = Arc::make_mut(paths).get_mut(path)
        {
            *noted = state(path);
        }
    }

    /// The tenants of whose paths none has changed.
    pub(super) fn unchanged(&self) -> BTreeSet<Arc<str>> {
        let all = self.states().clone();
        let same = |paths: &BTreeMap<PathBuf, State>| paths.iter().all(|(path, noted)| state(path) == *noted);
        all.into_iter().filter_map(|(owner, paths)| owner.filter(|_| same(&paths))).collect()
    }

    /// The same, with what was noted in others of tenants that are not in these, but for those that are gone.
    pub(super) fn with(&self, others: &Self, gone: &[Arc<str>]) -> Self {
        let mut states = others.states().clone();
        for tenant in gone {
            states.remove(&Some(tenant.clone()));
        }
        states.extend(self.states().iter().map(|(owner, paths)| (owner.clone(), paths.clone())));
        Self { states: Arc::new(states.into()), root: self.root.clone(), ..Self::default() }
    }

    /// Forgets everything that was noted.
    pub(super) fn clear(&self) {
        self.states().clear();
    }

    /// The same paths, noted anew.
    pub(crate) fn again(&self) -> Self {
        let again = Self::default();
        self.owned_paths().iter().for_each(|(path, tenant)| again.note_of(path, tenant.as_ref()));
        again
    }

    /// The state of every path when it was noted.
    #[must_use]
    pub fn noted(&self) -> Stamp {
        Stamp(self.states().values().flat_map(|paths| paths.values().cloned()).collect())
    }

    /// The state of every path now.
    #[must_use]
    pub fn now(&self) -> Stamp {
        // Not while the lock is held: it takes time.
        let states = self.states().clone();
        Stamp(states.values().flat_map(|paths| paths.keys().map(|path| state(path))).collect())
    }
}

/// A path as if it started at `root`.
pub(super) fn below(root: &Path, path: &Path) -> PathBuf {
    let path = absolute(path).unwrap_or_else(|_| path.to_path_buf());
    root.join(path.strip_prefix("/").unwrap_or(&path))
}

/// Whether a file in a directory is part of the configuration.
pub(super) fn is_configuration(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "yaml" || end == "yml")
}

/// Whether a folder is that of a tenant, in the directory for them.
fn is_tenant(path: &Path) -> bool {
    path.join(TENANT_FILE).is_file()
}

fn state(path: &Path) -> State {
    match fs::metadata(path) {
        Err(_) => State::Missing,
        Ok(found) if found.is_dir() => {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            let files = entries.filter(|entry| is_configuration(&entry.path()) || is_tenant(&entry.path()));
            State::Folder(files.map(|entry| entry.file_name()).collect())
        }
        Ok(found) => State::File {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_way_to_change_a_file_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (file, missing) = (at("a.yaml"), at("b.yaml"));
        fs::write(&file, "one").unwrap();
        let inputs = Inputs::default();
        [folder.path(), &file, &missing].into_iter().for_each(|path| inputs.note(path));
        let mut last = inputs.now();
        assert_eq!((&last, &last), (&inputs.now(), &inputs.noted()), "looking changes nothing");
        let mut changes = |what: &str, change: &dyn Fn()| {
            change();
            let now = inputs.now();
            assert_ne!(now, last, "{what}");
            last = now;
        };
        changes("written to", &|| fs::write(&file, "longer").unwrap());
        changes("replaced by renaming", &|| {
            fs::write(at("new"), "longer").unwrap();
            fs::rename(at("new"), &file).unwrap();
        });
        changes("removed", &|| fs::remove_file(&file).unwrap());
        changes("made", &|| fs::write(&missing, "x").unwrap());
        changes("another file in the directory", &|| fs::write(at("c.yaml"), "x").unwrap());
        let before = inputs.now();
        fs::write(at("c.log"), "x").unwrap();
        assert_eq!(inputs.now(), before, "a file that is no configuration");
    }

    #[test]
    fn the_exchange_of_a_link_on_the_way_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for revision in ["..1", "..2"] {
            fs::create_dir(at(revision)).unwrap();
            fs::write(at(revision).join("portcullis.yaml"), "same").unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/portcullis.yaml", at("portcullis.yaml")).unwrap();
        let inputs = Inputs::default();
        inputs.note(&at("portcullis.yaml"));
        symlink("..2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        assert_ne!(inputs.now(), inputs.noted());
    }
}
