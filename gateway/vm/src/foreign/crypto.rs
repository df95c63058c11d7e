//! `verify_signature` and `sign`: RSA with PKCS #1 v1.5 and ECDSA with ASN.1 signatures, as Envoy's keys decide.
//!
//! Arguments and answers are messages; that a signature does not fit is an answer, not an error.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, ParsedPublicKey, RsaKeyPair};
use aws_lc_rs::signature::{RsaEncoding, VerificationAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_abi::Status;
use portcullis_abi::protobuf::Value;

use super::{Answer, fields};

/// The largest key that is looked at; 16384 bits of RSA are smaller.
const KEY_BYTES: usize = 16 << 10;

/// Which signatures go with a hash function.
struct Hash {
    name: &'static str,
    verify: &'static [&'static dyn VerificationAlgorithm],
    rsa: Option<&'static dyn RsaEncoding>,
    ecdsa: &'static [&'static EcdsaSigningAlgorithm],
}

const HASHES: [Hash; 5] = [
    Hash {
        name: "sha1",
        verify: &[
            &signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
            &signature::ECDSA_P256_SHA1_ASN1,
            &signature::ECDSA_P521_SHA1_ASN1,
        ],
        rsa: None,
        ecdsa: &[],
    },
    Hash {
        name: "sha224",
        verify: &[&signature::ECDSA_P521_SHA224_ASN1],
        rsa: None,
        ecdsa: &[&signature::ECDSA_P521_SHA224_ASN1_SIGNING],
    },
    Hash {
        name: "sha256",
        verify: &[
            &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
            &signature::ECDSA_P256_SHA256_ASN1,
            &signature::ECDSA_P384_SHA256_ASN1,
            &signature::ECDSA_P521_SHA256_ASN1,
        ],
        rsa: Some(&signature::RSA_PKCS1_SHA256),
        ecdsa: &[&signature::ECDSA_P256_SHA256_ASN1_SIGNING, &signature::ECDSA_P521_SHA256_ASN1_SIGNING],
    },
    Hash {
        name: "sha384",
        verify: &[
            &signature::RSA_PKCS1_2048_8192_SHA384,
            &signature::ECDSA_P256_SHA384_ASN1,
            &signature::ECDSA_P384_SHA384_ASN1,
            &signature::ECDSA_P521_SHA384_ASN1,
        ],
        rsa: Some(&signature::RSA_PKCS1_SHA384),
        ecdsa: &[&signature::ECDSA_P384_SHA384_ASN1_SIGNING, &signature::ECDSA_P521_SHA384_ASN1_SIGNING],
    },
    Hash {
        name: "sha512",
        verify: &[
            &signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
            &signature::ECDSA_P256_SHA512_ASN1,
            &signature::ECDSA_P384_SHA512_ASN1,
            &signature::ECDSA_P521_SHA512_ASN1,
        ],
        rsa: Some(&signature::RSA_PKCS1_SHA512),
        ecdsa: &[&signature::ECDSA_P521_SHA512_ASN1_SIGNING],
    },
];

/// What a guest asks for: the same fields in both functions, but for one.
#[derive(Default)]
struct Asked<'a> {
    hash: &'a [u8],
    key: &'a [u8],
    key_pem: &'a [u8],
    signature: &'a [u8],
    text: &'a [u8],
}

impl<'a> Asked<'a> {
    /// `numbers` are those of the signature, if there is one, the text and the key in PEM.
    fn read(message: &'a [u8], (signature, text, key_pem): (Option<u64>, u64, u64)) -> Result<Self, Status> {
        let mut asked = Self::default();
        for field in fields(message) {
            let (number, Value::Bytes(bytes)) = field? else { continue };
            let place = match number {
                1 => &mut asked.hash,
                2 => &mut asked.key,
                _ if Some(number) == signature => &mut asked.signature,
                _ if number == text => &mut asked.text,
                _ if number == key_pem => &mut asked.key_pem,
                _ => continue,
            };
            *place = bytes;
        }
        if asked.key.is_empty() == asked.key_pem.is_empty() {
            return Err(Status::BadArgument);
        }
        Ok(asked)
    }

    fn hash(&self) -> Result<&'static Hash, String> {
        let named = HASHES.iter().find(|hash| hash.name.as_bytes().eq_ignore_ascii_case(self.hash));
        named.ok_or_else(|| format!("{} is not supported.", String::from_utf8_lossy(self.hash)))
    }

    /// The key's DER.
    fn der(&self) -> Option<Vec<u8>> {
        let der = if self.key.is_empty() { unwrapped(self.key_pem)? } else { self.key.to_vec() };
        (der.len() <= KEY_BYTES).then_some(der)
    }
}

/// What is inside the first block of a PEM text.
fn unwrapped(pem: &[u8]) -> Option<Vec<u8>> {
    let text = str::from_utf8(pem.get(..pem.len().min(2 * KEY_BYTES))?).ok()?;
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (_, rest) = rest.split_once("-----")?;
    let (inside, _) = rest.split_once("-----END ")?;
    let inside: String = inside.split_whitespace().collect();
    STANDARD.decode(inside).ok()
}

/// `verify_signature`.
pub(super) fn verify(message: &[u8]) -> Answer {
    let asked = Asked::read(message, (Some(3), 4, 5))?;
    let fits = asked.hash().and_then(|hash| {
        let key = asked.der().ok_or("Failed to parse the public key.")?;
        // Only the algorithm that the key is for takes it.
        let key = hash.verify.iter().find_map(|algorithm| ParsedPublicKey::new(*algorithm, &key).ok());
        let key = key.ok_or("Failed to initialize digest verify.")?;
        key.verify_sig(asked.text, asked.signature).map_err(|_| "Failed to verify digest. Error code: 0".to_owned())
    });
    Ok(answer(fits.map(|()| Vec::new()), 2))
}

/// `sign`.
pub(super) fn sign(message: &[u8]) -> Answer {
    let asked = Asked::read(message, (None, 3, 4))?;
    let signed = asked.hash().and_then(|hash| {
        let key = asked.der().ok_or("Failed to parse the private key.")?;
        signed(hash, &key, asked.text)
    });
    Ok(answer(signed, 3))
}

fn signed(hash: &Hash, key: &[u8], text: &[u8]) -> Result<Vec<u8>, String> {
    let random = SystemRandom::new();
    let failed = |_| "Failed to create a signature.".to_owned();
    if let Ok(pair) = RsaKeyPair::from_pkcs8(key).or_else(|_| RsaKeyPair::from_der(key)) {
        let encoding = hash.rsa.ok_or(format!("{} is not supported with this key.", hash.name))?;
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(encoding, &random, text, &mut signature).map_err(failed)?;
        return Ok(signature);
    }
    let pair = |algorithm: &&'static EcdsaSigningAlgorithm| {
        EcdsaKeyPair::from_pkcs8(algorithm, key).or_else(|_| EcdsaKeyPair::from_private_key_der(algorithm, key)).ok()
    };
    let pair = hash.ecdsa.iter().find_map(pair).ok_or("Failed to parse the private key for this hash function.")?;
    Ok(pair.sign(&random, text).map_err(failed)?.as_ref().to_vec())
}

/// The answer's message: a truth, then the signature if there is one, then what went wrong.
fn answer(outcome: Result<Vec<u8>, String>, error_field: u8) -> Vec<u8> {
    let mut out = Vec::new();
    match outcome {
        Ok(signature) => {
            out.extend([0x08, 1]);
            if !signature.is_empty() {
                put_bytes(&mut out, 2, &signature);
            }
        }
        Err(error) => put_bytes(&mut out, error_field, error.as_bytes()),
    }
    out
}

fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    let mut len = bytes.len();
    while len >= 0x80 {
        out.push(u8::try_from(len & 0x7f).unwrap_or(0) | 0x80);
        len >>= 7;
    }
    out.push(u8::try_from(len).unwrap_or(0));
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::KeyPair as _;

    use super::*;

    fn message(parts: &[(u8, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        parts.iter().for_each(|(field, bytes)| put_bytes(&mut out, *field, bytes));
        out
    }

    fn pem(kind: &str, der: &[u8]) -> String {
        let text = STANDARD.encode(der);
        let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", lines.join("\n"))
    }

    /// Signs and verifies with a pair of keys, both ways of giving them.
    fn check(hash: &str, private: &[u8], public: &[u8]) {
        for (private_field, private, public_field, public) in [
            (2, private.to_vec(), 2, public.to_vec()),
            (4, pem("PRIVATE KEY", private).into_bytes(), 5, pem("PUBLIC KEY", public).into_bytes()),
        ] {
            let signed = sign(&message(&[(1, hash.as_bytes()), (private_field, &private), (3, b"text")])).unwrap();
            let mut signature = None;
            for field in fields(&signed) {
                match field.unwrap() {
                    (1, Value::Number(1)) => {}
                    (2, Value::Bytes(bytes)) => signature = Some(bytes.to_vec()),
                    other => panic!("{hash}: {other:?}"),
                }
            }
            let signature = signature.unwrap();
            let verify = |text: &[u8], signature: &[u8]| {
                let asked = [(1, hash.as_bytes()), (public_field, &public[..]), (3, signature), (4, text)];
                verify(&message(&asked)).unwrap()
            };
            assert_eq!(verify(b"text", &signature), [8, 1], "{hash}");
            let failed = answer(Err("Failed to verify digest. Error code: 0".to_owned()), 2);
            assert_eq!(verify(b"other", &signature), failed, "{hash}");
            assert_eq!(verify(b"text", &signature[1..]), failed, "{hash}");
        }
    }

    #[test]
    fn signatures_of_both_kinds_of_keys_fit_and_others_do_not() {
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let private: Pkcs8V1Der<'_> = rsa.as_der().unwrap();
        let public: PublicKeyX509Der<'_> = rsa.public_key().as_der().unwrap();
        for hash in ["sha256", "SHA384", "sha512"] {
            check(hash, private.as_ref(), public.as_ref());
        }
        for (hash, algorithm) in [
            ("sha256", &signature::ECDSA_P256_SHA256_ASN1_SIGNING),
            ("sha384", &signature::ECDSA_P384_SHA384_ASN1_SIGNING),
            ("sha512", &signature::ECDSA_P521_SHA512_ASN1_SIGNING),
        ] {
            let pair = EcdsaKeyPair::generate(algorithm).unwrap();
            let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
            check(hash, pair.to_pkcs8v1().unwrap().as_ref(), public.as_ref());
        }
    }

    #[test]
    fn what_cannot_be_done_is_an_answer_and_what_is_no_question_an_error() {
        let key = &b"\x30\x03\x02\x01\x05"[..];
        let said = |function: fn(&[u8]) -> Answer, parts: &[(u8, &[u8])]| function(&message(parts)).unwrap();
        assert!(said(verify, &[(1, b"md5"), (2, key), (3, b"s"), (4, b"t")]).ends_with(b"md5 is not supported."));
        assert!(said(verify, &[(1, b"sha256"), (5, b"no pem")]).ends_with(b"Failed to parse the public key."));
        assert!(said(sign, &[(1, b"sha256"), (2, key)]).ends_with(b"the private key for this hash function."));
        for function in [verify as fn(&[u8]) -> Answer, sign] {
            assert_eq!(function(&message(&[(1, b"sha256")])), Err(Status::BadArgument), "no key");
            assert_eq!(function(b"\x0a\xff"), Err(Status::BadArgument), "no message");
        }
        let both: [(u8, &[u8]); 2] = [(2, key), (5, b"pem")];
        assert_eq!(verify(&message(&both)), Err(Status::BadArgument), "two keys");
    }
}
