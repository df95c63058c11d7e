//! gRPC on behalf of guests: frames around their messages, and what comes back told to them as Envoy would (ABI reference §9.3).
//!
//! Each call or stream is a task of its own on the worker. It reads no further than its guest has heard, so a service cannot
//! flood one; a guest that sends faster than its service reads is refused by `core::grpc`. Dropping the task resets the stream.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use portcullis_core::context::{ContextRef, UpstreamId};
use portcullis_core::event::End;
use portcullis_core::grpc::{Begin, FRAME_BYTES, GrpcStatus, Name, News, Sends, Wish};
use portcullis_core::headers::{Headers, strip_hop_by_hop};
use portcullis_core::reply::Failure;
use tokio::task::{AbortHandle, spawn_local};

use crate::config::snapshot::Service;
use crate::message::{Broken, RequestBody};
use crate::upstream::{Answer, Lease, SendError, Tries};
use crate::worker::Worker;

/// A worker's calls and streams.
#[derive(Default)]
pub(crate) struct Streams(RefCell<HashMap<Name, Stream>>);

struct Stream {
    outbox: Option<Rc<Outbox>>,
    task: AbortHandle,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(outbox) = &self.outbox {
            outbox.break_off();
        }
    }
}

/// Does what a guest wants.
pub(crate) fn grant(worker: &Rc<Worker>, wish: Wish) {
    let mut streams = worker.grpc.0.borrow_mut();
    let send = |name: &Name, message: Option<&[u8]>, end: End| {
        if let Some(outbox) = streams.get(name).and_then(|stream| stream.outbox.as_ref()) {
            outbox.put(message, end);
        }
    };
    match wish {
        Wish::Send(name, message, end) => send(&name, Some(&message), end),
        Wish::Close(name) => send(&name, None, End::Yes),
        Wish::Cancel(name) => _ = streams.remove(&name),
        Wish::Abandon(life) => streams.retain(|name, _| name.life != life),
        Wish::Begin(_) if worker.is_ending() => {}
        Wish::Begin(begin) => {
            let name = Name { life: begin.root.life, token: begin.token };
            let outbox = match &begin.sends {
                Sends::One(..) => None,
                Sends::Many(waiting) => Some(Outbox::new(waiting.clone())),
            };
            let task = spawn_local(run(worker.clone(), begin, outbox.clone())).abort_handle();
            streams.insert(name, Stream { outbox, task });
        }
    }
}

async fn run(worker: Rc<Worker>, begin: Begin, outbox: Option<Rc<Outbox>>) {
    let Begin { root, token, upstream, headers, sends } = begin;
    let told = Told { worker: worker.clone(), root, token };
    match (sends, outbox) {
        (Sends::One(message, timeout), _) => {
            let answer = match worker.upstreams.service(upstream) {
                Some(Service::RateLimit) => tokio::time::timeout(timeout, ask(&worker, &headers, &message)).await,
                None => {
                    let body = RequestBody::Whole(Some(framed(&message)), None);
                    tokio::time::timeout(timeout, call(&worker, upstream, headers, body)).await
                }
            };
            let status = || GrpcStatus::new(GrpcStatus::UNAVAILABLE, "upstream request timeout");
            told.tell(answer.unwrap_or_else(|_| Err(status())).map_or_else(News::Ended, News::Message)).await;
        }
        (Sends::Many(_), Some(outbox)) => {
            if let Err(status) = converse(&told, upstream, headers, RequestBody::Messages(outbox)).await {
                told.tell(News::Ended(status)).await;
            }
        }
        (Sends::Many(_), None) => {}
    }
    // Not the task's own end: nobody aborts what is over.
    worker.grpc.0.borrow_mut().remove(&Name { life: root.life, token });
}

/// The guest that asked.
struct Told {
    worker: Rc<Worker>,
    root: ContextRef,
    token: u32,
}

impl Told {
    /// Tells it; whether it still lives.
    async fn tell(&self, news: News) -> bool {
        self.worker.turn_of_vm(self.root.vm).await;
        self.worker.hear(self.root, self.token, news)
    }
}

/// One message each way, within this process.
async fn ask(worker: &Worker, headers: &Headers, message: &[u8]) -> Result<Bytes, GrpcStatus> {
    let path = headers.path().map_or("", |path| path.as_str());
    let answer = worker.limits.answer(path, message).await;
    answer.map(Bytes::from).map_err(|refusal| GrpcStatus::new(refusal as u32, "the rate-limit service refused"))
}

/// One message each way: the answer's, once its status says that all went well.
async fn call(worker: &Worker, upstream: UpstreamId, headers: Headers, body: RequestBody) -> Result<Bytes, GrpcStatus> {
    let mut messages = Messages::of(worker, upstream, headers, body).await?;
    let first = messages.next().await?;
    let another = if first.is_some() { messages.next().await? } else { None };
    let status = messages.status();
    if status.code != GrpcStatus::OK {
        return Err(status);
    }
    match (first, another) {
        (Some(answer), None) => {
            messages.done(worker);
            Ok(answer)
        }
        (None, _) => Err(GrpcStatus::new(GrpcStatus::INTERNAL, "no message in answer to a call")),
        (Some(_), Some(_)) => Err(GrpcStatus::new(GrpcStatus::INTERNAL, "several messages in answer to a call")),
    }
}

/// A stream, until it ends or its guest does. Only a status that has not been told is returned.
async fn converse(told: &Told, upstream: UpstreamId, headers: Headers, body: RequestBody) -> Result<(), GrpcStatus> {
    let mut messages = Messages::of(&told.worker, upstream, headers, body).await?;
    if let Some(head) = messages.head.take() {
        if !told.tell(News::Began(Headers::response(StatusCode::OK, head))).await {
            return Ok(());
        }
        while let Some(message) = messages.next().await? {
            if !told.tell(News::Message(message)).await {
                return Ok(());
            }
        }
    }
    let status = messages.status();
    if let Some(trailers) = messages.trailers.take()
        && !told.tell(News::Trailers(Headers::trailers(trailers))).await
    {
        return Ok(());
    }
    messages.done(&told.worker);
    told.tell(News::Ended(status)).await;
    Ok(())
}

/// An answer, message by message.
struct Messages {
    /// What came before the first; nothing where there is none.
    head: Option<HeaderMap>,
    body: Incoming,
    lease: Lease,
    unread: BytesMut,
    /// What came behind the last.
    trailers: Option<HeaderMap>,
    limit: usize,
}

impl Messages {
    /// Sends a request and waits for the head of its answer.
    async fn of(
        worker: &Worker,
        upstream: UpstreamId,
        headers: Headers,
        body: RequestBody,
    ) -> Result<Self, GrpcStatus> {
        let sent = worker.upstreams.send(upstream, (headers, body), None, &Tries::default(), &worker.clock).await;
        let Answer { response, lease } = sent.map_err(not_answered)?;
        let (mut head, body) = response.into_parts();
        if head.status != StatusCode::OK {
            return Err(GrpcStatus::of_http(head.status));
        }
        strip_hop_by_hop(&mut head.headers);
        // A head that is all there is stands for the trailers.
        let (head, trailers) =
            if body.is_end_stream() { (None, Some(head.headers)) } else { (Some(head.headers), None) };
        Ok(Self { head, body, lease, unread: BytesMut::new(), trailers, limit: worker.callout_limit() })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, GrpcStatus> {
        loop {
            if let Some(message) = self.split()? {
                return Ok(Some(message));
            }
            let frame = poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await;
            match frame.map(|frame| frame.map(http_body::Frame::into_data)) {
                None if self.unread.is_empty() => return Ok(None),
                None => return Err(GrpcStatus::new(GrpcStatus::INTERNAL, "a message broke off")),
                // Envoy's word for a stream that is reset after its head.
                Some(Err(_)) => return Err(GrpcStatus::new(GrpcStatus::INTERNAL, "")),
                Some(Ok(Ok(data))) => self.unread.extend_from_slice(&data),
                Some(Ok(Err(frame))) => self.trailers = frame.into_trailers().ok(),
            }
        }
    }

    /// The first message, if all of it is here.
    fn split(&mut self) -> Result<Option<Bytes>, GrpcStatus> {
        let Some([flag, len @ ..]) = self.unread.first_chunk::<FRAME_BYTES>() else { return Ok(None) };
        if *flag != 0 {
            return Err(GrpcStatus::new(GrpcStatus::INTERNAL, "a message is compressed, which was not asked for"));
        }
        let len = u32::from_be_bytes(*len) as usize;
        if len > self.limit {
            return Err(GrpcStatus::new(GrpcStatus::RESOURCE_EXHAUSTED, "a message is too large"));
        }
        if self.unread.len() < FRAME_BYTES + len {
            return Ok(None);
        }
        Ok(Some(self.unread.split_to(FRAME_BYTES + len).freeze().slice(FRAME_BYTES..)))
    }

    fn status(&self) -> GrpcStatus {
        GrpcStatus::of(self.trailers.as_ref().unwrap_or(&HeaderMap::new()))
    }

    /// It has been read to its end.
    fn done(self, worker: &Worker) {
        self.lease.done(&worker.clock);
    }
}

/// Why there is no answer, in Envoy's words.
fn not_answered(error: SendError) -> GrpcStatus {
    let message = match error {
        SendError::Connect | SendError::ConnectTimeout | SendError::Tls => {
            "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
        }
        SendError::Overloaded => "upstream connect error or disconnect/reset before headers. reset reason: overflow",
        SendError::Reset
        | SendError::Protocol
        | SendError::TryTimeout
        | SendError::NoTunnel
        | SendError::BadRequest => {
            "upstream connect error or disconnect/reset before headers. reset reason: connection termination"
        }
    };
    GrpcStatus::new(GrpcStatus::UNAVAILABLE, message)
}

fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(FRAME_BYTES + message.len());
    frame.put_u8(0);
    // No guest's memory is larger.
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

/// What a guest has sent on a stream and the upstream's connection has not taken.
pub(crate) struct Outbox {
    mail: RefCell<Mail>,
    /// How many bytes there are, for `core::grpc`.
    waiting: Arc<AtomicUsize>,
}

struct Mail {
    messages: VecDeque<Bytes>,
    state: State,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// More may come.
    Open,
    /// Nothing more will.
    Ended,
    /// Nobody wants to send it any more: the upstream must see that it was cut.
    Broken,
}

impl Outbox {
    fn new(waiting: Arc<AtomicUsize>) -> Rc<Self> {
        let mail = Mail { messages: VecDeque::new(), state: State::Open, waker: None };
        Rc::new(Self { mail: RefCell::new(mail), waiting })
    }

    fn put(&self, message: Option<&[u8]>, end: End) {
        let mut mail = self.mail.borrow_mut();
        mail.messages.extend(message.map(framed));
        if end.is_end() {
            mail.state = State::Ended;
        }
        mail.wake();
    }

    fn break_off(&self) {
        let mut mail = self.mail.borrow_mut();
        mail.state = State::Broken;
        mail.wake();
    }

    /// The next message in its frame; nothing when there will be none.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        let mut mail = self.mail.borrow_mut();
        if mail.state == State::Broken {
            return Poll::Ready(Some(Err(Broken(Failure::FilterClosed))));
        }
        if let Some(message) = mail.messages.pop_front() {
            self.waiting.fetch_sub(message.len(), Ordering::Relaxed);
            return Poll::Ready(Some(Ok(message)));
        }
        if mail.state == State::Ended {
            return Poll::Ready(None);
        }
        mail.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether there is nothing left and nothing to come.
    pub(crate) fn is_over(&self) -> bool {
        let mail = self.mail.borrow();
        mail.state == State::Ended && mail.messages.is_empty()
    }
}

impl Mail {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
