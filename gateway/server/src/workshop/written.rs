//! Files that authors write beside their plugins: YAML, typed, and every problem with its place.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use serde::de::DeserializeOwned;
use serde_path_to_error::{Path as Trail, Segment};

use crate::config::{Inputs, Node, yaml};
use crate::diagnostic::{self, Diagnostic, Source, Span};

/// Reads a file as YAML.
///
/// # Errors
/// When it cannot be read; what is not YAML is shown with its place.
pub(super) fn tree(path: &Path) -> anyhow::Result<Node> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    parse(&name, &text)
}

/// The same of text that is called `name`.
pub(super) fn parse(name: &str, text: &str) -> anyhow::Result<Node> {
    let (name, text) = (name.to_owned(), text.to_owned());
    let source =
        Arc::new(Source { name, folder: PathBuf::new(), fence: None, tenant: None, text, inputs: Inputs::default() });
    let mut problems = Vec::new();
    let node = yaml::read(&source, &mut problems);
    match node {
        Ok(node) if problems.is_empty() => Ok(node),
        Ok(_) => bail!("{}", said(&diagnostic::text(&problems))),
        Err(problem) => bail!("{}", said(&problem.to_string())),
    }
}

/// Without the word that whoever prints it puts before it.
fn said(problem: &str) -> &str {
    problem.strip_prefix("error: ").unwrap_or(problem).trim_end()
}

/// Reads a file of this type; `what` it is stands in messages.
///
/// # Errors
/// As [`tree`], and when something in it is not as the type has it: what, and where.
pub(super) fn read<T: DeserializeOwned>(path: &Path, what: &str) -> anyhow::Result<T> {
    let node = tree(path)?;
    serde_path_to_error::deserialize(node.json()).map_err(|error| {
        let why = error.inner().to_string();
        let (message, mark) = match why.split_once(", expected ") {
            Some((wrong, expected)) => (wrong.to_owned(), format!("expected {expected}")),
            None => (why.clone(), String::new()),
        };
        let problem = Diagnostic::error(format!("this is not {what}: {message}"));
        let problem = problem.at(&place(&node, error.path(), &message), mark);
        anyhow!("{}", said(&problem.to_string()))
    })
}

/// Where the trail leads, or as far as it can be followed; at a key that the message names, the key.
fn place(node: &Node, trail: &Trail, message: &str) -> Span {
    let unknown = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
    let mut at = node;
    for segment in trail {
        let next = match segment {
            Segment::Seq { index } => at.list().get(*index),
            // The trail leads to an unknown key, and often beyond it.
            Segment::Map { key } if Some(key.as_str()) == unknown => break,
            Segment::Map { key } => at.get(key),
            Segment::Enum { .. } | Segment::Unknown => None,
        };
        at = next.unwrap_or(at);
    }
    let key = unknown.and_then(|name| at.entries().find(|(key, _)| key.name == name));
    key.map_or_else(|| at.span.clone(), |(key, _)| key.span.clone())
}
