//! Texts with places for values: `Bearer ${request.headers.x-token | default("none")}`.
//!
//! A template is compiled once, for what it makes ([`Target`]), and knows nothing of where values come from: whoever renders
//! it gives a lookup from a path (`request.headers.x-token`, as its parts) to a value. [`http`] says which paths an HTTP
//! exchange has.
//!
//! `$${` is a literal `${`. The gateway's own configuration replaces `${env:NAME}` and `${file:PATH}`, with a colon, before a
//! plugin sees its settings, and leaves every other `${` alone; so a path here never has a colon outside quotes. A secret
//! belongs in a value that the lookup gives (`${env.NAME}`), not in the template: its own `${` would be read as a place.
//!
//! **Invariant:** what is rendered is at most [`Target::max_bytes`] long, and no value ends a header, or leaves the path
//! segment or the query field in which the template put it.

mod parse;

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter, Write as _};

use crate::percent;

/// What a template makes, and so which bytes it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A header's value: no control characters.
    Header,
    /// A path with its query: begins with one `/`; values are percent-encoded, except those that went through `raw`.
    Path,
    /// Any text, such as a body.
    Text,
}

impl Target {
    /// How long a rendered text may be, and how long one value.
    #[must_use]
    pub const fn max_bytes(self) -> usize {
        match self {
            Self::Header | Self::Path => 8 * 1024,
            Self::Text => 1024 * 1024,
        }
    }
}

/// A compiled template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    target: Target,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value { path: Vec<String>, functions: Vec<Function> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Function {
    /// Stands in for a value that is not there; an empty one is there.
    Default(String),
    Lower,
    Upper,
    UrlEncode,
    Json,
    Raw,
}

/// What is wrong with a template as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// Which character of the template, from 1.
    pub at: usize,
    /// What is wrong there, and what to write instead.
    pub why: String,
}

impl Display for TemplateError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "template, character {}: {}", self.at, self.why)
    }
}

impl std::error::Error for TemplateError {}

/// Why values did not make what the template was to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A value, or the whole, is longer than [`Target::max_bytes`].
    TooLong,
    /// A control character in a header, or a character in a `raw` value that no path has.
    Character,
    /// A path that does not begin with exactly one `/`, or has a segment `.` or `..`, encoded or not.
    Path,
}

/// Gives the value at a path, if there is one.
pub type Lookup<'a> = dyn Fn(&[String]) -> Option<Cow<'a, str>> + 'a;

impl Template {
    /// Reads a template; `known` refuses paths that will never have a value, and says what to write instead.
    ///
    /// # Errors
    /// What is wrong, and at which character.
    pub fn compile(
        text: &str,
        target: Target,
        known: &dyn Fn(&[String]) -> Result<(), String>,
    ) -> Result<Self, TemplateError> {
        let pieces = parse::pieces(text, target, known)?;
        // What a value in front begins with is not known yet.
        let fits = match pieces.first() {
            Some(Piece::Text(first)) => first.starts_with('/') && !first.starts_with("//"),
            first => first.is_some(),
        };
        if target == Target::Path && !fits {
            return Err(TemplateError { at: 1, why: "a path begins with one `/`".to_owned() });
        }
        Ok(Self { target, pieces })
    }

    /// Where its values come from, in their order.
    pub fn paths(&self) -> impl Iterator<Item = &[String]> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Value { path, .. } => Some(path.as_slice()),
        })
    }

    /// The path of its value, if it is one value as it comes and nothing else. Whoever renders it may then keep what the value is
    /// apart from its text: a number, say.
    #[must_use]
    pub fn sole_path(&self) -> Option<&[String]> {
        match self.pieces.as_slice() {
            [Piece::Value { path, functions }] if functions.is_empty() => Some(path),
            _ => None,
        }
    }

    /// The path of the first value that is not there and has no default: for whoever would rather have no text than one with an
    /// empty place.
    #[must_use]
    pub fn missing(&self, lookup: &Lookup<'_>) -> Option<&[String]> {
        self.pieces.iter().find_map(|piece| match piece {
            Piece::Value { path, functions } if !functions.iter().any(|f| matches!(f, Function::Default(_))) => {
                lookup(path).is_none().then_some(path.as_slice())
            }
            Piece::Text(_) | Piece::Value { .. } => None,
        })
    }

    /// Puts the values in. One that is not there, and has no default, is the empty text.
    ///
    /// # Errors
    /// What was refused, so that nothing was made.
    pub fn render(&self, lookup: &Lookup<'_>) -> Result<String, Refused> {
        let mut made = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => made.push_str(text),
                Piece::Value { path, functions } => self.put(lookup(path), functions, &mut made)?,
            }
            if made.len() > self.target.max_bytes() {
                return Err(Refused::TooLong);
            }
        }
        if self.target == Target::Path && !is_safe_path(&made) {
            return Err(Refused::Path);
        }
        Ok(made)
    }

    fn put(&self, value: Option<Cow<'_, str>>, functions: &[Function], made: &mut String) -> Result<(), Refused> {
        // Before the functions: one byte becomes at most six.
        if value.as_ref().is_some_and(|value| value.len() > self.target.max_bytes()) {
            return Err(Refused::TooLong);
        }
        let value = functions.iter().fold(value, |value, function| function.apply(value)).unwrap_or_default();
        match self.target {
            Target::Header if value.bytes().any(|byte| byte.is_ascii_control()) => return Err(Refused::Character),
            Target::Path if functions.contains(&Function::Raw) => {
                if !value.bytes().all(may_stand_in_path) {
                    return Err(Refused::Character);
                }
                made.push_str(&value);
            }
            Target::Path => percent::encode(&value, made),
            Target::Header | Target::Text => made.push_str(&value),
        }
        Ok(())
    }
}

impl Function {
    fn apply<'v>(&self, value: Option<Cow<'v, str>>) -> Option<Cow<'v, str>> {
        let Some(value) = value else {
            return match self {
                Self::Default(text) => Some(Cow::Owned(text.clone())),
                Self::Lower | Self::Upper | Self::UrlEncode | Self::Json | Self::Raw => None,
            };
        };
        Some(match self {
            Self::Default(_) | Self::Raw => value,
            Self::Lower => Cow::Owned(value.to_ascii_lowercase()),
            Self::Upper => Cow::Owned(value.to_ascii_uppercase()),
            Self::UrlEncode => {
                let mut encoded = String::with_capacity(value.len());
                percent::encode(&value, &mut encoded);
                Cow::Owned(encoded)
            }
            Self::Json => Cow::Owned(quoted(&value)),
        })
    }
}

/// Whether an HTTP exchange has such a path: for [`Template::compile`].
///
/// `request.method`, `request.scheme`, `request.host`, `request.path` (without the query), `request.headers.NAME`,
/// `request.query.NAME`, `response.status`, `response.headers.NAME`, `captures.NAME`, `env.NAME`; and, however deep, `claims.…`
/// and `property.…`.
///
/// # Errors
/// What to write instead.
pub fn http(path: &[String]) -> Result<(), String> {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match path.as_slice() {
        ["request" | "response", "headers", name] if name.bytes().any(|byte| byte.is_ascii_uppercase()) => {
            Err(format!("header names are written in lower case: `{}`", name.to_ascii_lowercase()))
        }
        ["request" | "response", "headers", _]
        | ["request", "method" | "scheme" | "host" | "path"]
        | ["request", "query", _]
        | ["response", "status"]
        | ["captures" | "env", _]
        | ["claims" | "property", _, ..] => Ok(()),
        _ => Err(format!(
            "`{}` is nothing a template can name; write request.method, request.scheme, request.host, request.path, \
             request.headers.NAME, request.query.NAME, response.status, response.headers.NAME, claims.NAME, captures.NAME, property.NAME or \
             env.NAME",
            path.join(".")
        )),
    }
}

/// A JSON string, quotes included (RFC 8259 §7).
fn quoted(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('"');
    for char in value.chars() {
        match char {
            '"' | '\\' => text.extend(['\\', char]),
            '\0'..='\u{1f}' => {
                let _never_fails = write!(text, "\\u{:04x}", u32::from(char));
            }
            _ => text.push(char),
        }
    }
    text.push('"');
    text
}

/// `pchar`, `%` and `/` (RFC 3986 §3.3).
fn may_stand_in_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&byte)
}

/// Whether origins agree on what it names: a `//` in front is a host to some, and dot segments climb, also between slashes that only
/// some origins decode.
fn is_safe_path(made: &str) -> bool {
    let path = made.split('?').next().unwrap_or_default().to_ascii_lowercase().replace("%2e", ".");
    let path = path.replace("%2f", "/").replace("%5c", "/").replace('\\', "/");
    let climbs = |segment: &str| matches!(segment, "." | "..");
    made.starts_with('/') && !path.starts_with("//") && !path.split('/').any(climbs)
}

#[cfg(test)]
mod tests;
