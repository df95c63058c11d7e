//! Settings as an operator writes them, and as the policy reads them.

mod edit;

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;

use plugin_bodies::{Otherwise, Way};
use plugin_common::pattern::Pattern;
use plugin_common::template::{Target, Template};
use portcullis_sdk::schema::{Piece, Schema};
use portcullis_sdk::{Config, HeaderName, HeaderText};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::condition::{Guard, Statuses, When};
use crate::headers::HeaderRules;
use crate::media::{Format, Output};
use crate::rule::{Plan, Rule};
use crate::target::{QueryRules, Rewrite};
use crate::values::Names;
use edit::EditSettings;

/// Changes methods, paths, queries, statuses, headers and bodies.
#[derive(Config)]
pub(crate) struct Settings {
    /// Other paths for requests; the first that fits is made.
    #[serde(default)]
    rewrite: Vec<RewriteSettings>,
    /// Values that templates name as `${env.NAME}`.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// What to do with requests: a rule, or a list of them. Every one whose condition holds is made.
    #[serde(default)]
    request: Listed<RequestRule>,
    /// What to do with responses, likewise.
    #[serde(default)]
    response: Listed<ResponseRule>,
    /// How long a body may be that is transformed, in bytes without its content encoding. 1 MiB unless told otherwise.
    #[serde(default = "default_max_bytes")]
    max_bytes: usize,
    /// How long a record of a stream may be, in bytes. 64 KiB unless told otherwise.
    #[serde(default = "default_max_record_bytes")]
    max_record_bytes: usize,
    /// What becomes of a body, or a record, that is longer.
    #[serde(default)]
    on_overflow: Otherwise,
    /// What becomes of one that is not what its content type says, or cannot be read.
    #[serde(default)]
    on_invalid: Otherwise,
}

/// One path that becomes another.
#[derive(Config)]
struct RewriteSettings {
    /// The path, with names for segments: `/v1/orders/{id}`; `*` at the end is the rest, which is named `rest`.
    from: String,
    /// A template of the new path with its query: `/orders/${captures.id}`. Without a query, the request keeps its own.
    to: String,
    /// What the exchange has to be like.
    when: Option<When>,
    /// What it may not be like.
    unless: Option<When>,
}

/// What to do with a request.
#[derive(Config)]
struct RequestRule {
    /// What the exchange has to be like.
    when: Option<When>,
    /// What it may not be like.
    unless: Option<When>,
    /// Method: the one that it becomes.
    #[serde(default)]
    method: BTreeMap<String, String>,
    /// Changes to the query.
    #[serde(default)]
    query: QuerySettings,
    /// Changes to headers.
    #[serde(default)]
    headers: HeaderSettings,
    /// Which bodies it changes, by their content types. Others stream past.
    #[serde(default)]
    format: Format,
    /// What a body becomes; what it was unless told otherwise, and JSON if that was XML.
    to: Option<Output>,
    /// Edits of the body: one, or a list of them.
    #[serde(default)]
    body: Listed<EditSettings>,
}

/// What to do with a response.
#[derive(Config)]
struct ResponseRule {
    /// What the exchange has to be like.
    when: Option<When>,
    /// What it may not be like.
    unless: Option<When>,
    /// Status, such as `404` or `5xx`: the one that it becomes.
    #[serde(default)]
    status: BTreeMap<String, u16>,
    /// Changes to headers.
    #[serde(default)]
    headers: HeaderSettings,
    /// Which bodies it changes, by their content types. Others stream past.
    #[serde(default)]
    format: Format,
    /// What a body becomes; what it was unless told otherwise, and JSON if that was XML.
    to: Option<Output>,
    /// Edits of the body: one, or a list of them.
    #[serde(default)]
    body: Listed<EditSettings>,
}

/// Made in this order. Names are as decoded.
#[derive(Default, Config)]
struct QuerySettings {
    /// Parameters to take away.
    #[serde(default)]
    remove: Vec<String>,
    /// Old name: new name.
    #[serde(default)]
    rename: BTreeMap<String, String>,
    /// Parameters to set, to texts or templates. One whose value is not there is not set.
    #[serde(default)]
    set: BTreeMap<String, String>,
    /// Parameters to add beside others of their name, as texts or templates.
    #[serde(default)]
    append: BTreeMap<String, String>,
}

/// Made in this order.
#[derive(Default, Config)]
struct HeaderSettings {
    /// Headers to take away; `x-internal-*` are all that begin so.
    #[serde(default)]
    remove: Vec<HeaderName>,
    /// Old name: new name. `x-old-*: x-new-*` are all that begin so.
    #[serde(default)]
    rename: BTreeMap<HeaderName, HeaderName>,
    /// Headers to set, to texts or templates. One whose value is not there is not set.
    #[serde(default)]
    set: BTreeMap<HeaderName, HeaderText>,
    /// Headers to add beside others of their name, as texts or templates.
    #[serde(default)]
    append: BTreeMap<HeaderName, HeaderText>,
}

fn default_max_bytes() -> usize {
    1024 * 1024
}

fn default_max_record_bytes() -> usize {
    64 * 1024
}

impl Settings {
    /// # Errors
    /// What an operator has to change.
    pub(crate) fn checked(self) -> Result<Plan, String> {
        let env = self.env;
        let names = Names { env: &env, captures: Vec::new() };
        let rewrites = each("rewrite", self.rewrite, |rewrite| rewrite.checked(&names))?;
        let names = names.and(rewrites.iter().flat_map(Rewrite::captures));
        Ok(Plan {
            request: each("request", self.request.0, |rule| rule.checked(&names))?,
            response: each("response", self.response.0, |rule| rule.checked(&names))?,
            rewrites,
            max_bytes: self.max_bytes,
            max_record_bytes: self.max_record_bytes,
            on_overflow: self.on_overflow,
            on_invalid: self.on_invalid,
            env: Rc::new(env),
        })
    }
}

/// Checks the items of a list; errors say which it was.
fn each<S, T>(name: &str, items: Vec<S>, check: impl Fn(S) -> Result<T, String>) -> Result<Vec<T>, String> {
    let checked = |(at, item)| check(item).map_err(|why| format!("{name}[{at}]: {why}"));
    items.into_iter().enumerate().map(checked).collect()
}

impl RewriteSettings {
    fn checked(self, names: &Names<'_>) -> Result<Rewrite, String> {
        let from = Pattern::parse(&self.from).map_err(|why| format!("from: {why}"))?;
        let guard = Guard::checked(self.when, self.unless, Way::Request)?;
        let names = names.and(from.names().chain(guard.captures()));
        let to = template(&self.to, Target::Path, &names).map_err(|why| format!("to: {why}"))?;
        let has_query = self.to.contains('?');
        Ok(Rewrite { guard, from, to, has_query })
    }
}

impl RequestRule {
    fn checked(self, names: &Names<'_>) -> Result<Rule, String> {
        let guard = Guard::checked(self.when, self.unless, Way::Request)?;
        let names = names.and(guard.captures());
        for (from, to) in &self.method {
            let token = |method: &String| !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
            if !token(from) || !token(to) || ["HEAD", "CONNECT"].contains(&to.as_str()) {
                return Err(format!("method.{from}: methods are words in capitals, and none becomes HEAD or CONNECT"));
            }
        }
        Ok(Rule {
            guard,
            methods: self.method.into_iter().collect(),
            query: self.query.checked(&names)?,
            headers: self.headers.checked(&names)?,
            format: self.format,
            to: output(self.format, self.to)?,
            edits: each("body", self.body.0, |edit| edit.checked(&names))?,
            ..Rule::default()
        })
    }
}

impl ResponseRule {
    fn checked(self, names: &Names<'_>) -> Result<Rule, String> {
        let guard = Guard::checked(self.when, self.unless, Way::Response)?;
        let names = names.and(guard.captures());
        let status = |(from, to): (String, u16)| {
            if !(200..600).contains(&to) || [204, 205, 304].contains(&to) {
                return Err(format!("status.{from}: {to} is no status that a response with a body has"));
            }
            Ok((Statuses::parse(&from)?, to))
        };
        Ok(Rule {
            guard,
            statuses: self.status.into_iter().map(status).collect::<Result<_, _>>()?,
            headers: self.headers.checked(&names)?,
            format: self.format,
            to: output(self.format, self.to)?,
            edits: each("body", self.body.0, |edit| edit.checked(&names))?,
            ..Rule::default()
        })
    }
}

fn output(format: Format, to: Option<Output>) -> Result<Option<Output>, String> {
    match (format, to) {
        (Format::Ndjson | Format::Sse, Some(_)) => Err("to: the records of a stream stay JSON".to_owned()),
        (Format::Xml, None) => Ok(Some(Output::Json)),
        _ => Ok(to),
    }
}

fn template(text: &str, target: Target, names: &Names<'_>) -> Result<Template, String> {
    Template::compile(text, target, &|path| names.known(path)).map_err(|why| why.to_string())
}

impl QuerySettings {
    fn checked(self, names: &Names<'_>) -> Result<QueryRules, String> {
        let compiled = |what: &str, texts: BTreeMap<String, String>| {
            let one = |(name, text): (String, String)| match template(&text, Target::Text, names) {
                Ok(template) => Ok((name, template)),
                Err(why) => Err(format!("query.{what}.{name}: {why}")),
            };
            texts.into_iter().map(one).collect::<Result<Vec<_>, String>>()
        };
        let (set, append) = (compiled("set", self.set)?, compiled("append", self.append)?);
        Ok(QueryRules { remove: self.remove, rename: self.rename.into_iter().collect(), set, append })
    }
}

impl HeaderSettings {
    fn checked(self, names: &Names<'_>) -> Result<HeaderRules, String> {
        let compiled = |what: &str, texts: BTreeMap<HeaderName, HeaderText>| {
            let one = |(name, text): (HeaderName, HeaderText)| match template(text.as_str(), Target::Header, names) {
                Ok(template) => Ok((name, template)),
                Err(why) => Err(format!("headers.{what}.{name}: {why}")),
            };
            texts.into_iter().map(one).collect::<Result<Vec<_>, String>>()
        };
        if let Some((from, to)) = self.rename.iter().find(|(from, to)| from.ends_with('*') != to.ends_with('*')) {
            return Err(format!("headers.rename.{from}: with `*` at the end, `{to}` needs one too"));
        }
        let (set, append) = (compiled("set", self.set)?, compiled("append", self.append)?);
        Ok(HeaderRules { remove: self.remove, rename: self.rename.into_iter().collect(), set, append })
    }
}

/// One, or a list of them.
pub(crate) struct Listed<T>(pub(crate) Vec<T>);

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Listed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = Listed<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one or a list of them")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                Ok(Listed(vec![T::deserialize(MapAccessDeserializer::new(map))?]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(Listed)
            }
        }

        deserializer.deserialize_any(Either(PhantomData))
    }
}

impl<T: Schema> Schema for Listed<T> {
    const SCHEMA: &'static [Piece] = &[
        Piece::Text(r#"{"anyOf":["#),
        Piece::All(T::SCHEMA),
        Piece::Text(r#",{"type":"array","items":"#),
        Piece::All(T::SCHEMA),
        Piece::Text("}]}"),
    ];
}

#[cfg(test)]
mod tests;
