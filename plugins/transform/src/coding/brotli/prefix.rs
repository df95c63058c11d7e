//! Prefix codes: how often symbols come decides how many bits each takes (RFC 7932 §3).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Bits, from the lowest of each byte on.
#[derive(Debug, Default)]
pub(super) struct Bits {
    out: Vec<u8>,
    /// Fewer than eight are not yet out.
    pending: u64,
    count: usize,
}

impl Bits {
    /// A number below 2^`size`; sizes are up to 32.
    pub(super) fn put(&mut self, number: usize, size: usize) {
        self.pending |= (number as u64) << self.count;
        self.count += size;
        while self.count >= 8 {
            let [lowest, ..] = self.pending.to_le_bytes();
            self.out.push(lowest);
            self.pending >>= 8;
            self.count -= 8;
        }
    }

    /// All of them; the last byte is filled up with zeros.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.count > 0 {
            self.put(0, 8 - self.count);
        }
        self.out
    }
}

/// For each symbol its bits, and how many these are.
#[derive(Debug)]
pub(super) struct Code(Vec<(usize, usize)>);

/// The longest code of a symbol, and of a length of one.
const LONGEST: usize = 15;
const LONGEST_OF_LENGTHS: usize = 5;
/// The order in which the lengths of lengths' codes are told (RFC 7932 §3.5).
const ORDER: [usize; 18] = [1, 2, 3, 4, 0, 5, 17, 6, 16, 7, 8, 9, 10, 11, 12, 13, 14, 15];
/// And the fixed code in which they are.
const FIXED: [(usize, usize); 6] = [(0, 2), (7, 4), (3, 3), (2, 2), (1, 2), (15, 4)];
/// Says the last length again, three to six times; or zero, three to ten times.
const AGAIN: (usize, usize) = (16, 2);
const ZEROS: (usize, usize) = (17, 3);

impl Code {
    /// The code for symbols that come so often, which is told first.
    pub(super) fn written(bits: &mut Bits, counts: &[usize]) -> Self {
        let mut used = counts.iter().enumerate().filter(|(_, count)| **count > 0).map(|(symbol, _)| symbol);
        let (first, second) = (used.next().unwrap_or_default(), used.next());
        if second.is_none() {
            // A simple code of one symbol, which takes no bits then.
            bits.put(0b0001, 4);
            bits.put(first, (counts.len() - 1).ilog2() as usize + 1);
            return Self(vec![(0, 0); counts.len()]);
        }
        let lengths = lengths(counts, LONGEST);
        tell(bits, &lengths);
        Self::of(&lengths)
    }

    /// The code of these lengths: of two symbols the earlier, of two lengths the shorter has the lower bits.
    fn of(lengths: &[usize]) -> Self {
        let mut counts: [u32; LONGEST + 1] = [0; LONGEST + 1];
        for length in lengths.iter().filter(|length| **length > 0) {
            counts.get_mut(*length).into_iter().for_each(|count| *count += 1);
        }
        // Where those of each length begin: behind those that are shorter.
        let mut begins = 0;
        let mut next = counts.map(|count| {
            let first = begins;
            begins = (begins + count) << 1;
            first
        });
        let code = |length: &usize| {
            let next = next.get_mut(*length).filter(|_| *length > 0)?;
            *next += 1;
            // Codes are told from their highest bit on.
            Some(((*next - 1).reverse_bits() as usize >> (32 - length), *length))
        };
        Self(lengths.iter().map(code).map(Option::unwrap_or_default).collect())
    }

    pub(super) fn put(&self, bits: &mut Bits, symbol: usize) {
        let (code, length) = self.0.get(symbol).copied().unwrap_or_default();
        bits.put(code, length);
    }
}

/// How long codes are (Huffman), where none may be longer than `longest`; 0 where a symbol does not come.
fn lengths(counts: &[usize], longest: usize) -> Vec<usize> {
    let mut least = 1;
    loop {
        let lengths = unbounded(counts, least);
        if lengths.iter().all(|length| *length <= longest) {
            return lengths;
        }
        // What is rare is held to come more often, which makes the tree flatter.
        least *= 2;
    }
}

fn unbounded(counts: &[usize], least: usize) -> Vec<usize> {
    let used = counts.iter().enumerate().filter(|(_, count)| **count > 0);
    let used: Vec<(usize, usize)> = used.map(|(symbol, count)| (symbol, (*count).max(least))).collect();
    let mut parents = vec![0; used.len()];
    let mut roots: BinaryHeap<_> = used.iter().enumerate().map(|(node, (_, count))| Reverse((*count, node))).collect();
    while let (Some(Reverse((one, first))), Some(Reverse((other, second)))) = (roots.pop(), roots.pop()) {
        let node = parents.len();
        for child in [first, second] {
            parents.get_mut(child).into_iter().for_each(|parent| *parent = node);
        }
        parents.push(node);
        roots.push(Reverse((one + other, node)));
    }
    // The last one is the root.
    let mut depths: Vec<usize> = vec![0; parents.len()];
    for (node, parent) in parents.iter().enumerate().rev().skip(1) {
        let depth = depths.get(*parent).map_or(0, |depth| depth + 1);
        depths.get_mut(node).into_iter().for_each(|own| *own = depth);
    }
    let mut lengths = vec![0; counts.len()];
    for ((symbol, _), depth) in used.iter().zip(depths) {
        lengths.get_mut(*symbol).into_iter().for_each(|length| *length = depth.max(1));
    }
    lengths
}

/// Tells the lengths of a code, in a code of their own.
fn tell(bits: &mut Bits, told: &[usize]) {
    let end = told.iter().rposition(|length| *length > 0).map_or(0, |last| last + 1);
    let runs = told.get(..end).unwrap_or_default().chunk_by(|one, other| one == other);
    let symbols: Vec<(usize, usize, usize)> = runs.flat_map(run).collect();
    let mut counts = [0; ORDER.len()];
    for (symbol, _, _) in &symbols {
        counts.get_mut(*symbol).into_iter().for_each(|count| *count += 1);
    }
    let lengths = lengths(&counts, LONGEST_OF_LENGTHS);
    let is_alone = lengths.iter().filter(|length| **length > 0).count() == 1;
    let ordered = ORDER.map(|symbol| lengths.get(symbol).copied().unwrap_or_default());
    let end = ordered.iter().rposition(|length| *length > 0 || is_alone).map_or(0, |last| last + 1);
    // None is left out at the beginning.
    bits.put(0, 2);
    for length in ordered.iter().take(end) {
        let (code, size) = FIXED.get(*length).copied().unwrap_or_default();
        bits.put(code, size);
    }
    // One that is alone takes no bits.
    let code = if is_alone { Code(vec![(0, 0); lengths.len()]) } else { Code::of(&lengths) };
    for (symbol, number, size) in symbols {
        code.put(bits, symbol);
        bits.put(number, size);
    }
}

/// The symbols for a length that comes several times in a row, each with what follows it: a number in so many bits.
fn run(run: &[usize]) -> Vec<(usize, usize, usize)> {
    let length = run.first().copied().unwrap_or_default();
    let ((symbol, size), first) = if length == 0 { (ZEROS, 0) } else { (AGAIN, 1) };
    let again = run.len() - first;
    if again < 3 {
        return vec![(length, 0, 0); run.len()];
    }
    // Each further one multiplies what those before have said.
    let (mut digits, mut rest) = (Vec::new(), again - 3);
    loop {
        digits.push((symbol, rest & ((1 << size) - 1), size));
        rest >>= size;
        if rest == 0 {
            break;
        }
        rest -= 1;
    }
    digits.extend(vec![(length, 0, 0); first]);
    digits.reverse();
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_often_is_short_and_nothing_is_too_long() {
        assert_eq!(lengths(&[8, 4, 0, 2, 2], 15), [1, 2, 0, 3, 3]);
        assert_eq!(lengths(&[0, 5], 15), [0, 1]);
        // As Fibonacci's numbers, which would make the deepest tree.
        let mut counts = vec![1, 1];
        for place in 2..30 {
            counts.push(counts[place - 1] + counts[place - 2]);
        }
        for longest in [5, 15] {
            let lengths = lengths(&counts, longest);
            assert!(lengths.iter().all(|length| (1..=longest).contains(length)));
            let room: usize = lengths.iter().map(|length| 1 << (longest - length)).sum();
            assert_eq!(room, 1 << longest, "no code is left over");
        }
    }

    #[test]
    fn a_run_says_its_length_once() {
        assert_eq!(run(&[0; 2]), [(0, 0, 0); 2]);
        assert_eq!(run(&[0; 3]), [(17, 0, 3)]);
        assert_eq!(run(&[7; 3]), [(7, 0, 0); 3]);
        assert_eq!(run(&[7; 7]), [(7, 0, 0), (16, 3, 2)]);
        // 8 × (3 − 2) + 3 = 11, and so on.
        assert_eq!(run(&[0; 11]), [(17, 0, 3), (17, 0, 3)]);
        assert_eq!(run(&[0; 74]), [(17, 7, 3), (17, 7, 3)]);
    }
}
