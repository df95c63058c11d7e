//! Settings as an operator writes them, and as the policy reads them.

use std::collections::BTreeMap;
use std::time::Duration;

use portcullis_sdk::{Config, HeaderName, Period, Upstream};

use crate::keys::{KeyEntry, KeySet};
use crate::policy::Rules;

/// JWT bearer tokens. Exactly one of `keys` and `jwks` is given.
#[derive(Config)]
pub(crate) struct Settings {
    /// What `iss` has to be.
    issuer: Option<String>,
    /// Of what `aud` has to hold one.
    audience: Option<Audience>,
    /// The keys themselves.
    keys: Option<Vec<KeyEntry>>,
    /// Where the keys are fetched.
    jwks: Option<JwksSettings>,
    /// How far clocks may be apart.
    #[serde(default = "default_leeway")]
    leeway: Period,
    /// What `scope` or `scp` has to hold.
    #[serde(default)]
    required_scopes: Vec<String>,
    /// Claim: header. A client's own copy of the header never passes.
    #[serde(default)]
    forward_claims: BTreeMap<String, HeaderName>,
    /// Whether the upstream gets the token.
    #[serde(default = "default_keep_token")]
    keep_token: bool,
}

/// One name or several, of which a token has to carry one.
#[derive(Config)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// A JWKS document (RFC 7517) of an upstream.
#[derive(Config)]
struct JwksSettings {
    /// Who has it.
    upstream: Upstream,
    /// Where.
    path: String,
    /// The host that is asked for; the upstream's name unless told otherwise.
    host: Option<String>,
    /// How often it is fetched.
    #[serde(default = "default_refresh")]
    refresh: Period,
    /// How long that may take.
    #[serde(default = "default_timeout")]
    timeout: Period,
}

fn default_leeway() -> Period {
    Period(Duration::from_secs(30))
}

fn default_keep_token() -> bool {
    true
}

fn default_refresh() -> Period {
    Period(Duration::from_secs(300))
}

fn default_timeout() -> Period {
    Period(Duration::from_secs(5))
}

/// Where the keys come from.
pub(crate) enum KeySource {
    /// The settings themselves.
    Inline(KeySet),
    /// A JWKS document of an upstream.
    Fetched(JwksSource),
}

/// Where and how often the JWKS document is fetched.
#[derive(Debug)]
pub(crate) struct JwksSource {
    pub(crate) upstream: Upstream,
    pub(crate) path: String,
    pub(crate) host: String,
    pub(crate) refresh: Duration,
    pub(crate) timeout: Duration,
}

impl Settings {
    /// The policy and its keys.
    ///
    /// # Errors
    /// What an operator has to change.
    pub(crate) fn checked(self) -> Result<(Rules, KeySource), String> {
        let source = match (self.keys, self.jwks) {
            (Some(entries), None) => KeySource::Inline(KeySet::from_entries(entries)?),
            (None, Some(jwks)) => KeySource::Fetched(jwks.checked()?),
            (None, None) => return Err("`keys` or `jwks` is needed".to_owned()),
            (Some(_), Some(_)) => return Err("`keys` and `jwks` exclude each other".to_owned()),
        };
        let audience = match self.audience {
            None => Vec::new(),
            Some(Audience::One(name)) => vec![name],
            Some(Audience::Several(names)) if names.is_empty() => return Err("`audience` is empty".to_owned()),
            Some(Audience::Several(names)) => names,
        };
        for scope in &self.required_scopes {
            // RFC 6749 §3.3; the scope is quoted in WWW-Authenticate.
            let token = |byte: u8| (0x21..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
            if scope.is_empty() || !scope.bytes().all(token) {
                return Err(format!("`{scope}` is not a scope"));
            }
        }
        let rules = Rules {
            issuer: self.issuer,
            audience,
            leeway_s: self.leeway.0.as_secs(),
            required_scopes: self.required_scopes,
            forward_claims: self.forward_claims.into_iter().collect(),
            keep_token: self.keep_token,
        };
        Ok((rules, source))
    }
}

impl JwksSettings {
    fn checked(self) -> Result<JwksSource, String> {
        if self.upstream.name().is_empty() {
            return Err("`jwks.upstream` is empty".to_owned());
        }
        if !self.path.starts_with('/') {
            return Err("`jwks.path` has to begin with `/`".to_owned());
        }
        if self.refresh.0 < Duration::from_secs(1) || self.timeout.0 < Duration::from_millis(1) {
            return Err("`jwks.refresh` is at least 1s and `jwks.timeout` at least 1ms".to_owned());
        }
        Ok(JwksSource {
            host: self.host.unwrap_or_else(|| self.upstream.name().to_owned()),
            upstream: self.upstream,
            path: self.path,
            refresh: self.refresh.0,
            timeout: self.timeout.0,
        })
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
            (String::new(), "`keys` or `jwks` is needed"),
            (
                format!(r#"{{"keys":[{key}],"jwks":{{"upstream":"idp","path":"/j"}}}}"#),
                "`keys` and `jwks` exclude each other",
            ),
            (r#"{"keys":[]}"#.to_owned(), "`keys` is empty"),
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
