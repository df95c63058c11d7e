//! Why no program has changed a body, and what its client is told.

use portcullis_sdk::Response;

use crate::program::Failure;

/// Which way a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Request,
    Response,
}

impl Way {
    /// For messages to people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Request => "requests",
            Self::Response => "responses",
        }
    }
}

/// Why no program has changed a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    Malformed,
    TooLarge,
    /// In a coding; none is read here.
    Encoded,
    /// It is a part of one.
    Partial,
    /// The program failed.
    Failed,
    /// It took too many steps.
    Steps,
    /// Its result is too long.
    ResultTooLarge,
}

impl From<&Failure> for Obstacle {
    fn from(failure: &Failure) -> Self {
        match failure {
            Failure::Malformed => Self::Malformed,
            Failure::Steps => Self::Steps,
            Failure::Failed(_) => Self::Failed,
            Failure::TooLarge => Self::ResultTooLarge,
        }
    }
}

impl Obstacle {
    /// The reply for it.
    pub(crate) fn reply(self, way: Way) -> Response {
        let (status, code, title) = self.words(way);
        let reply = Response::problem(status, code).title(title);
        if status == 415 { reply.header("accept-encoding", "identity") } else { reply }
    }

    /// Its word, as in a reply.
    pub(crate) fn code(self, way: Way) -> &'static str {
        self.words(way).1
    }

    fn words(self, way: Way) -> (u16, &'static str, &'static str) {
        const UNUSABLE: &str = "The upstream's answer cannot be used";
        match (way, self) {
            (Way::Request, Self::Malformed) => (400, "body_malformed", "The body is no JSON"),
            (Way::Request, Self::TooLarge) => (413, "body_too_large", "The body is too large"),
            (Way::Request, Self::Encoded) => (415, "body_encoded", "The body has to come without a content encoding"),
            (Way::Request, Self::Partial) => (400, "body_partial", "The body has to come whole"),
            (Way::Request, Self::Failed) => (400, "program_failed", "The body is not what is expected here"),
            (Way::Request, Self::Steps) => (413, "program_too_long", "The body takes too much work"),
            (Way::Request, Self::ResultTooLarge) => (413, "result_too_large", "The body becomes too large"),
            (Way::Response, Self::Malformed) => (502, "response_malformed", UNUSABLE),
            (Way::Response, Self::TooLarge) => (502, "response_too_large", "The upstream's answer is too large"),
            (Way::Response, Self::Encoded) => (502, "response_encoded", "The upstream's answer cannot be read"),
            (Way::Response, Self::Partial) => (502, "response_partial", UNUSABLE),
            (Way::Response, Self::Failed) => (502, "program_failed", UNUSABLE),
            (Way::Response, Self::Steps) => (502, "program_too_long", UNUSABLE),
            (Way::Response, Self::ResultTooLarge) => (502, "result_too_large", UNUSABLE),
        }
    }
}
