//! Why a message could not be transformed, and what its client is told.

use plugin_bodies::{UNUSABLE, Unread, Way, Words, refusal};
use portcullis_sdk::Response;

use crate::coding::READ;

/// Why a message could not be transformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    Body(Unread),
    /// A query would have looked at too much of it.
    Complex,
    /// A template's value would have made a header or a target that is none.
    Unfit,
}

impl Obstacle {
    /// The reply for it.
    pub(crate) fn reply(self, way: Way) -> Response {
        refusal(self.words(way), READ)
    }

    /// Its word, as in a reply.
    pub(crate) fn code(self, way: Way) -> &'static str {
        self.words(way).1
    }

    fn words(self, way: Way) -> Words {
        match (way, self) {
            (way, Self::Body(unread)) => unread.words(way),
            (Way::Request, Self::Complex) => (413, "body_too_complex", "The body holds too many values"),
            (Way::Request, Self::Unfit) => (400, "value_unfit", "A value of the request cannot be passed on"),
            (Way::Response, Self::Complex) => (502, "response_too_complex", UNUSABLE),
            (Way::Response, Self::Unfit) => (502, "response_unfit", UNUSABLE),
        }
    }
}
