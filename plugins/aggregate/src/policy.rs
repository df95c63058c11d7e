//! The decision: which requests are answered here, and what reply the parts' answers make.
//!
//! The reply lists the parts in the order of the settings, whatever the order of their answers. A part's JSON is copied as
//! its upstream wrote it, checked but not rewritten.

use std::time::Duration;

use plugin_common::problem::Problem;
use serde_json::value::RawValue;

/// As read from the settings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Requests for other paths pass; without one every request is answered here.
    pub(crate) path: Option<String>,
    pub(crate) parts: Vec<Part>,
    pub(crate) forward_headers: Vec<String>,
    /// Of one part's answer.
    pub(crate) max_bytes: usize,
}

/// One member of the reply.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) upstream: String,
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
    /// Looks at `:method` and `:path`.
    pub(crate) fn asked(&self, method: &[u8], path: &[u8]) -> Asked {
        let path = path.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
        match (&self.path, method) {
            (Some(own), _) if own.as_bytes() != path => Asked::Pass,
            (_, b"GET" | b"HEAD") => Asked::Gather,
            (_, _) => Asked::WrongMethod,
        }
    }
}

/// The answers so far.
#[derive(Debug)]
pub(crate) struct Gathering {
    /// In the order of the plan.
    answers: Vec<Option<String>>,
}

/// The end of a gathering.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Every part is there or stood in for.
    Whole(String),
    /// A required part failed.
    Lacking(String),
}

impl Gathering {
    /// Nothing answered yet.
    pub(crate) fn new(plan: &Plan) -> Self {
        Self { answers: vec![None; plan.parts.len()] }
    }

    /// Takes a part's answer: its status and body, or `None` when there was none. Some reply when that decides it.
    pub(crate) fn answer(&mut self, plan: &Plan, at: usize, answer: Option<(&[u8], &[u8])>) -> Option<Reply> {
        let (part, slot) = (plan.parts.get(at)?, self.answers.get_mut(at)?);
        match answer.and_then(|(status, body)| usable(status, body, plan.max_bytes)).or_else(|| part.stand_in.clone()) {
            Some(json) => *slot = Some(json),
            None => return Some(Reply::Lacking(part.name.clone())),
        }
        let answers: Option<Vec<&String>> = self.answers.iter().map(Option::as_ref).collect();
        Some(Reply::Whole(merged(plan, &answers?)))
    }
}

/// A part's JSON, if it is a success and JSON.
fn usable(status: &[u8], body: &[u8], max_bytes: usize) -> Option<String> {
    if status.len() != 3 || !status.starts_with(b"2") || body.len() > max_bytes {
        return None;
    }
    let json: &RawValue = serde_json::from_slice(body).ok()?;
    Some(json.get().to_owned())
}

fn merged(plan: &Plan, answers: &[&String]) -> String {
    let members = plan.parts.iter().zip(answers).map(|(part, json)| {
        let name = serde_json::Value::from(part.name.as_str());
        format!("{name}:{json}")
    });
    format!("{{{}}}\n", members.collect::<Vec<_>>().join(","))
}

impl Reply {
    /// The refusal for a reply that lacks a part.
    pub(crate) fn problem(part: &str) -> Problem {
        Problem::new(502, "part_failed", format!("The part `{part}` of this answer could not be had"))
    }
}

/// The refusal for a method that could change something.
pub(crate) fn wrong_method() -> Problem {
    Problem::new(405, "method_not_allowed", "This answer is put together from others; it can only be read")
        .with("allow", "GET, HEAD")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, stand_in: Option<&str>) -> Part {
        Part {
            name: name.to_owned(),
            upstream: "u".to_owned(),
            path: "/".to_owned(),
            host: "u".to_owned(),
            timeout: Duration::from_secs(1),
            stand_in: stand_in.map(str::to_owned),
        }
    }

    fn plan(path: Option<&str>) -> Plan {
        let parts = vec![part("user", None), part("orders", Some("[]"))];
        Plan { path: path.map(str::to_owned), parts, forward_headers: vec![], max_bytes: 20 }
    }

    type Answer = Option<(&'static str, &'static str)>;

    /// Feeds answers in this order and shows the first reply.
    fn gathered(answers: &[(usize, Answer)]) -> String {
        let plan = plan(None);
        let mut gathering = Gathering::new(&plan);
        let reply = answers.iter().find_map(|(at, answer)| {
            let answer = answer.map(|(status, body)| (status.as_bytes(), body.as_bytes()));
            gathering.answer(&plan, *at, answer)
        });
        match reply {
            Some(Reply::Whole(json)) => json,
            Some(Reply::Lacking(name)) => format!("lacks {name}"),
            None => "waits".to_owned(),
        }
    }

    #[test]
    fn a_reply_is_made_when_every_part_has_answered() {
        let user: Answer = Some(("200", " {\"id\" : 1} "));
        let orders: Answer = Some(("200", "[1.50]"));
        for (name, answers, want) in [
            ("none", vec![], "waits"),
            ("one", vec![(0, user)], "waits"),
            ("both", vec![(0, user), (1, orders)], "{\"user\":{\"id\" : 1},\"orders\":[1.50]}\n"),
            ("both, the other way round", vec![(1, orders), (0, user)], "{\"user\":{\"id\" : 1},\"orders\":[1.50]}\n"),
            ("optional fails", vec![(1, None), (0, user)], "{\"user\":{\"id\" : 1},\"orders\":[]}\n"),
            ("optional is 500", vec![(0, user), (1, Some(("500", "[1]")))], "{\"user\":{\"id\" : 1},\"orders\":[]}\n"),
            (
                "optional is no JSON",
                vec![(0, user), (1, Some(("200", "<p>")))],
                "{\"user\":{\"id\" : 1},\"orders\":[]}\n",
            ),
            ("optional is empty", vec![(0, user), (1, Some(("204", "")))], "{\"user\":{\"id\" : 1},\"orders\":[]}\n"),
            (
                "optional is too long",
                vec![(0, user), (1, Some(("200", "\"123456789012345678901\"")))],
                "{\"user\":{\"id\" : 1},\"orders\":[]}\n",
            ),
            ("required fails first", vec![(0, None)], "lacks user"),
            ("required fails last", vec![(1, orders), (0, Some(("404", "{}")))], "lacks user"),
            ("two documents in one", vec![(0, Some(("200", "{},\"x\":{}")))], "lacks user"),
            ("odd status", vec![(0, Some(("2", "{}")))], "lacks user"),
            ("no such part", vec![(7, user)], "waits"),
        ] {
            assert_eq!(gathered(&answers), want, "{name}");
        }
    }

    #[test]
    fn the_path_and_the_method_say_whether_a_request_is_answered_here() {
        for (own, method, path, want) in [
            (None, "GET", "/any", Asked::Gather),
            (None, "POST", "/any", Asked::WrongMethod),
            (Some("/all"), "GET", "/all", Asked::Gather),
            (Some("/all"), "HEAD", "/all?x=1", Asked::Gather),
            (Some("/all"), "POST", "/all", Asked::WrongMethod),
            (Some("/all"), "GET", "/all/", Asked::Pass),
            (Some("/all"), "POST", "/other", Asked::Pass),
            (Some("/all"), "GET", "", Asked::Pass),
        ] {
            assert_eq!(plan(own).asked(method.as_bytes(), path.as_bytes()), want, "{method} {path}");
        }
    }
}
