//! gRPC: calls and streams that filters make, answered by the same stubs as HTTP callouts.
//!
//! A call is one request to its stub, whose body is the message: what the stub answers is the answer's. A stream is shown to its
//! stub piece by piece: the head, each message, the end, which alone is `complete`. What the stub answers to a piece are
//! messages, one for each chunk. The stream ends after the end's answer, or sooner after one that has a `grpc-status` trailer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use portcullis_core::context::{ContextRef, UpstreamId};
use portcullis_core::event::End;
use portcullis_core::grpc::{Begin, FRAME_BYTES, GrpcStatus, Name, News, Sends, Wish};
use portcullis_core::headers::Headers;

use super::{Call, Due, Guests, Simulation, Waiting};
use crate::seen::Seen;
use crate::sent::{Reply, fields};

/// A stream that has been opened.
pub(super) struct Open {
    root: ContextRef,
    token: u32,
    upstream: UpstreamId,
    /// The head of each piece that its stub is shown.
    head: Seen,
    /// Bytes that wait to be sent, as the filter's host counts them.
    unsent: Arc<AtomicUsize>,
}

impl Open {
    fn name(&self) -> Name {
        Name { life: self.root.life, token: self.token }
    }
}

impl<G: Guests> Simulation<G> {
    pub(super) fn grant_wishes(&mut self) {
        for wish in std::mem::take(&mut self.exchanges.grpc) {
            match wish {
                Wish::Begin(begin) => self.begin(begin),
                Wish::Send(name, message, end) => self.piece(name, Some(message), end),
                Wish::Close(name) => self.piece(name, None, End::Yes),
                Wish::Cancel(name) => self.forget(|other| other == name),
                Wish::Abandon(life) => self.forget(|other| other.life == life),
            }
        }
    }

    fn forget(&mut self, which: impl Fn(Name) -> bool) {
        self.streams.retain(|stream| !which(stream.name()));
        self.waiting.retain(|waiting| {
            let name = Name { life: waiting.root.life, token: waiting.token };
            matches!(waiting.what, Due::Response(_)) || !which(name)
        });
    }

    fn begin(&mut self, begin: Begin) {
        let Begin { root, token, upstream, headers, sends } = begin;
        let head = Seen::of(&headers);
        match sends {
            Sends::One(message, timeout) => {
                let request = Seen { body: message.to_vec(), complete: true, ..head };
                let Some(reply) = self.ask(upstream, request) else { return };
                let late = reply.delay > timeout;
                let status = GrpcStatus::new(GrpcStatus::UNAVAILABLE, "upstream request timeout");
                let news = if late { News::Ended(status) } else { answer(&reply) };
                self.tell(root, token, reply.delay.min(timeout), news);
            }
            Sends::Many(unsent) => {
                self.streams.push(Open { root, token, upstream, head: head.clone(), unsent });
                let Some(reply) = self.ask(upstream, head) else { return };
                self.tell(root, token, reply.delay, News::Began(reply.head()));
                self.answer_piece(Name { life: root.life, token }, &reply, End::No);
            }
        }
    }

    /// Shows a stream's stub something that the filter has sent.
    fn piece(&mut self, name: Name, message: Option<Bytes>, end: End) {
        let Some(stream) = self.streams.iter().find(|stream| stream.name() == name) else { return };
        let (upstream, head, unsent) = (stream.upstream, stream.head.clone(), stream.unsent.clone());
        if let Some(message) = message {
            unsent.fetch_sub(message.len() + FRAME_BYTES, Ordering::Relaxed);
            let Some(reply) = self.ask(upstream, Seen { body: message.to_vec(), ..head.clone() }) else { return };
            self.answer_piece(name, &reply, End::No);
        }
        if end.is_end() {
            let Some(reply) = self.ask(upstream, Seen { complete: true, ..head }) else { return };
            self.answer_piece(name, &reply, End::Yes);
        }
    }

    fn answer_piece(&mut self, name: Name, reply: &Reply, end: End) {
        let Some(at) = self.streams.iter().position(|stream| stream.name() == name) else { return };
        let Some(Open { root, token, .. }) = self.streams.get(at) else { return };
        let (root, token) = (*root, *token);
        for chunk in &reply.chunks {
            self.tell(root, token, reply.delay, News::Message(chunk.clone()));
        }
        let trailers = fields(&reply.trailers);
        if !end.is_end() && !trailers.contains_key("grpc-status") && !reply.breaks_off {
            return;
        }
        self.streams.remove(at);
        if !trailers.is_empty() {
            self.tell(root, token, reply.delay, News::Trailers(Headers::trailers(trailers)));
        }
        self.tell(root, token, reply.delay, News::Ended(status(reply)));
    }

    /// Asks an upstream's stub, and notes that.
    fn ask(&mut self, upstream: UpstreamId, request: Seen) -> Option<Reply> {
        let (name, stub) = self.upstreams.get_mut(upstream.0 as usize)?;
        let reply = stub(&request);
        self.calls.push(Call { upstream: name.clone(), request });
        Some(reply)
    }

    fn tell(&mut self, root: ContextRef, token: u32, delay: Duration, news: News) {
        self.waiting.push(Waiting { due: self.exchanges.now + delay, root, token, what: Due::News(news) });
    }
}

/// What comes of a call.
fn answer(reply: &Reply) -> News {
    let status = status(reply);
    if status.code == GrpcStatus::OK { News::Message(reply.chunks.concat().into()) } else { News::Ended(status) }
}

/// All is well unless the stub says otherwise.
fn status(reply: &Reply) -> GrpcStatus {
    let trailers = fields(&reply.trailers);
    match StatusCode::from_u16(reply.status) {
        _ if reply.breaks_off => GrpcStatus::new(GrpcStatus::INTERNAL, ""),
        Ok(StatusCode::OK) if trailers.contains_key("grpc-status") => GrpcStatus::of(&trailers),
        Ok(StatusCode::OK) => GrpcStatus::new(GrpcStatus::OK, ""),
        Ok(other) => GrpcStatus::of_http(other),
        Err(_) => GrpcStatus::new(GrpcStatus::UNKNOWN, ""),
    }
}
