//! What a host takes in DER: public keys as SubjectPublicKeyInfo (RFC 5280 §4.1.2.7), and signatures of ECDSA (RFC 3279 §2.2.3).

use spki::ObjectIdentifier;

use crate::pem;
use crate::signature::Curve;

/// A key of `rsaEncryption` (RFC 3279 §2.3.1).
pub(crate) fn rsa_key(n: &[u8], e: &[u8]) -> Vec<u8> {
    /// NULL, for there are no parameters.
    const NULL: &[u8] = &[0x05, 0x00];
    let key = tagged(0x30, &[integer(n), integer(e)].concat());
    key_info(&[object(pem::RSA).as_slice(), NULL].concat(), &key)
}

/// A key of `id-ecPublicKey` (RFC 5480 §2.1): an uncompressed point.
pub(crate) fn ec_key(curve: Curve, point: &[u8]) -> Vec<u8> {
    key_info(&[object(pem::EC), object(pem::oid(curve))].concat(), point)
}

/// A signature of ECDSA, that tokens have as two numbers of a coordinate's length (RFC 7518 §3.4); nothing where it is not of that length.
pub(crate) fn ecdsa_signature(curve: Curve, signature: &[u8]) -> Option<Vec<u8>> {
    let (r, s) = signature.split_at_checked(curve.bytes()).filter(|(_, s)| s.len() == curve.bytes())?;
    Some(tagged(0x30, &[integer(r), integer(s)].concat()))
}

fn key_info(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    let bits = tagged(0x03, &[&[0], key].concat());
    tagged(0x30, &[tagged(0x30, algorithm), bits].concat())
}

fn object(oid: ObjectIdentifier) -> Vec<u8> {
    tagged(0x06, oid.as_bytes())
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
    let length = content.len().to_be_bytes();
    let zeroes = length.iter().take_while(|byte| **byte == 0).count();
    let digits = length.get(zeroes..).unwrap_or_default();
    let mut out = vec![tag];
    // X.690 §8.1.3: below 128 a length is itself, else it comes after how many bytes it has.
    if content.len() > 0x7f {
        out.push(0x80 | u8::try_from(digits.len()).unwrap_or_default());
    }
    out.extend_from_slice(if digits.is_empty() { &[0] } else { digits });
    out.extend_from_slice(content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::Material;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    fn der(pem: &str) -> Vec<u8> {
        STANDARD.decode(pem.lines().filter(|line| !line.starts_with('-')).collect::<String>()).unwrap()
    }

    #[test]
    fn keys_are_written_as_openssl_writes_them() {
        for pem in [
            include_str!("../testdata/rsa.pub.pem"),
            include_str!("../testdata/ec.pub.pem"),
            include_str!("../testdata/p384.pub.pem"),
            include_str!("../testdata/p521.pub.pem"),
        ] {
            let written = match pem::read(pem).unwrap() {
                Material::Rsa { n, e } => {
                    assert_eq!(
                        rsa_key(&[&[0, 0], n.as_slice()].concat(), &e),
                        der(pem),
                        "zeroes in front mean nothing"
                    );
                    rsa_key(&n, &e)
                }
                Material::Point(curve, point) => ec_key(curve, &point),
                Material::Secret(_) | Material::Ed25519(_) => Vec::new(),
            };
            assert_eq!(written, der(pem), "{pem}");
        }
    }

    #[test]
    fn a_signature_is_two_numbers_of_their_full_length() {
        let numbers = |r: &[u8], s: &[u8]| {
            let (mut r, mut s) =
                ([vec![0; 32 - r.len()], r.to_vec()].concat(), [vec![0; 32 - s.len()], s.to_vec()].concat());
            r.append(&mut s);
            r
        };
        for (signature, want) in [
            (numbers(&[1], &[0x7f]), Some(&[0x30, 6, 2, 1, 1, 2, 1, 0x7f][..])),
            (numbers(&[0x80], &[0x12, 0]), Some(&[0x30, 8, 2, 2, 0, 0x80, 2, 2, 0x12, 0])),
            (numbers(&[], &[]), Some(&[0x30, 6, 2, 1, 0, 2, 1, 0])),
            (vec![1; 63], None),
            (vec![1; 65], None),
            (vec![1; 96], None),
            (Vec::new(), None),
        ] {
            assert_eq!(ecdsa_signature(Curve::P256, &signature).as_deref(), want, "{signature:?}");
        }
        let long = ecdsa_signature(Curve::P521, &[0xff; 132]).unwrap();
        assert_eq!((long.len(), &long[..6]), (141, &[0x30, 0x81, 138, 2, 67, 0][..]));
    }
}
