//! Regular files, which end.
//!
//! What tenants keep for themselves may be a pipe that nobody writes to, or say that it is larger than all memory: whoever reads that
//! waits for ever, or is killed.

use std::fs::{File, OpenOptions};
use std::io::{Error, Read as _, Result};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// What is in a file.
///
/// # Errors
/// When it cannot be read, is no regular file, or has more than `most` bytes.
pub(crate) fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let (file, size) = open(path, most)?;
    // Room for all of it at once: it may be a key, and growing would leave copies behind.
    let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
    file.take(most).read_to_end(&mut content)?;
    Ok(content)
}

/// A file, and how many bytes it has.
fn open(path: &Path, most: u64) -> Result<(File, u64)> {
    // Otherwise opening a pipe waits until somebody writes to it.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    match metadata.len() {
        _ if metadata.is_dir() => Err(Error::other("it is a directory")),
        _ if !metadata.is_file() => Err(Error::other("it is not a file")),
        size if size > most => Err(too_large(most)),
        size => Ok((file, size)),
    }
}

/// That a file has more bytes than it may have.
pub(crate) fn too_large(most: u64) -> Error {
    Error::other(format!("it is larger than {most} bytes"))
}
