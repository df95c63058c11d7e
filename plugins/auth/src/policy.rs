//! The decision: what a request brings, keys and the time in; admitted or refused out.
//!
//! The schemes are asked in order, and the first for which the request has a credential decides, for good or ill.

use std::rc::Rc;

use plugin_common::{CLAIMS, CONSUMER};
use portcullis_sdk::{Request, Response};
use serde_json::{Map, Value};

use crate::access::{Access, Needs};
use crate::claims::Rules;
use crate::consumers::{ApiKeys, Certificates, Users};
use crate::credentials::{Credentials, Places};
use crate::identity::{Identity, Reading};
use crate::introspection::{Answer, Said};
use crate::keys::KeySet;
use crate::refusal::{Challenge, Refusal};
use crate::token::{Token, is_signed, verified};

type Claims = Map<String, Value>;

/// What is accepted, and what of it goes on.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) schemes: Vec<Scheme>,
    pub(crate) access: Access,
    /// What of claims matters.
    pub(crate) reading: Reading,
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

/// An admitted request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Admitted {
    /// Whose it is; nobody's, if it is anonymous.
    pub(crate) holder: Option<Rc<Identity>>,
    /// Where a credential is that does not go on: a header, and what is left of it.
    pub(crate) taken_out: Vec<(String, Option<String>)>,
}

/// A decision, and what led to it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) by: By,
    pub(crate) outcome: Result<Admitted, Refusal>,
    /// The scopes that a refused request would have needed.
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
        let (by, holder) = self.identified(evidence, &needs);
        let outcome = holder.map(|holder| self.admit(evidence.credentials, holder));
        let scopes = if outcome.is_err() { needs.scopes() } else { Vec::new() };
        Judged { by, outcome, scopes }
    }

    fn identified(&self, evidence: &Evidence<'_>, needs: &Needs<'_>) -> (By, Result<Option<Rc<Identity>>, Refusal>) {
        for scheme in &self.schemes {
            if let Some(holder) = scheme.judge(evidence, &self.reading) {
                let holder = holder.and_then(|holder| {
                    needs.check(&holder)?;
                    needs.check_condition(&holder.claims, evidence.credentials)?;
                    Ok(Some(holder))
                });
                return (scheme.by(), holder);
            }
        }
        let nobody = if needs.anonymous { Ok(()) } else { Err(Refusal::Missing) };
        (By::Nothing, nobody.and_then(|()| needs.check_condition(&Map::new(), evidence.credentials)).map(|()| None))
    }

    fn admit(&self, credentials: &Credentials, holder: Option<Rc<Identity>>) -> Admitted {
        let taken_out = match self.keep_token {
            true => Vec::new(),
            false => self.schemes.iter().flat_map(|scheme| scheme.taken_out(credentials)).collect(),
        };
        Admitted { holder, taken_out }
    }

    /// Makes the changes to an admitted request, and leaves for later filters whose it is. Every header for claims is set or removed:
    /// a client's own copy never stays.
    pub(crate) fn apply(&self, admitted: &Admitted, request: &mut Request) {
        let holder = admitted.holder.as_deref();
        let consumer = holder.and_then(|holder| holder.consumer.as_deref());
        let claims = holder.and_then(|holder| holder.shared.as_deref());
        for (name, value) in [(CONSUMER, consumer), (CLAIMS, claims)] {
            if let Some(value) = value
                && !request.set_property(name, value)
            {
                log::warn!("the host did not take {} bytes of `{name}` for later filters", value.len());
            }
        }
        let mut headers = request.headers_mut();
        for (name, value) in self.changes(admitted) {
            match value {
                Some(value) => headers.set(name, value),
                None => headers.remove(name),
            }
        }
    }

    /// Header and the value it gets; `None` removes it.
    pub(crate) fn changes<'a>(&'a self, admitted: &'a Admitted) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
        let taken_out = admitted.taken_out.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
        let values = admitted.holder.as_ref().map(|holder| holder.headers.as_slice()).unwrap_or_default();
        let values = values.iter().map(Option::as_deref).chain(std::iter::repeat(None));
        taken_out.chain(self.reading.forward.iter().map(|(_, header)| header.as_str()).zip(values))
    }

    /// The token that has to be asked about.
    pub(crate) fn opaque_token(&self, credentials: &Credentials) -> Option<String> {
        self.schemes.iter().find_map(|scheme| match scheme {
            Scheme::Introspection { places, .. } => String::from_utf8(credentials.token(places).ok()??.to_owned()).ok(),
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

    /// Whose a request is by this scheme; nothing where it has no credential for it.
    fn judge(&self, evidence: &Evidence<'_>, reading: &Reading) -> Option<Result<Rc<Identity>, Refusal>> {
        let credentials = evidence.credentials;
        match self {
            Self::Jwt { rules, places, max_bytes, opaque } => {
                let token = credentials.token(places).transpose()?;
                if *opaque == Opaque::LeftToOthers && token.is_ok_and(|token| !is_signed(token)) {
                    return None;
                }
                let judged = |typ: Option<&str>, claims: &Claims| Token::new(rules.check(typ, claims), claims, reading);
                Some(
                    token
                        .and_then(|token| verified(token, evidence.keys, *max_bytes, judged))
                        .and_then(|token| holder(&token, rules, evidence.now_s)),
                )
            }
            Self::Introspection { rules, places, max_bytes } => {
                let token = credentials.token(places).transpose()?;
                Some(token.and_then(|token| introspected(token, evidence, *max_bytes)).and_then(|said| {
                    let judged = || Rc::new(Token::new(rules.check_claims(&said.claims), &said.claims, reading));
                    holder(said.token.get_or_init(judged), rules, evidence.now_s)
                }))
            }
            Self::ApiKey { keys, places } => {
                let key = credentials.key(places).transpose()?;
                Some(key.and_then(|key| keys.find(key).ok_or(Refusal::ApiKey)))
            }
            Self::Basic(users) => {
                let credentials = credentials.authorization("basic").transpose()?;
                Some(credentials.and_then(|own| users.find(own).ok_or(Refusal::Password)))
            }
            Self::ClientCertificate(certificates) => {
                (evidence.connection)("sha256_peer_certificate_digest")?;
                Some(certificates.find(evidence.connection).ok_or(Refusal::Certificate))
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

/// Whose a token is now.
fn holder(token: &Token, rules: &Rules, now_s: u64) -> Result<Rc<Identity>, Refusal> {
    let holder = token.holder.as_ref().map_err(|refusal| *refusal)?;
    rules.check_times(token.times, now_s).map(|()| Rc::clone(holder))
}

/// What an issuer says of an opaque token. A longer one than allowed is not asked about.
fn introspected(token: &[u8], evidence: &Evidence<'_>, max_bytes: usize) -> Result<Rc<Said>, Refusal> {
    let token = std::str::from_utf8(token).map_err(|_| Refusal::Malformed)?;
    if token.is_empty() || token.len() > max_bytes {
        return Err(Refusal::Malformed);
    }
    match (evidence.answer)(token) {
        Some(Answer::Active(said)) => Ok(said),
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

#[cfg(test)]
mod tests;
