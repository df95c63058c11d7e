//! Where templates have their values from: the request as it came, the response as it is, and what the settings give.

use std::borrow::Cow;
use std::collections::BTreeMap;

use plugin_common::{percent, template};
use portcullis_sdk::{HeaderValue, property};

/// What templates may name: everything of [`template::http`] but claims, which only a filter that has verified them may tell;
/// let it forward them as headers.
///
/// # Errors
/// What to write instead.
pub(crate) fn known(path: &[String], env: &BTreeMap<String, String>) -> Result<(), String> {
    let path_texts: Vec<&str> = path.iter().map(String::as_str).collect();
    match path_texts.as_slice() {
        ["claims", ..] => Err("claims are not known here: let `auth` forward them, and name the header".to_owned()),
        ["env", name] if !env.contains_key(*name) => Err(format!("`{name}` is not under `env`")),
        _ => template::http(path),
    }
}

/// The values of one exchange.
#[derive(Debug, Default)]
pub(crate) struct Values<'s> {
    pub(crate) env: Option<&'s BTreeMap<String, String>>,
    /// As it came, names in lower case.
    pub(crate) request: Vec<(String, HeaderValue)>,
    /// From the path, by the rule that rewrote it.
    pub(crate) captures: Vec<(String, String)>,
    /// Empty until there is one.
    pub(crate) response: Vec<(String, HeaderValue)>,
}

impl Values<'_> {
    pub(crate) fn get(&self, path: &[String]) -> Option<Cow<'_, str>> {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match path.as_slice() {
            ["request", "headers", name] => text(&self.request, name),
            ["request", "method"] => text(&self.request, ":method"),
            ["request", "path"] => Some(Cow::Borrowed(self.path())),
            ["request", "query", name] => self.parameter(name).map(Cow::Owned),
            ["response", "headers", name] => text(&self.response, name),
            ["response", "status"] => text(&self.response, ":status"),
            ["captures", name] => {
                self.captures.iter().find(|(own, _)| own == name).map(|(_, value)| Cow::Borrowed(value.as_str()))
            }
            ["env", name] => self.env?.get(*name).map(|value| Cow::Borrowed(value.as_str())),
            ["property", path @ ..] => property::get::<String>(path).map(Cow::Owned),
            _ => None,
        }
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

    /// The first parameter of this name, decoded.
    fn parameter(&self, name: &str) -> Option<String> {
        let query = self.query()?;
        let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.map(|(own, value)| (decoded(own), value)).find(|(own, _)| own == name).map(|(_, value)| decoded(value))
    }
}

fn text<'v>(fields: &'v [(String, HeaderValue)], name: &str) -> Option<Cow<'v, str>> {
    let (_, value) = fields.iter().find(|(own, _)| own == name)?;
    Some(String::from_utf8_lossy(value.as_bytes()))
}

/// A parameter's text: percent escapes and `+` undone.
fn decoded(text: &str) -> String {
    decoded_path(&text.replace('+', " "))
}

/// The same of a path, where `+` is a plus. The template encodes it anew.
fn decoded_path(text: &str) -> String {
    String::from_utf8_lossy(&percent::decoded(text.as_bytes(), false)).into_owned()
}

/// A path with names for segments, such as `/v1/orders/{id}`; `*` at the end is the rest, captured as `rest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Text(String),
    Named(String),
    Rest,
}

impl Pattern {
    /// # Errors
    /// What to write instead.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a path such as /v1/orders/{{id}} or /v1/*");
        let path = text.strip_prefix('/').ok_or_else(wrong)?;
        let mut segments: Vec<Segment> = Vec::new();
        for part in path.split('/') {
            if segments.last() == Some(&Segment::Rest) {
                return Err(wrong());
            }
            let name = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
            segments.push(match (part, name) {
                ("*", _) => Segment::Rest,
                (_, Some(name)) if !name.is_empty() => Segment::Named(name.to_owned()),
                (part, None) if !part.contains(['{', '}', '*', '?', '#']) => Segment::Text(part.to_owned()),
                _ => return Err(wrong()),
            });
        }
        Ok(Self(segments))
    }

    /// What its names stand for in a path; nothing where the path is another one.
    pub(crate) fn captures(&self, path: &str) -> Option<Vec<(String, String)>> {
        let mut rest = Some(path.strip_prefix('/')?);
        let mut captures = Vec::new();
        for segment in &self.0 {
            let here = rest?;
            if *segment == Segment::Rest {
                captures.push(("rest".to_owned(), decoded_path(here)));
                return Some(captures);
            }
            let (first, after) = here.split_once('/').map_or((here, None), |(first, after)| (first, Some(after)));
            match segment {
                Segment::Text(text) if text == first => {}
                Segment::Named(name) if !first.is_empty() => captures.push((name.clone(), decoded_path(first))),
                Segment::Text(_) | Segment::Named(_) | Segment::Rest => return None,
            }
            rest = after;
        }
        rest.is_none().then_some(captures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_captures_what_its_names_stand_for() {
        let captured = |pattern: &str, path: &str| {
            let captures = Pattern::parse(pattern).unwrap().captures(path)?;
            Some(captures.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "))
        };
        for (pattern, path, want) in [
            ("/v1/orders/{id}", "/v1/orders/7", Some("id=7")),
            ("/v1/orders/{id}", "/v1/orders/a%20b+c", Some("id=a b+c")),
            ("/v1/orders/{id}", "/v1/orders/", None),
            ("/v1/orders/{id}", "/v1/orders/7/lines", None),
            ("/v1/*", "/v1/a/b", Some("rest=a/b")),
            ("/v1/*", "/v1", None),
            ("/{a}/{b}", "/1/2", Some("a=1 b=2")),
            ("/", "/", Some("")),
        ] {
            assert_eq!(captured(pattern, path).as_deref(), want, "{pattern} {path}");
        }
        for wrong in ["v1", "/a*", "/{}", "/*/a", "/a?b", "/{a"] {
            assert!(Pattern::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn values_are_found_where_they_are_said_to_be() {
        let pair = |name: &str, value: &str| (name.to_owned(), HeaderValue::from(value));
        let env = BTreeMap::from([("REGION".to_owned(), "eu".to_owned())]);
        let values = Values {
            env: Some(&env),
            request: vec![pair(":path", "/a?q=x%20y&q=z&flag"), pair(":method", "GET"), pair("x-a", "1")],
            captures: vec![("id".to_owned(), "7".to_owned())],
            response: vec![pair(":status", "404")],
        };
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
            ("env.REGION", Some("eu")),
        ] {
            let path: Vec<String> = path.split('.').map(str::to_owned).collect();
            assert_eq!(values.get(&path).as_deref(), want, "{path:?}");
        }
    }
}
