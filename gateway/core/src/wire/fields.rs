//! Field lines, of heads and of trailers.

use super::lines::Lines;
use super::refusal::Reason;
use crate::limits::HEAD_FIELDS;
use crate::scan;

/// The fields that say where a message ends and for whom it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Host,
    Length,
    Coding,
    Upgrade,
    Other,
}

/// Looks at the lines until behind the empty one, which ends them. `take` is told the value of each field that matters.
#[inline]
pub(super) fn walk(
    lines: &mut Lines,
    count: &mut usize,
    bytes: &[u8],
    mut take: impl FnMut(Kind, &[u8]) -> Result<(), Reason>,
) -> Result<Option<()>, Reason> {
    while let Some(line) = lines.next(bytes, |rest| field(rest, &mut take))? {
        if line == Line::Empty {
            return Ok(Some(()));
        }
        *count += 1;
        if *count > HEAD_FIELDS {
            return Err(Reason::TooManyFields);
        }
    }
    Ok(None)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    Field,
    Empty,
}

/// A field, or the empty line.
#[inline]
fn field(rest: &[u8], take: &mut impl FnMut(Kind, &[u8]) -> Result<(), Reason>) -> Result<(usize, Line), Reason> {
    let colon = scan::token(rest, 0);
    if colon == 0 {
        return match rest {
            [b'\r', b'\n', ..] => Ok((2, Line::Empty)),
            [b'\r', ..] => Err(Reason::BareCarriageReturn),
            [b'\n', ..] => Err(Reason::BareLineFeed),
            [b' ' | b'\t', ..] => Err(Reason::FoldedLine),
            _ => Err(Reason::FieldName),
        };
    }
    match rest.get(colon) {
        Some(b':') => {}
        Some(b' ' | b'\t') => return Err(Reason::SpaceBeforeColon),
        Some(b'\n') => return Err(Reason::BareLineFeed),
        _ => return Err(Reason::FieldName),
    }
    let end = scan::control(rest, colon + 1);
    match rest.get(end..) {
        Some([b'\r', b'\n', ..]) => {}
        Some([b'\r', ..]) => return Err(Reason::BareCarriageReturn),
        Some([b'\n', ..]) => return Err(Reason::BareLineFeed),
        _ => return Err(Reason::ControlByte),
    }
    let kind = rest.get(..colon).map_or(Kind::Other, Kind::of);
    if kind != Kind::Other {
        // White space around a value is only spaces and tabs here (RFC 9110 §5.6.3).
        take(kind, rest.get(colon + 1..end).unwrap_or_default().trim_ascii())?;
    }
    Ok((end + 2, Line::Field))
}

impl Kind {
    #[inline]
    fn of(name: &[u8]) -> Self {
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => Self::Host,
            7 if name.eq_ignore_ascii_case(b"upgrade") => Self::Upgrade,
            14 if name.eq_ignore_ascii_case(b"content-length") => Self::Length,
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => Self::Coding,
            _ => Self::Other,
        }
    }
}
