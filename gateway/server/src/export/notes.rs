//! What an export does not say as the configuration does: where that is written, and what becomes of it.

use std::collections::BTreeSet;
use std::fmt;

use crate::config::Node;
use crate::diagnostic::{Position, Span};

/// How much an export falls short in one point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// What is written here does not hold there.
    Lost,
    /// It holds, but not in quite the same way.
    Differs,
}

/// One point in which an export falls short.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Note {
    file: String,
    at: Position,
    kind: Kind,
    text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, at: Position { line, column }, kind, text } = self;
        let kind = match kind {
            Kind::Lost => "lost",
            Kind::Differs => "differs",
        };
        write!(f, "{file}:{line}:{column}: {kind}: {text}")
    }
}

/// All of them, in the order of their places, each once.
#[derive(Debug, Default)]
pub(crate) struct Notes(BTreeSet<Note>);

impl Notes {
    /// What stands here does not hold in the export.
    pub(crate) fn lost(&mut self, at: &Span, text: impl Into<String>) {
        self.add(at, Kind::Lost, text.into());
    }

    /// What stands here holds in another way.
    pub(crate) fn differs(&mut self, at: &Span, text: impl Into<String>) {
        self.add(at, Kind::Differs, text.into());
    }

    fn add(&mut self, at: &Span, kind: Kind, text: String) {
        self.0.insert(Note { file: at.source.name.clone(), at: at.start, kind, text });
    }

    /// Says what is known of the settings that are written here.
    pub(crate) fn settings(&mut self, node: &Node, known: &[Setting]) {
        for Setting { path, kind, text } in known {
            let found = path.split('.').try_fold(node, |node, key| node.get(key));
            if let Some(found) = found {
                self.add(&found.span, *kind, format!("`{path}`: {text}"));
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Note> {
        self.0.iter()
    }

    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.0.iter().filter(|note| note.kind == kind).count()
    }
}

/// A setting that is not expressed, or not in the same way, wherever it is written.
pub(crate) struct Setting {
    /// Its keys, with dots between.
    pub(crate) path: &'static str,
    pub(crate) kind: Kind,
    /// What becomes of it.
    pub(crate) text: &'static str,
}

/// A setting that does not hold.
pub(crate) const fn lost(path: &'static str, text: &'static str) -> Setting {
    Setting { path, kind: Kind::Lost, text }
}

/// A setting that holds in another way.
pub(crate) const fn differs(path: &'static str, text: &'static str) -> Setting {
    Setting { path, kind: Kind::Differs, text }
}
