//! What the gateway itself changes on a message that passes: who asked, for which host, over what.
//!
//! A client can claim anything in `x-forwarded-*` and `forwarded`; it is believed only when its connection comes from a trusted
//! proxy, and then only as far as the trail leads through trusted proxies: the first other address, from the right, is the
//! client. What strangers wrote to the left of it goes no further. Runs before the first filter, so that guests and upstreams
//! see the same truth.

mod trail;

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use self::trail::{Trail, authority};
use crate::headers::{Scheme, strip_hop_by_hop};
use crate::tls::{FORWARDED_CERTIFICATE, Forwarded};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
/// The header that names a request everywhere.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Whether the peer's own claims about where a request came from count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// One of the listener's `trusted_proxies`.
    Trusted,
    /// Anyone else.
    Stranger,
}

/// Which fields say who the client is.
///
/// One family is read, and never both: a proxy that writes one of them passes on what a client put into the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forwarding {
    /// `x-forwarded-*` are read and written.
    #[default]
    XForwarded,
    /// `forwarded` (RFC 7239) is read and written.
    Forwarded,
    /// `x-forwarded-*` are read, both are written.
    Both,
}

/// The other end of a client's connection; made once for all its requests.
#[derive(Clone, Debug)]
pub struct Peer {
    address: IpAddr,
    /// The address as it is written in fields.
    text: HeaderValue,
    /// Whether its claims count.
    pub trust: Trust,
    forwarding: Forwarding,
    certificate: Forwarded,
}

impl Peer {
    /// A peer at this address.
    #[must_use]
    pub fn new(address: IpAddr, trust: Trust, forwarding: Forwarding) -> Self {
        let text = HeaderValue::from_str(&address.to_string());
        let text = text.unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        Self { address, text, trust, forwarding, certificate: Forwarded::Strip }
    }

    /// With this said of its certificate.
    #[must_use]
    pub fn with_certificate(self, certificate: Forwarded) -> Self {
        Self { certificate, ..self }
    }
}

/// Rewrites a request's fields for the upstream and says who the client is.
///
/// A stranger's claims are overwritten or dropped; a trusted proxy's are kept as far as `trusts` reaches, and added to. The
/// request id is kept if it is short and printable, since callers correlate by it, and otherwise replaced by `fresh_id`.
pub fn prepare_request(
    fields: &mut HeaderMap,
    peer: &Peer,
    scheme: Scheme,
    trusts: impl Fn(IpAddr) -> bool,
    fresh_id: impl FnOnce() -> HeaderValue,
) -> (IpAddr, HeaderValue) {
    strip_hop_by_hop(fields);
    let mut client = peer.address;
    // One pass over the few names there are, since most requests make no claims.
    let claims = fields.keys().any(makes_claims);
    let mut certificates = Vec::new();
    if claims || peer.forwarding != Forwarding::XForwarded {
        certificates = believed_certificates(fields, peer);
        client = rewrite(fields, peer, scheme, trusts);
    } else {
        fields.insert(FORWARDED_FOR, peer.text.clone());
        fields.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme.as_str()));
    }
    tell_certificates(fields, &peer.certificate, certificates);
    let id = fields.get(REQUEST_ID).filter(|id| is_request_id(id.as_bytes())).cloned();
    let id = id.unwrap_or_else(|| {
        let id = fresh_id();
        fields.insert(REQUEST_ID, id.clone());
        id
    });
    (client, id)
}

/// Whether a field says something that only a trusted proxy may say, or that ends here.
fn makes_claims(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(name, "expect" | "forwarded" | "x-real-ip") || name.starts_with("x-forwarded-")
}

/// What proxies before this one have said of the client's certificate, as far as it is passed on.
fn believed_certificates(fields: &HeaderMap, peer: &Peer) -> Vec<HeaderValue> {
    match (peer.trust, &peer.certificate) {
        (Trust::Trusted, Forwarded::Keep | Forwarded::Append(_)) => {
            fields.get_all(FORWARDED_CERTIFICATE).iter().cloned().collect()
        }
        (Trust::Trusted, Forwarded::Strip | Forwarded::Set(_)) | (Trust::Stranger, _) => Vec::new(),
    }
}

/// Tells of the client's certificate what others have, or what was seen here.
fn tell_certificates(fields: &mut HeaderMap, own: &Forwarded, earlier: Vec<HeaderValue>) {
    match own {
        Forwarded::Strip => {}
        Forwarded::Keep => earlier.into_iter().for_each(|value| _ = fields.append(FORWARDED_CERTIFICATE, value)),
        Forwarded::Set(own) => _ = fields.insert(FORWARDED_CERTIFICATE, own.clone()),
        Forwarded::Append(own) => {
            let mut all: Vec<_> = earlier.iter().map(HeaderValue::as_bytes).collect();
            all.push(own.as_bytes());
            let all = HeaderValue::from_bytes(&all.join(&b',')).unwrap_or_else(|_| own.clone());
            fields.insert(FORWARDED_CERTIFICATE, all);
        }
    }
}

/// Takes all claims off, weighs those that count, and writes the truth.
fn rewrite(fields: &mut HeaderMap, peer: &Peer, scheme: Scheme, trusts: impl Fn(IpAddr) -> bool) -> IpAddr {
    fields.remove(header::EXPECT);
    let trail = match peer.trust {
        Trust::Stranger => Trail::of_stranger(peer.address),
        Trust::Trusted if peer.forwarding == Forwarding::Forwarded => {
            Trail::forwarded(peer.address, fields.get_all(header::FORWARDED), trusts)
        }
        Trust::Trusted => {
            let sole = |name: &HeaderName| sole(fields, name);
            let trail = Trail::listed(peer.address, fields.get_all(FORWARDED_FOR), trusts);
            trail.with(sole(&FORWARDED_PROTO), sole(&FORWARDED_HOST), sole(&FORWARDED_PORT))
        }
    };
    remove_claims(fields);
    let client = trail.client();
    let proto = trail.proto.unwrap_or(HeaderValue::from_static(scheme.as_str()));
    if peer.forwarding != Forwarding::XForwarded {
        let host = trail.host.as_ref().or_else(|| fields.get(header::HOST)).and_then(authority);
        if let Ok(value) = HeaderValue::from_str(&trail::written(&trail.hops, &proto, host)) {
            fields.insert(header::FORWARDED, value);
        }
    }
    if peer.forwarding != Forwarding::Forwarded {
        let only_peer = trail.hops.len() == 1;
        let list = if only_peer { None } else { HeaderValue::from_str(&trail::list(&trail.hops)).ok() };
        fields.insert(FORWARDED_FOR, list.unwrap_or_else(|| peer.text.clone()));
        fields.insert(FORWARDED_PROTO, proto);
        for (name, value) in [(FORWARDED_HOST, trail.host), (FORWARDED_PORT, trail.port)] {
            if let Some(value) = value {
                fields.insert(name, value);
            }
        }
    }
    client
}

/// The value of a field that is there once; which of several is meant, nobody can tell.
fn sole<'a>(fields: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut all = fields.get_all(name).iter();
    all.next().filter(|_| all.next().is_none())
}

fn remove_claims(fields: &mut HeaderMap) {
    let claims: Vec<HeaderName> = fields.keys().filter(|name| makes_claims(name)).cloned().collect();
    for name in claims {
        fields.remove(name);
    }
}

fn is_request_id(id: &[u8]) -> bool {
    !id.is_empty() && id.len() <= 128 && id.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of these fields, `host: test` among them, from a peer at 10.0.0.2; all of 10.0.0.0/8 is trusted.
    fn prepared(trust: Trust, forwarding: Forwarding, given: &[(&'static str, &'static str)]) -> (String, String) {
        let mut fields = HeaderMap::new();
        fields.insert(header::HOST, HeaderValue::from_static("test"));
        for (name, value) in given {
            fields.append(*name, HeaderValue::from_static(value));
        }
        let peer = Peer::new("10.0.0.2".parse().unwrap(), trust, forwarding);
        let trusts = |address: IpAddr| matches!(address, IpAddr::V4(address) if address.octets()[0] == 10);
        let id = || HeaderValue::from_static("fresh");
        let (client, _) = prepare_request(&mut fields, &peer, Scheme::Http, trusts, id);
        let shown = fields.iter().filter(|(name, _)| *name != header::HOST && *name != REQUEST_ID);
        let mut shown: Vec<_> = shown.map(|(n, v)| format!("{n}={}", v.to_str().unwrap())).collect();
        shown.sort_unstable();
        (client.to_string(), shown.join(" "))
    }

    /// The fields given, who the client then is, and what is passed on.
    type Row<'a> = (&'a [(&'static str, &'static str)], &'a str, &'a str);

    fn check(trust: Trust, forwarding: Forwarding, rows: &[Row<'_>]) {
        for (given, client, fields) in rows {
            assert_eq!(prepared(trust, forwarding, given), ((*client).to_owned(), (*fields).to_owned()), "{given:?}");
        }
    }

    #[test]
    fn a_strangers_claims_are_overwritten() {
        let given = [
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-port", "1"),
            ("x-forwarded-prefix", "/admin"),
            ("x-real-ip", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
        ];
        let usual = "x-forwarded-for=10.0.0.2 x-forwarded-proto=http";
        check(Trust::Stranger, Forwarding::XForwarded, &[(&given, "10.0.0.2", usual), (&[], "10.0.0.2", usual)]);
        let standard = "forwarded=for=10.0.0.2;proto=http;host=test";
        check(Trust::Stranger, Forwarding::Forwarded, &[(&given, "10.0.0.2", standard), (&[], "10.0.0.2", standard)]);
        let both = format!("{standard} {usual}");
        check(Trust::Stranger, Forwarding::Both, &[(&given, "10.0.0.2", &both), (&[], "10.0.0.2", &both)]);
    }

    #[test]
    fn the_first_address_from_the_right_that_is_not_trusted_is_the_client() {
        let for_ = "x-forwarded-for";
        check(
            Trust::Trusted,
            Forwarding::XForwarded,
            &[
                (&[], "10.0.0.2", "x-forwarded-for=10.0.0.2 x-forwarded-proto=http"),
                (
                    &[(for_, "192.0.2.1, 203.0.113.9, 10.0.0.1")],
                    "203.0.113.9",
                    "x-forwarded-for=203.0.113.9, 10.0.0.1, 10.0.0.2 x-forwarded-proto=http",
                ),
                (
                    &[(for_, "192.0.2.1"), (for_, "203.0.113.9:4711 , [2001:db8::1]:80")],
                    "2001:db8::1",
                    "x-forwarded-for=2001:db8::1, 10.0.0.2 x-forwarded-proto=http",
                ),
                (
                    &[(for_, "10.0.0.7, 10.0.0.8")],
                    "10.0.0.7",
                    "x-forwarded-for=10.0.0.7, 10.0.0.8, 10.0.0.2 x-forwarded-proto=http",
                ),
                // What cannot be read ends the trail: it was seen by a trusted proxy, but names nobody.
                (
                    &[(for_, "203.0.113.9, unknown, 10.0.0.1")],
                    "10.0.0.1",
                    "x-forwarded-for=10.0.0.1, 10.0.0.2 x-forwarded-proto=http",
                ),
                (&[(for_, "203.0.113.9,")], "10.0.0.2", "x-forwarded-for=10.0.0.2 x-forwarded-proto=http"),
                (
                    &[(for_, "::ffff:203.0.113.9")],
                    "203.0.113.9",
                    "x-forwarded-for=203.0.113.9, 10.0.0.2 x-forwarded-proto=http",
                ),
            ],
        );
    }

    #[test]
    fn a_trusted_proxys_other_claims_are_kept_where_they_can_be_read() {
        check(
            Trust::Trusted,
            Forwarding::XForwarded,
            &[
                (
                    &[
                        ("x-forwarded-proto", "https"),
                        ("x-forwarded-host", "a.test:8080"),
                        ("x-forwarded-port", "8080"),
                    ],
                    "10.0.0.2",
                    "x-forwarded-for=10.0.0.2 x-forwarded-host=a.test:8080 x-forwarded-port=8080 x-forwarded-proto=https",
                ),
                (
                    &[
                        ("x-forwarded-proto", "javascript"),
                        ("x-forwarded-host", "a b"),
                        ("x-forwarded-port", "0x50"),
                        ("x-real-ip", "192.0.2.1"),
                        ("forwarded", "for=192.0.2.1"),
                    ],
                    "10.0.0.2",
                    "x-forwarded-for=10.0.0.2 x-forwarded-proto=http",
                ),
                (
                    &[("x-forwarded-host", "a"), ("x-forwarded-host", "b")],
                    "10.0.0.2",
                    "x-forwarded-for=10.0.0.2 x-forwarded-proto=http",
                ),
            ],
        );
    }

    #[test]
    fn the_standard_field_is_read_only_where_it_is_asked_for() {
        let given = [
            ("forwarded", r#"for=192.0.2.1, for="203.0.113.9:80""#),
            ("forwarded", r#"For="[2001:db8::1]:80";Proto=https;host="a.test:81" , for=10.0.0.1;proto=https;host=b"#),
            ("x-forwarded-for", "192.0.2.99"),
        ];
        let hops = r#"for="[2001:db8::1]";proto=https;host=b, for=10.0.0.1, for=10.0.0.2"#;
        check(Trust::Trusted, Forwarding::Forwarded, &[(&given, "2001:db8::1", &format!("forwarded={hops}"))]);
        check(
            Trust::Trusted,
            Forwarding::Both,
            &[(
                &given,
                "192.0.2.99",
                "forwarded=for=192.0.2.99;proto=http;host=test, for=10.0.0.2 \
                 x-forwarded-for=192.0.2.99, 10.0.0.2 x-forwarded-proto=http",
            )],
        );
        check(
            Trust::Trusted,
            Forwarding::Forwarded,
            &[
                (&[("forwarded", "for=_hidden")], "10.0.0.2", "forwarded=for=10.0.0.2;proto=http;host=test"),
                (&[("forwarded", r#"for="203.0.113.9"#)], "10.0.0.2", "forwarded=for=10.0.0.2;proto=http;host=test"),
                (
                    &[("forwarded", r#"for=203.0.113.9;host="a\"b""#)],
                    "203.0.113.9",
                    "forwarded=for=203.0.113.9;proto=http;host=test, for=10.0.0.2",
                ),
                (&[("forwarded", "by=10.0.0.3")], "10.0.0.2", "forwarded=for=10.0.0.2;proto=http;host=test"),
            ],
        );
    }

    #[test]
    fn a_client_certificate_is_believed_from_trusted_proxies_only_and_only_where_asked_for() {
        let own = || HeaderValue::from_static("Hash=own");
        for (trust, forwarded, want) in [
            (Trust::Stranger, Forwarded::Strip, ""),
            (Trust::Stranger, Forwarded::Keep, ""),
            (Trust::Stranger, Forwarded::Set(own()), "Hash=own"),
            (Trust::Stranger, Forwarded::Append(own()), "Hash=own"),
            (Trust::Trusted, Forwarded::Strip, ""),
            (Trust::Trusted, Forwarded::Keep, "Hash=one|Hash=two"),
            (Trust::Trusted, Forwarded::Set(own()), "Hash=own"),
            (Trust::Trusted, Forwarded::Append(own()), "Hash=one,Hash=two,Hash=own"),
        ] {
            let mut fields = HeaderMap::new();
            for claim in ["Hash=one", "Hash=two"] {
                fields.append(FORWARDED_CERTIFICATE, HeaderValue::from_static(claim));
            }
            let peer = Peer::new("192.0.2.7".parse().unwrap(), trust, Forwarding::XForwarded)
                .with_certificate(forwarded.clone());
            prepare_request(&mut fields, &peer, Scheme::Https, |_| false, || HeaderValue::from_static("fresh"));
            let all: Vec<_> = fields.get_all(FORWARDED_CERTIFICATE).iter().map(|v| v.to_str().unwrap()).collect();
            assert_eq!(all.join("|"), want, "{trust:?} {forwarded:?}");
            assert_eq!(fields["x-forwarded-proto"], "https");
        }
    }

    #[test]
    fn a_request_id_that_cannot_be_logged_safely_is_replaced() {
        let peer = Peer::new("192.0.2.7".parse().unwrap(), Trust::Stranger, Forwarding::XForwarded);
        for (given, want) in [("a b", "fresh"), ("id-1", "id-1"), ("", "fresh")] {
            let mut fields = HeaderMap::new();
            fields.insert(REQUEST_ID, HeaderValue::from_static(given));
            let id = || HeaderValue::from_static("fresh");
            let (_, id) = prepare_request(&mut fields, &peer, Scheme::Http, |_| false, id);
            assert_eq!((id.to_str().unwrap(), fields.get(REQUEST_ID).unwrap()), (want, &id));
        }
    }
}
