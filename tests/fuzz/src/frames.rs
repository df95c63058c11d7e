//! HTTP/2 frames are found, counted and judged the same however the bytes are cut.

use portcullis_core::frames::{Inspector, Splitter};
use portcullis_core::time::Time;

/// The first byte says how the others are cut.
pub fn frames(bytes: &[u8]) {
    let Some((size, bytes)) = bytes.split_first() else { return };
    let pieces = || bytes.chunks(usize::from(*size).max(1));
    assert_eq!(heads(pieces()), heads([bytes].into_iter()), "frames depend on how the bytes come");
    let (mut at_once, mut by_pieces) = (Inspector::new(Time::default()), Inspector::new(Time::default()));
    let once = at_once.received(bytes, Time::default());
    let pieced = pieces().try_for_each(|piece| by_pieces.received(piece, Time::default()));
    assert_eq!(once, pieced);
    assert_eq!(at_once.is_in_block(), by_pieces.is_in_block());
    at_once.sent(bytes);
    pieces().for_each(|piece| by_pieces.sent(piece));
    if let Err(flood) = once {
        assert_eq!(at_once.goodbye(flood), by_pieces.goodbye(flood));
    }
}

fn heads<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<(u8, u8, u32, u32)> {
    let mut splitter = Splitter::default();
    let mut seen = Vec::new();
    for mut piece in pieces {
        while let Some(head) = splitter.next(&mut piece) {
            seen.push((head.kind, head.flags, head.stream, head.length));
        }
    }
    seen
}
