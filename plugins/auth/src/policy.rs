//! The decision: what a request brings, keys and the time in; admitted or refused out.
//!
//! The schemes are asked in order, and the first for which the request has a credential decides, for good or ill.

use std::rc::Rc;

use portcullis_sdk::{HeaderName, Request, Response};
use serde_json::{Map, Value};

use crate::access::{Access, Needs};
use crate::claims::{ClaimPath, Rules, header_value};
use crate::consumers::{ApiKeys, Certificates, Users};
use crate::credentials::{Credentials, Places};
use crate::introspection::Answer;
use crate::keys::KeySet;
use crate::refusal::{Challenge, Refusal};
use crate::token::{is_signed, verified};

/// What is accepted, and what of it goes on.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) schemes: Vec<Scheme>,
    pub(crate) access: Access,
    /// Claim, header.
    pub(crate) forward_claims: Vec<(ClaimPath, HeaderName)>,
    pub(crate) keep_token: bool,
    pub(crate) realm: Option<String>,
}

/// A way to say who one is.
#[derive(Debug)]
pub(crate) enum Scheme {
    Jwt { rules: Rules, places: Places, max_bytes: usize, opaque: Opaque },
    Introspection { rules: Rules, places: Places, max_bytes: usize },
    ApiKey { keys: ApiKeys, places: Places },
    Basic(Users),
    ClientCertificate(Certificates),
}

/// What becomes of a token that is not a signed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opaque {
    Refused,
    /// Another scheme asks about it.
    LeftToOthers,
}

/// How a request was told to be whose, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Jwt,
    Introspection,
    ApiKey,
    Basic,
    ClientCertificate,
    Nothing,
}

/// What becomes of an admitted request's headers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Admitted {
    /// Header and the value it gets; `None` removes it. Every forwarded header is listed, so a client's own copy never stays.
    pub(crate) headers: Vec<(String, Option<String>)>,
}

/// A decision, and what led to it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) by: By,
    pub(crate) outcome: Result<Admitted, Refusal>,
    /// The scopes that the request needs.
    pub(crate) scopes: Vec<String>,
}

/// Whatever a request can be judged by.
pub(crate) struct Evidence<'a> {
    pub(crate) credentials: &'a Credentials,
    pub(crate) keys: &'a KeySet,
    /// What is known of an opaque token.
    pub(crate) answer: &'a dyn Fn(&str) -> Option<Answer>,
    /// A property of the connection.
    pub(crate) connection: &'a dyn Fn(&str) -> Option<String>,
    pub(crate) now_s: u64,
}

impl Policy {
    /// Judges one request.
    pub(crate) fn judge(&self, evidence: &Evidence<'_>) -> Judged {
        let needs = match self.access.needs(evidence.credentials.method(), evidence.credentials.path()) {
            Ok(needs) => needs,
            Err(refusal) => return Judged { by: By::Nothing, outcome: Err(refusal), scopes: Vec::new() },
        };
        let (by, outcome) = self.identified(evidence, &needs);
        Judged { by, outcome, scopes: needs.scopes }
    }

    fn identified(&self, evidence: &Evidence<'_>, needs: &Needs) -> (By, Result<Admitted, Refusal>) {
        for scheme in &self.schemes {
            let admit = |claims: &Map<String, Value>| {
                self.access.check(needs, claims).map(|()| self.admit(evidence.credentials, claims))
            };
            if let Some(outcome) = scheme.judge(evidence, admit) {
                return (scheme.by(), outcome);
            }
        }
        let nobody = Map::new();
        let outcome =
            if needs.anonymous { Ok(self.admit(evidence.credentials, &nobody)) } else { Err(Refusal::Missing) };
        (By::Nothing, outcome)
    }

    fn admit(&self, credentials: &Credentials, claims: &Map<String, Value>) -> Admitted {
        let mut headers = Vec::new();
        if !self.keep_token {
            headers.extend(self.schemes.iter().flat_map(|scheme| scheme.taken_out(credentials)));
        }
        let forwarded = self.forward_claims.iter();
        headers
            .extend(forwarded.map(|(claim, header)| (header.to_string(), claim.find(claims).and_then(header_value))));
        Admitted { headers }
    }

    /// The token that has to be asked about.
    pub(crate) fn opaque_token(&self, credentials: &Credentials) -> Option<String> {
        self.schemes.iter().find_map(|scheme| match scheme {
            Scheme::Introspection { places, .. } => credentials.token(places).ok()?,
            Scheme::Jwt { .. } | Scheme::ApiKey { .. } | Scheme::Basic(_) | Scheme::ClientCertificate(_) => None,
        })
    }

    /// The reply for a refused request that needed these scopes.
    pub(crate) fn reply(&self, refusal: Refusal, scopes: &[String]) -> Response {
        let has = |by: By| self.schemes.iter().any(|scheme| scheme.by() == by);
        let realm = self.realm.as_deref();
        refusal.reply(&Challenge {
            realm,
            bearer: has(By::Jwt) || has(By::Introspection),
            basic: has(By::Basic),
            scopes,
        })
    }
}

impl Scheme {
    fn by(&self) -> By {
        match self {
            Self::Jwt { .. } => By::Jwt,
            Self::Introspection { .. } => By::Introspection,
            Self::ApiKey { .. } => By::ApiKey,
            Self::Basic(_) => By::Basic,
            Self::ClientCertificate(_) => By::ClientCertificate,
        }
    }

    /// What this scheme says; nothing where the request has no credential for it.
    fn judge<T>(
        &self,
        evidence: &Evidence<'_>,
        admit: impl Fn(&Map<String, Value>) -> Result<T, Refusal>,
    ) -> Option<Result<T, Refusal>> {
        let credentials = evidence.credentials;
        match self {
            Self::Jwt { rules, places, max_bytes, opaque } => {
                let token = credentials.token(places).transpose()?;
                if *opaque == Opaque::LeftToOthers && token.as_ref().is_ok_and(|token| !is_signed(token)) {
                    return None;
                }
                Some(token.and_then(|token| verified(&token, evidence.keys, *max_bytes)).and_then(|token| {
                    rules.check(token.typ.as_deref(), &token.claims, evidence.now_s)?;
                    admit(&token.claims)
                }))
            }
            Self::Introspection { rules, places, max_bytes } => {
                let token = credentials.token(places).transpose()?;
                Some(token.and_then(|token| introspected(&token, evidence, *max_bytes)).and_then(|claims| {
                    rules.check_claims(&claims, evidence.now_s)?;
                    admit(&claims)
                }))
            }
            Self::ApiKey { keys, places } => {
                let key = credentials.key(places).transpose()?;
                Some(key.and_then(|key| keys.find(&key).ok_or(Refusal::ApiKey)).and_then(admit))
            }
            Self::Basic(users) => {
                let credentials = credentials.authorization("basic").transpose()?;
                Some(credentials.and_then(|own| users.find(own).ok_or(Refusal::Password)).and_then(admit))
            }
            Self::ClientCertificate(certificates) => {
                (evidence.connection)("sha256_peer_certificate_digest")?;
                Some(certificates.find(evidence.connection).ok_or(Refusal::Certificate).and_then(admit))
            }
        }
    }

    fn taken_out(&self, credentials: &Credentials) -> Vec<(String, Option<String>)> {
        let authorization = || ("authorization".to_owned(), None);
        match self {
            Self::Jwt { places, .. } | Self::Introspection { places, .. } if places.header.is_none() => {
                let mut changes = credentials.without(places);
                changes.push(authorization());
                changes
            }
            Self::Jwt { places, .. } | Self::Introspection { places, .. } | Self::ApiKey { places, .. } => {
                credentials.without(places)
            }
            Self::Basic(_) => vec![authorization()],
            Self::ClientCertificate(_) => Vec::new(),
        }
    }
}

/// What an issuer says of an opaque token. A longer one than allowed is not asked about.
fn introspected(token: &str, evidence: &Evidence<'_>, max_bytes: usize) -> Result<Rc<Map<String, Value>>, Refusal> {
    if token.is_empty() || token.len() > max_bytes {
        return Err(Refusal::Malformed);
    }
    match (evidence.answer)(token) {
        Some(Answer::Active(claims)) => Ok(claims),
        Some(Answer::Inactive) => Err(Refusal::Inactive),
        None => Err(Refusal::IntrospectionUnavailable),
    }
}

impl By {
    pub(crate) const ALL: [Self; 6] =
        [Self::Jwt, Self::Introspection, Self::ApiKey, Self::Basic, Self::ClientCertificate, Self::Nothing];

    /// For metrics: one of a few words.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Jwt => "jwt",
            Self::Introspection => "introspection",
            Self::ApiKey => "api_key",
            Self::Basic => "basic",
            Self::ClientCertificate => "client_certificate",
            Self::Nothing => "none",
        }
    }
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

#[cfg(test)]
mod tests;
