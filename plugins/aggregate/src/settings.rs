//! Settings as an operator writes them, and as the policy reads them.

use std::time::Duration;

use portcullis_sdk::schema::{Piece, Schema};
use portcullis_sdk::{Config, HeaderName, Period, Upstream};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::policy::{Part, Plan};

/// A reply asks this many upstreams at most: each request costs that many.
const MAX_PARTS: usize = 16;

/// One JSON reply out of several upstreams' answers.
#[derive(Config)]
pub(crate) struct Settings {
    /// Requests for other paths pass; without it every request is answered here.
    path: Option<String>,
    /// The members of the reply, at most 16.
    parts: Vec<PartSettings>,
    /// Headers of the request that go on to the parts; no others do.
    #[serde(default)]
    forward_headers: Vec<HeaderName>,
    /// How long one part's answer may be.
    #[serde(default = "default_max_bytes")]
    max_bytes: usize,
}

/// One member of the reply.
#[derive(Config)]
struct PartSettings {
    /// Its name in the reply.
    name: String,
    /// Who is asked for it.
    upstream: Upstream,
    /// What is asked for.
    path: String,
    /// The host that is asked for; the upstream's name unless told otherwise.
    host: Option<String>,
    /// How long it may take.
    #[serde(default = "default_timeout")]
    timeout: Period,
    /// Whether there is no reply without it.
    #[serde(default = "default_required")]
    required: bool,
    /// What stands in for a part that is not required; `null` unless told otherwise.
    default: Option<Json>,
}

/// Any JSON, as it is written.
#[derive(Deserialize)]
#[serde(transparent)]
struct Json(Box<RawValue>);

impl Schema for Json {
    const SCHEMA: &'static [Piece] = &[Piece::Text("true")];
}

fn default_max_bytes() -> usize {
    1024 * 1024
}

fn default_timeout() -> Period {
    Period(Duration::from_secs(1))
}

fn default_required() -> bool {
    true
}

impl Settings {
    /// # Errors
    /// What an operator has to change.
    pub(crate) fn checked(self) -> Result<Plan, String> {
        if self.parts.is_empty() || self.parts.len() > MAX_PARTS {
            return Err(format!("`parts` has 1 to {MAX_PARTS} entries"));
        }
        if self.path.as_ref().is_some_and(|path| !path.starts_with('/')) {
            return Err("`path` has to begin with `/`".to_owned());
        }
        let mut parts: Vec<Part> = Vec::with_capacity(self.parts.len());
        for (at, part) in self.parts.into_iter().enumerate() {
            let part = part.checked().map_err(|why| format!("parts[{at}]: {why}"))?;
            if parts.iter().any(|other| other.name == part.name) {
                return Err(format!("parts[{at}]: the name `{}` is taken", part.name));
            }
            parts.push(part);
        }
        Ok(Plan { path: self.path, parts, forward_headers: self.forward_headers, max_bytes: self.max_bytes })
    }
}

impl PartSettings {
    fn checked(self) -> Result<Part, String> {
        if self.upstream.name().is_empty() {
            return Err("`upstream` is empty".to_owned());
        }
        if !self.path.starts_with('/') || !self.path.bytes().all(|byte| (0x21..0x7f).contains(&byte)) {
            return Err("`path` has to begin with `/` and be encoded".to_owned());
        }
        if self.required && self.default.is_some() {
            return Err("a required part has no use for a `default`; set `required: false`".to_owned());
        }
        if self.timeout.0.is_zero() {
            return Err("`timeout` is at least 1ms".to_owned());
        }
        Ok(Part {
            host: self.host.unwrap_or_else(|| self.upstream.name().to_owned()),
            name: self.name,
            upstream: self.upstream,
            path: self.path,
            timeout: self.timeout.0,
            stand_in: (!self.required)
                .then(|| self.default.map_or_else(|| "null".to_owned(), |json| json.0.get().to_owned())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_sdk::parse_config;

    #[test]
    fn settings_say_what_is_wrong_with_them() {
        let part = r#"{"name":"a","upstream":"u","path":"/"}"#;
        for (json, want) in [
            (format!(r#"{{"parts":[{part}]}}"#), ""),
            (r#"{"parts":[]}"#.to_owned(), "`parts` has 1 to 16 entries"),
            (format!(r#"{{"parts":[{}]}}"#, vec![part; 17].join(",")), "`parts` has 1 to 16 entries"),
            (format!(r#"{{"parts":[{part},{part}]}}"#), "parts[1]: the name `a` is taken"),
            (format!(r#"{{"path":"all","parts":[{part}]}}"#), "`path` has to begin with `/`"),
            (
                r#"{"parts":[{"name":"a","upstream":"u","path":"/a b"}]}"#.to_owned(),
                "parts[0]: `path` has to begin with `/` and be encoded",
            ),
            (r#"{"parts":[{"name":"a","upstream":"","path":"/"}]}"#.to_owned(), "parts[0]: `upstream` is empty"),
            (
                r#"{"parts":[{"name":"a","upstream":"u","path":"/","default":[]}]}"#.to_owned(),
                "parts[0]: a required part has no use for a `default`; set `required: false`",
            ),
            (
                format!(r#"{{"parts":[{part}],"forward_headers":["Authorization"]}}"#),
                "`forward_headers[0]`: `Authorization` is not a header name in lower case",
            ),
        ] {
            let got = parse_config::<Settings>(json.as_bytes()).and_then(|settings| settings.checked().map(|_| ()));
            let why = got.err().unwrap_or_default();
            assert!(why.starts_with(want) && why.is_empty() == want.is_empty(), "{json}: {why}");
        }
    }

    #[test]
    fn an_optional_part_stands_in_with_its_default_or_null() {
        let json = r#"{"parts":[
            {"name":"a","upstream":"u","path":"/","required":false},
            {"name":"b","upstream":"u","path":"/","required":false,"default":{"x":[1.0]}},
            {"name":"c","upstream":"u","path":"/","timeout":"500ms","host":"c.test"}
        ]}"#;
        let plan = parse_config::<Settings>(json.as_bytes()).and_then(Settings::checked).unwrap();
        let stand_ins: Vec<_> = plan.parts.iter().map(|part| part.stand_in.as_deref()).collect();
        assert_eq!(stand_ins, [Some("null"), Some("{\"x\":[1.0]}"), None]);
        let hosts: Vec<_> = plan.parts.iter().map(|part| part.host.as_str()).collect();
        assert_eq!(hosts, ["u", "u", "c.test"]);
    }
}
