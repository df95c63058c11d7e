//! A connection to an HTTP/1 upstream whose answers are looked at before the HTTP library reads them.
//!
//! What to look for is `core::answer`'s business. Here bytes that pass go on unchanged; at the first that does not, reading fails,
//! for the library as for everything above it. **Invariant:** a connection on which anything was out of order never goes back
//! to its pool, even when the answer before it was complete.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use portcullis_core::answer::{Asked, Responses, Violation};
use portcullis_core::limits::Limits;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::telemetry::UpstreamCounts;

/// What a connection's user and its task tell each other. Both are on one thread; but connections that are taken over for
/// other protocols must be fit to leave it, so these are atomics, which cost no more where nobody else writes.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// What the request that is about to be written leads to expect; [`NOTHING`] once it has been seen to.
    asked: AtomicU8,
    spoiled: AtomicU8,
}

const NOTHING: u8 = 0;
const PLAIN: u8 = 1;
const HEAD: u8 = 2;
const UPGRADE: u8 = 3;

impl Line {
    /// A request will be written.
    pub(super) fn ask(&self, asked: Asked) {
        let asked = match asked {
            Asked::Plain => PLAIN,
            Asked::Head => HEAD,
            Asked::Upgrade => UPGRADE,
        };
        self.asked.store(asked, Ordering::Relaxed);
    }

    /// Whether nothing out of order has come.
    pub(super) fn is_sound(&self) -> bool {
        self.spoiled.load(Ordering::Relaxed) == NOTHING
    }

    fn spoil(&self) {
        self.spoiled.store(1, Ordering::Relaxed);
    }

    fn take_asked(&self) -> Option<Asked> {
        let asked = match self.asked.load(Ordering::Relaxed) {
            NOTHING => return None,
            HEAD => Asked::Head,
            UPGRADE => Asked::Upgrade,
            _ => Asked::Plain,
        };
        self.asked.store(NOTHING, Ordering::Relaxed);
        Some(asked)
    }
}

/// The connection.
pub(super) struct Watched<S> {
    stream: S,
    responses: Responses,
    line: Arc<Line>,
    counts: Arc<UpstreamCounts>,
    broken: Option<Violation>,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, counts: Arc<UpstreamCounts>) -> (Self, Arc<Line>) {
        let line = Arc::<Line>::default();
        let responses = Responses::new(&Limits::DEFAULT);
        (Self { stream, responses, line: line.clone(), counts, broken: None }, line)
    }

    /// Before the first byte of a request goes out, nothing can be its answer.
    fn begins_to_write(&mut self) {
        if let Some(asked) = self.line.take_asked() {
            self.responses.ask(asked);
        }
    }

    fn fail(&mut self, violation: Violation) -> io::Error {
        self.line.spoil();
        if self.broken.replace(violation).is_none() {
            self.counts.violation(violation);
        }
        io::Error::new(io::ErrorKind::InvalidData, violation)
    }
}

/// What was out of order, if that is why this failed.
pub(super) fn violation(error: &hyper::Error) -> Option<Violation> {
    let source: &io::Error = error.source()?.downcast_ref()?;
    source.get_ref()?.downcast_ref().copied()
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(violation) = this.broken {
            return Poll::Ready(Err(this.fail(violation)));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        let new = buf.filled().get(before..).unwrap_or_default();
        match this.responses.look(new) {
            Ok(taken) if taken == new.len() => Poll::Ready(Ok(())),
            Ok(taken) => {
                // The answer is whole, and good. What follows it is not passed on, and the next read says why.
                let _told_then = this.fail(Violation::Unsolicited);
                buf.set_filled(before + taken);
                Poll::Ready(Ok(()))
            }
            Err(violation) => Poll::Ready(Err(this.fail(violation))),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.begins_to_write();
        Pin::new(&mut this.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.begins_to_write();
        Pin::new(&mut this.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
