//! What policies that change bodies share: why a body was not changed, what becomes of it then, and which headers a change takes away.
//!
//! Beside `plugin-common`, since that stands on no SDK: modules without one use it too.

#![warn(missing_docs)]

use portcullis_sdk::{Config, HeaderValue, HeadersMut, Response};

/// Which way a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the upstream.
    Request,
    /// To the client.
    Response,
}

/// What becomes of a body that was not changed.
#[derive(Clone, Copy, Config, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Otherwise {
    /// It goes no further.
    #[default]
    Refuse,
    /// It passes as it is.
    Pass,
}

/// Why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It is not what its head says.
    Malformed,
    /// It is longer than it may be.
    TooLarge,
    /// It is in a coding that is not read here.
    Encoded,
    /// It is a part of one.
    Partial,
}

/// A refusal: its status, its code, and its title.
pub type Words = (u16, &'static str, &'static str);

/// What clients are told where the fault is their upstream's: nothing of it.
pub const UNUSABLE: &str = "The upstream's answer cannot be used";

impl Unread {
    /// The refusal of a message whose body was not read.
    #[must_use]
    pub fn words(self, way: Way) -> Words {
        match (way, self) {
            (Way::Request, Self::Malformed) => (400, "body_malformed", "The body is not what its content type says"),
            (Way::Request, Self::TooLarge) => (413, "body_too_large", "The body is too large"),
            (Way::Request, Self::Encoded) => {
                (415, "body_encoded", "The body has a content encoding that is not read here")
            }
            (Way::Request, Self::Partial) => (400, "body_partial", "The body has to come whole"),
            (Way::Response, Self::Malformed) => (502, "response_malformed", UNUSABLE),
            (Way::Response, Self::TooLarge) => (502, "response_too_large", "The upstream's answer is too large"),
            (Way::Response, Self::Encoded) => (502, "response_encoded", "The upstream's answer cannot be read"),
            (Way::Response, Self::Partial) => (502, "response_partial", UNUSABLE),
        }
    }
}

/// The reply of a refusal; where it is for a content coding, with those that are `read` (RFC 9110 §15.5.16).
pub fn refusal((status, code, title): Words, read: &str) -> Response {
    let reply = Response::problem(status, code).title(title);
    if status == 415 { reply.header("accept-encoding", read) } else { reply }
}

/// Fields that say something about the very bytes of a body (RFC 9110 §8.8.3, §14.3; RFC 9530; RFC 3230): a body that changes takes
/// them with it.
const OF_THE_BYTES: [&str; 6] = ["etag", "content-digest", "repr-digest", "digest", "content-md5", "accept-ranges"];

/// The fields of a head that are true of its old body alone.
#[must_use = "they are gone from the head; a body that stays has them back by `restore`"]
pub struct Stale(Vec<(&'static str, HeaderValue)>);

impl Stale {
    /// Takes them away.
    pub fn remove(headers: &mut HeadersMut<'_>) -> Self {
        let all: Vec<_> = OF_THE_BYTES.iter().filter_map(|name| Some((*name, headers.get(name)?))).collect();
        all.iter().for_each(|(name, _)| headers.remove(name));
        Self(all)
    }

    /// Has a field say something else that is true of the new body; or nothing, without a value.
    pub fn replace(&mut self, headers: &mut HeadersMut<'_>, name: &'static str, value: Option<&str>) {
        self.0.extend(headers.get(name).map(|before| (name, before)));
        match value {
            Some(value) => headers.set(name, value),
            None => headers.remove(name),
        }
    }

    /// Puts them back: the body stays.
    pub fn restore(self, headers: &mut HeadersMut<'_>) {
        for (name, value) in self.0 {
            headers.set(name, value.as_bytes());
        }
    }
}
