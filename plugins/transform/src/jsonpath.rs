//! JSONPath (RFC 9535): queries for places of a document.
//!
//! All of it but Unicode's character classes (`\p{…}`) in the patterns of `match` and `search`, which would need tables larger
//! than this module.
//!
//! **Invariant:** a query visits at most [`MAX_VISITS`] values, so what it costs does not depend on how it and the document
//! were made to fit each other.

mod eval;
mod parse;

use regex_lite::Regex;
use serde_json::Value;

/// How many values a query may look at.
pub(crate) const MAX_VISITS: usize = 200_000;

/// A query from the document's root.
#[derive(Clone, Debug)]
pub(crate) struct Query(Vec<Segment>);

/// The query would have looked at more than [`MAX_VISITS`] values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooCostly;

#[derive(Clone, Debug)]
struct Segment {
    reach: Reach,
    selectors: Vec<Selector>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Children,
    Descendants,
}

#[derive(Clone, Debug)]
enum Selector {
    Name(String),
    Wildcard,
    Index(i64),
    Slice { start: Option<i64>, end: Option<i64>, step: i64 },
    Filter(Logical),
}

#[derive(Clone, Debug)]
enum Logical {
    Or(Vec<Logical>),
    And(Vec<Logical>),
    Not(Box<Logical>),
    Exists(Inner),
    Compare(Operand, Comparison, Operand),
    Matches(Box<Operand>, Pattern),
}

/// A query inside a filter: from the value that is filtered (`@`), or from the root (`$`).
#[derive(Clone, Debug)]
struct Inner {
    from: From,
    segments: Vec<Segment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Root,
    Current,
}

#[derive(Clone, Debug)]
enum Operand {
    Literal(Value),
    Query(Inner),
    Length(Box<Operand>),
    Count(Inner),
    Value(Inner),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What a text has to look like.
#[derive(Clone, Debug)]
enum Pattern {
    Fixed(Regex),
    /// It is in the document, for `match` with the ends of the text, for `search` without.
    Found(Box<Operand>, Extent),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    Whole,
    Part,
}

impl Query {
    /// The query for the objects that have the values it finds as fields, with the fields' name; where it ends with a name.
    pub(crate) fn parents(&self) -> Option<(Self, &str)> {
        let (last, rest) = self.0.split_last()?;
        match last.selectors.as_slice() {
            [Selector::Name(name)] if last.reach == Reach::Children => Some((Self(rest.to_vec()), name)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
