//! RSA signatures (RFC 8017), checked in the module itself.
//!
//! Only what is public goes in (key, signature, text), so nothing here has to take the same time for all of it. Numbers are in limbs of
//! 27 bits: a module multiplies 64 bits by 64 and gets the lower 64, and so narrow are limbs that whole columns of products are summed
//! without a carry. Multiplication is Montgomery's, column by column; with the usual exponent of 65537 there are 18 of them.
//!
//! **Invariant**: a number has as many limbs as the modulus, each below 2^27, and is less than twice the modulus.

mod padding;

use std::cmp::Ordering;

use crate::signature::Hash;
pub(crate) use padding::Padding;

/// Of a limb. Of 4096 bits a column is the sum of 304 products of 54 bits and a carry, which fits into 63.
const BITS: u32 = 27;
const MASK: u64 = (1 << BITS) - 1;

/// How long a modulus is, in bits: RFC 7518 §3.3 sets the floor, and the ceiling bounds what a signature costs.
const LENGTH: std::ops::RangeInclusive<usize> = 2048..=4096;

/// The least limb first.
type Number = Vec<u64>;

/// A public key.
#[derive(Debug)]
pub(crate) struct PublicKey {
    modulus: Modulus,
    exponent: u32,
    /// The modulus's length.
    bits: usize,
}

impl PublicKey {
    /// A key of these two numbers, the most significant byte first.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn new(n: &[u8], e: &[u8]) -> Result<Self, String> {
        let wrong = || "an RSA key has 2048 to 4096 bits and a small, odd exponent".to_owned();
        let (n, e) = (without_zeroes(n), without_zeroes(e));
        // RFC 8017 §3.1: the exponent is odd and at least 3. With 1, whatever looks like a signature is one.
        let exponent = (e.len() <= 4).then(|| e.iter().fold(0, |number, digit| number << 8 | u32::from(*digit)));
        let exponent = exponent.filter(|exponent| *exponent >= 3 && exponent % 2 == 1).ok_or_else(wrong)?;
        let unused = n.first().map_or(0, |first| usize::try_from(first.leading_zeros()).unwrap_or_default());
        let bits = 8 * n.len() - unused;
        if !LENGTH.contains(&bits) || n.last().is_none_or(|last| last % 2 == 0) {
            return Err(wrong());
        }
        Ok(Self { modulus: Modulus::new(n), exponent, bits })
    }

    /// Whether this key made the signature.
    pub(crate) fn verifies(&self, padding: Padding, hash: Hash, message: &[u8], signature: &[u8]) -> bool {
        let digest = hash.of(&[message]);
        self.opened(signature).is_some_and(|encoded| match padding {
            Padding::Pkcs1 => padding::is_pkcs1(&encoded, hash, &digest),
            Padding::Pss => padding::is_pss(&encoded, self.bits - 1, hash, &digest),
        })
    }

    /// What was signed, as it was padded (RSAVP1); nothing where no key of this length made the signature.
    fn opened(&self, signature: &[u8]) -> Option<Vec<u8>> {
        let n = &self.modulus;
        if signature.len() != self.bits.div_ceil(8) {
            return None;
        }
        let signature = number(signature, n.n.len());
        if !is_less(&signature, &n.n) {
            return None;
        }
        let base = n.product(&signature, &n.r_squared);
        let mut power = base.clone();
        for bit in (1..self.exponent.ilog2()).rev() {
            power = n.square(&power);
            if self.exponent >> bit & 1 == 1 {
                power = n.product(&power, &base);
            }
        }
        // The last bit of the exponent is set. By the signature as it came, which undoes Montgomery's form.
        power = n.product(&n.square(&power), &signature);
        Some(bytes(&n.least(power), self.bits.div_ceil(8)))
    }
}

/// What numbers are calculated by. With r = 2^(27 × limbs), at least 4n, a product of two numbers below 2n is ab/r mod n, below 2n.
#[derive(Debug)]
struct Modulus {
    n: Number,
    /// -1/n mod 2^27.
    negative_inverse: u64,
    /// r² mod n: what brings a number into Montgomery's form.
    r_squared: Number,
}

impl Modulus {
    /// Of an odd number without zeroes in front.
    fn new(n: &[u8]) -> Self {
        let limbs = (8 * n.len() + 2).div_ceil(27);
        let n = number(n, limbs);
        // Newton's method: an odd number is its own inverse mod 8, and each step doubles how many bits are right.
        let lowest = n.first().copied().unwrap_or_default();
        let inverse =
            (0..4).fold(lowest, |inverse, _| inverse.wrapping_mul(2_u64.wrapping_sub(lowest.wrapping_mul(inverse))));
        let mut modulus = Self { n, negative_inverse: inverse.wrapping_neg() & MASK, r_squared: Number::new() };
        modulus.r_squared = modulus.r_squared();
        modulus
    }

    /// From 1, doubled until it is r mod n, which is 1 in Montgomery's form; then 2 to the power of all bits of r, in that form.
    fn r_squared(&self) -> Number {
        let bits = self.n.len() * 27;
        let mut one = number(&[1], self.n.len());
        for _ in 0..bits {
            one = self.doubled(&one);
        }
        let mut power = self.doubled(&one);
        for bit in (0..bits.ilog2()).rev() {
            power = self.least(self.square(&power));
            if bits >> bit & 1 == 1 {
                power = self.doubled(&power);
            }
        }
        power
    }

    /// Twice a number that is less than n.
    fn doubled(&self, a: &[u64]) -> Number {
        let mut carry = 0;
        let twice = a.iter().map(|limb| {
            let sum = 2 * limb + carry;
            carry = sum >> BITS;
            sum & MASK
        });
        self.least(twice.collect())
    }

    /// The number below n that is the same mod n.
    fn least(&self, a: Number) -> Number {
        if is_less(&a, &self.n) {
            return a;
        }
        let mut borrow = 0;
        let difference = a.iter().zip(&self.n).map(|(a, n)| {
            let difference = a.wrapping_sub(*n).wrapping_sub(borrow);
            borrow = difference >> 63;
            difference & MASK
        });
        difference.collect()
    }

    fn product(&self, a: &[u64], b: &[u64]) -> Number {
        self.reduced(|from, to| column(part(a, from, to), part(b, from, to)))
    }

    fn square(&self, a: &[u64]) -> Number {
        self.reduced(|from, to| square_column(part(a, from, to)))
    }

    /// A product divided by r, mod n, with its columns as `product` has them: those of the limbs of these places of both factors.
    fn reduced(&self, product: impl Fn(usize, usize) -> u64) -> Number {
        let limbs = self.n.len();
        let lowest = self.n.first().copied().unwrap_or_default();
        // So many times n makes the lower half of the product zero.
        let mut times = vec![0; limbs];
        let mut upper = Number::with_capacity(limbs);
        let mut sum = 0;
        for place in 0..2 * limbs - 1 {
            let (from, to) = (place.saturating_sub(limbs - 1), (place + 1).min(limbs));
            sum += product(from, to) + column(part(&times, from, to), part(&self.n, from, to));
            match times.get_mut(place) {
                Some(own) => {
                    *own = sum.wrapping_mul(self.negative_inverse) & MASK;
                    sum += *own * lowest;
                }
                None => upper.push(sum & MASK),
            }
            sum >>= BITS;
        }
        upper.push(sum);
        upper
    }
}

fn part(number: &[u64], from: usize, to: usize) -> &[u64] {
    number.get(from..to).unwrap_or_default()
}

/// What the products of limbs add to one column: the first of one number's by the last of the other's, and so on. Four at a time, since
/// a loop in a module asks with every turn whether its time is up.
fn column(a: &[u64], b: &[u64]) -> u64 {
    let ((a_fours, a_rest), (b_rest, b_fours)) = (a.as_chunks::<4>(), b.as_rchunks::<4>());
    let fours = a_fours.iter().zip(b_fours.iter().rev());
    let fours: u64 = fours.map(|([a, b, c, d], [e, f, g, h])| a * h + b * g + c * f + d * e).sum();
    let rest: u64 = a_rest.iter().zip(b_rest.iter().rev()).map(|(a, b)| a * b).sum();
    fours + rest
}

/// [`column`] of a number by itself, of which half the products come twice.
fn square_column(a: &[u64]) -> u64 {
    let half = a.len() / 2;
    let middle = a.get(half).filter(|_| a.len() % 2 == 1).map_or(0, |middle| middle * middle);
    2 * column(part(a, 0, half), part(a, a.len() - half, a.len())) + middle
}

fn is_less(a: &[u64], b: &[u64]) -> bool {
    a.iter().rev().cmp(b.iter().rev()) == Ordering::Less
}

fn without_zeroes(bytes: &[u8]) -> &[u8] {
    let zeroes = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeroes..).unwrap_or_default()
}

/// The number that these bytes are, the most significant first.
fn number(bytes: &[u8], limbs: usize) -> Number {
    let (mut number, mut held, mut bits) = (Number::with_capacity(limbs), 0, 0);
    for byte in bytes.iter().rev() {
        held |= u64::from(*byte) << bits;
        bits += 8;
        if bits >= BITS {
            number.push(held & MASK);
            held >>= BITS;
            bits -= BITS;
        }
    }
    number.push(held);
    number.resize(limbs, 0);
    number
}

/// The last bytes of a number, the most significant first.
fn bytes(number: &[u64], length: usize) -> Vec<u8> {
    let (mut bytes, mut held, mut bits) = (Vec::with_capacity(length + 4), 0_u64, 0);
    for limb in number {
        held |= limb << bits;
        bits += BITS;
        while bits >= 8 {
            bytes.extend(held.to_le_bytes().first());
            held >>= 8;
            bits -= 8;
        }
    }
    bytes.truncate(length);
    bytes.reverse();
    bytes
}

#[cfg(test)]
mod tests;
