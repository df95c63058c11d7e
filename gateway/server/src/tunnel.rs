//! Tunnels: what becomes of an exchange when its client and its upstream have both left HTTP.
//!
//! [`Leaving`] accompanies a request that asks for one, from its admission to the answer; [`Leaving::open`] then copies bytes
//! both ways until both sides have closed. Nothing is read that the other side has not taken, and a tunnel that is silent holds
//! no buffer. Which upgrades are honoured, and what counts as an answer, is decided in [`portcullis_core::upgrade`].

use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::{HeaderMap, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use portcullis_core::event::{Direction, Effect};
use portcullis_core::exchange::ExchangeId;
use portcullis_core::headers::Headers;
use portcullis_core::reply::Failure;
use portcullis_core::upgrade::{self, Asked, Handshake, Spoken, Verdict};
use tokio::task::spawn_local;

use crate::copy::{Side, Way};
use crate::listener::Connection;
use crate::upstream::Lease;
use crate::websocket;
use crate::worker::{Ticket, Worker};

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
    pub(crate) fn open(self, mut ticket: Ticket, lease: Option<Lease>, connection: Option<Rc<Connection>>) {
        let (worker, id) = ticket.parts();
        worker.open_tunnel(id, self.idle);
        spawn_local(async move {
            // The connection, where it is this worker's, counts as open, and its endpoint as busy, for as long as its tunnel is.
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
        let mut client = Side::new(TokioIo::new(client), Failure::ClientGone);
        let mut upstream = Side::new(TokioIo::new(upstream), Failure::UpstreamReset);
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

/// Runs until the exchange is told to break off: its tunnel, or its TCP connection, was silent for too long, or a filter closed it.
pub(crate) async fn until_broken_off<T>(
    worker: &Worker,
    id: ExchangeId,
    tunnel: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
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
