//! Fresh request ids: UUIDs of version 7, which sort by time.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

use http::HeaderValue;

use crate::clock::Clock;

thread_local! {
    static RANDOM: Cell<u64> = Cell::new(RandomState::new().hash_one(std::thread::current().id()) | 1);
}

/// An id made of the time in milliseconds and 74 bits of randomness. It names a request; it is not a secret.
pub(crate) fn fresh(clock: &Clock) -> HeaderValue {
    let millis = clock.now().as_nanos() / 1_000_000;
    let (a, b) = (next(), next());
    let high = (millis << 16) | 0x7000 | (a & 0x0fff);
    let low = (b & 0x3fff_ffff_ffff_ffff) | 0x8000_0000_0000_0000;
    let mut text = [b'-'; 36];
    let digits = (0..16).rev().map(|i| (high >> (i * 4)) & 15).chain((0..16).rev().map(|i| (low >> (i * 4)) & 15));
    let places = (0..36).filter(|place| ![8, 13, 18, 23].contains(place));
    for (place, digit) in places.zip(digits) {
        if let (Some(slot), Some(hex)) = (text.get_mut(place), b"0123456789abcdef".get(digit as usize & 15)) {
            *slot = *hex;
        }
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

/// xorshift64*, seeded from the system for each thread.
fn next() -> u64 {
    RANDOM.with(|state| {
        let mut x = state.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        state.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_of_version_seven_and_differ() {
        let clock = Clock::start();
        let ids: std::collections::HashSet<_> =
            (0..1000).map(|_| fresh(&clock).to_str().unwrap().to_owned()).collect();
        assert_eq!(ids.len(), 1000);
        for id in ids {
            let groups: Vec<_> = id.split('-').map(str::len).collect();
            assert_eq!(groups, [8, 4, 4, 4, 12]);
            assert_eq!(id.as_bytes()[14], b'7');
            assert!(b"89ab".contains(&id.as_bytes()[19]));
        }
    }
}
