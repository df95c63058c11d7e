//! What an upstream sends over HTTP/1, looked at before the HTTP library sees it.
//!
//! An upstream is as hostile as a client: an answer that can be read in two ways ends as two answers, the second of which goes
//! to somebody else. [`Responses`] follows a connection from answer to answer and stops at the first byte that does not belong.
//! Libraries forgive: a bare LF, a folded field, spaces after a chunk's size, and each forgiveness is a way for two parties to
//! read one stream differently. Here nothing is forgiven and nothing changed: bytes that pass go on as they came. Heads are read
//! once, bodies only counted. What a field means beyond framing is not looked at.
//! **Invariant:** what is kept between two reads is at most one unfinished line, and that is bounded.

pub mod line;

use std::fmt;

use self::line::{FieldError, LineError, Lines, decimal, field, hexadecimal};
use crate::limits::Limits;

/// The longest size of a chunk, in digits. Sixteen fill 64 bits.
const CHUNK_SIZE_DIGITS: usize = 16;

macro_rules! violations {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// Why an answer is not passed on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Violation { $($(#[$doc])* $name,)* }

        impl Violation {
            /// Every violation, for metrics and docs.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The stable word for it.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
        }
    };
}

violations! {
    /// Bytes came that no request has asked for.
    Unsolicited = "unsolicited",
    /// It does not begin as HTTP/1.0 or HTTP/1.1 does.
    StartLine = "start_line",
    /// LF without CR, or CR without LF.
    LineEnd = "line_end",
    /// A NUL or another control character in a head.
    Control = "control_character",
    /// A field without a name, or with one that is not a token.
    FieldName = "field_name",
    /// A field that goes on over a second line.
    Folded = "folded_field",
    /// The head, or the trailers, are too large.
    HeadTooLarge = "head_too_large",
    /// The head, or the trailers, have too many fields.
    TooManyFields = "too_many_fields",
    /// `Content-Length` twice, or not a number, or one that does not fit.
    Length = "content_length",
    /// `Transfer-Encoding` other than `chunked`, or where it cannot be.
    Coding = "transfer_encoding",
    /// Both `Content-Length` and `Transfer-Encoding`.
    TwoFramings = "two_framings",
    /// More interim answers than anyone needs.
    Interim = "too_many_interim",
    /// 101, and nobody had asked to switch.
    Switched = "unasked_switch",
    /// A chunk whose size is not one, has an extension, or is not where the chunk ends.
    Chunk = "chunk",
    /// A trailer field that would change the framing.
    Trailer = "trailer_field",
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl std::error::Error for Violation {}

impl From<LineError> for Violation {
    fn from(error: LineError) -> Self {
        match error {
            LineError::BareLf | LineError::BareCr => Self::LineEnd,
            LineError::Nul | LineError::Control => Self::Control,
            LineError::TooLong => Self::HeadTooLarge,
        }
    }
}

impl From<FieldError> for Violation {
    fn from(error: FieldError) -> Self {
        match error {
            FieldError::Folded => Self::Folded,
            FieldError::Name => Self::FieldName,
        }
    }
}

/// What a request leads one to expect of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// An answer as most are.
    Plain,
    /// An answer without a body: the request was HEAD.
    Head,
    /// An answer, or after a 101 another protocol: the request asked for one.
    Upgrade,
}

/// Follows what comes over a connection.
#[derive(Clone, Debug)]
pub struct Responses {
    at: At,
    asked: Asked,
    head: Head,
    lines: Lines,
    bounds: Bounds,
    /// Interim answers before the one that is waited for.
    interim: usize,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    bytes: usize,
    fields: usize,
    interim: usize,
}

/// Where in the stream it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Nothing has been asked; nothing is to come.
    Rest,
    /// Before the first line of a head.
    Start,
    /// Among the fields of a head.
    Fields,
    /// In a body with so many bytes to come.
    Counted(u64),
    /// In a body that ends with the connection, or in another protocol.
    Endless,
    /// Before a chunk's size.
    ChunkSize,
    /// In a chunk with so many bytes to come.
    Chunk(u64),
    /// After a chunk's bytes.
    ChunkEnd,
    /// Among the trailers.
    Trailers,
}

/// What of a head matters to its framing.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    status: u16,
    is_1_0: bool,
    bytes: usize,
    fields: usize,
    length: Option<u64>,
    chunked: bool,
}

impl Responses {
    /// A connection over which nothing has been asked yet.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let bounds = Bounds {
            bytes: limits.response_head_bytes,
            fields: limits.response_head_fields,
            interim: limits.interim_responses,
        };
        let (asked, head, lines) = (Asked::Plain, Head::default(), Lines::default());
        Self { at: At::Rest, asked, head, lines, bounds, interim: 0 }
    }

    /// A request is being written: its answer may come.
    pub fn ask(&mut self, asked: Asked) {
        (self.at, self.asked, self.interim) = (At::Start, asked, 0);
        self.head = Head::default();
    }

    /// Looks at bytes, in the order in which they came, and says how many of them belong to the answer. What follows a complete
    /// answer belongs to nothing.
    ///
    /// # Errors
    /// At the first byte that shows that this is no answer to go by. The connection is of no more use then.
    pub fn look(&mut self, input: &[u8]) -> Result<usize, Violation> {
        let mut rest = input;
        while !rest.is_empty() {
            match self.at {
                At::Rest if rest.len() == input.len() => return Err(Violation::Unsolicited),
                At::Rest => break,
                At::Endless => rest = &[],
                At::Counted(left) => {
                    let left = skip(&mut rest, left);
                    self.at = if left == 0 { At::Rest } else { At::Counted(left) };
                }
                At::Chunk(left) => {
                    let left = skip(&mut rest, left);
                    self.at = if left == 0 { At::ChunkEnd } else { At::Chunk(left) };
                }
                At::Start | At::Fields | At::Trailers => self.head_line(&mut rest)?,
                At::ChunkSize | At::ChunkEnd => self.chunk_line(&mut rest)?,
            }
        }
        Ok(input.len() - rest.len())
    }

    fn head_line(&mut self, rest: &mut &[u8]) -> Result<(), Violation> {
        let room = self.bounds.bytes.saturating_sub(self.head.bytes);
        let Some(line) = self.lines.next(rest, room)? else {
            // Or a peer that speaks something else, and sends no line end, would be waited for.
            let begun = self.lines.unfinished();
            let is_http = begun.iter().zip(b"HTTP/1.").all(|(byte, want)| byte == want);
            return if self.at == At::Start && !is_http { Err(Violation::StartLine) } else { Ok(()) };
        };
        self.head.bytes += line.len() + 2;
        match (self.at, line) {
            (At::Start, line) => {
                self.head.start(line)?;
                self.at = At::Fields;
            }
            (At::Trailers, []) => self.at = At::Rest,
            (_, []) => self.head_ends()?,
            (at, line) => {
                let (name, value) = field(line)?;
                self.head.fields += 1;
                if self.head.fields > self.bounds.fields {
                    return Err(Violation::TooManyFields);
                }
                if at != At::Trailers {
                    self.head.field(name, value)?;
                } else if is_framing(name) {
                    return Err(Violation::Trailer);
                }
            }
        }
        Ok(())
    }

    /// Says what follows a head.
    fn head_ends(&mut self) -> Result<(), Violation> {
        let Head { status, length, chunked, .. } = self.head;
        if length.is_some() && chunked {
            return Err(Violation::TwoFramings);
        }
        self.at = match status {
            101 if self.asked == Asked::Upgrade => At::Endless,
            101 => return Err(Violation::Switched),
            // RFC 9112 §6.1 and RFC 9110 §8.6: these have neither.
            100..=199 | 204 if chunked => return Err(Violation::Coding),
            100..=199 | 204 if length.is_some_and(|length| length > 0) => return Err(Violation::Length),
            100..=199 => {
                self.interim += 1;
                self.head = Head::default();
                if self.interim > self.bounds.interim {
                    return Err(Violation::Interim);
                }
                At::Start
            }
            204 | 304 => At::Rest,
            _ if self.asked == Asked::Head => At::Rest,
            _ if chunked => At::ChunkSize,
            _ => match length {
                Some(0) => At::Rest,
                Some(length) => At::Counted(length),
                None => At::Endless,
            },
        };
        Ok(())
    }

    fn chunk_line(&mut self, rest: &mut &[u8]) -> Result<(), Violation> {
        let line = self.lines.next(rest, CHUNK_SIZE_DIGITS).map_err(|_| Violation::Chunk)?;
        let Some(line) = line else { return Ok(()) };
        self.at = match (self.at, line) {
            (At::ChunkEnd, []) => At::ChunkSize,
            (At::ChunkEnd, _) => return Err(Violation::Chunk),
            (_, size) => match hexadecimal(size).ok_or(Violation::Chunk)? {
                0 => {
                    // Trailers have the room that a head has.
                    (self.head.bytes, self.head.fields) = (0, 0);
                    At::Trailers
                }
                size => At::Chunk(size),
            },
        };
        Ok(())
    }
}

impl Head {
    fn start(&mut self, line: &[u8]) -> Result<(), Violation> {
        let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ (b'0' | b'1'), b' ', hundreds, tens, ones, reason @ ..] =
            line
        else {
            return Err(Violation::StartLine);
        };
        // Many servers leave the space out together with the reason.
        if !matches!(reason, [] | [b' ', ..]) {
            return Err(Violation::StartLine);
        }
        let status = decimal(&[*hundreds, *tens, *ones]).and_then(|status| u16::try_from(status).ok());
        self.status = status.filter(|status| *status >= 100).ok_or(Violation::StartLine)?;
        self.is_1_0 = *minor == b'0';
        Ok(())
    }

    fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Violation> {
        // By their lengths first: almost no field is one of the two.
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = decimal(value).filter(|_| self.length.is_none()).ok_or(Violation::Length)?;
                self.length = Some(length);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.is_1_0 || self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Violation::Coding);
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }
}

fn is_framing(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"content-length") || name.eq_ignore_ascii_case(b"transfer-encoding")
}

/// Steps over bytes of a body, and says how many of `left` have not come yet.
fn skip(rest: &mut &[u8], left: u64) -> u64 {
    let here = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
    *rest = rest.get(here..).unwrap_or_default();
    left - here as u64
}

#[cfg(test)]
mod tests;
