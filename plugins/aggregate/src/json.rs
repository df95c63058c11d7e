//! Documents, opened only as far as somebody looks into them.
//!
//! A document is a text that has been checked. What is done to it opens the arrays and objects on the way there; all else stays the
//! piece of text that it was, and goes into the reply as that, with every digit of its numbers.
//!
//! **Invariants:** the names of an opened object are in quotes, in the one form that [`quoted`] gives them, and no two are the
//! same: of several the last counts, and stands where the first did. Text that was made here is a string, and has no parts.

pub(crate) mod text;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use text::{compact, fields, items, quoted, said};

/// A value of JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Json<'t> {
    /// As it was written, without white space around it.
    Written(Cow<'t, str>),
    Array(Vec<Json<'t>>),
    Object(Vec<Field<'t>>),
}

/// A field of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field<'t> {
    /// In quotes.
    pub(crate) name: Cow<'t, str>,
    pub(crate) value: Json<'t>,
}

/// What becomes of two fields that have the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clash {
    /// The new value stands where the old one did.
    Replaces,
    /// The old one stays.
    Stays,
}

/// So many fields are looked through faster than a table of them is made.
const FEW: usize = 16;

impl<'t> Json<'t> {
    pub(crate) const NULL: Self = Self::Written(Cow::Borrowed("null"));

    /// A text that has been checked.
    pub(crate) fn of(text: &'t str) -> Self {
        Self::Written(Cow::Borrowed(text.trim_ascii()))
    }

    /// A string that says this.
    pub(crate) fn string(text: &str) -> Self {
        Self::Written(Cow::Owned(quoted(text)))
    }

    /// Opens an array or an object, so that its parts can be reached. Those stay as they are.
    pub(crate) fn open(&mut self) -> &mut Self {
        if let Self::Written(Cow::Borrowed(text)) = *self {
            match text.as_bytes().first() {
                Some(b'{') => *self = Self::Object(opened(text)),
                Some(b'[') => *self = Self::Array(items(text).map(|item| Self::Written(Cow::Borrowed(item))).collect()),
                _ => {}
            }
        }
        self
    }

    /// What a string, a number or a truth value says. `7` and `"7"` say the same.
    pub(crate) fn plain(&self) -> Option<Cow<'_, str>> {
        if let Self::Written(text) = self { plain(text) } else { None }
    }

    /// The same, for longer than this is there.
    pub(crate) fn into_plain(self) -> Option<Cow<'t, str>> {
        match self {
            Self::Written(Cow::Borrowed(text)) => plain(text),
            Self::Written(Cow::Owned(text)) => plain(&text).map(|text| Cow::Owned(text.into_owned())),
            Self::Array(_) | Self::Object(_) => None,
        }
    }

    /// As templates have it: of an array of plain values those, separated by commas, each once; of what else has no text of its own
    /// its JSON; of `null` nothing.
    pub(crate) fn into_text(mut self) -> Option<Cow<'t, str>> {
        match self.open() {
            Self::Written(_) => self.into_plain(),
            Self::Array(items) => match items.iter().map(Self::plain).collect::<Option<Vec<_>>>() {
                Some(mut texts) => {
                    let mut seen = HashSet::new();
                    texts.retain(|text| seen.insert(text.clone()));
                    Some(Cow::Owned(texts.join(",")))
                }
                None => Some(Cow::Owned(compact(&self.to_text()))),
            },
            Self::Object(_) => Some(Cow::Owned(compact(&self.to_text()))),
        }
    }

    /// How long it is as text.
    pub(crate) fn len(&self) -> usize {
        // Brackets, and commas between the parts.
        let around = |parts: usize| 2 + parts.saturating_sub(1);
        match self {
            Self::Written(text) => text.len(),
            Self::Array(items) => around(items.len()) + items.iter().map(Self::len).sum::<usize>(),
            Self::Object(fields) => {
                let field = |field: &Field<'_>| field.name.len() + 1 + field.value.len();
                around(fields.len()) + fields.iter().map(field).sum::<usize>()
            }
        }
    }

    pub(crate) fn to_text(&self) -> String {
        let mut text = String::with_capacity(self.len() + 1);
        self.write(&mut text);
        text
    }

    fn write(&self, into: &mut String) {
        match self {
            Self::Written(text) => into.push_str(text),
            Self::Array(items) => {
                into.push('[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        into.push(',');
                    }
                    item.write(into);
                }
                into.push(']');
            }
            Self::Object(fields) => {
                into.push('{');
                for (at, field) in fields.iter().enumerate() {
                    if at > 0 {
                        into.push(',');
                    }
                    into.push_str(&field.name);
                    into.push(':');
                    field.value.write(into);
                }
                into.push('}');
            }
        }
    }
}

fn plain(text: &str) -> Option<Cow<'_, str>> {
    match text.as_bytes().first()? {
        b'{' | b'[' | b'n' => None,
        b'"' => said(text),
        _ => Some(Cow::Borrowed(text)),
    }
}

/// The fields of an object, each name once and in its one form.
fn opened(text: &str) -> Vec<Field<'_>> {
    let field = |(name, value)| Field { name: in_one_form(name), value: Json::Written(Cow::Borrowed(value)) };
    let all: Vec<Field<'_>> = fields(text).map(field).collect();
    let is_again = |(at, field): (usize, &Field<'_>)| all.iter().take(at).any(|other| other.name == field.name);
    if all.len() <= FEW && !all.iter().enumerate().any(is_again) {
        return all;
    }
    let mut distinct = Vec::new();
    merge(&mut distinct, all, Clash::Replaces);
    distinct
}

/// A name that is no text stays as it is written.
pub(crate) fn in_one_form(name: &str) -> Cow<'_, str> {
    match said(name) {
        Some(Cow::Owned(said)) => Cow::Owned(quoted(&said)),
        Some(Cow::Borrowed(_)) | None => Cow::Borrowed(name),
    }
}

/// Adds fields to those of an object.
pub(crate) fn merge<'t>(fields: &mut Vec<Field<'t>>, more: Vec<Field<'t>>, clash: Clash) {
    let mut table = (fields.len() + more.len() > FEW).then(|| {
        fields.iter().enumerate().map(|(at, field)| (field.name.clone(), at)).collect::<HashMap<Cow<'t, str>, usize>>()
    });
    for field in more {
        let known = match &mut table {
            Some(table) => {
                let known = table.get(&field.name).copied();
                if known.is_none() {
                    table.insert(field.name.clone(), fields.len());
                }
                known
            }
            None => fields.iter().position(|known| known.name == field.name),
        };
        match known.and_then(|at| fields.get_mut(at)) {
            None => fields.push(field),
            Some(old) if clash == Clash::Replaces => old.value = field.value,
            Some(_) => {}
        }
    }
}

/// The field of this name, which is in quotes.
pub(crate) fn field<'f, 't>(fields: &'f mut [Field<'t>], name: &str) -> Option<&'f mut Field<'t>> {
    fields.iter_mut().find(|field| field.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn what_is_opened_has_each_name_once_and_the_rest_as_it_was() {
        let text = r#" {"a": [ 1.50 ], "\u0062":1, "b":2, "c\n":{"x" : 1}, "a":[]} "#;
        let mut document = Json::of(text);
        assert_eq!(document.to_text(), text.trim());
        assert_eq!(document.open().to_text(), r#"{"a":[],"b":2,"c\n":{"x" : 1}}"#);
        assert_eq!(document.len(), document.to_text().len());
        let many: Vec<String> = (0..FEW + 1).map(|at| format!("\"{at}\":{at}")).collect();
        let text = format!("{{{},\"3\":true}}", many.join(","));
        assert_eq!(Json::of(&text).open().to_text(), format!("{{{}}}", many.join(",").replace(":3,", ":true,")));
    }

    #[test]
    fn values_have_the_texts_that_templates_put_in() {
        for (json, want) in [
            ("null", None),
            ("1.50", Some("1.50")),
            ("true", Some("true")),
            (r#""a\"b""#, Some("a\"b")),
            (r#"[ 1, "b", 1, true ]"#, Some("1,b,true")),
            ("[1, [ 2 ]]", Some("[1,[2]]")),
            ("[1, null]", Some("[1,null]")),
            (r#"{ "a" : 1 }"#, Some(r#"{"a":1}"#)),
            ("[]", Some("")),
        ] {
            assert_eq!(Json::of(json).into_text().as_deref(), want, "{json}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Opened through and through, a document is what it was.
        #[test]
        fn opening_changes_nothing(names in prop::collection::vec("[a-c\"\\\\é]{0,2}", 0..40)) {
            fn open_all(json: &mut Json<'_>) {
                match json.open() {
                    Json::Written(_) => {}
                    Json::Array(items) => items.iter_mut().for_each(open_all),
                    Json::Object(fields) => fields.iter_mut().for_each(|field| open_all(&mut field.value)),
                }
            }
            let fields: Vec<String> = names.iter().map(|name| format!("{}:[{{}},\"{}\"]", Value::from(name.as_str()), name.len())).collect();
            let text = format!("{{{}}}", fields.join(","));
            let mut document = Json::of(&text);
            open_all(&mut document);
            let (known, own): (Value, Value) = (serde_json::from_str(&text).unwrap(), serde_json::from_str(&document.to_text()).unwrap());
            prop_assert_eq!(known.to_string(), own.to_string());
        }
    }
}
