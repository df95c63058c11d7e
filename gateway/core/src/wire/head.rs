//! A request's head: its first line, and the fields that say how long it is and for whom.

use super::After;
use super::body::Body;
use super::fields::{Kind, walk};
use super::lines::Lines;
use super::refusal::Reason;
use crate::authority::is_authority;
use crate::limits::{HEAD_BYTES, TARGET_BYTES};
use crate::scan;

/// What is known of a head whose bytes have come in part.
#[derive(Debug, Default)]
pub(super) struct Head {
    lines: Lines,
    first: Option<First>,
    count: usize,
    framing: Framing,
}

/// A first line that is sound.
#[derive(Clone, Copy, Debug)]
struct First {
    /// Where the method starts, and the target ends.
    start: usize,
    end: usize,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
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
        let first = loop {
            let start = self.lines.at();
            match self.first {
                Some(first) => break first,
                None => match self.lines.next(window, |rest| first_line(rest, start))? {
                    Some(first) => self.first = first,
                    None => return incomplete(window, start).map_or_else(|| over(bytes), Err),
                },
            }
        };
        let framing = &mut self.framing;
        let take = |kind, value: &[u8]| framing.take(kind, value, first.version);
        match walk(&mut self.lines, &mut self.count, window, take)? {
            Some(()) => Ok(Some((self.lines.at(), framing.message(first.version)?))),
            None => over(bytes),
        }
    }

    pub(super) fn line(&self) -> Line {
        self.first.map_or(Line::Unsound, |First { start, end, .. }| Line::Sound { start, end })
    }
}

/// More is needed, unless there is too much already.
fn over<T>(bytes: &[u8]) -> Result<Option<T>, Reason> {
    if bytes.len() > HEAD_BYTES { Err(Reason::HeadTooLarge) } else { Ok(None) }
}

/// What is wrong with a first line already, though its end has not come.
fn incomplete(bytes: &[u8], start: usize) -> Option<Reason> {
    let noise = |byte: &u8| !byte.is_ascii_graphic() && *byte != b'\r';
    if bytes.first().is_some_and(noise) {
        return Some(Reason::RequestLine);
    }
    is_endless(bytes.get(start..)?).then_some(Reason::TargetTooLong)
}

/// Whether the target is too long, wherever it ends.
fn is_endless(line: &[u8]) -> bool {
    let mut rest = line.iter();
    let method = line.len() > TARGET_BYTES && rest.find(|byte| matches!(byte, b' ' | b'\n')) == Some(&b' ');
    method && rest.len() > TARGET_BYTES && rest.take(TARGET_BYTES + 1).all(|byte| !matches!(byte, b' ' | b'\n'))
}

/// `method SP target SP version CRLF`, starting at `start` of the head; or nothing but CRLF.
///
/// One empty line before a request is let pass, since old clients end bodies with it (RFC 9112 §2.2).
fn first_line(rest: &[u8], start: usize) -> Result<(usize, Option<First>), Reason> {
    let method_end = scan::token(rest, 0);
    match rest.get(method_end..) {
        Some([b' ', ..]) if method_end > 0 => {}
        Some([b'\r', b'\n', ..]) if method_end == 0 && start == 0 => return Ok((2, None)),
        Some([b'\n', ..]) if method_end == 0 => return Err(Reason::BareLineFeed),
        Some([b'\r', ..]) if method_end == 0 => return Err(Reason::BareCarriageReturn),
        _ => return Err(Reason::RequestLine),
    }
    if is_endless(rest) {
        return Err(Reason::TargetTooLong);
    }
    let (method, target_start) = (rest.get(..method_end).unwrap_or_default(), method_end + 1);
    if method == b"CONNECT" {
        return Err(Reason::Connect);
    }
    let mut end = scan::path(rest, target_start);
    if rest.get(end) == Some(&b'?') {
        end = scan::query(rest, end + 1);
    }
    match rest.get(end) {
        Some(b' ') => {}
        // There is no version: HTTP/0.9, or a line broken in two.
        Some(b'\r' | b'\n') => return Err(Reason::RequestLine),
        _ => return Err(Reason::Target),
    }
    is_target(rest.get(target_start..end).unwrap_or_default(), method)?;
    let (len, version) = version(rest.get(end + 1..).unwrap_or_default())?;
    Ok((end + 1 + len, Some(First { start, end: start + end, version })))
}

fn version(rest: &[u8]) -> Result<(usize, Version), Reason> {
    match rest.first_chunk() {
        Some(b"HTTP/1.1\r\n") => Ok((10, Version::Http11)),
        Some(b"HTTP/1.0\r\n") => Ok((10, Version::Http10)),
        Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9', b'\r', b'\n']) => Err(Reason::Version),
        _ if rest.starts_with(b"HTTP/1.1\n") || rest.starts_with(b"HTTP/1.0\n") => Err(Reason::BareLineFeed),
        _ => Err(Reason::RequestLine),
    }
}

/// A path, `*` for `OPTIONS`, or an absolute URI of our schemes (RFC 9112 §3.2).
fn is_target(target: &[u8], method: &[u8]) -> Result<(), Reason> {
    if target.first() == Some(&b'/') || (target == b"*" && method == b"OPTIONS") {
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

    /// What the fields together make of the message.
    fn message(&self, version: Version) -> Result<Message, Reason> {
        if !self.host && version == Version::Http11 {
            return Err(Reason::HostMissing);
        }
        let body = match self.length {
            None | Some(0) => self.chunked.then(Body::chunked),
            Some(length) => Some(Body::Sized(length)),
        };
        let asks = self.upgrade && version == Version::Http11;
        Ok(Message { body, after: if asks { After::Decision } else { After::Head } })
    }
}

/// Digits, and not so many that somebody's integer overflows.
fn length(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.len() <= 19 && value.iter().all(u8::is_ascii_digit);
    let value = digits.then(|| value.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0')))?;
    (value <= i64::MAX.unsigned_abs()).then_some(value)
}
