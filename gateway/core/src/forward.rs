//! What the gateway itself changes on a message that passes: who asked, for which host, over what.
//!
//! A client can claim anything in `x-forwarded-*`; it is believed only when its connection comes from a trusted proxy. Runs
//! before the first filter, so that guests and upstreams see the same truth.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::headers::{Scheme, strip_hop_by_hop};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The header that names a request everywhere.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Whether the peer's own claims about where a request came from count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// One of the listener's `trusted_proxies`.
    Trusted,
    /// Anyone else.
    Stranger,
}

/// Rewrites a request's fields for the upstream and says who the client is.
///
/// A stranger's `x-forwarded-*` and `forwarded` are overwritten or dropped; a trusted proxy's are kept and added to. The request
/// id is kept if it is short and printable, since callers correlate by it, and otherwise replaced by `fresh_id`.
pub fn prepare_request(
    fields: &mut HeaderMap,
    peer_address: IpAddr,
    peer: Peer,
    scheme: Scheme,
    fresh_id: impl FnOnce() -> HeaderValue,
) -> (IpAddr, HeaderValue) {
    strip_hop_by_hop(fields);
    fields.remove(header::EXPECT);
    let client = match peer {
        Peer::Trusted => forwarded_client(fields).unwrap_or(peer_address),
        Peer::Stranger => peer_address,
    };
    if peer == Peer::Stranger {
        fields.remove(header::FORWARDED);
        fields.remove(FORWARDED_HOST);
    }
    let trail = match fields.get(FORWARDED_FOR).filter(|_| peer == Peer::Trusted) {
        Some(earlier) => {
            let mut trail = earlier.as_bytes().to_vec();
            trail.extend_from_slice(format!(", {peer_address}").as_bytes());
            HeaderValue::from_bytes(&trail).ok()
        }
        None => None,
    };
    let trail = trail.or_else(|| address_value(peer_address));
    if let Some(trail) = trail {
        fields.insert(FORWARDED_FOR, trail);
    }
    if peer == Peer::Stranger || !fields.contains_key(FORWARDED_PROTO) {
        fields.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme.as_str()));
    }
    let id = fields.get(REQUEST_ID).filter(|id| is_request_id(id.as_bytes())).cloned();
    let id = id.unwrap_or_else(|| {
        let id = fresh_id();
        fields.insert(REQUEST_ID, id.clone());
        id
    });
    (client, id)
}

fn address_value(address: IpAddr) -> Option<HeaderValue> {
    use std::io::Write as _;
    let mut text = [0_u8; 46];
    let mut rest = &mut text[..];
    write!(rest, "{address}").ok()?;
    let left = rest.len();
    HeaderValue::from_bytes(text.get(..46 - left)?).ok()
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

    fn prepared(peer: Peer, given: &[(&'static str, &'static str)]) -> (String, String) {
        let mut fields = HeaderMap::new();
        for (name, value) in given {
            fields.append(*name, HeaderValue::from_static(value));
        }
        let address = "192.0.2.7".parse().unwrap();
        let (client, _) =
            prepare_request(&mut fields, address, peer, Scheme::Http, || HeaderValue::from_static("fresh"));
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
        let (client, fields) = prepared(Peer::Stranger, &given);
        assert_eq!(client, "192.0.2.7");
        assert_eq!(fields, "x-forwarded-for=192.0.2.7 x-forwarded-proto=http x-request-id=fresh");
    }

    #[test]
    fn a_trusted_proxys_claims_are_kept_and_added_to() {
        let given =
            [("x-forwarded-for", "203.0.113.9, 10.0.0.1"), ("x-forwarded-proto", "https"), ("x-request-id", "a")];
        let (client, fields) = prepared(Peer::Trusted, &given);
        assert_eq!(client, "10.0.0.1");
        assert_eq!(fields, "x-forwarded-for=203.0.113.9, 10.0.0.1, 192.0.2.7 x-forwarded-proto=https x-request-id=a");
    }

    #[test]
    fn a_request_id_that_cannot_be_logged_safely_is_replaced() {
        let (_, fields) = prepared(Peer::Stranger, &[("x-request-id", "a b")]);
        assert!(fields.ends_with("x-request-id=fresh"));
    }
}
