//! A copy of the last good configuration, for a start with one that cannot be used.
//!
//! Every file that a configuration was read from is copied, under the path it had, into a directory of its own; a link says which
//! of these is the newest whole one. So paths in the copies lead to copies.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::inputs::{Inputs, below};
use super::standing::Held;

/// The link to the newest copy.
const CURRENT: &str = "current";

/// Where a copy is kept. Only its owner can read it: there may be keys in it.
#[derive(Clone, Debug)]
pub(crate) struct Kept(PathBuf);

impl Kept {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// Where what is decided about roll-outs is kept beside the copy.
    pub(crate) fn decisions(&self) -> PathBuf {
        self.0.join("rollouts")
    }

    /// Puts a copy of what a configuration was read from in the place of the one before; of the tenants that are held, what is in the
    /// one before. Does nothing when a file has changed since: it will be read again.
    ///
    /// # Errors
    /// When a file cannot be copied; the copy before remains.
    pub(crate) fn keep(&self, inputs: &Inputs, held: &Held) -> io::Result<()> {
        make(&self.0)?;
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let name = format!("revision-{}", time.as_nanos());
        let copied_to = self.0.join(&name);
        make(&copied_to)?;
        let before = self.0.join(CURRENT);
        let copied = inputs.owned_paths().iter().try_for_each(|(path, tenant)| {
            let is_held = tenant.as_ref().is_some_and(|tenant| held.contains_key(tenant));
            let to = below(&copied_to, path);
            if is_held { copy_all(&below(&before, path), &to) } else { copy(path, &to) }
        });
        if copied.is_err() || inputs.now() != inputs.noted() {
            fs::remove_dir_all(&copied_to)?;
            return copied;
        }
        let link = self.0.join("next");
        _ = fs::remove_file(&link);
        symlink(&name, &link)?;
        fs::rename(&link, self.0.join(CURRENT))?;
        for entry in fs::read_dir(&self.0)?.flatten() {
            let other = entry.file_name();
            if other != *name && other.to_string_lossy().starts_with("revision-") {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    /// The copies of these files, and how the paths in them are read; nothing if there is no copy.
    pub(crate) fn paths(&self, paths: &[PathBuf]) -> Option<(Vec<PathBuf>, Inputs)> {
        let root = self.0.join(CURRENT).canonicalize().ok()?;
        let copies = paths.iter().map(|path| below(&root, path)).collect();
        Some((copies, Inputs::below(root)))
    }
}

fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// What is missing, or neither file nor directory, has no copy.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    match fs::metadata(from) {
        Ok(found) if found.is_dir() => make(to),
        Ok(found) if found.is_file() => {
            to.parent().map_or(Ok(()), make)?;
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(to)?;
            file.write_all(&fs::read(from)?)?;
            file.sync_all()
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The same, with all that is in a directory.
fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    copy(from, to)?;
    if from.is_dir() {
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            copy_all(&from.join(&name), &to.join(&name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_replaces_the_one_before_only_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let kept = Kept::new(at("kept"));
        assert!(kept.paths(&[at("a.yaml")]).is_none());
        let read = |text: &str| {
            fs::write(at("a.yaml"), text).unwrap();
            let inputs = Inputs::default();
            inputs.note(&at("a.yaml"));
            inputs.note(&at("missing"));
            inputs
        };
        let copied = || fs::read_to_string(&kept.paths(&[at("a.yaml")]).unwrap().0[0]).unwrap();
        kept.keep(&read("one"), &Held::new()).unwrap();
        assert_eq!(copied(), "one");
        kept.keep(&read("second"), &Held::new()).unwrap();
        assert_eq!(copied(), "second");
        let stale = read("the third");
        fs::write(at("a.yaml"), "changed meanwhile").unwrap();
        kept.keep(&stale, &Held::new()).unwrap();
        assert_eq!(copied(), "second");
        assert_eq!(fs::read_dir(at("kept")).unwrap().count(), 2, "a copy and the link to it");
    }
}
