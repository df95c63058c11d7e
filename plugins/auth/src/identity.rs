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
    /// Which of them later filters get.
    pub(crate) shared: Shared,
}

/// Claims that are left for the filters after this one.
#[derive(Clone, Debug, Default)]
pub(crate) enum Shared {
    #[default]
    Nothing,
    All,
    /// These, by the names that they have in the settings: `realm_access.roles` is shared under just that name.
    Named(Vec<ClaimPath>),
}

/// Whoever sends a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// What it is called: `sub`. Of a consumer that is its id.
    pub(crate) consumer: Option<Box<str>>,
    /// `scope` is RFC 8693's, `scp` what several issuers write instead.
    pub(crate) scopes: Vec<String>,
    pub(crate) roles: Vec<String>,
    /// What the headers of [`Reading::forward`] get, in its order; nothing removes one.
    pub(crate) headers: Vec<Option<String>>,
    /// All of them, where [`Reading::keeps_claims`].
    pub(crate) claims: Map<String, Value>,
    /// What later filters get, as JSON; nothing where [`Reading::shared`] says so.
    pub(crate) shared: Option<Box<str>>,
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
        Identity {
            consumer: claims.get("sub").and_then(Value::as_str).map(Box::from),
            scopes,
            roles: owned(roles),
            headers: headers.collect(),
            claims: kept,
            shared: self.shared.of(claims).map(String::into_boxed_str),
        }
    }
}

impl Shared {
    fn of(&self, claims: &Map<String, Value>) -> Option<String> {
        let object = |claims: &Map<String, Value>| serde_json::to_string(claims).ok();
        match self {
            Self::Nothing => None,
            Self::All => object(claims),
            Self::Named(paths) => {
                let found = paths.iter().filter_map(|path| Some((path.name().to_owned(), path.find(claims)?.clone())));
                object(&found.collect())
            }
        }
    }
}
