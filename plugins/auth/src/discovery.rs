//! What an issuer says of itself (OpenID Connect Discovery 1.0 §4, RFC 8414 §3): where its keys are, and what it signs with.
//!
//! The document comes from the network, so it is believed only where it agrees with the settings: the issuer has to be the one
//! that was asked for, to the letter, and the keys have to be on the host that was asked.

use std::fmt;

use serde::Deserialize;

/// An issuer's address, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Issuer {
    url: String,
    scheme_bytes: usize,
    host_bytes: usize,
}

/// What of the document is used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// Where the keys are, on the host that was asked.
    pub(crate) jwks_path: String,
    /// What the issuer signs with; none where it does not say.
    pub(crate) algorithms: Vec<String>,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    jwks_uri: String,
    #[serde(default)]
    id_token_signing_alg_values_supported: Vec<String>,
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl Issuer {
    /// # Errors
    /// What an operator has to change.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let (scheme_bytes, host_bytes) = parts(url)
            .filter(|_| !url.contains('?'))
            .ok_or_else(|| format!("`issuer` is `{url}`, which is no address such as https://idp.example"))?;
        Ok(Self { url: url.to_owned(), scheme_bytes, host_bytes })
    }

    /// The host it is on, with its port if that is told.
    pub(crate) fn host(&self) -> &str {
        self.url.get(self.scheme_bytes..self.scheme_bytes + self.host_bytes).unwrap_or_default()
    }

    /// Where the document is: the issuer's own path comes first (OpenID Connect Discovery 1.0 §4.1).
    pub(crate) fn document_path(&self) -> String {
        let path = self.url.get(self.scheme_bytes + self.host_bytes..).unwrap_or_default();
        format!("{}/.well-known/openid-configuration", path.trim_end_matches('/'))
    }

    /// Reads the document that this issuer has on this host.
    ///
    /// # Errors
    /// What about it cannot be believed, for the log.
    pub(crate) fn metadata(&self, document: &[u8], host: &str) -> Result<Metadata, String> {
        let document: Document =
            serde_json::from_slice(document).map_err(|why| format!("not an issuer's metadata: {why}"))?;
        if document.issuer != self.url {
            return Err(format!("the metadata is of `{}`, not of `{}`", document.issuer, self.url));
        }
        let elsewhere = || format!("`jwks_uri` is `{}`, which is not on {host}", document.jwks_uri);
        let (scheme_bytes, host_bytes) = parts(&document.jwks_uri).ok_or_else(elsewhere)?;
        let (origin, path) = document.jwks_uri.split_at_checked(scheme_bytes + host_bytes).ok_or_else(elsewhere)?;
        // With the issuer's own scheme: what is published over TLS is not to be fetched without.
        let scheme = self.url.get(..self.scheme_bytes).unwrap_or_default();
        if origin.strip_prefix(scheme).is_none_or(|on| !on.eq_ignore_ascii_case(host)) || !path.starts_with('/') {
            return Err(elsewhere());
        }
        Ok(Metadata { jwks_path: path.to_owned(), algorithms: document.id_token_signing_alg_values_supported })
    }
}

/// How many bytes of an address are its scheme, with `://`, and its host; nothing where it is none, or has a fragment or a user's
/// name.
fn parts(url: &str) -> Option<(usize, usize)> {
    let scheme = ["https://", "http://"].into_iter().find(|scheme| url.starts_with(scheme))?;
    let rest = url.get(scheme.len()..)?;
    let host = rest.find('/').unwrap_or(rest.len());
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    let is_path = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    let (host_part, path) = rest.split_at_checked(host)?;
    let is_address = host > 0 && host_part.bytes().all(is_host) && path.bytes().all(is_path);
    is_address.then_some((scheme.len(), host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_an_address_and_its_document_is_below_it() {
        for (url, want) in [
            ("https://idp.example", Some(("idp.example", "/.well-known/openid-configuration"))),
            ("https://idp.example/", Some(("idp.example", "/.well-known/openid-configuration"))),
            ("http://[::1]:81/realms/a", Some(("[::1]:81", "/realms/a/.well-known/openid-configuration"))),
            ("idp.example", None),
            ("ftp://idp.example", None),
            ("https://", None),
            ("https:///a", None),
            ("https://ann@idp.example", None),
            ("https://idp.example/a#b", None),
            ("https://idp.example/a b", None),
            ("https://idp.example/a?b", None),
        ] {
            let issuer = Issuer::parse(url);
            let got = issuer.as_ref().ok().map(|issuer| (issuer.host(), issuer.document_path()));
            assert_eq!(got, want.map(|(host, path)| (host, path.to_owned())), "{url}");
        }
    }

    #[test]
    fn metadata_is_believed_where_it_agrees_with_the_settings() {
        let issuer = Issuer::parse("https://idp.example/a").unwrap();
        let read = |own: &str, jwks: &str, host: &str| {
            let document = format!(r#"{{"issuer":"{own}","jwks_uri":"{jwks}","token_endpoint":"x"}}"#);
            issuer.metadata(document.as_bytes(), host).map(|metadata| metadata.jwks_path)
        };
        let own = "https://idp.example/a";
        assert_eq!(read(own, "https://idp.example/keys?of=a", "idp.example"), Ok("/keys?of=a".to_owned()));
        assert_eq!(read(own, "https://IDP.example/keys", "idp.example"), Ok("/keys".to_owned()));
        assert_eq!(read(own, "https://keys.example/a", "keys.example"), Ok("/a".to_owned()));
        for (wrong, jwks, host) in [
            ("https://idp.example/a/", "https://idp.example/keys", "idp.example"),
            ("https://IDP.example/a", "https://idp.example/keys", "idp.example"),
            (own, "https://evil.example/keys", "idp.example"),
            (own, "https://idp.example.evil.example/keys", "idp.example"),
            (own, "https://idp.example@evil.example/keys", "idp.example"),
            (own, "https://idp.example:444/keys", "idp.example"),
            (own, "http://idp.example/keys", "idp.example"),
            (own, "https://idp.example", "idp.example"),
            (own, "/keys", "idp.example"),
        ] {
            assert!(read(wrong, jwks, host).is_err(), "{wrong} {jwks}");
        }
        assert!(issuer.metadata(b"{}", "idp.example").is_err());
    }

    #[test]
    fn an_issuer_says_what_it_signs_with() {
        let issuer = Issuer::parse("https://a").unwrap();
        let document =
            br#"{"issuer":"https://a","jwks_uri":"https://a/k","id_token_signing_alg_values_supported":["PS256"]}"#;
        let metadata = issuer.metadata(document, "a").unwrap();
        assert_eq!(metadata.algorithms, ["PS256"]);
    }
}
