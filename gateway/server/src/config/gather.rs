//! From paths to one tree: files, directories, and the directories that tenants keep for themselves.
//!
//! Mappings at the top of several files are merged name by name; a name that two files define is refused with both places.
//! Lists are not merged, except routes, whose order means nothing: where a list of filters comes from several files, its
//! order would hang on their names.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::inputs::{Inputs, is_configuration};
use super::tree::{Key, Map, Node, Value};
use super::{secrets, yaml};
use crate::diagnostic::{Diagnostic, Source, Span};

/// What all the files together say.
pub(crate) struct Gathered {
    pub(crate) tree: Node,
    pub(crate) problems: Vec<Diagnostic>,
    /// Whether every file could be read to its end.
    pub(crate) complete: bool,
}

/// Keys of a tenant that only the gateway's own files may have: a tenant does not give itself hosts or lift its limits.
const NOT_THE_TENANTS: [&str; 3] = ["hosts", "limits", "include"];

/// No configuration is larger; a path to a device would never end.
const MAX_BYTES: u64 = 64 << 20;

/// Reads what operators name on the command line.
pub(crate) fn from_paths(paths: &[PathBuf], inputs: &Inputs) -> Gathered {
    let mut gather = Gather { inputs: inputs.clone(), ..Gather::default() };
    for path in paths {
        for file in gather.files(path, |problem| problem) {
            gather.file(&file);
        }
    }
    gather.finish()
}

/// Reads a configuration that is not in a file.
pub(crate) fn from_text(path: &Path, text: &str) -> Gathered {
    let mut gather = Gather::default();
    let source = Source { text: text.to_owned(), ..Source::named(path) };
    gather.source(&Arc::new(source));
    gather.finish()
}

#[derive(Default)]
struct Gather {
    tree: Option<Node>,
    problems: Vec<Diagnostic>,
    incomplete: bool,
    inputs: Inputs,
}

impl Gather {
    fn finish(mut self) -> Gathered {
        let nothing = || Node {
            span: Span::beginning(&Arc::new(Source::named(Path::new("")))),
            value: Value::Map(Map::default()),
        };
        let mut tree = self.tree.take().unwrap_or_else(nothing);
        self.include(&mut tree);
        Gathered { tree, problems: self.problems, complete: !self.incomplete }
    }

    /// The files that a path stands for, in the order of their names.
    fn files(&mut self, path: &Path, place: impl Fn(Diagnostic) -> Diagnostic) -> Vec<PathBuf> {
        self.inputs.note(path);
        if !path.is_dir() {
            return vec![path.to_path_buf()];
        }
        let entries = fs::read_dir(path).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
        let mut files: Vec<PathBuf> = match entries {
            Ok(entries) => entries.into_iter().map(|entry| entry.path()).collect(),
            Err(error) => {
                self.unreadable(path, &secrets::reason(&error), place);
                return Vec::new();
            }
        };
        files.retain(|file| file.is_file() && is_configuration(file));
        files.sort();
        if files.is_empty() {
            self.unreadable(path, "the directory has no `.yaml` file", place);
        }
        files
    }

    fn unreadable(&mut self, path: &Path, why: &str, place: impl Fn(Diagnostic) -> Diagnostic) {
        self.incomplete = true;
        self.problems.push(place(Diagnostic::error(format!("`{}` cannot be read: {why}", path.display()))));
    }

    fn file(&mut self, path: &Path) {
        if let Some(source) = self.read(path, None, |problem| problem) {
            self.source(&source);
        }
    }

    fn read(
        &mut self,
        path: &Path,
        fence: Option<&Path>,
        place: impl Fn(Diagnostic) -> Diagnostic,
    ) -> Option<Arc<Source>> {
        self.inputs.note(path);
        let text = match fs::metadata(path) {
            Ok(metadata) if metadata.len() > MAX_BYTES => Err(format!("it is larger than {MAX_BYTES} bytes")),
            Ok(_) => fs::read_to_string(path).map_err(|error| secrets::reason(&error)),
            Err(error) => Err(secrets::reason(&error)),
        };
        match text {
            Ok(text) => {
                let (fence, inputs) = (fence.map(Path::to_path_buf), self.inputs.clone());
                Some(Arc::new(Source { text, fence, inputs, ..Source::named(path) }))
            }
            Err(why) => {
                self.unreadable(path, &why, place);
                None
            }
        }
    }

    fn parse(&mut self, source: &Arc<Source>) -> Option<Node> {
        match yaml::read(source, &mut self.problems) {
            Ok(mut node) => {
                secrets::resolve(&mut node, &mut self.problems);
                Some(node)
            }
            Err(problem) => {
                self.incomplete = true;
                self.problems.push(problem);
                None
            }
        }
    }

    fn source(&mut self, source: &Arc<Source>) {
        let Some(node) = self.parse(source) else { return };
        match &mut self.tree {
            None => self.tree = Some(node),
            Some(tree) => merge(tree, node, &mut self.problems),
        }
    }

    /// Puts the tenants' own files in their places.
    fn include(&mut self, tree: &mut Node) {
        let tenants = tree.map_mut().and_then(|map| map.get_mut("tenants")).and_then(Node::map_mut);
        for (key, tenant) in tenants.into_iter().flat_map(|tenants| &mut tenants.entries) {
            let Some(Node { span, value: Value::Text(text) }) = tenant.get("include").cloned() else { continue };
            let place = |problem: Diagnostic| problem.at(&span, format!("included by tenant `{}`", key.name));
            let path = self.inputs.locate(&span.source.folder, &text.text);
            let fence = if path.is_dir() { path.clone() } else { path.parent().unwrap_or(Path::new("")).to_path_buf() };
            for file in self.files(&path, place) {
                let source = self.read(&file, Some(&fence), place);
                if let Some(own) = source.and_then(|source| self.parse(&source)) {
                    let own = self.tenants_own(own, &key.name);
                    merge(tenant, own, &mut self.problems);
                }
            }
        }
    }

    fn tenants_own(&mut self, mut node: Node, tenant: &str) -> Node {
        if let Some(map) = node.map_mut() {
            for (key, _) in map.entries.extract_if(.., |(key, _)| NOT_THE_TENANTS.contains(&key.name.as_str())) {
                self.problems.push(
                    Diagnostic::error(format!("`{}` cannot stand in a tenant's own files", key.name))
                        .at(&key.span, "only the gateway's files say this")
                        .help(format!("write it where `include` is, under `tenants.{tenant}`")),
                );
            }
        }
        node
    }
}

/// Adds what `more` says to `tree`.
fn merge(tree: &mut Node, more: Node, problems: &mut Vec<Diagnostic>) {
    let span = more.span.clone();
    let (Some(map), Value::Map(more)) = (tree.map_mut(), more.value) else {
        problems.push(Diagnostic::error("a configuration must be a mapping").at(&span, ""));
        return;
    };
    for (key, node) in more.entries {
        let Some(index) = map.entries.iter().position(|(known, _)| known.name == key.name) else {
            map.entries.push((key, node));
            continue;
        };
        if let Some((first, known)) = map.entries.get_mut(index) {
            merge_section(first, known, &key, node, problems);
        }
    }
}

fn merge_section(first: &Key, known: &mut Node, key: &Key, node: Node, problems: &mut Vec<Diagnostic>) {
    match (&mut known.value, node.value) {
        (Value::Map(known), Value::Map(more)) if key.name != "admin" => {
            let mut names: HashMap<String, Span> =
                known.entries.iter().map(|(key, _)| (key.name.clone(), key.span.clone())).collect();
            for (key, node) in more.entries {
                match names.get(&key.name) {
                    Some(first) => problems.push(yaml::twice(&key, first)),
                    None => {
                        names.insert(key.name.clone(), key.span.clone());
                        known.entries.push((key, node));
                    }
                }
            }
        }
        (Value::List(known), Value::List(more)) if key.name == "routes" => known.extend(more),
        (_, Value::Null) => {}
        (Value::Null, value) => *known = Node { value, ..node },
        (Value::Number(one), Value::Number(other)) if key.name == "version" && *one == other => {}
        (Value::List(_), Value::List(_)) => problems.push(
            Diagnostic::error(format!("`{}` stands in two files", key.name))
                .at(&key.span, "also here")
                .at(&first.span, "it is here")
                .help("their order matters, so the whole list stands in one place"),
        ),
        _ => problems.push(yaml::twice(key, &first.span)),
    }
}
