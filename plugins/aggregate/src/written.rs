//! The body of a call: JSON in whose texts values stand, or a text.

use plugin_common::template::{Refused, Target, Template, TemplateError};
use serde_json::{Map, Value};

use crate::values::Values;

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
    Constant(Value),
    /// A text that is nothing but one value: that value, be it a number or an object; `null` where it is not there.
    Value(Template),
    /// A text with values in it.
    Text(Template),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

/// What a template may name.
pub(crate) type Known<'k> = dyn Fn(&[String]) -> Result<(), String> + 'k;

impl Body {
    pub(crate) fn rendered(&self, values: &Values<'_>) -> Result<Vec<u8>, Refused> {
        match self {
            Self::Empty => Ok(Vec::new()),
            Self::Json(node) => Ok(node.rendered(values)?.to_string().into_bytes()),
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
                    None if values == 0 && !text.contains("${") => Self::Constant(text.into()),
                    None => Self::Text(template),
                })
            }
            Value::Array(items) => {
                items.into_iter().map(|item| Self::compile(item, known)).collect::<Result<_, _>>().map(Self::Array)
            }
            Value::Object(fields) => {
                let fields = fields.into_iter().map(|(name, value)| Ok((name, Self::compile(value, known)?)));
                fields.collect::<Result<_, _>>().map(Self::Object)
            }
            plain @ (Value::Null | Value::Bool(_) | Value::Number(_)) => Ok(Self::Constant(plain)),
        }
    }

    fn rendered(&self, values: &Values<'_>) -> Result<Value, Refused> {
        Ok(match self {
            Self::Constant(value) => value.clone(),
            Self::Value(template) => {
                let found = template.sole_path().and_then(|path| values.get(path));
                found.map(|found| found.json()).unwrap_or_default()
            }
            Self::Text(template) => Value::String(template.render(&|path| values.text(path))?),
            Self::Array(items) => {
                Value::Array(items.iter().map(|item| item.rendered(values)).collect::<Result<_, _>>()?)
            }
            Self::Object(fields) => {
                let fields = fields.iter().map(|(name, node)| Ok((name.clone(), node.rendered(values)?)));
                Value::Object(fields.collect::<Result<Map<_, _>, Refused>>()?)
            }
        })
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
