//! Why bytes do not pass, and what the HTTP library is given in their place.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::head::Line;
use crate::reply::Failure;

/// The field of a stand-in. Clients may send it too: without `Host` missing it means nothing.
const FIELD: HeaderName = HeaderName::from_static("x-portcullis-refused");

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $word:literal $failure:ident,)*) => {
        /// Why bytes do not pass.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// A word for it, for logs.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// What the client is told.
            #[must_use]
            pub fn failure(self) -> Failure {
                match self { $(Self::$name => Failure::$failure,)* }
            }
        }
    };
}

reasons! {
    /// The first line is not `method SP target SP version CRLF`.
    RequestLine = "request_line" BadRequest,
    /// The target is in none of the forms that are served (RFC 9112 §3.2), or has bytes that no target has.
    Target = "target" BadRequest,
    /// A tunnel is asked for.
    Connect = "connect" NotImplemented,
    /// A version of HTTP that does not look like this.
    Version = "version" VersionNotSupported,
    /// The target is longer than [`crate::limits::TARGET_BYTES`].
    TargetTooLong = "target_too_long" UriTooLong,
    /// The head is larger than [`crate::limits::HEAD_BYTES`].
    HeadTooLarge = "head_too_large" HeadTooLarge,
    /// There are more fields than [`crate::limits::HEAD_FIELDS`].
    TooManyFields = "too_many_fields" HeadTooLarge,
    /// A line ends without a carriage return.
    BareLineFeed = "bare_line_feed" BadRequest,
    /// A carriage return does not end a line.
    BareCarriageReturn = "bare_carriage_return" BadRequest,
    /// A line begins with white space, which once continued the line before it (RFC 9112 §5.2).
    FoldedLine = "folded_line" BadRequest,
    /// A control byte in a value.
    ControlByte = "control_byte" BadRequest,
    /// The name is empty or not a token.
    FieldName = "field_name" BadRequest,
    /// White space between a name and its colon (RFC 9112 §5.1).
    SpaceBeforeColon = "space_before_colon" BadRequest,
    /// No `Host`.
    HostMissing = "host_missing" BadHost,
    /// More than one `Host`.
    HostRepeated = "host_repeated" BadHost,
    /// `Host`, or the target's authority, is not a host.
    HostInvalid = "host_invalid" BadHost,
    /// `Content-Length` is not one number.
    Length = "length" BadFraming,
    /// More than one `Content-Length`, even if they agree.
    LengthRepeated = "length_repeated" BadFraming,
    /// `Content-Length` beside `Transfer-Encoding` (RFC 9112 §6.1).
    LengthWithCoding = "length_with_coding" BadFraming,
    /// `Transfer-Encoding` is not exactly `chunked`, once.
    Coding = "coding" BadFraming,
    /// `Transfer-Encoding` in HTTP/1.0 (RFC 9112 §6.1).
    CodingInOld = "coding_in_http_1_0" BadFraming,
    /// The size of a chunk is not 1 to 16 hexadecimal digits, or too large.
    ChunkSize = "chunk_size" BadFraming,
    /// Something follows the size of a chunk.
    ChunkExtension = "chunk_extension" BadFraming,
    /// A chunk's data is longer than its size.
    ChunkEnd = "chunk_end" BadFraming,
    /// A trailer that frames or routes a message (RFC 9110 §6.5.1).
    Trailer = "trailer" BadFraming,
    /// The trailers are larger than [`crate::limits::TRAILER_BYTES`].
    TrailersTooLarge = "trailers_too_large" BadFraming,
}

/// What does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    pub(super) line: Line,
}

impl Refusal {
    /// The head to hand on in place of the refused one, whose bytes as far as they came are `rest`.
    ///
    /// It has the refused head's method and target as far as those were sound, for the access log. None if it is a body
    /// that is refused: its head has passed already.
    #[must_use]
    pub fn stand_in(&self, rest: &[u8]) -> Option<Vec<u8>> {
        let line: &[u8] = match self.line {
            Line::Sound { start, end } => rest.get(start..end).unwrap_or(b"- *"),
            Line::Unsound => b"- *",
            Line::Body => return None,
        };
        let field = FIELD;
        let parts =
            [line, b" HTTP/1.1\r\n", field.as_str().as_bytes(), b": ", self.reason.word().as_bytes(), b"\r\n\r\n"];
        Some(parts.concat())
    }
}

/// Why a request that has no `Host` stands where it stands: nothing else passes an [`super::Inspector`] without one.
#[must_use]
pub fn refused(fields: &HeaderMap) -> Reason {
    let word = fields.get(FIELD).map(HeaderValue::as_bytes);
    let known = Reason::ALL.iter().find(|reason| Some(reason.word().as_bytes()) == word);
    known.copied().unwrap_or(Reason::HostMissing)
}
