//! Verification keys: from settings or a JWKS document (RFC 7517), each bound to one algorithm.
//!
//! **Invariant**: a [`Key`] is whole. Lengths and curves are checked before the cryptography sees them, because it indexes
//! into key bytes and a panic would end the VM at the first token.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::crypto::JwtVerifier;
use jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};
use portcullis_sdk::Config;
use portcullis_sdk::schema::{Piece, Schema};
use serde::Deserialize;

use crate::foreign::{HostKey, VerifySignature};
use crate::pem::PublicKey;
use crate::token::Token;

/// A JWKS document may hold this many keys; the rest is ignored.
const MAX_KEYS: usize = 64;

/// A token without `kid` is tried against this many keys of its algorithm: each try costs a signature.
const MAX_CANDIDATES: usize = 4;

/// Tokens remembered at once, and the longest of them: together at most 4 MiB of the guest's memory.
const MAX_REMEMBERED: usize = 512;
const MAX_REMEMBERED_BYTES: usize = 4096;

/// The end of a token: so many of its last bytes.
const END: usize = 16;
type End = [u8; END];

/// A token as it came, and as it was read.
type Passed = (Box<str>, Rc<Token>);

/// One key.
pub(crate) struct Key {
    kid: Option<String>,
    alg: String,
    verifier: Box<dyn JwtVerifier>,
    host_key: Option<HostKey>,
}

impl Key {
    /// Whether this key made the signature: as the host says, or else as is worked out here.
    fn verifies(&self, host: Option<VerifySignature>, message: &[u8], signature: &Vec<u8>) -> bool {
        let host_key = self.host_key.as_ref().zip(host);
        let told = host_key.and_then(|(key, host)| key.verifies(host, message, signature));
        told.unwrap_or_else(|| self.verifier.verify(message, signature).is_ok())
    }

    fn new(kid: Option<String>, algorithm: Algorithm, key: &DecodingKey) -> Result<Self, String> {
        let verifier = (DEFAULT_PROVIDER.verifier_factory)(&algorithm, key)
            .map_err(|_| format!("the key does not fit {algorithm:?}"))?;
        let alg = format!("{algorithm:?}");
        let host_key = match key.kind() {
            DecodingKeyKind::RsaModulusExponent { n, e } => HostKey::new(&alg, n, e),
            DecodingKeyKind::SecretOrDer(_) => None,
        };
        Ok(Self { kid, alg, verifier, host_key })
    }
}

/// A key as settings write it: exactly one of `secret`, `secret_base64`, `pem` and `jwk`.
#[derive(Config)]
pub(crate) struct KeyEntry {
    /// Its name in tokens.
    kid: Option<String>,
    /// Its algorithm, unless the jwk says it.
    alg: Option<String>,
    /// A shared secret as text.
    secret: Option<String>,
    /// A shared secret in base64.
    secret_base64: Option<String>,
    /// A public key.
    pem: Option<String>,
    /// A public key or a shared secret (RFC 7517).
    jwk: Option<Jwk>,
}

impl KeyEntry {
    fn key(self) -> Result<Key, String> {
        let alg =
            || self.alg.as_deref().ok_or("`alg` is needed beside a secret or a pem".to_owned()).and_then(algorithm);
        match (&self.secret, &self.secret_base64, &self.pem, self.jwk.as_ref()) {
            (Some(secret), None, None, None) => {
                Key::new(self.kid.clone(), alg()?, &secret_key(alg()?, secret.as_bytes())?)
            }
            (None, Some(secret), None, None) => {
                let secret = STANDARD.decode(secret).map_err(|_| "`secret_base64` is not base64".to_owned())?;
                Key::new(self.kid.clone(), alg()?, &secret_key(alg()?, &secret)?)
            }
            (None, None, Some(pem), None) => Key::new(self.kid.clone(), alg()?, &pem_key(alg()?, pem)?),
            (None, None, None, Some(jwk)) => jwk.key(self.kid.clone(), self.alg.as_deref()),
            _ => Err("a key has exactly one of `secret`, `secret_base64`, `pem` and `jwk`".to_owned()),
        }
    }
}

/// Which algorithms the keys of a document are for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Algorithms {
    /// No others are used; any, if there are none.
    pub(crate) allowed: Vec<String>,
    /// What a key is for that does not say, if it fits.
    pub(crate) offered: Vec<String>,
}

impl Algorithms {
    fn allow(&self, alg: &str) -> bool {
        self.allowed.is_empty() || self.allowed.iter().any(|allowed| allowed == alg)
    }
}

/// One key of RFC 7517. Members not named here are allowed and ignored, as it demands.
#[derive(Deserialize)]
pub(crate) struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
    d: Option<String>,
}

impl Schema for Jwk {
    const SCHEMA: &'static [Piece] = &[Piece::Text(
        r#"{"type":"object","required":["kty"],"properties":{"kty":{"enum":["RSA","EC","OKP","oct"]}}}"#,
    )];
}

impl Jwk {
    fn key(&self, kid: Option<String>, alg: Option<&str>) -> Result<Key, String> {
        if self.d.is_some() {
            return Err("a private key is not needed here and does not belong here".to_owned());
        }
        let signs = self.usage.as_deref().is_none_or(|usage| usage == "sig");
        let verifies = self.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !signs || !verifies {
            return Err("the key is not meant for verifying signatures".to_owned());
        }
        if let (Some(outer), Some(inner)) = (alg, self.alg.as_deref())
            && outer != inner
        {
            return Err(format!("`alg` is {outer}, but {inner} in the jwk"));
        }
        let alg = alg.or(self.alg.as_deref()).unwrap_or_else(|| self.default_alg());
        self.key_for(kid, alg)
    }

    fn key_for(&self, kid: Option<String>, alg: &str) -> Result<Key, String> {
        let algorithm = algorithm(alg)?;
        Key::new(kid.or_else(|| self.kid.clone()), algorithm, &self.material(algorithm)?)
    }

    /// A key of a document, for one of these algorithms.
    ///
    /// One that does not say is for the algorithm everybody has for its type, unless that is not among those that are offered.
    fn published(&self, algorithms: &Algorithms) -> Option<Key> {
        let key = self.key(None, None).ok()?;
        let offered = if algorithms.allowed.is_empty() { &algorithms.offered } else { &algorithms.allowed };
        let is_told = self.alg.is_some() || offered.is_empty() || offered.contains(&key.alg);
        let key = if is_told { key } else { offered.iter().find_map(|alg| self.key_for(None, alg).ok())? };
        algorithms.allow(&key.alg).then_some(key)
    }

    /// For a key that does not say: the algorithm everybody has for its type.
    fn default_alg(&self) -> &'static str {
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => "RS256",
            ("EC", Some("P-384")) => "ES384",
            ("EC", _) => "ES256",
            ("OKP", _) => "EdDSA",
            ("oct", _) => "HS256",
            _ => "",
        }
    }

    fn material(&self, algorithm: Algorithm) -> Result<DecodingKey, String> {
        let curve = self.crv.as_deref();
        match (self.kty.as_str(), curve, algorithm) {
            ("RSA", _, _) => rsa_key(&part(self.n.as_ref(), "n")?, &part(self.e.as_ref(), "e")?),
            ("EC", Some("P-256"), Algorithm::ES256) => self.point(32),
            ("EC", Some("P-384"), Algorithm::ES384) => self.point(48),
            ("OKP", Some("Ed25519"), Algorithm::EdDSA) => ed_key(&part(self.x.as_ref(), "x")?),
            ("oct", _, _) => secret_key(algorithm, &part(self.k.as_ref(), "k")?),
            (kty, _, _) => Err(format!("a key of type {kty} with curve {curve:?} does not fit {algorithm:?}")),
        }
    }

    /// An uncompressed point (SEC 1 §2.3.3) of two coordinates of `length` bytes.
    fn point(&self, length: usize) -> Result<DecodingKey, String> {
        let (x, y) = (part(self.x.as_ref(), "x")?, part(self.y.as_ref(), "y")?);
        if x.len() != length || y.len() != length {
            return Err(format!("`x` and `y` have to be {length} bytes long"));
        }
        Ok(DecodingKey::from_ec_der(&[&[4], x.as_slice(), y.as_slice()].concat()))
    }
}

fn part(value: Option<&String>, name: &str) -> Result<Vec<u8>, String> {
    let value = value.ok_or_else(|| format!("`{name}` is missing"))?;
    URL_SAFE_NO_PAD.decode(value).map_err(|_| format!("`{name}` is not base64url"))
}

/// # Errors
/// There is none of this name, or it is not used here.
pub(crate) fn algorithm(name: &str) -> Result<Algorithm, String> {
    name.parse().map_err(|_| format!("`{name}` is not a signature algorithm known here"))
}

/// RFC 7518 §3.2: a key at least as long as the hash. Shorter ones can be searched.
fn secret_key(algorithm: Algorithm, secret: &[u8]) -> Result<DecodingKey, String> {
    let longer = [(Algorithm::HS384, 48), (Algorithm::HS512, 64)];
    let least = longer.into_iter().find(|(of, _)| *of == algorithm).map_or(32, |(_, least)| least);
    if secret.len() < least {
        return Err(format!("a secret for {algorithm:?} has at least {least} bytes (RFC 7518 §3.2)"));
    }
    Ok(DecodingKey::from_secret(secret))
}

/// RFC 7518 §3.3 sets the floor; the ceiling is what the cryptography accepts.
fn rsa_key(n: &[u8], e: &[u8]) -> Result<DecodingKey, String> {
    let significant = n.iter().skip_while(|byte| **byte == 0).count();
    // RFC 8017 §3.1: the exponent is odd and at least 3. With 1, whatever looks like a signature is one.
    let exponent = e.iter().fold(0_u64, |number, digit| number << 8 | u64::from(*digit));
    if !(256..=512).contains(&significant) || e.len() > 4 || exponent < 3 || exponent % 2 == 0 {
        return Err("an RSA key has 2048 to 4096 bits and a small, odd exponent".to_owned());
    }
    Ok(DecodingKey::from_rsa_raw_components(n, e))
}

fn ed_key(x: &[u8]) -> Result<DecodingKey, String> {
    if x.len() != 32 {
        return Err("an Ed25519 key has 32 bytes".to_owned());
    }
    Ok(DecodingKey::from_ed_der(x))
}

fn pem_key(algorithm: Algorithm, pem: &str) -> Result<DecodingKey, String> {
    if algorithm.family() == AlgorithmFamily::Hmac {
        return Err("a pem holds no secret; use `secret` or `secret_base64`".to_owned());
    }
    let unusable = || format!("`pem` is not a public key for {algorithm:?}");
    match (PublicKey::read(pem).ok_or_else(unusable)?, algorithm) {
        (PublicKey::Rsa(der), _) if algorithm.family() == AlgorithmFamily::Rsa => {
            let parts = (DEFAULT_PROVIDER.key_utils.rsa_pub_components_from_public_key)(&der);
            let (n, e) = parts.map_err(|_| unusable())?;
            rsa_key(&n, &e)
        }
        (PublicKey::P256(point), Algorithm::ES256) | (PublicKey::P384(point), Algorithm::ES384) => {
            Ok(DecodingKey::from_ec_der(&point))
        }
        (PublicKey::Ed25519(key), Algorithm::EdDSA) => ed_key(&key),
        _ => Err(unusable()),
    }
}

/// The keys tokens are checked against, and the tokens that passed.
///
/// Checking an RSA signature takes milliseconds in a guest, and clients send a token many times. What passed is remembered
/// here, with the very keys that said so: a set that replaces this one starts without.
#[derive(Default)]
pub(crate) struct KeySet {
    keys: Vec<Key>,
    /// By their ends: that of a signature is as good as a hash of the whole, and costs nothing. None gets in here without being
    /// signed, so nobody can choose them.
    passed: RefCell<HashMap<End, Passed>>,
    host: Option<VerifySignature>,
}

/// What a token's header finds in a set.
pub(crate) enum Lookup<'a> {
    /// Keys that may have made its signature.
    Found(Vec<&'a Key>),
    /// The key is there, for another algorithm.
    OtherAlgorithm,
    /// No such key.
    Unknown,
}

/// Whether two texts are the same. A module's `memcmp` goes byte by byte, this eight by eight; and it takes as long wherever they differ.
fn are_same(a: &[u8], b: &[u8]) -> bool {
    let ((a_words, a_rest), (b_words, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let words = a_words.iter().zip(b_words).map(|(a, b)| u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b));
    a.len() == b.len() && words.fold(0, |differing, word| differing | word) == 0 && a_rest == b_rest
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

impl KeySet {
    /// Keys of the settings; one bad key spoils them all.
    pub(crate) fn from_entries(entries: Vec<KeyEntry>) -> Result<Self, String> {
        if entries.is_empty() {
            return Err("`keys` is empty".to_owned());
        }
        let keys = entries.into_iter().enumerate();
        let keys = keys.map(|(at, entry)| entry.key().map_err(|why| format!("keys[{at}]: {why}")));
        Ok(Self { keys: keys.collect::<Result<_, _>>()?, ..Self::default() })
    }

    /// Keys of a JWKS document. Those that cannot be used are passed over: an issuer may publish others beside ours.
    ///
    /// A shared secret in a public document is nobody's secret, so symmetric keys are passed over too.
    pub(crate) fn from_jwks(document: &[u8], algorithms: &Algorithms) -> Result<Self, String> {
        let document: Document =
            serde_json::from_slice(document).map_err(|why| format!("not a JWKS document: {why}"))?;
        let jwks = document.keys.into_iter().take(MAX_KEYS).filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        let keys: Vec<Key> = jwks.filter(|jwk| jwk.kty != "oct").filter_map(|jwk| jwk.published(algorithms)).collect();
        if keys.is_empty() {
            Err("the JWKS document holds no usable key".to_owned())
        } else {
            Ok(Self { keys, ..Self::default() })
        }
    }

    /// With the host checking those signatures it can.
    pub(crate) fn with_host(self, host: VerifySignature) -> Self {
        Self { host: Some(host), ..self }
    }

    /// Whether one of these keys of this set made the signature.
    pub(crate) fn signed(&self, by: &[&Key], message: &[u8], signature: &Vec<u8>) -> bool {
        by.iter().any(|key| key.verifies(self.host, message, signature))
    }

    /// A token that passed before, to the letter, signature included.
    pub(crate) fn remembered(&self, token: &str) -> Option<Rc<Token>> {
        let passed = self.passed.borrow();
        let (own, verified) = passed.get(token.as_bytes().last_chunk::<END>()?)?;
        are_same(own.as_bytes(), token.as_bytes()).then(|| Rc::clone(verified))
    }

    /// Remembers a token whose signature is right.
    pub(crate) fn remember(&self, token: &str, verified: Rc<Token>) {
        let Some(end) = token.as_bytes().last_chunk::<END>().filter(|_| token.len() <= MAX_REMEMBERED_BYTES) else {
            return;
        };
        let mut passed = self.passed.borrow_mut();
        // Forgetting all of them at once costs one check each, now and then, and needs no account of their use.
        if passed.len() >= MAX_REMEMBERED {
            passed.clear();
        }
        passed.insert(*end, (token.into(), verified));
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Finds the keys for a token. A key without `kid` fits every token of its algorithm.
    pub(crate) fn find(&self, kid: Option<&str>, alg: &str) -> Lookup<'_> {
        let named = self.keys.iter().filter(|key| match (kid, &key.kid) {
            (Some(kid), Some(own)) => kid == own,
            (_, None) | (None, _) => true,
        });
        let named: Vec<&Key> = named.collect();
        if named.is_empty() {
            return Lookup::Unknown;
        }
        // A name is compared rather than parsed: `none` and inventions are simply not any key's algorithm.
        let fitting: Vec<&Key> = named.into_iter().filter(|key| key.alg == alg).take(MAX_CANDIDATES).collect();
        if fitting.is_empty() { Lookup::OtherAlgorithm } else { Lookup::Found(fitting) }
    }
}

#[cfg(test)]
mod tests;
