//! From paths to one tree: files, directories, and the directories that tenants keep for themselves.
//!
//! Mappings at the top of several files are merged name by name; a name that two files define is refused with both places.
//! Lists are not merged, except routes, whose order means nothing: where a list of filters comes from several files, its
//! order would hang on their names.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::directory::{TENANT_FILE, is_tenant_name};
use super::inputs::{Inputs, is_configuration};
use super::private::Private;
use super::tree::{Key, Map, Node, Value};
use super::{secrets, yaml};
use crate::diagnostic::{Diagnostic, Source, Span, is_within};

/// What all the files together say.
pub(crate) struct Gathered {
    pub(crate) tree: Node,
    /// What tenants' own files say, by their names; it is in the tree too.
    pub(crate) own: Own,
    /// Those of the tenants to be left out that there are, where it was looked who is there.
    pub(crate) left_out: BTreeSet<Arc<str>>,
    /// The same wherever the gateway's own files say the same, secrets included.
    pub(crate) text: [u8; 32],
    pub(crate) problems: Vec<Diagnostic>,
    /// Whether every file could be read to its end.
    pub(crate) complete: bool,
}

/// What each tenant's own files say.
pub(crate) type Own = BTreeMap<Arc<str>, Arc<Node>>;

/// What is not read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unread {
    /// Tenants whose own files are not looked into: what they once said stands in its place, or, for one that has never said anything
    /// good, nothing.
    pub(crate) held: HashMap<Arc<str>, Option<Arc<Node>>>,
    /// Tenants with files of their own that are left out altogether.
    pub(crate) out: Out,
}

/// Who is left out.
#[derive(Clone, Debug, Default)]
pub(crate) enum Out {
    #[default]
    Nobody,
    These(BTreeSet<Arc<str>>),
    /// Everybody else. Nor is it looked who is there: of a directory is noted what was noted before.
    AllBut(BTreeSet<Arc<str>>, Inputs),
}

impl Out {
    fn has(&self, tenant: &str) -> bool {
        match self {
            Self::Nobody => false,
            Self::These(names) => names.contains(tenant),
            Self::AllBut(names, _) => !names.contains(tenant),
        }
    }
}

/// Keys of a tenant that only the gateway's own files may have: a tenant does not give itself hosts, lift its limits, or say whose
/// modules it may run.
const NOT_THE_TENANTS: [&str; 5] = ["hosts", "limits", "grants", "modules", "include"];

/// No configuration is larger; a path to a device would never end.
const MAX_BYTES: u64 = 64 << 20;
/// What all of a tenant's own files may come to: a tree takes many times the memory of its text, and it is everybody's.
pub(crate) const MAX_TENANT_BYTES: usize = 1 << 20;

/// Reads what operators name on the command line.
pub(crate) fn from_paths(paths: &[PathBuf], inputs: &Inputs, unread: Unread) -> Gathered {
    let mut gather = Gather { inputs: inputs.clone(), unread, ..Gather::default() };
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
    own: Own,
    left_out: BTreeSet<Arc<str>>,
    unread: Unread,
}

impl Gather {
    fn finish(mut self) -> Gathered {
        let nothing = || Node {
            span: Span::beginning(&Arc::new(Source::named(Path::new("")))),
            value: Value::Map(Map::default()),
        };
        let mut tree = self.tree.take().unwrap_or_else(nothing);
        let text = digest(&tree);
        self.include(&mut tree);
        self.directory(&mut tree);
        Gathered {
            tree,
            own: self.own,
            left_out: self.left_out,
            text,
            problems: self.problems,
            complete: !self.incomplete,
        }
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
        tenant: Option<(&Path, &Arc<str>)>,
        place: impl Fn(Diagnostic) -> Diagnostic,
    ) -> Option<Arc<Source>> {
        self.inputs.note_of(path, tenant.map(|(_, name)| name));
        let bytes = match tenant {
            None => self.inputs.read_piped(path, MAX_BYTES),
            Some((fence, _)) if is_within(fence, path) => self.inputs.read(path, MAX_TENANT_BYTES as u64),
            Some(_) => Err(Error::other("it is a link that leads out of the tenant's directory")),
        };
        let text = bytes.and_then(|bytes| {
            String::from_utf8(bytes.into()).map_err(|error| Error::new(ErrorKind::InvalidData, error))
        });
        match text.map_err(|error| secrets::reason(&error)) {
            Ok(text) => {
                let (fence, tenant) = tenant.map(|(fence, name)| (fence.to_path_buf(), name.clone())).unzip();
                Some(Arc::new(Source { text, fence, tenant, inputs: self.inputs.clone(), ..Source::named(path) }))
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
        let mut tenants = tree.map_mut().and_then(|map| map.get_mut("tenants")).and_then(Node::map_mut);
        if let Some(tenants) = &mut tenants {
            let is_out = |key: &Key, tenant: &Node| tenant.get("include").is_some() && self.unread.out.has(&key.name);
            let out = tenants.entries.extract_if(.., |(key, tenant)| is_out(key, tenant));
            self.left_out.extend(out.map(|(key, _)| Arc::from(key.name)));
        }
        for (key, tenant) in tenants.into_iter().flat_map(|tenants| &mut tenants.entries) {
            let Some(Node { span, value: Value::Text(text) }) = tenant.get("include").cloned() else { continue };
            let place = |problem: Diagnostic| {
                problem.at(&span, format!("included by tenant `{}`", key.name)).of_tenant(&key.name)
            };
            let path = self.inputs.locate(&span.source.folder, &text.text);
            let fence = if path.is_dir() { path.clone() } else { path.parent().unwrap_or(Path::new("")).to_path_buf() };
            let name: Arc<str> = key.name.as_str().into();
            self.inputs.note_of(&fence, Some(&name));
            self.inputs.note(&path);
            let own = match self.unread.held.remove(&name) {
                Some(Some(held)) => held,
                Some(None) => {
                    without_own(tenant);
                    continue;
                }
                None => {
                    let files = self.files(&path, place);
                    self.own_files(&files, (&fence, &name), place).into()
                }
            };
            merge(tenant, Node::clone(&own), &mut self.problems);
            self.own.insert(name, own);
        }
    }

    /// Adds the tenants of the directory that the admin listener keeps.
    fn directory(&mut self, tree: &mut Node) {
        let Some(Node { span, value: Value::Text(text) }) = tree.get("admin").and_then(|admin| admin.get("tenants"))
        else {
            return;
        };
        let (span, root) = (span.clone(), self.inputs.locate(&span.source.folder, &text.text));
        let names = match self.names_in(&root) {
            Ok(names) => names,
            Err(error) => {
                return self.unreadable(&root, &secrets::reason(&error), |problem| problem.at(&span, "named here"));
            }
        };
        let mut added = Vec::new();
        for name in names {
            let (folder, place) = (root.join(&name), |problem: Diagnostic| problem.of_tenant(&name));
            let tenant: Arc<str> = name.as_str().into();
            self.inputs.note_of(&folder, Some(&tenant));
            let own = match self.unread.held.remove(&tenant) {
                Some(Some(held)) => held,
                Some(None) => continue,
                None => {
                    let source = self.read(&folder.join(TENANT_FILE), Some((&folder, &tenant)), place);
                    let Some(own) = source.and_then(|source| self.parse(&source)) else { continue };
                    Arc::new(self.directorys_own(own))
                }
            };
            if !is_tenant_name(&name) {
                let problem = Diagnostic::error(format!("`{name}` is no name for a tenant in a directory"));
                self.problems.push(
                    problem
                        .at(&own.span, "its folder has this name")
                        .help("lower-case letters, digits, `-`, `_` and `.`, at most 63, with a letter or digit first"),
                );
            }
            let key = Key { name, span: own.span.clone() };
            added.push((key, Node::clone(&own)));
            self.own.insert(tenant, own);
        }
        add_tenants(tree, added, &mut self.problems);
    }

    /// The tenants in a directory that are read.
    fn names_in(&mut self, root: &Path) -> std::io::Result<Vec<String>> {
        if let Out::AllBut(names, before) = &self.unread.out {
            self.inputs.note_as_in(root, before);
            let has_file = |name: &&Arc<str>| self.inputs.is_file(&root.join(&***name).join(TENANT_FILE));
            return Ok(names.iter().filter(has_file).map(ToString::to_string).collect());
        }
        self.inputs.note(root);
        let names = self.inputs.folders_with(root, TENANT_FILE)?;
        let (out, names): (Vec<String>, Vec<String>) = names.into_iter().partition(|name| self.unread.out.has(name));
        self.left_out.extend(out.into_iter().map(Arc::from));
        Ok(names)
    }

    /// What all of a tenant's own files say.
    fn own_files(
        &mut self,
        files: &[PathBuf],
        (fence, name): (&Path, &Arc<str>),
        place: impl Fn(Diagnostic) -> Diagnostic + Copy,
    ) -> Node {
        let nothing = Source { tenant: Some(name.clone()), ..Source::named(fence) };
        let mut all = Node { span: Span::beginning(&Arc::new(nothing)), value: Value::Map(Map::default()) };
        let mut left = MAX_TENANT_BYTES;
        for file in files {
            let Some(source) = self.read(file, Some((fence, name)), place) else { continue };
            let Some(less) = left.checked_sub(source.text.len()) else {
                let why = format!("a tenant's files have {MAX_TENANT_BYTES} bytes at most, those before it included");
                self.unreadable(file, &why, place);
                break;
            };
            left = less;
            if let Some(own) = self.parse(&source) {
                let own = self.tenants_own(own, name);
                merge(&mut all, own, &mut self.problems);
            }
        }
        all
    }

    fn directorys_own(&mut self, mut node: Node) -> Node {
        let why = |key: &str| match key {
            "include" => Some("all that this tenant says stands in this file"),
            "grants" => Some("a tenant does not grant itself anything"),
            _ => None,
        };
        if let Some(map) = node.map_mut() {
            for (key, _) in map.entries.extract_if(.., |(key, _)| why(&key.name).is_some()) {
                let problem = Diagnostic::error(format!("`{}` cannot stand in a directory for tenants", key.name));
                self.problems.push(problem.at(&key.span, why(&key.name).unwrap_or_default()));
            }
        }
        node
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

/// A digest of all that is written, secrets included.
fn digest(tree: &Node) -> [u8; 32] {
    let mut digest = Sha256::new();
    serde_json::to_writer(&mut digest, &*Private::new(tree.json())).expect("a digest takes whatever is written to it");
    digest.finalize().into()
}

/// Adds tenants that no other file has.
fn add_tenants(tree: &mut Node, added: Vec<(Key, Node)>, problems: &mut Vec<Diagnostic>) {
    let (Some(map), Some((first, _))) = (tree.map_mut(), added.first()) else { return };
    if map.get("tenants").is_none_or(|node| matches!(node.value, Value::Null)) {
        map.entries.retain(|(key, _)| key.name != "tenants");
        let section = Key { name: "tenants".to_owned(), span: first.span.clone() };
        map.entries.push((section, Node { span: first.span.clone(), value: Value::Map(Map::default()) }));
    }
    let Some(tenants) = map.get_mut("tenants").and_then(Node::map_mut) else { return };
    merge_entries(tenants, added, problems);
}

/// Adds entries of which none is there yet.
fn merge_entries(known: &mut Map, more: Vec<(Key, Node)>, problems: &mut Vec<Diagnostic>) {
    let mut names: HashMap<String, Span> =
        known.entries.iter().map(|(key, _)| (key.name.clone(), key.span.clone())).collect();
    for (key, node) in more {
        match names.get(&key.name) {
            Some(first) => problems.push(yaml::twice(&key, first)),
            None => {
                names.insert(key.name.clone(), key.span.clone());
                known.entries.push((key, node));
            }
        }
    }
}

/// Leaves of a tenant what its own files could not have said.
fn without_own(tenant: &mut Node) {
    if let Some(map) = tenant.map_mut() {
        map.entries.retain(|(key, _)| NOT_THE_TENANTS.contains(&key.name.as_str()));
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
            merge_entries(known, more.entries, problems);
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
