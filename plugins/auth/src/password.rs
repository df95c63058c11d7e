//! Hashed passwords: PBKDF2 with HMAC-SHA-256 (RFC 8018 §5.2).
//!
//! A callback of a guest has 10 ms by default, which bounds the iterations far below what is advised for passwords that people
//! choose (OWASP: 600,000). So these are for generated ones; people sign in with an identity provider.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// RFC 8018 §4.2 sets the floor; the ceiling keeps a check within the time of a callback.
const ITERATIONS: std::ops::RangeInclusive<u32> = 1_000..=2_000;

/// A password's hash.
#[derive(Debug)]
pub(crate) struct Password {
    iterations: u32,
    salt: Vec<u8>,
    hash: [u8; 32],
}

impl Password {
    /// Reads `pbkdf2-sha256$ITERATIONS$SALT$HASH`.
    ///
    /// # Errors
    /// What an operator has to change.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "`password` is not pbkdf2-sha256$ITERATIONS$SALT$HASH with salt and hash in base64".to_owned();
        let rest = text.strip_prefix("pbkdf2-sha256$").ok_or_else(wrong)?;
        let (iterations, rest) = rest.split_once('$').ok_or_else(wrong)?;
        let (salt, hash) = rest.split_once('$').ok_or_else(wrong)?;
        let iterations = iterations.parse().map_err(|_| wrong())?;
        let salt = STANDARD.decode(salt).map_err(|_| wrong())?;
        let hash: Vec<u8> = STANDARD.decode(hash).map_err(|_| wrong())?;
        let hash = hash.try_into().map_err(|_| "the hash in `password` has 32 bytes".to_owned())?;
        if !ITERATIONS.contains(&iterations) || salt.len() < 8 {
            return Err("`password` has 1000 to 2000 iterations and at least 8 bytes of salt".to_owned());
        }
        Ok(Self { iterations, salt, hash })
    }

    /// Whether this is the password.
    pub(crate) fn is(&self, password: &[u8]) -> bool {
        derived(password, &self.salt, self.iterations).is_some_and(|own| own.ct_eq(&self.hash).into())
    }
}

/// The first block, which is all of 32 bytes; nothing never, since a key of HMAC may have any length.
fn derived(password: &[u8], salt: &[u8], iterations: u32) -> Option<[u8; 32]> {
    let keyed = Hmac::<Sha256>::new_from_slice(password).ok()?;
    let mut round: [u8; 32] =
        keyed.clone().chain_update(salt).chain_update([0, 0, 0, 1]).finalize().into_bytes().into();
    let mut sum = round;
    for _ in 1..iterations {
        round = keyed.clone().chain_update(round).finalize().into_bytes().into();
        sum.iter_mut().zip(round).for_each(|(sum, byte)| *sum ^= byte);
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_rfc_7914() {
        // RFC 7914 §11, the first 32 of 64 bytes.
        let hex = |bytes: [u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let passwd = derived(b"passwd", b"salt", 1).unwrap();
        assert_eq!(hex(passwd), "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc");
        let nacl = derived(b"Password", b"NaCl", 80_000).unwrap();
        assert_eq!(hex(nacl), "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56");
    }

    #[test]
    fn what_is_no_hash_says_so() {
        let hash = STANDARD.encode([7; 32]);
        for (text, want) in [
            (format!("pbkdf2-sha256$1000$c2FsdHNhbHQ=${hash}"), ""),
            ("secret".to_owned(), "`password` is not"),
            (format!("pbkdf2-sha256$many$c2FsdHNhbHQ=${hash}"), "`password` is not"),
            (format!("pbkdf2-sha256$999$c2FsdHNhbHQ=${hash}"), "`password` has 1000 to 2000"),
            (format!("pbkdf2-sha256$2001$c2FsdHNhbHQ=${hash}"), "`password` has 1000 to 2000"),
            (format!("pbkdf2-sha256$1000$c2FsdA==${hash}"), "`password` has 1000 to 2000"),
            ("pbkdf2-sha256$1000$c2FsdHNhbHQ=$c2FsdA==".to_owned(), "the hash in `password` has 32 bytes"),
        ] {
            let why = Password::parse(&text).err().unwrap_or_default();
            assert!(why.starts_with(want) && why.is_empty() == want.is_empty(), "{text}: {why}");
        }
    }
}
