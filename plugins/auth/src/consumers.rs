//! Consumers that the settings name, and what they show: API keys, passwords, client certificates.
//!
//! What is known of one is said as claims, so that headers, scopes and roles come out as for a token: `sub` and `consumer` are
//! its id, `plan`, `scope` and `roles` what the settings give it.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use portcullis_sdk::Config;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::access::check_scopes;
use crate::identity::{Identity, Reading};
use crate::password::Password;

/// Passwords that were right, remembered so that they need not be hashed again.
const MAX_REMEMBERED: usize = 1024;

/// Somebody the settings name.
#[derive(Config)]
pub(crate) struct ConsumerEntry {
    /// Who it is.
    id: String,
    /// Its plan.
    plan: Option<String>,
    /// Its scopes.
    #[serde(default)]
    scopes: Vec<String>,
    /// Its roles.
    #[serde(default)]
    roles: Vec<String>,
    /// The SHA-256 of its API keys, as 64 hexadecimal digits. A key is random: at least 128 bits of it, so that nobody finds it
    /// from its hash.
    #[serde(default)]
    api_keys: Vec<String>,
    /// The password that it signs in with beside its id: `pbkdf2-sha256$ITERATIONS$SALT$HASH`, salt and hash in base64.
    password: Option<String>,
    /// Its client certificates.
    #[serde(default)]
    certificates: Vec<CertificateEntry>,
}

/// A client certificate: exactly one of `subject`, `uri`, `dns` and `sha256`.
#[derive(Config)]
struct CertificateEntry {
    /// Its subject, as the host writes it: `CN=billing,O=Acme`.
    subject: Option<String>,
    /// The URI among its alternative names: `spiffe://acme/billing`.
    uri: Option<String>,
    /// The DNS name among its alternative names.
    dns: Option<String>,
    /// The SHA-256 of the whole certificate, as 64 hexadecimal digits.
    sha256: Option<String>,
}

/// All consumers, by what they show.
#[derive(Debug, Default)]
pub(crate) struct Consumers {
    pub(crate) api_keys: ApiKeys,
    pub(crate) users: Users,
    pub(crate) certificates: Certificates,
}

impl Consumers {
    /// # Errors
    /// What an operator has to change.
    pub(crate) fn new(entries: &[ConsumerEntry], reading: &Reading) -> Result<Self, String> {
        let mut all = Self::default();
        for (at, entry) in entries.iter().enumerate() {
            let is_new = entries.iter().take(at).all(|other| other.id != entry.id);
            let added =
                if is_new { all.add(entry, reading) } else { Err("there is another one of this `id`".to_owned()) };
            added.map_err(|why| format!("consumers[{at}]: {why}"))?;
        }
        Ok(all)
    }

    fn add(&mut self, entry: &ConsumerEntry, reading: &Reading) -> Result<(), String> {
        let holder = Rc::new(reading.of(&entry.claims()?));
        for key in &entry.api_keys {
            let digest = digest(key).ok_or("an API key's SHA-256 has 64 hexadecimal digits")?;
            self.api_keys.0.push((digest, Rc::clone(&holder)));
        }
        if let Some(password) = &entry.password {
            // RFC 7617 §2: the first colon ends the name.
            if entry.id.contains(':') {
                return Err("`id` holds a colon, and cannot go with a password".to_owned());
            }
            self.users.all.push((entry.id.clone(), Password::parse(password)?, Rc::clone(&holder)));
        }
        for certificate in &entry.certificates {
            let (property, value) = certificate.known()?;
            self.certificates.0.push((property, value, Rc::clone(&holder)));
        }
        if entry.api_keys.is_empty() && entry.password.is_none() && entry.certificates.is_empty() {
            return Err("a consumer has `api_keys`, a `password` or `certificates`".to_owned());
        }
        Ok(())
    }
}

impl ConsumerEntry {
    fn claims(&self) -> Result<Map<String, Value>, String> {
        if self.id.is_empty() {
            return Err("`id` is empty".to_owned());
        }
        check_scopes(&self.scopes)?;
        let mut claims = Map::new();
        claims.insert("sub".to_owned(), self.id.as_str().into());
        claims.insert("consumer".to_owned(), self.id.as_str().into());
        if let Some(plan) = &self.plan {
            claims.insert("plan".to_owned(), plan.as_str().into());
        }
        claims.insert("scope".to_owned(), self.scopes.join(" ").into());
        claims.insert("roles".to_owned(), self.roles.clone().into());
        Ok(claims)
    }
}

impl CertificateEntry {
    /// The property of a connection that shows it, and its value there.
    fn known(&self) -> Result<(&'static str, String), String> {
        let sha256 = self.sha256.as_ref().map(|text| text.to_ascii_lowercase());
        if sha256.as_ref().is_some_and(|text| digest(text).is_none()) {
            return Err("a certificate's `sha256` has 64 hexadecimal digits".to_owned());
        }
        let mut told = [
            ("subject_peer_certificate", self.subject.clone()),
            ("uri_san_peer_certificate", self.uri.clone()),
            ("dns_san_peer_certificate", self.dns.clone()),
            ("sha256_peer_certificate_digest", sha256),
        ]
        .into_iter()
        .filter_map(|(property, value)| value.map(|value| (property, value)));
        match (told.next(), told.next()) {
            (Some(known), None) if !known.1.is_empty() => Ok(known),
            _ => Err("a certificate has exactly one of `subject`, `uri`, `dns` and `sha256`".to_owned()),
        }
    }
}

/// The API keys.
#[derive(Debug, Default)]
pub(crate) struct ApiKeys(Vec<([u8; 32], Rc<Identity>)>);

impl ApiKeys {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whose key it is. Every hash is looked at, so that the time says nothing of which comes close.
    pub(crate) fn find(&self, key: &[u8]) -> Option<Rc<Identity>> {
        let digest: [u8; 32] = Sha256::digest(key).into();
        let mut found = None;
        for (own, holder) in &self.0 {
            if own.ct_eq(&digest).into() {
                found = Some(holder);
            }
        }
        found.cloned()
    }
}

/// The consumers with passwords, and the passwords that were right.
#[derive(Debug, Default)]
pub(crate) struct Users {
    all: Vec<(String, Password, Rc<Identity>)>,
    right: RefCell<HashSet<[u8; 32]>>,
}

impl Users {
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whose name and password these are: `NAME:PASSWORD` in base64. Somebody unknown costs the same as a wrong password.
    pub(crate) fn find(&self, credentials: &[u8]) -> Option<Rc<Identity>> {
        let decoded = STANDARD.decode(credentials).ok()?;
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        let (name, password) = (decoded.get(..colon)?, decoded.get(colon + 1..)?);
        let user = self.all.iter().find(|(own, _, _)| own.as_bytes() == name);
        let digest: [u8; 32] = Sha256::digest(&decoded).into();
        if self.right.borrow().contains(&digest) {
            return user.map(|(_, _, holder)| Rc::clone(holder));
        }
        let (_, own, _) = user.or(self.all.first())?;
        let is_right = own.is(password);
        let (_, _, holder) = user.filter(|_| is_right)?;
        let mut right = self.right.borrow_mut();
        if right.len() >= MAX_REMEMBERED {
            right.clear();
        }
        right.insert(digest);
        Some(Rc::clone(holder))
    }
}

/// The client certificates: a property of the connection, and its value.
#[derive(Debug, Default)]
pub(crate) struct Certificates(Vec<(&'static str, String, Rc<Identity>)>);

impl Certificates {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whose certificate it is that has these properties.
    pub(crate) fn find(&self, property: impl Fn(&str) -> Option<String>) -> Option<Rc<Identity>> {
        let fits = |name: &str, wanted: &str| property(name).is_some_and(|own| own == wanted);
        self.0.iter().find(|(name, wanted, _)| fits(name, wanted)).map(|(_, _, holder)| Rc::clone(holder))
    }
}

fn digest(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; 32];
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = text.get(2 * at..2 * at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok())?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests;
