//! Bytes copied from one connection to another, as they are.
//!
//! Nothing is read that the other side has not taken, and a direction that is silent holds no buffer.

use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use portcullis_core::reply::Failure;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are copied at once; on the stack, and only while they are.
pub(crate) const PIECE: usize = 16 << 10;
/// Pieces that are copied in one direction before others have their turn.
const PIECES_PER_TURN: usize = 16;

/// One side's connection.
pub(crate) struct Side<S> {
    io: S,
    /// Whose fault it is when it breaks.
    fault: Failure,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Side<S> {
    pub(crate) fn new(io: S, fault: Failure) -> Self {
        Self { io, fault }
    }

    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<(), Failure>> {
        Pin::new(&mut self.io).poll_read(cx, buffer).map_err(|_| self.fault)
    }

    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Failure>> {
        match ready!(Pin::new(&mut self.io).poll_write(cx, bytes)) {
            Ok(0) | Err(_) => Poll::Ready(Err(self.fault)),
            Ok(written) => Poll::Ready(Ok(written)),
        }
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Pin::new(&mut self.io).poll_flush(cx).map_err(|_| self.fault)
    }

    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // One that is gone already is closed enough.
        Pin::new(&mut self.io).poll_shutdown(cx).map(|_closed| ())
    }
}

/// One direction of a tunnel.
pub(crate) struct Way {
    /// What was read and has not been taken yet.
    rest: Bytes,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Everything that was written is on its way.
    Copying,
    /// What was written may still be in a buffer of the connection's own.
    Unflushed,
    /// The sender has closed its side; the receiver is to hear of it.
    Closing,
    Closed,
}

impl Way {
    pub(crate) fn new() -> Self {
        Self { rest: Bytes::new(), stage: Stage::Copying }
    }

    /// Copies as much as both sides have time for; ready when the sender has closed and the receiver knows.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Side<impl AsyncRead + AsyncWrite + Unpin>,
        to: &mut Side<impl AsyncRead + AsyncWrite + Unpin>,
        passed: impl Fn(u64),
    ) -> Poll<Result<(), Failure>> {
        for _ in 0..PIECES_PER_TURN {
            match self.stage {
                Stage::Copying | Stage::Unflushed => ready!(self.poll_piece(cx, from, to, &passed))?,
                Stage::Closing => {
                    ready!(to.poll_shutdown(cx));
                    self.stage = Stage::Closed;
                }
                Stage::Closed => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Copies a piece, or comes to know that there are no more.
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Side<impl AsyncRead + AsyncWrite + Unpin>,
        to: &mut Side<impl AsyncRead + AsyncWrite + Unpin>,
        passed: &impl Fn(u64),
    ) -> Poll<Result<(), Failure>> {
        while !self.rest.is_empty() {
            let written = ready!(to.poll_write(cx, &self.rest))?;
            self.rest.advance(written);
            passed(written as u64);
        }
        let mut space = [MaybeUninit::uninit(); PIECE];
        let mut piece = ReadBuf::uninit(&mut space);
        if from.poll_read(cx, &mut piece)?.is_pending() {
            if self.stage == Stage::Unflushed {
                ready!(to.poll_flush(cx))?;
                self.stage = Stage::Copying;
            }
            return Poll::Pending;
        }
        let piece = piece.filled();
        if piece.is_empty() {
            self.stage = Stage::Closing;
            return Poll::Ready(Ok(()));
        }
        self.stage = Stage::Unflushed;
        let written = match to.poll_write(cx, piece)? {
            Poll::Ready(written) => written,
            Poll::Pending => 0,
        };
        if written > 0 {
            passed(written as u64);
        }
        // Only what the other side does not take at once is kept.
        self.rest = Bytes::copy_from_slice(piece.get(written..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}
