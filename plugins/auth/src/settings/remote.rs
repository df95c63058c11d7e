//! Settings of what is asked over the network: whom, where, how often.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use portcullis_sdk::{Config, Period, Upstream};

use crate::discovery::Issuer;
use crate::introspection::form_encoded;
use crate::keys::Algorithms;

/// Where a JWKS document (RFC 7517) is, or who says where: an issuer (OpenID Connect Discovery).
#[derive(Config)]
pub(crate) struct FetchSettings {
    /// Who has it.
    upstream: Upstream,
    /// Where the document is; for `jwks` alone.
    path: Option<String>,
    /// The host that is asked for; of `jwks` the upstream's name unless told otherwise, of `discovery` the issuer's own, and the keys have
    /// to be on it.
    host: Option<String>,
    /// How often it is fetched.
    #[serde(default = "default_refresh")]
    refresh: Period,
    /// How long a call may take.
    #[serde(default = "default_timeout")]
    timeout: Period,
    /// How much longer than `refresh` its keys are used while it cannot be had.
    #[serde(default = "default_stale_if_error")]
    stale_if_error: Period,
}

/// Who can be asked about tokens that cannot be read here (RFC 7662).
#[derive(Config)]
pub(crate) struct IntrospectionSettings {
    /// Who is asked.
    upstream: Upstream,
    /// Where.
    path: String,
    /// The host that is asked for; the upstream's name unless told otherwise.
    host: Option<String>,
    /// As whom the gateway asks.
    client_id: String,
    /// Its secret.
    client_secret: String,
    /// How it shows the secret.
    #[serde(default)]
    client_auth: ClientAuth,
    /// How long an answer may take.
    #[serde(default = "default_timeout")]
    timeout: Period,
    /// How long an answer counts, unless the token expires before: so long is a token used that is taken back meanwhile.
    #[serde(default = "default_cache")]
    cache: Period,
    /// How long an answer counts that a token is not active.
    #[serde(default = "default_negative_cache")]
    negative_cache: Period,
}

/// How a client of the issuer says who it is (RFC 6749 §2.3.1), by the names that are registered for that.
#[derive(Clone, Config, Copy, Default)]
#[serde(rename_all = "snake_case")]
enum ClientAuth {
    /// In `authorization`.
    #[default]
    ClientSecretBasic,
    /// In the form.
    ClientSecretPost,
}

fn default_cache() -> Period {
    Period(Duration::from_secs(60))
}

fn default_negative_cache() -> Period {
    Period(Duration::from_secs(10))
}

fn default_refresh() -> Period {
    Period(Duration::from_secs(300))
}

fn default_timeout() -> Period {
    Period(Duration::from_secs(5))
}

fn default_stale_if_error() -> Period {
    Period(Duration::from_secs(3600))
}

/// Where and how often keys are fetched.
#[derive(Debug)]
pub(crate) struct JwksSource {
    pub(crate) upstream: Upstream,
    pub(crate) place: JwksPlace,
    pub(crate) host: String,
    pub(crate) refresh: Duration,
    pub(crate) timeout: Duration,
    pub(crate) stale_if_error: Duration,
    pub(crate) algorithms: Algorithms,
}

/// Who says where the keys are.
#[derive(Debug)]
pub(crate) enum JwksPlace {
    /// The settings.
    Path(String),
    /// The issuer.
    Discovered(Issuer),
}

/// Who is asked about opaque tokens, and how.
pub(crate) struct IntrospectionSource {
    pub(crate) upstream: Upstream,
    pub(crate) path: String,
    pub(crate) host: String,
    /// What goes into `authorization`.
    pub(crate) authorization: Option<String>,
    /// What the form gets beside the token.
    pub(crate) form: String,
    pub(crate) timeout: Duration,
    pub(crate) cache_s: u64,
    pub(crate) negative_cache_s: u64,
}

impl fmt::Display for JwksSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            JwksPlace::Path(path) => write!(f, "{}{path}", self.upstream),
            JwksPlace::Discovered(issuer) => write!(f, "{issuer} by {}", self.upstream),
        }
    }
}

impl FetchSettings {
    /// As `jwks`.
    ///
    /// # Errors
    /// What an operator has to change.
    pub(crate) fn jwks(mut self) -> Result<JwksSource, String> {
        let path = self.path.take().filter(|path| path.starts_with('/'));
        let path =
            path.ok_or("`jwks.path` has to be there, and to begin with `/`; `discovery` asks the issuer for it")?;
        let host = self.upstream.name().to_owned();
        self.source("jwks", JwksPlace::Path(path), host)
    }

    /// As `discovery`, for the issuers that tokens may be of, which has to be one.
    ///
    /// # Errors
    /// What an operator has to change.
    pub(crate) fn discovery(self, issuers: &[String]) -> Result<JwksSource, String> {
        let [issuer] = issuers else {
            return Err("`discovery` needs an `issuer`, and just one".to_owned());
        };
        if self.path.is_some() {
            return Err("`discovery.path` is the issuer's to say; with `jwks` it is yours".to_owned());
        }
        let issuer = Issuer::parse(issuer)?;
        let host = issuer.host().to_owned();
        self.source("discovery", JwksPlace::Discovered(issuer), host)
    }

    fn source(self, name: &str, place: JwksPlace, host: String) -> Result<JwksSource, String> {
        if self.upstream.name().is_empty() {
            return Err(format!("`{name}.upstream` is empty"));
        }
        let (refresh, timeout) = (self.refresh.0, self.timeout.0);
        if refresh < Duration::from_secs(1) || timeout < Duration::from_millis(1) {
            return Err(format!("`{name}.refresh` is at least 1s and `{name}.timeout` at least 1ms"));
        }
        Ok(JwksSource {
            upstream: self.upstream,
            place,
            host: self.host.unwrap_or(host),
            refresh,
            timeout,
            stale_if_error: self.stale_if_error.0,
            algorithms: Algorithms::default(),
        })
    }
}

impl IntrospectionSettings {
    /// # Errors
    /// What an operator has to change.
    pub(crate) fn checked(self) -> Result<IntrospectionSource, String> {
        if self.upstream.name().is_empty() || self.client_id.is_empty() {
            return Err("`introspection.upstream` or `introspection.client_id` is empty".to_owned());
        }
        if !self.path.starts_with('/') {
            return Err("`introspection.path` has to begin with `/`".to_owned());
        }
        if self.timeout.0 < Duration::from_millis(1) {
            return Err("`introspection.timeout` is at least 1ms".to_owned());
        }
        let (id, secret) = (form_encoded(&self.client_id), form_encoded(&self.client_secret));
        let (authorization, form) = match self.client_auth {
            ClientAuth::ClientSecretBasic => {
                (Some(format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))), String::new())
            }
            ClientAuth::ClientSecretPost => (None, format!("&client_id={id}&client_secret={secret}")),
        };
        Ok(IntrospectionSource {
            host: self.host.unwrap_or_else(|| self.upstream.name().to_owned()),
            upstream: self.upstream,
            path: self.path,
            authorization,
            form,
            timeout: self.timeout.0,
            cache_s: self.cache.0.as_secs(),
            negative_cache_s: self.negative_cache.0.as_secs(),
        })
    }
}
