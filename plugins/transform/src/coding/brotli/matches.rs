//! What of a body is there twice: which bytes have to be told, and which can be copied from before.

/// Some bytes as they are, then some from before.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) inserted: usize,
    /// None at the end of a piece.
    pub(super) copied: usize,
    /// How far back they are.
    pub(super) distance: usize,
    /// Whether that is as far as the last time.
    pub(super) repeats: bool,
}

/// Finds them, piece by piece.
pub(super) struct Matcher<'a> {
    body: &'a [u8],
    /// Nothing further back can be copied.
    window: usize,
    /// By four bytes, the place behind which they were last; 0 where they were nowhere.
    places: Vec<u32>,
    /// The last distance. The format begins with this one.
    last: usize,
}

/// The least that is worth copying, and so much makes a place in the table.
const LEAST: usize = 4;
const TABLE_BITS: u32 = 15;
/// After so many bytes without a match one more is left out at each step.
const PATIENCE: usize = 256;

impl<'a> Matcher<'a> {
    pub(super) fn new(body: &'a [u8], window: usize) -> Self {
        // A small body needs no large table, which would have to be cleared.
        let bits = (usize::BITS - body.len().leading_zeros()).clamp(10, TABLE_BITS);
        Self { body, window, places: vec![0; 1 << bits], last: 4 }
    }

    /// Those of one piece. Pieces come in order.
    pub(super) fn commands(&mut self, from: usize, to: usize) -> Vec<Command> {
        let mut commands = Vec::new();
        let (mut at, mut told) = (from, from);
        while at + LEAST <= to {
            let before = self.exchange(at);
            let Some((copied, distance)) = self.longest(at, to, before) else {
                at += 1 + (at - told) / PATIENCE;
                continue;
            };
            commands.push(Command { inserted: at - told, copied, distance, repeats: distance == self.last });
            self.last = distance;
            for place in at + 1..at + copied {
                self.exchange(place);
            }
            at += copied;
            told = at;
        }
        if told < to {
            commands.push(Command { inserted: to - told, copied: 0, distance: 0, repeats: false });
        }
        commands
    }

    /// The longest of what the last distance and the table lead to.
    fn longest(&self, at: usize, to: usize, before: Option<usize>) -> Option<(usize, usize)> {
        let here = self.body.get(at..to)?;
        let candidates = [at.checked_sub(self.last), before].into_iter().flatten();
        let matches = candidates.filter(|place| at - place <= self.window).map(|place| {
            let there = self.body.get(place..).unwrap_or_default();
            (here.iter().zip(there).take_while(|(one, other)| one == other).count(), at - place)
        });
        // Of two as long the nearer, which takes fewer bits.
        matches.filter(|(length, _)| *length >= LEAST).max_by_key(|(length, distance)| (*length, usize::MAX - distance))
    }

    /// Where these four bytes were last; from now on, it is here.
    fn exchange(&mut self, at: usize) -> Option<usize> {
        let word = u32::from_le_bytes(*self.body.get(at..)?.first_chunk::<LEAST>()?);
        // Fibonacci hashing: the high bits of the product depend on all of the word.
        let hash = word.wrapping_mul(0x9E37_79B1) >> (u32::BITS - self.places.len().trailing_zeros());
        let place = self.places.get_mut(usize::try_from(hash).ok()?)?;
        let before = std::mem::replace(place, u32::try_from(at + 1).ok()?);
        usize::try_from(before).ok()?.checked_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_is_copied_from_where_it_was_last() {
        let command = |inserted, copied, distance, repeats| Command { inserted, copied, distance, repeats };
        for (body, want) in [
            ("abc", vec![command(3, 0, 0, false)]),
            ("abcdeabcde", vec![command(5, 5, 5, false)]),
            ("aaaaaaaaa", vec![command(1, 8, 1, false)]),
            ("abcd.abcd.abcd", vec![command(5, 9, 5, false)]),
            ("abcdefghXabcdYfghXabcd", vec![command(9, 4, 9, false), command(1, 8, 9, true)]),
        ] {
            assert_eq!(Matcher::new(body.as_bytes(), 100).commands(0, body.len()), want, "{body}");
        }
        let far = "abcde".to_owned() + &"-".repeat(100) + "abcde";
        let last = |window| Matcher::new(far.as_bytes(), window).commands(0, far.len()).pop().unwrap();
        assert_eq!([last(105), last(104)], [command(0, 5, 105, false), command(5, 0, 0, false)]);
        let mut in_pieces = Matcher::new(b"abcdeabcde", 100);
        assert_eq!(in_pieces.commands(0, 5), [command(5, 0, 0, false)]);
        assert_eq!(in_pieces.commands(5, 10), [command(0, 5, 5, false)]);
    }
}
