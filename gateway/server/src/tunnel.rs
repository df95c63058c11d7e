//! Tunnels: what becomes of an exchange when its client and its upstream have both left HTTP.
//!
//! [`Leaving`] accompanies a request that asks for one, from its admission to the answer; [`Leaving::open`] then copies bytes
//! both ways until both sides have closed. Nothing is read that the other side has not taken, and a tunnel that is silent holds
//! no buffer. Which upgrades are honoured, and what counts as an answer, is decided in [`portcullis_core::upgrade`].

use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use portcullis_core::event::{Direction, Effect};
use portcullis_core::exchange::ExchangeId;
use portcullis_core::headers::Headers;
use portcullis_core::reply::Failure;
use portcullis_core::upgrade::{self, Asked, Handshake, Spoken, Verdict};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::task::spawn_local;

use crate::listener::Connection;
use crate::upstream::Lease;
use crate::websocket;
use crate::worker::{Ticket, Worker};

/// Bytes that are copied at once; on the stack, and only while they are.
const PIECE: usize = 16 << 10;
/// Pieces that one tunnel copies in one direction before others have their turn.
const PIECES_PER_TURN: usize = 16;

/// A client that asks to leave HTTP, with leave of its route.
pub(crate) struct Leaving {
    asked: Asked,
    /// How long the tunnel may be silent.
    idle: Duration,
    client: OnUpgrade,
    handshake: Option<Handshake>,
    upstream: Option<OnUpgrade>,
}

impl Leaving {
    pub(crate) fn new(asked: Asked, idle: Duration, client: OnUpgrade) -> Self {
        Self { asked, idle, client, handshake: None, upstream: None }
    }

    /// Readies the request for its upstream, if its filters have left it the wish.
    pub(crate) fn begin(&mut self, headers: &mut Headers) {
        self.handshake = Handshake::begin(headers, websocket::fresh_key);
    }

    /// Looks at the upstream's answer: one that opens a tunnel is made a 101.
    pub(crate) fn take_in(&mut self, response: &mut Response<Incoming>) -> Result<(), Failure> {
        let spoken = if response.version() == Version::HTTP_2 { Spoken::Http2 } else { Spoken::Http1 };
        let mut status = response.status();
        let Some(handshake) = &self.handshake else { return unasked(status) };
        match handshake.judge(spoken, &mut status, response.headers_mut(), websocket::accept) {
            Verdict::Declined => Ok(()),
            Verdict::Broken => Err(Failure::UpgradeFailed),
            Verdict::Switched => {
                *response.status_mut() = status;
                self.upstream = Some(hyper::upgrade::on(response));
                Ok(())
            }
        }
    }

    /// Whether the upstream has left HTTP.
    pub(crate) fn has_switched(&self) -> bool {
        self.upstream.is_some()
    }

    /// The status and fields as this client must see them.
    pub(crate) fn answer(&self, status: StatusCode, fields: &mut HeaderMap) -> StatusCode {
        upgrade::answer(self.asked, status, fields)
    }

    /// Copies from when both sides have switched to when both have closed, and ends the exchange.
    pub(crate) fn open(self, mut ticket: Ticket, lease: Option<Lease>, connection: Rc<Connection>) {
        let (worker, id) = ticket.parts();
        worker.open_tunnel(id, self.idle);
        spawn_local(async move {
            // The connection counts as open, and its endpoint as busy, for as long as its tunnel is.
            let _held = (lease, connection);
            match until_broken_off(&worker, id, self.run(&worker, id)).await {
                Ok(()) => ticket.finish(),
                Err(failure) => ticket.fail(failure),
            }
        });
    }

    async fn run(self, worker: &Worker, id: ExchangeId) -> Result<(), Failure> {
        let upstream = self.upstream.ok_or(Failure::UpgradeFailed)?.await.map_err(|_| Failure::UpstreamReset)?;
        let client = self.client.await.map_err(|_| Failure::ClientGone)?;
        let (mut client, mut upstream) =
            (Side::new(client, Failure::ClientGone), Side::new(upstream, Failure::UpstreamReset));
        let (mut up, mut down) = (Way::new(), Way::new());
        std::future::poll_fn(|cx| {
            let up = up.poll(cx, &mut client, &mut upstream, |n| worker.passed(id, Direction::Request, n))?;
            let down = down.poll(cx, &mut upstream, &mut client, |n| worker.passed(id, Direction::Response, n))?;
            if up.is_ready() && down.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
        })
        .await
    }
}

/// What an answer means to a client that has not asked to leave HTTP.
pub(crate) fn unasked(status: StatusCode) -> Result<(), Failure> {
    if status == StatusCode::SWITCHING_PROTOCOLS { Err(Failure::UpgradeFailed) } else { Ok(()) }
}

/// Runs until the exchange is told to break off: its tunnel was silent for too long, or a filter closed it.
async fn until_broken_off(
    worker: &Worker,
    id: ExchangeId,
    tunnel: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let mut tunnel = pin!(tunnel);
    std::future::poll_fn(|cx| {
        if let Some(Effect::Abort(failure)) = worker.next_effect(id, Direction::Response) {
            return Poll::Ready(Err(failure));
        }
        worker.wait(id, Direction::Response, cx);
        tunnel.as_mut().poll(cx)
    })
    .await
}

/// One side's connection.
struct Side {
    io: TokioIo<Upgraded>,
    /// Whose fault it is when it breaks.
    fault: Failure,
}

impl Side {
    fn new(io: Upgraded, fault: Failure) -> Self {
        Self { io: TokioIo::new(io), fault }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<(), Failure>> {
        Pin::new(&mut self.io).poll_read(cx, buffer).map_err(|_| self.fault)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Failure>> {
        match ready!(Pin::new(&mut self.io).poll_write(cx, bytes)) {
            Ok(0) | Err(_) => Poll::Ready(Err(self.fault)),
            Ok(written) => Poll::Ready(Ok(written)),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Pin::new(&mut self.io).poll_flush(cx).map_err(|_| self.fault)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // One that is gone already is closed enough.
        Pin::new(&mut self.io).poll_shutdown(cx).map(|_closed| ())
    }
}

/// One direction of a tunnel.
struct Way {
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
    fn new() -> Self {
        Self { rest: Bytes::new(), stage: Stage::Copying }
    }

    /// Copies as much as both sides have time for; ready when the sender has closed and the receiver knows.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Side,
        to: &mut Side,
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
        from: &mut Side,
        to: &mut Side,
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
