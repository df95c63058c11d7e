//! Whose bucket a request takes from.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis_sdk::{HeaderValue, Request};
use serde_json::{Map, Value};

use crate::policy::host_of;
use crate::settings::{Key, digest};

/// Longer keys are stored as their digest, so that a client's bytes cost a bounded amount of shared data.
const MAX_BYTES: usize = 64;

impl Key {
    /// The request's bucket.
    pub(crate) fn bucket(&self, request: &Request) -> String {
        let headers = request.headers();
        let named = match self {
            Self::ClientAddress => None,
            Self::Header(name) => headers.get(name).map(|value| bucket_name("header", &value)),
            Self::Claim(name) => headers
                .text("authorization")
                .and_then(|authorization| claim_of(&authorization, name))
                .map(|value| bucket_name("claim", &value.as_str().into())),
        };
        named.unwrap_or_else(|| {
            let address: String = request.property(&["source", "address"]).unwrap_or_default();
            bucket_name("address", &host_of(&address).into())
        })
    }
}

/// The bucket's name within its namespace.
///
/// `kind` keeps what different sources say apart: a header with an address in it is not that address.
fn bucket_name(kind: &str, value: &HeaderValue) -> String {
    match value.to_str() {
        Ok(value) if value.len() <= MAX_BYTES => format!("{kind}={value}"),
        Ok(_) | Err(_) => format!("{kind}#{:016x}", digest(value.as_bytes())),
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
    fn keys_are_short_and_sources_are_kept_apart() {
        assert_eq!(bucket_name("address", &"192.0.2.1".into()), "address=192.0.2.1");
        assert_eq!(bucket_name("header", &"192.0.2.1".into()), "header=192.0.2.1");
        let long = bucket_name("header", &vec![b'a'; 10_000].into());
        assert_eq!(long.len(), "header#".len() + 16);
        assert_ne!(long, bucket_name("header", &vec![b'a'; 10_001].into()));
        assert_eq!(bucket_name("header", &vec![0xff, 0xfe].into()).len(), "header#".len() + 16);
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
