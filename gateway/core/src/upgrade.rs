//! Leaving HTTP: which requests may turn their connection into a tunnel, and what is kept of the fields that ask for it.
//!
//! HTTP/1.1 asks with `Connection: upgrade` and `Upgrade`, and is answered with 101 (RFC 9110 §7.8); HTTP/2 asks with an
//! extended CONNECT, and is answered with 200 (RFC 8441). In here, and for filters, both have the first form, as on Envoy;
//! the second is made of it, or made into it, where a message meets the wire.
//!
//! Invariant: a request has `upgrade` and `connection` only while its route allows that one protocol; no guest can put them
//! there. A tunnel is opened only for an answer that [`Handshake::judge`] has found to be meant for such a request.

mod handshake;

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

pub use self::handshake::{Handshake, Spoken, Verdict, take_protocol};
use crate::event::End;
use crate::reply::Failure;

const WEBSOCKET: &str = "websocket";
const SWITCH: HeaderValue = HeaderValue::from_static("upgrade");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
/// The most protocols of one request that are looked at; clients name one.
const MAX_OFFERS: usize = 8;

/// A protocol that may be spoken in a tunnel: what stands in `Upgrade`, or in `:protocol`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade(HeaderValue);

/// Why a protocol cannot be tunnelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnUpgrade {
    /// It is not a name with, perhaps, a version.
    #[error("it is not a protocol's name, or a name and a version with `/` between")]
    Malformed,
    /// It would carry requests past routes and filters.
    #[error("requests inside such a tunnel would pass no route and no filter")]
    Http,
}

impl Upgrade {
    /// Reads a protocol's name; case does not count.
    ///
    /// # Errors
    /// When it is not the name of a protocol, or that of HTTP or TLS in any version.
    pub fn parse(text: &str) -> Result<Self, NotAnUpgrade> {
        let (name, version) = text.split_once('/').map_or((text, None), |(name, version)| (name, Some(version)));
        if !is_token(name) || version.is_some_and(|version| !is_token(version)) {
            return Err(NotAnUpgrade::Malformed);
        }
        let lower = text.to_ascii_lowercase();
        let name = name.to_ascii_lowercase();
        if matches!(name.as_str(), "h2c" | "h2" | "h3" | "http" | "https" | "tls") {
            return Err(NotAnUpgrade::Http);
        }
        HeaderValue::from_str(&lower).map(Self).map_err(|_| NotAnUpgrade::Malformed)
    }

    /// Its name, in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    fn is_websocket(&self) -> bool {
        self.as_str() == WEBSOCKET
    }
}

fn is_token(text: &str) -> bool {
    let is_token_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (1..=32).contains(&text.len()) && text.bytes().all(is_token_byte)
}

/// What a route allows of tunnels.
#[derive(Clone, Debug, Default)]
pub struct Tunnels {
    /// The protocols they may speak; none: there are no tunnels.
    pub allowed: Vec<Upgrade>,
    /// How long one may be silent.
    pub idle: Duration,
}

/// How a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// By `Upgrade`: without it the request still means something.
    ByField,
    /// By an extended CONNECT: without it there is nothing to do.
    ByConnect,
}

/// What a client offers to speak instead of HTTP.
#[derive(Clone, Debug)]
pub struct Offer {
    protocols: Vec<Upgrade>,
    asked: Asked,
}

impl Offer {
    /// The offer of an HTTP/1.1 request, to be read before its hop-by-hop fields are removed.
    ///
    /// A request that has a body makes none: what follows it could be read as that body or as the tunnel's bytes. Nor does one
    /// whose `Connection` does not name the field (RFC 9110 §7.8), or one for `websocket` that is not GET (RFC 6455 §4.1).
    #[must_use]
    pub fn in_fields(method: &Method, fields: &HeaderMap, end: End) -> Option<Self> {
        let of_connection = list(fields, &header::CONNECTION).any(|name| name.eq_ignore_ascii_case(b"upgrade"));
        if !of_connection || !end.is_end() {
            return None;
        }
        let offered = list(fields, &header::UPGRADE).take(MAX_OFFERS);
        let named = offered.filter_map(|name| Upgrade::parse(str::from_utf8(name).ok()?).ok());
        let protocols: Vec<_> = named.filter(|it| !it.is_websocket() || method == Method::GET).collect();
        (!protocols.is_empty()).then_some(Self { protocols, asked: Asked::ByField })
    }

    /// The offer of an extended CONNECT with this `:protocol`.
    #[must_use]
    pub fn in_connect(protocol: &str) -> Self {
        Self { protocols: Upgrade::parse(protocol).into_iter().collect(), asked: Asked::ByConnect }
    }

    /// How it was made.
    #[must_use]
    pub fn asked(&self) -> Asked {
        self.asked
    }

    /// Shows the offer to the router, whose conditions may ask for `upgrade`.
    pub fn show(&self, fields: &mut HeaderMap) {
        if let Some(first) = self.protocols.first() {
            fields.insert(header::CONNECTION, SWITCH);
            fields.insert(header::UPGRADE, first.0.clone());
        }
    }

    /// Leaves in the request what its route allows of the offer.
    ///
    /// # Errors
    /// When it allows nothing of it and the request means nothing without.
    pub fn settle(&self, allowed: &[Upgrade], fields: &mut HeaderMap) -> Result<(), Failure> {
        fields.remove(header::CONNECTION);
        fields.remove(header::UPGRADE);
        fields.remove(HTTP2_SETTINGS);
        if let Some(chosen) = self.protocols.iter().find(|offered| allowed.contains(offered)) {
            fields.insert(header::CONNECTION, SWITCH);
            fields.insert(header::UPGRADE, chosen.0.clone());
            return Ok(());
        }
        // Others are offered just in case, as `h2c` is, and are answered over HTTP/1.1 (RFC 9110 §7.8).
        let needed = self.asked == Asked::ByConnect || self.protocols.iter().any(Upgrade::is_websocket);
        if needed { Err(Failure::UpgradeRefused) } else { Ok(()) }
    }
}

/// The status that says to this client what a response's status says in here, with the fields that go with it.
///
/// Over HTTP/2 a tunnel is opened with 200. Any other response of that class would be read as an open tunnel too, and is an
/// error instead.
pub fn answer(asked: Asked, status: StatusCode, fields: &mut HeaderMap) -> StatusCode {
    let switched = status == StatusCode::SWITCHING_PROTOCOLS;
    if !switched || asked == Asked::ByConnect {
        fields.remove(header::CONNECTION);
        fields.remove(header::UPGRADE);
    }
    match asked {
        Asked::ByConnect if switched => {
            fields.remove(header::SEC_WEBSOCKET_ACCEPT);
            StatusCode::OK
        }
        Asked::ByConnect if status.is_success() => StatusCode::BAD_GATEWAY,
        Asked::ByField | Asked::ByConnect => status,
    }
}

/// The members of a list field.
fn list<'a>(fields: &'a HeaderMap, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let values = fields.get_all(name).iter();
    values.flat_map(|list| list.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::strip_hop_by_hop;

    fn fields(given: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in given {
            fields.append(*name, HeaderValue::from_static(value));
        }
        fields
    }

    fn allowed(names: &[&str]) -> Vec<Upgrade> {
        names.iter().map(|name| Upgrade::parse(name).unwrap()).collect()
    }

    fn shown(fields: &HeaderMap) -> String {
        let mut shown: Vec<_> =
            fields.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
        shown.sort_unstable();
        shown.join(" ")
    }

    /// What is left of a request's fields, or why it is refused.
    fn kept(method: Method, given: &[(&'static str, &'static str)], end: End, names: &[&str]) -> String {
        let mut fields = fields(given);
        let offer = Offer::in_fields(&method, &fields, end);
        strip_hop_by_hop(&mut fields);
        match offer.map_or(Ok(()), |offer| {
            offer.show(&mut fields);
            offer.settle(&allowed(names), &mut fields)
        }) {
            Ok(()) => shown(&fields),
            Err(failure) => failure.code().to_owned(),
        }
    }

    #[test]
    fn only_an_allowed_upgrade_keeps_its_two_fields() {
        let websocket = [("connection", "keep-alive, Upgrade, X-Drop"), ("upgrade", "WebSocket"), ("x-drop", "1")];
        let h2c = [("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "AAM")];
        let both =
            [("connection", "upgrade"), ("upgrade", "h2c, irc/6.9"), ("upgrade", "websocket"), ("http2-settings", "x")];
        let two = "connection=upgrade upgrade=websocket";
        for (what, given, names, want) in [
            ("allowed", &websocket[..], &["websocket"][..], two),
            ("not allowed", &websocket, &[], "upgrade_refused"),
            ("another is allowed", &websocket, &["irc"], "upgrade_refused"),
            ("never honoured", &h2c, &["websocket"], ""),
            ("the first that is allowed", &both, &["websocket"], two),
            ("the first that is allowed", &both, &["websocket", "irc/6.9"], "connection=upgrade upgrade=irc/6.9"),
            ("not named by connection", &[("upgrade", "websocket"), ("connection", "close")], &["websocket"], ""),
            ("no connection", &[("upgrade", "websocket")], &["websocket"], ""),
            ("nothing offered", &[("connection", "upgrade")], &["websocket"], ""),
            ("not a name", &[("connection", "upgrade"), ("upgrade", "web socket")], &["websocket"], ""),
            ("just in case", &[("connection", "upgrade"), ("upgrade", "irc")], &[], ""),
        ] {
            assert_eq!(kept(Method::GET, given, End::Yes, names), want, "{what}");
        }
        assert_eq!(kept(Method::GET, &websocket, End::No, &["websocket"]), "", "a body goes first");
        assert_eq!(kept(Method::POST, &websocket, End::Yes, &["websocket"]), "", "RFC 6455 knows GET only");
        let post = [("connection", "upgrade"), ("upgrade", "tcp")];
        assert_eq!(kept(Method::POST, &post, End::Yes, &["tcp"]), "connection=upgrade upgrade=tcp");
    }

    #[test]
    fn an_extended_connect_is_tunnelled_or_refused() {
        for (protocol, names, want) in [
            ("websocket", &["websocket"][..], Ok("connection=upgrade upgrade=websocket")),
            ("websocket", &[], Err(Failure::UpgradeRefused)),
            ("h2c", &["websocket"], Err(Failure::UpgradeRefused)),
            ("", &["websocket"], Err(Failure::UpgradeRefused)),
        ] {
            let mut fields = HeaderMap::new();
            let settled = Offer::in_connect(protocol).settle(&allowed(names), &mut fields);
            assert_eq!(settled.map(|()| shown(&fields)), want.map(str::to_owned), "{protocol}");
        }
    }

    #[test]
    fn what_would_carry_http_or_is_no_name_is_no_upgrade() {
        for (text, want) in [
            ("websocket", Ok("websocket")),
            ("SPDY/3.1", Ok("spdy/3.1")),
            ("h2c", Err(NotAnUpgrade::Http)),
            ("H2C", Err(NotAnUpgrade::Http)),
            ("HTTP/2.0", Err(NotAnUpgrade::Http)),
            ("TLS/1.0", Err(NotAnUpgrade::Http)),
            ("", Err(NotAnUpgrade::Malformed)),
            ("a b", Err(NotAnUpgrade::Malformed)),
            ("a/", Err(NotAnUpgrade::Malformed)),
            ("a/b/c", Err(NotAnUpgrade::Malformed)),
            ("websocket\r\nx: y", Err(NotAnUpgrade::Malformed)),
        ] {
            assert_eq!(Upgrade::parse(text).as_ref().map(Upgrade::as_str).map_err(|error| *error), want, "{text:?}");
        }
    }

    #[test]
    fn over_http2_only_a_tunnel_is_answered_with_success() {
        for (asked, status, want) in [
            (Asked::ByField, 101, 101),
            (Asked::ByField, 200, 200),
            (Asked::ByConnect, 101, 200),
            (Asked::ByConnect, 200, 502),
            (Asked::ByConnect, 204, 502),
            (Asked::ByConnect, 302, 302),
            (Asked::ByConnect, 403, 403),
        ] {
            let mut fields = fields(&[("connection", "upgrade"), ("upgrade", "websocket"), ("x-a", "1")]);
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(answer(asked, status, &mut fields).as_u16(), want);
            assert_eq!(fields.contains_key("upgrade"), want == 101);
        }
    }
}
