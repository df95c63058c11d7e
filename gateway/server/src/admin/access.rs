//! Who may ask the admin listener.
//!
//! Whoever has the token, or a certificate that is good where certificates are asked for; `/live` and `/ready` tell nothing worth
//! one, and probes cannot carry it. Where neither is asked for, the listener is on a loopback address, where anyone on the machine may ask, but no page in a browser: one that was made
//! to ask (DNS rebinding) names a host that is not ours, or an origin.

use std::net::IpAddr;

use http::Request;
use http::header::{self, HeaderMap};
use http::uri::Authority;

use crate::config::snapshot::Admin;

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It has no token, or a wrong one.
    Unauthorized,
    /// It does not name this listener.
    WrongHost,
    /// A page of somebody else's made it.
    CrossSite,
    /// It would change something, and nobody asks who makes it.
    NoAuthorization,
}

impl Refusal {
    /// The code that the client gets, and the log.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::WrongHost => "wrong_host",
            Self::CrossSite => "cross_site",
            Self::NoAuthorization => "no_authorization",
        }
    }
}

/// The connection that a request came on.
#[derive(Clone, Debug)]
pub(super) struct Via {
    /// Where the listener was reached.
    pub(super) local: IpAddr,
    pub(super) encryption: Encryption,
    /// The client, for the log: its address, and whom its certificate names.
    pub(super) who: String,
}

/// How a connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encryption {
    None,
    /// Nobody asks who the client is.
    Anonymous,
    /// The client was asked for a certificate, and has shown none.
    Uncertified,
    /// The client has shown a certificate, which is good.
    Certified,
}

impl Encryption {
    fn scheme(self) -> &'static [u8] {
        match self {
            Self::None => b"http://",
            Self::Anonymous | Self::Uncertified | Self::Certified => b"https://",
        }
    }
}

/// Whether to answer a request.
pub(super) fn check<B>(request: &Request<B>, admin: Option<&Admin>, via: &Via) -> Result<(), Refusal> {
    let local = via.local;
    let ours = [admin.map_or(local, |admin| admin.bind.ip()), local];
    if is_cross_site(request.headers(), via.encryption.scheme(), &ours) {
        return Err(Refusal::CrossSite);
    }
    let token = admin.and_then(|admin| admin.token.as_ref());
    if token.is_none() && matches!(via.encryption, Encryption::None | Encryption::Anonymous) {
        return if is_for_us(request, &ours) { Ok(()) } else { Err(Refusal::WrongHost) };
    }
    let is_open = matches!(request.uri().path(), "/live" | "/ready");
    let has_token = || token.zip(bearer(request.headers())).is_some_and(|(token, shown)| token.is(shown));
    if is_open || via.encryption == Encryption::Certified || has_token() { Ok(()) } else { Err(Refusal::Unauthorized) }
}

/// Whether a request that may be answered may also change something: where the listener asks who makes it.
pub(super) fn may_change(admin: Option<&Admin>, via: &Via) -> Result<(), Refusal> {
    let asks_who = admin.is_some_and(|admin| admin.token.is_some())
        || matches!(via.encryption, Encryption::Certified | Encryption::Uncertified);
    if asks_who { Ok(()) } else { Err(Refusal::NoAuthorization) }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Browsers name the origin of whatever is not a plain visit.
fn is_cross_site(headers: &HeaderMap, scheme: &[u8], ours: &[IpAddr]) -> bool {
    let of_ours = |origin: &[u8]| {
        let authority = origin.strip_prefix(scheme).and_then(|rest| Authority::try_from(rest).ok());
        authority.is_some_and(|name| is_ours(&name, ours))
    };
    headers.get_all(header::ORIGIN).iter().any(|origin| !of_ours(origin.as_bytes()))
        || headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site")
}

/// Whether the request names us by an address of ours. A browser always says which name it asks for, and a rebound name is not
/// one of these; a probe that says nothing at all (HTTP/1.0) is no browser.
fn is_for_us<B>(request: &Request<B>, ours: &[IpAddr]) -> bool {
    let hosts = request.headers().get_all(header::HOST);
    let mut named = hosts.iter().map(|host| Authority::try_from(host.as_bytes()));
    hosts.iter().count() <= 1
        && named.all(|name| name.is_ok_and(|name| is_ours(&name, ours)))
        && request.uri().authority().is_none_or(|name| is_ours(name, ours))
}

fn is_ours(name: &Authority, ours: &[IpAddr]) -> bool {
    let host = name.host();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let has_user = name.as_str().contains('@');
    !has_user
        && match bare.parse::<IpAddr>() {
            Ok(address) => {
                let address = address.to_canonical();
                address.is_loopback() || ours.iter().any(|ours| ours.to_canonical() == address)
            }
            Err(_) => host.eq_ignore_ascii_case("localhost"),
        }
}

#[cfg(test)]
mod tests {
    use http::request::Builder;

    use super::*;
    use crate::config::snapshot::Token;
    use crate::config::token;

    fn admin(bind: &str, token: Option<Token>) -> Admin {
        Admin { bind: bind.parse().unwrap(), token, tls: None, tenants: None }
    }

    fn ask(path: &str, fields: &[(&str, &str)], admin: &Admin, local: &str) -> Result<(), Refusal> {
        let mut request = Request::builder().uri(path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        ask_via(request, admin, local, Encryption::None)
    }

    fn ask_via(request: Builder, admin: &Admin, local: &str, encryption: Encryption) -> Result<(), Refusal> {
        check(
            &request.body(()).unwrap(),
            Some(admin),
            &Via { local: local.parse().unwrap(), encryption, who: String::new() },
        )
    }

    #[test]
    fn a_certificate_will_do_in_place_of_a_token_but_not_for_pages_of_others() {
        let public = admin("0.0.0.0:9901", Some(token("a-token-of-some-length")));
        let ask = |request, encryption| ask_via(request, &public, "10.1.2.3", encryption);
        let page = || Request::builder().uri("/config").header("host", "gateway.internal");
        assert_eq!(ask(page(), Encryption::Certified), Ok(()));
        for encryption in [Encryption::None, Encryption::Anonymous, Encryption::Uncertified] {
            assert_eq!(ask(page(), encryption), Err(Refusal::Unauthorized), "{encryption:?}");
            let with_token = page().header("authorization", "Bearer a-token-of-some-length");
            assert_eq!(ask(with_token, encryption), Ok(()), "{encryption:?}");
        }
        let by_certificate_only = admin("0.0.0.0:9901", None);
        let ask_there = |request| ask_via(request, &by_certificate_only, "10.1.2.3", Encryption::Uncertified);
        assert_eq!(ask_there(page()), Err(Refusal::Unauthorized));
        assert_eq!(ask_there(Request::builder().uri("/ready")), Ok(()));
        let from = |origin| page().header("origin", origin);
        assert_eq!(ask(from("https://evil.example"), Encryption::Certified), Err(Refusal::CrossSite));
        assert_eq!(ask(from("http://10.1.2.3:9901"), Encryption::Certified), Err(Refusal::CrossSite));
        assert_eq!(ask(from("https://10.1.2.3:9901"), Encryption::Certified), Ok(()));
    }

    #[test]
    fn an_address_it_was_reached_at_will_do_where_it_listens_on_all() {
        let all = admin("0.0.0.0:9901", None);
        for (host, want) in [("10.1.2.3:9901", Ok(())), ("10.1.2.4:9901", Err(Refusal::WrongHost))] {
            assert_eq!(ask("/metrics", &[("host", host)], &all, "10.1.2.3"), want, "{host}");
        }
    }

    #[test]
    fn with_a_token_only_the_token_counts() {
        let public = admin("0.0.0.0:9901", Some(token("a-token-of-some-length")));
        let asked = |path: &str, fields: &[(&str, &str)]| ask(path, fields, &public, "10.1.2.3");
        let good = ("authorization", "Bearer a-token-of-some-length");
        for path in ["/live", "/ready"] {
            assert_eq!(asked(path, &[]), Ok(()), "{path}");
        }
        for path in ["/", "/metrics", "/config", "/reload", "/nothing", "/ready/../config", "/live/"] {
            assert_eq!(asked(path, &[]), Err(Refusal::Unauthorized), "{path}");
            assert_eq!(asked(path, &[good, ("host", "gateway.internal")]), Ok(()), "{path}");
        }
        for wrong in ["Bearer a-token-of-some-lengtH", "Bearer", "bearer ", "Basic a-token-of-some-length", ""] {
            assert_eq!(asked("/config", &[("authorization", wrong)]), Err(Refusal::Unauthorized), "{wrong}");
        }
        assert_eq!(asked("/config", &[("authorization", "Bearer x"), good]), Err(Refusal::Unauthorized), "two");
        assert_eq!(asked("/config", &[("authorization", "bearer  a-token-of-some-length")]), Ok(()));
    }

    #[test]
    fn pages_of_others_are_not_answered() {
        let (open, closed) =
            (admin("127.0.0.1:9901", None), admin("127.0.0.1:9901", Some(token("a-token-of-some-length"))));
        let us = ("host", "127.0.0.1:9901");
        let good = ("authorization", "Bearer a-token-of-some-length");
        for (field, want) in [
            (("origin", "http://127.0.0.1:9901"), Ok(())),
            (("origin", "http://localhost:9901"), Ok(())),
            (("sec-fetch-site", "same-origin"), Ok(())),
            (("sec-fetch-site", "none"), Ok(())),
            (("sec-fetch-site", "cross-site"), Err(Refusal::CrossSite)),
            (("origin", "https://evil.example"), Err(Refusal::CrossSite)),
            (("origin", "http://evil.example"), Err(Refusal::CrossSite)),
            (("origin", "http://127.0.0.1.evil.example"), Err(Refusal::CrossSite)),
            (("origin", "null"), Err(Refusal::CrossSite)),
        ] {
            assert_eq!(ask("/reload", &[us, field], &open, "127.0.0.1"), want, "{field:?}");
            assert_eq!(ask("/reload", &[us, good, field], &closed, "127.0.0.1"), want, "{field:?}");
        }
    }
}
