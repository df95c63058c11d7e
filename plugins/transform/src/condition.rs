//! Conditions: which exchanges a rule is for.
//!
//! All that a condition names has to hold. It looks at the request as it came and at the response as the upstream gave it, never
//! at what other rules have made of them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;

use plugin_bodies::Way;
use plugin_common::pattern::{Captures, Pattern};
use portcullis_sdk::schema::{Piece, Schema};
use portcullis_sdk::{Config, HeaderName};
use regex_lite::{Regex, RegexBuilder};
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::Value;

use crate::values::{Scope, Values};

/// How large a compiled pattern may be, in bytes.
const MAX_PATTERN_BYTES: usize = 64 * 1024;

/// What an exchange has to be like. All of it has to hold.
#[derive(Default, Config)]
pub(crate) struct When {
    /// The request's method is one of these.
    #[serde(default)]
    methods: Vec<String>,
    /// The request's path, with names for segments: `/v1/orders/{id}`. The names are captures of this rule's templates.
    path: Option<String>,
    /// The response's status: 404, `5xx`, or a list of such.
    status: Option<Statuses>,
    /// Headers of the request, or of the response in a rule for responses: name and test.
    #[serde(default)]
    headers: BTreeMap<HeaderName, Test>,
    /// Headers of the request in a rule for responses.
    #[serde(default)]
    request_headers: BTreeMap<HeaderName, Test>,
    /// Parameters of the request's query, decoded: name and test.
    #[serde(default)]
    query: BTreeMap<String, Test>,
    /// Claims of whoever `auth` let in, by their paths: `plan`, `realm_access.roles`. A claim that is a list fits if one of its items does.
    #[serde(default)]
    claims: BTreeMap<String, Test>,
    /// Properties of the host, by their paths: `source.address`.
    #[serde(default)]
    properties: BTreeMap<String, Test>,
}

/// A condition as it is read.
#[derive(Debug, Default)]
struct Condition {
    methods: Vec<String>,
    path: Option<Pattern>,
    status: Option<Statuses>,
    tests: Vec<(Subject, Test)>,
}

/// Which exchanges something is for: those that one condition fits, and another does not.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    when: Condition,
    unless: Option<Condition>,
}

/// What a test looks at.
#[derive(Debug)]
enum Subject {
    Request(HeaderName),
    Response(HeaderName),
    Query(String),
    Claim(Vec<String>),
    Property(Vec<String>),
}

impl When {
    fn checked(self, way: Way) -> Result<Condition, String> {
        if way == Way::Request && self.status.is_some() {
            return Err("status: a request has none".to_owned());
        }
        if way == Way::Request && !self.request_headers.is_empty() {
            return Err("request_headers: in a rule for requests they are `headers`".to_owned());
        }
        let path = self.path.as_deref().map(Pattern::parse).transpose().map_err(|why| format!("path: {why}"))?;
        let own = |name| if way == Way::Request { Subject::Request(name) } else { Subject::Response(name) };
        let split = |path: String| path.split('.').map(str::to_owned).collect();
        let mut tests: Vec<(Subject, Test)> = Vec::new();
        tests.extend(self.headers.into_iter().map(|(name, test)| (own(name), test)));
        tests.extend(self.request_headers.into_iter().map(|(name, test)| (Subject::Request(name), test)));
        tests.extend(self.query.into_iter().map(|(name, test)| (Subject::Query(name), test)));
        tests.extend(self.claims.into_iter().map(|(path, test)| (Subject::Claim(split(path)), test)));
        tests.extend(self.properties.into_iter().map(|(path, test)| (Subject::Property(split(path)), test)));
        Ok(Condition { methods: self.methods, path, status: self.status, tests })
    }
}

impl Guard {
    /// # Errors
    /// What to write instead.
    pub(crate) fn checked(when: Option<When>, unless: Option<When>, way: Way) -> Result<Self, String> {
        let when = when.unwrap_or_default().checked(way).map_err(|why| format!("when: {why}"))?;
        let unless = unless.map(|unless| unless.checked(way).map_err(|why| format!("unless: {why}"))).transpose()?;
        Ok(Self { when, unless })
    }

    /// The names that its path captures.
    pub(crate) fn captures(&self) -> impl Iterator<Item = &str> {
        self.when.path.iter().flat_map(Pattern::names)
    }

    /// The values as what it guards sees them, if that is for this exchange.
    pub(crate) fn scope(&self, values: &Rc<Values>) -> Option<Scope> {
        let captures = self.when.holds(values)?;
        let excepted = self.unless.as_ref().is_some_and(|unless| unless.holds(values).is_some());
        (!excepted).then(|| Scope { values: Rc::clone(values), captures })
    }

    /// Whether there is anything that it looks at.
    pub(crate) fn looks(&self) -> bool {
        self.when.looks() || self.unless.is_some()
    }
}

impl Condition {
    fn looks(&self) -> bool {
        !self.methods.is_empty() || self.path.is_some() || self.status.is_some() || !self.tests.is_empty()
    }

    /// What its path captures, if it holds.
    fn holds(&self, values: &Values) -> Option<Captures> {
        let method = || values.first("request", ":method").unwrap_or_default();
        if !self.methods.is_empty() && !self.methods.iter().any(|wanted| *wanted == method()) {
            return None;
        }
        let status = || values.first("response", ":status").and_then(|status| status.parse().ok());
        if self.status.as_ref().is_some_and(|wanted| !status().is_some_and(|status| wanted.holds(status))) {
            return None;
        }
        let captures = match &self.path {
            Some(pattern) => pattern.captures(values.path())?,
            None => Captures::new(),
        };
        self.tests.iter().all(|(subject, test)| test.holds(&subject.values(values))).then_some(captures)
    }
}

impl Subject {
    fn values<'v>(&self, values: &'v Values) -> Vec<Cow<'v, str>> {
        match self {
            Self::Request(name) => values.all("request", name),
            Self::Response(name) => values.all("response", name),
            Self::Query(name) => values.parameters(name).map(Cow::Owned).collect(),
            Self::Claim(path) => values.claim_words(path),
            Self::Property(path) => {
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                portcullis_sdk::property::get::<String>(&path).map(Cow::Owned).into_iter().collect()
            }
        }
    }
}

/// What a value has to be.
#[derive(Debug)]
pub(crate) enum Test {
    Present,
    Absent,
    OneOf(Vec<String>),
    Matches(Regex),
}

impl Test {
    /// Whether it holds for something with these values; none where it is not there.
    fn holds(&self, values: &[Cow<'_, str>]) -> bool {
        match self {
            Self::Present => !values.is_empty(),
            Self::Absent => values.is_empty(),
            Self::OneOf(wanted) => values.iter().any(|value| wanted.iter().any(|wanted| wanted == value)),
            Self::Matches(pattern) => values.iter().any(|value| pattern.is_match(value)),
        }
    }

    fn parse(value: Value) -> Result<Self, String> {
        match value {
            Value::Bool(true) => Ok(Self::Present),
            Value::Bool(false) | Value::Null => Ok(Self::Absent),
            Value::String(text) => Ok(Self::OneOf(vec![text])),
            Value::Number(number) => Ok(Self::OneOf(vec![number.to_string()])),
            Value::Array(items) => {
                let text = |item: Value| item.as_str().map(str::to_owned).unwrap_or_else(|| item.to_string());
                Ok(Self::OneOf(items.into_iter().map(text).collect()))
            }
            Value::Object(fields) => match (fields.len(), fields.get("matches").and_then(Value::as_str)) {
                (1, Some(text)) => pattern(text).map(Self::Matches),
                _ => Err("a test is a text, a list of texts, true, false, or { matches: PATTERN }".to_owned()),
            },
        }
    }
}

/// A regular expression, of a size that the module can hold.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn pattern(text: &str) -> Result<Regex, String> {
    RegexBuilder::new(text).size_limit(MAX_PATTERN_BYTES).build().map_err(|why| format!("`{text}`: {why}"))
}

impl<'de> Deserialize<'de> for Test {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Schema for Test {
    const SCHEMA: &'static [Piece] = &[Piece::Text(concat!(
        r#"{"anyOf":[{"type":["string","number","boolean","null"]},{"type":"array","items":{"type":"string"}},"#,
        r#"{"type":"object","additionalProperties":false,"properties":{"matches":{"type":"string"}},"required":["matches"]}]}"#
    ))];
}

/// Statuses: 404, `5xx`, `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Statuses(Vec<(u16, u16)>);

impl Statuses {
    /// # Errors
    /// What to write instead.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a status such as 404, 5xx or *");
        let range = match text.as_bytes() {
            b"*" => (100, 599),
            [class @ b'1'..=b'5', b'x', b'x'] => {
                let class = u16::from(class - b'0') * 100;
                (class, class + 99)
            }
            _ => {
                let status = text.parse().ok().filter(|status| (100..600).contains(status)).ok_or_else(wrong)?;
                (status, status)
            }
        };
        Ok(Self(vec![range]))
    }

    pub(crate) fn holds(&self, status: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items = match Value::deserialize(deserializer)? {
            Value::Array(items) => items,
            one @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => vec![one],
        };
        let one = |item: Value| Self::parse(&item.as_str().map(str::to_owned).unwrap_or_else(|| item.to_string()));
        let all = items.into_iter().map(one).collect::<Result<Vec<_>, _>>().map_err(D::Error::custom)?;
        Ok(Self(all.into_iter().flat_map(|statuses| statuses.0).collect()))
    }
}

impl Schema for Statuses {
    const SCHEMA: &'static [Piece] = &[Piece::Text(
        r#"{"anyOf":[{"type":["integer","string"]},{"type":"array","items":{"type":["integer","string"]}}]}"#,
    )];
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_sdk::{HeaderValue, parse_config};

    #[test]
    fn all_that_a_condition_names_has_to_hold() {
        let pair = |name: &str, value: &str| (name.to_owned(), HeaderValue::from(value));
        let values = Values {
            request: vec![
                pair(":method", "POST"),
                pair(":path", "/v1/orders/7?debug&tag=a&tag=b%20c"),
                pair("x-version", "2.1"),
                pair("x-many", "1"),
                pair("x-many", "2"),
            ],
            response: vec![pair(":status", "503"), pair("content-type", "text/html")].into(),
            ..Values::default()
        };
        for (when, way, want) in [
            ("{}", Way::Request, true),
            (r#"{"methods":["GET","POST"]}"#, Way::Request, true),
            (r#"{"methods":["GET"]}"#, Way::Request, false),
            (r#"{"path":"/v1/orders/{id}"}"#, Way::Request, true),
            (r#"{"path":"/v1/orders"}"#, Way::Request, false),
            (r#"{"headers":{"x-version":{"matches":"^2\\."}}}"#, Way::Request, true),
            (r#"{"headers":{"x-version":{"matches":"^1\\."}}}"#, Way::Request, false),
            (r#"{"headers":{"x-version":true,"x-none":null}}"#, Way::Request, true),
            (r#"{"headers":{"x-none":true}}"#, Way::Request, false),
            (r#"{"headers":{"x-version":false}}"#, Way::Request, false),
            (r#"{"headers":{"x-many":"2"}}"#, Way::Request, true),
            (r#"{"headers":{"x-many":["3","4"]}}"#, Way::Request, false),
            (r#"{"headers":{"x-many":[2,3]}}"#, Way::Request, true),
            (r#"{"query":{"debug":true,"tag":"b c"}}"#, Way::Request, true),
            (r#"{"query":{"tag":"b%20c"}}"#, Way::Request, false),
            (r#"{"methods":["POST"],"headers":{"x-version":"3"}}"#, Way::Request, false),
            (r#"{"status":503}"#, Way::Response, true),
            (r#"{"status":[404,"5xx"],"request_headers":{"x-version":"2.1"}}"#, Way::Response, true),
            (r#"{"status":"4xx"}"#, Way::Response, false),
            (r#"{"status":"*","headers":{"content-type":{"matches":"html"}}}"#, Way::Response, true),
        ] {
            let condition = parse_config::<When>(when.as_bytes()).unwrap().checked(way).unwrap();
            assert_eq!(condition.holds(&values).is_some(), want, "{when}");
        }
    }

    #[test]
    fn conditions_say_what_is_wrong_with_them() {
        for (when, want) in [
            (r#"{"status":200}"#, "status: a request has none"),
            (r#"{"request_headers":{"a":"1"}}"#, "request_headers: in a rule for requests they are `headers`"),
            (r#"{"status":"6xx"}"#, "`status`: `6xx` is not a status such as 404, 5xx or *"),
            (r#"{"headers":{"a":{"matches":"("}}}"#, "`headers.a`: `(`: "),
            (r#"{"headers":{"a":{"like":"x"}}}"#, "`headers.a`: a test is a text, a list of texts, true, false, or"),
            (r#"{"path":"a"}"#, "path: `a` is not a path such as"),
        ] {
            let why = parse_config::<When>(when.as_bytes()).and_then(|when| when.checked(Way::Request)).err();
            let why = why.unwrap_or_default();
            assert!(why.starts_with(want), "{when}: {why}");
        }
    }
}
