//! A client's connection as the HTTP library reads it: only what the inspector passes, whole heads at a time.
//!
//! Bytes that pass are read straight into the library's buffer. A head that came in part is held back until the rest is there; in
//! place of one that is refused goes a stand-in, which `serve` answers like any request. Behind a refusal nothing more is read,
//! and the connection is closed gently: what the client has already sent is thrown away for a while, since closing a socket with
//! unread bytes in it resets the connection, and the client might lose the answer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use portcullis_core::wire::{Inspector, Next, Reason};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Below this much room the library is only guessing the protocol, and a head would not fit.
const ROOM: usize = 1 << 10;
/// What is read at once then.
const PIECE: usize = 4 << 10;
/// How long, and how many bytes, a client may go on sending behind what was refused.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

/// Which of a connection's requests have been answered, and whether one was granted another protocol.
///
/// Told by whoever answers; the inspector must know before it can say what the bytes behind such a request are. Atomic only so that
/// a connection stays `Send`, as the library's upgrades want it: both sides are on one thread.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    count: AtomicU64,
    switched: AtomicBool,
    refused: AtomicBool,
}

impl Answers {
    /// One more request has been answered; `switched` if what follows is no longer HTTP/1.
    pub(crate) fn answered(&self, switched: bool) {
        if switched {
            self.switched.store(true, Relaxed);
        }
        self.count.store(self.count.load(Relaxed) + 1, Relaxed);
    }

    /// Whether the connection ends, since a request was refused.
    pub(super) fn are_over(&self) -> bool {
        self.refused.load(Relaxed)
    }
}

/// A connection with an inspector in front.
pub(crate) struct Strict<S> {
    stream: S,
    inspector: Inspector,
    answers: Arc<Answers>,
    /// Read, but not handed on: the first `passed` of them may be.
    held: Vec<u8>,
    passed: usize,
    refused: Option<Refused>,
    /// Who reads again once a wish for another protocol is answered.
    reader: Option<Waker>,
}

/// What was refused, and what of it is still to be done.
struct Refused {
    reason: Reason,
    /// Where in a message it was.
    place: Place,
    linger: Option<Pin<Box<Sleep>>>,
    thrown_away: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Head,
    Body,
}

impl<S> Strict<S> {
    pub(crate) fn new(stream: S, answers: Arc<Answers>) -> Self {
        let inspector = Inspector::default();
        Self { stream, inspector, answers, held: Vec::new(), passed: 0, refused: None, reader: None }
    }

    /// Looks at what is held; afterwards as much of it as may be is `passed`.
    fn inspect_held(&mut self) {
        let seen = self.inspector.inspect(&self.held);
        self.passed = seen.passed;
        if let Next::Refused(refusal) = seen.next {
            let stand_in = refusal.stand_in(self.held.get(seen.passed..).unwrap_or_default());
            let place = if stand_in.is_some() { Place::Head } else { Place::Body };
            tracing::debug!(reason = refusal.reason.word(), "a request was refused as it came");
            self.held.truncate(seen.passed);
            self.held.extend(stand_in.unwrap_or_default());
            self.passed = self.held.len();
            self.answers.refused.store(true, Relaxed);
            self.refused = Some(Refused { reason: refusal.reason, place, linger: None, thrown_away: 0 });
        }
    }

    /// Hands on what has passed, as far as there is room.
    fn hand_on(&mut self, buf: &mut ReadBuf<'_>) {
        let len = self.passed.min(buf.remaining());
        buf.put_slice(self.held.get(..len).unwrap_or_default());
        self.held.drain(..len);
        self.passed -= len;
        if self.held.is_empty() {
            // A connection that is idle must not keep a buffer.
            self.held = Vec::new();
        }
    }

    /// An answer is being written: it may be the one that reading waits for.
    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Sees whether there is something to be handed on, now that a wish for another protocol may have been answered.
    fn settle(&mut self) {
        if self.inspector.is_undecided() && self.answers.count.load(Relaxed) >= self.inspector.heads() {
            self.inspector.decide(self.answers.switched.load(Relaxed));
            self.inspect_held();
        }
    }
}

impl<S: AsyncRead + Unpin> Strict<S> {
    /// Reads into what is held. The end of the stream is 0.
    fn poll_hold(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut piece = [0; PIECE];
        let mut piece = ReadBuf::new(&mut piece);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut piece))?;
        self.held.extend_from_slice(piece.filled());
        Poll::Ready(Ok(piece.filled().len()))
    }

    /// Reads into the library's own buffer, and keeps back what may not be handed on. The end of the stream is 0.
    fn poll_pass(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let fresh = buf.filled().get(before..).unwrap_or_default();
        let (len, seen) = (fresh.len(), self.inspector.inspect(fresh));
        if seen.passed < len {
            self.held.extend_from_slice(fresh.get(seen.passed..).unwrap_or_default());
            buf.set_filled(before + seen.passed);
            self.inspect_held();
        }
        Poll::Ready(Ok(len))
    }

    /// Waits until there is something to be handed on, or to be said of the stream's end or failure.
    pub(crate) fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.passed > 0 || self.refused.is_some() {
            return Poll::Ready(());
        }
        match ready!(self.poll_hold(cx)) {
            // Whoever reads next sees them again.
            Ok(0) | Err(_) => {}
            Ok(_) => self.inspect_held(),
        }
        Poll::Ready(())
    }

    /// Takes bytes back that were handed on.
    pub(crate) fn put_back(&mut self, bytes: Bytes) {
        self.passed += bytes.len();
        self.held.splice(..0, bytes);
    }

    /// Throws away what still comes, until the client has closed or has had its time.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(refused) = &mut self.refused else { return Poll::Ready(()) };
        let deadline = refused.linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        if deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut piece = [0; PIECE];
        while refused.thrown_away < LINGER_BYTES {
            let mut piece = ReadBuf::new(&mut piece);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut piece));
            if read.is_err() || piece.filled().is_empty() {
                break;
            }
            refused.thrown_away += piece.filled().len();
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Strict<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let strict = self.get_mut();
        loop {
            if strict.passed > 0 {
                strict.hand_on(buf);
                return Poll::Ready(Ok(()));
            }
            if let Some(refused) = &strict.refused {
                return match refused.place {
                    // Its stand-in has been handed on, and is the last request.
                    Place::Head => Poll::Pending,
                    Place::Body => Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, refused.reason.word()))),
                };
            }
            strict.settle();
            if strict.passed > 0 || strict.refused.is_some() {
                continue;
            }
            if strict.inspector.is_undecided() {
                strict.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let before = buf.filled().len();
            let hold = !strict.inspector.is_off() && (buf.remaining() < ROOM || !strict.held.is_empty());
            let read = if hold { strict.poll_hold(cx) } else { strict.poll_pass(cx, buf) };
            let read = ready!(read)?;
            if hold && read > 0 {
                strict.inspect_held();
            }
            if read == 0 || buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Strict<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let strict = self.get_mut();
        strict.wake_reader();
        Pin::new(&mut strict.stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let strict = self.get_mut();
        if strict.refused.as_ref().is_none_or(|refused| refused.linger.is_none()) {
            ready!(Pin::new(&mut strict.stream).poll_shutdown(cx))?;
        }
        strict.poll_linger(cx).map(Ok)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let strict = self.get_mut();
        strict.wake_reader();
        Pin::new(&mut strict.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests;
