//! What of somebody's claims matters here: read out of them once, when they are first seen, and used for every request.

use portcullis_sdk::HeaderName;
use serde_json::{Map, Value};

use crate::claims::{ClaimPath, Split, header_value, words};

/// Which claims matter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reading {
    /// Where roles are; in `roles`, unless told otherwise.
    pub(crate) roles_in: Option<ClaimPath>,
    /// Claim, and the header that gets it.
    pub(crate) forward: Vec<(ClaimPath, HeaderName)>,
    /// Whether conditions look at claims themselves.
    pub(crate) keeps_claims: bool,
}

/// Whoever sends a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// `scope` is RFC 8693's, `scp` what several issuers write instead.
    pub(crate) scopes: Vec<String>,
    pub(crate) roles: Vec<String>,
    /// What the headers of [`Reading::forward`] get, in its order; nothing removes one.
    pub(crate) headers: Vec<Option<String>>,
    /// All of them, where [`Reading::keeps_claims`].
    pub(crate) claims: Map<String, Value>,
}

impl Reading {
    /// Reads claims.
    pub(crate) fn of(&self, claims: &Map<String, Value>) -> Identity {
        let owned = |words: Vec<&str>| words.into_iter().map(str::to_owned).collect::<Vec<String>>();
        let mut scopes = owned(words(claims.get("scope"), Split::Yes));
        scopes.extend(owned(words(claims.get("scp"), Split::Yes)));
        let roles = match &self.roles_in {
            Some(path) => words(path.find(claims), Split::No),
            None => words(claims.get("roles"), Split::No),
        };
        let headers = self.forward.iter().map(|(claim, _)| claim.find(claims).and_then(header_value));
        let kept = if self.keeps_claims { claims.clone() } else { Map::new() };
        Identity { scopes, roles: owned(roles), headers: headers.collect(), claims: kept }
    }
}
