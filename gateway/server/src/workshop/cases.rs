//! Cases as authors write them, and what they expect held against what came.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use portcullis_simulation::{Call, Outcome, Reply, Request, Seen};
use serde::de::{Error as _, IntoDeserializer as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::body::Body;
use super::written;

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Suite {
    /// The configuration of cases that have none of their own.
    #[serde(default)]
    pub(crate) config: Value,
    /// What upstreams answer, where a case does not say.
    #[serde(default)]
    pub(crate) upstreams: BTreeMap<String, Answer>,
    pub(crate) cases: Vec<Case>,
}

impl Suite {
    /// One plain GET with these settings, of which nothing is expected.
    pub(crate) fn of_one(config: Value) -> Self {
        let case = Case {
            name: "GET /".to_owned(),
            config: None,
            upstreams: BTreeMap::new(),
            origin: None,
            request: Sent::default(),
            expect: Expected::default(),
        };
        Self { config, upstreams: BTreeMap::new(), cases: vec![case] }
    }
}

/// One request, and what becomes of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) config: Option<Value>,
    #[serde(default)]
    pub(crate) upstreams: BTreeMap<String, Answer>,
    /// What the route's own upstream answers; 200 and `ok` unless told otherwise.
    pub(crate) origin: Option<Answer>,
    pub(crate) request: Sent,
    pub(crate) expect: Expected,
}

/// A request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sent {
    method: Option<String>,
    path: Option<String>,
    host: Option<String>,
    headers: BTreeMap<String, String>,
    body: Option<Body>,
    chunks: Vec<String>,
    trailers: BTreeMap<String, String>,
}

/// What an upstream answers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Answer {
    status: Option<u16>,
    headers: BTreeMap<String, String>,
    body: Option<Body>,
    chunks: Vec<String>,
    after_ms: u64,
}

/// What is expected; what is not named may be anything.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Expected {
    status: Option<u16>,
    /// `null`: not there.
    headers: BTreeMap<String, Option<String>>,
    body: Option<Body>,
    body_contains: Vec<String>,
    /// The word of the access log: `via_upstream`, or a code.
    details: Option<String>,
    /// What the route's upstream got; `false`: nothing.
    upstream: Option<Upstream>,
    /// What other upstreams got first, by their names.
    calls: BTreeMap<String, Upstream>,
    /// Texts, each of which a line of the log has in it.
    log: Vec<String>,
}

#[derive(Clone, Debug)]
enum Upstream {
    /// `false`; `true` is whatever it got.
    Nothing(bool),
    Got(Got),
}

/// By hand, since serde's own words for a choice do not say what is wrong.
impl<'de> Deserialize<'de> for Upstream {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Value::deserialize(deserializer)?;
        if let Some(got) = written.as_bool() {
            return Ok(Self::Nothing(got));
        }
        Got::deserialize(written.into_deserializer()).map(Self::Got).map_err(D::Error::custom)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Got {
    method: Option<String>,
    path: Option<String>,
    headers: BTreeMap<String, Option<String>>,
    body: Option<Body>,
}

/// Reads a file of cases.
pub(crate) fn read(path: &Path) -> anyhow::Result<Suite> {
    written::read(path, "a file of cases")
}

impl Sent {
    pub(crate) fn request(&self) -> Request {
        let has_body = self.body.is_some() || !self.chunks.is_empty();
        let usual = if has_body { "POST" } else { "GET" };
        let method = self.method.as_deref().unwrap_or(usual);
        let mut request = Request::new(method, self.path.as_deref().unwrap_or("/")).chunks(&self.chunks);
        if let Some(host) = &self.host {
            request = request.host(host);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        for (name, value) in &self.trailers {
            request = request.trailer(name, value);
        }
        match &self.body {
            Some(body) => request.body(body.bytes()),
            None => request,
        }
    }
}

impl Sent {
    /// The same for a wire: in one piece.
    pub(crate) fn http(&self) -> anyhow::Result<http::Request<Full<Bytes>>> {
        let body = sent(self.body.as_ref(), &self.chunks);
        let usual = if body.is_empty() { "GET" } else { "POST" };
        let mut request = http::Request::builder();
        request = request.method(self.method.as_deref().unwrap_or(usual)).uri(self.path.as_deref().unwrap_or("/"));
        request = request.header("host", self.host.as_deref().unwrap_or("test"));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        Ok(request.body(Full::from(body))?)
    }
}

impl Answer {
    /// What an upstream answers of which nothing is said.
    pub(crate) fn plain() -> Self {
        Self { body: Some(Body::Plain("ok".to_owned())), ..Self::default() }
    }

    pub(crate) fn delay(&self) -> Duration {
        Duration::from_millis(self.after_ms)
    }

    /// The same, not before this much time has passed.
    pub(crate) fn later(mut self, least: Duration) -> Self {
        self.after_ms = self.after_ms.max(u64::try_from(least.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// The same for a wire: in one piece.
    pub(crate) fn response(&self) -> http::Response<Full<Bytes>> {
        let body = sent(self.body.as_ref(), &self.chunks);
        let mut response = http::Response::new(Full::from(body));
        let headers = self.headers.iter().filter_map(|(name, value)| {
            Some((http::HeaderName::try_from(name).ok()?, http::HeaderValue::try_from(value).ok()?))
        });
        response.headers_mut().extend(headers);
        *response.status_mut() = self.status.and_then(|code| code.try_into().ok()).unwrap_or_default();
        response
    }

    pub(crate) fn reply(&self) -> Reply {
        let mut reply = Reply::status(self.status.unwrap_or(200)).chunks(&self.chunks);
        for (name, value) in &self.headers {
            reply = reply.header(name, value);
        }
        if let Some(body) = &self.body {
            reply = reply.body(body.bytes());
        }
        reply.after(self.delay())
    }
}

impl Expected {
    /// What is otherwise than expected of an exchange and of the calls that were made for it: a line with `-` for what was, one with
    /// `+` for what came.
    pub(crate) fn differences(&self, outcome: &Outcome, calls: &[Call]) -> Vec<String> {
        let mut found = Vec::new();
        let reply = &outcome.reply;
        if let Some(status) = self.status {
            differ("status", &status.to_string(), &reply.status().to_string(), &mut found);
        }
        headers("", &self.headers, reply, &mut found);
        if let Some(body) = &self.body {
            differ("body", &body.to_string(), &body.like(&reply.body), &mut found);
        }
        for text in &self.body_contains {
            if !reply.text().contains(text) {
                differ("body", &format!("… {text} …"), &reply.text(), &mut found);
            }
        }
        // A host that keeps its own words for them says nothing.
        if let Some(details) = self.details.as_ref().filter(|_| !outcome.details.is_empty()) {
            differ("details", details, &outcome.details, &mut found);
        }
        if let Some(upstream) = &self.upstream {
            upstream.differences("upstream", outcome.upstream.as_ref(), &mut found);
        }
        for (name, upstream) in &self.calls {
            let call = calls.iter().find(|call| call.upstream == *name);
            upstream.differences(name, call.map(|call| &call.request), &mut found);
        }
        for text in &self.log {
            if !outcome.logged(text) {
                let lines: Vec<String> = outcome.log.iter().map(ToString::to_string).collect();
                differ("log", &format!("… {text} …"), &lines.join("\n"), &mut found);
            }
        }
        found
    }

    /// Whether anything but the log and the calls is otherwise than expected.
    pub(crate) fn differs_on_the_wire(&self, outcome: &Outcome) -> bool {
        let silent = Self { log: Vec::new(), calls: BTreeMap::new(), ..self.clone() };
        !silent.differences(outcome, &[]).is_empty()
    }
}

impl Upstream {
    fn differences(&self, name: &str, seen: Option<&Seen>, found: &mut Vec<String>) {
        match (self, seen) {
            (Self::Nothing(false), None) | (Self::Nothing(true), Some(_)) => {}
            (Self::Nothing(false), Some(seen)) => differ(name, "nothing", &seen.to_string(), found),
            (Self::Nothing(true) | Self::Got(_), None) => differ(name, "a request", "nothing", found),
            (Self::Got(got), Some(seen)) => {
                for (what, want, came) in
                    [("method", &got.method, seen.method().to_owned()), ("path", &got.path, seen.target().to_owned())]
                {
                    if let Some(want) = want {
                        differ(&format!("{name}'s {what}"), want, &came, found);
                    }
                }
                if let Some(body) = &got.body {
                    differ(&format!("{name}'s body"), &body.to_string(), &body.like(&seen.body), found);
                }
                headers(&format!("{name}'s "), &got.headers, seen, found);
            }
        }
    }
}

/// A body in one piece.
fn sent(body: Option<&Body>, chunks: &[String]) -> Vec<u8> {
    body.map_or_else(|| chunks.concat().into_bytes(), Body::bytes)
}

fn headers(whose: &str, wanted: &BTreeMap<String, Option<String>>, seen: &Seen, found: &mut Vec<String>) {
    for (name, want) in wanted {
        let shown = |value: Option<&str>| value.unwrap_or("(not there)").to_owned();
        differ(&format!("{whose}{name}"), &shown(want.as_deref()), &shown(seen.header(name)), found);
    }
}

fn differ(what: &str, want: &str, came: &str, found: &mut Vec<String>) {
    if want != came {
        found.push(format!("- {what}: {want}"));
        found.push(format!("+ {what}: {came}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_other_upstreams_got_is_compared_too() {
        let expected = |json: &str| serde_json::from_str::<Expected>(json).unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
        let seen = Seen { headers: vec![pair(":path", "/ip"), pair("x-a", "1")], ..Seen::default() };
        let calls = [Call { upstream: "geo".to_owned(), request: seen }];
        let of = |json: &str| expected(json).differences(&Outcome::default(), &calls);
        assert_eq!(of(r#"{"calls":{"geo":{"path":"/ip","headers":{"x-a":"1"}},"idp":false}}"#), [""; 0]);
        assert_eq!(of(r#"{"calls":{"geo":{"path":"/"}}}"#), ["- geo's path: /", "+ geo's path: /ip"]);
        assert_eq!(of(r#"{"calls":{"idp":{"path":"/"}}}"#), ["- idp: a request", "+ idp: nothing"]);
    }
}
