//! Settings as an operator writes them, and as the policy reads them.

mod remote;

use std::collections::BTreeMap;
use std::time::Duration;

use portcullis_sdk::{Config, HeaderName, Period};

use serde_json::Value;

use crate::access::{Access, Rule, check_scopes};
use crate::claims::{ClaimPath, Expiry, Rules};
use crate::consumers::{ApiKeyEntry, ApiKeys, CertificateEntry, Certificates, UserEntry, Users};
use crate::credentials::Places;
use crate::keys::{self, Algorithms, KeyEntry, KeySet};
use crate::policy::{Policy, Scheme};
use remote::{DiscoverySettings, JwksSettings};
pub(crate) use remote::{JwksPlace, JwksSource};

/// Who sends a request, and what they may: JWT by `keys`, `jwks` or `discovery`, API keys, names and passwords, client certificates.
#[derive(Config)]
pub(crate) struct Settings {
    /// What `iss` has to be, or of what one.
    issuer: Option<OneOrMany>,
    /// Of what `aud` has to hold one.
    audience: Option<OneOrMany>,
    /// The keys of tokens themselves.
    keys: Option<Vec<KeyEntry>>,
    /// Where the keys of tokens are fetched.
    jwks: Option<JwksSettings>,
    /// Who says where the keys of `issuer` are.
    discovery: Option<DiscoverySettings>,
    /// Of keys that are fetched, those for these algorithms are used.
    #[serde(default)]
    algorithms: Vec<String>,
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
    /// API keys.
    api_keys: Option<ApiKeySettings>,
    /// Names and passwords (RFC 7617).
    basic: Option<BasicSettings>,
    /// Certificates that clients of a TLS listener show.
    client_certificate: Option<CertificateSettings>,
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
    /// `api_keys`.
    ApiKey,
    /// `basic`.
    Basic,
    /// `client_certificate`.
    ClientCertificate,
}

/// API keys, and where they are found.
#[derive(Config)]
struct ApiKeySettings {
    /// The header.
    header: Option<HeaderName>,
    /// A cookie.
    cookie: Option<String>,
    /// A parameter of the query. Addresses end up in logs and histories: off unless asked for.
    query: Option<String>,
    /// The keys.
    keys: Vec<ApiKeyEntry>,
}

/// Names and passwords.
#[derive(Config)]
struct BasicSettings {
    /// Whose they are.
    users: Vec<UserEntry>,
}

/// Client certificates.
#[derive(Config)]
struct CertificateSettings {
    /// Whose they are.
    consumers: Vec<CertificateEntry>,
}

/// One name or several, of which a token has to carry one.
#[derive(Config)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Several(Vec<String>),
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

impl Settings {
    /// The policy, and the keys of its tokens; without tokens, no keys.
    ///
    /// # Errors
    /// What an operator has to change.
    pub(crate) fn checked(mut self) -> Result<(Policy, KeySource), String> {
        let issuers = names(self.issuer.take(), "issuer")?;
        let keys = self.key_source(&issuers)?;
        let access = self.access()?;
        let mut schemes = Vec::new();
        if keys.is_some() {
            schemes.push((SchemeName::Jwt, self.jwt(issuers)?));
        } else if !issuers.is_empty() || self.audience.is_some() || !self.required_claims.is_empty() {
            return Err("`keys`, `jwks` or `discovery` is needed beside rules for tokens".to_owned());
        }
        self.consumers(&mut schemes)?;
        if schemes.is_empty() {
            return Err("`keys`, `jwks`, `discovery`, `api_keys`, `basic` or `client_certificate` is needed".to_owned());
        }
        if let Some(realm) = &self.realm
            && !realm.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\')
        {
            return Err("`realm` holds a quote, a backslash or something that is not ASCII".to_owned());
        }
        let forwarded = self.forward_claims.into_iter();
        let policy = Policy {
            schemes: in_order(schemes, &self.order)?,
            access,
            forward_claims: forwarded.map(|(claim, header)| (ClaimPath::new(claim), header)).collect(),
            keep_token: self.keep_token,
            realm: self.realm,
        };
        Ok((policy, keys.unwrap_or_else(|| KeySource::Inline(KeySet::default()))))
    }

    fn key_source(&mut self, issuers: &[String]) -> Result<Option<KeySource>, String> {
        let allowed = std::mem::take(&mut self.algorithms);
        let fetched = match (self.keys.take(), self.jwks.take(), self.discovery.take()) {
            (None, None, None) => return Ok(None),
            (Some(_), None, None) if !allowed.is_empty() => {
                return Err("`algorithms` is for keys that are fetched; `keys` name their own".to_owned());
            }
            (Some(entries), None, None) => return Ok(Some(KeySource::Inline(KeySet::from_entries(entries)?))),
            (None, Some(jwks), None) => jwks.checked()?,
            (None, None, Some(discovery)) => discovery.checked(issuers)?,
            _ => return Err("`keys`, `jwks` and `discovery` exclude each other".to_owned()),
        };
        allowed.iter().try_for_each(|name| keys::algorithm(name).map(|_| ()))?;
        let algorithms = Algorithms { allowed, ..fetched.algorithms };
        Ok(Some(KeySource::Fetched(JwksSource { algorithms, ..fetched })))
    }

    fn access(&mut self) -> Result<Access, String> {
        check_scopes(&self.required_scopes)?;
        for (at, rule) in self.rules.iter().enumerate() {
            rule.checked().map_err(|why| format!("rules[{at}]: {why}"))?;
        }
        Ok(Access {
            scopes: std::mem::take(&mut self.required_scopes),
            roles_in: self.roles_claim.take().map(ClaimPath::new),
            rules: std::mem::take(&mut self.rules),
            anonymous: self.anonymous,
        })
    }

    fn jwt(&mut self, issuers: Vec<String>) -> Result<Scheme, String> {
        let places = self.token_from.take().unwrap_or_default();
        places.checked("token_from")?;
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
        let rules = Rules {
            issuers,
            audience: names(self.audience.take(), "audience")?,
            leeway_s: self.leeway.0.as_secs(),
            expiry: if self.require_exp { Expiry::Required } else { Expiry::Optional },
            types: types.map(|typ| typ.strip_prefix("application/").map_or(typ.clone(), str::to_owned)).collect(),
            required: required.collect::<Result<_, String>>()?,
        };
        Ok(Scheme::Jwt { rules, places, max_bytes: self.max_token_bytes })
    }

    fn consumers(&mut self, schemes: &mut Vec<(SchemeName, Scheme)>) -> Result<(), String> {
        if let Some(own) = self.api_keys.take() {
            let places = Places { header: own.header, cookie: own.cookie, query: own.query };
            places.checked("api_keys")?;
            if places.header.is_none() && places.cookie.is_none() && places.query.is_none() {
                return Err("`api_keys` needs a `header`, a `cookie` or a `query`".to_owned());
            }
            schemes.push((SchemeName::ApiKey, Scheme::ApiKey { keys: ApiKeys::new(own.keys)?, places }));
        }
        if let Some(own) = self.basic.take() {
            schemes.push((SchemeName::Basic, Scheme::Basic(Users::new(own.users)?)));
        }
        if let Some(own) = self.client_certificate.take() {
            let known = Certificates::new(own.consumers)?;
            schemes.push((SchemeName::ClientCertificate, Scheme::ClientCertificate(known)));
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
mod tests {
    use super::*;
    use portcullis_sdk::parse_config;

    fn refusal(json: &str) -> String {
        parse_config::<Settings>(json.as_bytes())
            .and_then(|settings| settings.checked().map(|_| ()))
            .err()
            .unwrap_or_default()
    }

    #[test]
    fn settings_say_what_is_wrong_with_them() {
        let key = r#"{"alg":"HS256","secret":"0123456789abcdef0123456789abcdef"}"#;
        for (json, want) in [
            (format!(r#"{{"keys":[{key}]}}"#), ""),
            (format!(r#"{{"keys":[{key}],"audience":["a","b"],"leeway":5,"keep_token":false}}"#), ""),
            (r#"{"issuer":"https://idp.example","jwks":{"upstream":"idp","path":"/jwks.json"}}"#.to_owned(), ""),
            (String::new(), "`keys`, `jwks`, `discovery`, `api_keys`, `basic` or `client_certificate` is needed"),
            (r#"{"issuer":"a","basic":{"users":[]}}"#.to_owned(), "`keys`, `jwks` or `discovery` is needed beside"),
            (r#"{"basic":{"users":[]}}"#.to_owned(), "`basic.users` is empty"),
            (r#"{"api_keys":{"keys":[]}}"#.to_owned(), "`api_keys` needs a `header`"),
            (
                r#"{"api_keys":{"header":"x-api-key","keys":[{"id":"a","sha256":"abc"}]}}"#.to_owned(),
                "api_keys.keys[0]: `sha256` has 64 hexadecimal digits",
            ),
            (
                r#"{"client_certificate":{"consumers":[{"id":"a","dns":"a","uri":"b"}]}}"#.to_owned(),
                "client_certificate.consumers[0]: a client certificate has exactly one of",
            ),
            (format!(r#"{{"keys":[{key}],"order":["jwt","basic"]}}"#), "`order` has to name each scheme"),
            (format!(r#"{{"keys":[{key}],"rules":[{{"path":"orders"}}]}}"#), "rules[0]: `orders` is not a path"),
            (format!(r#"{{"keys":[{key}],"rules":[{{"methods":["get"]}}]}}"#), "rules[0]: `get` is not a method"),
            (format!(r#"{{"keys":[{key}],"realm":"a\"b"}}"#), "`realm` holds a quote"),
            (format!(r#"{{"keys":[{key}],"token_from":{{"cookie":"a b"}}}}"#), "`token_from`: `a b` is not a name"),
            (
                format!(r#"{{"keys":[{key}],"jwks":{{"upstream":"idp","path":"/j"}}}}"#),
                "`keys`, `jwks` and `discovery` exclude each other",
            ),
            (r#"{"keys":[]}"#.to_owned(), "`keys` is empty"),
            (
                r#"{"issuer":"https://idp.example","discovery":{"upstream":"idp"},"algorithms":["ES256"]}"#.to_owned(),
                "",
            ),
            (r#"{"discovery":{"upstream":"idp"}}"#.to_owned(), "`discovery` needs an `issuer`, and just one"),
            (r#"{"issuer":"idp","discovery":{"upstream":"idp"}}"#.to_owned(), "`issuer` is `idp`, which is no address"),
            (r#"{"issuer":"https://a","discovery":{"upstream":""}}"#.to_owned(), "`discovery.upstream` is empty"),
            (
                r#"{"jwks":{"upstream":"idp","path":"/j"},"algorithms":["none"]}"#.to_owned(),
                "`none` is not a signature algorithm known here",
            ),
            (format!(r#"{{"keys":[{key}],"algorithms":["HS256"]}}"#), "`algorithms` is for keys that are fetched"),
            (format!(r#"{{"keys":[{key}],"audience":[]}}"#), "`audience` is empty"),
            (format!(r#"{{"keys":[{key}],"required_scopes":["a b"]}}"#), "`a b` is not a scope"),
            (
                format!(r#"{{"keys":[{key}],"forward_claims":{{"sub":"X-User"}}}}"#),
                "`forward_claims.sub`: `X-User` is not a header name in lower case",
            ),
            (r#"{"jwks":{"upstream":"idp","path":"jwks"}}"#.to_owned(), "`jwks.path` has to begin with `/`"),
            (
                r#"{"jwks":{"upstream":"idp","path":"/j","refresh":"10ms"}}"#.to_owned(),
                "`jwks.refresh` is at least 1s and `jwks.timeout` at least 1ms",
            ),
        ] {
            let why = refusal(&json);
            assert!(why.starts_with(want) && why.is_empty() == want.is_empty(), "{json}: {why}");
        }
        assert!(refusal(r#"{"keyz":[]}"#).starts_with("unknown field `keyz`"));
    }
}
