//! What it takes to send a request once more: a copy of its head, and as much of its body as has been sent.
//!
//! A body is kept while it is sent, up to [`Limits::retry_body_bytes`]; a larger one is let go, and its request is not tried
//! again. **Invariant:** only the latest reader of a kept body gets anything of it, so that no byte goes to two tries, or to none.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Request, request};
use http_body::{Body, Frame, SizeHint};
use portcullis_core::limits::Limits;
use portcullis_core::reply::Failure;

use crate::message::{Broken, RequestBody};

/// A request that can be made again.
pub(super) struct Spare {
    head: request::Parts,
    body: SpareBody,
}

enum SpareBody {
    Empty,
    Whole(Bytes, Option<HeaderMap>),
    Kept(Rc<RefCell<Kept>>),
}

impl Spare {
    /// Keeps what it takes, and hands the request back to be sent.
    pub(super) fn of(request: Request<RequestBody>) -> (Request<RequestBody>, Self) {
        let (head, body) = request.into_parts();
        let (body, spare) = match body {
            RequestBody::Empty => (RequestBody::Empty, SpareBody::Empty),
            RequestBody::Whole(body, trailers) => {
                let spare = SpareBody::Whole(body.clone().unwrap_or_default(), trailers.clone());
                (RequestBody::Whole(body, trailers), spare)
            }
            RequestBody::Kept(replay) => {
                let kept = replay.kept.clone();
                (RequestBody::Kept(replay), SpareBody::Kept(kept))
            }
            body @ (RequestBody::Passing(..) | RequestBody::Fed(..) | RequestBody::Messages(_)) => {
                let kept = Rc::new(RefCell::new(Kept::new(body)));
                (RequestBody::Kept(Replay { kept: kept.clone(), reader: 0, next: 0 }), SpareBody::Kept(kept))
            }
        };
        (Request::from_parts(head.clone(), body), Self { head, body: spare })
    }

    /// The method.
    pub(super) fn method(&self) -> &http::Method {
        &self.head.method
    }

    /// Whether [`Self::again`] gives a request.
    pub(super) fn is_whole(&self) -> bool {
        match &self.body {
            SpareBody::Empty | SpareBody::Whole(..) => true,
            SpareBody::Kept(kept) => kept.borrow().state == State::Whole,
        }
    }

    /// The request once more, from its beginning.
    pub(super) fn again(self) -> Option<Request<RequestBody>> {
        let body = match self.body {
            SpareBody::Empty => RequestBody::Empty,
            SpareBody::Whole(body, trailers) => RequestBody::Whole(Some(body), trailers),
            SpareBody::Kept(kept) => RequestBody::Kept(Replay::from_the_beginning(kept)?),
        };
        Some(Request::from_parts(self.head, body))
    }
}

/// A body, and what has been sent of it.
struct Kept {
    body: RequestBody,
    pieces: Vec<Piece>,
    bytes: usize,
    state: State,
    ended: bool,
    /// The number of the reader that gets what there is.
    reader: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// All that was sent is here.
    Whole,
    /// It was too much, or the client broke off.
    Lost,
}

enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Piece {
    fn frame(&self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data.clone()),
            Self::Trailers(fields) => Frame::trailers(fields.clone()),
        }
    }
}

impl Kept {
    fn new(body: RequestBody) -> Self {
        Self { body, pieces: Vec::new(), bytes: 0, state: State::Whole, ended: false, reader: 0 }
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        if self.state == State::Lost {
            return;
        }
        let piece = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Piece::Data(data.clone()),
            (None, Some(fields)) => Piece::Trailers(fields.clone()),
            (None, None) => return,
        };
        if let Piece::Data(data) = &piece {
            self.bytes += data.len();
        }
        self.pieces.push(piece);
        if self.bytes > Limits::DEFAULT.retry_body_bytes {
            self.lose();
        }
    }

    fn lose(&mut self) {
        self.state = State::Lost;
        self.pieces = Vec::new();
    }
}

/// A reader of a kept body.
pub(crate) struct Replay {
    kept: Rc<RefCell<Kept>>,
    reader: u32,
    next: usize,
}

impl Replay {
    fn from_the_beginning(kept: Rc<RefCell<Kept>>) -> Option<Self> {
        let reader = {
            let mut kept = kept.borrow_mut();
            if kept.state == State::Lost {
                return None;
            }
            kept.reader += 1;
            kept.reader
        };
        Some(Self { kept, reader, next: 0 })
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let mut kept = self.kept.borrow_mut();
        if kept.reader != self.reader {
            // An earlier try's connection still asks; what there is belongs to the later one.
            return Poll::Ready(Some(Err(Broken(Failure::UpstreamReset))));
        }
        if let Some(piece) = kept.pieces.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(piece.frame())));
        }
        if kept.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut kept.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                kept.keep(frame);
                self.next += 1;
            }
            Some(Err(_)) => kept.lose(),
            None => kept.ended = true,
        }
        Poll::Ready(frame)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        let kept = self.kept.borrow();
        self.next >= kept.pieces.len() && (kept.ended || kept.body.is_end_stream())
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        let kept = self.kept.borrow();
        let data = |piece: &Piece| match piece {
            Piece::Data(data) => data.len() as u64,
            Piece::Trailers(_) => 0,
        };
        let here: u64 = kept.pieces.iter().skip(self.next).map(data).sum();
        let mut hint = kept.body.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(here));
        }
        hint.set_lower(hint.lower().saturating_add(here));
        hint
    }
}
