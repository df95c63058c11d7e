//! What the gateway itself changes on a message that passes: who asked, for which host, over what.
//!
//! A client can claim anything in `x-forwarded-*`; it is believed only when its connection comes from a trusted proxy. Runs
//! before the first filter, so that guests and upstreams see the same truth.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::headers::{Scheme, strip_hop_by_hop};
use crate::tls::{FORWARDED_CERTIFICATE, Forwarded};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
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

/// The other end of a client's connection; made once for all its requests.
#[derive(Clone, Debug)]
pub struct Peer {
    address: IpAddr,
    /// The address as it is written in fields.
    text: HeaderValue,
    trust: Trust,
    certificate: Forwarded,
}

impl Peer {
    /// A peer at this address.
    #[must_use]
    pub fn new(address: IpAddr, trust: Trust) -> Self {
        let text = HeaderValue::from_str(&address.to_string());
        Self {
            address,
            text: text.unwrap_or_else(|_| HeaderValue::from_static("unknown")),
            trust,
            certificate: Forwarded::Strip,
        }
    }

    /// With this said of its certificate.
    #[must_use]
    pub fn with_certificate(self, certificate: Forwarded) -> Self {
        Self { certificate, ..self }
    }
}

/// Rewrites a request's fields for the upstream and says who the client is.
///
/// A stranger's `x-forwarded-*` and `forwarded` are overwritten or dropped; a trusted proxy's are kept and added to. The request
/// id is kept if it is short and printable, since callers correlate by it, and otherwise replaced by `fresh_id`.
pub fn prepare_request(
    fields: &mut HeaderMap,
    peer: &Peer,
    scheme: Scheme,
    fresh_id: impl FnOnce() -> HeaderValue,
) -> (IpAddr, HeaderValue) {
    strip_hop_by_hop(fields);
    let mut client = peer.address;
    let mut trail = peer.text.clone();
    let mut proto = HeaderValue::from_static(scheme.as_str());
    // One pass over the few names there are, since most requests make no claims.
    if fields.keys().any(makes_claims) {
        fields.remove(header::EXPECT);
        match peer.trust {
            Trust::Stranger => {
                fields.remove(header::FORWARDED);
                fields.remove(FORWARDED_HOST);
                fields.remove(FORWARDED_CERTIFICATE);
            }
            Trust::Trusted => {
                client = forwarded_client(fields).unwrap_or(client);
                trail = fields.get(FORWARDED_FOR).and_then(|earlier| longer_trail(earlier, &trail)).unwrap_or(trail);
                proto = fields.get(FORWARDED_PROTO).cloned().unwrap_or(proto);
            }
        }
        if peer.certificate == Forwarded::Strip {
            fields.remove(FORWARDED_CERTIFICATE);
        }
    }
    if let Forwarded::Set(own) | Forwarded::Append(own) = &peer.certificate {
        let earlier = matches!(peer.certificate, Forwarded::Append(_)).then(|| earlier_elements(fields, own)).flatten();
        fields.insert(FORWARDED_CERTIFICATE, earlier.unwrap_or_else(|| own.clone()));
    }
    fields.insert(FORWARDED_FOR, trail);
    fields.insert(FORWARDED_PROTO, proto);
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
    matches!(
        name.as_str(),
        "expect"
            | "forwarded"
            | "x-forwarded-client-cert"
            | "x-forwarded-for"
            | "x-forwarded-host"
            | "x-forwarded-proto"
    )
}

/// What the proxies before this one have said of the client's certificate, then our own element.
fn earlier_elements(fields: &HeaderMap, own: &HeaderValue) -> Option<HeaderValue> {
    let mut all: Vec<_> = fields.get_all(FORWARDED_CERTIFICATE).iter().map(HeaderValue::as_bytes).collect();
    all.push(own.as_bytes());
    HeaderValue::from_bytes(&all.join(&b',')).ok()
}

fn longer_trail(earlier: &HeaderValue, peer: &HeaderValue) -> Option<HeaderValue> {
    HeaderValue::from_bytes(&[earlier.as_bytes(), b", ", peer.as_bytes()].concat()).ok()
}

fn is_request_id(id: &[u8]) -> bool {
    !id.is_empty() && id.len() <= 128 && id.iter().all(u8::is_ascii_graphic)
}

/// The last address in the trail that reached us: what the trusted proxy saw.
fn forwarded_client(fields: &HeaderMap) -> Option<IpAddr> {
    let trail = fields.get_all(FORWARDED_FOR).iter().next_back()?.to_str().ok()?;
    trail.rsplit(',').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(trust: Trust, given: &[(&'static str, &'static str)]) -> (String, String) {
        let mut fields = HeaderMap::new();
        for (name, value) in given {
            fields.append(*name, HeaderValue::from_static(value));
        }
        let address = "192.0.2.7".parse().unwrap();
        let peer = Peer::new(address, trust);
        let (client, _) = prepare_request(&mut fields, &peer, Scheme::Http, || HeaderValue::from_static("fresh"));
        let mut shown: Vec<_> = fields.iter().map(|(n, v)| format!("{n}={}", v.to_str().unwrap())).collect();
        shown.sort_unstable();
        (client.to_string(), shown.join(" "))
    }

    #[test]
    fn a_strangers_claims_are_overwritten() {
        let given = [
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("forwarded", "for=10.0.0.1"),
        ];
        let (client, fields) = prepared(Trust::Stranger, &given);
        assert_eq!(client, "192.0.2.7");
        assert_eq!(fields, "x-forwarded-for=192.0.2.7 x-forwarded-proto=http x-request-id=fresh");
    }

    #[test]
    fn a_trusted_proxys_claims_are_kept_and_added_to() {
        let given =
            [("x-forwarded-for", "203.0.113.9, 10.0.0.1"), ("x-forwarded-proto", "https"), ("x-request-id", "a")];
        let (client, fields) = prepared(Trust::Trusted, &given);
        assert_eq!(client, "10.0.0.1");
        assert_eq!(fields, "x-forwarded-for=203.0.113.9, 10.0.0.1, 192.0.2.7 x-forwarded-proto=https x-request-id=a");
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
            let peer = Peer::new("192.0.2.7".parse().unwrap(), trust).with_certificate(forwarded.clone());
            prepare_request(&mut fields, &peer, Scheme::Https, || HeaderValue::from_static("fresh"));
            let all: Vec<_> = fields.get_all(FORWARDED_CERTIFICATE).iter().map(|v| v.to_str().unwrap()).collect();
            assert_eq!(all.join("|"), want, "{trust:?} {forwarded:?}");
            assert_eq!(fields["x-forwarded-proto"], "https");
        }
    }

    #[test]
    fn a_request_id_that_cannot_be_logged_safely_is_replaced() {
        let (_, fields) = prepared(Trust::Stranger, &[("x-request-id", "a b")]);
        assert!(fields.ends_with("x-request-id=fresh"));
    }
}
