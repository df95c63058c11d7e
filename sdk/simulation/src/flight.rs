//! One exchange on its way: what is still to be fed, and what has come out.

use std::collections::VecDeque;

use bytes::Bytes;
use portcullis_core::event::{Direction, Effect, End, Part};
use portcullis_core::exchange::{Exchange, ExchangeId, Wants};
use portcullis_core::limits::Limits;
use portcullis_core::time::Time;

use crate::seen::{Outcome, Seen, pairs};
use crate::sent::{Reply, Request, fields};

pub(crate) struct Flight {
    pub(crate) id: ExchangeId,
    pub(crate) began: Time,
    pub(crate) gone_at: Option<Time>,
    request: VecDeque<Part>,
    response: VecDeque<Part>,
    /// When the upstream's answer begins.
    pub(crate) responds_at: Option<Time>,
    pub(crate) upstream: Option<Seen>,
    pub(crate) reply: Seen,
    pub(crate) over: bool,
    /// When it was over.
    pub(crate) ended: Option<Time>,
    pub(crate) asked: bool,
}

/// A gateway reads no more at once.
const READ: usize = 64 << 10;

/// A message as parts, in order.
fn parts(head: Part, chunks: &[Bytes], trailers: &[(String, Vec<u8>)]) -> VecDeque<Part> {
    let mut parts = VecDeque::from([head]);
    for chunk in chunks {
        let mut rest = chunk.clone();
        while rest.len() > READ {
            parts.push_back(Part::Body(rest.split_to(READ), End::No));
        }
        parts.push_back(Part::Body(rest, End::No));
    }
    if trailers.is_empty()
        && let Some(Part::Body(_, end)) = parts.back_mut()
    {
        *end = End::Yes;
    }
    if !trailers.is_empty() {
        parts.push_back(Part::Trailers(fields(trailers)));
    }
    parts
}

impl Flight {
    pub(crate) fn new(id: ExchangeId, request: &Request, now: Time) -> Self {
        let end = End::from_bool(request.chunks.is_empty() && request.trailers.is_empty());
        Self {
            id,
            began: now,
            gone_at: request.gone_after.map(|time| now + time),
            request: parts(Part::Head(request.head(), end), &request.chunks, &request.trailers),
            response: VecDeque::new(),
            responds_at: None,
            upstream: None,
            reply: Seen::default(),
            over: false,
            ended: None,
            asked: false,
        }
    }

    /// Takes in the upstream's answer.
    pub(crate) fn answer(&mut self, reply: &Reply, now: Time) {
        let end = End::from_bool(reply.chunks.is_empty() && reply.trailers.is_empty() && !reply.breaks_off);
        self.response = parts(Part::Head(reply.head(), end), &reply.chunks, &reply.trailers);
        self.responds_at = Some(now + reply.delay);
    }

    /// The next part that the exchange has room for, and its direction.
    pub(crate) fn next_part(&mut self, exchange: &Exchange, limits: &Limits, now: Time) -> Option<(Direction, Part)> {
        let wants = |direction| exchange.wants(direction, limits);
        let here = self.responds_at.is_some_and(|at| at <= now);
        if here
            && wants(Direction::Response) == Wants::More
            && let Some(part) = self.response.pop_front()
        {
            return Some((Direction::Response, part));
        }
        match wants(Direction::Request) {
            Wants::More => self.request.pop_front().map(|part| (Direction::Request, part)),
            Wants::Nothing | Wants::Closed => {
                self.request.clear();
                None
            }
            Wants::Wait => None,
        }
    }

    /// Whether the upstream's answer is still to begin.
    pub(crate) fn waits_for_upstream(&self, now: Time) -> Option<Time> {
        self.responds_at.filter(|at| *at > now && !self.response.is_empty())
    }

    /// Notes what goes on.
    pub(crate) fn sent(&mut self, direction: Direction, effect: Effect) {
        let seen = match direction {
            Direction::Request => self.upstream.get_or_insert_default(),
            Direction::Response => &mut self.reply,
        };
        match effect {
            Effect::Send(Part::Head(headers, end)) => {
                *seen = Seen { complete: end.is_end(), ..Seen::of(&headers) };
            }
            Effect::Send(Part::Body(data, end)) => {
                seen.body.extend_from_slice(&data);
                seen.complete = end.is_end();
            }
            Effect::Send(Part::Trailers(trailers)) => {
                seen.trailers = pairs(&trailers);
                seen.complete = true;
            }
            Effect::Abort(_) => {
                seen.complete = false;
                self.over |= direction == Direction::Response;
                return;
            }
        }
        self.over |= direction == Direction::Response && seen.complete;
    }

    pub(crate) fn outcome(self, details: String, now: Time) -> Outcome {
        Outcome {
            reply: self.reply,
            upstream: self.upstream,
            details,
            took: self.ended.unwrap_or(now).saturating_since(self.began),
            log: Vec::new(),
        }
    }
}
