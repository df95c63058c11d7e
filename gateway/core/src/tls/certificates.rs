//! A listener's certificates, found by the name a client wants to reach.
//!
//! A name that a certificate has exactly comes before one that a wildcard covers, as everywhere else; a wildcard stands for
//! one label (RFC 9525 §6.3). Common names are not looked at: no client does any more.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use bytes::Bytes;

/// What a certificate says.
#[derive(Clone, Debug, Default)]
pub struct Certificate {
    /// Whose it is, as RFC 2253 writes it: `CN=orders,O=Acme`.
    pub subject: String,
    /// Its DNS names, in lower case; wildcards as `*.example.com`.
    pub dns_names: Vec<String>,
    /// Its URIs.
    pub uris: Vec<String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its SHA-256 digest, in hexadecimal digits.
    pub sha256: String,
    /// All of it, in DER.
    pub der: Bytes,
}

impl Certificate {
    /// Whether it is one of this host's. The host is in lower case and without a port; an IPv6 address is in brackets.
    #[must_use]
    pub fn covers(&self, host: &[u8]) -> bool {
        let parent = parent(host);
        let fits = |name: &String| match name.strip_prefix("*.") {
            Some(suffix) => parent == Some(suffix.as_bytes()),
            None => name.as_bytes() == host,
        };
        self.dns_names.iter().any(fits) || address(host).is_some_and(|address| self.addresses.contains(&address))
    }
}

/// What follows the first label.
fn parent(host: &[u8]) -> Option<&[u8]> {
    let dot = host.iter().position(|byte| *byte == b'.')?;
    host.get(dot + 1..).filter(|_| dot > 0)
}

fn address(host: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(host).ok()?;
    match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

/// The certificates of a listener, first the one for clients that name no host, or none that is covered.
#[derive(Debug, Default)]
pub struct Certificates {
    all: Vec<Arc<Certificate>>,
    /// Positions by name; several where certificates for one name differ in their keys.
    exact: HashMap<Box<str>, Vec<usize>>,
    /// By what follows `*.`.
    below: HashMap<Box<str>, Vec<usize>>,
    fallback: Vec<usize>,
}

impl Certificates {
    /// Certificates in the order of their preference.
    #[must_use]
    pub fn new(all: Vec<Arc<Certificate>>) -> Self {
        let mut made = Self::default();
        for (position, certificate) in all.iter().enumerate() {
            for name in &certificate.dns_names {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(suffix) => (&mut made.below, suffix),
                    None => (&mut made.exact, name.as_str()),
                };
                names.entry(name.into()).or_default().push(position);
            }
        }
        let first_name = all.first().and_then(|first| first.dns_names.first());
        let same_name = first_name.map(|name| made.positions(Some(name)).to_vec());
        made.fallback = same_name.filter(|found| found.contains(&0)).unwrap_or_else(|| vec![0]);
        made.all = all;
        made
    }

    /// Where the certificates for a name are among those given to [`Self::new`], best first; never none.
    #[must_use]
    pub fn positions(&self, name: Option<&str>) -> &[usize] {
        let found = name.and_then(|name| {
            let parent = || name.split_once('.').map(|(_, parent)| parent);
            self.exact.get(name).or_else(|| self.below.get(name.strip_prefix("*.").or_else(parent)?))
        });
        found.unwrap_or(&self.fallback)
    }

    /// The certificates for a name, best first.
    pub fn for_name(&self, name: Option<&str>) -> impl Iterator<Item = &Certificate> {
        self.positions(name).iter().filter_map(|position| self.all.get(*position)).map(Arc::as_ref)
    }

    /// Whether any of them covers this host.
    #[must_use]
    pub fn cover(&self, host: &[u8]) -> bool {
        self.all.iter().any(|certificate| certificate.covers(host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exact_name_comes_before_a_wildcard_and_the_first_is_for_everyone_else() {
        let certificate = |names: &[&str]| {
            Arc::new(Certificate {
                dns_names: names.iter().map(|name| (*name).to_owned()).collect(),
                ..Certificate::default()
            })
        };
        let all = [&["first.test"][..], &["*.a.test"], &["x.a.test", "a.test"], &["x.a.test"], &["first.test"]];
        let certificates = Certificates::new(all.into_iter().map(certificate).collect());
        for (name, want) in [
            (Some("first.test"), &[0, 4][..]),
            (Some("y.a.test"), &[1]),
            (Some("x.a.test"), &[2, 3]),
            (Some("a.test"), &[2]),
            (Some("z.y.a.test"), &[0, 4]),
            (Some("nobody.test"), &[0, 4]),
            (Some(""), &[0, 4]),
            (None, &[0, 4]),
        ] {
            assert_eq!(certificates.positions(name), want, "{name:?}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_one_whole_label_and_addresses_are_compared_as_addresses() {
        let certificate = Certificate {
            dns_names: vec!["*.a.test".to_owned()],
            addresses: vec!["::1".parse().unwrap(), "10.0.0.1".parse().unwrap()],
            ..Certificate::default()
        };
        for (host, want) in [
            ("x.a.test", true),
            ("a.test", false),
            (".a.test", false),
            ("y.x.a.test", false),
            ("[::1]", true),
            ("[::2]", false),
            ("10.0.0.1", true),
            ("10.0.0.2", false),
        ] {
            assert_eq!(certificate.covers(host.as_bytes()), want, "{host}");
        }
    }
}
