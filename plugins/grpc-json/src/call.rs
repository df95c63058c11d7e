//! A request made a message: its body, its path's variables, and its query.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use portcullis_sdk::Response;
use prost_reflect::prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value};

use crate::json::Json;
use crate::rules::{Part, Rule, field_at};
use plugin_common::percent;

/// Names of a dotted path; deeper than any message that people write.
const MAX_DEPTH: usize = 16;

/// Why a request is no call. The sentence is for the one who sent it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoCall {
    /// The body is no JSON.
    Malformed(String),
    /// Something in the body, the path or the query does not fit the message.
    Misfit(String),
}

impl NoCall {
    pub(crate) fn reply(&self) -> Response {
        match self {
            Self::Malformed(why) => {
                Response::problem(400, "body_malformed").title(format!("The body is no JSON: {why}"))
            }
            Self::Misfit(why) => Response::problem(400, "field_invalid").title(why.as_str()),
        }
    }
}

/// What a request says, beside its method.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Said<'s> {
    pub(crate) body: &'s [u8],
    pub(crate) query: &'s str,
    /// Fields that the query has, and no message knows, are passed over.
    pub(crate) ignores_unknown: bool,
}

/// The message of a request that matches this rule, encoded.
///
/// Body first, then path, then query: a variable of the path wins over the same field in the body.
///
/// # Errors
/// What does not fit.
pub(crate) fn encoded(rule: &Rule, path: &[(&str, String)], said: Said<'_>, json: &Json) -> Result<Vec<u8>, NoCall> {
    let input = rule.method.input();
    let mut message = from_body(rule, &input, said.body, json)?;
    for (field, value) in path {
        set(&mut message, field, value, json).map_err(NoCall::Misfit)?;
    }
    // With `body: "*"` all that is not in the path is in the body.
    if rule.body != Part::Whole {
        for pair in said.query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (form(name)?, form(value)?);
            if field_at(&input, &name).is_err() && said.ignores_unknown {
                continue;
            }
            set(&mut message, &name, &value, json).map_err(NoCall::Misfit)?;
        }
    }
    Ok(message.encode_to_vec())
}

fn from_body(rule: &Rule, input: &MessageDescriptor, body: &[u8], json: &Json) -> Result<DynamicMessage, NoCall> {
    let empty = DynamicMessage::new(input.clone());
    if body.trim_ascii().is_empty() || rule.body == Part::Nothing {
        return Ok(empty);
    }
    let value: serde_json::Value = serde_json::from_slice(body).map_err(|why| NoCall::Malformed(why.to_string()))?;
    let value = match &rule.body {
        Part::Field(field) => serde_json::Value::Object([(field.clone(), value)].into_iter().collect()),
        Part::Whole | Part::Nothing => value,
    };
    json.message(input, &value).map_err(NoCall::Misfit)
}

fn form(text: &str) -> Result<String, NoCall> {
    let spaced = text.replace('+', " ");
    String::from_utf8(percent::decoded(spaced.as_bytes(), false))
        .map_err(|_| NoCall::Misfit("the query is no UTF-8".to_owned()))
}

/// Sets the field at a dotted path; adds to one that is repeated.
fn set(message: &mut DynamicMessage, path: &str, text: &str, json: &Json) -> Result<(), String> {
    if path.split('.').count() > MAX_DEPTH {
        return Err("a name in the query is too deep".to_owned());
    }
    let field = field_at(&message.descriptor(), path)?;
    if field.is_map() {
        return Err(format!("`{path}` is a map, which has no place in a path or a query"));
    }
    let value = value(&field, text, json).map_err(|why| format!("`{path}`: {why}"))?;
    let mut inner = message;
    let mut names = path.split('.').peekable();
    while let Some(name) = names.next() {
        let descriptor = inner.descriptor();
        let next = descriptor.get_field_by_name(name).or_else(|| descriptor.get_field_by_json_name(name));
        let Some(next) = next else { return Err(format!("no field `{name}`")) };
        if names.peek().is_some() {
            let Some(deeper) = inner.get_field_mut(&next).as_message_mut() else {
                return Err(format!("no field in `{name}`"));
            };
            inner = deeper;
        } else if next.is_list() {
            if let Some(list) = inner.get_field_mut(&next).as_list_mut() {
                list.push(value);
            }
            return Ok(());
        } else {
            inner.set_field(&next, value);
            return Ok(());
        }
    }
    Ok(())
}

/// One value of a field, of its text.
fn value(field: &FieldDescriptor, text: &str, json: &Json) -> Result<Value, String> {
    fn parsed<T: std::str::FromStr>(text: &str, kind: &str) -> Result<T, String> {
        text.parse().map_err(|_| format!("`{text}` is no {kind}"))
    }
    Ok(match field.kind() {
        Kind::String => Value::String(text.to_owned()),
        Kind::Bool => Value::Bool(parsed(text, "true or false")?),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(parsed(text, "32-bit integer")?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(parsed(text, "64-bit integer")?),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(parsed(text, "unsigned 32-bit integer")?),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(parsed(text, "unsigned 64-bit integer")?),
        Kind::Float => Value::F32(parsed(text, "number")?),
        Kind::Double => Value::F64(parsed(text, "number")?),
        Kind::Bytes => {
            let bytes = STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text));
            Value::Bytes(bytes.map_err(|_| format!("`{text}` is no base64"))?.into())
        }
        Kind::Enum(of) => match of.get_value_by_name(text) {
            Some(value) => Value::EnumNumber(value.number()),
            None => Value::EnumNumber(parsed(text, &format!("value of `{}`", of.full_name()))?),
        },
        // Timestamps, durations, masks and wrappers, which are text in JSON too.
        Kind::Message(of) => Value::Message(json.message(&of, &serde_json::Value::from(text)).or_else(|why| {
            let number = serde_json::from_str(text).map_err(|_| why)?;
            json.message(&of, &number)
        })?),
    })
}
