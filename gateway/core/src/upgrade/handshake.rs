//! The request that asks an upstream to switch, and what its answer means.
//!
//! An upstream's word alone opens no tunnel: the answer must fit what was asked. For WebSocket that includes the proof of
//! RFC 6455 §4.2.2, so that nobody who merely controls a status can turn a gateway's connection into a tunnel.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};

use super::{SWITCH, WEBSOCKET, list};
use crate::headers::{Headers, strip_hop_by_hop};

/// What was spoken on a connection to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What an upstream's answer means for the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its bytes follow.
    Switched,
    /// The exchange goes on as any other.
    Declined,
    /// It claims to have switched, but not to what it was asked: nothing it sends can be trusted.
    Broken,
}

/// A request for a tunnel that is on its way to an upstream.
#[derive(Clone, Debug)]
pub struct Handshake {
    protocol: HeaderValue,
    /// The key that the upstream, over HTTP/1.1, must prove to have read.
    key: Option<HeaderValue>,
    method: Method,
}

impl Handshake {
    /// The handshake that this request begins, if its route and its filters have left it one.
    ///
    /// A WebSocket that comes from HTTP/2 has no key; HTTP/1.1 demands one, and gets `fresh_key`.
    pub fn begin(headers: &mut Headers, fresh_key: impl FnOnce() -> HeaderValue) -> Option<Self> {
        let method = headers.method()?.clone();
        let fields = headers.fields_mut();
        // A filter may have taken either field away.
        fields.remove(header::CONNECTION);
        let protocol = fields.get(header::UPGRADE)?.clone();
        fields.insert(header::CONNECTION, SWITCH);
        let needs_key = protocol == WEBSOCKET;
        let key = needs_key.then(|| fields.entry(header::SEC_WEBSOCKET_KEY).or_insert_with(fresh_key).clone());
        Some(Self { protocol, key, method })
    }

    /// Whether it can be sent over this protocol: an extended CONNECT has no room for another method.
    #[must_use]
    pub fn fits(&self, spoken: Spoken) -> bool {
        spoken == Spoken::Http1 || self.method == Method::GET
    }

    /// Looks at an answer. Where it has switched, it is then a 101 with the fields that a client over HTTP/1.1 expects.
    ///
    /// `accept` computes `Sec-WebSocket-Accept` from a key.
    pub fn judge(
        &self,
        spoken: Spoken,
        status: &mut StatusCode,
        fields: &mut HeaderMap,
        accept: impl FnOnce(&HeaderValue) -> HeaderValue,
    ) -> Verdict {
        let proof = self.key.as_ref().map(accept);
        match (spoken, *status) {
            (Spoken::Http1, StatusCode::SWITCHING_PROTOCOLS) => {
                if !self.is_named_by(fields) || proof.as_ref() != self.shown_proof(fields) {
                    return Verdict::Broken;
                }
            }
            (Spoken::Http2, StatusCode::OK) => {}
            // Any success opens an extended CONNECT, but the rest of the class makes no sense for one.
            (Spoken::Http2, status) if status.is_success() => return Verdict::Broken,
            (_, StatusCode::SWITCHING_PROTOCOLS) => return Verdict::Broken,
            (Spoken::Http1 | Spoken::Http2, _) => return Verdict::Declined,
        }
        strip_hop_by_hop(fields);
        fields.remove(header::CONTENT_LENGTH);
        fields.insert(header::CONNECTION, SWITCH);
        fields.insert(header::UPGRADE, self.protocol.clone());
        if let Some(proof) = proof {
            fields.insert(header::SEC_WEBSOCKET_ACCEPT, proof);
        }
        *status = StatusCode::SWITCHING_PROTOCOLS;
        Verdict::Switched
    }

    fn is_named_by(&self, fields: &HeaderMap) -> bool {
        let mut named = list(fields, &header::UPGRADE);
        named.next().is_some_and(|name| name.eq_ignore_ascii_case(self.protocol.as_bytes())) && named.next().is_none()
    }

    /// The proof an answer shows, where one is due.
    fn shown_proof<'a>(&self, fields: &'a HeaderMap) -> Option<&'a HeaderValue> {
        self.key.as_ref().and_then(|_| fields.get(header::SEC_WEBSOCKET_ACCEPT))
    }
}

/// Takes out of a request for HTTP/2 what only HTTP/1.1 asks a tunnel with; returns the `:protocol` of its extended CONNECT.
pub fn take_protocol(fields: &mut HeaderMap) -> Option<HeaderValue> {
    let protocol = fields.remove(header::UPGRADE)?;
    fields.remove(header::CONNECTION);
    fields.remove(header::SEC_WEBSOCKET_KEY);
    Some(protocol)
}

#[cfg(test)]
mod tests {
    use http::uri::PathAndQuery;

    use super::*;
    use crate::headers::Scheme;

    fn fields(given: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in given {
            fields.append(*name, HeaderValue::from_static(value));
        }
        fields
    }

    fn begin(given: &[(&'static str, &'static str)]) -> Option<Handshake> {
        let path = PathAndQuery::from_static("/");
        let mut headers = Headers::request(Method::GET, Scheme::Http, path, fields(given));
        Handshake::begin(&mut headers, || HeaderValue::from_static("fresh"))
    }

    /// What becomes of an answer; the proof of a key is the key in upper case.
    fn judged(handshake: &Handshake, spoken: Spoken, status: u16, given: &[(&'static str, &'static str)]) -> String {
        let mut fields = fields(given);
        let mut status = StatusCode::from_u16(status).unwrap();
        let accept = |key: &HeaderValue| key.to_str().unwrap().to_ascii_uppercase().try_into().unwrap();
        let verdict = handshake.judge(spoken, &mut status, &mut fields, accept);
        let mut shown: Vec<_> =
            fields.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
        shown.sort_unstable();
        match verdict {
            Verdict::Switched => format!("{} {}", status.as_u16(), shown.join(" ")),
            Verdict::Declined | Verdict::Broken => format!("{verdict:?}"),
        }
    }

    #[test]
    fn an_upstream_has_switched_only_when_its_answer_fits_the_question() {
        let websocket = begin(&[("upgrade", "websocket"), ("sec-websocket-key", "k")]).unwrap();
        let other = begin(&[("upgrade", "irc")]).unwrap();
        let good = [("connection", "Upgrade"), ("upgrade", "WebSocket"), ("sec-websocket-accept", "K")];
        let open = "101 connection=upgrade sec-websocket-accept=K upgrade=websocket";
        for (what, handshake, spoken, status, given, want) in [
            ("a good answer", &websocket, Spoken::Http1, 101, &good[..], open),
            ("no proof", &websocket, Spoken::Http1, 101, &good[..2], "Broken"),
            ("no protocol", &websocket, Spoken::Http1, 101, &good[2..], "Broken"),
            ("a wrong proof", &websocket, Spoken::Http1, 101, &[good[1], ("sec-websocket-accept", "L")], "Broken"),
            ("another protocol", &websocket, Spoken::Http1, 101, &[("upgrade", "irc"), good[2]], "Broken"),
            ("two protocols", &websocket, Spoken::Http1, 101, &[("upgrade", "websocket, irc"), good[2]], "Broken"),
            ("a success", &websocket, Spoken::Http1, 200, &good, "Declined"),
            ("a refusal", &websocket, Spoken::Http1, 426, &good, "Declined"),
            (
                "no proof is due",
                &other,
                Spoken::Http1,
                101,
                &[("upgrade", "irc")],
                "101 connection=upgrade upgrade=irc",
            ),
            ("a tunnel over HTTP/2", &websocket, Spoken::Http2, 200, &[], open),
            ("a refusal over HTTP/2", &websocket, Spoken::Http2, 403, &[], "Declined"),
            ("another success over HTTP/2", &websocket, Spoken::Http2, 204, &[], "Broken"),
            ("a status that HTTP/2 lacks", &websocket, Spoken::Http2, 101, &good, "Broken"),
        ] {
            assert_eq!(judged(handshake, spoken, status, given), want, "{what}");
        }
    }

    #[test]
    fn the_answers_framing_goes_and_its_own_fields_stay() {
        let other = begin(&[("upgrade", "irc")]).unwrap();
        let given =
            [("upgrade", "irc"), ("connection", "x-hop"), ("x-hop", "1"), ("content-length", "9"), ("x-own", "1")];
        assert_eq!(judged(&other, Spoken::Http1, 101, &given), "101 connection=upgrade upgrade=irc x-own=1");
    }

    #[test]
    fn a_request_without_upgrade_begins_nothing_and_a_websocket_has_a_key() {
        assert!(begin(&[("connection", "upgrade")]).is_none());
        let from_http2 = begin(&[("upgrade", "websocket")]).unwrap();
        assert_eq!(from_http2.key, Some(HeaderValue::from_static("fresh")));
        assert_eq!(begin(&[("upgrade", "irc")]).unwrap().key, None);
    }

    #[test]
    fn an_extended_connect_has_no_room_for_http1s_fields() {
        let given = [("upgrade", "websocket"), ("connection", "upgrade"), ("sec-websocket-key", "k"), ("x-a", "1")];
        let mut fields = fields(&given);
        assert_eq!(take_protocol(&mut fields), Some(HeaderValue::from_static("websocket")));
        assert_eq!(fields.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["x-a"]);
        assert_eq!(take_protocol(&mut fields), None);
    }
}
