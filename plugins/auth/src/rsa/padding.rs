//! What is signed: a text's hash, padded to the length of the modulus (RFC 8017 §9).

use crate::signature::Hash;

/// How a hash is padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Padding {
    /// EMSA-PKCS1-v1_5, of RS256, RS384 and RS512.
    Pkcs1,
    /// EMSA-PSS, of PS256, PS384 and PS512.
    Pss,
}

/// RFC 8017 §9.2: there is one padded form of a hash, and this has to be it.
pub(super) fn is_pkcs1(encoded: &[u8], hash: Hash, digest: &[u8]) -> bool {
    // What stands before the hash in a DigestInfo: SEQUENCE { SEQUENCE { OBJECT IDENTIFIER, NULL }, OCTET STRING }.
    let (last, length) = match hash {
        Hash::Sha256 => (1, 32),
        Hash::Sha384 => (2, 48),
        Hash::Sha512 => (3, 64),
    };
    let info = [0x30, 17 + length, 0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, last, 5, 0, 4, length];
    let filling = encoded.len().saturating_sub(3 + info.len() + digest.len());
    encoded == [&[0, 1], vec![0xff; filling].as_slice(), &[0], &info, digest].concat()
}

/// RFC 8017 §9.1.2, with MGF1 of the same hash, and salt as long as the hash (RFC 7518 §3.5).
pub(super) fn is_pss(encoded: &[u8], bits: usize, hash: Hash, digest: &[u8]) -> bool {
    seed(encoded, bits, hash).is_some_and(|(seed, salt)| hash.of(&[&[0; 8], digest, &salt]) == seed)
}

/// The hash in it, and the salt that this hash is of; nothing where it is not so padded.
fn seed(encoded: &[u8], bits: usize, hash: Hash) -> Option<(&[u8], Vec<u8>)> {
    // Where the bits fill whole bytes, there is one less than of the modulus.
    let (spare, encoded) = encoded.split_at_checked(encoded.len().checked_sub(bits.div_ceil(8))?)?;
    let (0xbc, encoded) = encoded.split_last()? else { return None };
    let (masked, seed) = encoded.split_at_checked(encoded.len().checked_sub(hash.bytes())?)?;
    let unused = 8 * bits.div_ceil(8) - bits;
    let first = masked.first()?;
    if spare.iter().any(|byte| *byte != 0) || first.leading_zeros() < u32::try_from(unused).ok()? {
        return None;
    }
    let mut block: Vec<u8> =
        masked.iter().zip(mask(seed, masked.len(), hash)).map(|(byte, mask)| byte ^ mask).collect();
    *block.first_mut()? &= 0xff >> unused;
    let (filling, salt) = block.split_at_checked(block.len().checked_sub(hash.bytes())?)?;
    let (1, zeroes) = filling.split_last()? else { return None };
    zeroes.iter().all(|byte| *byte == 0).then(|| (seed, salt.to_vec()))
}

/// MGF1 (RFC 8017 §B.2.1).
fn mask(seed: &[u8], length: usize, hash: Hash) -> impl Iterator<Item = u8> {
    (0_u32..).flat_map(move |count| hash.of(&[seed, &count.to_be_bytes()])).take(length)
}

#[cfg(test)]
mod tests;
