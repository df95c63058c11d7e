//! What left a filter, so that two versions can be compared: heads, bodies and trailers, each as one number.
//!
//! Fields may stand in another order, and a body may come in other pieces: that means nothing. Which fields say how long a message is
//! is left to the chain's end. The numbers are 64 bits wide: versions that differ are taken for equal once in ten billion billion.

use bytes::Bytes;
use http::{HeaderMap, header};

use crate::event::{Direction, Part};
use crate::headers::Headers;

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// What left a filter, in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen([Message; 2]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Message {
    head: Option<u64>,
    body: u64,
    bytes: u64,
    trailers: Option<u64>,
}

impl Default for Message {
    fn default() -> Self {
        Self { head: None, body: OFFSET, bytes: 0, trailers: None }
    }
}

impl Seen {
    fn message(&mut self, direction: Direction) -> &mut Message {
        let Self([request, response]) = self;
        match direction {
            Direction::Request => request,
            Direction::Response => response,
        }
    }

    pub(crate) fn head(&mut self, direction: Direction, head: &Headers) {
        let pseudo = head.iter().filter(|(name, _)| name.starts_with(b":"));
        let pseudo =
            pseudo.fold(0_u64, |sum, (name, value)| sum.wrapping_add(mixed(hashed(hashed(OFFSET, name), value))));
        self.message(direction).head = Some(pseudo.wrapping_add(of_fields(head.fields())));
    }

    pub(crate) fn body(&mut self, direction: Direction, data: &Bytes) {
        let message = self.message(direction);
        message.body = data.iter().fold(message.body, step);
        message.bytes += data.len() as u64;
    }

    pub(crate) fn trailers(&mut self, direction: Direction, fields: &HeaderMap) {
        self.message(direction).trailers = Some(of_fields(fields));
    }

    pub(crate) fn part(&mut self, direction: Direction, part: &Part) {
        match part {
            Part::Head(head, _) => self.head(direction, head),
            Part::Body(data, _) => self.body(direction, data),
            Part::Trailers(fields) => self.trailers(direction, fields),
        }
    }
}

fn of_fields(fields: &HeaderMap) -> u64 {
    let of_name = |name: &http::HeaderName| {
        fields
            .get_all(name)
            .iter()
            .fold(hashed(OFFSET, name.as_str().as_bytes()), |hash, value| hashed(hash, value.as_bytes()))
    };
    let names = fields.keys().filter(|name| **name != header::CONTENT_LENGTH && **name != header::TRANSFER_ENCODING);
    names.fold(0_u64, |sum, name| sum.wrapping_add(mixed(of_name(name))))
}

/// A text after others: its length keeps it apart from them.
fn hashed(hash: u64, text: &[u8]) -> u64 {
    text.iter().fold(mixed(hash ^ text.len() as u64), step)
}

fn step(hash: u64, byte: &u8) -> u64 {
    (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
}

/// The end of SplitMix64.
pub(super) fn mixed(hash: u64) -> u64 {
    let mixed = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn response(fields: &[(&'static str, &'static str)]) -> Headers {
        let fields = fields
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)));
        let mut map = HeaderMap::new();
        fields.for_each(|(name, value)| _ = map.append(name, value));
        Headers::response(StatusCode::OK, map)
    }

    fn of(fields: &[(&'static str, &'static str)], pieces: &[&'static str]) -> Seen {
        let mut seen = Seen::default();
        seen.head(Direction::Response, &response(fields));
        pieces.iter().for_each(|piece| seen.body(Direction::Response, &Bytes::from_static(piece.as_bytes())));
        seen
    }

    #[test]
    fn order_and_pieces_mean_nothing_and_everything_else_does() {
        let one = of(&[("a", "1"), ("b", "2"), ("a", "3")], &["hello", " you"]);
        assert_eq!(one, of(&[("b", "2"), ("a", "1"), ("a", "3"), ("content-length", "9")], &["hel", "lo you"]));
        for other in [
            of(&[("a", "3"), ("b", "2"), ("a", "1")], &["hello you"]),
            of(&[("a", "1"), ("b", "2")], &["hello you"]),
            of(&[("a", "1"), ("b", "2"), ("a", "3")], &["hello yo"]),
            of(&[("a", "12"), ("b", ""), ("a", "3")], &["hello you"]),
            Seen::default(),
        ] {
            assert_ne!(one, other);
        }
    }
}
