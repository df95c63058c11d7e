//! The way a request came: read from `x-forwarded-for` or `forwarded`, as far as it can be believed, and written again.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::HeaderValue;
use http::header::GetAll;

/// More hops than any network has: a bound on work, not a rule.
const MOST: usize = 32;

/// The way a request came.
#[derive(Debug)]
pub(super) struct Trail {
    /// The client first, the peer last.
    pub(super) hops: Vec<IpAddr>,
    pub(super) proto: Option<HeaderValue>,
    pub(super) host: Option<HeaderValue>,
    pub(super) port: Option<HeaderValue>,
}

impl Trail {
    /// The peer is the client.
    pub(super) fn of_stranger(peer: IpAddr) -> Self {
        Self { hops: vec![peer], proto: None, host: None, port: None }
    }

    /// Read from the lists of `x-forwarded-for`, which are one list.
    pub(super) fn listed(peer: IpAddr, fields: GetAll<'_, HeaderValue>, trusts: impl Fn(IpAddr) -> bool) -> Self {
        let mut trail = Self::of_stranger(peer);
        let lists = fields.iter().rev().map(|field| field.to_str().unwrap_or_default());
        trail.follow(lists.flat_map(|list| list.rsplit(',').map(|hop| node(hop.trim()))), trusts);
        trail
    }

    /// Read from `forwarded`.
    pub(super) fn forwarded(peer: IpAddr, fields: GetAll<'_, HeaderValue>, trusts: impl Fn(IpAddr) -> bool) -> Self {
        let mut trail = Self::of_stranger(peer);
        // One that cannot be read names nobody, and so ends the trail.
        let lists =
            fields.iter().rev().map(|field| elements(field.as_bytes()).unwrap_or_else(|| vec![Element::default()]));
        let mut elements = lists.flat_map(|list| list.into_iter().rev()).peekable();
        // The last element is what the peer itself says.
        let said = elements.peek().cloned().unwrap_or_default();
        trail.follow(elements.map(|element| node(&element.node?)), trusts);
        let value = |text: Option<String>| HeaderValue::from_str(&text?).ok();
        let (proto, host) = (value(said.proto), value(said.host));
        trail.with(proto.as_ref(), host.as_ref(), None)
    }

    /// Goes back from the peer until somebody is not trusted, or not named.
    fn follow(&mut self, hops: impl Iterator<Item = Option<IpAddr>>, trusts: impl Fn(IpAddr) -> bool) {
        for hop in hops.take(MOST).map_while(|hop| hop) {
            self.hops.insert(0, hop);
            if !trusts(hop) {
                break;
            }
        }
    }

    /// What else is claimed, where it can be read.
    pub(super) fn with(
        self,
        proto: Option<&HeaderValue>,
        host: Option<&HeaderValue>,
        port: Option<&HeaderValue>,
    ) -> Self {
        let is_scheme = |value: &&HeaderValue| matches!(value.as_bytes(), b"http" | b"https");
        let is_port = |value: &&HeaderValue| {
            let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            digits.is_some_and(|digits| digits.parse::<u16>().is_ok_and(|port| port != 0))
        };
        Self {
            proto: proto.filter(is_scheme).cloned(),
            host: host.filter(|host| authority(host).is_some()).cloned(),
            port: port.filter(is_port).cloned(),
            ..self
        }
    }

    pub(super) fn client(&self) -> IpAddr {
        *self.hops.first().expect("a trail has at least its peer")
    }
}

/// The text of a field that is a host with or without a port, and so needs no escaping in quotes.
pub(super) fn authority(value: &HeaderValue) -> Option<&str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    value.to_str().ok().filter(|text| !text.is_empty() && text.len() <= 255 && text.bytes().all(plain))
}

/// An address as these fields have them: bare, with a port, in brackets.
fn node(text: &str) -> Option<IpAddr> {
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    text.parse().ok().or_else(with_port).or_else(bracketed).map(|address: IpAddr| address.to_canonical())
}

/// What one element of `forwarded` says, as far as it matters here.
#[derive(Clone, Debug, Default)]
struct Element {
    node: Option<String>,
    proto: Option<String>,
    host: Option<String>,
}

/// The elements of a `forwarded` field (RFC 7239 §4); none if it is malformed anywhere.
fn elements(field: &[u8]) -> Option<Vec<Element>> {
    let text = std::str::from_utf8(field).ok()?;
    let mut all = Vec::new();
    let mut rest = text;
    loop {
        let mut element = Element::default();
        loop {
            rest = rest.trim_start_matches([' ', '\t']);
            let (name, after) = rest.split_once('=')?;
            let (value, after) = value(after)?;
            match name {
                name if name.eq_ignore_ascii_case("for") => element.node = Some(value),
                name if name.eq_ignore_ascii_case("proto") => element.proto = Some(value.to_ascii_lowercase()),
                name if name.eq_ignore_ascii_case("host") => element.host = Some(value),
                name if !name.is_empty() && name.bytes().all(is_token) => {}
                _ => return None,
            }
            rest = after.trim_start_matches([' ', '\t']);
            match rest.strip_prefix(';') {
                Some(more) => rest = more,
                None => break,
            }
        }
        all.push(element);
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return rest.is_empty().then_some(all),
        }
    }
}

/// A token or a quoted string at the beginning of `text`, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.bytes().position(|byte| !is_token(byte)).unwrap_or(text.len());
        let (token, rest) = text.split_at_checked(end)?;
        return (!token.is_empty()).then(|| (token.to_owned(), rest));
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, quoted.get(at + 1..)?)),
            '\\' => value.push(letters.next()?.1),
            letter => value.push(letter),
        }
    }
    None
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// As `x-forwarded-for` has it.
pub(super) fn list(hops: &[IpAddr]) -> String {
    hops.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// As `forwarded` has it: what was asked for is said with the client.
pub(super) fn written(hops: &[IpAddr], proto: &HeaderValue, host: Option<&str>) -> String {
    let hop = |address: &IpAddr| match address {
        IpAddr::V4(address) => format!("for={address}"),
        IpAddr::V6(address) => format!("for=\"[{address}]\""),
    };
    let mut hops = hops.iter().map(hop);
    let mut text = hops.next().unwrap_or_default();
    text.push_str(";proto=");
    text.push_str(proto.to_str().unwrap_or("http"));
    if let Some(host) = host {
        let quote = if host.bytes().all(is_token) { "" } else { "\"" };
        text.push_str(&format!(";host={quote}{host}{quote}"));
    }
    hops.for_each(|hop| {
        text.push_str(", ");
        text.push_str(&hop);
    });
    text
}
