//! HTTP/2 as frames on a socket, for requests that no library would send.

use portcullis_tests::gateway::Gateway;
use portcullis_tests::wire::Wire;

const HEADERS: u8 = 1;
const RESET: u8 = 3;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A connection whose frames are the test's.
pub(super) struct Frames(Wire);

/// What became of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A response with one of the statuses that HPACK has in its table, as most here are.
    Status(u16),
    /// The stream was reset, or the connection closed.
    Broken,
}

impl Frames {
    pub(super) fn connect(gateway: &Gateway) -> Self {
        let mut frames = Self(gateway.client().0);
        frames.0.write([&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat()).unwrap();
        frames
    }

    /// Asks with these fields, as they are, and this body, all in one write.
    pub(super) fn ask(&mut self, stream: u32, fields: &[(&str, &[u8])], body: &[u8]) -> Outcome {
        let block: Vec<u8> = fields.iter().flat_map(|(name, value)| literal(name.as_bytes(), value)).collect();
        let last = if body.is_empty() { END_STREAM } else { 0 };
        let mut frames = frame(HEADERS, END_HEADERS | last, stream, &block);
        if !body.is_empty() {
            frames.extend(frame(0, END_STREAM, stream, body));
        }
        // The gateway may have closed already.
        let _closed = self.0.write(frames);
        self.outcome(stream)
    }

    fn outcome(&mut self, stream: u32) -> Outcome {
        loop {
            let Ok(head) = self.0.exactly(9) else { return Outcome::Broken };
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let Ok(payload) = self.0.exactly(length) else { return Outcome::Broken };
            let of = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            match (head[3], of) {
                (GOAWAY, _) => return Outcome::Broken,
                (RESET, of) if of == stream => return Outcome::Broken,
                (HEADERS, of) if of == stream => return Outcome::Status(status(payload[0])),
                _ => {}
            }
        }
    }
}

/// RFC 9113 §4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// RFC 7541 §6.2.2, without Huffman's code.
fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    let length = |text: &[u8]| u8::try_from(text.len()).ok().filter(|length| *length < 127).unwrap();
    [&[0, length(name)], name, &[length(value)], value].concat()
}

/// RFC 7541, appendix A.
fn status(first: u8) -> u16 {
    match first {
        0x88 => 200,
        0x8c => 400,
        0x8d => 404,
        0x8e => 500,
        _ => 0,
    }
}
