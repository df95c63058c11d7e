//! A case: what is sent, and what must come of it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use portcullis_tests::frames::{ACK, Frame, Frames, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, frame};

/// How long a reaction may take. Too short would fail what holds; every case that hangs costs this.
const PATIENCE: Duration = Duration::from_secs(20);

/// RFC 9113 §7.
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
pub(crate) const STREAM_CLOSED: u32 = 5;
pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const COMPRESSION_ERROR: u32 = 9;

/// One case of a section.
pub(crate) struct Case {
    pub(crate) section: &'static str,
    pub(crate) what: &'static str,
    /// What is sent, after the prefaces unless `want` is [`Want::Raw`].
    pub(crate) send: fn(&mut Frames),
    pub(crate) want: Want,
}

/// What must come of it.
pub(crate) enum Want {
    /// The connection ends; if it says why, with one of these codes.
    Connection(&'static [u32]),
    /// The stream is reset with one of these codes, or the connection ends.
    Stream(&'static [u32]),
    /// The request is malformed: as above with PROTOCOL_ERROR, or answered with 400.
    Malformed,
    /// A response with this status on this stream.
    Answer(u32, u16),
    /// The connection goes on as if nothing had been sent.
    Nothing,
    /// Whatever this says.
    Check(fn(&mut Frames) -> Result<(), String>),
    /// As `Check`, on a connection without prefaces.
    Raw(fn(&mut Frames) -> Result<(), String>),
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.section, self.what)
    }
}

/// What was wrong with a reaction.
#[derive(Debug)]
pub(crate) enum Miss {
    /// The connection ended as it must, but said another reason.
    Code(Option<u32>, &'static [u32]),
    /// All else.
    Wrong(String),
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code, codes) => write!(f, "code {code:?}, not one of {codes:?}"),
            Self::Wrong(why) => f.write_str(why),
        }
    }
}

impl From<String> for Miss {
    fn from(why: String) -> Self {
        Self::Wrong(why)
    }
}

impl Case {
    pub(crate) fn run(&self, address: SocketAddr) -> Result<(), Miss> {
        let raw = matches!(self.want, Want::Raw(_));
        let mut frames = if raw { Frames::silent(address) } else { Frames::connect(address, &[]) };
        frames.wire.stream().set_read_timeout(Some(PATIENCE)).unwrap();
        (self.send)(&mut frames);
        match &self.want {
            Want::Connection(codes) => ended(&mut frames, codes),
            Want::Stream(codes) => reset(&mut frames, codes, false),
            Want::Malformed => reset(&mut frames, &[PROTOCOL_ERROR], true),
            Want::Answer(stream, status) => Ok(answered(&mut frames, *stream, *status)?),
            Want::Nothing => Ok(lives(&mut frames)?),
            Want::Check(check) | Want::Raw(check) => Ok(check(&mut frames)?),
        }
    }
}

fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn one_of(code: Option<u32>, codes: &'static [u32]) -> Result<(), Miss> {
    if code.is_some_and(|code| codes.contains(&code)) { Ok(()) } else { Err(Miss::Code(code, codes)) }
}

/// Waits for the connection's end, after it was said to come.
fn closed(frames: &mut Frames) -> Result<(), String> {
    loop {
        match frames.read() {
            Ok(_) => {}
            Err(error) if is_silence(&error) => return Err("the connection stays open".to_owned()),
            Err(_) => return Ok(()),
        }
    }
}

pub(crate) fn ended(frames: &mut Frames, codes: &'static [u32]) -> Result<(), Miss> {
    match frames.find(|frame| frame.kind == GOAWAY) {
        Ok(frame) => {
            closed(frames)?;
            one_of(frame.code(), codes)
        }
        Err(error) if is_silence(&error) => Err("the connection stays open".to_owned().into()),
        Err(_) => Ok(()),
    }
}

fn reset(frames: &mut Frames, codes: &'static [u32], or_refused: bool) -> Result<(), Miss> {
    let reaction = |frame: &Frame| matches!(frame.kind, GOAWAY | RST_STREAM) || or_refused && frame.kind == HEADERS;
    match frames.find(reaction) {
        Ok(frame) if frame.kind == HEADERS => match frame.status() {
            Some(400) => Ok(()),
            status => Err(format!("answered with {status:?}").into()),
        },
        Ok(frame) if frame.kind == GOAWAY => {
            closed(frames)?;
            one_of(frame.code(), codes)
        }
        Ok(frame) => one_of(frame.code(), codes).map_err(|miss| Miss::Wrong(miss.to_string())),
        Err(error) if is_silence(&error) => Err("no reaction".to_owned().into()),
        Err(_) => Ok(()),
    }
}

pub(crate) fn answered(frames: &mut Frames, stream: u32, want: u16) -> Result<(), String> {
    loop {
        match frames.read() {
            Ok(frame) if frame.kind == GOAWAY => return Err(format!("GOAWAY with {:?}", frame.code())),
            Ok(frame) if frame.kind == RST_STREAM && frame.stream == stream => {
                return Err(format!("RST_STREAM with {:?}", frame.code()));
            }
            Ok(frame) if frame.kind == HEADERS && frame.stream == stream => {
                let status = frame.status();
                return if status == Some(want) { Ok(()) } else { Err(format!("status {status:?}")) };
            }
            Ok(_) => {}
            Err(error) => return Err(format!("no answer: {error}")),
        }
    }
}

/// Whether the next answer to a PING is to this one, with no GOAWAY before.
pub(crate) fn lives(frames: &mut Frames) -> Result<(), String> {
    frames.send(&frame(PING, 0, 0, b"liveness"));
    loop {
        match frames.read() {
            Ok(frame) if frame.kind == GOAWAY => return Err(format!("GOAWAY with {:?}", frame.code())),
            Ok(Frame { kind: PING, flags, payload, .. }) if flags & ACK != 0 => {
                let ours = payload == b"liveness";
                return if ours { Ok(()) } else { Err(format!("answer to another PING: {payload:?}")) };
            }
            Ok(_) => {}
            Err(error) => return Err(format!("no answer: {error}")),
        }
    }
}

/// The next SETTINGS that acknowledge ours.
pub(crate) fn acknowledged(frames: &mut Frames) -> Result<(), String> {
    let found = frames.find(|frame| frame.kind == SETTINGS && frame.flags & ACK != 0);
    found.map(|_| ()).map_err(|error| format!("no acknowledgement: {error}"))
}
