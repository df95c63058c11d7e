//! The access log's file: written to its end, and opened anew when somebody has moved it away.
//!
//! Looked at before each batch of lines, which is a few times a second at most, so that whoever rotates logs has to tell nobody.
//! While it cannot be opened anew, lines go to where they went before.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A file at a path.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    id: Id,
    /// It has been said that it could not be opened anew.
    told: bool,
}

/// What tells a file from another that has its name now.
type Id = (u64, u64);

fn id(of: &Metadata) -> Id {
    (of.dev(), of.ino())
}

impl LogFile {
    /// Opens the file, which is made if need be.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        Ok(Self { id: id(&file.metadata()?), path: path.to_owned(), file, told: false })
    }

    fn follow(&mut self) {
        if std::fs::metadata(&self.path).is_ok_and(|there| id(&there) == self.id) {
            return;
        }
        match Self::open(&self.path) {
            Ok(anew) => *self = anew,
            Err(error) if !self.told => {
                self.told = true;
                let path = self.path.display();
                tracing::error!(%error, %path, "the access log cannot be opened anew; lines go where they went");
            }
            Err(_) => {}
        }
    }
}

/// Not for everyone to read: paths and addresses are somebody's.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.follow();
        self.file.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        fs::write(&path, "before\n").unwrap();
        let mut log = LogFile::open(&path).unwrap();
        log.write_all(b"one\n").unwrap();
        fs::rename(&path, &moved).unwrap();
        log.write_all(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(&moved).unwrap(), "before\none\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
        fs::remove_file(&path).unwrap();
        log.write_all(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        // As `copytruncate` does it.
        fs::write(&path, "").unwrap();
        log.write_all(b"four\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "four\n");
    }

    #[test]
    fn without_a_place_for_a_new_one_lines_go_where_they_went() {
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path().join("logs");
        fs::create_dir(&logs).unwrap();
        let mut log = LogFile::open(&logs.join("access.log")).unwrap();
        fs::rename(&logs, folder.path().join("old")).unwrap();
        log.write_all(b"one\n").unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("old/access.log")).unwrap(), "one\n");
        fs::create_dir(&logs).unwrap();
        log.write_all(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(logs.join("access.log")).unwrap(), "two\n");
    }
}
