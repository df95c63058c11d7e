//! The structural check: keys, types, required values and values written as text, against the schema.
//!
//! What names refer to is left to `check`. Whatever does not fit is reported and taken out of the tree, so that the rest can
//! still be typed and looked at.

use serde_json::Value as Json;

use super::names::close_or_all;
use super::tree::{Key, Map, Node, Origin, Text, Value};
use super::written::FORMATS;
use crate::diagnostic::{Diagnostic, Span};

/// The keywords that are read here, or that only describe.
#[cfg(test)]
pub(crate) const KEYWORDS: &[&str] = &[
    "$ref",
    "$schema",
    "anyOf",
    "default",
    "description",
    "examples",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "required",
    "title",
    "type",
    "x-explicit",
];

/// Checks a whole file and returns the part of it that fits.
pub(crate) fn check(node: Node, schema: &Json, problems: &mut Vec<Diagnostic>) -> Option<Node> {
    let here = Here { path: String::new(), key: None };
    Shape { root: schema, problems }.node(node, schema, &here)
}

/// Where the check is.
struct Here {
    /// `tenants.acme.routes[0]`; empty for the whole file.
    path: String,
    /// The key whose value this is.
    key: Option<Span>,
}

impl Here {
    fn below(&self, key: &Key) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Self { path: format!("{}{dot}{}", self.path, key.name), key: Some(key.span.clone()) }
    }

    fn item(&self, index: usize) -> Self {
        Self { path: format!("{}[{index}]", self.path), key: None }
    }

    /// ` in …`, or nothing for the whole file.
    fn inside(&self) -> String {
        if self.path.is_empty() { String::new() } else { format!(" in `{}`", self.path) }
    }

    fn subject(&self) -> String {
        if self.path.is_empty() { "a configuration".to_owned() } else { format!("`{}`", self.path) }
    }
}

struct Shape<'s> {
    root: &'s Json,
    problems: &'s mut Vec<Diagnostic>,
}

impl<'s> Shape<'s> {
    fn node(&mut self, mut node: Node, schema: &'s Json, here: &Here) -> Option<Node> {
        let schema = self.alternative(self.follow(schema), &node);
        if let Value::Text(Text { origin: Origin::Unresolved(_), .. }) = node.value {
            return None;
        }
        node.value = match (node.value, schema.get("type").and_then(Json::as_str)) {
            (value, None) if schema.get("oneOf").is_none() => value,
            (Value::Map(map), Some("object")) => Value::Map(self.map(map, &node.span, schema, here)),
            (Value::List(items), Some("array")) => Value::List(self.list(items, &node.span, schema, here)?),
            (Value::Text(text), Some("string") | None) => self.text(text, &node.span, schema, here)?,
            (Value::Number(number), Some("integer")) => self.integer(number, &node.span, schema, here)?,
            (Value::Number(number), Some("number")) => self.fraction(number, &node.span, schema, here)?,
            (Value::Bool(value), Some("boolean")) => Value::Bool(value),
            (value, _) => {
                self.wrong_type(&value, &node.span, schema, here);
                return None;
            }
        };
        Some(node)
    }

    fn follow(&self, schema: &'s Json) -> &'s Json {
        let target = schema.get("$ref").and_then(Json::as_str).and_then(|path| path.strip_prefix('#'));
        target.and_then(|pointer| self.root.pointer(pointer)).unwrap_or(schema)
    }

    /// Where there are a short form and a mapping: the one that is meant.
    fn alternative(&self, schema: &'s Json, node: &Node) -> &'s Json {
        let choices = schema.get("anyOf").and_then(Json::as_array).into_iter().flatten();
        let is_map = |schema: &Json| schema.get("type").is_some_and(|kind| kind == "object");
        let wants_map = matches!(node.value, Value::Map(_));
        choices.map(|choice| self.follow(choice)).find(|choice| is_map(choice) == wants_map).unwrap_or(schema)
    }

    fn map(&mut self, map: Map, span: &Span, schema: &'s Json, here: &Here) -> Map {
        let whole = here.key.as_ref().unwrap_or(span);
        self.missing(&map, whole, schema, here);
        self.one_of(&map, whole, schema, here);
        if map.entries.is_empty() && schema.get("minProperties").is_some() {
            self.push(Diagnostic::error(format!("{} is empty", here.subject())).at(whole, "at least one is needed"));
        }
        let mut sound = Map { entries: Vec::with_capacity(map.entries.len()), broken: map.broken };
        for (key, node) in map.entries {
            if matches!(node.value, Value::Null) && is_optional(schema, &key.name) {
                continue;
            }
            match self.entry(&key, node, schema, here) {
                Some(node) => sound.entries.push((key, node)),
                None => sound.broken.push(key),
            }
        }
        sound
    }

    fn entry(&mut self, key: &Key, node: Node, schema: &'s Json, here: &Here) -> Option<Node> {
        let property = schema.get("properties").and_then(|properties| properties.get(&key.name));
        match property.or_else(|| schema.get("additionalProperties").filter(|schema| schema.is_object())) {
            Some(inner) => self.node(node, inner, &here.below(key)),
            None => {
                self.unknown(key, schema, here);
                None
            }
        }
    }

    fn missing(&mut self, map: &Map, whole: &Span, schema: &'s Json, here: &Here) {
        for name in schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str) {
            let present = map.entries.iter().map(|(key, _)| key).chain(&map.broken).any(|key| key.name == name);
            if !present {
                let description = self.description(schema, name);
                self.push(
                    Diagnostic::error(format!("`{name}` is missing{}", here.inside()))
                        .at(whole, "needed here")
                        .maybe_help(description),
                );
            }
        }
    }

    fn one_of(&mut self, map: &Map, whole: &Span, schema: &'s Json, here: &Here) {
        let choices = schema.get("oneOf").and_then(Json::as_array).into_iter().flatten();
        let names: Vec<&str> = choices.filter_map(|choice| choice.pointer("/required/0")?.as_str()).collect();
        let written = map.entries.iter().map(|(key, _)| key).chain(&map.broken);
        let given: Vec<&Key> = written.filter(|key| names.contains(&key.name.as_str())).collect();
        let or = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ");
        match given.as_slice() {
            [] if !names.is_empty() => {
                self.push(Diagnostic::error(format!("{} needs {or}", here.subject())).at(whole, "neither is here"));
            }
            [first, second, ..] => self.push(
                Diagnostic::error(format!("{} is either {or}, not both", here.subject()))
                    .at(&second.span, "this one too")
                    .at(&first.span, "one is here"),
            ),
            _ => {}
        }
    }

    fn unknown(&mut self, key: &Key, schema: &'s Json, here: &Here) {
        let known = schema.get("properties").and_then(Json::as_object);
        let known: Vec<&str> = known.into_iter().flat_map(|known| known.keys()).map(String::as_str).collect();
        self.push(
            Diagnostic::error(format!("unknown key `{}`{}", key.name, here.inside()))
                .at(&key.span, "no such key")
                .maybe_help(close_or_all(&key.name, &known, "the keys here are")),
        );
    }

    fn list(&mut self, items: Vec<Node>, span: &Span, schema: &'s Json, here: &Here) -> Option<Vec<Node>> {
        if items.is_empty() && schema.get("minItems").is_some() {
            self.push(Diagnostic::error(format!("{} is empty", here.subject())).at(span, "at least one is needed"));
            return None;
        }
        let Some(inner) = schema.get("items") else { return Some(items) };
        let count = items.len();
        let items = items.into_iter().enumerate();
        let sound: Vec<Node> = items.filter_map(|(index, item)| self.node(item, inner, &here.item(index))).collect();
        // What is left of a list of methods or hosts would mean something else; routes and filters stand for themselves.
        let whole = sound.len() == count || self.follow(inner).get("type").and_then(Json::as_str) == Some("object");
        whole.then_some(sound)
    }

    fn text(&mut self, text: Text, span: &Span, schema: &'s Json, here: &Here) -> Option<Value> {
        let choices = choices(schema);
        let shown = text.written();
        if !choices.is_empty() && !choices.contains(&text.text.as_str()) {
            self.push(
                Diagnostic::error(format!("{} cannot be `{shown}`", here.subject()))
                    .at(span, "")
                    .maybe_help(close_or_all(shown, &choices, "it can be")),
            );
            return None;
        }
        if text.text.is_empty() && schema.get("minLength").is_some() {
            self.push(Diagnostic::error(format!("{} is empty", here.subject())).at(span, "a text is needed"));
            return None;
        }
        let format = schema.get("x-format").and_then(Json::as_str);
        let Some(format) = format.and_then(|name| FORMATS.iter().find(|format| format.name == name)) else {
            return Some(Value::Text(text));
        };
        let Some(problem) = (format.problem)(&text.text) else { return Some(Value::Text(text)) };
        let problem = if text.origin == Origin::Written { problem } else { "the secret does not read as one".into() };
        self.push(
            Diagnostic::error(format!("{} is not {}", here.subject(), format.what))
                .at(span, problem)
                .maybe_help(examples(format.examples)),
        );
        None
    }

    fn integer(&mut self, number: serde_json::Number, span: &Span, schema: &'s Json, here: &Here) -> Option<Value> {
        let bound = |name| schema.get(name).and_then(Json::as_u64);
        let (low, high) = (bound("minimum").unwrap_or(0), bound("maximum").unwrap_or(u64::from(u32::MAX)));
        if number.as_u64().is_some_and(|number| (low..=high).contains(&number)) {
            return Some(Value::Number(number));
        }
        let want = match (low, high) {
            (low, high) if low == high => low.to_string(),
            (low, high) if high >= u64::from(u32::MAX) => format!("a whole number from {low} on"),
            (low, high) => format!("a whole number from {low} to {high}"),
        };
        self.push(
            Diagnostic::error(format!("{} must be {want}", here.subject())).at(span, format!("this is {number}")),
        );
        None
    }

    fn fraction(&mut self, number: serde_json::Number, span: &Span, schema: &'s Json, here: &Here) -> Option<Value> {
        let bound = |name| schema.get(name).and_then(Json::as_f64);
        let (low, high) = (bound("minimum").unwrap_or(0.0), bound("maximum").unwrap_or(f64::MAX));
        if number.as_f64().is_some_and(|number| (low..=high).contains(&number)) {
            return Some(Value::Number(number));
        }
        let problem = Diagnostic::error(format!("{} must be a number from {low} to {high}", here.subject()));
        self.push(problem.at(span, format!("this is {number}")));
        None
    }

    fn wrong_type(&mut self, value: &Value, span: &Span, schema: &'s Json, here: &Here) {
        let format = schema.get("x-format").and_then(Json::as_str);
        let format = format.and_then(|name| FORMATS.iter().find(|format| format.name == name));
        let want = match (schema.get("type").and_then(Json::as_str), format) {
            (_, Some(format)) => format.what,
            (Some("object"), _) => "a mapping",
            (Some("array"), _) => "a list",
            (Some("integer"), _) => "a whole number",
            (Some("number"), _) => "a number",
            (Some("boolean"), _) => "`true` or `false`",
            _ => "a string",
        };
        let help = match (format, value) {
            (Some(format), _) => examples(format.examples),
            (None, Value::Number(_) | Value::Bool(_)) if want == "a string" => {
                Some("put it in quotes to make it a string".to_owned())
            }
            (None, Value::Map(_)) if want == "a list" => {
                Some("begin each item with `- `, or put it in `[…]`".to_owned())
            }
            (None, Value::Null) => self.own_description(schema),
            _ => None,
        };
        let subject = here.subject();
        let problem = if matches!(value, Value::Null) {
            let place = here.key.as_ref().unwrap_or(span);
            Diagnostic::error(format!("{subject} has no value")).at(place, format!("{want} is needed"))
        } else {
            Diagnostic::error(format!("{subject} must be {want}")).at(span, format!("this is {}", kind(value)))
        };
        self.push(problem.maybe_help(help));
    }

    fn description(&self, schema: &'s Json, name: &str) -> Option<String> {
        let property = schema.get("properties")?.get(name)?;
        let text = property.get("description").or_else(|| self.follow(property).get("description"))?.as_str()?;
        Some(format!("`{name}`: {}", first_sentence(text)))
    }

    fn own_description(&self, schema: &'s Json) -> Option<String> {
        schema.get("description").and_then(Json::as_str).map(first_sentence)
    }

    fn push(&mut self, problem: Diagnostic) {
        self.problems.push(problem);
    }
}

/// Whether leaving the value of this key empty means the same as leaving it out.
fn is_optional(schema: &Json, name: &str) -> bool {
    let property = schema.get("properties").and_then(|properties| properties.get(name));
    let known = property.is_some_and(|property| property.get("x-explicit").is_none());
    let required = schema.get("required").and_then(Json::as_array);
    known && !required.is_some_and(|required| required.iter().any(|key| key == name))
}

fn choices(schema: &Json) -> Vec<&str> {
    let documented = schema.get("oneOf").and_then(Json::as_array).into_iter().flatten();
    let plain = schema.get("enum").and_then(Json::as_array).into_iter().flatten();
    documented.filter_map(|choice| choice.get("const")).chain(plain).filter_map(Json::as_str).collect()
}

fn examples(examples: &[&str]) -> Option<String> {
    let quoted: Vec<String> = examples.iter().map(|example| format!("`{example}`")).collect();
    (!quoted.is_empty()).then(|| format!("write it like {}", quoted.join(", ")))
}

fn first_sentence(text: &str) -> String {
    let text = text.split_once(". ").map_or(text, |(first, _)| first);
    text.trim_end_matches('.').replace('\n', " ")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "`true` or `false`",
        Value::Number(_) => "a number",
        Value::Text(_) => "a string",
        Value::List(_) => "a list",
        Value::Map(_) => "a mapping",
    }
}
