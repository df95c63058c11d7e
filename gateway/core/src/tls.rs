//! What is known of a client's encrypted connection, and which hosts may be asked for over it.
//!
//! A connection is opened to one name and may then be used to ask for any. It must not be used to ask for a host whose
//! certificate the client never saw, nor, where clients show certificates, for another host than the one it named: somebody
//! may have decided by that name who is let in. Such a request is misdirected (RFC 9110 §15.5.20).
//! Handshakes and files are the server's; nothing here reads a certificate.

mod certificates;
mod forwarded;

use std::sync::Arc;

pub use self::certificates::{Certificate, Certificates};
pub use self::forwarded::{FIELD as FORWARDED_CERTIFICATE, Forwarded, element, hex, url_encoded_pem};
use crate::route::HostName;

/// Whether a listener asks its clients for certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// It does not.
    Off,
    /// It does, and has verified the one there is.
    Asked,
}

/// A client's encrypted connection.
#[derive(Debug)]
pub struct Tls {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The name the client wants to reach (SNI), in lower case and without a final dot.
    pub server_name: Option<Box<str>>,
    /// Whether clients show certificates.
    pub client_auth: ClientAuth,
    /// The certificates of the listener when the connection was opened.
    pub certificates: Arc<Certificates>,
    /// The client's certificate, verified.
    pub peer: Option<Certificate>,
}

impl Tls {
    /// The certificate the client was shown. Of several for one name, which differ in their keys, the first.
    #[must_use]
    pub fn own(&self) -> Option<&Certificate> {
        self.certificates.for_name(self.server_name.as_deref()).next()
    }

    /// Whether a host may be asked for over this connection.
    ///
    /// The host the connection was opened for always may. Another one may when the certificate that was shown covers it and
    /// clients show none. A client that named no host may ask for what its certificate covers, and, where clients show no
    /// certificates, for what no certificate here covers: health checks ask for an address.
    #[must_use]
    pub fn may_ask_for(&self, authority: &str) -> bool {
        let host = HostName::read(authority);
        let host = host.as_bytes();
        match (self.server_name.as_deref(), self.client_auth) {
            (Some(name), _) if name.as_bytes() == host => true,
            (Some(_), ClientAuth::Asked) => false,
            (Some(_), ClientAuth::Off) | (None, ClientAuth::Asked) => self.shown_covers(host),
            (None, ClientAuth::Off) => self.shown_covers(host) || !self.certificates.cover(host),
        }
    }

    fn shown_covers(&self, host: &[u8]) -> bool {
        self.certificates.for_name(self.server_name.as_deref()).all(|certificate| certificate.covers(host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(server_name: Option<&str>, client_auth: ClientAuth) -> Tls {
        let certificate = |names: &[&str]| {
            let dns_names = names.iter().map(|name| (*name).to_owned()).collect();
            Arc::new(Certificate { dns_names, addresses: vec!["192.0.2.1".parse().unwrap()], ..Certificate::default() })
        };
        let all = vec![certificate(&["a.test", "also-a.test", "*.a.test"]), certificate(&["b.test"])];
        Tls {
            version: "TLSv1.3",
            server_name: server_name.map(Box::from),
            client_auth,
            certificates: Arc::new(Certificates::new(all)),
            peer: None,
        }
    }

    #[test]
    fn a_request_for_a_host_the_connection_was_not_opened_for_is_misdirected() {
        use ClientAuth::{Asked, Off};
        for (name, auth, host, want) in [
            (Some("a.test"), Off, "a.test", true),
            (Some("a.test"), Off, "A.Test.:8443", true),
            (Some("a.test"), Off, "also-a.test", true),
            (Some("a.test"), Off, "x.a.test:443", true),
            (Some("a.test"), Off, "x.y.a.test", false),
            (Some("a.test"), Off, "b.test", false),
            (Some("a.test"), Off, "elsewhere.test", false),
            (Some("a.test"), Off, "192.0.2.1:443", true),
            (Some("a.test"), Off, "192.0.2.2", false),
            (Some("a.test"), Off, "", false),
            (Some("b.test"), Off, "a.test", false),
            // No certificate covers it: the first one was shown, and the client took it.
            (Some("unknown.test"), Off, "unknown.test", true),
            (Some("unknown.test"), Off, "a.test", true),
            (Some("unknown.test"), Off, "b.test", false),
            (Some("a.test"), Asked, "a.test", true),
            (Some("a.test"), Asked, "also-a.test", false),
            (Some("x.a.test"), Asked, "a.test", false),
            (None, Off, "a.test", true),
            (None, Off, "b.test", false),
            (None, Off, "10.0.0.1:8443", true),
            (None, Asked, "a.test", true),
            (None, Asked, "b.test", false),
            (None, Asked, "10.0.0.1:8443", false),
            (None, Asked, "192.0.2.1:8443", true),
        ] {
            assert_eq!(connection(name, auth).may_ask_for(host), want, "{name:?} {auth:?} {host}");
        }
    }
}
