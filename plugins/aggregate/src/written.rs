//! The body of a call: JSON in whose texts values stand, or a text.

use plugin_common::template::{Refused, Target, Template, TemplateError};
use serde_json::Value;

use crate::json::Json;
use crate::json::text::quoted;
use crate::values::{Found, Values};

/// The body of a call.
#[derive(Debug)]
pub(crate) enum Body {
    Empty,
    Json(Node),
    Text(Template),
}

/// A piece of JSON with places for values.
#[derive(Debug)]
pub(crate) enum Node {
    /// As it is written.
    Constant(String),
    /// A text that is nothing but one value: that value, be it a number or an object; `null` where it is not there.
    Value(Template),
    /// A text with values in it.
    Text(Template),
    Array(Vec<Node>),
    /// Names are in quotes.
    Object(Vec<(String, Node)>),
}

/// What a template may name.
pub(crate) type Known<'k> = dyn Fn(&[String]) -> Result<(), String> + 'k;

impl Body {
    pub(crate) fn rendered(&self, values: &Values<'_>) -> Result<Vec<u8>, Refused> {
        match self {
            Self::Empty => Ok(Vec::new()),
            Self::Json(node) => {
                let mut text = String::new();
                node.render(values, &mut text)?;
                Ok(text.into_bytes())
            }
            Self::Text(template) => template.render(&|path| values.text(path)).map(String::into_bytes),
        }
    }

    pub(crate) fn content_type(&self) -> Option<&'static str> {
        match self {
            Self::Empty => None,
            Self::Json(_) => Some("application/json"),
            Self::Text(_) => Some("text/plain; charset=utf-8"),
        }
    }

    /// All templates in it.
    pub(crate) fn templates(&self) -> Vec<&Template> {
        match self {
            Self::Empty => Vec::new(),
            Self::Json(node) => node.templates(),
            Self::Text(template) => vec![template],
        }
    }
}

impl Node {
    /// # Errors
    /// What is wrong with a template.
    pub(crate) fn compile(written: Value, known: &Known<'_>) -> Result<Self, TemplateError> {
        match written {
            Value::String(text) => {
                let template = Template::compile(&text, Target::Text, known)?;
                let values = template.paths().count();
                Ok(match template.sole_path() {
                    Some(_) => Self::Value(template),
                    None if values == 0 && !text.contains("${") => Self::Constant(quoted(&text)),
                    None => Self::Text(template),
                })
            }
            Value::Array(items) => {
                items.into_iter().map(|item| Self::compile(item, known)).collect::<Result<_, _>>().map(Self::Array)
            }
            Value::Object(fields) => {
                let fields = fields.into_iter().map(|(name, value)| Ok((quoted(&name), Self::compile(value, known)?)));
                fields.collect::<Result<_, _>>().map(Self::Object)
            }
            plain @ (Value::Null | Value::Bool(_) | Value::Number(_)) => Ok(Self::Constant(plain.to_string())),
        }
    }

    fn render(&self, values: &Values<'_>, into: &mut String) -> Result<(), Refused> {
        match self {
            Self::Constant(text) => into.push_str(text),
            Self::Value(template) => {
                let found = template.sole_path().and_then(|path| values.get(path));
                into.push_str(&found.map_or(Json::NULL, Found::json).to_text());
            }
            Self::Text(template) => into.push_str(&quoted(&template.render(&|path| values.text(path))?)),
            Self::Array(items) => {
                let mut before = '[';
                for item in items {
                    into.push(before);
                    item.render(values, into)?;
                    before = ',';
                }
                into.push_str(if items.is_empty() { "[]" } else { "]" });
            }
            Self::Object(fields) => {
                let mut before = '{';
                for (name, node) in fields {
                    into.push(before);
                    into.push_str(name);
                    into.push(':');
                    node.render(values, into)?;
                    before = ',';
                }
                into.push_str(if fields.is_empty() { "{}" } else { "}" });
            }
        }
        Ok(())
    }

    fn templates(&self) -> Vec<&Template> {
        match self {
            Self::Constant(_) => Vec::new(),
            Self::Value(template) | Self::Text(template) => vec![template],
            Self::Array(items) => items.iter().flat_map(Self::templates).collect(),
            Self::Object(fields) => fields.iter().flat_map(|(_, node)| node.templates()).collect(),
        }
    }
}
