//! Verification keys: from settings or a JWKS document (RFC 7517), each bound to one algorithm.
//!
//! **Invariant**: a [`Key`] is whole: what does not fit its algorithm is refused when it is read, not at the first token.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use portcullis_sdk::Config;
use portcullis_sdk::schema::{Piece, Schema};
use serde::Deserialize;

use crate::foreign::{HostKey, VerifySignature};
use crate::pem;
use crate::signature::{Algorithm, Curve, Material, Verifier};
use crate::token::Token;

/// A JWKS document may hold this many keys; the rest is ignored.
const MAX_KEYS: usize = 64;

/// A token without `kid` is tried against this many keys of its algorithm: each try costs a signature.
const MAX_CANDIDATES: usize = 4;

/// Tokens remembered at once, and the longest of them: together at most 4 MiB of the guest's memory.
const MAX_REMEMBERED: usize = 512;
const MAX_REMEMBERED_BYTES: usize = 4096;

/// What is wrong with a key for ES512 where nobody can check what it signs.
pub(crate) const NO_ES512: &str = "ES512 takes a host that checks it by `verify_signature`, as Portcullis and Envoy do, and this one does not; use ES256 or ES384";

/// The end of a token: so many of its last bytes.
const END: usize = 16;
type End = [u8; END];

/// Of an end, its last eight bytes: they are random, but letters. Multiplied with the golden ratio, so that all bits of the hash are.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.last_chunk().map_or(self.0, |last| u64::from_le_bytes(*last));
    }

    fn finish(&self) -> u64 {
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32)
    }
}

/// A token as it came, and as it was read.
type Passed = (Box<[u8]>, Rc<Token>);

/// One key.
pub(crate) struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    checks: Checks,
}

/// Who checks what a key has signed.
enum Checks {
    /// The module.
    Here(Verifier),
    /// The host, or the module where the host does not say.
    Either(HostKey, Verifier),
    /// The host.
    There(HostKey),
}

impl Key {
    /// # Errors
    /// The material is not for this algorithm, or the algorithm is for the host to check and the host does not.
    fn new(
        kid: Option<String>,
        algorithm: Algorithm,
        material: &Material,
        host: &VerifySignature,
    ) -> Result<Self, String> {
        let checks = match (algorithm, HostKey::new(algorithm, material)) {
            (Algorithm::Ecdsa(Curve::P521), Some(key)) if host.knows_es512() => Checks::There(key),
            (Algorithm::Ecdsa(Curve::P521), Some(_)) => return Err(NO_ES512.to_owned()),
            (_, Some(key)) => Checks::Either(key, Verifier::new(algorithm, material)?),
            (_, None) => Checks::Here(Verifier::new(algorithm, material)?),
        };
        Ok(Self { kid, algorithm, checks })
    }

    /// Whether this key made the signature.
    fn verifies(&self, host: &VerifySignature, message: &[u8], signature: &[u8]) -> bool {
        let here = |verifier: &Verifier| verifier.verifies(message, signature);
        match &self.checks {
            Checks::Here(verifier) => here(verifier),
            Checks::Either(key, verifier) => key.verifies(host, message, signature).unwrap_or_else(|| here(verifier)),
            Checks::There(key) => key.verifies(host, message, signature).unwrap_or(false),
        }
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
    fn key(self, host: &VerifySignature) -> Result<Key, String> {
        let material = match (self.secret, self.secret_base64, self.pem, self.jwk) {
            (Some(secret), None, None, None) => Material::Secret(secret.into_bytes()),
            (None, Some(secret), None, None) => {
                Material::Secret(STANDARD.decode(secret).map_err(|_| "`secret_base64` is not base64".to_owned())?)
            }
            (None, None, Some(pem), None) => pem::read(&pem).ok_or("`pem` is not a public key known here")?,
            (None, None, None, Some(jwk)) => return jwk.key(self.kid, self.alg.as_deref(), host),
            _ => return Err("a key has exactly one of `secret`, `secret_base64`, `pem` and `jwk`".to_owned()),
        };
        let alg = self.alg.ok_or("`alg` is needed beside a secret or a pem")?;
        Key::new(self.kid, Algorithm::named(&alg)?, &material, host)
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
    fn key(&self, kid: Option<String>, alg: Option<&str>, host: &VerifySignature) -> Result<Key, String> {
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
        self.key_for(kid, alg, host)
    }

    fn key_for(&self, kid: Option<String>, alg: &str, host: &VerifySignature) -> Result<Key, String> {
        Key::new(kid.or_else(|| self.kid.clone()), Algorithm::named(alg)?, &self.material()?, host)
    }

    /// A key of a document, for one of these algorithms.
    ///
    /// One that does not say is for the algorithm everybody has for its type, unless that is not among those that are offered.
    fn published(&self, algorithms: &Algorithms, host: &VerifySignature) -> Option<Key> {
        let key = self.key(None, None, host).ok()?;
        let offered = if algorithms.allowed.is_empty() { &algorithms.offered } else { &algorithms.allowed };
        let is_told = self.alg.is_some() || offered.is_empty() || offered.iter().any(|alg| alg == key.algorithm.name());
        let key = if is_told { key } else { offered.iter().find_map(|alg| self.key_for(None, alg, host).ok())? };
        algorithms.allow(key.algorithm.name()).then_some(key)
    }

    /// For a key that does not say: the algorithm everybody has for its type.
    fn default_alg(&self) -> &'static str {
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => "RS256",
            ("EC", Some("P-384")) => "ES384",
            ("EC", Some("P-521")) => "ES512",
            ("EC", _) => "ES256",
            ("OKP", _) => "EdDSA",
            ("oct", _) => "HS256",
            _ => "",
        }
    }

    fn material(&self) -> Result<Material, String> {
        let curve = self.crv.as_deref();
        match (self.kty.as_str(), curve, curve.and_then(Curve::named)) {
            ("RSA", _, _) => Ok(Material::Rsa { n: part(self.n.as_ref(), "n")?, e: part(self.e.as_ref(), "e")? }),
            ("EC", _, Some(curve)) => self.point(curve),
            ("OKP", Some("Ed25519"), _) => Ok(Material::Ed25519(part(self.x.as_ref(), "x")?)),
            ("oct", _, _) => Ok(Material::Secret(part(self.k.as_ref(), "k")?)),
            (kty, curve, _) => Err(format!("keys of type {kty} with curve {curve:?} are not known here")),
        }
    }

    /// An uncompressed point (SEC 1 §2.3.3).
    fn point(&self, curve: Curve) -> Result<Material, String> {
        let (x, y) = (part(self.x.as_ref(), "x")?, part(self.y.as_ref(), "y")?);
        if x.len() != curve.bytes() || y.len() != curve.bytes() {
            return Err(format!("`x` and `y` have to be {} bytes long", curve.bytes()));
        }
        Ok(Material::Point(curve, [&[4], x.as_slice(), y.as_slice()].concat()))
    }
}

fn part(value: Option<&String>, name: &str) -> Result<Vec<u8>, String> {
    let value = value.ok_or_else(|| format!("`{name}` is missing"))?;
    URL_SAFE_NO_PAD.decode(value).map_err(|_| format!("`{name}` is not base64url"))
}

/// The keys tokens are checked against, and the tokens that passed.
///
/// Checking a signature takes a guest longer than all else, and clients send a token many times. What passed is remembered here, with the very keys that said so: a set that replaces this one starts without.
#[derive(Default)]
pub(crate) struct KeySet {
    keys: Vec<Key>,
    /// By their ends: that of a signature is as good as a hash of the whole, and costs nothing. None gets in here without being
    /// signed, so nobody can choose them, and they need no hashing against those who would.
    passed: RefCell<HashMap<End, Passed, BuildHasherDefault<Spread>>>,
    host: VerifySignature,
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

/// Whether two texts are the same. A module's `memcmp` goes byte by byte, this 32 by 32; and it takes as long wherever they differ.
fn are_same(a: &[u8], b: &[u8]) -> bool {
    let ((a_words, a_rest), (b_words, b_rest)) = (a.as_chunks::<32>(), b.as_chunks::<32>());
    let words = a_words.iter().zip(b_words).map(|(a, b)| difference(a, b));
    a.len() == b.len() && words.fold(0, |differing, word| differing | word) == 0 && a_rest == b_rest
}

/// Where words of 8 bytes differ; nowhere, if it is zero.
fn difference(a: &[u8; 32], b: &[u8; 32]) -> u64 {
    let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
    words.fold(0, |differing, (a, b)| differing | (u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b)))
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

impl KeySet {
    /// Keys of the settings; one bad key spoils them all. The host checks those signatures it can.
    pub(crate) fn from_entries(entries: Vec<KeyEntry>, host: VerifySignature) -> Result<Self, String> {
        if entries.is_empty() {
            return Err("`keys` is empty".to_owned());
        }
        let keys = entries.into_iter().enumerate();
        let keys = keys.map(|(at, entry)| entry.key(&host).map_err(|why| format!("keys[{at}]: {why}")));
        Ok(Self { keys: keys.collect::<Result<_, _>>()?, passed: RefCell::default(), host })
    }

    /// Keys of a JWKS document. Those that cannot be used are passed over: an issuer may publish others beside ours.
    ///
    /// A shared secret in a public document is nobody's secret, so symmetric keys are passed over too.
    pub(crate) fn from_jwks(document: &[u8], algorithms: &Algorithms, host: VerifySignature) -> Result<Self, String> {
        let document: Document =
            serde_json::from_slice(document).map_err(|why| format!("not a JWKS document: {why}"))?;
        let jwks = document.keys.into_iter().take(MAX_KEYS).filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        let jwks = jwks.filter(|jwk| jwk.kty != "oct");
        let keys: Vec<Key> = jwks.filter_map(|jwk| jwk.published(algorithms, &host)).collect();
        if keys.is_empty() {
            Err("the JWKS document holds no usable key".to_owned())
        } else {
            Ok(Self { keys, passed: RefCell::default(), host })
        }
    }

    /// Whether one of these keys of this set made the signature.
    pub(crate) fn signed(&self, by: &[&Key], message: &[u8], signature: &[u8]) -> bool {
        by.iter().any(|key| key.verifies(&self.host, message, signature))
    }

    /// A token that passed before, to the letter, signature included.
    pub(crate) fn remembered(&self, token: &[u8]) -> Option<Rc<Token>> {
        let passed = self.passed.borrow();
        let (own, verified) = passed.get(token.last_chunk::<END>()?)?;
        are_same(own, token).then(|| Rc::clone(verified))
    }

    /// Remembers a token whose signature is right.
    pub(crate) fn remember(&self, token: &[u8], verified: Rc<Token>) {
        let Some(end) = token.last_chunk::<END>().filter(|_| token.len() <= MAX_REMEMBERED_BYTES) else {
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
        let fitting: Vec<&Key> =
            named.into_iter().filter(|key| key.algorithm.name() == alg).take(MAX_CANDIDATES).collect();
        if fitting.is_empty() { Lookup::OtherAlgorithm } else { Lookup::Found(fitting) }
    }
}

#[cfg(test)]
mod tests;
