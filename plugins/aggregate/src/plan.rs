//! What is to be done, as read from the settings: endpoints, their calls, their replies.

use std::collections::BTreeMap;
use std::time::Duration;

use plugin_common::pattern::{Captures, Pattern};
use plugin_common::template::Template;
use portcullis_sdk::{HeaderName, Response, Upstream};

use crate::outcome::Document;
use crate::shape::Step;
use crate::values::Values;
use crate::written::Body;

/// As read from the settings.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) env: BTreeMap<String, String>,
    /// The one that says most about a path is before the others.
    pub(crate) endpoints: Vec<Endpoint>,
}

/// Requests that are answered with one reply out of several calls.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) pattern: Pattern,
    pub(crate) methods: Vec<String>,
    /// For all of it.
    pub(crate) deadline: Duration,
    /// At most so many are made for a request, retries aside.
    pub(crate) max_calls: usize,
    /// Of all answers together.
    pub(crate) max_answers_bytes: usize,
    /// Of the request's body, if a template names it.
    pub(crate) max_request_bytes: Option<usize>,
    pub(crate) calls: Vec<Call>,
    pub(crate) reply: Reply,
}

/// A call, or one for each item of an array.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) upstream: Upstream,
    pub(crate) method: String,
    pub(crate) path: Template,
    pub(crate) query: Vec<(String, Template)>,
    pub(crate) host: String,
    pub(crate) headers: Vec<(HeaderName, Template)>,
    /// Headers of the request that it gets.
    pub(crate) forward: Vec<HeaderName>,
    pub(crate) body: Body,
    pub(crate) timeout: Duration,
    pub(crate) retry: Retry,
    /// Whether making it twice does no more than making it once.
    pub(crate) idempotent: bool,
    /// The calls that it waits for.
    pub(crate) after: Vec<usize>,
    pub(crate) when: Option<When>,
    pub(crate) each: Option<Each>,
    pub(crate) otherwise: Otherwise,
    pub(crate) form: Form,
    pub(crate) max_bytes: usize,
    pub(crate) max_depth: usize,
    /// Statuses of its answer, and those that clients are told if the request fails for it.
    pub(crate) statuses: BTreeMap<u16, u16>,
    pub(crate) shape: Vec<Step>,
    pub(crate) place: Place,
}

/// How often a call is made again, and how long after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Retry {
    pub(crate) times: u32,
    /// Before the first; twice as long before each further one.
    pub(crate) backoff: Duration,
}

/// A condition.
#[derive(Debug)]
pub(crate) struct When {
    pub(crate) value: Template,
    pub(crate) test: Test,
}

#[derive(Debug)]
pub(crate) enum Test {
    /// It is there, and neither empty nor `false`.
    Holds,
    Is(Vec<String>),
    IsNot(Vec<String>),
}

/// A call for each item of an array.
#[derive(Debug)]
pub(crate) struct Each {
    /// Where the array is, as a template names it.
    pub(crate) items: Vec<String>,
    pub(crate) max_items: usize,
    /// So many at the same time.
    pub(crate) concurrency: usize,
}

/// What becomes of a request whose call failed.
#[derive(Debug)]
pub(crate) enum Otherwise {
    /// It is refused.
    Refuse,
    /// The reply has nothing in the call's place.
    LeaveOut,
    /// The reply has this in its place.
    StandIn(Document),
}

/// What a body is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    /// Text, which becomes a string.
    Text,
}

/// Where a result stands in the reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// At this place, by the names of the fields that lead there, in quotes.
    At(Vec<String>),
    /// Its fields are among those of the reply.
    Merged,
    /// Nowhere: other calls need it.
    Nowhere,
}

/// What is sent to the client.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(HeaderName, Template)>,
    /// Headers of answers that the client gets.
    pub(crate) forward: Vec<HeaderName>,
    pub(crate) shape: Vec<Step>,
    /// The field that names the calls that failed.
    pub(crate) partial: Option<String>,
    pub(crate) etag: bool,
    pub(crate) max_bytes: usize,
}

/// What to do with a request.
#[derive(Debug)]
pub(crate) enum Asked<'p> {
    /// Not ours.
    Pass,
    /// Ours, but with another method: these are allowed.
    OtherMethod(Vec<&'p str>),
    /// Ours.
    Compose(&'p Endpoint, Captures),
}

impl Plan {
    /// Looks at the method and the path.
    pub(crate) fn asked(&self, method: &str, path: &str) -> Asked<'_> {
        let mut allowed: Vec<&str> = Vec::new();
        for endpoint in &self.endpoints {
            let Some(captures) = endpoint.pattern.captures(path) else { continue };
            if endpoint.answers(method) {
                return Asked::Compose(endpoint, captures);
            }
            for own in endpoint.methods.iter().flat_map(|own| [own.as_str()].into_iter().chain(head_of(own))) {
                if !allowed.contains(&own) {
                    allowed.push(own);
                }
            }
        }
        if allowed.is_empty() {
            return Asked::Pass;
        }
        Asked::OtherMethod(allowed)
    }
}

impl Endpoint {
    fn answers(&self, method: &str) -> bool {
        self.methods.iter().any(|own| own == method || head_of(own) == Some(method))
    }
}

/// HEAD is answered where GET is.
fn head_of(method: &str) -> Option<&'static str> {
    (method == "GET").then_some("HEAD")
}

/// The refusal for a method that no endpoint has.
pub(crate) fn other_method(allowed: &[&str]) -> Response {
    Response::problem(405, "method_not_allowed").header("allow", allowed.join(", "))
}

impl When {
    pub(crate) fn holds(&self, values: &Values<'_>) -> bool {
        // What is too long to be rendered is none of the texts that it could be.
        let text = self.value.render(&|path| values.text(path)).unwrap_or_default();
        match &self.test {
            Test::Holds => !matches!(text.as_str(), "" | "false"),
            Test::Is(texts) => texts.contains(&text),
            Test::IsNot(texts) => !texts.contains(&text),
        }
    }
}
