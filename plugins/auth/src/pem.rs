//! Public keys as OpenSSL writes them: PEM (RFC 7468) around a SubjectPublicKeyInfo (RFC 5280 §4.1.2.7), or around PKCS #1 for RSA.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use spki::der::asn1::UintRef;
use spki::der::{Decode, Reader, SliceReader};
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

use crate::signature::{Curve, Material};

pub(crate) const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
pub(crate) const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// The name of a curve (RFC 5480 §2.1.1.1).
pub(crate) fn oid(curve: Curve) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(match curve {
        Curve::P256 => "1.2.840.10045.3.1.7",
        Curve::P384 => "1.3.132.0.34",
        Curve::P521 => "1.3.132.0.35",
    })
}

/// Reads the one public key of a text; nothing where there is none of a kind that is known here.
pub(crate) fn read(text: &str) -> Option<Material> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let der = STANDARD.decode(body.split_ascii_whitespace().collect::<String>()).ok()?;
    match label {
        "RSA PUBLIC KEY" => rsa(&der),
        "PUBLIC KEY" => of_info(&der),
        _ => None,
    }
}

fn of_info(der: &[u8]) -> Option<Material> {
    let info = SubjectPublicKeyInfoRef::try_from(der).ok()?;
    let key = info.subject_public_key.as_bytes()?;
    match info.algorithm.oid {
        RSA => rsa(key),
        EC => {
            let name = info.algorithm.parameters_oid().ok()?;
            let curve = Curve::ALL.into_iter().find(|curve| oid(*curve) == name)?;
            Some(Material::Point(curve, key.to_vec()))
        }
        ED25519 => Some(Material::Ed25519(key.to_vec())),
        _ => None,
    }
}

/// An RSAPublicKey (RFC 8017 §A.1.1): two numbers.
fn rsa(der: &[u8]) -> Option<Material> {
    let mut reader = SliceReader::new(der).ok()?;
    let numbers = reader.sequence(|numbers| Ok((UintRef::decode(numbers)?, UintRef::decode(numbers)?))).ok()?;
    let (n, e) = reader.finish(numbers).ok()?;
    Some(Material::Rsa { n: n.as_bytes().to_vec(), e: e.as_bytes().to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart_by_their_algorithm_and_curve() {
        let kind = |text: &str| {
            read(text).map(|key| match key {
                Material::Rsa { n, e } => ("rsa", n.len() + e.len()),
                Material::Point(Curve::P256, key) => ("p256", key.len()),
                Material::Point(Curve::P384, key) => ("p384", key.len()),
                Material::Point(Curve::P521, key) => ("p521", key.len()),
                Material::Ed25519(key) => ("ed25519", key.len()),
                Material::Secret(key) => ("secret", key.len()),
            })
        };
        assert_eq!(kind(include_str!("../testdata/rsa.pub.pem")), Some(("rsa", 259)));
        assert_eq!(kind(include_str!("../testdata/ec.pub.pem")), Some(("p256", 65)));
        assert_eq!(kind(include_str!("../testdata/p384.pub.pem")), Some(("p384", 97)));
        assert_eq!(kind(include_str!("../testdata/p521.pub.pem")), Some(("p521", 133)));
        assert_eq!(kind(include_str!("../testdata/ed.pub.pem")), Some(("ed25519", 32)));
        let rsa = include_str!("../testdata/rsa.pub.pem");
        for (text, why) in [
            (include_str!("../testdata/rsa.pem").to_owned(), "a private key"),
            (rsa.replace("PUBLIC KEY", "CERTIFICATE"), "another label"),
            (rsa.replace("-----END PUBLIC", "-----END RSA PUBLIC"), "labels that differ"),
            (rsa.replace("MIIB", "MIIC"), "no DER"),
            (rsa.replace("MIIB", "!"), "no base64"),
            (String::new(), "nothing"),
        ] {
            assert_eq!(kind(&text), None, "{why}");
        }
    }
}
