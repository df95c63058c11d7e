//! `${env:NAME}` and `${file:PATH}` in strings.
//!
//! Resolved in the tree, before types are looked at, so a secret may stand anywhere a string may. `$${env:` is a literal
//! `${env:`; any other `${` is left alone, since plugins have templates of their own.
//! **Invariant:** a resolved text never leaves the tree except into the snapshot; diagnostics show it as written.

use std::io::{Error, ErrorKind};

use zeroize::Zeroizing;

use super::tree::{Node, Origin, Text, Value};
use crate::diagnostic::{Diagnostic, Source, Span};
use crate::regular;

/// No key or token is longer.
const MAX_BYTES: u64 = 1 << 20;

const NO_TEXT: &str = "it is not UTF-8 text";

/// Replaces every reference by what it refers to.
pub(crate) fn resolve(node: &mut Node, problems: &mut Vec<Diagnostic>) {
    match &mut node.value {
        Value::Text(text) => resolve_text(text, &node.span, problems),
        Value::List(items) => items.iter_mut().for_each(|item| resolve(item, problems)),
        Value::Map(map) => map.entries.iter_mut().for_each(|(_, value)| resolve(value, problems)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn resolve_text(text: &mut Text, span: &Span, problems: &mut Vec<Diagnostic>) {
    let written = text.text.clone();
    match expand(&written, &span.source) {
        Ok(Some(resolved)) => *text = Text { text: resolved, origin: Origin::Secret(written) },
        Ok(None) => {}
        Err(problem) => {
            problems.push(problem.at(span, "needed here"));
            text.origin = Origin::Unresolved(written);
        }
    }
}

/// A part of a text: as it was written, or what was referred to.
enum Piece<'w> {
    Written(&'w str),
    Secret(Zeroizing<String>),
}

impl Piece<'_> {
    fn text(&self) -> &str {
        match self {
            Self::Written(text) => text,
            Self::Secret(text) => text,
        }
    }
}

/// The text with its references replaced; `None` when it has none.
fn expand(written: &str, source: &Source) -> Result<Option<String>, Diagnostic> {
    let mut pieces: Vec<Piece<'_>> = Vec::new();
    let mut rest = written;
    let mut found = false;
    while let Some(at) = rest.find("${") {
        let (before, reference) = rest.split_at(at);
        let body = reference.get(2..).unwrap_or_default();
        if !body.starts_with("env:") && !body.starts_with("file:") {
            pieces.extend([Piece::Written(before), Piece::Written("${")]);
            rest = body;
            continue;
        }
        found = true;
        if let Some(before) = before.strip_suffix('$') {
            pieces.extend([Piece::Written(before), Piece::Written("${")]);
            rest = body;
            continue;
        }
        let Some((name, after)) = body.split_once('}') else {
            return Err(
                Diagnostic::error(format!("`{reference}` has no closing brace")).help("write `$${` for a literal `${`")
            );
        };
        pieces.extend([Piece::Written(before), Piece::Secret(look_up(name, source)?)]);
        rest = after;
    }
    pieces.push(Piece::Written(rest));
    // Room for all of it at once: growing would leave copies behind.
    let mut resolved = String::with_capacity(pieces.iter().map(|piece| piece.text().len()).sum());
    pieces.iter().for_each(|piece| resolved.push_str(piece.text()));
    Ok(found.then_some(resolved))
}

fn look_up(reference: &str, source: &Source) -> Result<Zeroizing<String>, Diagnostic> {
    let unresolved = |why: String| Diagnostic::error(format!("the secret `${{{reference}}}` cannot be read: {why}"));
    match reference.split_once(':') {
        Some(("env", _)) if source.fence.is_some() => {
            Err(unresolved("a tenant's own files may not read the gateway's environment".to_owned())
                .help("use `${file:…}` with a file in the tenant's directory"))
        }
        Some(("env", name)) => match std::env::var(name) {
            Ok(value) => Ok(Zeroizing::new(value)),
            Err(std::env::VarError::NotPresent) => Err(unresolved("the variable is not set".to_owned())
                .help(format!("set `{name}` in the environment of the gateway"))),
            Err(std::env::VarError::NotUnicode(_)) => Err(unresolved("the variable is not UTF-8".to_owned())),
        },
        Some((_, path)) => read_file(path, source).map_err(unresolved),
        None => Err(unresolved("nothing is named".to_owned())),
    }
}

fn read_file(path: &str, source: &Source) -> Result<Zeroizing<String>, String> {
    let path = source.resolve(path)?;
    let mut content = Zeroizing::new(regular::read(&path, MAX_BYTES).map_err(|error| reason(&error))?);
    let text = String::from_utf8(std::mem::take(&mut *content));
    let mut text = Zeroizing::new(text.map_err(|_| NO_TEXT.to_owned())?);
    // Editors and `echo` end a file with a line feed that is not part of the secret.
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

/// What the system said, in words that are the same everywhere.
pub(crate) fn reason(error: &Error) -> String {
    let known = [
        (ErrorKind::NotFound, "there is no such file"),
        (ErrorKind::PermissionDenied, "permission denied"),
        (ErrorKind::InvalidData, NO_TEXT),
    ];
    let words = known.into_iter().find(|(kind, _)| *kind == error.kind()).map(|(_, words)| words.to_owned());
    words.unwrap_or_else(|| error.to_string())
}
