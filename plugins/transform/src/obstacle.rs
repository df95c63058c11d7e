//! Why a message could not be transformed, and what its client is told.

use portcullis_sdk::Response;

use crate::coding::READ;
use crate::condition::Way;

/// Why a message could not be transformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    Malformed,
    TooLarge,
    /// In a coding that is not read here.
    Encoded,
    /// It is a part of one.
    Partial,
    /// A query would have looked at too much of it.
    Complex,
    /// A template's value would have made a header or a target that is none.
    Unfit,
}

impl Obstacle {
    /// The reply for it.
    pub(crate) fn reply(self, way: Way) -> Response {
        let (status, code, title) = self.words(way);
        let reply = Response::problem(status, code).title(title);
        if status == 415 { reply.header("accept-encoding", READ) } else { reply }
    }

    /// Its word, as in a reply.
    pub(crate) fn code(self, way: Way) -> &'static str {
        self.words(way).1
    }

    fn words(self, way: Way) -> (u16, &'static str, &'static str) {
        match (way, self) {
            (Way::Request, Self::Malformed) => (400, "body_malformed", "The body is not what its content type says"),
            (Way::Request, Self::TooLarge) => (413, "body_too_large", "The body is too large"),
            (Way::Request, Self::Complex) => (413, "body_too_complex", "The body holds too many values"),
            (Way::Request, Self::Encoded) => {
                (415, "body_encoded", "The body has to come in gzip or zstd, or without a content encoding")
            }
            (Way::Request, Self::Unfit) => (400, "value_unfit", "A value of the request cannot be passed on"),
            (Way::Response, Self::Malformed) => (502, "response_malformed", "The upstream's answer cannot be used"),
            (Way::Response, Self::TooLarge) => (502, "response_too_large", "The upstream's answer is too large"),
            (Way::Response, Self::Complex) => (502, "response_too_complex", "The upstream's answer cannot be used"),
            (Way::Response, Self::Encoded) => (502, "response_encoded", "The upstream's answer cannot be read"),
            (Way::Request, Self::Partial) => (400, "body_partial", "The body has to come whole"),
            (Way::Response, Self::Partial) => (502, "response_partial", "The upstream's answer cannot be used"),
            (Way::Response, Self::Unfit) => (502, "response_unfit", "The upstream's answer cannot be used"),
        }
    }
}
