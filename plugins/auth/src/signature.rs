//! Signature algorithms (RFC 7518 §3.1, RFC 8037 §3.1), and how a signature by each is checked.

use hmac::{Hmac, Mac};
use p256::ecdsa::signature::Verifier as _;
use sha2::{Digest, Sha256, Sha384, Sha512};

use crate::rsa::{self, Padding};

/// A hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    /// Of these parts, one after the other.
    pub(crate) fn of(self, parts: &[&[u8]]) -> Vec<u8> {
        fn digest<D: Digest>(parts: &[&[u8]]) -> Vec<u8> {
            parts.iter().fold(D::new(), |digest, part| digest.chain_update(part)).finalize().to_vec()
        }
        match self {
            Self::Sha256 => digest::<Sha256>(parts),
            Self::Sha384 => digest::<Sha384>(parts),
            Self::Sha512 => digest::<Sha512>(parts),
        }
    }

    /// As hosts call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// How long it is.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

/// An algorithm, by the names that tokens have for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Hmac(Hash),
    Rsa(Padding, Hash),
    Ecdsa(Curve),
    EdDsa,
}

/// The curve of a key, which has one hash that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    pub(crate) const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    /// By the name that keys have for it (RFC 7518 §6.2.1.1).
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "P-256" => Some(Self::P256),
            "P-384" => Some(Self::P384),
            "P-521" => Some(Self::P521),
            _ => None,
        }
    }

    /// How long a coordinate is.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    /// The hash that goes with it (RFC 7518 §3.4).
    pub(crate) fn hash(self) -> Hash {
        match self {
            Self::P256 => Hash::Sha256,
            Self::P384 => Hash::Sha384,
            Self::P521 => Hash::Sha512,
        }
    }
}

const ALGORITHMS: [(&str, Algorithm); 13] = [
    ("HS256", Algorithm::Hmac(Hash::Sha256)),
    ("HS384", Algorithm::Hmac(Hash::Sha384)),
    ("HS512", Algorithm::Hmac(Hash::Sha512)),
    ("RS256", Algorithm::Rsa(Padding::Pkcs1, Hash::Sha256)),
    ("RS384", Algorithm::Rsa(Padding::Pkcs1, Hash::Sha384)),
    ("RS512", Algorithm::Rsa(Padding::Pkcs1, Hash::Sha512)),
    ("PS256", Algorithm::Rsa(Padding::Pss, Hash::Sha256)),
    ("PS384", Algorithm::Rsa(Padding::Pss, Hash::Sha384)),
    ("PS512", Algorithm::Rsa(Padding::Pss, Hash::Sha512)),
    ("ES256", Algorithm::Ecdsa(Curve::P256)),
    ("ES384", Algorithm::Ecdsa(Curve::P384)),
    ("ES512", Algorithm::Ecdsa(Curve::P521)),
    ("EdDSA", Algorithm::EdDsa),
];

impl Algorithm {
    /// # Errors
    /// There is none of this name, or it is not used here.
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        let found = ALGORITHMS.iter().find(|(own, _)| *own == name).map(|(_, algorithm)| *algorithm);
        found.ok_or_else(|| format!("`{name}` is not a signature algorithm known here"))
    }

    pub(crate) fn name(self) -> &'static str {
        ALGORITHMS.iter().find(|(_, own)| *own == self).map_or("", |(name, _)| name)
    }
}

/// What a key is made of, as settings and documents have it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Material {
    /// Shared by whoever signs and whoever checks.
    Secret(Vec<u8>),
    /// Modulus and exponent, the most significant byte first.
    Rsa { n: Vec<u8>, e: Vec<u8> },
    /// An uncompressed point (SEC 1 §2.3.3).
    Point(Curve, Vec<u8>),
    /// A key of 32 bytes.
    Ed25519(Vec<u8>),
}

/// A key that is whole, bound to one algorithm that is worked out here.
///
/// ES512 is not: in a module it takes 134 million instructions a signature, more than a callback has time for.
#[derive(Debug)]
pub(crate) enum Verifier {
    Hmac(Hash, Vec<u8>),
    Rsa(Padding, Hash, rsa::PublicKey),
    P256(p256::ecdsa::VerifyingKey),
    P384(p384::ecdsa::VerifyingKey),
    Ed25519(ed25519_dalek::VerifyingKey),
}

impl Verifier {
    /// # Errors
    /// What is wrong with the material, or that it is for another algorithm.
    pub(crate) fn new(algorithm: Algorithm, material: &Material) -> Result<Self, String> {
        let misfit = || format!("the key does not fit {}", algorithm.name());
        match (algorithm, material) {
            // RFC 7518 §3.2: a key at least as long as the hash. Shorter ones can be searched.
            (Algorithm::Hmac(hash), Material::Secret(secret)) if secret.len() < hash.bytes() => {
                let (name, least) = (algorithm.name(), hash.bytes());
                Err(format!("a secret for {name} has at least {least} bytes (RFC 7518 §3.2)"))
            }
            (Algorithm::Hmac(hash), Material::Secret(secret)) => Ok(Self::Hmac(hash, secret.clone())),
            (Algorithm::Rsa(padding, hash), Material::Rsa { n, e }) => {
                Ok(Self::Rsa(padding, hash, rsa::PublicKey::new(n, e)?))
            }
            (Algorithm::Ecdsa(Curve::P256), Material::Point(Curve::P256, point)) => {
                p256::ecdsa::VerifyingKey::from_sec1_bytes(point).map(Self::P256).map_err(|_| misfit())
            }
            (Algorithm::Ecdsa(Curve::P384), Material::Point(Curve::P384, point)) => {
                p384::ecdsa::VerifyingKey::from_sec1_bytes(point).map(Self::P384).map_err(|_| misfit())
            }
            (Algorithm::EdDsa, Material::Ed25519(key)) => {
                let key: &[u8; 32] = key.as_slice().try_into().map_err(|_| "an Ed25519 key has 32 bytes".to_owned())?;
                ed25519_dalek::VerifyingKey::from_bytes(key).map(Self::Ed25519).map_err(|_| misfit())
            }
            (Algorithm::Hmac(_) | Algorithm::Rsa(..) | Algorithm::Ecdsa(_) | Algorithm::EdDsa, _) => Err(misfit()),
        }
    }

    /// Whether this key made the signature.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Hmac(hash, secret) => is_mac(*hash, secret, message, signature),
            Self::Rsa(padding, hash, key) => key.verifies(*padding, *hash, message, signature),
            Self::P256(key) => p256::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
            Self::P384(key) => p384::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
            Self::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
        }
    }
}

/// Compared in a time that says nothing of where they differ.
fn is_mac(hash: Hash, secret: &[u8], message: &[u8], mac: &[u8]) -> bool {
    match hash {
        Hash::Sha256 => Hmac::<Sha256>::new_from_slice(secret)
            .is_ok_and(|keyed| keyed.chain_update(message).verify_slice(mac).is_ok()),
        Hash::Sha384 => Hmac::<Sha384>::new_from_slice(secret)
            .is_ok_and(|keyed| keyed.chain_update(message).verify_slice(mac).is_ok()),
        Hash::Sha512 => Hmac::<Sha512>::new_from_slice(secret)
            .is_ok_and(|keyed| keyed.chain_update(message).verify_slice(mac).is_ok()),
    }
}
