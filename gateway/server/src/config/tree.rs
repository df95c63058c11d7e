//! A configuration as a tree in which every value and every key knows where it was written.
//!
//! What the values mean is left to `shape` and `check`. YAML ends at `yaml`, JSON begins here.
//! **Invariant:** after `shape` has run over a tree, what is left of it fits the schema; entries that did not are
//! remembered by name only, so that a reference to one is not reported a second time.

use serde_json::Number;
use zeroize::Zeroize as _;

use crate::diagnostic::Span;

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) value: Value,
}

/// What a configuration is made of.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    Text(Text),
    List(Vec<Node>),
    Map(Map),
}

/// A string.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    /// With its secrets in place.
    pub(crate) text: String,
    pub(crate) origin: Origin,
}

/// Where a string's characters come from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Origin {
    /// The file itself.
    Written,
    /// A secret is in it; this is how it was written, which is all that may be shown.
    Secret(String),
    /// A secret in it could not be had, which has been reported.
    Unresolved(String),
}

/// A mapping, in the order of the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Map {
    pub(crate) entries: Vec<(Key, Node)>,
    /// Keys whose values were reported as unusable and taken out.
    pub(crate) broken: Vec<Key>,
}

/// A key and its place.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) span: Span,
}

impl Map {
    pub(crate) fn get(&self, name: &str) -> Option<&Node> {
        self.entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut Node> {
        self.entries.iter_mut().find(|(key, _)| key.name == name).map(|(_, node)| node)
    }
}

impl Node {
    pub(crate) fn map(&self) -> Option<&Map> {
        if let Value::Map(map) = &self.value { Some(map) } else { None }
    }

    pub(crate) fn map_mut(&mut self) -> Option<&mut Map> {
        if let Value::Map(map) = &mut self.value { Some(map) } else { None }
    }

    pub(crate) fn list(&self) -> &[Node] {
        if let Value::List(items) = &self.value { items } else { &[] }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Node> {
        self.map()?.get(name)
    }

    /// Whether it stands in a tenant's own files.
    pub(crate) fn is_tenants(&self) -> bool {
        self.span.source.tenant.is_some()
    }

    /// The entries of a mapping; nothing for any other value.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Key, &Node)> {
        self.map().into_iter().flat_map(|map| map.entries.iter().map(|(key, node)| (key, node)))
    }

    /// The value with secrets in place: for plugins and for typing, never to be shown.
    pub(crate) fn json(&self) -> serde_json::Value {
        self.convert(|text| text.text.clone())
    }

    /// The value as it was written, which may be shown.
    pub(crate) fn written_json(&self) -> serde_json::Value {
        self.convert(|text| text.written().to_owned())
    }

    /// A string as it was written; nothing for any other value.
    pub(crate) fn written(&self) -> &str {
        if let Value::Text(text) = &self.value { text.written() } else { "" }
    }

    /// Whether any part of the value is, or holds, a secret.
    pub(crate) fn has_secret(&self) -> bool {
        match &self.value {
            Value::Text(text) => text.origin != Origin::Written,
            Value::List(items) => items.iter().any(Self::has_secret),
            Value::Map(map) => map.entries.iter().any(|(_, node)| node.has_secret()),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }

    /// Whether nothing was taken out of the value.
    pub(crate) fn is_whole(&self) -> bool {
        match &self.value {
            Value::List(items) => items.iter().all(Self::is_whole),
            Value::Map(map) => map.broken.is_empty() && map.entries.iter().all(|(_, node)| node.is_whole()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => true,
        }
    }

    fn convert(&self, show: fn(&Text) -> String) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Number(number) => number.clone().into(),
            Value::Text(text) => show(text).into(),
            Value::List(items) => items.iter().map(|item| item.convert(show)).collect(),
            Value::Map(map) => {
                let entries = map.entries.iter().map(|(key, node)| (key.name.clone(), node.convert(show)));
                serde_json::Value::Object(entries.collect())
            }
        }
    }
}

impl Drop for Text {
    /// What held a secret is overwritten before its memory is somebody else's.
    fn drop(&mut self) {
        if matches!(self.origin, Origin::Secret(_)) {
            self.text.zeroize();
        }
    }
}

impl Text {
    /// The string as it was written, which may be shown.
    pub(crate) fn written(&self) -> &str {
        match &self.origin {
            Origin::Written => &self.text,
            Origin::Secret(written) | Origin::Unresolved(written) => written,
        }
    }
}
