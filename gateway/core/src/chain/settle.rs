//! What was asked for while guests ran, done once they have returned: failure policies, local replies, closing, resumes.
//!
//! Invariant: when [`Walk::settle`] returns, nothing that was asked of the exchange is left undone.

use bytes::Bytes;

use super::Walk;
use crate::event::{Direction, End, Part};
use crate::exchange::{Asked, Exchange, Slot, Stand};
use crate::filter::{FilterIndex, Filters, OnFailure, Speaks};
use crate::flow::{Gate, Stage};
use crate::reply::{Details, Failure, LocalReply};

impl<F: Filters> Walk<'_, F> {
    /// Does what was asked for, until nothing is left: failures, then replies, then resumes.
    pub(super) fn settle(&mut self) {
        loop {
            let Some(exchange) = self.exchange() else { return };
            if let Some(index) = exchange.slots.iter().position(|slot| *slot == Slot::Orphaned) {
                self.fail(index, Failure::FilterFailed);
            } else if let Some(asked) = exchange.asked.take() {
                self.reply(asked);
            } else if let Some((direction, index)) = exchange.take_resume() {
                self.resume(direction, index);
            } else {
                return;
            }
        }
    }

    /// Applies a filter's failure policy; with `closed` it is this failure.
    pub(super) fn fail(&mut self, index: FilterIndex, failure: Failure) {
        self.set_slot(index, Slot::Failed);
        let Some(exchange) = self.exchange() else { return };
        let policy = exchange.filter(index).map_or(OnFailure::Closed, |filter| filter.on_failure);
        match policy {
            OnFailure::Closed => exchange.ask(Asked::Fail(failure)),
            // What it holds, in either direction, goes on without it.
            OnFailure::Open => {
                for direction in [Direction::Request, Direction::Response] {
                    if let Some(station) = exchange.flow_mut(direction).station(index) {
                        station.resume = station.gate != Gate::Open;
                    }
                }
            }
        }
    }

    /// Makes a local reply, or breaks the stream off where it is too late for one.
    fn reply(&mut self, asked: Asked) {
        let Some(exchange) = self.exchange() else { return };
        if let Stand::Tunnelling { .. } = exchange.stand {
            return exchange.abort(broken_by(asked));
        }
        if exchange.chain.speaks() == Speaks::Tcp {
            return exchange.break_off(asked);
        }
        if exchange.is_over(Direction::Response) {
            // The client has its response; all that is left to refuse is the rest of the request.
            return exchange.request.close();
        }
        let reply = match asked {
            Asked::Close => return exchange.abort(Failure::FilterClosed),
            Asked::Reply(reply) => reply,
            Asked::Fail(failure) => {
                let id = exchange.facts().and_then(|facts| facts.request_id.to_str().ok()).unwrap_or_default();
                LocalReply::failure(failure, &exchange.asker, id)
            }
        };
        if exchange.response.stage == Stage::Sent {
            return exchange.abort(match reply.details {
                Details::Gateway(failure) => failure,
                Details::Filter(_) => Failure::FilterClosed,
            });
        }
        let seen_by_filters = exchange.stand == Stand::Requesting;
        let body = exchange.begin_reply(reply);
        if !seen_by_filters {
            // It replaces a response the filters have begun to see: it goes straight to the client.
            exchange.response.send_head(false, exchange.chain.looks_back());
            let _whole = exchange.response.send_body(body, End::Yes, false);
            return;
        }
        self.walk_head(Direction::Response, 0);
        if !body.is_empty() && !self.is_interrupted() {
            self.walk(Direction::Response, 0, Part::Body(body, End::Yes));
        }
    }
}

/// What is said of a stream that is broken off because of this.
pub(super) fn broken_by(asked: Asked) -> Failure {
    match asked {
        Asked::Fail(failure) | Asked::Reply(LocalReply { details: Details::Gateway(failure), .. }) => failure,
        Asked::Close | Asked::Reply(LocalReply { details: Details::Filter(_), .. }) => Failure::FilterClosed,
    }
}

impl Exchange {
    /// Records a wish; the first one counts, as on Envoy.
    pub(crate) fn ask(&mut self, asked: Asked) {
        if self.stand != Stand::Ending {
            self.asked.get_or_insert(asked);
        }
    }

    fn take_resume(&mut self) -> Option<(Direction, FilterIndex)> {
        [Direction::Request, Direction::Response].into_iter().find_map(|direction| {
            let stations = &mut self.flow_mut(direction).stations;
            let index = stations.iter_mut().position(|station| std::mem::take(&mut station.resume))?;
            Some((direction, index))
        })
    }

    /// Puts a reply in the response's place, and returns its body.
    fn begin_reply(&mut self, reply: LocalReply) -> Bytes {
        self.details = Some(reply.details.clone());
        self.stand = Stand::Replying;
        self.request.close();
        self.response.reset();
        if matches!(reply.details, Details::Gateway(failure) if failure.is_upstream()) {
            self.entered = self.chain.len();
        }
        let (headers, body) = reply.compose(&self.asker);
        self.response.bodiless = self.asker.head;
        self.response.begin(headers, End::from_bool(body.is_empty()));
        body
    }

    fn abort(&mut self, failure: Failure) {
        self.details = Some(Details::Gateway(failure));
        self.stand = Stand::Replying;
        self.request.close();
        self.response.abort(failure);
    }
}
