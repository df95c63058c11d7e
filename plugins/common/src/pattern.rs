//! Paths with names for segments: `/v1/orders/{id}`, `/files/*`.
//!
//! Of several patterns that fit a path, the one is meant that says most about it: a literal segment says more than a named one, and
//! that more than the rest ([`Pattern::precedence`]).

use std::cmp::Ordering;

use crate::percent;

/// A path with names for segments; `*` at the end is the rest, captured as `rest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Text(String),
    Named(String),
    Rest,
}

/// What names stand for in a path, decoded.
pub type Captures = Vec<(String, String)>;

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a path such as /v1/orders/{{id}} or /v1/*");
        let path = text.strip_prefix('/').ok_or_else(wrong)?;
        let mut segments: Vec<Segment> = Vec::new();
        for part in path.split('/') {
            if segments.last() == Some(&Segment::Rest) {
                return Err(wrong());
            }
            let name = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
            segments.push(match (part, name) {
                ("*", _) => Segment::Rest,
                (_, Some(name)) if !name.is_empty() => Segment::Named(name.to_owned()),
                (part, None) if !part.contains(['{', '}', '*', '?', '#']) => Segment::Text(part.to_owned()),
                _ => return Err(wrong()),
            });
        }
        Ok(Self(segments))
    }

    /// The names that it captures.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|segment| match segment {
            Segment::Text(_) => None,
            Segment::Named(name) => Some(name.as_str()),
            Segment::Rest => Some("rest"),
        })
    }

    /// The one that says more is less: sorted so, the first that fits is the one that is meant. Equal are those that fit the same paths.
    #[must_use]
    pub fn precedence(&self, other: &Self) -> Ordering {
        fn rank(segment: &Segment) -> (u8, &str) {
            match segment {
                Segment::Text(text) => (0, text),
                Segment::Named(_) => (1, ""),
                Segment::Rest => (2, ""),
            }
        }
        self.0.iter().map(rank).cmp(other.0.iter().map(rank))
    }

    /// Whether it fits every path that the other fits.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let mut others = other.0.iter();
        for segment in &self.0 {
            match (segment, others.next()) {
                (Segment::Rest, Some(_)) => return true,
                (Segment::Text(own), Some(Segment::Text(text))) if own == text => {}
                // A name stands for something, and between two slashes there may be nothing.
                (Segment::Named(_), Some(Segment::Text(text))) if !text.is_empty() => {}
                (Segment::Named(_), Some(Segment::Named(_))) => {}
                (Segment::Text(_) | Segment::Named(_), Some(_)) | (_, None) => return false,
            }
        }
        others.next().is_none()
    }

    /// Of a pattern with a rest, the path that has none of it, not even the `/` in front: `/orders` of `/orders/*`, which it does not
    /// fit. Of `/*` and of patterns without a rest there is none.
    #[must_use]
    pub fn without_rest(&self) -> Option<Self> {
        match self.0.split_last() {
            Some((Segment::Rest, before)) if !before.is_empty() => Some(Self(before.to_vec())),
            Some(_) | None => None,
        }
    }

    /// What its names stand for in a path; nothing where the path is another one.
    #[must_use]
    pub fn captures(&self, path: &str) -> Option<Captures> {
        let mut rest = Some(path.strip_prefix('/')?);
        let mut captures = Vec::new();
        for segment in &self.0 {
            let here = rest?;
            if *segment == Segment::Rest {
                captures.push(("rest".to_owned(), decoded(here)));
                return Some(captures);
            }
            let (first, after) = here.split_once('/').map_or((here, None), |(first, after)| (first, Some(after)));
            match segment {
                Segment::Text(text) if text == first => {}
                Segment::Named(name) if !first.is_empty() => captures.push((name.clone(), decoded(first))),
                Segment::Text(_) | Segment::Named(_) | Segment::Rest => return None,
            }
            rest = after;
        }
        rest.is_none().then_some(captures)
    }
}

fn decoded(text: &str) -> String {
    String::from_utf8_lossy(&percent::decoded(text.as_bytes(), false)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_captures_what_its_names_stand_for() {
        let captured = |pattern: &str, path: &str| {
            let captures = Pattern::parse(pattern).unwrap().captures(path)?;
            Some(captures.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "))
        };
        for (pattern, path, want) in [
            ("/v1/orders/{id}", "/v1/orders/7", Some("id=7")),
            ("/v1/orders/{id}", "/v1/orders/a%20b+c", Some("id=a b+c")),
            ("/v1/orders/{id}", "/v1/orders/", None),
            ("/v1/orders/{id}", "/v1/orders/7/lines", None),
            ("/v1/*", "/v1/a/b", Some("rest=a/b")),
            ("/v1/*", "/v1", None),
            ("/*", "/", Some("rest=")),
            ("/{a}/{b}", "/1/2", Some("a=1 b=2")),
            ("/", "/", Some("")),
        ] {
            assert_eq!(captured(pattern, path).as_deref(), want, "{pattern} {path}");
        }
        for wrong in ["v1", "/a*", "/{}", "/*/a", "/a?b", "/{a"] {
            assert!(Pattern::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_pattern_covers_those_it_says_less_than() {
        for (one, other, want) in [
            ("/*", "/", true),
            ("/*", "/a/{b}", true),
            ("/a/*", "/a", false),
            ("/a/*", "/a/", true),
            ("/a/{b}", "/a/{c}", true),
            ("/a/{b}", "/a/c", true),
            ("/a/{b}", "/a/", false),
            ("/a/{b}", "/a/b/c", false),
            ("/a/{b}", "/a/*", false),
            ("/a/b", "/a/{b}", false),
            ("/a", "/a", true),
        ] {
            assert_eq!(Pattern::parse(one).unwrap().covers(&Pattern::parse(other).unwrap()), want, "{one} {other}");
        }
    }

    #[test]
    fn what_a_rest_is_of_is_a_path_of_its_own() {
        for (pattern, want) in [("/a/*", Some("/a")), ("/a/{b}/*", Some("/a/{b}")), ("/*", None), ("/a", None)] {
            let pattern = Pattern::parse(pattern).unwrap();
            assert_eq!(pattern.without_rest(), want.map(|path| Pattern::parse(path).unwrap()));
        }
    }

    #[test]
    fn the_pattern_that_says_most_is_the_first() {
        let pattern = |text: &str| Pattern::parse(text).unwrap();
        let mut patterns = ["/{x}/*", "/*", "/{y}/b", "/a/*", "/a/{b}", "/a/b"].map(pattern);
        patterns.sort_by(Pattern::precedence);
        let firsts = ["/a/b", "/a/c", "/a/b/c", "/x/b", "/x/c", "/x"]
            .map(|path| patterns.iter().position(|pattern| pattern.captures(path).is_some()));
        assert_eq!(firsts, [0, 1, 2, 3, 4, 5].map(Some));
        for (one, other, same) in [("/a/{b}", "/a/{c}", true), ("/a/{b}", "/a/b", false), ("/a", "/a/b", false)] {
            assert_eq!(pattern(one).precedence(&pattern(other)).is_eq(), same, "{one} {other}");
        }
    }
}
