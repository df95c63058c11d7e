//! Why a request is refused, and the reply that says so (RFC 6750 §3, RFC 7617 §2).

use portcullis_sdk::Response;

/// Why a request was refused. Each has one stable code word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No credential of a scheme that is accepted here.
    Missing,
    /// A credential in two places: the upstream might believe the one that was not checked.
    Twice,
    Malformed,
    UnknownKey,
    Algorithm,
    Signature,
    /// Its issuer says that it is not good, or no more.
    Inactive,
    Kind,
    Claims,
    Expired,
    NotYetValid,
    Issuer,
    Audience,
    ClaimMissing,
    ApiKey,
    Password,
    Certificate,
    Scope,
    Role,
    /// The condition of the row that is for this request does not hold.
    Condition,
    /// There is a table of rules, and no row of it is for this request.
    NoRule,
    /// No keys have been had yet.
    KeysUnavailable,
    /// The keys there are have not been confirmed for too long.
    KeysStale,
    /// The issuer did not say whether a token is good.
    IntrospectionUnavailable,
}

/// What a reply tells about how to do better.
#[derive(Debug)]
pub(crate) struct Challenge<'a> {
    pub(crate) realm: Option<&'a str>,
    pub(crate) bearer: bool,
    pub(crate) basic: bool,
    /// What the request would have needed.
    pub(crate) scopes: &'a [String],
}

impl Refusal {
    /// Status, code word, and what a client may know.
    pub(crate) fn words(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::Missing => (401, "token_missing", "Credentials are needed"),
            Self::Twice => (400, "token_twice", "The credential came more than once"),
            Self::Malformed => (401, "token_malformed", "The bearer token cannot be read"),
            Self::UnknownKey => (401, "token_unknown_key", "The token was signed with a key not known here"),
            Self::Algorithm => (401, "token_algorithm", "The token was signed with an algorithm not allowed here"),
            Self::Signature => (401, "token_signature", "The token's signature is wrong"),
            Self::Inactive => (401, "token_inactive", "The token is not active"),
            Self::Kind => (401, "token_type", "The token is of a type not accepted here"),
            Self::Claims => (401, "token_claims", "The token's claims cannot be used"),
            Self::Expired => (401, "token_expired", "The token has expired"),
            Self::NotYetValid => (401, "token_not_yet_valid", "The token is not valid yet"),
            Self::Issuer => (401, "token_issuer", "The token comes from another issuer"),
            Self::Audience => (401, "token_audience", "The token is meant for another audience"),
            Self::ClaimMissing => (401, "token_claim_missing", "The token lacks a claim this service needs"),
            Self::ApiKey => (401, "api_key_unknown", "The API key is not known here"),
            Self::Password => (401, "password_wrong", "The name or the password is wrong"),
            Self::Certificate => (403, "certificate_unknown", "The client certificate is not known here"),
            Self::Scope => (403, "scope_missing", "The credential lacks a scope this request needs"),
            Self::Role => (403, "role_missing", "The credential lacks a role this request needs"),
            Self::Condition => (403, "condition_not_met", "A condition of this request is not met"),
            Self::NoRule => (403, "no_rule", "No rule allows this request"),
            Self::KeysUnavailable => (503, "keys_unavailable", "Tokens cannot be checked at the moment"),
            Self::KeysStale => (503, "keys_stale", "Tokens cannot be checked at the moment"),
            Self::IntrospectionUnavailable => {
                (503, "introspection_unavailable", "Tokens cannot be checked at the moment")
            }
        }
    }

    /// The reply for it.
    pub(crate) fn reply(self, challenge: &Challenge<'_>) -> Response {
        let (status, code, title) = self.words();
        let mut reply = Response::problem(status, code).title(title);
        if status == 503 {
            return reply.header("retry-after", "1");
        }
        if challenge.bearer
            && let Some(parameters) = self.bearer_parameters(challenge)
        {
            reply = reply.header("www-authenticate", written("Bearer", challenge.realm, &parameters));
        }
        if challenge.basic && status == 401 {
            // RFC 7617 §2: a realm is required.
            let realm = Some(challenge.realm.unwrap_or("gateway"));
            reply = reply.header("www-authenticate", written("Basic", realm, &["charset=\"UTF-8\"".to_owned()]));
        }
        reply
    }

    /// RFC 6750 §3.1. Without a token there is no error to name, only the scheme; what is not about tokens gets nothing.
    fn bearer_parameters(self, challenge: &Challenge<'_>) -> Option<Vec<String>> {
        let (status, _, title) = self.words();
        let error = match self {
            Self::Missing | Self::ApiKey | Self::Password => return Some(Vec::new()),
            Self::Certificate
            | Self::Role
            | Self::Condition
            | Self::NoRule
            | Self::KeysUnavailable
            | Self::KeysStale
            | Self::IntrospectionUnavailable => return None,
            Self::Twice => "invalid_request",
            Self::Scope => "insufficient_scope",
            Self::Malformed
            | Self::UnknownKey
            | Self::Algorithm
            | Self::Signature
            | Self::Inactive
            | Self::Kind
            | Self::Claims
            | Self::Expired
            | Self::NotYetValid
            | Self::Issuer
            | Self::Audience
            | Self::ClaimMissing => "invalid_token",
        };
        let mut parameters = vec![format!("error=\"{error}\""), format!("error_description=\"{title}\"")];
        if status == 403 {
            parameters.push(format!("scope=\"{}\"", challenge.scopes.join(" ")));
        }
        Some(parameters)
    }
}

fn written(scheme: &str, realm: Option<&str>, parameters: &[String]) -> String {
    let realm = realm.map(|realm| format!("realm=\"{realm}\""));
    let parameters: Vec<String> = realm.into_iter().chain(parameters.iter().cloned()).collect();
    if parameters.is_empty() { scheme.to_owned() } else { format!("{scheme} {}", parameters.join(", ")) }
}
