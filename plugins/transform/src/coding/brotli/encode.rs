//! Writes Brotli: repetitions are found and put into prefix codes of their own for each piece of the body.
//!
//! No contexts, no block types, no words of the dictionary: what those gain is for bodies that are encoded once and sent often.

use super::matches::{Command, Matcher};
use super::prefix::{Bits, Code};

/// So much of a body is in one meta-block, with codes that fit it.
const PIECE_BYTES: usize = 256 * 1024;
/// A window is as large as the body, within these.
const WINDOW_BITS: std::ops::RangeInclusive<usize> = 18..=22;

/// RFC 7932 §9.2: symbols of a literal, of a command, and of a distance where none has a code of its own.
const LITERALS: usize = 256;
const COMMANDS: usize = 704;
const DISTANCES: usize = 64;

/// How much a length code begins with, and by how many bits what is beyond follows (RFC 7932 §5).
type Ranges = [(usize, usize); 24];

const INSERTED: Ranges = ranges(0, [0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 7, 8, 9, 10, 12, 14, 24]);
const COPIED: Ranges = ranges(2, [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 7, 8, 9, 10, 24]);

const fn ranges(first: usize, bits: [usize; 24]) -> Ranges {
    let mut ranges = [(0, 0); 24];
    let (mut rest, mut bits, mut from): (&mut [_], &[_], _) = (&mut ranges, &bits, first);
    while let (Some((range, others)), Some((size, sizes))) = (rest.split_first_mut(), bits.split_first()) {
        *range = (from, *size);
        from += 1 << *size;
        (rest, bits) = (others, sizes);
    }
    ranges
}

/// Where the symbols for eight codes of each length begin, in units of 64: by what is inserted, then by what is copied.
const CELLS: [[usize; 3]; 3] = [[2, 3, 6], [4, 5, 8], [7, 9, 10]];

/// A symbol, and what follows it: a number in so many bits.
type Symbol = (usize, (usize, usize));

/// The body, encoded.
pub(in crate::coding) fn encoded(body: &[u8]) -> Vec<u8> {
    let mut bits = Bits::default();
    let window_bits = WINDOW_BITS.into_iter().find(|bits| body.len() <= (1 << bits) - 16).unwrap_or(*WINDOW_BITS.end());
    bits.put(1 | (window_bits - 17) << 1, 4);
    let mut matcher = Matcher::new(body, (1 << window_bits) - 16);
    let mut from = 0;
    for piece in body.chunks(PIECE_BYTES) {
        meta_block(&mut bits, piece, &matcher.commands(from, from + piece.len()));
        from += piece.len();
    }
    // The last one, which is empty.
    bits.put(0b11, 2);
    bits.finish()
}

/// RFC 7932 §9.2 and §9.3.
fn meta_block(bits: &mut Bits, piece: &[u8], commands: &[Command]) {
    let nibbles = if piece.len() <= 1 << 16 { 4 } else { 5 };
    // It is not the last one. It is not there as it is; each kind of block is of one type; distances have no codes of their own, nor
    // postfixes; literals are of one context; there is one code for literals, and one for distances.
    bits.put(0, 1);
    bits.put(nibbles - 4, 2);
    bits.put(piece.len() - 1, nibbles * 4);
    bits.put(0, 1 + 3 + 6 + 2 + 2);
    let (mut literals, mut symbols, mut distances) = ([0; LITERALS], [0; COMMANDS], [0; DISTANCES]);
    let count = |counts: &mut [usize], symbol: usize| counts.get_mut(symbol).into_iter().for_each(|count| *count += 1);
    each(piece, commands, |inserted, command| {
        count(&mut symbols, symbol(command).0);
        inserted.iter().for_each(|literal| count(&mut literals, usize::from(*literal)));
        distance(command).into_iter().for_each(|(symbol, _)| count(&mut distances, symbol));
    });
    let [literals, symbols, distances] =
        [&literals[..], &symbols, &distances].map(|counts| Code::written(bits, counts));
    each(piece, commands, |inserted, command| {
        let (code, extra) = symbol(command);
        symbols.put(bits, code);
        extra.into_iter().for_each(|(number, size)| bits.put(number, size));
        inserted.iter().for_each(|literal| literals.put(bits, usize::from(*literal)));
        if let Some((code, (number, size))) = distance(command) {
            distances.put(bits, code);
            bits.put(number, size);
        }
    });
}

/// Each command, with what it inserts.
fn each(mut piece: &[u8], commands: &[Command], mut with: impl FnMut(&[u8], &Command)) {
    for command in commands {
        let (inserted, rest) = piece.split_at_checked(command.inserted).unwrap_or((piece, &[]));
        with(inserted, command);
        piece = rest.get(command.copied..).unwrap_or_default();
    }
}

/// The symbol of a command's lengths, and what follows it for each of them.
fn symbol(command: &Command) -> (usize, [(usize, usize); 2]) {
    let (inserted, first) = ranged(&INSERTED, command.inserted);
    // Nothing is copied after the end of a piece, but a length there has to be.
    let (copied, second) = ranged(&COPIED, command.copied.max(2));
    let cell = if is_implicit(command) {
        copied >> 3
    } else {
        CELLS.get(inserted >> 3).and_then(|row| row.get(copied >> 3)).copied().unwrap_or_default()
    };
    (cell << 6 | (inserted & 7) << 3 | copied & 7, [first, second])
}

/// Whether the symbol says too that the distance is the last one again.
fn is_implicit(command: &Command) -> bool {
    command.repeats && command.inserted < INSERTED[8].0 && command.copied < COPIED[16].0
}

fn ranged(ranges: &Ranges, length: usize) -> Symbol {
    let codes = ranges.iter().enumerate().rev();
    let found = codes.map(|(code, (from, bits))| (code, *from, *bits)).find(|(_, from, _)| *from <= length);
    found.map_or((0, (0, 0)), |(code, from, bits)| (code, (length - from, bits)))
}

/// The symbol of a command's distance, unless there is none to be told (RFC 7932 §4).
fn distance(command: &Command) -> Option<Symbol> {
    if command.copied == 0 || is_implicit(command) {
        return None;
    }
    if command.repeats {
        return Some((0, (0, 0)));
    }
    let beyond = command.distance + 3;
    let bits = beyond.ilog2() as usize - 1;
    let half = beyond >> bits & 1;
    Some((16 + 2 * (bits - 1) + half, (beyond - ((2 + half) << bits), bits)))
}

#[cfg(test)]
mod tests {
    use super::super::decoded;
    use super::*;
    use crate::coding::Coding;

    /// Numbers that look random, below 256.
    fn noise(seed: u64) -> impl Iterator<Item = u8> {
        let next =
            |state: &u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
        std::iter::successors(Some(seed), next).map(|state| state.to_be_bytes()[0])
    }

    /// Orders, as an API would answer with them.
    fn orders(count: usize) -> Vec<u8> {
        let order = |(at, noise): (usize, u8)| {
            format!(
                r#"{{"id":{},"customer":"c-{}","state":"{}","total":{}.{:02},"items":[{{"sku":"A-{}","count":{}}}]}}"#,
                10_000 + at,
                u32::from(noise) * 7919 % 1000,
                ["paid", "sent", "open"][usize::from(noise) % 3],
                noise,
                at % 100,
                u32::from(noise) * 104_729 % 10_000,
                1 + noise % 5
            )
        };
        let orders: Vec<String> = (0..count).zip(noise(1)).map(order).collect();
        format!("[{}]", orders.join(",")).into_bytes()
    }

    #[test]
    fn every_body_is_read_again() {
        let all: Vec<u8> = (0..=255).collect();
        let skewed: Vec<u8> = noise(2).map(|byte| u8::try_from(byte.leading_zeros()).unwrap()).take(5000).collect();
        for body in [
            Vec::new(),
            b"{".to_vec(),
            b"{}".to_vec(),
            br#"{"a":1}"#.to_vec(),
            vec![b' '; 3_000_000],
            all.repeat(3),
            all.repeat(3000),
            skewed,
            noise(3).take(PIECE_BYTES + 1).collect(),
            orders(10),
            orders(20_000),
            [noise(4).take(300_000).collect::<Vec<u8>>(), orders(3000), noise(4).take(300_000).collect()].concat(),
        ] {
            let written = encoded(&body);
            assert!(written.len() <= body.len() + body.len() / 500 + 16, "{} bytes of {}", written.len(), body.len());
            assert_eq!(decoded(&written, body.len()).map(|read| read == body), Ok(true), "{} bytes", body.len());
        }
        for seed in 5..=255_u8 {
            // Few letters, so that there is much to copy at every distance.
            let noise = noise(seed.into());
            let letters = noise.map(|byte| byte & (seed | 1)).take(usize::from(seed).pow(2) / 200);
            let body: Vec<u8> = letters.collect();
            assert_eq!(decoded(&encoded(&body), 1000), Ok(body), "{seed}");
        }
    }

    #[test]
    fn it_takes_no_more_room_than_gzip() {
        for count in [1, 10, 100, 1000] {
            let body = orders(count);
            let [gzip, own] = [Coding::Gzip, Coding::Brotli].map(|coding| coding.encoded(body.clone()).unwrap().len());
            assert!(own <= gzip, "{count} orders, {} bytes: {own} bytes, and {gzip} as gzip", body.len());
        }
    }
}
