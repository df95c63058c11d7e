//! Host patterns, and a table that finds the patterns a host matches, most specific first.
//!
//! `api.example.com` is that host, `*.example.com` any host below it at any depth but not `example.com` itself, `*` any
//! host at all. Case, a port and a trailing dot do not count; IPv6 addresses are compared as addresses.
//!
//! Whether a request's host is well formed is for the listener to say; here a strange one merely matches `*`.

use core::net::Ipv6Addr;
use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Longest name in text form without its trailing dot (RFC 1035 §2.3.4).
const MAX_NAME: usize = 253;
/// Longest label (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

/// Which hosts a rule or an owner is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPattern(Kind);

/// Names are in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Exact(Box<str>),
    /// What follows `*.`.
    Below(Box<str>),
    Any,
}

/// Why a text is not a host pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostPatternError {
    /// Nothing there.
    #[error("a host cannot be empty; `*` is any host")]
    Empty,
    /// More than a name can have.
    #[error("a host has at most {MAX_NAME} bytes")]
    TooLong,
    /// Letters beyond ASCII.
    #[error("write the host in its ASCII form (`xn--…`), as it is in requests")]
    NotAscii,
    /// A star somewhere else than as the whole first label.
    #[error("`*` stands for whole labels at the front: `*.example.com`, or `*` alone for any host")]
    Wildcard,
    /// A colon in a name.
    #[error("a host has no port or scheme here: the port of a request is not compared")]
    Port,
    /// Brackets without an IPv6 address in them.
    #[error("`[…]` holds an IPv6 address without zone")]
    Address,
    /// A label that no name can have.
    #[error("`{0}` cannot be part of a host: 1 to {MAX_LABEL} letters, digits, `-` and `_` between dots")]
    Label(String),
}

impl HostPattern {
    /// `*`, which matches every host.
    pub const ANY: Self = Self(Kind::Any);

    /// Reads a pattern as an operator writes it.
    pub fn parse(text: &str) -> Result<Self, HostPatternError> {
        if text == "*" {
            return Ok(Self::ANY);
        }
        if text.is_empty() {
            return Err(HostPatternError::Empty);
        }
        if !text.is_ascii() {
            return Err(HostPatternError::NotAscii);
        }
        if text.starts_with('[') {
            let address = bracketed(text).ok_or(HostPatternError::Address)?;
            return Ok(Self(Kind::Exact(format!("[{address}]").into())));
        }
        match text.strip_prefix("*.") {
            Some(suffix) => Ok(Self(Kind::Below(name(suffix)?))),
            None => Ok(Self(Kind::Exact(name(text)?))),
        }
    }
}

impl HostPattern {
    /// Whether every host that the other is about is one that this is about.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let is_below = |name: &str, suffix: &str| name.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'));
        match (&self.0, &other.0) {
            (Kind::Any, _) => true,
            (Kind::Below(suffix), Kind::Exact(name)) => is_below(name, suffix),
            (Kind::Below(suffix), Kind::Below(name)) => name == suffix || is_below(name, suffix),
            (Kind::Exact(name), Kind::Exact(other)) => name == other,
            (Kind::Below(_) | Kind::Exact(_), _) => false,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Exact(name) => f.write_str(name),
            Kind::Below(suffix) => write!(f, "*.{suffix}"),
            Kind::Any => f.write_str("*"),
        }
    }
}

fn name(text: &str) -> Result<Box<str>, HostPatternError> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.contains('*') {
        return Err(HostPatternError::Wildcard);
    }
    if name.contains(':') {
        return Err(HostPatternError::Port);
    }
    if name.len() > MAX_NAME {
        return Err(HostPatternError::TooLong);
    }
    let fits = |label: &str| {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(letter)
    };
    match name.split('.').find(|label| !fits(label)) {
        Some(label) => Err(HostPatternError::Label(label.into())),
        None => Ok(name.to_ascii_lowercase().into()),
    }
}

fn bracketed(text: &str) -> Option<Ipv6Addr> {
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// A request's host in the form patterns have, on the stack.
///
/// Only the last bytes of an over-long one are kept. They are more than any pattern has, so it equals none of them, and
/// yet is found below its wildcard.
pub(crate) struct HostName {
    bytes: [u8; MAX_NAME + 2],
    len: usize,
}

impl HostName {
    pub(crate) fn read(authority: &str) -> Self {
        let host = without_port(authority);
        let mut name = Self { bytes: [0; MAX_NAME + 2], len: 0 };
        match bracketed(host) {
            // Cannot fail: an address is shorter than the room there is.
            Some(address) => _ = fmt::Write::write_fmt(&mut name, format_args!("[{address}]")),
            None => name.push(host.strip_suffix('.').unwrap_or(host).as_bytes()),
        }
        name
    }

    fn push(&mut self, text: &[u8]) {
        let (_, room) = self.bytes.split_at_mut(self.len);
        let (_, tail) = text.split_at(text.len().saturating_sub(room.len()));
        for (to, from) in room.iter_mut().zip(tail) {
            *to = from.to_ascii_lowercase();
        }
        self.len += tail.len();
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.split_at(self.len).0
    }
}

impl fmt::Write for HostName {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && is_whole(host) => host,
        _ => authority,
    }
}

/// Whether this can be a host on its own, and not the front of an IPv6 address.
fn is_whole(host: &str) -> bool {
    if host.starts_with('[') { host.ends_with(']') } else { !host.contains(':') }
}

/// Values by host pattern.
#[derive(Clone, Debug)]
pub(super) struct HostTable<V> {
    /// Keys are shared with the tables that are copies of this one.
    exact: HashMap<Arc<[u8]>, V>,
    below: HashMap<Arc<[u8]>, V>,
    /// Length of the longest key in `below`, so that a name made of dots costs no more than others.
    longest_below: usize,
    any: Option<V>,
}

impl<V> Default for HostTable<V> {
    fn default() -> Self {
        Self { exact: HashMap::new(), below: HashMap::new(), longest_below: 0, any: None }
    }
}

impl<V> HostTable<V> {
    /// The value of a pattern, made if it is not there.
    pub(super) fn slot(&mut self, pattern: &HostPattern, make: impl FnOnce() -> V) -> &mut V {
        match &pattern.0 {
            Kind::Exact(name) => self.exact.entry(name.as_bytes().into()).or_insert_with(make),
            Kind::Below(suffix) => {
                self.longest_below = self.longest_below.max(suffix.len());
                self.below.entry(suffix.as_bytes().into()).or_insert_with(make)
            }
            Kind::Any => self.any.get_or_insert_with(make),
        }
    }

    /// Takes a pattern out, with its value.
    pub(super) fn remove(&mut self, pattern: &HostPattern) -> Option<V> {
        match &pattern.0 {
            Kind::Exact(name) => self.exact.remove(name.as_bytes()),
            Kind::Below(suffix) => {
                let removed = self.below.remove(suffix.as_bytes());
                if suffix.len() == self.longest_below {
                    self.longest_below = self.below.keys().map(|suffix| suffix.len()).max().unwrap_or_default();
                }
                removed
            }
            Kind::Any => self.any.take(),
        }
    }

    /// The same patterns with other values, but for those that are given none.
    pub(super) fn filter_map<W>(self, mut value: impl FnMut(V) -> Option<W>) -> HostTable<W> {
        let Self { exact, below, longest_below, any } = self;
        let mut all = |values: HashMap<Arc<[u8]>, V>| {
            values.into_iter().filter_map(|(name, old)| Some((name, value(old)?))).collect()
        };
        let (exact, below) = (all(exact), all(below));
        HostTable { exact, below, longest_below, any: any.and_then(value) }
    }

    /// The values of all patterns that match a host, most specific first. The name is not read where no pattern has one.
    pub(super) fn levels<'v>(&'v self, host: &'v impl Deref<Target = HostName>) -> impl Iterator<Item = &'v V> {
        let has_names = !self.exact.is_empty() || !self.below.is_empty();
        let host = has_names.then(|| host.as_bytes());
        let exact = host.and_then(|host| self.exact.get(host));
        exact.into_iter().chain(host.into_iter().flat_map(|host| self.above(host))).chain(&self.any)
    }

    /// The value of the most specific pattern that matches every host the given one does.
    pub(super) fn covering<'v>(&'v self, pattern: &HostPattern) -> Option<&'v V> {
        let found = match &pattern.0 {
            Kind::Exact(name) => self.exact.get(name.as_bytes()).or_else(|| self.above(name.as_bytes()).next()),
            Kind::Below(name) => self.below.get(name.as_bytes()).or_else(|| self.above(name.as_bytes()).next()),
            Kind::Any => None,
        };
        found.or(self.any.as_ref())
    }

    /// The values of all patterns that match every host the given one does, most specific first.
    pub(super) fn all_covering<'v>(&'v self, pattern: &HostPattern) -> impl Iterator<Item = &'v V> {
        let (own, name) = match &pattern.0 {
            Kind::Exact(name) => (self.exact.get(name.as_bytes()), name.as_bytes()),
            Kind::Below(name) => (self.below.get(name.as_bytes()), name.as_bytes()),
            Kind::Any => (None, &[][..]),
        };
        own.into_iter().chain(self.above(name).collect::<Vec<_>>()).chain(&self.any)
    }

    /// Every pattern with its value, in any order.
    pub(super) fn patterns(&self) -> impl Iterator<Item = (HostPattern, &V)> {
        // Keys are names that were patterns.
        let text = |name: &[u8]| Box::from(String::from_utf8_lossy(name));
        let exact = self.exact.iter().map(move |(name, value)| (HostPattern(Kind::Exact(text(name))), value));
        let below = self.below.iter().map(move |(name, value)| (HostPattern(Kind::Below(text(name))), value));
        exact.chain(below).chain(self.any.iter().map(|value| (HostPattern::ANY, value)))
    }

    /// The wildcards a name is below, longest first.
    fn above<'v>(&'v self, name: &[u8]) -> impl Iterator<Item = &'v V> {
        let dots = name.iter().enumerate().filter(|(_, byte)| **byte == b'.');
        let suffixes = dots.filter_map(move |(dot, _)| name.get(dot + 1..));
        suffixes.filter(|suffix| suffix.len() <= self.longest_below).filter_map(|suffix| self.below.get(suffix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::LazyCell;

    #[test]
    fn a_pattern_covers_what_is_not_beyond_it() {
        let covers =
            |one: &str, other: &str| HostPattern::parse(one).unwrap().covers(&HostPattern::parse(other).unwrap());
        for (one, other) in [
            ("*", "a.test"),
            ("*", "*"),
            ("a.test", "A.test"),
            ("*.a.test", "b.a.test"),
            ("*.a.test", "*.a.test"),
            ("*.a.test", "*.c.b.a.test"),
        ] {
            assert!(covers(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("a.test", "*.a.test"),
            ("*.a.test", "a.test"),
            ("*.a.test", "ba.test"),
            ("*.a.test", "*.test"),
            ("a.test", "*"),
        ] {
            assert!(!covers(one, other), "{one} {other}");
        }
    }

    #[test]
    fn patterns_are_read_in_one_form_or_refused_with_the_reason() {
        let long = "a.".repeat(127);
        let label = "a".repeat(64);
        for (text, want) in [
            ("*", Ok("*")),
            ("Example.COM.", Ok("example.com")),
            ("*.Example.com", Ok("*.example.com")),
            ("localhost", Ok("localhost")),
            ("10.0.0.1", Ok("10.0.0.1")),
            ("[2001:DB8:0:0::1]", Ok("[2001:db8::1]")),
            ("_dmarc.example-1.com", Ok("_dmarc.example-1.com")),
            (long.as_str(), Ok(long.trim_end_matches('.'))),
            ("", Err(HostPatternError::Empty)),
            ("bücher.example", Err(HostPatternError::NotAscii)),
            ("a.*.com", Err(HostPatternError::Wildcard)),
            ("*.*.com", Err(HostPatternError::Wildcard)),
            ("a*.com", Err(HostPatternError::Wildcard)),
            ("example.com:80", Err(HostPatternError::Port)),
            ("http://example.com", Err(HostPatternError::Port)),
            ("[::1]:80", Err(HostPatternError::Address)),
            ("[::1%eth0]", Err(HostPatternError::Address)),
            ("::1", Err(HostPatternError::Port)),
            ("a..com", Err(HostPatternError::Label(String::new()))),
            ("*.", Err(HostPatternError::Label(String::new()))),
            (".", Err(HostPatternError::Label(String::new()))),
            ("a/b", Err(HostPatternError::Label("a/b".into()))),
            (label.as_str(), Err(HostPatternError::Label(label.clone()))),
            (&format!("{long}a.a"), Err(HostPatternError::TooLong)),
        ] {
            let read = HostPattern::parse(text).map(|pattern| pattern.to_string());
            assert_eq!(read, want.map(String::from), "{text}");
        }
    }

    #[test]
    fn a_hosts_name_is_read_without_port_dot_and_case() {
        for (authority, want) in [
            ("Example.com", "example.com"),
            ("example.com:8080", "example.com"),
            ("example.com.:8080", "example.com"),
            ("example.com:", "example.com"),
            ("[::1]", "[::1]"),
            ("[0:0::1]:443", "[::1]"),
            ("::1", "::1"),
            ("example.com:http", "example.com:http"),
            ("a:1:2", "a:1:2"),
            ("[::1", "[::1"),
            ("", ""),
        ] {
            assert_eq!(HostName::read(authority).as_bytes(), want.as_bytes(), "{authority}");
        }
    }

    #[test]
    fn an_over_long_host_equals_no_pattern_but_stays_below_its_wildcard() {
        let mut table = HostTable::default();
        let exact = format!("{}a", "a.".repeat(126));
        table.slot(&HostPattern::parse(&exact).unwrap(), || "exact");
        table.slot(&HostPattern::parse("*.a.a").unwrap(), || "below");
        let first = |host: &str| table.levels(&LazyCell::new(|| HostName::read(host))).next().copied();
        assert_eq!(first(&exact), Some("exact"));
        assert_eq!(first(&format!("a.{exact}")), Some("below"));
        assert_eq!(first(&format!("{}{exact}", "a.".repeat(500))), Some("below"));
        assert_eq!(first("a.a"), None);
    }
}
