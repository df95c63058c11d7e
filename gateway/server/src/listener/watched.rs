//! A client's bytes as they pass, and the stamps they leave.
//!
//! Notes when something was read, when writes began to wait, and whether HTTP/2 frames come as a flood; carries out the sweep's
//! verdict at the next read or write. A stamp is a plain store of the time that housekeeping keeps: nothing here asks a clock.
//! The stamps are shared by `Arc` and written with relaxed atomics, though one thread uses them, because an upgraded connection
//! must be `Send` for the HTTP library.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use portcullis_core::downstream::{Overdue, Stage, Standing};
use portcullis_core::frames::{Flood, Inspector};
use portcullis_core::time::Time;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::gate::Permit;

/// What an HTTP/2 client begins with (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The answer to a head that did not come in in time, once some of it has (RFC 9110 §15.5.9).
const TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\n\
    content-type: application/problem+json\r\ncontent-length: 103\r\nconnection: close\r\n\r\n\
    {\"type\":\"about:blank\",\"title\":\"The request did not come in in time\",\"status\":408,\"code\":\"client_slow\"}\n";

/// The time as of the last look: good enough for limits of seconds.
#[derive(Debug, Default)]
pub(crate) struct Coarse(AtomicU64);

impl Coarse {
    pub(super) fn set(&self, now: Time) {
        self.0.store(now.as_nanos(), Relaxed);
    }

    pub(super) fn now(&self) -> Time {
        Time::from_nanos(self.0.load(Relaxed))
    }
}

/// Where one connection stands.
#[derive(Debug)]
pub(crate) struct Stamps {
    clock: Arc<Coarse>,
    stage: AtomicU8,
    since: AtomicU64,
    /// Zero while nothing waits, as for the block.
    stalled: AtomicU64,
    block: AtomicU64,
    verdict: AtomicU8,
    /// Which flood there was; zero is none.
    flood: AtomicU8,
}

/// The stages, of which the first two come before anything of a request has: before the first byte, and, over HTTP/2, behind the
/// preface.
const OPEN: u8 = 0;
const UNUSED: u8 = 1;
const HEAD: u8 = 2;
const IDLE: u8 = 3;
const LEAVING: u8 = 4;
const SERVING: u8 = 5;

/// The verdicts beside none.
const LEAVE: u8 = 1;
const CUT: u8 = 2;

impl Stamps {
    pub(super) fn new(clock: Arc<Coarse>) -> Self {
        let since = AtomicU64::new(clock.now().as_nanos());
        let (stage, verdict) = (AtomicU8::new(OPEN), AtomicU8::new(0));
        let (stalled, block, flood) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU8::new(0));
        Self { clock, stage, since, stalled, block, verdict, flood }
    }

    pub(super) fn now(&self) -> Time {
        self.clock.now()
    }

    fn enter(&self, stage: u8) {
        self.stage.store(stage, Relaxed);
        self.since.store(self.now().as_nanos(), Relaxed);
    }

    /// A request is served.
    pub(super) fn serving(&self) {
        self.stage.store(SERVING, Relaxed);
    }

    /// None is any more.
    pub(super) fn idle(&self) {
        self.enter(IDLE);
    }

    /// The client is to be told to leave.
    pub(super) fn leave(&self) {
        self.enter(LEAVING);
        self.verdict.fetch_max(LEAVE, Relaxed);
    }

    /// The connection is to end now.
    pub(super) fn cut(&self) {
        self.verdict.store(CUT, Relaxed);
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.verdict.load(Relaxed) == LEAVE
    }

    pub(super) fn is_cut(&self) -> bool {
        self.verdict.load(Relaxed) == CUT
    }

    pub(super) fn standing(&self) -> Standing {
        let time = |stamp: &AtomicU64| match stamp.load(Relaxed) {
            0 => None,
            nanos => Some(Time::from_nanos(nanos)),
        };
        let (stage, silent) = match self.stage.load(Relaxed) {
            OPEN => (Stage::Head, true),
            UNUSED => (Stage::Idle, true),
            HEAD => (Stage::Head, false),
            IDLE => (Stage::Idle, false),
            LEAVING => (Stage::Leaving, false),
            _ => (Stage::Serving, false),
        };
        Standing {
            stage,
            since: time(&self.since).unwrap_or_default(),
            stalled: time(&self.stalled),
            block: time(&self.block),
            silent,
        }
    }

    /// The first bytes came in. The time for a head goes on from when the connection was opened.
    fn begun(&self) {
        self.stage.store(HEAD, Relaxed);
    }

    /// Bytes came in: on an idle HTTP/1.1 connection they are the beginning of a head.
    fn read(&self) {
        if self.stage.load(Relaxed) == IDLE {
            self.enter(HEAD);
        }
    }

    fn flooded(&self, flood: Flood) {
        let number = Flood::ALL.iter().position(|kind| *kind == flood).map_or(0, |at| at + 1);
        self.flood.store(u8::try_from(number).unwrap_or_default(), Relaxed);
    }

    /// Which flood ended the connection, if one did.
    pub(super) fn flood(&self) -> Option<Flood> {
        Flood::ALL.get(usize::from(self.flood.load(Relaxed)).checked_sub(1)?).copied()
    }

    fn blocked(&self) {
        if self.stalled.load(Relaxed) == 0 {
            self.stalled.store(self.now().as_nanos().max(1), Relaxed);
        }
    }

    fn moved(&self) {
        self.stalled.store(0, Relaxed);
    }

    fn in_block(&self, open: bool) {
        match (open, self.block.load(Relaxed)) {
            (true, 0) => self.block.store(self.now().as_nanos().max(1), Relaxed),
            (true, _) | (false, 0) => {}
            (false, _) => self.block.store(0, Relaxed),
        }
    }
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    Http1,
    Http2,
}

/// What HTTP needs below it: TCP, or TLS over TCP.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Transport for S {}

/// A client's stream under watch.
#[derive(Debug)]
pub(super) struct Watched<S> {
    io: S,
    stamps: Arc<Stamps>,
    /// The first bytes, read to tell what is spoken.
    first: [u8; PREFACE.len()],
    have: usize,
    given: usize,
    frames: Option<Box<Inspector>>,
    /// Held for as long as the bytes can flow, upgraded or not.
    _permit: Permit,
}

impl<S: Transport> Watched<S> {
    pub(super) fn new(io: S, stamps: Arc<Stamps>, permit: Permit) -> Self {
        Self { io, stamps, first: [0; PREFACE.len()], have: 0, given: 0, frames: None, _permit: permit }
    }

    /// Waits for enough bytes to tell what the client speaks.
    ///
    /// # Errors
    /// When the stream fails, or ends before it has begun.
    pub(super) async fn spoken(&mut self) -> io::Result<Spoken> {
        std::future::poll_fn(|cx| self.poll_spoken(cx)).await
    }

    fn poll_spoken(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Spoken>> {
        loop {
            self.judged(cx)?;
            let (got, rest) = self.first.split_at_mut_checked(self.have).unwrap_or_default();
            if !PREFACE.starts_with(got) {
                return Poll::Ready(Ok(Spoken::Http1));
            }
            if rest.is_empty() {
                self.frames = Some(Box::new(Inspector::new(self.stamps.now())));
                self.stamps.enter(UNUSED);
                return Poll::Ready(Ok(Spoken::Http2));
            }
            let mut buffer = ReadBuf::new(rest);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
            match buffer.filled().len() {
                0 if self.have == 0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                // It ends within what could be a preface: for the HTTP library to refuse.
                0 => return Poll::Ready(Ok(Spoken::Http1)),
                more => {
                    self.have += more;
                    self.stamps.begun();
                }
            }
        }
    }

    /// The sweep's verdict, if there is one. Says what can still be said; the client may not listen.
    fn judged(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.stamps.is_cut() {
            return Ok(());
        }
        let standing = self.stamps.standing();
        // Nothing is being answered that this could be mixed up with, and something has come that it can be an answer to.
        if standing.stage == Stage::Head && self.frames.is_none() && self.have > 0 && standing.stalled.is_none() {
            let _best_effort = Pin::new(&mut self.io).poll_write(cx, TOO_SLOW);
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, Overdue::Header.word()))
    }

    /// Looks at what has come in, and ends the connection where it is a flood.
    fn inspect(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<()> {
        let Some(frames) = &mut self.frames else {
            self.stamps.read();
            return Ok(());
        };
        let judged = frames.received(bytes, self.stamps.now());
        self.stamps.in_block(frames.is_in_block());
        let Err(flood) = judged else { return Ok(()) };
        if let Some(goodbye) = frames.goodbye(flood) {
            let _best_effort = Pin::new(&mut self.io).poll_write(cx, &goodbye);
        }
        self.stamps.flooded(flood);
        Err(io::Error::new(io::ErrorKind::InvalidData, flood.word()))
    }
}

impl<S: Transport> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        me.judged(cx)?;
        if let Some(first) = me.first.get(me.given..me.have).filter(|first| !first.is_empty()) {
            let size = first.len().min(buffer.remaining());
            buffer.put_slice(first.get(..size).unwrap_or_default());
            me.given += size;
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut me.io).poll_read(cx, buffer))?;
        match buffer.filled().get(before..) {
            Some(fresh) if !fresh.is_empty() => Poll::Ready(me.inspect(cx, fresh)),
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl<S: Transport> Watched<S> {
    /// Notes how a write went.
    fn wrote<T>(&self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match written {
            Poll::Pending => self.stamps.blocked(),
            Poll::Ready(_) => self.stamps.moved(),
        }
        written
    }
}

impl<S: Transport> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        me.judged(cx)?;
        let written = Pin::new(&mut me.io).poll_write(cx, bytes);
        if let (Some(frames), Poll::Ready(Ok(size))) = (&mut me.frames, &written) {
            frames.sent(bytes.get(..*size).unwrap_or_default());
        }
        me.wrote(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        me.judged(cx)?;
        let written = Pin::new(&mut me.io).poll_write_vectored(cx, pieces);
        if let (Some(frames), Poll::Ready(Ok(size))) = (&mut me.frames, &written) {
            let mut left = *size;
            for piece in pieces {
                let size = left.min(piece.len());
                frames.sent(piece.get(..size).unwrap_or_default());
                left -= size;
            }
        }
        me.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        let flushed = Pin::new(&mut me.io).poll_flush(cx);
        // Where a flush is no more than a formality, it says nothing about whether the client reads.
        if flushed.is_pending() { me.wrote(flushed) } else { flushed }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_slow_head_is_as_long_as_it_says() {
        let text = std::str::from_utf8(TOO_SLOW).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
    }
}
