//! Edits of documents as an operator writes them.

use std::collections::BTreeMap;

use plugin_common::template::Target;
use portcullis_sdk::Config;
use portcullis_sdk::schema::{Piece, Schema};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::{Listed, each, template};
use crate::edit::{Content, Edit};
use crate::place::Place;
use crate::pointer::Pointer;
use crate::values::Names;

/// Edits of a document, made in this order. A place is a JSON Pointer (`/user/name`) or a JSONPath query (`$.users[*].name`).
#[derive(Default, Config)]
pub(crate) struct EditSettings {
    /// The document becomes what is at this pointer, if there is something.
    unwrap: Option<String>,
    /// The document keeps what is at these places, and loses the rest.
    pick: Option<Vec<String>>,
    /// Places to take away.
    #[serde(default)]
    remove: Vec<String>,
    /// Place: the field's new name. It stays where it is among the others.
    #[serde(default)]
    rename: BTreeMap<String, String>,
    /// Pointer: the pointer to which its value goes. Where there is no place for it, it stays.
    #[serde(default)]
    r#move: BTreeMap<String, String>,
    /// Place: the pointer at which a copy is put; of a query, a list of all that it finds.
    #[serde(default)]
    copy: BTreeMap<String, String>,
    /// Place: the value it gets where it has none. Texts are templates.
    #[serde(default)]
    default: Map<String, Value>,
    /// Place: the value it gets. Texts are templates.
    #[serde(default)]
    set: Map<String, Value>,
    /// Places whose values are replaced by `***`.
    #[serde(default)]
    redact: Vec<String>,
    /// Place: how many of the last characters of its text stay; the others become `*`.
    #[serde(default)]
    mask: BTreeMap<String, usize>,
    /// Place: edits that are made in it, or, if it is a list, in each of its items.
    #[serde(default)]
    each: BTreeMap<String, Inner>,
    /// The document becomes the field of this name in an object.
    wrap: Option<String>,
}

/// Edits inside of others. A type of its own, for a schema that holds itself would have no end.
struct Inner(Listed<EditSettings>);

impl<'de> Deserialize<'de> for Inner {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Listed::deserialize(deserializer).map(Self)
    }
}

impl Schema for Inner {
    const SCHEMA: &'static [Piece] =
        &[Piece::Text(r#"{"description":"Edits, as around it: one, or a list.","type":["object","array"]}"#)];
}

impl EditSettings {
    /// # Errors
    /// What an operator has to change.
    pub(crate) fn checked(self, names: &Names<'_>) -> Result<Edit, String> {
        let content = |what: &'static str, all: Map<String, Value>| {
            let one = |(at, value): (String, Value)| {
                let content = Content::checked(value, names).map_err(|why| format!("{what}.{at}: {why}"))?;
                Ok((place(what)(at)?, content))
            };
            all.into_iter().map(one).collect::<Result<Vec<_>, String>>()
        };
        if let Some(at) = self.default.keys().find(|at| Place::parse(at).is_ok_and(|place| !place.can_default())) {
            return Err(format!("default.{at}: a query for what may be missing ends with a name"));
        }
        let nested = |(at, Inner(edits)): (String, Inner)| {
            let edits = each(&format!("each.{at}"), edits.0, |edit| edit.checked(names))?;
            Ok((place("each")(at)?, edits))
        };
        Ok(Edit {
            unwrap: self.unwrap.map(pointer("unwrap")).transpose()?,
            pick: self.pick.map(|all| all.into_iter().map(place("pick")).collect()).transpose()?,
            remove: self.remove.into_iter().map(place("remove")).collect::<Result<_, _>>()?,
            rename: pairs(self.rename, place("rename"), Ok)?,
            moves: pairs(self.r#move, pointer("move"), pointer("move"))?,
            copy: pairs(self.copy, place("copy"), pointer("copy"))?,
            default: content("default", self.default)?,
            set: content("set", self.set)?,
            redact: self.redact.into_iter().map(place("redact")).collect::<Result<_, _>>()?,
            mask: pairs(self.mask, place("mask"), Ok)?,
            each: self.each.into_iter().map(nested).collect::<Result<_, String>>()?,
            wrap: self.wrap,
        })
    }
}

fn place(what: &'static str) -> impl Fn(String) -> Result<Place, String> {
    move |text| Place::parse(&text).map_err(|why| format!("{what}: {why}"))
}

fn pointer(what: &'static str) -> impl Fn(String) -> Result<Pointer, String> {
    move |text| Pointer::parse(&text).map_err(|why| format!("{what}: {why}"))
}

fn pairs<V, K, T>(
    all: BTreeMap<String, V>,
    from: impl Fn(String) -> Result<K, String>,
    to: impl Fn(V) -> Result<T, String>,
) -> Result<Vec<(K, T)>, String> {
    all.into_iter().map(|(key, value)| Ok((from(key)?, to(value)?))).collect()
}

impl Content {
    fn checked(value: Value, names: &Names<'_>) -> Result<Self, String> {
        match value {
            Value::String(text) if text.contains("${") => template(&text, Target::Text, names).map(Self::Text),
            Value::Array(items) => {
                items.into_iter().map(|item| Self::checked(item, names)).collect::<Result<_, _>>().map(Self::List)
            }
            Value::Object(fields) => {
                let field = |(key, value)| Ok((key, Self::checked(value, names)?));
                fields.into_iter().map(field).collect::<Result<_, String>>().map(Self::Object)
            }
            plain @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => Ok(Self::Fixed(plain)),
        }
    }
}
