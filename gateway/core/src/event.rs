//! This crate's whole border: what happened to an exchange, and what must happen because of it.

use std::net::SocketAddr;

use bytes::Bytes;
use http::HeaderMap;

use crate::headers::Headers;
use crate::reply::Failure;

/// Which way a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the upstream.
    Request,
    /// From the upstream (or a local reply) to the client.
    Response,
}

/// Whether a part is the last of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing follows.
    Yes,
    /// More follows.
    No,
}

impl End {
    /// `Yes` when `end` holds.
    #[must_use]
    pub fn from_bool(end: bool) -> Self {
        if end { Self::Yes } else { Self::No }
    }

    /// Whether this is the end.
    #[must_use]
    pub fn is_end(self) -> bool {
        self == Self::Yes
    }
}

/// A piece of a message, in the order head, body…, trailers.
#[derive(Clone, Debug)]
pub enum Part {
    /// The start line and the header fields.
    Head(Headers, End),
    /// Some of the body; empty only together with the end.
    Body(Bytes, End),
    /// The trailer fields; always the end.
    Trailers(HeaderMap),
}

impl Part {
    /// Whether nothing follows this part.
    #[must_use]
    pub fn end(&self) -> End {
        match self {
            Self::Head(_, end) | Self::Body(_, end) => *end,
            Self::Trailers(_) => End::Yes,
        }
    }
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A part of the request came in. The head first: it starts the chain.
    Request(Part),
    /// A part of the upstream's response came in.
    Response(Part),
    /// The upstream will give no (further) response.
    UpstreamFailed(Failure),
    /// A client's TCP connection was accepted: the first event of an exchange whose chain speaks no HTTP.
    Accepted,
    /// The upstream's TCP connection is there, at this address.
    Connected(SocketAddr),
    /// A deadline of this exchange has passed; see [`crate::exchange::Live::expired`].
    Deadline(Failure),
    /// Another context touched this exchange: it resumed it, replied for it, or died with its VM.
    Woken,
}

impl Event {
    /// A part came in from this side.
    #[must_use]
    pub fn part(direction: Direction, part: Part) -> Self {
        match direction {
            Direction::Request => Self::Request(part),
            Direction::Response => Self::Response(part),
        }
    }
}

/// What must happen.
#[derive(Debug)]
pub enum Effect {
    /// Send this part on: requests to the upstream, responses to the client.
    Send(Part),
    /// Break the stream so that the peer sees it was cut: never a clean end.
    Abort(Failure),
}
