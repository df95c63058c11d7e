//! Signatures checked by the host, where it has `verify_signature` (Envoy 1.40, Portcullis): native code is an order of magnitude faster
//! than the guest's. It takes keys and signatures as BoringSSL does, which is RSA with PKCS #1 v1.5 and ECDSA in DER.
//!
//! Arguments and answer are messages: hash function (1), public key as SubjectPublicKeyInfo (2), signature (3), text (4) in; a
//! truth (1) out.

use std::borrow::Cow;
use std::cell::OnceCell;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::der;
use crate::rsa::Padding;
use crate::signature::{Algorithm, Curve, Hash, Material};

/// Calls `verify_signature`; nothing where the host has no such function or does not answer.
pub(crate) type Call = fn(&[u8]) -> Option<Vec<u8>>;

/// The host's `verify_signature`. By default it is one that the host has not.
#[derive(Clone)]
pub(crate) struct VerifySignature {
    call: Call,
    /// Whether it is right about ES512, once somebody has asked.
    knows_es512: OnceCell<bool>,
}

impl Default for VerifySignature {
    fn default() -> Self {
        Self::new(|_| None)
    }
}

impl VerifySignature {
    pub(crate) fn new(call: Call) -> Self {
        Self { call, knows_es512: OnceCell::new() }
    }

    /// Whether the host takes keys for ES512: nobody else can check what they sign.
    ///
    /// It is shown a signature that is right and one that is not. That costs what two signatures cost, so it is asked once.
    pub(crate) fn knows_es512(&self) -> bool {
        *self.knows_es512.get_or_init(|| {
            let [point, signature] = SAMPLE.map(|part| STANDARD.decode(part).unwrap_or_default());
            let key = HostKey::new(Algorithm::Ecdsa(Curve::P521), &Material::Point(Curve::P521, point));
            let says = |text: &[u8]| key.as_ref().and_then(|key| key.verifies(self, text, &signature));
            says(SAMPLE_TEXT) == Some(true) && says(b"another") == Some(false)
        })
    }
}

/// A key of P-521, and how it signed [`SAMPLE_TEXT`]: made with OpenSSL, once.
const SAMPLE: [&str; 2] = [
    "BADh/fG43uJNGMpxTctoI6CX/0ZFIasZdZOYzTDc240tCB06zPSl/VEHBrKhFDdWoHZMTn/U7L6VHLMy3T1sW+Ls1QG8zsEmOi/98r9iDJXbXttPprnq3zAymfZoW53C\
     yV32VQbtpbIZ7y0gL5aWA2x3POKmRe1B9XSu0BGbuUNCF7TlHg==",
    "AeR8BcAr56MWlgb8i6tZFMHnwZrFhalmndAX89aieHSqI0xG/8wVPknmhRGzng1igT7gFQcSX6cPXylwbUCT9ZZVAEx2E+rv+z8Zw/E9xxXwIhxUidkZK+ryJCGmR9Nj\
     hwRxllOZZ5yXX10iud7mWhZzj08dqpfmhqrXzWsmpIfIh5IA",
];
const SAMPLE_TEXT: &[u8] = b"ES512";

/// A key as the host takes it.
#[derive(Debug)]
pub(crate) struct HostKey {
    hash: Hash,
    info: Vec<u8>,
    /// Of a key for ECDSA, whose signatures are other in tokens than in DER.
    curve: Option<Curve>,
}

impl HostKey {
    /// The key for an algorithm, if it is one that the host's function is for.
    pub(crate) fn new(algorithm: Algorithm, material: &Material) -> Option<Self> {
        match (algorithm, material) {
            (Algorithm::Rsa(Padding::Pkcs1, hash), Material::Rsa { n, e }) => {
                Some(Self { hash, info: der::rsa_key(n, e), curve: None })
            }
            // Of points in their short form, which some libraries write, some hosts know nothing.
            (Algorithm::Ecdsa(curve), Material::Point(own, point))
                if curve == *own && point.first() == Some(&4) && point.len() == 1 + 2 * curve.bytes() =>
            {
                Some(Self { hash: curve.hash(), info: der::ec_key(curve, point), curve: Some(curve) })
            }
            (Algorithm::Hmac(_) | Algorithm::Rsa(..) | Algorithm::Ecdsa(_) | Algorithm::EdDsa, _) => None,
        }
    }

    /// Whether this key made the signature; nothing where the host does not say.
    pub(crate) fn verifies(&self, host: &VerifySignature, message: &[u8], signature: &[u8]) -> Option<bool> {
        let signature = match self.curve {
            None => Cow::Borrowed(signature),
            Some(curve) => match der::ecdsa_signature(curve, signature) {
                Some(signature) => Cow::Owned(signature),
                None => return Some(false),
            },
        };
        let mut call = Vec::with_capacity(message.len() + signature.len() + self.info.len() + 32);
        let parts = [(1, self.hash.name().as_bytes()), (2, &self.info), (3, &signature), (4, message)];
        for (field, bytes) in parts {
            call.push(field << 3 | 2);
            put_varint(&mut call, bytes.len());
            call.extend_from_slice(bytes);
        }
        // Of the answer only this one says yes: field 1, a number, true. Without it, it is false.
        (host.call)(&call).map(|answer| answer.starts_with(&[0x08, 1]))
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

#[cfg(test)]
pub(crate) mod tests {
    use p521::ecdsa::signature::Verifier as _;
    use p521::ecdsa::{DerSignature, Signature, VerifyingKey};

    use super::*;

    /// As a host would check a signature of ES512: the key is the last of what stands in front of the signature.
    pub(crate) fn es512(call: &[u8]) -> Option<Vec<u8>> {
        let rest = call.strip_prefix(b"\x0a\x06sha512\x12\x9e\x01")?;
        let (info, rest) = rest.split_at_checked(158)?;
        let rest = rest.strip_prefix(&[0x1a])?;
        let (signature, rest) = taken(rest)?;
        let (text, rest) = taken(rest.strip_prefix(&[0x22])?)?;
        assert!(rest.is_empty());
        let key = VerifyingKey::from_sec1_bytes(&info[info.len() - 133..]).ok()?;
        let signature =
            DerSignature::from_bytes(signature).ok().and_then(|signature| Signature::try_from(signature).ok());
        let fits = signature.is_some_and(|signature| key.verify(text, &signature).is_ok());
        Some(if fits { vec![0x08, 1] } else { b"\x12\x02no".to_vec() })
    }

    /// A text with its length in front, and what comes after.
    fn taken(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
        let (first, rest) = bytes.split_first()?;
        let (len, rest) = match *first {
            low @ 0x80.. => {
                let (high, rest) = rest.split_first()?;
                (usize::from(low & 0x7f) | usize::from(*high) << 7, rest)
            }
            len => (usize::from(len), rest),
        };
        rest.split_at_checked(len)
    }

    #[test]
    fn the_host_is_asked_in_its_words_and_only_its_yes_is_one() {
        let key = |alg: &str| {
            let material = Material::Rsa { n: vec![0xab; 256], e: vec![1, 0, 1] };
            HostKey::new(Algorithm::named(alg).unwrap(), &material)
        };
        let rs256 = key("RS256").unwrap();
        let echo: Call = |call| call.starts_with(b"\x0a\x06sha256\x12\xa6\x02\x30").then(|| vec![0x08, 1]);
        for (answer, want) in [
            (echo, Some(true)),
            (|_| None, None),
            (|_| Some(vec![]), Some(false)),
            (|_| Some(vec![0x08, 0]), Some(false)),
            (|_| Some(vec![0x12, 1, 0x61]), Some(false)),
            (|call| call.ends_with(b"\x1a\x09signature\x22\x04text").then(|| vec![0x08, 1]), Some(true)),
        ] {
            assert_eq!(rs256.verifies(&VerifySignature::new(answer), b"text", b"signature"), want);
        }
        for alg in ["PS256", "ES256", "HS256", "EdDSA"] {
            assert!(key(alg).is_none(), "{alg}");
        }
    }

    #[test]
    fn signatures_of_elliptic_curves_are_shown_in_der_and_only_at_their_length() {
        let key = HostKey::new(Algorithm::Ecdsa(Curve::P256), &Material::Point(Curve::P256, vec![4; 65])).unwrap();
        let host: Call =
            |call| call.ends_with(b"\x1a\x08\x30\x06\x02\x01\x07\x02\x01\x09\x22\x04text").then(|| vec![0x08, 1]);
        let host = VerifySignature::new(host);
        let mut signature = [0; 64];
        (signature[31], signature[63]) = (7, 9);
        assert_eq!(key.verifies(&host, b"text", &signature), Some(true));
        assert_eq!(key.verifies(&host, b"text", &signature[1..]), Some(false));
        let other = Material::Point(Curve::P384, vec![4; 97]);
        let short = Material::Point(Curve::P256, vec![2; 33]);
        for material in [other, short] {
            assert!(HostKey::new(Algorithm::Ecdsa(Curve::P256), &material).is_none(), "{material:?}");
        }
    }

    #[test]
    fn a_host_knows_es512_if_it_tells_right_from_wrong() {
        for (call, want) in
            [(es512 as Call, true), (|_| None, false), (|_| Some(vec![]), false), (|_| Some(vec![0x08, 1]), false)]
        {
            assert_eq!(VerifySignature::new(call).knows_es512(), want);
        }
    }
}
