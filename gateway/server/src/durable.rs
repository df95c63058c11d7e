//! Files that must be there after the next start, or be gone: on the disk before anybody is told so.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Replaces a file as a whole, or leaves it as it was. Only its owner can read it, as its directory, which is made if need be.
///
/// # Errors
/// When it, or its directory, cannot be written.
pub(crate) fn replace(file: &Path, content: &[u8]) -> io::Result<()> {
    let folder = above(file);
    make(folder)?;
    let new = file.with_extension("new");
    let mut open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    open.write_all(content)?;
    open.sync_all()?;
    fs::rename(new, file)?;
    sync(folder)
}

/// Removes a file.
///
/// # Errors
/// When it is not there, or cannot be removed.
pub(crate) fn remove(file: &Path) -> io::Result<()> {
    fs::remove_file(file)?;
    sync(above(file))
}

/// Removes a directory with all that is in it, `first` before the rest: without that file the rest means nothing.
///
/// # Errors
/// When that file is not there, or something cannot be removed.
pub(crate) fn remove_folder(folder: &Path, first: &str) -> io::Result<()> {
    remove(&folder.join(first))?;
    fs::remove_dir_all(folder)?;
    sync(above(folder))
}

/// Makes a directory, and those above it, unless they are there.
fn make(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    make(above(folder))?;
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        // Whoever made it in between may not have come so far.
        Ok(()) | Err(_) => sync(above(folder)),
    }
}

/// The directory that a name is in.
fn above(path: &Path) -> &Path {
    path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A name, new or gone, is the directory's.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_has_its_directories_made_and_only_its_owner_reads_any_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a/b/one.json");
        for content in ["one", "two"] {
            replace(&file, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), content);
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!([mode(&file), mode(above(&file)), mode(&folder.path().join("a"))], [0o600, 0o700, 0o700]);
        assert_eq!(fs::read_dir(above(&file)).unwrap().count(), 1, "nothing else is left");
        replace(&folder.path().join("a/b/two.json"), b"two").unwrap();
        remove_folder(&folder.path().join("a"), "b/one.json").unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(remove(&file).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
