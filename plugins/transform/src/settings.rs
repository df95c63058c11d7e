//! Settings as an operator writes them, and as the policy reads them.

use std::collections::BTreeMap;

use plugin_common::template::{Target, Template};
use portcullis_sdk::{Config, HeaderName, HeaderText};
use serde_json::Value;

use crate::pointer::Pointer;
use crate::policy::{BodyRules, HeaderRules, Rewrite, Rules, Side};
use crate::values::{Pattern, known};

/// Changes paths, headers and the fields of JSON bodies.
#[derive(Config)]
pub(crate) struct Settings {
    /// Other paths for requests; the first that fits is made.
    #[serde(default)]
    rewrite: Vec<RewriteSettings>,
    /// Values that templates name as `${env.NAME}`.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// What to do with requests.
    #[serde(default)]
    request: SideSettings,
    /// What to do with responses.
    #[serde(default)]
    response: SideSettings,
    /// How long a body may be that is transformed.
    #[serde(default = "default_max_bytes")]
    max_bytes: usize,
}

/// One path that becomes another.
#[derive(Config)]
struct RewriteSettings {
    /// The path, with names for segments: `/v1/orders/{id}`; `*` at the end is the rest, which is named `rest`.
    from: String,
    /// A template of the new path with its query: `/orders/${captures.id}`. Without a query, the request keeps its own.
    to: String,
}

/// One direction.
#[derive(Default, Config)]
struct SideSettings {
    /// Changes to headers.
    #[serde(default)]
    headers: HeaderSettings,
    /// Changes to a JSON body.
    body: Option<BodySettings>,
}

/// Made in this order.
#[derive(Default, Config)]
struct HeaderSettings {
    /// Headers to take away.
    #[serde(default)]
    remove: Vec<HeaderName>,
    /// Old name: new name.
    #[serde(default)]
    rename: BTreeMap<HeaderName, HeaderName>,
    /// Headers to set, to texts or templates. One whose value is not there is not set.
    #[serde(default)]
    set: BTreeMap<HeaderName, HeaderText>,
    /// Headers to add beside others of their name, as texts or templates.
    #[serde(default)]
    append: BTreeMap<HeaderName, HeaderText>,
}

/// Made in this order. Places are JSON Pointers.
#[derive(Default, Config)]
struct BodySettings {
    /// Places to take away.
    #[serde(default)]
    remove: Vec<String>,
    /// Old place: new place.
    #[serde(default)]
    rename: BTreeMap<String, String>,
    /// Places to set. A `Map`, for the order in which they are written is the order in which they are made.
    #[serde(default)]
    set: serde_json::Map<String, Value>,
}

fn default_max_bytes() -> usize {
    1024 * 1024
}

impl Settings {
    /// # Errors
    /// What an operator has to change.
    pub(crate) fn checked(self) -> Result<Rules, String> {
        let env = self.env;
        let rewrites = self
            .rewrite
            .into_iter()
            .enumerate()
            .map(|(at, rewrite)| rewrite.checked(&env).map_err(|why| format!("rewrite[{at}]: {why}")));
        Ok(Rules {
            rewrites: rewrites.collect::<Result<_, String>>()?,
            request: self.request.checked(&env).map_err(|why| format!("request: {why}"))?,
            response: self.response.checked(&env).map_err(|why| format!("response: {why}"))?,
            max_bytes: self.max_bytes,
            env,
        })
    }
}

impl RewriteSettings {
    fn checked(&self, env: &BTreeMap<String, String>) -> Result<Rewrite, String> {
        let from = Pattern::parse(&self.from)?;
        let to =
            Template::compile(&self.to, Target::Path, &|path| known(path, env)).map_err(|why| format!("to: {why}"))?;
        Ok(Rewrite { from, to, has_query: self.to.contains('?') })
    }
}

impl SideSettings {
    fn checked(self, env: &BTreeMap<String, String>) -> Result<Side, String> {
        let HeaderSettings { remove, rename, set, append } = self.headers;
        let compiled = |what: &str, texts: BTreeMap<HeaderName, HeaderText>| {
            let texts = texts.into_iter().map(|(name, text)| {
                let template = Template::compile(text.as_str(), Target::Header, &|path| known(path, env));
                let template = template.map_err(|why| format!("headers.{what}.{name}: {why}"))?;
                Ok((name, template))
            });
            texts.collect::<Result<Vec<_>, String>>()
        };
        let headers = HeaderRules {
            remove,
            rename: rename.into_iter().collect(),
            set: compiled("set", set)?,
            append: compiled("append", append)?,
        };
        Ok(Side { headers, body: self.body.map(BodySettings::checked).transpose()? })
    }
}

impl BodySettings {
    fn checked(self) -> Result<BodyRules, String> {
        let pointer = |text: &String| Pointer::parse(text);
        let renames = self.rename.iter().map(|(from, to)| Ok((pointer(from)?, pointer(to)?)));
        Ok(BodyRules {
            remove: self.remove.iter().map(pointer).collect::<Result<_, _>>()?,
            rename: renames.collect::<Result<_, String>>()?,
            set: self.set.into_iter().map(|(at, value)| Ok((pointer(&at)?, value))).collect::<Result<_, String>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_sdk::parse_config;

    #[test]
    fn settings_say_what_is_wrong_with_them() {
        for (json, want) in [
            ("", ""),
            (r#"{"request":{"headers":{"set":{"x-a":"1"}}},"max_bytes":10}"#, ""),
            (r#"{"request":{"body":{"set":{"/a":{"b":[1]}},"rename":{"/x":"/y"},"remove":["/z"]}}}"#, ""),
            (
                r#"{"request":{"headers":{"set":{"X-A":"1"}}}}"#,
                "`request.headers.set.X-A`: `X-A` is not a header name in lower case",
            ),
            (
                r#"{"response":{"headers":{"remove":["content-length"]}}}"#,
                "`response.headers.remove[0]`: `content-length` belongs to the connection, not to the message",
            ),
            (
                r#"{"request":{"headers":{"append":{"x":"\n"}}}}"#,
                "`request.headers.append.x`: a header value may not hold control characters",
            ),
            (
                r#"{"request":{"headers":{"set":{"x":"${request.nothing}"}}}}"#,
                "request: headers.set.x: template, character 1: `request.nothing` is nothing a template can name",
            ),
            (
                r#"{"request":{"headers":{"set":{"x":"${env.A}"}}}}"#,
                "request: headers.set.x: template, character 1: `A` is not",
            ),
            (r#"{"env":{"A":"1"},"request":{"headers":{"set":{"x":"${env.A}"}}}}"#, ""),
            (r#"{"rewrite":[{"from":"a","to":"/"}]}"#, "rewrite[0]: `a` is not a path such as"),
            (
                r#"{"rewrite":[{"from":"/a","to":"/${claims.sub}"}]}"#,
                "rewrite[0]: to: template, character 2: claims are",
            ),
            (r#"{"response":{"body":{"remove":["a.b"]}}}"#, "response: `a.b` is not a JSON Pointer such as /user/name"),
        ] {
            let got = parse_config::<Settings>(json.as_bytes()).and_then(|settings| settings.checked().map(|_| ()));
            let why = got.err().unwrap_or_default();
            assert!(why.starts_with(want) && why.is_empty() == want.is_empty(), "{json}: {why}");
        }
    }
}
