//! The decision: an Authorization header, keys and the time in; admitted or refused out.
//!
//! RFC 6750 for the scheme and its errors, RFC 7519 for the claims, RFC 8725 for what to be strict about.

use portcullis_sdk::{HeaderName, HeaderValue, Request, Response};
use serde_json::{Map, Value};

use crate::keys::KeySet;
use crate::token::verified_payload;

/// What a token has to satisfy, and what of it goes on.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) issuer: Option<String>,
    /// Empty: any.
    pub(crate) audience: Vec<String>,
    pub(crate) leeway_s: u64,
    pub(crate) required_scopes: Vec<String>,
    /// Claim, header.
    pub(crate) forward_claims: Vec<(String, HeaderName)>,
    pub(crate) keep_token: bool,
}

/// What becomes of an admitted request's headers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Admitted {
    /// Header and the value it gets; `None` removes it. Every forwarded header is listed, so a client's own copy never stays.
    pub(crate) headers: Vec<(String, Option<String>)>,
}

/// Why a request was refused. Each has one stable code word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Missing,
    Malformed,
    UnknownKey,
    Algorithm,
    Signature,
    Claims,
    Expired,
    NotYetValid,
    Issuer,
    Audience,
    Scope,
    KeysUnavailable,
}

/// Judges one request by every `Authorization` header it has.
pub(crate) fn judge(
    rules: &Rules,
    keys: &KeySet,
    authorization: &[HeaderValue],
    now_s: u64,
) -> Result<Admitted, Refusal> {
    let token = bearer_token(authorization)?;
    let payload = verified_payload(token, keys)?;
    let claims: Map<String, Value> = serde_json::from_slice(&payload).map_err(|_| Refusal::Claims)?;
    check_times(&claims, rules.leeway_s, now_s)?;
    check_parties(&claims, rules)?;
    check_scopes(&claims, &rules.required_scopes)?;
    Ok(rules.admit(&claims))
}

/// The token, from exactly one header: with two, the upstream might believe the one that was not checked.
fn bearer_token(authorization: &[HeaderValue]) -> Result<&str, Refusal> {
    let value = match authorization {
        [] => return Err(Refusal::Missing),
        [value] => value.to_str().map_err(|_| Refusal::Malformed)?,
        [_, _, ..] => return Err(Refusal::Malformed),
    };
    match value.trim().split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim_start()),
        None if value.trim().eq_ignore_ascii_case("bearer") => Err(Refusal::Malformed),
        // Another scheme is no token at all: the client is told which one to use.
        Some(_) | None => Err(Refusal::Missing),
    }
}

fn check_times(claims: &Map<String, Value>, leeway_s: u64, now_s: u64) -> Result<(), Refusal> {
    let expires = seconds(claims, "exp")?.ok_or(Refusal::Claims)?;
    if expires.saturating_add(leeway_s) <= now_s {
        return Err(Refusal::Expired);
    }
    if seconds(claims, "nbf")?.is_some_and(|from| from > now_s.saturating_add(leeway_s)) {
        return Err(Refusal::NotYetValid);
    }
    Ok(())
}

/// A NumericDate (RFC 7519 §2), whole seconds; fractions are cut off.
#[allow(clippy::cast_possible_truncation, reason = "the cast saturates, and the sign was checked")]
fn seconds(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, Refusal> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    match value.as_u64().or_else(|| value.as_f64().filter(|seconds| *seconds >= 0.0).map(|seconds| seconds as u64)) {
        Some(seconds) => Ok(Some(seconds)),
        None => Err(Refusal::Claims),
    }
}

fn check_parties(claims: &Map<String, Value>, rules: &Rules) -> Result<(), Refusal> {
    if let Some(issuer) = &rules.issuer
        && claims.get("iss").and_then(Value::as_str) != Some(issuer)
    {
        return Err(Refusal::Issuer);
    }
    let named = words(claims.get("aud"), false);
    if !rules.audience.is_empty() && !rules.audience.iter().any(|wanted| named.contains(&wanted.as_str())) {
        return Err(Refusal::Audience);
    }
    Ok(())
}

/// `scope` is RFC 8693's, `scp` what several issuers write instead.
fn check_scopes(claims: &Map<String, Value>, required: &[String]) -> Result<(), Refusal> {
    let mut granted = words(claims.get("scope"), true);
    granted.extend(words(claims.get("scp"), true));
    let all = required.iter().all(|scope| granted.contains(&scope.as_str()));
    if all { Ok(()) } else { Err(Refusal::Scope) }
}

/// The words of a claim that is one string or a list of them.
fn words(claim: Option<&Value>, split: bool) -> Vec<&str> {
    match claim {
        Some(Value::String(words)) if split => words.split_ascii_whitespace().collect(),
        Some(Value::String(word)) => vec![word],
        Some(Value::Array(words)) => words.iter().filter_map(Value::as_str).collect(),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => Vec::new(),
    }
}

impl Rules {
    fn admit(&self, claims: &Map<String, Value>) -> Admitted {
        let forwarded =
            self.forward_claims.iter().map(|(claim, header)| (header.to_string(), header_value(claims, claim)));
        let mut headers: Vec<_> = forwarded.collect();
        if !self.keep_token {
            headers.push(("authorization".to_owned(), None));
        }
        Admitted { headers }
    }
}

/// A claim as a header value: strings as they are, anything else as JSON, nothing that could end its line.
fn header_value(claims: &Map<String, Value>, claim: &str) -> Option<String> {
    let value = match claims.get(claim)? {
        Value::String(value) => value.clone(),
        Value::Null => return None,
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => other.to_string(),
    };
    value.bytes().all(|byte| (0x20..0x7f).contains(&byte)).then_some(value)
}

impl Admitted {
    /// Makes the changes.
    pub(crate) fn apply(&self, request: &mut Request) {
        let mut headers = request.headers_mut();
        for (name, value) in &self.headers {
            match value {
                Some(value) => headers.set(name, value),
                None => headers.remove(name),
            }
        }
    }
}

impl Refusal {
    /// Status, code word, and what a client may know.
    fn words(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::Missing => (401, "token_missing", "A bearer token is needed"),
            Self::Malformed => (401, "token_malformed", "The bearer token cannot be read"),
            Self::UnknownKey => (401, "token_unknown_key", "The token was signed with a key not known here"),
            Self::Algorithm => (401, "token_algorithm", "The token was signed with an algorithm not allowed here"),
            Self::Signature => (401, "token_signature", "The token's signature is wrong"),
            Self::Claims => (401, "token_claims", "The token's claims cannot be used"),
            Self::Expired => (401, "token_expired", "The token has expired"),
            Self::NotYetValid => (401, "token_not_yet_valid", "The token is not valid yet"),
            Self::Issuer => (401, "token_issuer", "The token comes from another issuer"),
            Self::Audience => (401, "token_audience", "The token is meant for another audience"),
            Self::Scope => (403, "scope_missing", "The token lacks a scope this request needs"),
            Self::KeysUnavailable => (503, "keys_unavailable", "Tokens cannot be checked at the moment"),
        }
    }

    /// The reply for it (RFC 6750 §3).
    pub(crate) fn reply(self, rules: &Rules) -> Response {
        let (status, code, title) = self.words();
        let problem = Response::problem(status, code).title(title);
        match self {
            Self::KeysUnavailable => problem.header("retry-after", "1"),
            // Without a token there is no error to name, only the scheme.
            Self::Missing => problem.header("www-authenticate", "Bearer"),
            Self::Scope => {
                let scopes = rules.required_scopes.join(" ");
                let challenge = "Bearer error=\"insufficient_scope\"";
                problem.header(
                    "www-authenticate",
                    format!("{challenge}, error_description=\"{title}\", scope=\"{scopes}\""),
                )
            }
            Self::Malformed
            | Self::UnknownKey
            | Self::Algorithm
            | Self::Signature
            | Self::Claims
            | Self::Expired
            | Self::NotYetValid
            | Self::Issuer
            | Self::Audience => problem
                .header("www-authenticate", format!("Bearer error=\"invalid_token\", error_description=\"{title}\"")),
        }
    }
}

#[cfg(test)]
mod tests;
