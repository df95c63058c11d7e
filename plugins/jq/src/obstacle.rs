//! Why no program has changed a body, and what its client is told.

use plugin_bodies::{UNUSABLE, Unread, Way, Words, refusal};
use portcullis_sdk::Response;

use crate::program::Failure;

/// Why no program has changed a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    Body(Unread),
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
            Failure::Malformed => Self::Body(Unread::Malformed),
            Failure::Steps => Self::Steps,
            Failure::Failed(_) => Self::Failed,
            Failure::TooLarge => Self::ResultTooLarge,
        }
    }
}

impl Obstacle {
    /// The reply for it. No coding is read here.
    pub(crate) fn reply(self, way: Way) -> Response {
        refusal(self.words(way), "identity")
    }

    /// Its word, as in a reply.
    pub(crate) fn code(self, way: Way) -> &'static str {
        self.words(way).1
    }

    fn words(self, way: Way) -> Words {
        match (way, self) {
            (way, Self::Body(unread)) => unread.words(way),
            (Way::Request, Self::Failed) => (400, "program_failed", "The body is not what is expected here"),
            (Way::Request, Self::Steps) => (413, "program_too_long", "The body takes too much work"),
            (Way::Request, Self::ResultTooLarge) => (413, "result_too_large", "The body becomes too large"),
            (Way::Response, Self::Failed) => (502, "program_failed", UNUSABLE),
            (Way::Response, Self::Steps) => (502, "program_too_long", UNUSABLE),
            (Way::Response, Self::ResultTooLarge) => (502, "result_too_large", UNUSABLE),
        }
    }
}
