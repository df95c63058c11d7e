//! Settings as an operator writes them, and as the policy reads them.

mod remote;

use std::collections::BTreeMap;
use std::time::Duration;

use portcullis_sdk::{Config, HeaderName, Period};

use serde_json::Value;

use crate::access::{Access, Rule, Table, check_scopes};
use crate::claims::{ClaimPath, Presence, Rules};
use crate::consumers::{ConsumerEntry, Consumers};
use crate::credentials::Places;
use crate::foreign::VerifySignature;
use crate::identity::{Reading, Shared};
use crate::keys::{Algorithms, KeyEntry, KeySet, NO_ES512};
use crate::policy::{Opaque, Policy, Scheme};
use crate::signature::{Algorithm, Curve};
use remote::{FetchSettings, IntrospectionSettings};
pub(crate) use remote::{IntrospectionSource, JwksPlace, JwksSource};

/// Who sends a request, and what they may: JWT by `keys`, `jwks` or `discovery`, opaque tokens, API keys, names and passwords, client certificates.
#[derive(Config)]
pub(crate) struct Settings {
    /// What `iss` has to be, or of what one.
    issuer: Option<OneOrMany>,
    /// Of what `aud` has to hold one.
    audience: Option<OneOrMany>,
    /// The keys of tokens themselves.
    keys: Option<Vec<KeyEntry>>,
    /// Where the keys of tokens are fetched.
    jwks: Option<FetchSettings>,
    /// Who says where the keys of `issuer` are.
    discovery: Option<FetchSettings>,
    /// Of keys that are fetched, those for these algorithms are used.
    #[serde(default)]
    algorithms: Vec<String>,
    /// Who is asked about tokens that cannot be read here.
    introspection: Option<IntrospectionSettings>,
    /// How far clocks may be apart.
    #[serde(default = "default_leeway")]
    leeway: Period,
    /// Whether a token without `exp` is refused.
    #[serde(default = "yes")]
    require_exp: bool,
    /// The values of `typ` that are accepted. Without: none at all, `JWT` and `at+jwt`.
    #[serde(default)]
    types: Vec<String>,
    /// Claim: the value it has to be or hold, or a list of which one is enough; null, if it only has to be there.
    #[serde(default)]
    required_claims: BTreeMap<String, Value>,
    /// Where a token may be; in `authorization` unless told otherwise.
    token_from: Option<Places>,
    /// A longer token is refused unread.
    #[serde(default = "default_max_token_bytes")]
    max_token_bytes: usize,
    /// Where an API key may be.
    api_key_from: Option<Places>,
    /// Whom the settings know by API keys, passwords (RFC 7617) and client certificates.
    #[serde(default)]
    consumers: Vec<ConsumerEntry>,
    /// Which scheme is asked first. Without: as they stand here.
    #[serde(default)]
    order: Vec<SchemeName>,
    /// Whether a request without credentials passes. One with wrong credentials does not.
    #[serde(default)]
    anonymous: bool,
    /// What `scope` or `scp` has to hold.
    #[serde(default)]
    required_scopes: Vec<String>,
    /// Who may do what. A request that no row is for is refused.
    #[serde(default)]
    rules: Vec<Rule>,
    /// The claim that roles are in; `roles` unless told otherwise. `realm_access.roles` is one inside another.
    roles_claim: Option<String>,
    /// Claim: header. A client's own copy of the header never passes.
    #[serde(default)]
    forward_claims: BTreeMap<String, HeaderName>,
    /// Which claims filters after this one get, as `claims` of their templates and conditions: all, if true, or those named.
    #[serde(default)]
    share_claims: ShareClaims,
    /// Whether the upstream gets the credential.
    #[serde(default = "yes")]
    keep_token: bool,
    /// What clients are told they have to sign in to.
    realm: Option<String>,
}

/// A scheme.
#[derive(Clone, Config, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum SchemeName {
    /// `keys`, `jwks` or `discovery`.
    Jwt,
    /// `introspection`.
    Introspection,
    /// `api_keys` of consumers.
    ApiKey,
    /// Their `password`.
    Basic,
    /// Their `certificates`.
    ClientCertificate,
}

/// One name or several, of which a token has to carry one.
#[derive(Config)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Several(Vec<String>),
}

/// All claims or none, or those named.
#[derive(Config)]
#[serde(untagged)]
enum ShareClaims {
    All(bool),
    Named(Vec<String>),
}

impl Default for ShareClaims {
    fn default() -> Self {
        Self::All(false)
    }
}

impl ShareClaims {
    fn checked(self) -> Result<Shared, String> {
        match self {
            Self::All(false) => Ok(Shared::Nothing),
            Self::All(true) => Ok(Shared::All),
            Self::Named(names) if names.is_empty() => Err("`share_claims` is empty".to_owned()),
            Self::Named(names) => Ok(Shared::Named(names.into_iter().map(ClaimPath::new).collect())),
        }
    }
}

fn default_leeway() -> Period {
    Period(Duration::from_secs(30))
}

fn yes() -> bool {
    true
}

fn default_max_token_bytes() -> usize {
    16 * 1024
}

/// Where the keys come from.
pub(crate) enum KeySource {
    /// The settings themselves.
    Inline(KeySet),
    /// A JWKS document.
    Fetched(JwksSource),
}

/// Which tokens there are.
#[derive(Clone, Copy)]
enum TokensFound {
    /// Those that can be read here.
    Signed,
    /// Those that have to be asked about.
    Opaque,
    Both,
}

/// The policy, and what it stands on.
pub(crate) struct Checked {
    pub(crate) policy: Policy,
    /// Without signed tokens, no keys.
    pub(crate) keys: KeySource,
    pub(crate) introspection: Option<IntrospectionSource>,
}

impl Settings {
    /// The policy, and what it stands on, for a host that checks signatures so.
    ///
    /// # Errors
    /// What an operator has to change.
    pub(crate) fn checked(mut self, host: &VerifySignature) -> Result<Checked, String> {
        let issuers = names(self.issuer.take(), "issuer")?;
        let keys = self.key_source(&issuers, host)?;
        let introspection = self.introspection.take().map(IntrospectionSettings::checked).transpose()?;
        let access = self.access()?;
        let mut schemes = match (&keys, &introspection) {
            (Some(_), None) => self.tokens(issuers, TokensFound::Signed)?,
            (None, Some(_)) => self.tokens(issuers, TokensFound::Opaque)?,
            (Some(_), Some(_)) => self.tokens(issuers, TokensFound::Both)?,
            (None, None) if !issuers.is_empty() || self.audience.is_some() || !self.required_claims.is_empty() => {
                return Err(
                    "`keys`, `jwks`, `discovery` or `introspection` is needed beside rules for tokens".to_owned()
                );
            }
            (None, None) => Vec::new(),
        };
        let reading = Reading {
            roles_in: self.roles_claim.take().map(ClaimPath::new),
            forward: self
                .forward_claims
                .iter()
                .map(|(claim, header)| (ClaimPath::new(claim.clone()), header.clone()))
                .collect(),
            keeps_claims: access.has_conditions(),
            shared: std::mem::take(&mut self.share_claims).checked()?,
        };
        self.consumers(&mut schemes, &reading)?;
        if schemes.is_empty() {
            return Err("one of `keys`, `jwks`, `discovery`, `introspection` and `consumers` is needed".to_owned());
        }
        if let Some(realm) = &self.realm
            && !realm.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\')
        {
            return Err("`realm` holds a quote, a backslash or something that is not ASCII".to_owned());
        }
        let policy = Policy {
            schemes: in_order(schemes, &self.order)?,
            access,
            reading,
            keep_token: self.keep_token,
            realm: self.realm,
        };
        let keys = keys.unwrap_or_else(|| KeySource::Inline(KeySet::default()));
        Ok(Checked { policy, keys, introspection })
    }

    fn key_source(&mut self, issuers: &[String], host: &VerifySignature) -> Result<Option<KeySource>, String> {
        let allowed = std::mem::take(&mut self.algorithms);
        let fetched = match (self.keys.take(), self.jwks.take(), self.discovery.take()) {
            (None, None, None) => return Ok(None),
            (Some(_), None, None) if !allowed.is_empty() => {
                return Err("`algorithms` is for keys that are fetched; `keys` name their own".to_owned());
            }
            (Some(entries), None, None) => {
                return Ok(Some(KeySource::Inline(KeySet::from_entries(entries, host.clone())?)));
            }
            (None, Some(jwks), None) => jwks.jwks()?,
            (None, None, Some(discovery)) => discovery.discovery(issuers)?,
            _ => return Err("`keys`, `jwks` and `discovery` exclude each other".to_owned()),
        };
        for name in &allowed {
            if Algorithm::named(name)? == Algorithm::Ecdsa(Curve::P521) && !host.knows_es512() {
                return Err(format!("`algorithms`: {NO_ES512}"));
            }
        }
        let algorithms = Algorithms { allowed, ..fetched.algorithms };
        Ok(Some(KeySource::Fetched(JwksSource { algorithms, ..fetched })))
    }

    fn access(&mut self) -> Result<Access, String> {
        check_scopes(&self.required_scopes)?;
        Ok(Access {
            scopes: std::mem::take(&mut self.required_scopes),
            rules: Table::checked(std::mem::take(&mut self.rules))?,
            anonymous: self.anonymous,
        })
    }

    /// The schemes for tokens: one for those that can be read here, one for those that have to be asked about.
    fn tokens(&mut self, issuers: Vec<String>, found: TokensFound) -> Result<Vec<(SchemeName, Scheme)>, String> {
        let places = self.token_from.take().unwrap_or_default();
        places.checked("token_from")?;
        let (rules, max_bytes) = (self.rules_for_tokens(issuers)?, self.max_token_bytes);
        // Who is asked knows when a token ends, and need not say whose it is: RFC 7662 §2.2 leaves both open.
        let said = Rules { expiry: Presence::Optional, issuer: Presence::Optional, ..rules.clone() };
        let jwt = |places, opaque| (SchemeName::Jwt, Scheme::Jwt { rules, places, max_bytes, opaque });
        let asked = |places| (SchemeName::Introspection, Scheme::Introspection { rules: said, places, max_bytes });
        Ok(match found {
            TokensFound::Signed => vec![jwt(places, Opaque::Refused)],
            TokensFound::Opaque => vec![asked(places)],
            TokensFound::Both => vec![jwt(places.clone(), Opaque::LeftToOthers), asked(places)],
        })
    }

    fn rules_for_tokens(&mut self, issuers: Vec<String>) -> Result<Rules, String> {
        let types = self.types.iter().map(|typ| typ.to_ascii_lowercase());
        let required = std::mem::take(&mut self.required_claims).into_iter().map(|(claim, wanted)| {
            let wanted = match wanted {
                Value::Null => Vec::new(),
                Value::Array(list) if list.is_empty() => return Err(format!("`required_claims.{claim}` is empty")),
                Value::Array(list) => list,
                one @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => vec![one],
            };
            Ok((ClaimPath::new(claim), wanted))
        });
        Ok(Rules {
            issuers,
            issuer: Presence::Required,
            audience: names(self.audience.take(), "audience")?,
            leeway_s: self.leeway.0.as_secs(),
            expiry: if self.require_exp { Presence::Required } else { Presence::Optional },
            types: types.map(|typ| typ.strip_prefix("application/").map_or(typ.clone(), str::to_owned)).collect(),
            required: required.collect::<Result<_, String>>()?,
        })
    }

    fn consumers(&mut self, schemes: &mut Vec<(SchemeName, Scheme)>, reading: &Reading) -> Result<(), String> {
        let Consumers { api_keys, users, certificates } = Consumers::new(&self.consumers, reading)?;
        match self.api_key_from.take() {
            Some(places) => {
                places.checked("api_key_from")?;
                if api_keys.is_empty() || places.is_nowhere() {
                    return Err(
                        "`api_key_from` needs a `header`, a `cookie` or a `query`, and consumers with `api_keys`"
                            .to_owned(),
                    );
                }
                schemes.push((SchemeName::ApiKey, Scheme::ApiKey { keys: api_keys, places }));
            }
            None if !api_keys.is_empty() => {
                return Err("`api_key_from` is needed beside the `api_keys` of consumers".to_owned());
            }
            None => {}
        }
        if !users.is_empty() {
            schemes.push((SchemeName::Basic, Scheme::Basic(users)));
        }
        if !certificates.is_empty() {
            schemes.push((SchemeName::ClientCertificate, Scheme::ClientCertificate(certificates)));
        }
        Ok(())
    }
}

/// The schemes in the order that was asked for, which has to name them all.
fn in_order(schemes: Vec<(SchemeName, Scheme)>, order: &[SchemeName]) -> Result<Vec<Scheme>, String> {
    let mut schemes = schemes;
    if !order.is_empty() {
        let once = |name: &SchemeName| order.iter().filter(|own| *own == name).count() == 1;
        if order.len() != schemes.len() || !schemes.iter().all(|(name, _)| once(name)) {
            return Err("`order` has to name each scheme that is set up, once".to_owned());
        }
        schemes.sort_by_key(|(name, _)| order.iter().position(|own| own == name));
    }
    Ok(schemes.into_iter().map(|(_, scheme)| scheme).collect())
}

fn names(setting: Option<OneOrMany>, name: &str) -> Result<Vec<String>, String> {
    match setting {
        None => Ok(Vec::new()),
        Some(OneOrMany::One(name)) => Ok(vec![name]),
        Some(OneOrMany::Several(names)) if names.is_empty() => Err(format!("`{name}` is empty")),
        Some(OneOrMany::Several(names)) => Ok(names),
    }
}

#[cfg(test)]
mod tests;
