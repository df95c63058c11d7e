//! Bodies and trailers at one filter: shown to it, held while it pauses, let go when it says so (ABI reference §7.3).

use bytes::Bytes;

use super::{Moved, Walk};
use crate::event::{Direction, End, Part};
use crate::exchange::Asked;
use crate::filter::{Callback, Export, FilterIndex, Filters};
use crate::flow::{Gate, Hold, WhenFull};
use crate::headers::Headers;
use crate::reply::Failure;

impl<F: Filters> Walk<'_, F> {
    /// Shows a piece of the body to one filter.
    pub(super) fn body_moves(&mut self, direction: Direction, index: FilterIndex, data: Bytes, end: End) -> Moved {
        let Some(exchange) = self.exchange() else { return Moved::Stays };
        let watches = exchange.listens(index, Export::body(direction));
        let Some(station) = exchange.flow_mut(direction).station(index) else { return Moved::Stays };
        let stopped = matches!(station.gate, Gate::StopAll(_));
        if !stopped {
            // What a stopped filter holds comes here again, to be shown then.
            self.shadow_body(direction, index, &data, end);
        }
        let station = self.exchange().and_then(|exchange| exchange.flow_mut(direction).station(index));
        let Some(station) = station else { return Moved::Stays };
        if stopped || (station.gate == Gate::HoldHead && !watches) {
            station.visible.push(data);
            station.ended = end.is_end();
            self.refuse_if_full(direction, index);
            return Moved::Stays;
        }
        if !watches {
            return Moved::On(Part::Body(data, end));
        }
        if station.hold == Hold::Watermark {
            station.earlier.append(&mut station.visible);
        }
        station.visible.push(data);
        station.ended = end.is_end();
        let size = u32::try_from(station.visible.len()).unwrap_or(u32::MAX);
        let called = self.call(index, Callback::Body(direction, size, end));
        let Some(answer) = self.after_call(direction, index, called) else { return Moved::Stays };
        self.apply_body_answer(direction, index, answer)
    }

    fn apply_body_answer(&mut self, direction: Direction, index: FilterIndex, answer: u32) -> Moved {
        let Some(exchange) = self.exchange() else { return Moved::Stays };
        let flow = exchange.flow_mut(direction);
        if let Some(trailers) = flow.new_trailers.take() {
            flow.trailers = Some(trailers);
            // HTTP/1.1 has trailers only where no length is declared.
            flow.modified = true;
        }
        flow.modified |= answer > 2;
        let has_trailers = flow.trailers.is_some();
        let Some(station) = flow.station(index) else { return Moved::Stays };
        if answer == 0 {
            return self.release_body(direction, index);
        }
        match answer {
            1 => {
                station.hold = Hold::Buffer;
                station.earlier.append(&mut station.visible);
                std::mem::swap(&mut station.earlier, &mut station.visible);
            }
            2 => {
                station.hold = Hold::Watermark;
                station.earlier.append(&mut station.visible);
            }
            _ => {
                station.hold = Hold::Drop;
                station.visible.clear();
            }
        }
        if station.ended && has_trailers {
            (station.ended, station.trailers) = (false, true);
        }
        if station.gate == Gate::Open {
            station.gate = Gate::StopBody;
        }
        self.refuse_if_full(direction, index);
        Moved::Stays
    }

    /// Lets go what a filter holds after its body callback said "continue": the head first, if that was held too.
    pub(super) fn release_body(&mut self, direction: Direction, index: FilterIndex) -> Moved {
        let Some(exchange) = self.exchange() else { return Moved::Stays };
        let flow = exchange.flow_mut(direction);
        let makes_trailers = flow.trailers.is_some();
        let Some(station) = flow.station(index) else { return Moved::Stays };
        let gate = std::mem::take(&mut station.gate);
        let data = station.release();
        let ended = std::mem::take(&mut station.ended);
        if gate == Gate::HoldHead {
            self.head_left(direction, index);
            self.walk_head(direction, self.step_after(direction, index));
            if self.is_interrupted() {
                return Moved::Stays;
            }
        }
        if ended && makes_trailers {
            // The body was the end until the filter made trailers: now they are.
            let step = self.step_after(direction, index);
            if !data.is_empty() {
                let body = Part::Body(data, End::No);
                self.part_left(direction, index, &body);
                self.walk(direction, step, body);
            }
            if !self.is_interrupted() {
                let trailers = Part::Trailers(http::HeaderMap::new());
                self.part_left(direction, index, &trailers);
                self.walk(direction, step, trailers);
            }
            return Moved::Stays;
        }
        if data.is_empty() && !ended { Moved::Stays } else { Moved::On(Part::Body(data, End::from_bool(ended))) }
    }

    /// Shows the trailers to one filter.
    pub(super) fn trailers_move(&mut self, direction: Direction, index: FilterIndex) -> Moved {
        let Some(exchange) = self.exchange() else { return Moved::Stays };
        let watches = exchange.listens(index, Export::trailers(direction));
        let flow = exchange.flow_mut(direction);
        let count = flow.trailers.as_ref().map_or(0, Headers::count);
        let Some(station) = flow.station(index) else { return Moved::Stays };
        if matches!(station.gate, Gate::StopAll(_)) {
            station.trailers = true;
            return Moved::Stays;
        }
        station.trailers = true;
        self.shadow_trailers(direction, index);
        let mut answer = 0;
        if watches {
            let called = self.call(index, Callback::Trailers(direction, u32::try_from(count).unwrap_or(u32::MAX)));
            let Some(answered) = self.after_call(direction, index, called) else { return Moved::Stays };
            answer = answered;
        }
        let Some(exchange) = self.exchange() else { return Moved::Stays };
        let Some(station) = exchange.flow_mut(direction).station(index) else { return Moved::Stays };
        if answer != 0 {
            if station.gate != Gate::HoldHead {
                station.gate = Gate::StopTrailers;
            }
            return Moved::Stays;
        }
        station.trailers = false;
        if let Moved::On(body) = self.release_body_before_trailers(direction, index) {
            self.part_left(direction, index, &body);
            self.walk(direction, self.step_after(direction, index), body);
        }
        if self.is_interrupted() { Moved::Stays } else { Moved::On(Part::Trailers(http::HeaderMap::new())) }
    }

    fn release_body_before_trailers(&mut self, direction: Direction, index: FilterIndex) -> Moved {
        let Some(exchange) = self.exchange() else { return Moved::Stays };
        let Some(station) = exchange.flow_mut(direction).station(index) else { return Moved::Stays };
        let gate = std::mem::take(&mut station.gate);
        let data = station.release();
        if gate == Gate::HoldHead {
            self.head_left(direction, index);
            self.walk_head(direction, self.step_after(direction, index));
        }
        if data.is_empty() || self.is_interrupted() { Moved::Stays } else { Moved::On(Part::Body(data, End::No)) }
    }

    pub(super) fn refuse_if_full(&mut self, direction: Direction, index: FilterIndex) {
        let limit = self.exchanges.limits.held_bytes;
        let Some(exchange) = self.exchange() else { return };
        let Some(station) = exchange.flow_mut(direction).station(index) else { return };
        // With back-pressure the reader stops; one chunk beyond the limit may still be on its way.
        let refuses = !matches!(station.gate, Gate::StopAll(WhenFull::BackPressure)) && station.hold != Hold::Watermark;
        if refuses && station.held() > limit {
            exchange.ask(Asked::Fail(match direction {
                Direction::Request => Failure::RequestTooLarge,
                Direction::Response => Failure::ResponseTooLarge,
            }));
        }
    }
}
