//! HTTP/2 requests that no library would send, and what becomes of each.

use portcullis_tests::frames::{self, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, block, frame};
use portcullis_tests::gateway::Gateway;

/// A connection whose frames are the test's.
pub(super) struct Frames(frames::Frames);

/// What became of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A response with this status.
    Status(u16),
    /// The stream was reset, or the connection closed.
    Broken,
}

impl Frames {
    pub(super) fn connect(gateway: &Gateway) -> Self {
        Self(frames::Frames::connect(gateway.address(), &[]))
    }

    /// Asks with these fields, as they are, and this body, all in one write.
    pub(super) fn ask(&mut self, stream: u32, fields: &[(&str, &[u8])], body: &[u8]) -> Outcome {
        let last = if body.is_empty() { END_STREAM } else { 0 };
        let mut bytes = frame(HEADERS, END_HEADERS | last, stream, &block(fields));
        if !body.is_empty() {
            bytes.extend(frame(DATA, END_STREAM, stream, body));
        }
        // The gateway may have closed already.
        let _closed = self.0.try_send(&bytes);
        let ends = |frame: &frames::Frame| {
            frame.kind == GOAWAY || frame.stream == stream && matches!(frame.kind, HEADERS | RST_STREAM)
        };
        match self.0.find(ends) {
            Ok(frame) if frame.kind == HEADERS => Outcome::Status(frame.status().unwrap_or(0)),
            Ok(_) | Err(_) => Outcome::Broken,
        }
    }
}
