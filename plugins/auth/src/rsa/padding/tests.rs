use super::*;

/// Padding that was taken apart wrongly is what forged signatures were made of (RFC 8017 §8.2.2, CVE-2006-4339).
#[test]
fn a_padding_is_right_in_every_bit() {
    for (encoded, is_right) in [
        (pkcs1(256), pkcs1_is_right as fn(&[u8]) -> bool),
        (pss(2047), pss_is_right),
        (pss(2048), |encoded| is_pss(encoded, 2048, Hash::Sha256, &digest())),
    ] {
        assert!(is_right(&encoded), "{encoded:?}");
        for (at, bit) in (0..encoded.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut other = encoded.clone();
            other[at] ^= 1 << bit;
            assert!(!is_right(&other), "byte {at}, bit {bit}");
        }
        for length in 0..encoded.len() {
            assert!(!is_right(&encoded[..length]), "{length}");
        }
    }
    // Less filling, and something behind the hash instead.
    let short = [pkcs1(256 - 9), vec![7; 9]].concat();
    assert!(!pkcs1_is_right(&short));
}

fn digest() -> Vec<u8> {
    Hash::Sha256.of(&[b"text"])
}

fn pkcs1_is_right(encoded: &[u8]) -> bool {
    is_pkcs1(encoded, Hash::Sha256, &digest())
}

fn pss_is_right(encoded: &[u8]) -> bool {
    is_pss(encoded, 2047, Hash::Sha256, &digest())
}

fn pkcs1(length: usize) -> Vec<u8> {
    let info =
        [&[0x30, 0x31, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 0x20], &*digest()].concat();
    [&[0, 1], vec![0xff; length - 3 - info.len()].as_slice(), &[0], &info].concat()
}

/// Of one bit less than a modulus of 256 or 257 bytes.
fn pss(bits: usize) -> Vec<u8> {
    let salt = [9; 32];
    let seed = Hash::Sha256.of(&[&[0; 8], &digest(), &salt]);
    let mut block = [vec![0; 256 - 1 - 32 - 1 - 32], vec![1], salt.to_vec()].concat();
    let length = block.len();
    block.iter_mut().zip(mask(&seed, length, Hash::Sha256)).for_each(|(byte, mask)| *byte ^= mask);
    block[0] &= 0xff >> (2048 - bits);
    [vec![0; bits / 8 - 255], block, seed, vec![0xbc]].concat()
}
