//! Who a request counts for.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::num::NonZeroU32;

use plugin_common::{CLAIMS, CONSUMER};
use portcullis_sdk::{Config, HeaderName, HeaderValue, Request, property};
use serde_json::{Map, Value};

use crate::settings::digest;

/// Longer values are kept as their digest, so that a client's bytes cost a bounded amount of shared data.
const MAX_BYTES: usize = 64;

/// What requests are told apart by.
#[derive(Clone, Config, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    /// The client's address without its port; of IPv6 its network.
    #[serde(alias = "client_ip")]
    ClientAddress,
    /// The first value of a request header, such as one that names the consumer.
    Header(HeaderName),
    /// Whoever an `auth` filter before this one has let in: `sub` of a token, or the id of a consumer.
    Consumer,
    /// A claim that an `auth` filter before this one shares (`share_claims`).
    Claim(String),
    /// The host that is asked for, without its port.
    Host,
    /// The path, without its query.
    Path,
    /// A segment of the path, the first being 1: of `/accounts/7/orders` the second is `7`.
    Segment(NonZeroU32),
    /// The method.
    Method,
    /// The name of the route.
    Route,
    /// The tenant that the request is for; on Envoy its virtual host. Told apart by filters that stand before those of tenants.
    Tenant,
}

/// A value that requests are told apart by, and what kind it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) kind: &'static str,
    pub(crate) value: String,
}

/// Who sends one request, as far as its limits ask.
pub(crate) struct Caller<'a> {
    request: &'a Request,
    ipv6_prefix: u8,
    /// What `auth` shares, read when it is asked for.
    claims: OnceCell<Map<String, Value>>,
}

impl<'a> Caller<'a> {
    /// `ipv6_prefix` is how many bits of an address of IPv6 are one client's.
    pub(crate) fn of(request: &'a Request, ipv6_prefix: u8) -> Self {
        Self { request, ipv6_prefix, claims: OnceCell::new() }
    }

    /// The first value of a header.
    pub(crate) fn header(&self, name: &HeaderName) -> Option<HeaderValue> {
        self.request.headers().get(name)
    }

    /// A claim that `auth` has verified: one of this name, or at this path.
    ///
    /// Only strings and numbers name somebody. What a token says that nobody has verified is never looked at.
    pub(crate) fn claim(&self, name: &str) -> Option<String> {
        let shared = || serde_json::from_slice(&property::get::<Vec<u8>>(&[CLAIMS])?).ok();
        claim_of(self.claims.get_or_init(|| shared().unwrap_or_default()), name)
    }

    fn network(&self) -> Part {
        let address: String = self.request.property(&["source", "address"]).unwrap_or_default();
        Part { kind: "address", value: network_of(host_of(&address), self.ipv6_prefix) }
    }
}

impl Source {
    /// The request's value. One that has none counts for its client's address, so leaving it out is no way around a limit.
    pub(crate) fn part(&self, caller: &Caller<'_>) -> Part {
        let request = caller.request;
        let text = |kind, value: String| Part::of(kind, &value.as_str().into());
        let property = |path: &[&str]| request.property::<String>(path).filter(|value| !value.is_empty());
        let found = match self {
            Self::ClientAddress => None,
            Self::Header(name) => caller.header(name).map(|value| Part::of("header", &value)),
            Self::Consumer => property(&[CONSUMER]).map(|id| text("consumer", id)),
            Self::Claim(name) => caller.claim(name).map(|claim| text("claim", claim)),
            Self::Host => Some(text("host", host_of(&request.authority()).to_ascii_lowercase())),
            Self::Path => Some(text("path", request.path())),
            Self::Segment(place) => {
                let path = request.path();
                let place = usize::try_from(place.get()).unwrap_or(usize::MAX);
                let segment = path.split('/').nth(place).filter(|segment| !segment.is_empty());
                segment.map(|segment| Part::of("segment", &segment.into()))
            }
            Self::Method => Some(text("method", request.method())),
            Self::Route => Some(text("route", property(&["xds", "route_name"]).unwrap_or_default())),
            Self::Tenant => property(&["xds", "virtual_host_name"]).map(|name| text("tenant", name)),
        };
        found.unwrap_or_else(|| caller.network())
    }
}

impl Part {
    fn of(kind: &'static str, value: &HeaderValue) -> Self {
        let value = match value.to_str() {
            // A digest says so, so that no value is taken for another's digest. A line feed would end a part of a key.
            Ok(value) if value.len() <= MAX_BYTES && !value.starts_with('#') && !value.contains('\n') => {
                value.to_owned()
            }
            Ok(_) | Err(_) => format!("#{:016x}", digest(value.as_bytes())),
        };
        Self { kind, value }
    }
}

/// The network of so many bits that an address of IPv6 is in: whoever has one of its addresses has them all. Others as they are.
fn network_of(address: &str, prefix: u8) -> String {
    match address.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            std::net::Ipv6Addr::from_bits(address.to_bits() & mask).to_string()
        }
        Ok(IpAddr::V4(address)) => address.to_string(),
        Err(_) => address.to_owned(),
    }
}

/// An address or a host without its port: `192.0.2.1:80` and `[2001:db8::1]:80`, and what has no port as it is.
fn host_of(address: &str) -> &str {
    if let Some(rest) = address.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    match address.split_once(':') {
        Some((host, port)) if !port.contains(':') => host,
        Some(_) | None => address,
    }
}

fn claim_of(claims: &Map<String, Value>, name: &str) -> Option<String> {
    let nested = || {
        let (first, rest) = name.split_once('.')?;
        rest.split('.').try_fold(claims.get(first)?, |claim, step| claim.get(step))
    };
    match claims.get(name).or_else(nested)? {
        Value::String(name) => Some(name.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_short_and_no_value_is_another_s_digest() {
        let value = |value: HeaderValue| Part::of("header", &value).value;
        assert_eq!(value("192.0.2.1".into()), "192.0.2.1");
        let long = value(vec![b'a'; 10_000].into());
        assert_eq!(long.len(), 17);
        assert_ne!(long, value(vec![b'a'; 10_001].into()));
        assert_ne!(long, value(long.as_str().into()));
        assert_eq!(value(vec![0xff, 0xfe].into()).len(), 17);
        assert_eq!(value("a\nclaim=b".into()).len(), 17, "no value makes two parts of a key");
    }

    #[test]
    fn an_address_counts_for_its_network() {
        for (address, prefix, want) in [
            ("192.0.2.1:8080", 64, "192.0.2.1"),
            ("[2001:db8:1:2:3::4]:8080", 64, "2001:db8:1:2::"),
            ("2001:db8:1:2:3::4", 48, "2001:db8:1::"),
            ("2001:db8::1", 128, "2001:db8::1"),
            ("2001:db8::1", 0, "::"),
            ("[::ffff:192.0.2.1]:80", 64, "192.0.2.1"),
            ("192.0.2.1", 64, "192.0.2.1"),
            ("", 64, ""),
        ] {
            assert_eq!(network_of(host_of(address), prefix), want, "{address}/{prefix}");
        }
    }

    #[test]
    fn a_claim_that_names_somebody_is_a_string_or_a_number() {
        let claims = serde_json::json!({
            "sub": "ann", "tier": 7, "none": null, "roles": ["a"], "org": { "id": "x", "unit": { "id": 9 } }, "https://a.b/c": "d",
        });
        for (name, want) in [
            ("sub", Some("ann")),
            ("tier", Some("7")),
            ("none", None),
            ("roles", None),
            ("org", None),
            ("org.id", Some("x")),
            ("org.unit.id", Some("9")),
            ("org.id.x", None),
            ("https://a.b/c", Some("d")),
            ("other", None),
        ] {
            assert_eq!(claim_of(claims.as_object().unwrap(), name).as_deref(), want, "{name}");
        }
    }
}
