//! Files that are read again when they change: certificates, keys, authorities, revocation lists.
//!
//! Some files together make one thing, such as a certificate and its key. A [`Part`] holds the last good thing they made, and
//! looks at them when it is asked to. A file is read again when what the system says of it has changed, and counts as changed
//! when its content has: a rename over it, a swapped symbolic link on the way to it and writing into it all do.
//! Between the writing of two files they do not fit; so a failure counts only when it is still there on the next look.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::config::reason;
use crate::diagnostic::Source;
use crate::regular;

/// No certificate chain, key or revocation list that is read here is larger.
const MAX_BYTES: u64 = 16 << 20;
/// For how long after a write another one may go unnoticed by the file's times, in seconds.
const UNSETTLED: i64 = 2;

/// A file, as the configuration names it.
#[derive(Clone, Debug)]
pub(crate) struct File {
    source: Arc<Source>,
    path: String,
    /// The path as it was written: it may come from the environment.
    written: String,
}

/// What was read of a file. It may be a key, so it is overwritten when it is dropped.
pub(crate) type Content = Zeroizing<Vec<u8>>;

type Print = [u8; 32];

/// What tells that a file may have changed: its device and inode, its length, its times.
type Stamp = [i64; 7];

impl File {
    /// A path in this source, and how it is written there.
    pub(crate) fn new(source: &Arc<Source>, path: &str, written: &str) -> Self {
        Self { source: source.clone(), path: path.to_owned(), written: written.to_owned() }
    }

    /// Its path as it was written.
    pub(crate) fn name(&self) -> &str {
        &self.written
    }

    /// Where it is now: a symbolic link may not lead out of a tenant's directory later on either.
    fn path(&self) -> Result<PathBuf, String> {
        self.source.resolve(&self.path)
    }

    fn stamp(&self) -> Option<Stamp> {
        fs::metadata(self.path().ok()?).ok().map(|metadata| stamp(&metadata))
    }

    fn read(&self) -> Result<Content, String> {
        regular::read(&self.path()?, MAX_BYTES).map(Zeroizing::new).map_err(|error| reason(&error))
    }
}

#[allow(clippy::cast_possible_wrap, reason = "only compared for being the same")]
fn stamp(metadata: &Metadata) -> Stamp {
    [
        metadata.dev() as i64,
        metadata.ino() as i64,
        metadata.size() as i64,
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ]
}

/// Why files do not make what they should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Which of them, by its position.
    pub(crate) file: usize,
    /// What is wrong with it, as a clause.
    pub(crate) why: String,
    /// What to do about it.
    pub(crate) help: Option<&'static str>,
}

impl Problem {
    pub(crate) fn new(file: usize, why: impl Into<String>) -> Self {
        Self { file, why: why.into(), help: None }
    }

    pub(crate) fn help(self, help: &'static str) -> Self {
        Self { help: Some(help), ..self }
    }
}

/// What metrics say of a part; the watcher alone writes to it.
#[derive(Debug)]
pub(crate) struct Shown {
    /// The listener or the upstream.
    pub(crate) owner: Owner,
    /// The first of its files.
    pub(crate) file: String,
    /// Until when it is good, in seconds since the Unix epoch.
    pub(crate) until: AtomicI64,
    /// What it is that ends then.
    pub(crate) kind: Kind,
    /// How often it was read anew.
    pub(crate) reloads: AtomicU64,
    /// How often what was read was of no use.
    pub(crate) failures: AtomicU64,
}

/// Whose files they are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    Admin,
    Listener(Arc<str>),
    Upstream(Arc<str>),
}

/// What files make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A certificate with its key.
    Certificate,
    /// Those whose certificates count, with a list of those that no longer do.
    Revocations,
    /// Those whose certificates count.
    Authorities,
}

/// What some files make, with the time until which it is good.
pub(crate) struct Made<T> {
    pub(crate) value: T,
    pub(crate) until: i64,
}

/// What a part is made of, to tell whether another one is the same: whose it is, in which way it is read, and from where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MadeOf {
    owner: Owner,
    /// What the reading depends on beside the files.
    way: &'static str,
    files: Vec<(PathBuf, Option<PathBuf>)>,
}

type Make<T> = Box<dyn Fn(&[Content]) -> Result<Made<T>, Problem> + Send>;

/// Some files and the last good thing they made.
pub(crate) struct Part<T> {
    files: Vec<File>,
    make: Make<T>,
    way: &'static str,
    good: T,
    stamps: Vec<Option<Stamp>>,
    good_prints: Vec<Print>,
    state: State,
    pub(crate) shown: Arc<Shown>,
}

/// How the files stand to the last good thing.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// They are what it was made of.
    Good,
    /// They failed on the last look.
    Suspect(Problem, Vec<Print>),
    /// They failed, which has been said.
    Refused(Vec<Print>),
}

impl<T: Clone> Part<T> {
    /// Reads the files for the first time.
    pub(crate) fn load(
        (owner, kind, way): (Owner, Kind, &'static str),
        files: Vec<File>,
        make: Make<T>,
    ) -> Result<Self, Problem> {
        let stamps = files.iter().map(File::stamp).collect();
        let contents = read_all(&files)?;
        let made = make(&contents)?;
        let shown = Shown {
            owner,
            kind,
            file: files.first().map(|file| file.name().to_owned()).unwrap_or_default(),
            until: AtomicI64::new(made.until),
            reloads: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        };
        Ok(Self {
            good: made.value,
            good_prints: prints(&contents),
            files,
            make,
            way,
            stamps,
            state: State::Good,
            shown: Arc::new(shown),
        })
    }

    pub(crate) fn made_of(&self) -> MadeOf {
        let place = |file: &File| (file.source.folder.join(&file.path), file.source.fence.clone());
        MadeOf { owner: self.shown.owner.clone(), way: self.way, files: self.files.iter().map(place).collect() }
    }

    pub(crate) fn good(&self) -> T {
        self.good.clone()
    }

    /// Until when it is good.
    pub(crate) fn until(&self) -> i64 {
        self.shown.until.load(Ordering::Relaxed)
    }

    /// Looks at the files; whether there is something new and good.
    pub(crate) fn poll(&mut self) -> bool {
        let stamps: Vec<_> = self.files.iter().map(File::stamp).collect();
        let settled = stamps == self.stamps && !matches!(self.state, State::Suspect(..)) && !recent(&stamps);
        if settled {
            return false;
        }
        self.stamps = stamps;
        let contents = match read_all(&self.files) {
            Ok(contents) => contents,
            Err(problem) => return self.refuse(problem, Vec::new()),
        };
        let prints = prints(&contents);
        if prints == self.good_prints {
            self.state = State::Good;
            return false;
        }
        if self.state == State::Refused(prints.clone()) {
            return false;
        }
        match (self.make)(&contents) {
            Ok(made) => self.accept(made, prints),
            Err(problem) => self.refuse(problem, prints),
        }
    }

    fn accept(&mut self, made: Made<T>, prints: Vec<Print>) -> bool {
        self.good = made.value;
        self.good_prints = prints;
        self.state = State::Good;
        self.shown.until.store(made.until, Ordering::Relaxed);
        self.shown.reloads.fetch_add(1, Ordering::Relaxed);
        let shown = &self.shown;
        tracing::info!(owner = %shown.owner, file = %shown.file, "TLS files have changed and are in use");
        if made.until < now() {
            tracing::warn!(owner = %shown.owner, file = %shown.file, "what the file holds has expired");
        }
        true
    }

    fn refuse(&mut self, problem: Problem, prints: Vec<Print>) -> bool {
        let suspect = State::Suspect(problem, prints);
        if self.state != suspect {
            if !matches!((&self.state, &suspect), (State::Refused(old), State::Suspect(_, new)) if old == new) {
                self.state = suspect;
            }
            return false;
        }
        let State::Suspect(problem, prints) = suspect else { return false };
        let file = self.files.get(problem.file).map_or("", File::name);
        self.shown.failures.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            owner = %self.shown.owner,
            file,
            reason = problem.why,
            help = problem.help,
            "a changed TLS file cannot be used; the last good one stays in use"
        );
        self.state = State::Refused(prints);
        false
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Admin => f.write_str("admin"),
            Self::Listener(name) => write!(f, "listener {name}"),
            Self::Upstream(name) => write!(f, "upstream {name}"),
        }
    }
}

fn read_all(files: &[File]) -> Result<Vec<Content>, Problem> {
    let unreadable =
        |at, why: String| Problem::new(at, why).help("paths start from the directory of the file they are written in");
    files.iter().enumerate().map(|(at, file)| file.read().map_err(|why| unreadable(at, why))).collect()
}

fn prints(contents: &[Content]) -> Vec<Print> {
    contents.iter().map(|content| Sha256::digest(content.as_slice()).into()).collect()
}

fn recent(stamps: &[Option<Stamp>]) -> bool {
    let now = now();
    stamps.iter().flatten().any(|stamp| stamp.get(5).is_some_and(|changed| (now - changed).abs() <= UNSETTLED))
}

/// Seconds since the Unix epoch.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
