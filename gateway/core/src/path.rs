//! One form for every path, so that the gateway, its filters and the upstream cannot mean different things by one.
//!
//! What is equivalent becomes equal (RFC 3986 §6.2.2): dot segments are resolved, escapes of unreserved characters undone, other
//! escapes written in capitals; and, since file systems and most origins read them so, empty segments are removed. What has no
//! good reading is refused: broken escapes, control bytes, bytes beyond ASCII, dot segments that lead above the root, or that
//! carry parameters (`..;x`), which some origins drop before they resolve the rest. The query stays as it is. So do parameters
//! (`;x`) elsewhere, and the case of letters: a route that is to guard `/admin` must say what it means by `/admin;x` and `/Admin`.
//!
//! **Invariants:** normalising twice changes nothing; what comes out begins with `/`, has no dot segment and no empty one but at its
//! end. A path that is normal already costs one scan.

use bytes::Bytes;
use http::uri::PathAndQuery;

use crate::scan;

/// What becomes of slashes in disguise: `%2F`, `%5C` and `\`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Slashes {
    /// The request is refused.
    #[default]
    Reject,
    /// They are part of their segment, as escapes. For origins that take names with slashes in one segment.
    ///
    /// Refused all the same when an origin that decodes them would find a dot segment.
    Keep,
    /// They are slashes.
    Decode,
}

/// Why a path has no normal form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// A `%` without two hexadecimal digits.
    #[error("the path has a broken escape")]
    Escape,
    /// A control byte, as it is or escaped.
    #[error("the path has a control byte")]
    Control,
    /// A character that no path has: `"`, `<`, `>`, `` ` ``; or one beyond ASCII, in the query too.
    #[error("the target has a character that must be escaped")]
    Character,
    /// A slash in disguise, where those are refused.
    #[error("the path has an encoded slash")]
    Slash,
    /// A dot segment above the root, or one that carries something.
    #[error("the path has a dot segment that leads nowhere good")]
    DotSegment,
}

/// The normal form of a target; nothing if it is in that form already.
///
/// # Errors
/// When the path has none.
pub fn normalise(target: &PathAndQuery, slashes: Slashes) -> Result<Option<PathAndQuery>, BadPath> {
    let (path, query) = (target.path(), target.query());
    if query.is_some_and(|query| !query.is_ascii()) {
        return Err(BadPath::Character);
    }
    if path == "*" || (is_normal(path.as_bytes()) && target.as_str().starts_with('/')) {
        return Ok(None);
    }
    let mut normal = resolve(&decode(path.as_bytes(), slashes)?)?;
    if let Some(query) = query {
        normal.push(b'?');
        normal.extend_from_slice(query.as_bytes());
    }
    PathAndQuery::from_maybe_shared(Bytes::from(normal)).map(Some).map_err(|_| BadPath::Control)
}

fn is_normal(path: &[u8]) -> bool {
    let mut rest = path;
    while let Some((special, after)) = rest.get(scan::plain(rest, 0)..).and_then(<[u8]>::split_first) {
        rest = match (special, after.split_first_chunk()) {
            (b'/', _) if !begins_oddly(after) => after,
            (b'%', Some((digits, after))) if is_needed(digits) => after,
            (byte, _) if is_plain(*byte) => after,
            _ => return false,
        };
    }
    true
}

/// Whether another slash or a dot segment follows a slash.
fn begins_oddly(after: &[u8]) -> bool {
    match after.first() {
        Some(b'/') => true,
        Some(b'.') => is_dots(stem(after.split(|byte| *byte == b'/').next().unwrap_or_default())),
        _ => false,
    }
}

/// Whether these digits are an escape in its one form. A slash's take the long way: what is between two may be dots.
fn is_needed([high, low]: &[u8; 2]) -> bool {
    let value = hex(Some(high), Some(low)).filter(|_| !high.is_ascii_lowercase() && !low.is_ascii_lowercase());
    value.is_some_and(|value| !value.is_ascii_control() && !is_unreserved(value) && !matches!(value, b'/' | b'\\'))
}

/// Undoes what escapes need not hide, and writes the others in one form.
fn decode(path: &[u8], slashes: Slashes) -> Result<Vec<u8>, BadPath> {
    let mut out = Vec::with_capacity(path.len() + 8);
    let mut bytes = path.iter();
    while let Some(&byte) = bytes.next() {
        let escaped = byte == b'%';
        let value = if escaped { hex(bytes.next(), bytes.next()).ok_or(BadPath::Escape)? } else { byte };
        match value {
            0..=0x1f | 0x7f => return Err(BadPath::Control),
            b'"' | b'<' | b'>' | b'`' | 0x80.. if !escaped => return Err(BadPath::Character),
            b'/' if !escaped => out.push(b'/'),
            b'/' | b'\\' => match slashes {
                Slashes::Reject => return Err(BadPath::Slash),
                Slashes::Keep => escape(value, &mut out),
                Slashes::Decode => out.push(b'/'),
            },
            _ if is_unreserved(value) || (!escaped && is_plain(value)) => out.push(value),
            _ => escape(value, &mut out),
        }
    }
    Ok(out)
}

/// Takes away dot segments and empty ones.
fn resolve(path: &[u8]) -> Result<Vec<u8>, BadPath> {
    let mut out = Vec::with_capacity(path.len() + 1);
    let mut open = false;
    for segment in path.split(|byte| *byte == b'/') {
        open = matches!(segment, b"" | b"." | b"..");
        match segment {
            b"" | b"." => {}
            b".." => {
                let parent = out.iter().rposition(|byte| *byte == b'/').ok_or(BadPath::DotSegment)?;
                out.truncate(parent);
            }
            _ if hides_dots(segment) => return Err(BadPath::DotSegment),
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
    }
    if open {
        out.push(b'/');
    }
    Ok(out)
}

/// Whether an origin that drops parameters, or decodes slashes, would find a dot segment in this one.
fn hides_dots(segment: &[u8]) -> bool {
    let mut rest = segment;
    while let Some(at) = rest.windows(3).position(|escape| escape == b"%2F" || escape == b"%5C") {
        if rest.get(..at).is_some_and(|piece| is_dots(stem(piece))) {
            return true;
        }
        rest = rest.get(at + 3..).unwrap_or_default();
    }
    is_dots(stem(rest))
}

fn is_dots(segment: &[u8]) -> bool {
    matches!(segment, b"." | b"..")
}

/// A segment without its parameters.
fn stem(segment: &[u8]) -> &[u8] {
    segment.split(|byte| *byte == b';').next().unwrap_or_default()
}

fn hex(high: Option<&u8>, low: Option<&u8>) -> Option<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high?)? << 4 | digit(low?)?)
}

fn escape(byte: u8, out: &mut Vec<u8>) {
    let digit = |value: u8| if value < 10 { b'0' + value } else { b'A' + value - 10 };
    out.extend([b'%', digit(byte >> 4), digit(byte & 0xf)]);
}

/// Characters whose escapes mean the same as themselves (RFC 3986 §2.3).
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Characters that stand for themselves in a segment: `pchar` of RFC 3986 §3.3 without escapes.
fn is_plain(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(path: &str, slashes: Slashes) -> String {
        let target = PathAndQuery::try_from(path).unwrap();
        match normalise(&target, slashes) {
            Ok(None) => "=".to_owned(),
            Ok(Some(normal)) => {
                assert_eq!(
                    normalise(&normal, slashes).map(|again| again.unwrap_or(normal.clone())),
                    Ok(normal.clone())
                );
                normal.to_string()
            }
            Err(error) => format!("{error:?}"),
        }
    }

    #[test]
    fn what_is_equivalent_becomes_equal() {
        for (path, want) in [
            ("/", "="),
            ("*", "="),
            ("/a/b.c/-_~!$&'()*+,;=:@?q=%zz/../", "="),
            ("/.well-known/x/..a/...", "="),
            ("/caf%C3%A9/%20%25", "="),
            ("/a;x=1/b", "="),
            ("//", "/"),
            ("//a///b//", "/a/b/"),
            ("/./a/./b/.", "/a/b/"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/../", "/a/"),
            ("/a/b/../..", "/"),
            ("/a//../b", "/b"),
            ("/%61%2d%7E", "/a-~"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/%2e/a", "/a"),
            ("/a/%2E%2e/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/%252e%252e/a", "/%252e%252e/a"),
            ("/a[1]|{}^", "/a%5B1%5D%7C%7B%7D%5E"),
            ("/a%3b%3F", "/a%3B%3F"),
            ("/a/../?x=/../y", "/?x=/../y"),
            ("?x", "/?x"),
        ] {
            let want = if want == path { "=" } else { want };
            assert_eq!(shown(path, Slashes::Reject), want, "{path}");
        }
    }

    #[test]
    fn what_has_no_good_reading_is_refused() {
        for (path, want) in [
            ("/%", "Escape"),
            ("/%2", "Escape"),
            ("/%zz", "Escape"),
            ("/%%32e", "Escape"),
            ("/%2%65", "Escape"),
            ("/%u002e", "Escape"),
            ("/a%00", "Control"),
            ("/a%0d%0ab", "Control"),
            ("/a%7f", "Control"),
            ("/caf\u{e9}", "Character"),
            ("/a\"", "Character"),
            ("/a?\u{e9}", "Character"),
            ("/..", "DotSegment"),
            ("/a/../../b", "DotSegment"),
            ("/%2e%2e/a", "DotSegment"),
            ("/a/..;/b", "DotSegment"),
            ("/a/..;x=1/b", "DotSegment"),
            ("/a/.;/b", "DotSegment"),
            ("/a/%2e%2E;/b", "DotSegment"),
            ("/a%2fb", "Slash"),
            ("/a%5Cb", "Slash"),
            ("/a\\b", "Slash"),
        ] {
            assert_eq!(shown(path, Slashes::Reject), want, "{path}");
        }
    }

    #[test]
    fn slashes_in_disguise_are_kept_or_decoded_where_a_listener_says_so() {
        for (path, kept, decoded) in [
            ("/a%2fb", "/a%2Fb", "/a/b"),
            ("/a%2Fb", "/a%2Fb", "/a/b"),
            ("/a%5cb", "/a%5Cb", "/a/b"),
            ("/a\\b", "/a%5Cb", "/a/b"),
            ("/a%2f%2fb", "/a%2F%2Fb", "/a/b"),
            ("/a/%2e%2e%2fb", "DotSegment", "/b"),
            ("/a/..%2fb", "DotSegment", "/b"),
            ("/a%2f..%2fb", "DotSegment", "/b"),
            ("/a%2f..", "DotSegment", "/"),
            ("/a%5c.%5cb", "DotSegment", "/a/b"),
            ("/%2f../a", "DotSegment", "DotSegment"),
            ("/a%2f..;b", "DotSegment", "DotSegment"),
            ("/a%2f...b", "/a%2F...b", "/a/...b"),
        ] {
            assert_eq!(shown(path, Slashes::Keep), kept, "{path} kept");
            assert_eq!(shown(path, Slashes::Decode), decoded, "{path} decoded");
        }
    }
}
