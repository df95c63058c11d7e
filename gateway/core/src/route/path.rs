//! Path patterns: literal segments, `{template}` segments, and a `*` at the end.
//!
//! `/orders/{id}` matches `/orders/7`: a template is one whole segment, never an empty one. `/orders` and `/orders/` are
//! different paths. `/api/*` matches whatever is below `/api`, `/api/` included, and `/api` itself, so that filters put
//! on a subtree cannot be walked around at its root; a rule for `/api` is more specific and may say otherwise. `/*`
//! matches everything.
//!
//! **Invariant:** a pattern can be met by a normalised path, or it is refused: what normalisation takes away (RFC 3986
//! §6.2.2: dot segments, needless escapes, small hexadecimal digits; empty segments) never stands in one.

use std::fmt;

/// Bounds how deep lookups recurse. Real APIs stay below twenty.
const MAX_SEGMENTS: usize = 64;

/// Which paths a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    text: String,
    pub(super) segments: Vec<Segment>,
    pub(super) end: End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// Empty only as the last one: a trailing slash.
    Literal(Box<str>),
    Template,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Here,
    /// A `*` follows.
    OrBelow,
}

/// Why a text is not a path pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathPatternError {
    /// No slash at the front.
    #[error("a path begins with `/`")]
    NotAbsolute,
    /// Too many segments.
    #[error("a path has at most {MAX_SEGMENTS} segments")]
    TooDeep,
    /// Two slashes in a row.
    #[error("`//` never matches: empty segments are removed from requests")]
    EmptySegment,
    /// `.` or `..`.
    #[error("`{0}` never matches: dot segments are resolved in requests")]
    DotSegment(String),
    /// A star that is not the whole last segment.
    #[error("`*` can only be the whole last segment, as in `/api/*`; one segment in the middle is `{{name}}`")]
    Wildcard,
    /// A brace that does not enclose a whole segment with a name.
    #[error("`{0}` is not a template: one is a whole segment, `{{name}}`, of letters, digits, `_` and `-`")]
    Template(String),
    /// A name used twice.
    #[error("`{{{0}}}` is there twice")]
    Repeated(String),
    /// `?` or `#`.
    #[error("a path has no `{0}`: query parameters are conditions of their own")]
    Query(char),
    /// A `%` that a normalised path does not have.
    #[error("`{0}` never matches: `%` begins an escape of two upper-case digits, and only where one is needed")]
    Escape(String),
    /// A character paths do not have.
    #[error("{0:?} cannot be in a path unless escaped as `%` and two digits per byte")]
    Character(char),
}

impl PathPattern {
    /// Reads a pattern as an operator writes it.
    pub fn parse(text: &str) -> Result<Self, PathPatternError> {
        let mut rest = text.strip_prefix('/').ok_or(PathPatternError::NotAbsolute)?;
        let mut end = End::Here;
        if rest == "*" {
            return Ok(Self { text: text.into(), segments: Vec::new(), end: End::OrBelow });
        }
        if let Some(above) = rest.strip_suffix("/*") {
            (rest, end) = (above, End::OrBelow);
        }
        let parts: Vec<_> = rest.split('/').collect();
        if parts.len() > MAX_SEGMENTS {
            return Err(PathPatternError::TooDeep);
        }
        // A slash at the very end is a segment of its own, and the only empty one there can be.
        let (last, front) = parts.split_last().unwrap_or((&"", &[]));
        if front.contains(&"") || (last.is_empty() && end == End::OrBelow) {
            return Err(PathPatternError::EmptySegment);
        }
        if let Some((_, name)) = parts.iter().enumerate().find(|(at, part)| is_repeated(&parts, *at, part)) {
            return Err(PathPatternError::Repeated(name.trim_matches(['{', '}']).into()));
        }
        let segments = parts.into_iter().map(Segment::parse).collect::<Result<_, _>>()?;
        Ok(Self { text: text.into(), segments, end })
    }

    /// The pattern as written, which is also how logs and metrics name the route.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn is_repeated(parts: &[&str], at: usize, part: &str) -> bool {
    part.starts_with('{') && parts.iter().take(at).any(|earlier| *earlier == part)
}

impl Segment {
    fn parse(part: &str) -> Result<Self, PathPatternError> {
        match part {
            "." | ".." => return Err(PathPatternError::DotSegment(part.into())),
            _ if part.contains('*') => return Err(PathPatternError::Wildcard),
            _ if part.contains(['{', '}']) => return template(part),
            _ => {}
        }
        let mut rest = part;
        while let Some(character) = rest.chars().next() {
            let len = if character == '%' { escape(rest)? } else { literal(character)? };
            rest = rest.split_at(len).1;
        }
        Ok(Self::Literal(part.into()))
    }
}

fn template(part: &str) -> Result<Segment, PathPatternError> {
    let name = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')).unwrap_or_default();
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if name.is_empty() || !name.bytes().all(letter) {
        return Err(PathPatternError::Template(part.into()));
    }
    Ok(Segment::Template)
}

/// Length of the escape at the front of `text`.
fn escape(text: &str) -> Result<usize, PathPatternError> {
    const LEN: usize = 3;
    let escape: String = text.chars().take(LEN).collect();
    let digits =
        escape.strip_prefix('%').filter(|digits| digits.bytes().all(|d| matches!(d, b'0'..=b'9' | b'A'..=b'F')));
    let byte = digits.filter(|digits| digits.len() == 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    match byte {
        Some(byte) if !unreserved(byte) => Ok(LEN),
        _ => Err(PathPatternError::Escape(escape)),
    }
}

/// Length of a character that stands for itself: `pchar` of RFC 3986 §3.3.
fn literal(character: char) -> Result<usize, PathPatternError> {
    match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' => Ok(1),
        '-' | '.' | '_' | '~' | '!' | '$' | '&' | '\'' | '(' | ')' | '+' | ',' | ';' | '=' | ':' | '@' => Ok(1),
        '?' | '#' => Err(PathPatternError::Query(character)),
        _ => Err(PathPatternError::Character(character)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_patterns_keep_their_text() {
        for text in
            ["/", "/*", "/a", "/a/", "/a/*", "/{x}", "/a/{order-id}/b_/*", "/v1:get;a=b,c", "/caf%C3%A9", "/..."]
        {
            assert_eq!(PathPattern::parse(text).map(|pattern| pattern.as_str().to_owned()), Ok(text.to_owned()));
        }
        assert!(PathPattern::parse(&"/a".repeat(MAX_SEGMENTS)).is_ok());
    }

    #[test]
    fn bad_patterns_are_refused_with_the_reason() {
        use PathPatternError as E;
        for (text, want) in [
            ("", E::NotAbsolute),
            ("a/b", E::NotAbsolute),
            ("*", E::NotAbsolute),
            ("//", E::EmptySegment),
            ("/a//b", E::EmptySegment),
            ("//*", E::EmptySegment),
            ("/a//*", E::EmptySegment),
            ("/a/../b", E::DotSegment("..".into())),
            ("/.", E::DotSegment(".".into())),
            ("/*/a", E::Wildcard),
            ("/a*", E::Wildcard),
            ("/a/**", E::Wildcard),
            ("/{}", E::Template("{}".into())),
            ("/{*rest}", E::Wildcard),
            ("/v{n}", E::Template("v{n}".into())),
            ("/{a}{b}", E::Template("{a}{b}".into())),
            ("/a}", E::Template("a}".into())),
            ("/{a b}", E::Template("{a b}".into())),
            ("/{a}/x/{a}", E::Repeated("a".into())),
            ("/a?b=1", E::Query('?')),
            ("/a#b", E::Query('#')),
            ("/%", E::Escape("%".into())),
            ("/%2", E::Escape("%2".into())),
            ("/%2fa", E::Escape("%2f".into())),
            ("/%+Fa", E::Escape("%+F".into())),
            ("/%2Ea", E::Escape("%2E".into())),
            ("/%é1", E::Escape("%é1".into())),
            ("/a b", E::Character(' ')),
            ("/a\\b", E::Character('\\')),
            ("/café", E::Character('é')),
        ] {
            assert_eq!(PathPattern::parse(text), Err(want), "{text}");
        }
        assert_eq!(PathPattern::parse(&"/a".repeat(MAX_SEGMENTS + 1)), Err(E::TooDeep));
    }
}
