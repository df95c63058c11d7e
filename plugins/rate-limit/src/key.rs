//! Who a request counts for.

use std::net::IpAddr;
use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis_sdk::{Config, HeaderName, HeaderValue, Request};
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
    /// A claim of the bearer token, which an `auth` filter before this one has verified.
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

impl Source {
    /// The request's value. One that has none counts for its client's address, so leaving it out is no way around a limit.
    pub(crate) fn part(&self, request: &Request, ipv6_prefix: u8) -> Part {
        let headers = request.headers();
        let found = match self {
            Self::ClientAddress => None,
            Self::Header(name) => headers.get(name).map(|value| Part::of("header", &value)),
            Self::Claim(name) => {
                let claim = headers.text("authorization").and_then(|authorization| claim_of(&authorization, name));
                claim.map(|value| Part::of("claim", &value.as_str().into()))
            }
            Self::Host => Some(Part::of("host", &host_of(&request.authority()).to_ascii_lowercase().as_str().into())),
            Self::Path => Some(Part::of("path", &request.path().as_str().into())),
            Self::Segment(place) => {
                let path = request.path();
                let segment = path
                    .split('/')
                    .nth(usize::try_from(place.get()).unwrap_or(usize::MAX))
                    .filter(|segment| !segment.is_empty());
                segment.map(|segment| Part::of("segment", &segment.into()))
            }
            Self::Method => Some(Part::of("method", &request.method().as_str().into())),
            Self::Route => {
                let name: Option<String> = request.property(&["xds", "route_name"]);
                Some(Part::of("route", &name.unwrap_or_default().as_str().into()))
            }
            Self::Tenant => {
                let name: Option<String> = request.property(&["xds", "virtual_host_name"]);
                name.filter(|name| !name.is_empty()).map(|name| Part::of("tenant", &name.as_str().into()))
            }
        };
        found.unwrap_or_else(|| {
            let address: String = request.property(&["source", "address"]).unwrap_or_default();
            Part { kind: "address", value: network_of(host_of(&address), ipv6_prefix) }
        })
    }
}

impl Part {
    fn of(kind: &'static str, value: &HeaderValue) -> Self {
        let value = match value.to_str() {
            // A digest says so, so that no value is taken for another's digest.
            Ok(value) if value.len() <= MAX_BYTES && !value.starts_with('#') => value.to_owned(),
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

/// A claim of a bearer token, unverified: an `auth` filter before this one has done that.
///
/// Only strings and numbers name somebody.
fn claim_of(authorization: &str, claim: &str) -> Option<String> {
    let (scheme, token) = authorization.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let payload = URL_SAFE_NO_PAD.decode(token.trim().split('.').nth(1)?).ok()?;
    let mut claims: Map<String, Value> = serde_json::from_slice(&payload).ok()?;
    match claims.remove(claim)? {
        Value::String(name) => Some(name),
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
    fn a_claim_is_read_from_a_bearer_token_or_not_at_all() {
        let token = |claims: &str| format!("Bearer e30.{}.sig", URL_SAFE_NO_PAD.encode(claims));
        for (header, want) in [
            (token(r#"{"sub":"ann"}"#), Some("ann")),
            (token(r#"{"sub":7}"#), Some("7")),
            (token(r#"{"sub":null}"#), None),
            (token(r#"{"sub":["ann"]}"#), None),
            (token(r#"{"name":"ann"}"#), None),
            (token("[]"), None),
            (token("not json"), None),
            ("Bearer x".to_owned(), None),
            ("Bearer a.%%.c".to_owned(), None),
            ("Basic YTpi".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(claim_of(&header, "sub").as_deref(), want, "{header}");
        }
    }
}
