//! RSA signatures checked by the host, where it has `verify_signature` (Envoy 1.40, Portcullis): native code is an order of
//! magnitude faster than the guest's.
//!
//! Arguments and answer are messages: hash function (1), public key as SubjectPublicKeyInfo (2), signature (3), text (4) in; a
//! truth (1) out.

use std::cmp::Ordering;

use crate::rsa::Padding;
use crate::signature::{Algorithm, Hash, Material};

/// Calls `verify_signature`; nothing where the host has no such function or does not answer.
pub(crate) type VerifySignature = fn(&[u8]) -> Option<Vec<u8>>;

/// A key for RSA with PKCS #1 v1.5, as the host takes it.
#[derive(Debug)]
pub(crate) struct HostKey {
    hash: &'static str,
    spki: Vec<u8>,
}

impl HostKey {
    /// The key for an algorithm, if it is one that the host's function is for.
    pub(crate) fn new(algorithm: Algorithm, material: &Material) -> Option<Self> {
        let (Algorithm::Rsa(Padding::Pkcs1, hash), Material::Rsa { n, e }) = (algorithm, material) else { return None };
        let hash = match hash {
            Hash::Sha256 => "sha256",
            Hash::Sha384 => "sha384",
            Hash::Sha512 => "sha512",
        };
        Some(Self { hash, spki: spki(n, e) })
    }

    /// Whether this key made the signature; nothing where the host does not say.
    pub(crate) fn verifies(&self, host: VerifySignature, message: &[u8], signature: &[u8]) -> Option<bool> {
        let mut call = Vec::with_capacity(message.len() + signature.len() + self.spki.len() + 32);
        let parts = [(1, self.hash.as_bytes()), (2, &self.spki), (3, signature), (4, message)];
        for (field, bytes) in parts {
            call.push(field << 3 | 2);
            put_varint(&mut call, bytes.len());
            call.extend_from_slice(bytes);
        }
        // Of the answer only this one says yes: field 1, a number, true. Without it, it is false.
        host(&call).map(|answer| answer.starts_with(&[0x08, 1]))
    }
}

fn put_varint(out: &mut Vec<u8>, mut number: usize) {
    while number > 0x7f {
        out.push(low_byte(number) | 0x80);
        number >>= 7;
    }
    out.push(low_byte(number));
}

fn low_byte(number: usize) -> u8 {
    number.to_le_bytes().first().copied().unwrap_or_default()
}

/// A SubjectPublicKeyInfo of `rsaEncryption` (RFC 3279 §2.3.1) in DER.
fn spki(n: &[u8], e: &[u8]) -> Vec<u8> {
    /// The object identifier 1.2.840.113549.1.1.1, and NULL for its parameters.
    const RSA: &[u8] = &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    let key = tagged(0x30, &[integer(n), integer(e)].concat());
    let bits = tagged(0x03, &[&[0], key.as_slice()].concat());
    tagged(0x30, &[RSA, &bits].concat())
}

/// A positive number, without zeroes in front but for one that keeps it positive.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let zeroes = bytes.iter().take_while(|byte| **byte == 0).count();
    let mut digits = bytes.get(zeroes..).unwrap_or_default().to_vec();
    if digits.first().is_none_or(|first| *first > 0x7f) {
        digits.insert(0, 0);
    }
    tagged(0x02, &digits)
}

fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    match length.cmp(&0x80) {
        Ordering::Less => out.push(low_byte(length)),
        Ordering::Equal | Ordering::Greater => {
            let bytes = length.to_be_bytes();
            let zeroes = bytes.iter().take_while(|byte| **byte == 0).count();
            out.push(0x80 | low_byte(bytes.len() - zeroes));
            out.extend_from_slice(bytes.get(zeroes..).unwrap_or_default());
        }
    }
    out.extend_from_slice(content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pem;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    fn der() -> Vec<u8> {
        let pem = include_str!("../testdata/rsa.pub.pem");
        STANDARD.decode(pem.lines().filter(|line| !line.starts_with('-')).collect::<String>()).unwrap()
    }

    #[test]
    fn a_key_is_written_as_openssl_writes_it() {
        let material = pem::read(include_str!("../testdata/rsa.pub.pem"));
        let (n, e) = if let Some(Material::Rsa { n, e }) = material { (n, e) } else { Default::default() };
        assert_eq!(spki(&n, &e), der());
        assert_eq!(spki(&[&[0, 0], n.as_slice()].concat(), &e), der(), "zeroes in front mean nothing");
    }

    #[test]
    fn the_host_is_asked_in_its_words_and_only_its_yes_is_one() {
        let key = |alg: &str| {
            let material = Material::Rsa { n: vec![0xab; 256], e: vec![1, 0, 1] };
            HostKey::new(Algorithm::named(alg).unwrap(), &material)
        };
        let echo: VerifySignature = |call| call.starts_with(b"\x0a\x06sha256\x12\xa6\x02\x30").then(|| vec![0x08, 1]);
        let rs256 = key("RS256").unwrap();
        assert_eq!(rs256.verifies(echo, b"text", b"signature"), Some(true));
        for (answer, want) in [
            ((|_| None) as VerifySignature, None),
            (|_| Some(vec![]), Some(false)),
            (|_| Some(vec![0x08, 0]), Some(false)),
            (|_| Some(vec![0x12, 1, 0x61]), Some(false)),
            (|call| call.ends_with(b"\x1a\x09signature\x22\x04text").then(|| vec![0x08, 1]), Some(true)),
        ] {
            assert_eq!(rs256.verifies(answer, b"text", b"signature"), want);
        }
        for alg in ["PS256", "ES256", "HS256", "EdDSA"] {
            assert!(key(alg).is_none(), "{alg}");
        }
    }
}
