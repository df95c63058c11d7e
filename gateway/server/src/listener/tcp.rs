//! TCP connections: passed on to an upstream and back, through the filters that look at them.
//!
//! A connection is an exchange without heads ([`portcullis_core::chain`]). Its filters see the client's connection before the
//! upstream's is made, and may hold that back. A direction that no filter looks at is copied; the other is read piece by piece, as
//! the exchange wants it, and what the filters let pass is written. Back-pressure is *not reading*: neither where the other side
//! does not take what was read, nor where a filter holds as much as it may.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::HeaderValue;
use portcullis_core::context::UpstreamId;
use portcullis_core::event::{Direction, Effect, End, Event, Part};
use portcullis_core::exchange::{ExchangeId, Facts, Reached, Wants};
use portcullis_core::reply::Failure;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::clients::Member;
use super::gate::Permit;
use super::watched::Transport;
use super::{Connection, Ended};
use crate::copy::{PIECE, Side, Way};
use crate::tunnel::until_broken_off;
use crate::upstream::Raw;
use crate::worker::{Opening, Ticket, Tie, Worker};

/// Serves a connection from when it may speak to when both sides have closed.
pub(super) async fn serve<S: Transport>(
    worker: &Rc<Worker>,
    member: &Member,
    client: S,
    connection: Connection,
    permit: Permit,
) -> Ended {
    let revision = worker.revision();
    // A listener that has changed its mind since this connection was accepted has nowhere to send it.
    let Some((spot, target)) = revision.table.tcp(&member.clients.settings.name) else { return Ok(()) };
    let facts = Facts {
        source: connection.address,
        destination: connection.local,
        protocol: "",
        connection_id: connection.id,
        request_id: HeaderValue::from_static(""),
        tls: connection.tls.clone(),
        place: spot.place.clone(),
        patience: connection.patience(),
        trace: None,
    };
    let account = spot.account.clone();
    let Ok(admitted) = account.as_ref().map(|account| account.admit(worker.clock.now())).transpose() else {
        // A connection has no other answer.
        return Ok(());
    };
    let (chain, tie) = (spot.chain.clone(), Tie::Lane(member.client.lane.clone()));
    let opening =
        Opening { revision: revision.clone(), chain, facts, began: None, request: None, tie, account, admitted };
    let mut ticket = worker.open(opening);
    let mut client = Side::new(client, Failure::ClientGone);
    let passed = pass(&ticket, &mut client, target).await;
    // What has been written is to arrive before the end does.
    poll_fn(|cx| client.poll_shutdown(cx)).await;
    match passed {
        Ok(()) => ticket.finish(),
        Err(failure) => ticket.fail(failure),
    }
    // It counts as open for as long as it is.
    drop((connection, permit));
    Ok(())
}

async fn pass<S: Transport>(ticket: &Ticket, client: &mut Side<S>, target: UpstreamId) -> Result<(), Failure> {
    let (worker, id) = ticket.parts();
    let worker = &worker;
    worker.feed(id, Event::Accepted);
    let mut up = Fed::new(Direction::Request);
    until_broken_off(worker, id, poll_fn(|cx| up.poll_until_let_in(cx, worker, id, client))).await?;
    let begun = worker.clock.now();
    let connecting = async { worker.upstreams.connect(target, &worker.clock).await.map_err(Failure::from) };
    let Raw { stream, address, endpoints, held } = until_broken_off(worker, id, connecting).await?;
    let _held = held;
    ticket.reached(Reached { endpoints, waited: worker.clock.now().saturating_since(begun) });
    worker.feed(id, Event::Connected(address));
    let mut upstream = Side::new(stream, Failure::UpstreamReset);
    let mut down = Passage::new(Fed::new(Direction::Response), worker, id);
    let mut up = Passage::new(up, worker, id);
    let both = poll_fn(|cx| {
        let up = up.poll(cx, worker, id, client, &mut upstream)?;
        let down = down.poll(cx, worker, id, &mut upstream, client)?;
        if up.is_ready() && down.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    });
    // Where the response is fed, it is broken off behind what has passed.
    if worker.watches_body(id, Direction::Response) { both.await } else { until_broken_off(worker, id, both).await }
}

/// How one direction passes.
enum Passage {
    /// Every piece is shown to the filters.
    Fed(Fed),
    /// Nobody looks at it.
    Copied(Direction, Way),
}

impl Passage {
    fn new(fed: Fed, worker: &Worker, id: ExchangeId) -> Self {
        let direction = fed.direction;
        // What was read while the connection was held back lies in the exchange.
        if fed.has_begun || worker.watches_body(id, direction) {
            Self::Fed(fed)
        } else {
            Self::Copied(direction, Way::new())
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Rc<Worker>,
        id: ExchangeId,
        from: &mut Side<impl AsyncRead + AsyncWrite + Unpin>,
        to: &mut Side<impl AsyncRead + AsyncWrite + Unpin>,
    ) -> Poll<Result<(), Failure>> {
        match self {
            Self::Fed(fed) => fed.poll(cx, worker, id, from, to),
            Self::Copied(direction, way) => {
                ready!(way.poll(cx, from, to, |bytes| worker.passed(id, *direction, bytes)))?;
                if *direction == Direction::Request {
                    worker.passed_all(id);
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

/// One direction that filters look at.
struct Fed {
    direction: Direction,
    /// What has passed the filters and was not taken yet.
    rest: Bytes,
    stage: Stage,
    /// Something was read.
    has_begun: bool,
    /// Its sender has closed its side.
    is_read: bool,
}

/// How far the receiver is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It gets what comes.
    Open,
    /// It has all, and is to hear of the end.
    Ending,
    Closed,
    /// The connection is broken off, which the other direction says when it has sent what has passed.
    Cut,
}

impl Fed {
    fn new(direction: Direction) -> Self {
        Self { direction, rest: Bytes::new(), stage: Stage::Open, has_begun: false, is_read: false }
    }

    /// Shows filters what the client sends until they let the connection in.
    fn poll_until_let_in(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Rc<Worker>,
        id: ExchangeId,
        client: &mut Side<impl AsyncRead + AsyncWrite + Unpin>,
    ) -> Poll<Result<(), Failure>> {
        while !worker.is_let_in(id) {
            worker.wait(id, Direction::Request, cx);
            if worker.has_reply(id) {
                return Poll::Pending;
            }
            ready!(self.poll_feed(cx, worker, id, client))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads a piece where one is wanted, and shows it to the filters.
    fn poll_feed(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Rc<Worker>,
        id: ExchangeId,
        from: &mut Side<impl AsyncRead + AsyncWrite + Unpin>,
    ) -> Poll<Result<(), Failure>> {
        if self.is_read || worker.wants(id, self.direction) != Wants::More {
            return Poll::Pending;
        }
        let mut space = [MaybeUninit::uninit(); PIECE];
        let mut piece = ReadBuf::uninit(&mut space);
        ready!(from.poll_read(cx, &mut piece))?;
        let piece = Bytes::copy_from_slice(piece.filled());
        (self.has_begun, self.is_read) = (true, piece.is_empty());
        let part = Part::Body(piece, End::from_bool(self.is_read));
        worker.feed(id, Event::part(self.direction, part));
        Poll::Ready(Ok(()))
    }

    /// Passes on what the filters let pass; ready when the receiver knows that there is no more.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Rc<Worker>,
        id: ExchangeId,
        from: &mut Side<impl AsyncRead + AsyncWrite + Unpin>,
        to: &mut Side<impl AsyncRead + AsyncWrite + Unpin>,
    ) -> Poll<Result<(), Failure>> {
        loop {
            while !self.rest.is_empty() {
                let written = ready!(to.poll_write(cx, &self.rest))?;
                self.rest.advance(written);
            }
            match self.stage {
                Stage::Open => {}
                Stage::Ending => {
                    ready!(to.poll_shutdown(cx));
                    self.stage = Stage::Closed;
                }
                Stage::Closed => return Poll::Ready(Ok(())),
                Stage::Cut => return Poll::Pending,
            }
            worker.wait(id, self.direction, cx);
            match worker.next_effect(id, self.direction) {
                Some(Effect::Send(Part::Body(data, end))) => {
                    self.rest = data;
                    if end.is_end() {
                        self.stage = Stage::Ending;
                    }
                    continue;
                }
                Some(Effect::Abort(_)) if self.direction == Direction::Request => {
                    self.stage = Stage::Cut;
                    continue;
                }
                Some(Effect::Abort(failure)) => {
                    ready!(to.poll_flush(cx))?;
                    return Poll::Ready(Err(failure));
                }
                Some(Effect::Send(Part::Head(..) | Part::Trailers(_))) => continue,
                None => {}
            }
            if self.stage == Stage::Open {
                let fed = self.poll_feed(cx, worker, id, from)?;
                if fed.is_pending() {
                    // What was written may still be in a buffer of the connection's own.
                    ready!(to.poll_flush(cx))?;
                    return Poll::Pending;
                }
            }
        }
    }
}
