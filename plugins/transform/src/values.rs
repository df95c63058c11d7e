//! Where templates and conditions have their values from: the request as it came, the response as the upstream gave it, who sends
//! the request, and what the settings give.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use plugin_common::pattern::Captures;
use plugin_common::template;
use portcullis_sdk::{HeaderValue, property};
use serde_json::Value;

use crate::target::decoded;

/// What templates may name beside the messages: what the settings have.
pub(crate) struct Names<'s> {
    pub(crate) env: &'s BTreeMap<String, String>,
    /// Of the path that a rule is for, and of all rewrites, one of which may have been made.
    pub(crate) captures: Vec<String>,
}

impl Names<'_> {
    /// The same with the captures of one more path.
    pub(crate) fn and<'n>(&self, captures: impl Iterator<Item = &'n str>) -> Self {
        let captures = captures.map(str::to_owned).chain(self.captures.iter().cloned()).collect();
        Self { env: self.env, captures }
    }

    /// Whether a template may name this: everything of [`template::http`], of `env` and `captures` what is there.
    ///
    /// # Errors
    /// What to write instead.
    pub(crate) fn known(&self, path: &[String]) -> Result<(), String> {
        match path {
            [first, name] if first == "env" && !self.env.contains_key(name) => {
                Err(format!("`{name}` is not under `env`"))
            }
            [first, name] if first == "captures" && !self.captures.contains(name) => {
                Err(format!("no path here has `{{{name}}}`: {}", self.captured()))
            }
            _ => template::http(path),
        }
    }

    fn captured(&self) -> String {
        match self.captures.as_slice() {
            [] => "neither `when.path` nor a rewrite's `from` captures anything".to_owned(),
            names => format!("what is captured is {}", names.join(", ")),
        }
    }
}

/// A message's head: names in lower case, pseudo-headers among them.
pub(crate) type Fields = Vec<(String, HeaderValue)>;

/// The values of one exchange.
#[derive(Debug, Default)]
pub(crate) struct Values {
    pub(crate) env: Rc<BTreeMap<String, String>>,
    /// As it came.
    pub(crate) request: Fields,
    /// From the path, by the rewrite that was made.
    pub(crate) captures: Captures,
    /// As the upstream gave it, once it has.
    pub(crate) response: OnceCell<Fields>,
    /// Read when they are asked for.
    pub(crate) claims: OnceCell<Value>,
}

/// The values as one rule sees them: its condition may have captures of its own.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub(crate) values: Rc<Values>,
    pub(crate) captures: Captures,
}

impl Scope {
    pub(crate) fn get(&self, path: &[String]) -> Option<Cow<'_, str>> {
        let values = &*self.values;
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match path.as_slice() {
            ["request", "headers", name] => values.first("request", name),
            ["request", "method"] => values.first("request", ":method"),
            ["request", "scheme"] => values.first("request", ":scheme"),
            ["request", "host"] => values.first("request", ":authority"),
            ["request", "path"] => Some(Cow::Borrowed(values.path())),
            ["request", "query", name] => values.parameters(name).next().map(Cow::Owned),
            ["response", "headers", name] => values.first("response", name),
            ["response", "status"] => values.first("response", ":status"),
            ["captures", name] => {
                let mut captures = self.captures.iter().chain(&values.captures);
                captures.find(|(own, _)| own == name).map(|(_, value)| Cow::Borrowed(value.as_str()))
            }
            ["env", name] => values.env.get(*name).map(|value| Cow::Borrowed(value.as_str())),
            ["claims", path @ ..] => values.claim(path).and_then(claim_text),
            ["property", path @ ..] => property::get::<String>(path).map(Cow::Owned),
            _ => None,
        }
    }
}

impl Values {
    fn fields(&self, side: &str) -> &[(String, HeaderValue)] {
        if side == "request" { &self.request } else { self.response.get().map_or(&[], Vec::as_slice) }
    }

    /// The first field of this name, of `request` or `response`.
    pub(crate) fn first(&self, side: &str, name: &str) -> Option<Cow<'_, str>> {
        let (_, value) = self.fields(side).iter().find(|(own, _)| own == name)?;
        Some(String::from_utf8_lossy(value.as_bytes()))
    }

    /// All of them.
    pub(crate) fn all(&self, side: &str, name: &str) -> Vec<Cow<'_, str>> {
        let fields = self.fields(side).iter().filter(|(own, _)| own == name);
        fields.map(|(_, value)| String::from_utf8_lossy(value.as_bytes())).collect()
    }

    fn target(&self) -> &str {
        let target = self.request.iter().find(|(name, _)| name == ":path");
        target.and_then(|(_, value)| value.to_str().ok()).unwrap_or_default()
    }

    /// The query, without its question mark.
    pub(crate) fn query(&self) -> Option<&str> {
        self.target().split_once('?').map(|(_, query)| query)
    }

    pub(crate) fn path(&self) -> &str {
        self.target().split('?').next().unwrap_or_default()
    }

    /// The parameters of this name, decoded.
    pub(crate) fn parameters<'v>(&'v self, name: &'v str) -> impl Iterator<Item = String> + 'v {
        let pairs = self.query().into_iter().flat_map(|query| query.split('&')).filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.filter(move |(own, _)| decoded(own) == name).map(|(_, value)| decoded(value))
    }

    /// A claim of whoever `auth` let in: at a path, or with the path as its name.
    fn claim(&self, path: &[&str]) -> Option<&Value> {
        let claims = self.claims.get_or_init(|| {
            let text = property::get::<String>(&[plugin_common::CLAIMS]).unwrap_or_default();
            serde_json::from_str(&text).unwrap_or_default()
        });
        let whole = claims.get(path.join("."));
        whole.or_else(|| path.iter().try_fold(claims, |value, step| value.get(step))).filter(|claim| !claim.is_null())
    }

    /// What a claim says: its items where it is a list.
    pub(crate) fn claim_words(&self, path: &[String]) -> Vec<Cow<'_, str>> {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match self.claim(&path) {
            Some(Value::Array(items)) => items.iter().filter_map(claim_text).collect(),
            Some(claim) => claim_text(claim).into_iter().collect(),
            None => Vec::new(),
        }
    }
}

/// A claim as text: strings as they are, anything else as JSON.
fn claim_text(claim: &Value) -> Option<Cow<'_, str>> {
    match claim {
        Value::Null => None,
        Value::String(text) => Some(Cow::Borrowed(text)),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Some(Cow::Owned(other.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_where_they_are_said_to_be() {
        let pair = |name: &str, value: &str| (name.to_owned(), HeaderValue::from(value));
        let env = BTreeMap::from([("REGION".to_owned(), "eu".to_owned())]);
        let claims = serde_json::json!({"sub": "ann", "realm": {"roles": ["a", "b"]}, "https://x/y": 7});
        let values = Values {
            env: Rc::new(env),
            request: vec![pair(":path", "/a?q=x%20y&q=z&flag"), pair(":method", "GET"), pair("x-a", "1")],
            captures: vec![("id".to_owned(), "7".to_owned()), ("own".to_owned(), "outer".to_owned())],
            response: OnceCell::from(vec![pair(":status", "404")]),
            claims: OnceCell::from(claims),
        };
        let values = Rc::new(values);
        let scope = Scope { values: Rc::clone(&values), captures: vec![("own".to_owned(), "inner".to_owned())] };
        for (path, want) in [
            ("request.path", Some("/a")),
            ("request.method", Some("GET")),
            ("request.headers.x-a", Some("1")),
            ("request.headers.x-b", None),
            ("request.query.q", Some("x y")),
            ("request.query.flag", Some("")),
            ("request.query.none", None),
            ("response.status", Some("404")),
            ("captures.id", Some("7")),
            ("captures.own", Some("inner")),
            ("env.REGION", Some("eu")),
            ("claims.sub", Some("ann")),
            ("claims.realm.roles", Some(r#"["a","b"]"#)),
            ("claims.https://x/y", Some("7")),
            ("claims.none", None),
        ] {
            let path: Vec<String> = path.split('.').map(str::to_owned).collect();
            assert_eq!(scope.get(&path).as_deref(), want, "{path:?}");
        }
        assert_eq!(values.claim_words(&["realm".to_owned(), "roles".to_owned()]), ["a", "b"]);
        assert_eq!(values.claim_words(&["sub".to_owned()]), ["ann"]);
    }
}
