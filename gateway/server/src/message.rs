//! Bodies on their way: the request's, which the upstream's connection pulls, and the response's, which the client's pulls.
//!
//! Nothing is pushed, so back-pressure needs no mechanism of its own: a side that does not ask gets nothing, and a side whose
//! filters have stopped does not ask. A body that no filter watches goes past the exchange untouched; otherwise each piece is
//! fed to it, and what comes out is handed on.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use portcullis_core::event::{Direction, Effect, End, Event, Part};
use portcullis_core::exchange::{ExchangeId, Wants};
use portcullis_core::reply::Failure;

use crate::bulkhead::CarriedBody;
use crate::grpc::Outbox;
use crate::upstream::{Lease, Replay, failure_of};
use crate::worker::{Ticket, Worker};

/// A stream was broken off; the peer must see that it was.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the stream was broken off: {}", .0.code())]
pub(crate) struct Broken(pub(crate) Failure);

/// What a client did when its body could not be read to the end.
pub(crate) fn blamed(error: &hyper::Error) -> Failure {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    match cause.map(std::io::Error::kind) {
        // The framing is wrong: the inspector says so, or the library.
        Some(std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput) => Failure::BadFraming,
        _ => Failure::ClientGone,
    }
}

/// The body of a request to an upstream.
pub(crate) enum RequestBody {
    /// There is none.
    Empty,
    /// All of it is here: a callout's.
    Whole(Option<Bytes>, Option<HeaderMap>),
    /// It passes untouched.
    Passing(Rc<Worker>, ExchangeId, Incoming),
    /// Its filters see it.
    Fed(Rc<Worker>, ExchangeId, Source),
    /// It is kept on the way, so that it can be sent again.
    Kept(Replay),
    /// A guest's gRPC messages, as it sends them.
    Messages(Rc<Outbox>),
}

/// What is left to read of a message.
pub(crate) struct Source(Option<Incoming>);

impl Source {
    pub(crate) fn new(body: Incoming) -> Self {
        Self(Some(body))
    }

    /// Nothing: what there was has been read.
    pub(crate) fn ended() -> Self {
        Self(None)
    }

    /// The body as it is, if nothing of it has been read.
    pub(crate) fn into_body(self) -> Option<Incoming> {
        self.0
    }

    /// The next part; an end without a piece of body is a part too.
    pub(crate) fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, hyper::Error>>> {
        let Some(body) = &mut self.0 else { return Poll::Ready(None) };
        loop {
            let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
            let part = match frame.map(|frame| frame.map(Frame::into_data)) {
                None => Ok(Part::Body(Bytes::new(), End::Yes)),
                Some(Err(error)) => Err(error),
                Some(Ok(Ok(data))) if data.is_empty() && !body.is_end_stream() => continue,
                Some(Ok(Ok(data))) => Ok(Part::Body(data, End::from_bool(body.is_end_stream()))),
                Some(Ok(Err(frame))) => match frame.into_trailers() {
                    Ok(trailers) => Ok(Part::Trailers(trailers)),
                    Err(_) => continue,
                },
            };
            if part.as_ref().map_or(true, |part| part.end().is_end()) {
                self.0 = None;
            }
            return Poll::Ready(Some(part));
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Whole(body, trailers) => {
                let body = body.take().filter(|body| !body.is_empty()).map(Frame::data);
                Poll::Ready(body.or_else(|| trailers.take().map(Frame::trailers)).map(Ok))
            }
            Self::Passing(worker, id, body) => {
                if worker.wants(*id, Direction::Request) == Wants::Closed {
                    // The response has ended: nobody counts, or times, what would still be sent.
                    return Poll::Ready(Some(Err(Broken(Failure::ClientGone))));
                }
                worker.wait(*id, Direction::Request, cx);
                let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else {
                    worker.waits_for_client(*id);
                    return Poll::Pending;
                };
                match &frame {
                    Some(Ok(frame)) => {
                        let bytes = frame.data_ref().map_or(0, Bytes::len);
                        worker.passed(*id, Direction::Request, bytes as u64);
                    }
                    Some(Err(error)) => worker.blame(*id, blamed(error)),
                    None => {}
                }
                let is_last = |frame: &Result<Frame<Bytes>, _>| frame.as_ref().is_ok_and(Frame::is_trailers);
                if frame.as_ref().is_none_or(is_last) || body.is_end_stream() {
                    worker.passed_all(*id);
                }
                Poll::Ready(frame.map(|frame| frame.map_err(|error| Broken(blamed(&error)))))
            }
            Self::Fed(worker, id, source) => poll_fed_request(worker, *id, source, cx),
            Self::Kept(replay) => replay.poll(cx),
            Self::Messages(outbox) => outbox.poll(cx).map(|message| message.map(|message| message.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(body, trailers) => body.as_ref().is_none_or(Bytes::is_empty) && trailers.is_none(),
            Self::Passing(_, _, body) => body.is_end_stream(),
            Self::Fed(..) => false,
            Self::Kept(replay) => replay.is_end_stream(),
            Self::Messages(outbox) => outbox.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(body, _) => SizeHint::with_exact(body.as_ref().map_or(0, Bytes::len) as u64),
            Self::Passing(_, _, body) => body.size_hint(),
            Self::Fed(..) | Self::Messages(_) => SizeHint::default(),
            Self::Kept(replay) => replay.size_hint(),
        }
    }
}

fn poll_fed_request(
    worker: &Rc<Worker>,
    id: ExchangeId,
    source: &mut Source,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
    loop {
        match worker.next_effect(id, Direction::Request) {
            Some(Effect::Send(Part::Head(..))) => {}
            Some(Effect::Send(Part::Body(data, End::No))) => {
                // It has been counted; what is noted is that the upstream is to take it.
                worker.passed(id, Direction::Request, 0);
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            Some(Effect::Send(Part::Body(data, End::Yes))) if data.is_empty() => return Poll::Ready(None),
            Some(Effect::Send(Part::Body(data, End::Yes))) => return Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(Effect::Send(Part::Trailers(fields))) => return Poll::Ready(Some(Ok(Frame::trailers(fields)))),
            Some(Effect::Abort(failure)) => return Poll::Ready(Some(Err(Broken(failure)))),
            None => match worker.wants(id, Direction::Request) {
                Wants::Nothing => return Poll::Ready(None),
                Wants::Closed => return Poll::Ready(Some(Err(Broken(Failure::ClientGone)))),
                Wants::Wait => {
                    worker.wait(id, Direction::Request, cx);
                    return Poll::Pending;
                }
                Wants::More => {
                    // Filters may have something to send while the client is silent.
                    worker.wait(id, Direction::Request, cx);
                    let Poll::Ready(part) = source.poll_part(cx) else {
                        worker.waits_for_client(id);
                        return Poll::Pending;
                    };
                    match part {
                        Some(Ok(part)) => worker.feed(id, Event::Request(part)),
                        Some(Err(error)) => {
                            worker.blame(id, blamed(&error));
                            return Poll::Ready(Some(Err(Broken(blamed(&error)))));
                        }
                        None => return Poll::Pending,
                    }
                }
            },
        }
    }
}

/// The body of a response to a client. Owns the exchange's end: when it is done or dropped, the exchange ends.
pub(crate) struct ResponseBody {
    /// Absent where somebody else ends the exchange: its tunnel.
    ticket: Option<Ticket>,
    source: ResponseSource,
    lease: Option<Lease>,
    ended: bool,
}

/// Where a response's body comes from.
pub(crate) enum ResponseSource {
    /// Nowhere: all there is has been fed to the exchange, or there is none.
    Exchange,
    /// It passes untouched.
    Passing(Incoming),
    /// Its filters see it.
    Fed(Source),
    /// It has been through its exchange on another worker.
    Carried(CarriedBody),
}

impl ResponseBody {
    pub(crate) fn new(ticket: Ticket, source: ResponseSource, lease: Option<Lease>, end: End) -> Self {
        let mut body = Self { ticket: Some(ticket), source, lease, ended: false };
        if end.is_end() {
            body.finish();
        }
        body
    }

    /// No body, of a response that does not end its exchange.
    pub(crate) fn none() -> Self {
        Self { ticket: None, source: ResponseSource::Exchange, lease: None, ended: true }
    }

    /// The body of a response whose exchange is another worker's.
    pub(crate) fn carried(body: CarriedBody) -> Self {
        let ended = body.is_over();
        Self { ticket: None, source: ResponseSource::Carried(body), lease: None, ended }
    }

    /// The response is complete.
    fn finish(&mut self) {
        self.ended = true;
        let read_to_end = match &self.source {
            // A lease without a body: there was nothing to read behind the head.
            ResponseSource::Exchange | ResponseSource::Carried(_) => true,
            ResponseSource::Passing(body) => body.is_end_stream(),
            ResponseSource::Fed(source) => source.0.as_ref().is_none_or(Incoming::is_end_stream),
        };
        let Some(ticket) = &mut self.ticket else { return };
        let (worker, id) = ticket.parts();
        if let Some(lease) = self.lease.take()
            && read_to_end
            && worker.request_is_sent(id)
        {
            lease.done(ticket.clock());
        }
        ticket.finish();
    }

    fn broken(&mut self, failure: Failure) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.ended = true;
        self.lease = None;
        if let Some(ticket) = &mut self.ticket {
            ticket.fail(failure);
        }
        Poll::Ready(Some(Err(Broken(failure))))
    }

    fn poll_passing(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let ResponseSource::Passing(body) = &mut self.source else { return Poll::Ready(None) };
        // A filter may close the stream, or a deadline may pass, while the upstream is silent.
        let Some((worker, id)) = self.ticket.as_ref().map(Ticket::parts) else { return Poll::Ready(None) };
        if let Some(Effect::Abort(failure)) = worker.next_effect(id, Direction::Response) {
            return self.broken(failure);
        }
        match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Pending => {
                worker.wait(id, Direction::Response, cx);
                Poll::Pending
            }
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => self.broken(failure_of(&error)),
            Poll::Ready(Some(Ok(frame))) => {
                let ends = body.is_end_stream() || frame.is_trailers();
                worker.passed(id, Direction::Response, frame.data_ref().map_or(0, Bytes::len) as u64);
                if ends {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn poll_carried(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let ResponseSource::Carried(body) = &mut self.source else { return Poll::Ready(None) };
        let piece = match (body.first.take(), &mut body.rest) {
            (Some(first), _) => first,
            // One that ends without saying so has been broken off.
            (None, Some(rest)) => ready!(rest.poll_recv(cx)).unwrap_or(Err(Broken(Failure::UpstreamReset))),
            (None, None) => Ok(None),
        };
        self.ended = body.is_over() || !matches!(piece, Ok(Some(_)));
        Poll::Ready(piece.transpose())
    }

    fn poll_fed(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Some((worker, id)) = self.ticket.as_ref().map(Ticket::parts) else { return Poll::Ready(None) };
        loop {
            match worker.next_effect(id, Direction::Response) {
                Some(Effect::Send(Part::Head(..))) => {}
                Some(Effect::Send(Part::Body(data, end))) => {
                    if end.is_end() {
                        self.finish();
                    }
                    return Poll::Ready((!data.is_empty()).then_some(Ok(Frame::data(data))));
                }
                Some(Effect::Send(Part::Trailers(fields))) => {
                    self.finish();
                    return Poll::Ready(Some(Ok(Frame::trailers(fields))));
                }
                Some(Effect::Abort(failure)) => return self.broken(failure),
                None => {
                    worker.wait(id, Direction::Response, cx);
                    match worker.wants(id, Direction::Response) {
                        Wants::Nothing => {
                            self.finish();
                            return Poll::Ready(None);
                        }
                        Wants::Closed => return self.broken(Failure::UpstreamReset),
                        Wants::Wait => return Poll::Pending,
                        Wants::More => {
                            let ResponseSource::Fed(source) = &mut self.source else { return Poll::Pending };
                            match ready!(source.poll_part(cx)) {
                                Some(Ok(part)) => worker.feed(id, Event::Response(part)),
                                Some(Err(error)) => return self.broken(failure_of(&error)),
                                None => return Poll::Pending,
                            }
                        }
                    }
                }
            }
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let body = self.get_mut();
        if body.ended {
            return Poll::Ready(None);
        }
        match body.source {
            ResponseSource::Passing(_) => body.poll_passing(cx),
            ResponseSource::Carried(_) => body.poll_carried(cx),
            ResponseSource::Exchange | ResponseSource::Fed(_) => body.poll_fed(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}
