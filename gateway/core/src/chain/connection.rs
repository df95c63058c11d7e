//! TCP connections in the chain: who lets one in, who sees its bytes, who hears of its end (ABI reference §7.6).
//!
//! A client's connection is an exchange without heads: what the client sends is the request's body, what the upstream sends the
//! response's, and each filter holds back what it has at its own station. So a filter sees every byte once, where Envoy shows those
//! before one that holds bytes back the same bytes again.

use bytes::Bytes;

use super::settle::broken_by;
use super::{Moved, Walk};
use crate::event::{Direction, End, Part};
use crate::exchange::{Asked, Exchange, Slot, Stand};
use crate::filter::{Callback, Export, FilterIndex, Filters, Peer};
use crate::flow::{Gate, Hold, Stage};
use crate::reply::{Details, Failure};
use crate::time::Time;

impl<F: Filters> Walk<'_, F> {
    /// Shows the connection to the filters from `step` on. One that stops holds it back: the upstream is not connected to until
    /// the filter resumes, or lets the client's first bytes pass.
    pub(super) fn walk_connection(&mut self, mut step: usize) {
        while let Some(index) = self.filter_at(Direction::Request, step) {
            let Some(exchange) = self.exchange() else { return };
            exchange.request.stage = Stage::HeadAt(index);
            exchange.entered = exchange.entered.max(index + 1);
            let called = self.call(index, Callback::NewConnection);
            let Some(answer) = self.after_call(Direction::Request, index, called) else { return };
            if answer != 0 {
                if let Some(station) = self.exchange().and_then(|exchange| exchange.request.station(index)) {
                    station.gate = Gate::HoldHead;
                }
                return;
            }
            step += 1;
        }
        if let Some(exchange) = self.exchange() {
            exchange.request.stage = Stage::Sent;
        }
    }

    /// Shows bytes to one filter: all that it has held back, and these.
    pub(super) fn data_moves(&mut self, direction: Direction, index: FilterIndex, data: Bytes, end: End) -> Moved {
        let Some(exchange) = self.exchange() else { return Moved::Stays };
        let watches = exchange.listens(index, Export::data(direction));
        let Some(station) = exchange.flow_mut(direction).station(index) else { return Moved::Stays };
        if !watches && station.gate == Gate::Open {
            self.tell_of_end(direction, index, end);
            return if self.is_interrupted() { Moved::Stays } else { Moved::On(Part::Body(data, end)) };
        }
        station.visible.push(data);
        station.ended = end.is_end();
        if !watches {
            return Moved::Stays;
        }
        let size = u32::try_from(station.visible.len()).unwrap_or(u32::MAX);
        let called = self.call(index, Callback::Data(direction, size, end));
        let answer = self.after_call(direction, index, called);
        self.tell_of_end(direction, index, end);
        match answer.filter(|_| !self.is_interrupted()) {
            None => Moved::Stays,
            Some(0) => self.release_body(direction, index),
            Some(_) => {
                let station = self.exchange().and_then(|exchange| exchange.flow_mut(direction).station(index));
                if let Some(station) = station {
                    station.hold = Hold::Buffer;
                    if station.gate == Gate::Open {
                        station.gate = Gate::StopBody;
                    }
                }
                Moved::Stays
            }
        }
    }

    /// Tells a filter that the upstream sends no more, right after it was shown the last of it, as Envoy does. Who closed it is
    /// not known then.
    fn tell_of_end(&mut self, direction: Direction, index: FilterIndex, end: End) {
        if direction == Direction::Request || !end.is_end() {
            return;
        }
        let Some(station) = self.exchange().and_then(|exchange| exchange.response.station(index)) else { return };
        if !std::mem::replace(&mut station.told_of_end, true)
            && let Err(failure) = self.call(index, Callback::Closed(Direction::Response, Peer::Unknown))
        {
            self.fail(index, failure);
        }
    }

    /// One filter's last callbacks.
    fn part_with(&mut self, index: FilterIndex, closed_by: Peer) {
        let exchange = self.exchange();
        let unheard = exchange.is_some_and(|exchange| {
            exchange.responded.is_some() && exchange.response.station(index).is_some_and(|station| !station.told_of_end)
        });
        let of_upstream = unheard.then_some(Callback::Closed(Direction::Response, Peer::Unknown));
        let of_client = Callback::Closed(Direction::Request, closed_by);
        let all = [Callback::Done, Callback::Log, Callback::Delete];
        let called = of_upstream
            .into_iter()
            .chain([of_client])
            .chain(all)
            .try_for_each(|callback| self.call(index, callback).map(|_| ()));
        let slot = self.exchange().and_then(|exchange| exchange.slots.get(index)).copied();
        match (slot, called) {
            (_, Err(_)) => self.set_slot(index, Slot::Failed),
            (Some(Slot::Live(context)), Ok(())) => self.filters.close(self.exchanges, context),
            (_, Ok(())) => {}
        }
    }
}

/// Ends a connection: filter by filter, in the order of the ABI's text.
pub(super) fn end<F: Filters>(walk: &mut Walk<'_, F>, failure: Option<Failure>, last: impl FnOnce(&Exchange)) {
    let Some(exchange) = walk.exchange() else { return };
    let by_client = match failure {
        Some(failure) => failure == Failure::ClientGone,
        None => exchange.request.stage == Stage::Done,
    };
    exchange.stand = Stand::Ending;
    let len = exchange.chain.len();
    for index in 0..len {
        walk.part_with(index, if by_client { Peer::Remote } else { Peer::Local });
    }
    if let Some(exchange) = walk.exchanges.get(walk.id) {
        last(exchange);
    }
    walk.end_trials();
    walk.exchanges.remove(walk.id);
}

impl Exchange {
    /// The upstream is there: what it says passes the filters.
    pub(super) fn connected(&mut self, address: std::net::SocketAddr, now: Time) {
        self.stand = Stand::Responding;
        (self.responded, self.last_progress) = (Some(now), now);
        self.set_tried(Some(address), 1);
        self.response.stage = Stage::Sent;
    }

    /// Ends both directions. A filter that closes the connection lets what has passed go out first.
    pub(super) fn break_off(&mut self, asked: Asked) {
        let failure = broken_by(asked);
        self.details = Some(Details::Gateway(failure));
        self.stand = Stand::Replying;
        if failure == Failure::FilterClosed {
            self.request.end_after_out(failure);
            self.response.end_after_out(failure);
        } else {
            self.request.close();
            self.response.abort(failure);
        }
    }
}
