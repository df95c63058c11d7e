//! The configuration, in three shapes: as written (`file`), checked (`check`), as workers read it ([`snapshot`]).
//!
//! Text becomes a tree with places (`yaml`), secrets are put in (`secrets`), several files become one (`gather`), the tree is
//! compared with the schema (`shape`), typed, and checked. Each step takes what the one before left sound, so that all
//! problems are found in one go. Watching files and putting a snapshot into use are left to the supervisor.
//! **Invariant:** problems are collected, not returned early; only text that is not YAML hides what comes after it.

mod check;
pub(crate) mod defaults;
pub(crate) mod directory;
mod file;
mod gather;
pub(crate) mod granted;
mod inputs;
mod kept;
pub(crate) mod names;
pub mod private;
mod schema;
mod secrets;
mod shape;
pub mod snapshot;
pub mod standing;
mod tree;
mod written;
pub(crate) mod yaml;

#[cfg(test)]
pub(crate) mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize as _;

use self::check::{Modules, Taken};
use self::file::File;
pub(crate) use self::file::{ClientAuthMode, ForwardedCertificate, TlsVersion};
pub(crate) use self::gather::MAX_TENANT_BYTES;
use self::gather::{Gathered, Unread};
pub use self::inputs::{Inputs, Stamp};
pub(crate) use self::kept::Kept;
use self::private::Private;
pub use self::schema::schema;
pub(crate) use self::secrets::reason;
use self::snapshot::Snapshot;
pub(crate) use self::tree::{Key, Node};
pub(crate) use self::written::{Digest, Text, Written};
use crate::diagnostic::{self, Diagnostic, Severity, Source};
use crate::modules::Fetcher;
use crate::modules::lock::{LOCK_FILE, Lock};

/// Reads and checks a configuration: files, directories of `.yaml` files, or both, taken as one. Notes in `inputs` every path that was
/// looked at; modules of other machines come from `fetcher`.
///
/// Returns the snapshot with the warnings there are.
///
/// # Errors
/// Every problem that was found, warnings included, in the order of their places.
pub fn load(
    paths: &[PathBuf],
    inputs: &Inputs,
    fetcher: &Arc<Fetcher>,
) -> Result<(Snapshot, Vec<Diagnostic>), Vec<Diagnostic>> {
    finish(gather::from_paths(paths, inputs, Unread::default()), Modules::from(fetcher), None).map(Whole::parts)
}

/// A configuration with where each part of it was written.
pub(crate) struct Whole {
    pub(crate) snapshot: Snapshot,
    pub(crate) tree: Node,
    pub(crate) warnings: Vec<Diagnostic>,
}

/// As [`load`], and with the places.
pub(crate) fn load_whole(paths: &[PathBuf], fetcher: &Arc<Fetcher>) -> Result<Whole, Vec<Diagnostic>> {
    let gathered = gather::from_paths(paths, &Inputs::default(), Unread::default());
    finish(gathered, Modules::from(fetcher), None)
}

/// Reads and checks a configuration that is not in a file. `path` is what it is called and where paths in it start from.
///
/// # Errors
/// As [`load`].
pub fn from_text(path: &Path, text: &str) -> Result<(Snapshot, Vec<Diagnostic>), Vec<Diagnostic>> {
    finish(gather::from_text(path, text), Modules::default(), None).map(Whole::parts)
}

impl Whole {
    fn parts(self) -> (Snapshot, Vec<Diagnostic>) {
        (self.snapshot, self.warnings)
    }
}

fn finish(gathered: Gathered, modules: Modules, taken: Option<&Taken>) -> Result<Whole, Vec<Diagnostic>> {
    let Gathered { tree, own: _, text: _, left_out: _, mut problems, complete } = gathered;
    let mut schema = schema();
    if let (false, Some(schema)) = (complete, schema.as_object_mut()) {
        // What is missing may well stand in the file that could not be read; so may every name that seems unknown below.
        schema.remove("required");
    }
    let tree = shape::check(tree, &schema, &mut problems);
    let checked = tree.filter(|_| complete).and_then(|tree| {
        let file = File::deserialize(&*Private::new(tree.json()));
        match file {
            Ok(file) => Some((check::check(&tree, &file, modules, taken, &mut problems)?, tree)),
            Err(_) => {
                // The text of the error could quote a secret.
                problems
                    .push(Diagnostic::error("the configuration fits its schema, but not its types").at(&tree.span, ""));
                None
            }
        }
    });
    diagnostic::sort(&mut problems);
    match checked {
        Some((snapshot, tree)) if problems.iter().all(|problem| problem.severity == Severity::Warning) => {
            Ok(Whole { snapshot, tree, warnings: problems })
        }
        _ => Err(problems),
    }
}

/// What a lock file says.
///
/// # Errors
/// A clause that says why it cannot be read.
pub(crate) fn lock(text: &str) -> Result<Lock, String> {
    let source = Source { text: text.to_owned(), ..Source::named(Path::new(LOCK_FILE)) };
    let mut problems = Vec::new();
    let read = yaml::read(&Arc::new(source), &mut problems);
    match (read, problems.pop()) {
        (Ok(node), None) => Lock::read(node.json()),
        (Err(problem), _) | (Ok(_), Some(problem)) => Err(problem.message),
    }
}

/// A token, for tests of those who check it.
#[cfg(test)]
pub(crate) fn token(text: &str) -> snapshot::Token {
    written::Written::read(text).unwrap()
}
