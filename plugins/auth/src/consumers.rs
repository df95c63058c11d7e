//! Consumers that the settings name: by API key, by password, by client certificate.
//!
//! What is known of one is said as claims, so that headers, scopes and roles come out as for a token: `sub` and `consumer` are
//! its id, `plan` and `scope` what the settings give it.

use std::cell::RefCell;
use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use portcullis_sdk::Config;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::access::check_scopes;
use crate::password::Password;

type Claims = Map<String, Value>;

/// Passwords that were right, remembered so that they need not be hashed again.
const MAX_REMEMBERED: usize = 1024;

/// What a consumer is and may.
#[derive(Debug)]
struct Consumer(Claims);

impl Consumer {
    fn new(id: &str, plan: Option<String>, scopes: &[String], roles: Vec<String>) -> Result<Self, String> {
        if id.is_empty() {
            return Err("`id` is empty".to_owned());
        }
        check_scopes(scopes)?;
        let mut claims = Claims::new();
        claims.insert("sub".to_owned(), id.into());
        claims.insert("consumer".to_owned(), id.into());
        if let Some(plan) = plan {
            claims.insert("plan".to_owned(), plan.into());
        }
        claims.insert("scope".to_owned(), scopes.join(" ").into());
        claims.insert("roles".to_owned(), roles.into());
        Ok(Self(claims))
    }
}

/// An API key.
#[derive(Config)]
pub(crate) struct ApiKeyEntry {
    /// Whose it is.
    id: String,
    /// The SHA-256 of the key, as 64 hexadecimal digits. The key is random: at least 128 bits of it, so that nobody finds it
    /// from its hash.
    sha256: String,
    /// The consumer's plan.
    plan: Option<String>,
    /// Its scopes.
    #[serde(default)]
    scopes: Vec<String>,
    /// Its roles.
    #[serde(default)]
    roles: Vec<String>,
}

/// The API keys.
#[derive(Debug)]
pub(crate) struct ApiKeys(Vec<([u8; 32], Consumer)>);

impl ApiKeys {
    /// # Errors
    /// What an operator has to change.
    pub(crate) fn new(entries: Vec<ApiKeyEntry>) -> Result<Self, String> {
        let keys = entries.into_iter().enumerate().map(|(at, entry)| {
            let key = digest(&entry.sha256)
                .and_then(|digest| Ok((digest, Consumer::new(&entry.id, entry.plan, &entry.scopes, entry.roles)?)));
            key.map_err(|why| format!("api_keys.keys[{at}]: {why}"))
        });
        Ok(Self(some(keys.collect::<Result<_, _>>()?, "api_keys.keys")?))
    }

    /// Whose key it is. Every hash is looked at, so that the time says nothing of which comes close.
    pub(crate) fn find(&self, key: &str) -> Option<&Claims> {
        let digest: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        let mut found = None;
        for (own, consumer) in &self.0 {
            if own.ct_eq(&digest).into() {
                found = Some(&consumer.0);
            }
        }
        found
    }
}

/// A name and a password.
#[derive(Config)]
pub(crate) struct UserEntry {
    /// The name, which is the consumer's id.
    name: String,
    /// `pbkdf2-sha256$ITERATIONS$SALT$HASH`, salt and hash in base64.
    password: String,
    /// The consumer's plan.
    plan: Option<String>,
    /// Its scopes.
    #[serde(default)]
    scopes: Vec<String>,
    /// Its roles.
    #[serde(default)]
    roles: Vec<String>,
}

/// The users, and the passwords that were right.
#[derive(Debug)]
pub(crate) struct Users {
    users: Vec<(String, Password, Consumer)>,
    right: RefCell<HashSet<[u8; 32]>>,
}

impl Users {
    /// # Errors
    /// What an operator has to change.
    pub(crate) fn new(entries: Vec<UserEntry>) -> Result<Self, String> {
        let users = entries.into_iter().enumerate().map(|(at, entry)| {
            let user = Password::parse(&entry.password).and_then(|password| {
                // RFC 7617 §2: the first colon ends the name.
                if entry.name.contains(':') {
                    return Err("`name` holds a colon".to_owned());
                }
                let consumer = Consumer::new(&entry.name, entry.plan, &entry.scopes, entry.roles)?;
                Ok((entry.name, password, consumer))
            });
            user.map_err(|why| format!("basic.users[{at}]: {why}"))
        });
        let users = some(users.collect::<Result<_, _>>()?, "basic.users")?;
        Ok(Self { users, right: RefCell::default() })
    }

    /// Whose name and password these are: `NAME:PASSWORD` in base64. Somebody unknown costs the same as a wrong password.
    pub(crate) fn find(&self, credentials: &str) -> Option<&Claims> {
        let decoded = STANDARD.decode(credentials).ok()?;
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        let (name, password) = (decoded.get(..colon)?, decoded.get(colon + 1..)?);
        let user = self.users.iter().find(|(own, _, _)| own.as_bytes() == name);
        let digest: [u8; 32] = Sha256::digest(&decoded).into();
        if self.right.borrow().contains(&digest) {
            return user.map(|(_, _, consumer)| &consumer.0);
        }
        let (_, own, _) = user.or(self.users.first())?;
        let is_right = own.is(password);
        let (_, _, consumer) = user.filter(|_| is_right)?;
        let mut right = self.right.borrow_mut();
        if right.len() >= MAX_REMEMBERED {
            right.clear();
        }
        right.insert(digest);
        Some(&consumer.0)
    }
}

/// A client certificate: exactly one of `subject`, `uri`, `dns` and `sha256`.
#[derive(Config)]
pub(crate) struct CertificateEntry {
    /// Whose it is.
    id: String,
    /// Its subject, as the host writes it: `CN=billing,O=Acme`.
    subject: Option<String>,
    /// The URI among its alternative names: `spiffe://acme/billing`.
    uri: Option<String>,
    /// The DNS name among its alternative names.
    dns: Option<String>,
    /// The SHA-256 of the whole certificate, as 64 hexadecimal digits.
    sha256: Option<String>,
    /// The consumer's plan.
    plan: Option<String>,
    /// Its scopes.
    #[serde(default)]
    scopes: Vec<String>,
    /// Its roles.
    #[serde(default)]
    roles: Vec<String>,
}

/// The client certificates.
#[derive(Debug)]
pub(crate) struct Certificates(Vec<(&'static str, String, Consumer)>);

impl Certificates {
    /// # Errors
    /// What an operator has to change.
    pub(crate) fn new(entries: Vec<CertificateEntry>) -> Result<Self, String> {
        let known = entries.into_iter().enumerate().map(|(at, entry)| {
            let known = entry.known();
            known.map_err(|why| format!("client_certificate.consumers[{at}]: {why}"))
        });
        Ok(Self(some(known.collect::<Result<_, _>>()?, "client_certificate.consumers")?))
    }

    /// Whose certificate it is that has these properties.
    pub(crate) fn find(&self, property: impl Fn(&str) -> Option<String>) -> Option<&Claims> {
        let fits = |name: &str, wanted: &str| property(name).is_some_and(|own| own == wanted);
        self.0.iter().find(|(name, wanted, _)| fits(name, wanted)).map(|(_, _, consumer)| &consumer.0)
    }
}

impl CertificateEntry {
    fn known(self) -> Result<(&'static str, String, Consumer), String> {
        let sha256 = self.sha256.map(|text| digest(&text).map(|_| text.to_ascii_lowercase())).transpose()?;
        let mut told = [
            ("subject_peer_certificate", self.subject),
            ("uri_san_peer_certificate", self.uri),
            ("dns_san_peer_certificate", self.dns),
            ("sha256_peer_certificate_digest", sha256),
        ]
        .into_iter()
        .filter_map(|(property, value)| value.map(|value| (property, value)));
        let consumer = Consumer::new(&self.id, self.plan, &self.scopes, self.roles)?;
        match (told.next(), told.next()) {
            (Some((property, value)), None) if !value.is_empty() => Ok((property, value, consumer)),
            _ => Err("a client certificate has exactly one of `subject`, `uri`, `dns` and `sha256`".to_owned()),
        }
    }
}

fn some<T>(list: Vec<T>, name: &str) -> Result<Vec<T>, String> {
    if list.is_empty() { Err(format!("`{name}` is empty")) } else { Ok(list) }
}

fn digest(text: &str) -> Result<[u8; 32], String> {
    let wrong = || "`sha256` has 64 hexadecimal digits".to_owned();
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let mut digest = [0; 32];
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = text.get(2 * at..2 * at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or_else(wrong)?;
    }
    Ok(digest)
}

#[cfg(test)]
mod tests;
