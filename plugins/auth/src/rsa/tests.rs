use rsa::BigUint;

use super::*;

/// Numbers that nobody chose: SplitMix64.
fn random_bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    });
    words.flat_map(u64::to_le_bytes).take(length).collect()
}

/// A modulus of so many bits. Nothing about the calculation asks for one of two primes.
fn modulus(seed: u64, bits: usize, fill: u8) -> Vec<u8> {
    let mut n = random_bytes(seed, bits.div_ceil(8));
    n.iter_mut().for_each(|byte| *byte |= fill);
    n[0] &= 0xff >> (8 * n.len() - bits);
    n[0] |= 0x80 >> (8 * n.len() - bits);
    *n.last_mut().unwrap() |= 1;
    n
}

#[test]
fn powers_are_those_of_a_library_for_large_numbers() {
    let of = |bytes: &[u8]| BigUint::from_bytes_be(bytes);
    for (at, bits) in [2048, 2049, 2055, 2160, 3071, 3072, 4095, 4096].into_iter().enumerate() {
        // With every bit set, columns are as full as they get.
        for (fill, exponent) in [(0, [3, 0, 0, 0]), (0, [1, 0, 1, 0]), (0xff, [0xff; 4]), (0xff, [1, 0, 1, 0])] {
            let n = modulus(at as u64, bits, fill);
            let exponent: Vec<u8> = exponent.into_iter().rev().collect();
            let key = PublicKey::new(&n, &exponent).unwrap();
            let less = (of(&n) - 1_u32).to_bytes_be();
            let mut random = random_bytes(99, n.len());
            random[0] = 0;
            for signature in [vec![0; n.len()], [vec![0; n.len() - 1], vec![1]].concat(), less, random] {
                let want = of(&signature).modpow(&of(&exponent), &of(&n));
                let opened = key.opened(&signature).unwrap();
                assert_eq!((opened.len(), of(&opened)), (n.len(), want), "{bits} {exponent:?} {signature:?}");
            }
            assert_eq!(key.opened(&n), None, "a signature is less than the modulus");
            assert_eq!(key.opened(&vec![0; n.len() - 1]), None, "and as long");
        }
    }
}

#[test]
fn keys_are_of_a_length_and_an_exponent_that_are_safe() {
    let long = |bits| modulus(7, bits, 0);
    let mut even = long(2048);
    *even.last_mut().unwrap() ^= 1;
    for (n, e, want) in [
        (long(2048), &[1, 0, 1][..], true),
        ([vec![0; 3], long(2048)].concat(), &[0, 0, 0, 0, 3], true),
        (long(4096), &[0xff; 4], true),
        (long(2047), &[1, 0, 1], false),
        (long(4097), &[1, 0, 1], false),
        (even, &[1, 0, 1], false),
        (vec![], &[1, 0, 1], false),
        (long(2048), &[1], false),
        (long(2048), &[2], false),
        (long(2048), &[], false),
        (long(2048), &[1, 0, 0, 0, 1], false),
    ] {
        assert_eq!(PublicKey::new(&n, e).is_ok(), want, "{} bytes, {e:?}", n.len());
    }
}
