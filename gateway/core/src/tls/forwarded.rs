//! The client's certificate in a field for the upstream: `x-forwarded-client-cert`, as Envoy writes it.
//!
//! One element per proxy on the way, `key=value` pairs with `;` between them. What a certificate says was chosen by its
//! owner, so whatever could end a value early is quoted: a name in a certificate cannot add a pair or an element.

use std::fmt::Write as _;

use http::header::{HeaderName, HeaderValue};

use super::Certificate;

/// The field.
pub const FIELD: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// What becomes of the field on its way to the upstream; made once for a connection. A stranger's own never passes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Forwarded {
    /// There is none.
    #[default]
    Strip,
    /// What a trusted proxy has sent.
    Keep,
    /// What the gateway knows, in the place of anything that came.
    Set(HeaderValue),
    /// What a trusted proxy has sent, then what the gateway knows.
    Append(HeaderValue),
}

/// What the gateway says of a client's certificate. `own` is the certificate it was shown; `pem` adds the client's as a whole.
#[must_use]
pub fn element(peer: &Certificate, own: Option<&Certificate>, pem: bool) -> Option<HeaderValue> {
    let mut text = String::new();
    for uri in own.into_iter().flat_map(|own| &own.uris) {
        pair(&mut text, "By", uri);
    }
    pair(&mut text, "Hash", &peer.sha256);
    if pem {
        quoted(&mut text, "Cert", &url_encoded_pem(&peer.der));
    }
    quoted(&mut text, "Subject", &peer.subject);
    // An empty URI says that there is none, as on Envoy.
    let none = String::new();
    let uris = if peer.uris.is_empty() { std::slice::from_ref(&none) } else { &peer.uris };
    uris.iter().for_each(|uri| pair(&mut text, "URI", uri));
    peer.dns_names.iter().for_each(|name| pair(&mut text, "DNS", name));
    HeaderValue::from_str(&text).ok()
}

fn pair(text: &mut String, key: &str, value: &str) {
    if value.contains([',', ';', '=', '"', '\\']) {
        return quoted(text, key, value);
    }
    begin(text, key);
    text.push_str(value);
}

fn quoted(text: &mut String, key: &str, value: &str) {
    begin(text, key);
    text.push('"');
    for letter in value.chars() {
        if matches!(letter, '"' | '\\') {
            text.push('\\');
        }
        text.push(letter);
    }
    text.push('"');
}

fn begin(text: &mut String, key: &str) {
    if !text.is_empty() {
        text.push(';');
    }
    text.push_str(key);
    text.push('=');
}

/// A certificate in PEM, with what has a meaning in a URL escaped.
#[must_use]
pub fn url_encoded_pem(der: &[u8]) -> String {
    let mut text = String::with_capacity(der.len() * 2);
    text.push_str("-----BEGIN%20CERTIFICATE-----%0A");
    // 48 bytes make the 64 letters of a line.
    for line in der.chunks(48) {
        line.chunks(3).for_each(|group| base64(&mut text, group));
        text.push_str("%0A");
    }
    text.push_str("-----END%20CERTIFICATE-----%0A");
    text
}

fn base64(text: &mut String, group: &[u8]) {
    let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
    let bits = (byte(0) << 16) | (byte(1) << 8) | byte(2);
    for index in 0..4_usize {
        let six = u8::try_from((bits >> (18 - 6 * index)) & 63).unwrap_or(0);
        match six {
            _ if index > group.len() => text.push_str("%3D"),
            0..26 => text.push(char::from(b'A' + six)),
            26..52 => text.push(char::from(b'a' + six - 26)),
            52..62 => text.push(char::from(b'0' + six - 52)),
            62 => text.push_str("%2B"),
            _ => text.push_str("%2F"),
        }
    }
}

/// Hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_has_the_pairs_that_envoy_writes() {
        let own = Certificate { uris: vec!["spiffe://test/gateway".to_owned()], ..Certificate::default() };
        let peer = Certificate {
            subject: "CN=orders,O=Acme \"Inc\"".to_owned(),
            dns_names: vec!["orders.test".to_owned(), "o.test".to_owned()],
            uris: vec!["spiffe://test/orders".to_owned()],
            sha256: "ab12".to_owned(),
            der: vec![0; 3].into(),
            ..Certificate::default()
        };
        assert_eq!(
            element(&peer, Some(&own), false).unwrap(),
            r#"By=spiffe://test/gateway;Hash=ab12;Subject="CN=orders,O=Acme \"Inc\"";URI=spiffe://test/orders;DNS=orders.test;DNS=o.test"#
        );
        let bare = Certificate { sha256: "cd".to_owned(), ..Certificate::default() };
        assert_eq!(element(&bare, None, false).unwrap(), r#"Hash=cd;Subject="";URI="#);
        let pem = element(&Certificate { der: vec![0; 3].into(), ..bare }, None, true).unwrap();
        let want = "Hash=cd;Cert=\"-----BEGIN%20CERTIFICATE-----%0AAAAA%0A-----END%20CERTIFICATE-----%0A\"";
        assert!(pem.to_str().unwrap().starts_with(want), "{pem:?}");
    }

    #[test]
    fn a_name_in_a_certificate_cannot_add_a_pair_or_an_element() {
        let peer = Certificate {
            uris: vec!["spiffe://test/a;DNS=admin.test".to_owned(), "x,Hash=00\",By=\\".to_owned()],
            ..Certificate::default()
        };
        assert_eq!(
            element(&peer, None, false).unwrap(),
            r#"Hash=;Subject="";URI="spiffe://test/a;DNS=admin.test";URI="x,Hash=00\",By=\\""#
        );
        let split = Certificate { uris: vec!["a\r\nx-admin: 1".to_owned()], ..Certificate::default() };
        assert_eq!(element(&split, None, false), None, "what cannot stand in a field is not sent at all");
    }

    #[test]
    fn base64_is_that_of_pem() {
        for (bytes, want) in [
            (&b""[..], ""),
            (b"f", "Zg%3D%3D"),
            (b"fo", "Zm8%3D"),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg%3D%3D"),
            (&[0xfb, 0xff], "%2B%2F8%3D"),
        ] {
            let mut text = String::new();
            bytes.chunks(3).for_each(|group| base64(&mut text, group));
            assert_eq!(text, want);
        }
        let lines = url_encoded_pem(&[0; 97]);
        assert_eq!(lines.split("%0A").map(str::len).collect::<Vec<_>>(), [29, 64, 64, 8, 27, 0]);
    }
}
