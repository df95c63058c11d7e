//! A request's head: its first line, and the fields that say how long it is and for whom.

use super::After;
use super::body::Body;
use super::fields::{Fields, Kind, Progress};
use super::refusal::Reason;
use super::text::{PATH, QUERY, TOKEN, run};
use crate::authority::is_authority;
use crate::limits::{HEAD_BYTES, TARGET_BYTES};

/// What is known of a head whose bytes have come in part. Places are counted from its first byte.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// Where to look next.
    at: usize,
    part: Part,
    /// Where the method begins; behind it the target, behind that the fields.
    start: usize,
    target: usize,
    target_end: usize,
    version: Version,
    fields: Fields,
    framing: Framing,
}

#[derive(Clone, Copy, Debug, Default)]
enum Part {
    #[default]
    Before,
    Method,
    Path,
    Query,
    Version,
    Fields,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Version {
    #[default]
    Http11,
    Http10,
}

/// What the fields say that matters here.
#[derive(Clone, Copy, Debug, Default)]
struct Framing {
    host: bool,
    length: Option<u64>,
    chunked: bool,
    /// It asks for another protocol.
    upgrade: bool,
}

/// A head that passes, and what comes after it.
pub(super) struct Message {
    pub(super) body: Option<Body>,
    pub(super) after: After,
}

/// What is known of the first line of what was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Its method and target are here.
    Sound { start: usize, end: usize },
    /// Not even that.
    Unsound,
    /// It is a body that was refused.
    Body,
}

impl Head {
    /// Looks at a head that begins with these bytes; the length of the whole head once it is there.
    pub(super) fn judge(&mut self, bytes: &[u8]) -> Result<Option<(usize, Message)>, Reason> {
        let window = bytes.get(..HEAD_BYTES).unwrap_or(bytes);
        match self.walk(window)? {
            Some(message) => Ok(Some((self.at, message))),
            None if bytes.len() > HEAD_BYTES => Err(Reason::HeadTooLarge),
            None => Ok(None),
        }
    }

    pub(super) fn line(&self) -> Line {
        if self.target_end > 0 { Line::Sound { start: self.start, end: self.target_end } } else { Line::Unsound }
    }

    fn walk(&mut self, bytes: &[u8]) -> Result<Option<Message>, Reason> {
        loop {
            let more = match self.part {
                Part::Before => self.before(bytes)?,
                Part::Method => self.method(bytes)?,
                Part::Path | Part::Query => self.target(bytes)?,
                Part::Version => self.version(bytes)?,
                Part::Fields => return self.fields(bytes),
            };
            if more == Progress::Short {
                return Ok(None);
            }
        }
    }

    /// One empty line before a request is let pass, since old clients end bodies with it (RFC 9112 §2.2).
    fn before(&mut self, bytes: &[u8]) -> Result<Progress, Reason> {
        match bytes {
            [] | [b'\r'] => return Ok(Progress::Short),
            [b'\r', b'\n', ..] => self.start = 2,
            [b'\r', ..] => return Err(Reason::BareCarriageReturn),
            [b'\n', ..] => return Err(Reason::BareLineFeed),
            _ => {}
        }
        self.at = self.start;
        self.part = Part::Method;
        Ok(Progress::On)
    }

    fn method(&mut self, bytes: &[u8]) -> Result<Progress, Reason> {
        let Some(end) = self.look(bytes, TOKEN) else { return Ok(Progress::Short) };
        if end == self.start || bytes.get(end) != Some(&b' ') {
            return Err(Reason::RequestLine);
        }
        if bytes.get(self.start..end) == Some(b"CONNECT") {
            return Err(Reason::Connect);
        }
        self.target = end + 1;
        (self.at, self.part) = (self.target, Part::Path);
        Ok(Progress::On)
    }

    fn target(&mut self, bytes: &[u8]) -> Result<Progress, Reason> {
        let room = self.target + TARGET_BYTES + 1;
        let window = bytes.get(..room).unwrap_or(bytes);
        let class = if matches!(self.part, Part::Path) { PATH } else { QUERY };
        let Some(end) = self.look(window, class) else {
            return if window.len() == room { Err(Reason::TargetTooLong) } else { Ok(Progress::Short) };
        };
        match (bytes.get(end), self.part) {
            (Some(b'?'), Part::Path) => (self.at, self.part) = (end + 1, Part::Query),
            (Some(b' '), _) => {
                let method = bytes.get(self.start..self.target).unwrap_or_default();
                let target = bytes.get(self.target..end).unwrap_or_default();
                is_target(target, method == b"OPTIONS ")?;
                self.target_end = end;
                (self.at, self.part) = (end + 1, Part::Version);
            }
            // There is no version: HTTP/0.9, or a line broken in two.
            (Some(b'\r' | b'\n'), _) => return Err(Reason::RequestLine),
            _ => return Err(Reason::Target),
        }
        Ok(Progress::On)
    }

    fn version(&mut self, bytes: &[u8]) -> Result<Progress, Reason> {
        let rest = bytes.get(self.at..).unwrap_or_default();
        let Some(version) = rest.first_chunk() else { return Ok(Progress::Short) };
        self.version = match version {
            b"HTTP/1.1\r\n" => Version::Http11,
            b"HTTP/1.0\r\n" => Version::Http10,
            [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9', b'\r', b'\n'] => {
                return Err(Reason::Version);
            }
            [_, _, _, _, _, _, _, _, b'\n', _] => return Err(Reason::BareLineFeed),
            _ => return Err(Reason::RequestLine),
        };
        self.at += version.len();
        self.part = Part::Fields;
        Ok(Progress::On)
    }

    fn fields(&mut self, bytes: &[u8]) -> Result<Option<Message>, Reason> {
        let (framing, version) = (&mut self.framing, self.version);
        let found = self.fields.walk(bytes, &mut self.at, |kind, value| framing.take(kind, value, version))?;
        if found == Progress::Short {
            return Ok(None);
        }
        if !framing.host && version == Version::Http11 {
            return Err(Reason::HostMissing);
        }
        let body = match framing.length {
            None | Some(0) => framing.chunked.then(Body::chunked),
            Some(length) => Some(Body::Sized(length)),
        };
        let asks = framing.upgrade && version == Version::Http11;
        Ok(Some(Message { body, after: if asks { After::Decision } else { After::Head } }))
    }

    /// Where the run of this class ends that goes on at `self.at`.
    fn look(&mut self, bytes: &[u8], class: u8) -> Option<usize> {
        let end = run(bytes, self.at, class);
        self.at = end.unwrap_or(bytes.len());
        end
    }
}

/// A path, `*` for `OPTIONS`, or an absolute URI of our schemes (RFC 9112 §3.2).
fn is_target(target: &[u8], options: bool) -> Result<(), Reason> {
    if target.first() == Some(&b'/') || (options && target == b"*") {
        return Ok(());
    }
    let scheme = |scheme: &[u8]| {
        let (front, rest) = target.split_at_checked(scheme.len())?;
        front.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    let rest = scheme(b"http://").or_else(|| scheme(b"https://")).ok_or(Reason::Target)?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    if rest.get(..end).is_some_and(is_authority) { Ok(()) } else { Err(Reason::HostInvalid) }
}

impl Framing {
    fn take(&mut self, kind: Kind, value: &[u8], version: Version) -> Result<(), Reason> {
        match kind {
            Kind::Host if self.host => return Err(Reason::HostRepeated),
            Kind::Host if !is_authority(value) => return Err(Reason::HostInvalid),
            Kind::Host => self.host = true,
            Kind::Length if self.length.is_some() => return Err(Reason::LengthRepeated),
            Kind::Length => self.length = Some(length(value).ok_or(Reason::Length)?),
            Kind::Coding if version == Version::Http10 => return Err(Reason::CodingInOld),
            Kind::Coding if self.chunked || !value.eq_ignore_ascii_case(b"chunked") => return Err(Reason::Coding),
            Kind::Coding => self.chunked = true,
            Kind::Upgrade => self.upgrade = true,
            Kind::Other => {}
        }
        if self.chunked && self.length.is_some() { Err(Reason::LengthWithCoding) } else { Ok(()) }
    }
}

/// Digits, and not so many that somebody's integer overflows.
fn length(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.len() <= 19 && value.iter().all(u8::is_ascii_digit);
    let value = digits.then(|| value.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0')))?;
    (value <= i64::MAX.unsigned_abs()).then_some(value)
}
