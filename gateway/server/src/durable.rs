//! Files that must be there after the next start: on the disk before anybody is told that they are.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Replaces a file as a whole, or leaves it as it was. Only its owner can read it, as its directory, which is made if need be.
///
/// # Errors
/// When it, or its directory, cannot be written.
pub(crate) fn replace(file: &Path, content: &[u8]) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let new = file.with_extension("new");
    let mut open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    open.write_all(content)?;
    open.sync_all()?;
    fs::rename(new, file)?;
    // The name is the directory's.
    File::open(folder)?.sync_all()
}
