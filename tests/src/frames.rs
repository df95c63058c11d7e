//! HTTP/2 as frames on a socket, for what no HTTP library would send (RFC 9113, RFC 7541).
//!
//! Header blocks are written as literals without indexing, so the peer's table stays empty unless a test fills it; those that
//! come back are read as far as tests ask: the status.

use std::io;
use std::net::SocketAddr;
use std::net::TcpStream;

use crate::PATIENCE;
use crate::wire::Wire;

/// What a client begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types.
pub const DATA: u8 = 0;
/// Begins a header block.
pub const HEADERS: u8 = 1;
/// Says how streams depend on each other.
pub const PRIORITY: u8 = 2;
/// Ends a stream at once.
pub const RST_STREAM: u8 = 3;
/// Says what its sender allows.
pub const SETTINGS: u8 = 4;
/// Announces a response nobody asked for.
pub const PUSH_PROMISE: u8 = 5;
/// Asks for an answer.
pub const PING: u8 = 6;
/// Ends a connection.
pub const GOAWAY: u8 = 7;
/// Gives leave to send more.
pub const WINDOW_UPDATE: u8 = 8;
/// Goes on with a header block.
pub const CONTINUATION: u8 = 9;

/// Flags.
pub const END_STREAM: u8 = 0x1;
/// Answers SETTINGS or PING.
pub const ACK: u8 = 0x1;
/// Ends a header block.
pub const END_HEADERS: u8 = 0x4;
/// There is padding.
pub const PADDED: u8 = 0x8;
/// There is a priority before the header block.
pub const PRIORITIZED: u8 = 0x20;

/// A frame that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of RST_STREAM or GOAWAY.
    #[must_use]
    pub fn code(&self) -> Option<u32> {
        let at = match self.kind {
            RST_STREAM => 0,
            GOAWAY => 4,
            _ => return None,
        };
        let code = self.payload.get(at..at + 4)?;
        Some(u32::from_be_bytes(code.try_into().ok()?))
    }

    /// The status at the beginning of a response's header block.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        /// RFC 7541, appendix A, from index 8 on.
        const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
        let first = *self.payload.first().filter(|_| self.kind == HEADERS)?;
        if first & 0x80 != 0 {
            return INDEXED.get(usize::from(first & 0x7f).checked_sub(8)?).copied();
        }
        let (length, text) = (*self.payload.get(1)?, self.payload.get(2..)?);
        if length & 0x80 != 0 {
            return huffman_digits(text.get(..usize::from(length & 0x7f))?);
        }
        std::str::from_utf8(text.get(..usize::from(length))?).ok()?.parse().ok()
    }
}

/// Three digits as RFC 7541, appendix B, writes them.
fn huffman_digits(bytes: &[u8]) -> Option<u16> {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let value = |from: usize, count: usize| {
            bits.get(from..from + count)?.iter().try_fold(0_u16, |sum, bit| Some(sum << 1 | u16::from(*bit)))
        };
        let five = value(at, 5)?;
        // `0`, `1` and `2` have five bits, the others six.
        let (digit, size) = if five < 3 { (five, 5) } else { (value(at, 6)?.checked_sub(0x19)? + 3, 6) };
        (at, number) = (at + size, number * 10 + digit);
    }
    Some(number)
}

/// The bytes of a frame.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![a, b, c, kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The payload of SETTINGS.
#[must_use]
pub fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    pairs.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect()
}

/// A header block of literals that enter no table, short enough for lengths of one byte.
#[must_use]
pub fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name.as_ref(), value.as_ref()] {
            length(&mut bytes, text.len());
            bytes.extend(text);
        }
    }
    bytes
}

/// A length with a prefix of seven bits (RFC 7541 §5.1).
fn length(bytes: &mut Vec<u8>, length: usize) {
    if length < 127 {
        bytes.push(u8::try_from(length).unwrap());
        return;
    }
    bytes.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 0x80);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
}

/// The header block of a request for `http://test`.
#[must_use]
pub fn request(method: &str, path: &str) -> Vec<u8> {
    block(&[(":method", method), (":scheme", "http"), (":path", path), (":authority", "test")])
}

/// HEADERS that are all of a `GET`.
#[must_use]
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", path))
}

/// HEADERS of a `POST` whose body is to follow.
#[must_use]
pub fn post(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &request("POST", path))
}

/// A connection that speaks frames.
#[derive(Debug)]
pub struct Frames {
    /// The bytes below.
    pub wire: Wire,
}

impl Frames {
    /// Connects, and says nothing.
    ///
    /// # Panics
    /// When nobody listens there.
    #[must_use]
    pub fn silent(address: SocketAddr) -> Self {
        Self { wire: Wire::new(TcpStream::connect_timeout(&address, PATIENCE).unwrap()) }
    }

    /// Connects, exchanges prefaces with these settings, and acknowledges the other side's.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn connect(address: SocketAddr, pairs: &[(u16, u32)]) -> Self {
        let mut frames = Self::silent(address);
        frames.send(&[PREFACE, &frame(SETTINGS, 0, 0, &settings(pairs))].concat());
        let mut acknowledged = false;
        let mut theirs = false;
        while !(acknowledged && theirs) {
            match frames.read().expect("settings") {
                Frame { kind: SETTINGS, flags, .. } if flags & ACK != 0 => acknowledged = true,
                Frame { kind: SETTINGS, .. } => {
                    theirs = true;
                    frames.send(&frame(SETTINGS, ACK, 0, &[]));
                }
                _ => {}
            }
        }
        frames
    }

    /// Sends bytes.
    ///
    /// # Panics
    /// When they cannot be sent.
    pub fn send(&mut self, bytes: &[u8]) {
        self.wire.write(bytes).unwrap();
    }

    /// Sends bytes, if the other side still takes any.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.wire.write(bytes).is_ok()
    }

    /// The next frame.
    ///
    /// # Errors
    /// When the connection ends first.
    pub fn read(&mut self) -> io::Result<Frame> {
        let head = self.wire.exactly(9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        let payload = self.wire.exactly(length as usize)?;
        Ok(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame that fits; others are passed over.
    ///
    /// # Errors
    /// When the connection ends first.
    pub fn find(&mut self, fits: impl Fn(&Frame) -> bool) -> io::Result<Frame> {
        loop {
            let frame = self.read()?;
            if fits(&frame) {
                return Ok(frame);
            }
        }
    }

    /// The status of the response on a stream.
    ///
    /// # Panics
    /// When the stream or the connection ends without one.
    #[must_use]
    pub fn status(&mut self, stream: u32) -> u16 {
        let head = self.find(|frame| frame.stream == stream && matches!(frame.kind, HEADERS | RST_STREAM));
        head.unwrap().status().expect("a status")
    }

    /// The code of the GOAWAY that comes before the connection ends; nothing when it just ends.
    pub fn goodbye(&mut self) -> Option<u32> {
        let mut code = None;
        while let Ok(frame) = self.read() {
            if frame.kind == GOAWAY {
                code = frame.code();
            }
        }
        code
    }
}
