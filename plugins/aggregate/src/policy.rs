//! The decision: which requests are answered here, and what reply the parts' answers make.
//!
//! The reply lists the parts in the order of the settings, whatever the order of their answers. A part's JSON is copied as
//! its upstream wrote it, checked but not rewritten.

use std::time::Duration;

use portcullis_sdk::{HeaderName, Response, Upstream};
use serde_json::value::RawValue;

/// As read from the settings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Requests for other paths pass; without one every request is answered here.
    pub(crate) path: Option<String>,
    pub(crate) parts: Vec<Part>,
    pub(crate) forward_headers: Vec<HeaderName>,
    /// Of one part's answer.
    pub(crate) max_bytes: usize,
}

/// One member of the reply.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) upstream: Upstream,
    pub(crate) path: String,
    pub(crate) host: String,
    pub(crate) timeout: Duration,
    /// JSON in place of a failing part; without it the part is required.
    pub(crate) stand_in: Option<String>,
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Not ours.
    Pass,
    /// Ours.
    Gather,
    /// Ours, but not to be read.
    WrongMethod,
}

impl Plan {
    /// Looks at the method and the path.
    pub(crate) fn asked(&self, method: &str, path: &str) -> Asked {
        match (&self.path, method) {
            (Some(own), _) if own != path => Asked::Pass,
            (_, "GET" | "HEAD") => Asked::Gather,
            (_, _) => Asked::WrongMethod,
        }
    }

    /// The reply, of the parts' JSON in the order of the parts.
    pub(crate) fn merged(&self, answers: &[String]) -> String {
        let members = self.parts.iter().zip(answers).map(|(part, json)| {
            let name = serde_json::Value::from(part.name.as_str());
            format!("{name}:{json}")
        });
        format!("{{{}}}\n", members.collect::<Vec<_>>().join(","))
    }
}

/// A part's answer, if it is one document of JSON.
pub(crate) fn usable(body: &[u8]) -> Option<String> {
    let json: &RawValue = serde_json::from_slice(body).ok()?;
    Some(json.get().to_owned())
}

/// The refusal for a reply that lacks a part.
pub(crate) fn lacking(part: &str) -> Response {
    Response::problem(502, "part_failed").title(format!("The part `{part}` of this answer could not be had"))
}

/// The refusal for a method that could change something.
pub(crate) fn wrong_method() -> Response {
    Response::problem(405, "method_not_allowed")
        .title("This answer is put together from others; it can only be read")
        .header("allow", "GET, HEAD")
}
