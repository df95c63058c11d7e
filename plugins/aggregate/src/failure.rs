//! Why a call failed, and the refusal of a request that cannot do without it.

use std::collections::BTreeMap;

use portcullis_sdk::{CalloutError, Response};

use crate::json::text::Flaw;

/// Why there is no answer that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The answer's status is not 2xx.
    Status(u16),
    /// There was none in time, or the request's time was up before the call was made.
    Timeout,
    /// The connection broke while it came. Some hosts say so of answers that are longer than they hold.
    Broken,
    /// The gateway did not make the call.
    Refused,
    /// The gateway knows no such upstream.
    UnknownUpstream,
    /// It is longer than `max_bytes`.
    TooLarge,
    /// It is deeper than `max_depth`.
    TooDeep,
    NotJson,
    NotText,
    /// A value that the call is made of is not there.
    Missing(Whose),
    /// A value would have made a path or a header that is none.
    Unfit(Whose),
    /// What is to be gone through is not an array.
    NoArray,
    /// More items, or more calls, than a request may cause.
    TooMany,
}

/// Where a value came from, or should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The client's request.
    Request,
    /// The answer of another call.
    Answer,
}

impl From<&CalloutError> for Failure {
    fn from(error: &CalloutError) -> Self {
        match error {
            // A host's own words for an upstream that is late.
            CalloutError::Status(reply) if reply.status() == 504 => Self::Timeout,
            CalloutError::Status(reply) => Self::Status(reply.status()),
            CalloutError::Broken => Self::Broken,
            CalloutError::TooLarge => Self::TooLarge,
            CalloutError::Refused { .. } => Self::Refused,
            CalloutError::UnknownUpstream { .. } => Self::UnknownUpstream,
            CalloutError::Header { .. } => Self::Unfit(Whose::Request),
        }
    }
}

impl From<Flaw> for Failure {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::NotJson => Self::NotJson,
            Flaw::TooDeep => Self::TooDeep,
        }
    }
}

impl Failure {
    /// Whether the same call may well succeed in a moment.
    pub(crate) fn may_pass(self) -> bool {
        matches!(self, Self::Status(502 | 503) | Self::Timeout | Self::Broken | Self::Refused)
    }

    /// One word, for metrics.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Status(_) => "status",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::Refused => "refused",
            Self::UnknownUpstream => "unknown_upstream",
            Self::TooLarge => "too_large",
            Self::TooDeep => "too_deep",
            Self::NotJson => "not_json",
            Self::NotText => "not_text",
            Self::Missing(_) => "value_missing",
            Self::Unfit(_) => "value_unfit",
            Self::NoArray => "no_array",
            Self::TooMany => "too_many",
        }
    }

    /// The refusal of a request whose call `name` failed. `statuses` are those that clients are told.
    pub(crate) fn reply(self, name: &str, statuses: &BTreeMap<u16, u16>) -> Response {
        let told = if let Self::Status(status) = self { statuses.get(&status).copied() } else { None };
        let (status, code, title) = match (told, self) {
            (Some(status), _) => (status, "call_refused", format!("The call `{name}` was refused")),
            (None, Self::Missing(Whose::Request)) => {
                (400, "value_missing", format!("The request lacks a value that the call `{name}` needs"))
            }
            (None, Self::Unfit(Whose::Request)) => {
                (400, "value_unfit", format!("The request has a value that the call `{name}` cannot be made of"))
            }
            (None, Self::Timeout) => (504, "call_timeout", format!("The call `{name}` was not answered in time")),
            (None, Self::Status(503) | Self::Refused) => {
                (503, "call_unavailable", format!("The call `{name}` cannot be made at the moment"))
            }
            (None, Self::UnknownUpstream) => (502, "upstream_unknown", format!("The call `{name}` cannot be made")),
            (None, Self::TooMany) => (502, "too_many_calls", format!("The call `{name}` would be too many calls")),
            (None, _) => (502, "call_failed", format!("The call `{name}` failed")),
        };
        Response::problem(status, code).title(title).member("call", name)
    }
}
