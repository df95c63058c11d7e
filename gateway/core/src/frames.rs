//! HTTP/2 frames as they pass: how many of which kind, and whether that is an attack.
//!
//! The HTTP library bounds what frames make it remember; it does not bound how often it is made to work. Every frame that moves
//! no message forward is paid for here, from what a connection earns by time and by frames that do. Looks at frame heads only
//! (RFC 9113 §4.1), never at payloads, and keeps nothing of what passes.

use std::time::Duration;

use crate::time::Time;

/// The length of a frame's head.
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// The flag of SETTINGS and PING that answers ours.
const ACK: u8 = 0x1;
/// The flag that ends a header block.
const END_HEADERS: u8 = 0x4;

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The length of its payload.
    pub length: u32,
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
}

/// Finds the heads of frames in a stream of bytes, however it is cut.
#[derive(Clone, Debug, Default)]
pub struct Splitter {
    head: [u8; HEAD],
    have: usize,
    /// How much of a payload is still to pass.
    payload: usize,
}

impl Splitter {
    /// The next head in `bytes`, which it takes off; `None` when all of them have passed.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Option<Head> {
        let passing = self.payload.min(bytes.len());
        *bytes = bytes.get(passing..).unwrap_or_default();
        self.payload -= passing;
        let wanted = HEAD - self.have;
        let (taken, rest) = bytes.split_at_checked(wanted).unwrap_or((bytes, &[]));
        self.head.get_mut(self.have..self.have + taken.len())?.copy_from_slice(taken);
        *bytes = rest;
        self.have += taken.len();
        if self.have < HEAD {
            return None;
        }
        self.have = 0;
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = self.head;
        let length = u32::from_be_bytes([0, l0, l1, l2]);
        self.payload = length as usize;
        Some(Head { length, kind, flags, stream: u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff })
    }

    /// Whether the last frame has passed to its end, so that another could be put behind it.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        self.have == 0 && self.payload == 0
    }
}

/// What a connection may spend: it begins full, and fills again with time.
#[derive(Clone, Debug)]
struct Purse {
    left: u32,
    full: u32,
    per_second: u32,
    filled: Time,
}

impl Purse {
    fn new(full: u32, per_second: u32, now: Time) -> Self {
        Self { left: full, full, per_second, filled: now }
    }

    fn earn(&mut self, more: u32) {
        self.left = self.left.saturating_add(more).min(self.full);
    }

    /// Pays, if there is enough. The time is looked at only when there is not.
    fn spend(&mut self, cost: u32, now: Time) -> bool {
        if self.left < cost {
            let passed = now.saturating_since(self.filled).min(Duration::from_secs(60));
            let earned = passed.as_millis() * u128::from(self.per_second) / 1000;
            self.earn(u32::try_from(earned).unwrap_or(u32::MAX));
            self.filled = now;
        }
        let enough = self.left >= cost;
        self.left = self.left.saturating_sub(cost);
        enough
    }
}

/// Which kind of frame there was too much of, or what else ends a connection here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flood {
    /// RST_STREAM: requests begun and taken back (CVE-2023-44487).
    Reset,
    /// SETTINGS.
    Settings,
    /// PING.
    Ping,
    /// PRIORITY.
    Priority,
    /// WINDOW_UPDATE.
    WindowUpdate,
    /// Any other that moves no message forward.
    Other,
    /// Not a flood: something came before the first SETTINGS (RFC 9113 §3.4), which the library would let pass.
    Preface,
}

impl Flood {
    /// Every kind, for metrics.
    pub const ALL: [Self; 7] =
        [Self::Reset, Self::Settings, Self::Ping, Self::Priority, Self::WindowUpdate, Self::Other, Self::Preface];

    /// The word for it in metrics and logs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Settings => "settings",
            Self::Ping => "ping",
            Self::Priority => "priority",
            Self::WindowUpdate => "window_update",
            Self::Other => "other",
            Self::Preface => "preface",
        }
    }

    /// The error code that tells the client (RFC 9113 §7): ENHANCE_YOUR_CALM, or PROTOCOL_ERROR.
    fn code(self) -> u8 {
        if self == Self::Preface { 0x1 } else { 0xb }
    }
}

/// A browser takes back all it has open at once when its user goes elsewhere: twice that, and then a hundred a second.
const RESETS: (u32, u32) = (200, 100);
/// What frames beside messages cost is paid from this.
const CONTROL: (u32, u32) = (2000, 500);
/// SETTINGS makes the library look at every open stream.
const SETTINGS_COST: u32 = 20;
/// What a frame that moves a message earns; Envoy too allows ten WINDOW_UPDATEs for each DATA sent. Pings that measure bandwidth
/// come one per round trip while data moves.
const EARNED: u32 = 10;
/// DATA below this moves next to nothing: a window opened byte by byte must not pay for itself.
const SMALL: u32 = 64;

/// Watches one connection's frames.
#[derive(Clone, Debug)]
pub struct Inspector {
    inbound: Splitter,
    outbound: Splitter,
    control: Purse,
    resets: Purse,
    last_stream: u32,
    block: bool,
    begun: bool,
}

impl Inspector {
    /// For a connection whose preface has passed.
    #[must_use]
    pub fn new(now: Time) -> Self {
        let ((resets, resets_rate), (control, control_rate)) = (RESETS, CONTROL);
        Self {
            inbound: Splitter::default(),
            outbound: Splitter::default(),
            control: Purse::new(control, control_rate, now),
            resets: Purse::new(resets, resets_rate, now),
            last_stream: 0,
            block: false,
            begun: false,
        }
    }

    /// Looks at bytes from the client.
    ///
    /// # Errors
    /// When there is too much of a kind of frame: the connection should end.
    pub fn received(&mut self, mut bytes: &[u8], now: Time) -> Result<(), Flood> {
        while let Some(head) = self.inbound.next(&mut bytes) {
            self.frame(head, now)?;
        }
        Ok(())
    }

    /// Looks at bytes that were sent to the client.
    pub fn sent(&mut self, mut bytes: &[u8]) {
        while let Some(head) = self.outbound.next(&mut bytes) {
            match head.kind {
                DATA if head.length < SMALL => self.control.earn(1),
                DATA | HEADERS => self.control.earn(EARNED),
                _ => {}
            }
        }
    }

    fn frame(&mut self, head: Head, now: Time) -> Result<(), Flood> {
        if !std::mem::replace(&mut self.begun, true) && (head.kind != SETTINGS || head.flags & ACK != 0) {
            return Err(Flood::Preface);
        }
        let (cost, flood) = match head.kind {
            // Small and empty ones are counted by the library, which knows whether they are read.
            DATA => {
                self.control.earn(if head.length < SMALL { 0 } else { EARNED });
                return Ok(());
            }
            HEADERS => {
                self.last_stream = self.last_stream.max(head.stream);
                self.block = head.flags & END_HEADERS == 0;
                self.control.earn(EARNED);
                return Ok(());
            }
            RST_STREAM => return self.resets.spend(1, now).then_some(()).ok_or(Flood::Reset),
            SETTINGS if head.flags & ACK == 0 => (SETTINGS_COST, Flood::Settings),
            PING => (1, Flood::Ping),
            PRIORITY => (1, Flood::Priority),
            WINDOW_UPDATE => (1, Flood::WindowUpdate),
            CONTINUATION => {
                self.block &= head.flags & END_HEADERS == 0;
                (1, Flood::Other)
            }
            _ => (1, Flood::Other),
        };
        self.control.spend(cost, now).then_some(()).ok_or(flood)
    }

    /// Whether a header block has begun and not ended.
    #[must_use]
    pub fn is_in_block(&self) -> bool {
        self.block
    }

    /// A GOAWAY that tells the client why, if one can be sent now: not into the middle of another frame.
    #[must_use]
    pub fn goodbye(&self, flood: Flood) -> Option<[u8; 17]> {
        let [a, b, c, d] = self.last_stream.to_be_bytes();
        let frame = [0, 0, 8, 7, 0, 0, 0, 0, 0, a, b, c, d, 0, 0, 0, flood.code()];
        self.outbound.is_between_frames().then_some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags];
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    fn at(millis: u64) -> Time {
        Time::default() + Duration::from_millis(millis)
    }

    fn begun() -> Inspector {
        let mut inspector = Inspector::new(at(0));
        inspector.received(&frame(SETTINGS, 0, 0, &[]), at(0)).unwrap();
        inspector.control.earn(SETTINGS_COST);
        inspector
    }

    /// How many of these frames pass before it is too much, all at the same moment.
    fn until_refused(bytes: &[u8]) -> (usize, Flood) {
        let mut inspector = begun();
        (0..100_000).find_map(|count| inspector.received(bytes, at(0)).err().map(|flood| (count, flood))).unwrap()
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let mut bytes = frame(HEADERS, END_HEADERS, 1, &[7; 20]);
        bytes.extend(frame(DATA, 0, 0x8000_0003, &[]));
        bytes.extend(frame(200, 0, 5, &[1; 300]));
        for size in 1..bytes.len() + 1 {
            let mut splitter = Splitter::default();
            let mut seen = Vec::new();
            for mut piece in bytes.chunks(size) {
                while let Some(head) = splitter.next(&mut piece) {
                    seen.push((head.kind, head.length, head.stream));
                }
            }
            assert_eq!(seen, [(HEADERS, 20, 1), (DATA, 0, 3), (200, 300, 5)], "pieces of {size}");
            assert!(splitter.is_between_frames());
        }
    }

    #[test]
    fn each_flood_is_called_by_its_name() {
        for (bytes, want) in [
            (frame(RST_STREAM, 0, 1, &[0; 4]), (200, Flood::Reset)),
            (frame(SETTINGS, 0, 0, &[]), (100, Flood::Settings)),
            (frame(PING, 0, 0, &[0; 8]), (2000, Flood::Ping)),
            (frame(PING, ACK, 0, &[0; 8]), (2000, Flood::Ping)),
            (frame(PRIORITY, 0, 1, &[0; 5]), (2000, Flood::Priority)),
            (frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), (2000, Flood::WindowUpdate)),
            (frame(0x42, 0, 0, &[]), (2000, Flood::Other)),
            (frame(CONTINUATION, 0, 1, &[]), (2000, Flood::Other)),
        ] {
            assert_eq!(until_refused(&bytes), want);
        }
    }

    #[test]
    fn settings_come_first() {
        for (bytes, want) in [
            (frame(SETTINGS, 0, 0, &[]), Ok(())),
            (frame(SETTINGS, ACK, 0, &[]), Err(Flood::Preface)),
            (frame(HEADERS, END_HEADERS, 1, &[]), Err(Flood::Preface)),
        ] {
            assert_eq!(Inspector::new(at(0)).received(&bytes, at(0)), want);
        }
    }

    #[test]
    fn messages_pay_for_the_frames_between_them() {
        let mut inspector = begun();
        let ping = frame(PING, 0, 0, &[0; 8]);
        for _ in 0..100_000 {
            inspector.sent(&frame(DATA, 0, 1, &[0; 1000]));
            for _ in 0..10 {
                inspector.received(&ping, at(0)).unwrap();
            }
        }
        let drip = frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]);
        let dripping = |_| {
            inspector.sent(&frame(DATA, 0, 1, &[0; 1]));
            inspector.received(&[drip.clone(), drip.clone()].concat(), at(0)).is_err()
        };
        assert!((0..10_000).any(dripping), "bytes one by one must not pay for themselves");
    }

    #[test]
    fn a_purse_fills_with_time() {
        let mut purse = Purse::new(200, 100, at(0));
        assert!((0..200).all(|_| purse.spend(1, at(0))));
        assert!(!purse.spend(1, at(9)), "a hundred a second are not one in 9 ms");
        assert!((0..100).all(|_| purse.spend(1, at(1009))));
        assert!(!purse.spend(1, at(1009)));
        assert!((0..200).all(|_| purse.spend(1, at(1_000_000))));
        assert!(!purse.spend(1, at(1_000_000)), "it holds no more than it began with");
    }

    #[test]
    fn a_header_block_is_open_until_its_last_frame() {
        let mut inspector = begun();
        for (bytes, open) in [
            (frame(HEADERS, 0, 1, &[0; 3]), true),
            (frame(CONTINUATION, 0, 1, &[0; 3]), true),
            (frame(CONTINUATION, END_HEADERS, 1, &[0; 3]), false),
            (frame(HEADERS, END_HEADERS, 3, &[]), false),
        ] {
            inspector.received(&bytes, at(0)).unwrap();
            assert_eq!(inspector.is_in_block(), open);
        }
    }

    #[test]
    fn a_goodbye_names_the_last_stream_and_waits_for_the_end_of_a_frame() {
        let mut inspector = begun();
        inspector.received(&frame(HEADERS, END_HEADERS, 7, &[]), at(0)).unwrap();
        let goodbye = inspector.goodbye(Flood::Ping).unwrap();
        assert_eq!(goodbye, [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 11]);
        inspector.sent(&frame(DATA, 0, 7, &[0; 50])[..30]);
        assert_eq!(inspector.goodbye(Flood::Ping), None);
    }
}
