//! Signatures of modules: Ed25519 (RFC 8032) over the module's bytes, 64 bytes apart from it.
//!
//! Nothing is added before it is signed, so that other tools make and check the same: `openssl pkeyutl -sign -rawin`. A module begins
//! with a mark of its own, `\0asm`, so such a signature stands for nothing else.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};

use crate::config::Written;

/// How long a signature is, in bytes.
const LENGTH: usize = 64;
/// What a public key is written after.
const NAMED: &str = "ed25519:";
/// What precedes the key in a SubjectPublicKeyInfo of Ed25519 (RFC 8410 §4).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A signature of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signature([u8; LENGTH]);

impl Signature {
    /// What is in a `.sig` file; nothing if it is no signature.
    pub(crate) fn of_file(content: &[u8]) -> Option<Self> {
        content.try_into().ok().map(Self)
    }

    /// In base64, as annotations have it.
    pub(crate) fn of_text(text: &str) -> Option<Self> {
        Self::of_file(&STANDARD.decode(text).ok()?)
    }

    pub(crate) fn text(&self) -> String {
        STANDARD.encode(self.0)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A key that modules are signed for: `ed25519:` and 32 bytes in base64, or a public key in PEM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PublicKey([u8; 32]);

impl PublicKey {
    /// Whether a module was signed with its private half.
    pub(crate) fn verifies(&self, module: &[u8], signature: &Signature) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(module, &signature.0).is_ok()
    }
}

impl Written for PublicKey {
    const FORMAT: &'static str = "public-key";
    const WHAT: &'static str = "an Ed25519 public key";
    const EXAMPLES: &'static [&'static str] =
        &["ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", "${file:keys/acme.pub}"];

    fn read(text: &str) -> Result<Self, String> {
        let key = match text.strip_prefix(NAMED) {
            Some(encoded) => STANDARD.decode(encoded).map_err(|_| "it is not base64".to_owned())?,
            None if text.starts_with("-----BEGIN") => {
                let read = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes());
                let der = read.map_err(|_| "its PEM is not that of a public key".to_owned())?;
                der.strip_prefix(&SPKI[..]).ok_or("it is a key of another algorithm")?.to_vec()
            }
            None => return Err(format!("it begins with neither `{NAMED}` nor `-----BEGIN`")),
        };
        key.try_into().map(Self).map_err(|key: Vec<u8>| format!("it has {} bytes, not 32", key.len()))
    }

    fn write(&self) -> String {
        format!("{NAMED}{}", STANDARD.encode(self.0))
    }
}

/// Signs a module with a private key in PEM (PKCS #8).
///
/// # Errors
/// A clause that says what is wrong with the key.
pub(crate) fn sign(module: &[u8], key: &[u8]) -> Result<Signature, String> {
    let der =
        PrivatePkcs8KeyDer::from_pem_slice(key).map_err(|_| "it is no private key in PEM (PKCS #8)".to_owned())?;
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der());
    let pair = pair.map_err(|_| "it is no Ed25519 key".to_owned())?;
    Signature::of_file(pair.sign(module).as_ref()).ok_or("the signature has another length".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032 §7.1, TEST 1: the key and the signature of nothing.
    const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    const PUBLIC: &str = "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    const SIGNATURE: &str = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b";

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn pem(what: &str, der: &[u8]) -> String {
        format!("-----BEGIN {what}-----\n{}\n-----END {what}-----\n", STANDARD.encode(der))
    }

    #[test]
    fn signatures_are_those_of_the_standard() {
        // RFC 8410 §7: what precedes the seed in a PrivateKeyInfo.
        let private = pem("PRIVATE KEY", &[bytes("302e020100300506032b657004220420"), bytes(SEED)].concat());
        let (key, signature) = (PublicKey::read(PUBLIC).unwrap(), Signature::of_file(&bytes(SIGNATURE)).unwrap());
        assert_eq!(sign(b"", private.as_bytes()).unwrap(), signature);
        assert!(key.verifies(b"", &signature));
        assert_eq!(PublicKey::read(&pem("PUBLIC KEY", &[&SPKI[..], &key.0].concat())).unwrap(), key);
        assert_eq!(PublicKey::read(&key.write()).unwrap(), key);
        assert_eq!(Signature::of_text(&signature.text()).unwrap(), signature);
    }

    #[test]
    fn another_module_key_or_signature_does_not_do() {
        let (key, signature) = (PublicKey::read(PUBLIC).unwrap(), Signature::of_file(&bytes(SIGNATURE)).unwrap());
        assert!(!key.verifies(b"\0asm", &signature));
        assert!(!PublicKey([7; 32]).verifies(b"", &signature));
        let mut other = bytes(SIGNATURE);
        other[0] ^= 1;
        assert!(!key.verifies(b"", &Signature::of_file(&other).unwrap()));
        assert_eq!(Signature::of_file(&other[1..]), None);
    }

    #[test]
    fn what_is_no_key_is_refused_with_a_reason() {
        for (text, why) in [
            ("acme", "it begins with neither `ed25519:` nor `-----BEGIN`"),
            ("ed25519:!", "it is not base64"),
            ("ed25519:AAAA", "it has 3 bytes, not 32"),
            ("-----BEGIN X-----", "its PEM is not that of a public key"),
        ] {
            assert_eq!(PublicKey::read(text), Err(why.to_owned()));
        }
        assert_eq!(sign(b"", b"acme"), Err("it is no private key in PEM (PKCS #8)".to_owned()));
    }
}
