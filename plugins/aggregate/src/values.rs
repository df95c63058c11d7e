//! Where templates have their values from: the request as it came, the answers of calls, and what the settings give.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeMap;

use plugin_common::pattern::Captures;
use plugin_common::{percent, template};
use portcullis_sdk::{HeaderList, property};

use crate::failure::Whose;
use crate::json::Json;
use crate::json::text::check;
use crate::outcome::Outcome;
use crate::plan::Call;
use crate::pointer::Pointer;
use crate::settings::MAX_DEPTH;

/// The request, as it came.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// Names in lower case.
    pub(crate) head: HeaderList,
    pub(crate) captures: Captures,
    /// JSON that has been checked. Read only where a template names it.
    pub(crate) body: Option<String>,
    /// Of whoever `auth` let in: JSON that has been checked. Read only where a template names one.
    pub(crate) claims: OnceCell<String>,
}

impl Received {
    /// The first header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&[u8]> {
        self.head.get_all(name).next()
    }

    fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        self.header(name).map(String::from_utf8_lossy)
    }

    /// What `auth` shared: a claim at a path, or with the path as its name.
    fn claim(&self, path: &[&str]) -> Option<Json<'_>> {
        let claims = Json::of(self.claims.get_or_init(|| {
            let shared = property::get::<String>(&[plugin_common::CLAIMS]).unwrap_or_default();
            if check(&shared, MAX_DEPTH).is_ok() { shared } else { "{}".to_owned() }
        }));
        let whole = Pointer::to(&[&path.join(".")]).get(&claims);
        whole.or_else(|| Pointer::to(path).get(&claims))
    }

    /// The first parameter of this name, decoded.
    fn parameter(&self, name: &str) -> Option<String> {
        let target = self.text(":path")?;
        let (_, query) = target.split_once('?')?;
        let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.map(|(own, value)| (decoded(own), value)).find(|(own, _)| own == name).map(|(_, value)| decoded(value))
    }
}

/// A parameter's text: percent escapes and `+` undone.
fn decoded(text: &str) -> String {
    String::from_utf8_lossy(&percent::decoded(text.replace('+', " ").as_bytes(), false)).into_owned()
}

/// The values at some moment of a request.
#[derive(Clone, Copy)]
pub(crate) struct Values<'r> {
    pub(crate) env: &'r BTreeMap<String, String>,
    pub(crate) received: &'r Received,
    pub(crate) calls: &'r [Call],
    /// Of the calls, in their order; empty where a call is under way.
    pub(crate) outcomes: &'r [OnceCell<Outcome>],
    /// Whose turn it is, in a call for each item of an array: JSON that has been checked.
    pub(crate) item: Option<&'r str>,
}

/// A value, as it is.
pub(crate) enum Found<'r> {
    Text(Cow<'r, str>),
    Json(Json<'r>),
}

impl<'r> Values<'r> {
    pub(crate) fn get(&self, path: &[String]) -> Option<Found<'r>> {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let received = self.received;
        let text = match path.as_slice() {
            ["request", "headers", name] => received.text(name)?,
            ["request", "method"] => received.text(":method")?,
            ["request", "path"] => match received.text(":path")? {
                Cow::Borrowed(target) => Cow::Borrowed(target.split('?').next().unwrap_or_default()),
                Cow::Owned(target) => Cow::Owned(target.split('?').next().unwrap_or_default().to_owned()),
            },
            ["request", "query", name] => Cow::Owned(received.parameter(name)?),
            ["request", "body", pointer @ ..] => return at(received.body.as_ref()?, pointer),
            ["captures", name] => {
                let (_, value) = received.captures.iter().find(|(own, _)| own == name)?;
                Cow::Borrowed(value.as_str())
            }
            ["claims", path @ ..] => return received.claim(path).map(Found::Json),
            ["env", name] => Cow::Borrowed(self.env.get(*name)?.as_str()),
            ["item", pointer @ ..] => return at(self.item?, pointer),
            ["calls", name, "body", pointer @ ..] => return at(self.outcome(name)?.document()?.text(), pointer),
            ["calls", name, "status"] => Cow::Owned(self.outcome(name)?.answers().first()?.head.status().to_string()),
            ["calls", name, "headers", header] => {
                let value = self.outcome(name)?.answers().first()?.head.headers().get(header)?;
                Cow::Owned(String::from_utf8_lossy(value.as_bytes()).into_owned())
            }
            ["property", path @ ..] => Cow::Owned(property::get::<String>(path)?),
            _ => return None,
        };
        Some(Found::Text(text))
    }

    /// For templates.
    pub(crate) fn text(&self, path: &[String]) -> Option<Cow<'r, str>> {
        match self.get(path)? {
            Found::Text(text) => Some(text),
            Found::Json(value) => value.into_text(),
        }
    }

    /// For paths: an empty text is none, so that it does not make another path.
    pub(crate) fn segment(&self, path: &[String]) -> Option<Cow<'r, str>> {
        self.text(path).filter(|text| !text.is_empty())
    }

    fn outcome(&self, name: &str) -> Option<&'r Outcome> {
        let at = self.calls.iter().position(|call| call.name == name)?;
        self.outcomes.get(at)?.get()
    }

    /// Whether a value is not there because its call was skipped.
    pub(crate) fn is_skipped(&self, path: &[String]) -> bool {
        match path {
            [calls, name, ..] if calls == "calls" => matches!(self.outcome(name), Some(Outcome::Skipped)),
            _ => false,
        }
    }
}

impl<'r> Found<'r> {
    pub(crate) fn json(self) -> Json<'r> {
        match self {
            Self::Text(text) => Json::string(&text),
            Self::Json(value) => value,
        }
    }
}

fn at<'v>(document: &'v str, pointer: &[&str]) -> Option<Found<'v>> {
    let pointer = pointer.first().copied().unwrap_or_default();
    Pointer::parse(pointer).ok()?.get(&Json::of(document)).map(Found::Json)
}

/// Whose fault it is if a value at this path is not there, or is not fit.
pub(crate) fn whose(path: &[String]) -> Whose {
    match path.first().map(String::as_str) {
        Some("calls" | "item" | "env") => Whose::Answer,
        _ => Whose::Request,
    }
}

/// What a template may name at its place in the settings.
pub(crate) struct Names<'s> {
    pub(crate) env: &'s BTreeMap<String, String>,
    pub(crate) captures: Vec<&'s str>,
    /// The calls, and whether they are for each item of an array.
    pub(crate) calls: Vec<(&'s str, bool)>,
    pub(crate) has_item: bool,
}

impl Names<'_> {
    /// # Errors
    /// What to write instead.
    pub(crate) fn known(&self, path: &[String]) -> Result<(), String> {
        let texts: Vec<&str> = path.iter().map(String::as_str).collect();
        match texts.as_slice() {
            ["env", name] if !self.env.contains_key(*name) => Err(format!("`{name}` is not under `env`")),
            ["captures", name] if !self.captures.contains(name) => Err(format!("`path` has no `{{{name}}}`")),
            ["request", "body", pointer @ ..] => one_pointer(pointer),
            ["item", ..] if !self.has_item => Err("`item` is there only in a call with `each`".to_owned()),
            ["item", pointer @ ..] => one_pointer(pointer),
            ["calls", name, rest @ ..] => {
                let Some((_, each)) = self.calls.iter().find(|(known, _)| known == name) else {
                    return Err(format!("there is no call `{name}`"));
                };
                match rest {
                    ["body", pointer @ ..] => one_pointer(pointer),
                    ["status"] | ["headers", _] if *each => {
                        Err(format!("`{name}` is a call for each item, and has no one status; name its `body`"))
                    }
                    ["status"] | ["headers", _] => Ok(()),
                    _ => Err("of a call write `.status`, `.headers.NAME`, `.body` or `.body./POINTER`".to_owned()),
                }
            }
            ["request" | "captures" | "claims" | "env" | "property", ..] => template::http(path),
            _ => Err(format!(
                "`{}` is nothing a template can name here; write request.method, request.path, request.headers.NAME, \
                 request.query.NAME, request.body./POINTER, captures.NAME, claims.NAME, calls.NAME.body./POINTER, \
                 calls.NAME.status, calls.NAME.headers.NAME, item./POINTER, property.NAME or env.NAME",
                texts.join(".")
            )),
        }
    }
}

fn one_pointer(pointer: &[&str]) -> Result<(), String> {
    match pointer {
        [] => Ok(()),
        [pointer] => Pointer::parse(pointer).map(|_| ()),
        _ => Err("a field of a body is a JSON Pointer: write `.body./a/b`, in quotes if it has a dot".to_owned()),
    }
}
