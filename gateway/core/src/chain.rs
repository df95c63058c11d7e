//! The filter chain: who is called, in which order, and what their answers do.
//!
//! Requests walk from the first filter to the last, responses back. Continue, pause, resume and local replies follow the ABI
//! reference §7. The chain never holds an exchange across a callback: the guest has the whole table then, and may touch any
//! exchange of its VM. What it asks for is recorded, and acted on here after it has returned.

mod body;
mod connection;
mod settle;
mod shadow;
mod trial;

pub(crate) use self::shadow::Side;
pub use self::shadow::{Shadowed, play_shadow};
use crate::context::{ContextRef, Owner};
use crate::event::{Direction, End, Event, Part};
use crate::exchange::{Asked, Exchange, ExchangeId, Exchanges, Slot, Stand};
use crate::filter::{Callback, Export, FilterIndex, Filters, HeadersPause, NotOpened, Speaks};
use crate::flow::{Gate, Stage, WhenFull};
use crate::headers::Headers;
use crate::reply::{Asker, Details, Failure};
use crate::time::Time;
use crate::timing::{Outcome, Phase};

/// Feeds an event to an exchange; its effects are then ready to be drained. One that has ended ignores it.
pub fn feed(exchanges: &mut Exchanges, filters: &mut impl Filters, id: ExchangeId, event: Event) {
    if exchanges.get(id).is_none() {
        return;
    }
    let mut walk = Walk { exchanges, filters, id };
    // What others have asked of it meanwhile came before this event.
    walk.settle();
    walk.event(event);
    walk.settle();
    walk.note_times();
    #[cfg(debug_assertions)]
    if let Some(exchange) = walk.exchanges.get(id) {
        exchange.check();
    }
}

/// Ends an exchange: the last callbacks run, as Envoy orders them, and its place is free.
///
/// Every filter of the chain gets `on_log`, first filter first, then each `on_done` and `on_delete`; also those the request
/// never reached. `last` sees the exchange once more, for the access log.
pub fn end(
    exchanges: &mut Exchanges,
    filters: &mut impl Filters,
    id: ExchangeId,
    failure: Option<Failure>,
    last: impl FnOnce(&Exchange),
) {
    let Some(exchange) = exchanges.get_mut(id) else { return };
    if let Some(failure) = failure {
        exchange.details.get_or_insert(Details::Gateway(failure));
    }
    if exchange.chain.speaks() == Speaks::Tcp {
        return connection::end(&mut Walk { exchanges, filters, id }, failure, last);
    }
    exchange.stand = Stand::Ending;
    exchange.request.close();
    exchange.response.close();
    let len = exchange.chain.len();
    let mut walk = Walk { exchanges, filters, id };
    for callback in [Callback::Log, Callback::Done] {
        for index in 0..len {
            walk.last_call(index, callback);
        }
    }
    if let Some(exchange) = walk.exchanges.get(id) {
        last(exchange);
    }
    walk.end_trials();
    exchanges.remove(id);
}

/// Where a part is after a filter has seen it.
enum Moved {
    /// It goes on to the next filter.
    On(Part),
    /// The filter keeps it, or something has happened that the part no longer matters for.
    Stays,
}

struct Walk<'a, F> {
    exchanges: &'a mut Exchanges,
    filters: &'a mut F,
    id: ExchangeId,
}

impl<F: Filters> Walk<'_, F> {
    fn exchange(&mut self) -> Option<&mut Exchange> {
        self.exchanges.get_mut(self.id)
    }

    fn speaks(&self) -> Speaks {
        self.exchanges.get(self.id).map_or(Speaks::Http, |exchange| exchange.chain.speaks())
    }

    fn event(&mut self, event: Event) {
        let now = self.exchanges.now;
        let Some(exchange) = self.exchange() else { return };
        match event {
            Event::Request(part) => {
                exchange.last_progress = now;
                self.receive(Direction::Request, part);
            }
            // A reply has taken over; that the upstream has yet to hear of it must not mix the two.
            Event::Response(_) | Event::UpstreamFailed(_) if exchange.stand == Stand::Replying => {}
            Event::Response(part) => {
                exchange.last_progress = now;
                if let Part::Head(..) = part {
                    exchange.stand = Stand::Responding;
                    exchange.responded = Some(now);
                    exchange.entered = exchange.chain.len();
                }
                self.receive(Direction::Response, part);
            }
            Event::Accepted => self.walk_connection(0),
            Event::Connected(address) => exchange.connected(address, now),
            Event::UpstreamFailed(failure) | Event::Deadline(failure) => exchange.ask(Asked::Fail(failure)),
            Event::Woken => {}
        }
    }

    /// Takes in a part, and walks it from the first station on.
    fn receive(&mut self, direction: Direction, part: Part) {
        let Some(exchange) = self.exchange() else { return };
        let part = match (part, exchange.flow_mut(direction).stage) {
            (_, Stage::Closed | Stage::Done) => return,
            (Part::Head(headers, end), Stage::Waiting) => {
                match direction {
                    Direction::Request => exchange.asker = Asker::of(&headers),
                    Direction::Response => exchange.response.bodiless = exchange.asker.head,
                }
                exchange.flow_mut(direction).begin(headers, end);
                return self.walk_head(direction, 0);
            }
            (Part::Head(..), _) | (_, Stage::Waiting) => return,
            // What follows the head of an answer to HEAD, or of a 304, is no body.
            _ if exchange.flow_mut(direction).headers_end => return,
            (Part::Body(data, end), _) => {
                exchange.flow_mut(direction).received += data.len() as u64;
                Part::Body(data, end)
            }
            (Part::Trailers(fields), _) => {
                exchange.flow_mut(direction).trailers = Some(Headers::trailers(fields));
                Part::Trailers(http::HeaderMap::new())
            }
        };
        self.walk(direction, 0, part);
    }

    /// The filter that a direction visits at `step`, or nothing when all have been visited.
    fn filter_at(&self, direction: Direction, step: usize) -> Option<FilterIndex> {
        let exchange = self.exchanges.get(self.id)?;
        let len = exchange.chain.len();
        if exchange.is_over(direction) {
            // A filter made it a message without a body, say; nobody needs to see what is dropped.
            return None;
        }
        match direction {
            Direction::Request => (step < len).then_some(step),
            // Nearest the upstream goes first, as on Envoy: a filter that undoes its own change relies on seeing the response
            // last. A local reply starts at the last filter the request has reached.
            Direction::Response => exchange.entered.checked_sub(step + 1),
        }
    }

    fn step_after(&self, direction: Direction, index: FilterIndex) -> usize {
        let entered = self.exchanges.get(self.id).map_or(0, |exchange| exchange.entered);
        match direction {
            Direction::Request => index + 1,
            Direction::Response => entered.saturating_sub(index),
        }
    }

    /// Walks the head, which stays in the flow, from `step` on.
    fn walk_head(&mut self, direction: Direction, mut step: usize) {
        if self.speaks() == Speaks::Tcp {
            return self.walk_connection(step);
        }
        while let Some(index) = self.filter_at(direction, step) {
            let Some(exchange) = self.exchange() else { return };
            exchange.flow_mut(direction).stage = Stage::HeadAt(index);
            if direction == Direction::Request {
                exchange.entered = exchange.entered.max(index + 1);
            }
            if !self.head_passes(direction, index) {
                return;
            }
            self.head_left(direction, index);
            step += 1;
        }
        let Some(exchange) = self.exchange() else { return };
        let keep = exchange.keeps_heads();
        let park = exchange.chain.watches_body(direction);
        exchange.flow_mut(direction).send_head(park, keep);
    }

    /// Shows the head to one filter; whether it goes on.
    fn head_passes(&mut self, direction: Direction, index: FilterIndex) -> bool {
        self.shadow_head(direction, index);
        let Some(exchange) = self.exchange() else { return false };
        let flow = exchange.flow_mut(direction);
        let end = End::from_bool(flow.headers_end);
        let count = flow.headers.as_ref().map_or(0, Headers::count);
        let called = self.call(index, Callback::Headers(direction, u32::try_from(count).unwrap_or(u32::MAX), end));
        let Some(answer) = self.after_call(direction, index, called) else { return false };
        let Some(exchange) = self.exchange() else { return false };
        let pause = exchange.filter(index).map_or(HeadersPause::StopsAll, |filter| filter.headers_pause);
        let gives_body = exchange.flow_mut(direction).station(index).is_some_and(|station| station.ended);
        let gate = match (answer, pause) {
            // The body that the filter has given it follows the head: both go on as if they had been held.
            (0 | 2, _) if gives_body => {
                if let Some(station) = exchange.flow_mut(direction).station(index) {
                    (station.gate, station.resume) = (Gate::HoldHead, true);
                }
                return false;
            }
            // Envoy reads "continue and end stream" as "continue".
            (0 | 2, _) => return true,
            (1, HeadersPause::HoldsHeaders) => Gate::HoldHead,
            (3, _) => Gate::StopAll(WhenFull::Refuse),
            (_, _) => Gate::StopAll(WhenFull::BackPressure),
        };
        if let Some(station) = exchange.flow_mut(direction).station(index) {
            station.gate = gate;
        }
        false
    }

    /// Walks a body part or the trailers from `step` on.
    fn walk(&mut self, direction: Direction, mut step: usize, mut part: Part) {
        while let Some(index) = self.filter_at(direction, step) {
            let moved = match part {
                Part::Head(..) => return,
                Part::Body(data, end) if self.speaks() == Speaks::Tcp => self.data_moves(direction, index, data, end),
                Part::Body(data, end) => self.body_moves(direction, index, data, end),
                Part::Trailers(_) => self.trailers_move(direction, index),
            };
            match moved {
                Moved::On(next) => {
                    self.part_left(direction, index, &next);
                    part = next;
                }
                Moved::Stays => return,
            }
            step += 1;
        }
        let Some(exchange) = self.exchange() else { return };
        let keep = exchange.keeps_heads();
        let flow = exchange.flow_mut(direction);
        let sent = match part {
            Part::Head(..) => Ok(()),
            Part::Body(data, end) => flow.send_body(data, end, keep),
            Part::Trailers(_) => flow.send_trailers(keep),
        };
        if let Err(failure) = sent {
            exchange.ask(Asked::Fail(failure));
        }
    }

    /// Lets a paused filter's parts go on.
    fn resume(&mut self, direction: Direction, index: FilterIndex) {
        self.note_resumed(index);
        let step = self.step_after(direction, index);
        let Some(exchange) = self.exchange() else { return };
        let flow = exchange.flow_mut(direction);
        let head_is_here = flow.stage == Stage::HeadAt(index);
        let Some(station) = flow.station(index) else { return };
        let gate = std::mem::take(&mut station.gate);
        let trailers = std::mem::take(&mut station.trailers);
        let ended = std::mem::take(&mut station.ended);
        let data = station.release();
        if head_is_here && gate != Gate::Open {
            self.head_left(direction, index);
            self.walk_head(direction, step);
        }
        let step = match gate {
            Gate::Open => return,
            // The filter has seen none of this yet.
            Gate::StopAll(_) => step.saturating_sub(1),
            Gate::HoldHead | Gate::StopBody | Gate::StopTrailers => step,
        };
        let body = (ended || !data.is_empty()).then(|| Part::Body(data, End::from_bool(ended && !trailers)));
        let trailers = trailers.then(|| Part::Trailers(http::HeaderMap::new()));
        for part in body.into_iter().chain(trailers) {
            if self.is_interrupted() {
                return;
            }
            if !matches!(gate, Gate::StopAll(_)) {
                self.part_left(direction, index, &part);
            }
            self.walk(direction, step, part);
        }
    }

    /// Calls one filter, if it is alive and exports the callback.
    fn call(&mut self, index: FilterIndex, callback: Callback) -> Result<u32, Failure> {
        let broken = Failure::FilterFailed;
        let Some(exchange) = self.exchanges.get(self.id) else { return Err(broken) };
        let context = match exchange.slots.get(index).ok_or(broken)? {
            Slot::Failed => return Ok(0),
            Slot::Orphaned => return Err(broken),
            Slot::Live(context) => *context,
            Slot::Idle => self.open(index, callback)?,
        };
        let Some(exchange) = self.exchange() else { return Err(broken) };
        if !exchange.exports(index, callback.export()) {
            return Ok(0);
        }
        exchange.calling = Some((index, callback));
        let begun = if self.is_timed(index) { self.filters.now() } else { None };
        let called = self.filters.call(self.exchanges, context, callback).map_err(|_| broken);
        let of = (Phase::of(callback), self.returned(callback, called));
        self.filters.count(context, of.0, of.1);
        if of.1 == Outcome::Reply {
            self.note_replied(index);
        }
        if let Some(begun) = begun {
            self.note_call(index, of, begun);
        }
        called
    }

    /// Creates the filter's context, in the version that the exchange gets.
    fn open(&mut self, index: FilterIndex, callback: Callback) -> Result<ContextRef, Failure> {
        self.assign(index, callback);
        let Some(exchange) = self.exchanges.get(self.id) else { return Err(Failure::FilterFailed) };
        let (chain, version) = (exchange.chain.clone(), exchange.version(index));
        let filter = chain.version(index, version).ok_or(Failure::FilterFailed)?;
        let owner = Owner { exchange: self.id, filter: index, root: filter.root };
        match self.filters.open(self.exchanges, filter, owner) {
            Ok(context) => {
                self.set_slot(index, Slot::Live(context));
                Ok(context)
            }
            Err(NotOpened::Failed) => Err(Failure::FilterFailed),
            Err(NotOpened::NoRoom) => {
                self.note_no_room(index);
                Err(Failure::FilterBusy)
            }
        }
    }

    /// A callback has returned: what it made of its part of the exchange.
    fn returned(&mut self, callback: Callback, called: Result<u32, Failure>) -> Outcome {
        let Some(exchange) = self.exchange() else { return Outcome::Fail };
        exchange.calling = None;
        match (called, &exchange.asked) {
            (Err(_), _) => Outcome::Fail,
            // Whatever is answered or asked for at the end no longer matters.
            (Ok(_), _) if Phase::of(callback) == Phase::End => Outcome::Next,
            (Ok(_), Some(Asked::Reply(_) | Asked::Close)) => Outcome::Reply,
            (Ok(_), Some(Asked::Fail(_))) | (Ok(0 | 2), None) => Outcome::Next,
            (Ok(_), None) => Outcome::Pause,
        }
    }

    fn note_call(&mut self, index: FilterIndex, of: (Phase, Outcome), begun: Time) {
        let Some(ended) = self.filters.now() else { return };
        self.note_trial(index, of.1, (begun, ended));
        let Some(exchange) = self.exchange() else { return };
        let version = exchange.version(index);
        if let Some(timings) = exchange.timings.as_mut() {
            timings.note((index, version), of, (begun, ended));
        }
    }

    fn set_slot(&mut self, index: FilterIndex, state: Slot) {
        if state == Slot::Failed {
            self.note_failed(index);
        }
        if let Some(slot) = self.exchange().and_then(|exchange| exchange.slots.get_mut(index)) {
            *slot = state;
        }
    }

    /// What a callback's answer amounts to: nothing, when a reply or failure has taken over.
    fn after_call(&mut self, direction: Direction, index: FilterIndex, called: Result<u32, Failure>) -> Option<u32> {
        let answer = match called {
            Ok(answer) => answer,
            Err(failure) => {
                self.fail(index, failure);
                0
            }
        };
        let exchange = self.exchange()?;
        if exchange.asked.is_some() {
            return None;
        }
        let station = exchange.flow_mut(direction).station(index)?;
        // Resuming inside the callback that then pauses resumes at once.
        if std::mem::take(&mut station.resume) { Some(0) } else { Some(answer) }
    }

    fn is_interrupted(&self) -> bool {
        self.exchanges.get(self.id).is_none_or(|exchange| exchange.asked.is_some())
    }

    /// The filter's last callbacks; whatever it answers or asks for no longer matters.
    fn last_call(&mut self, index: FilterIndex, callback: Callback) {
        let called = self.call(index, callback);
        if callback == Callback::Done && called.is_ok() {
            let _ = self.call(index, Callback::Delete);
        }
        let slot = self.exchanges.get(self.id).and_then(|exchange| exchange.slots.get(index)).copied();
        match (slot, called) {
            (_, Err(_)) => self.set_slot(index, Slot::Failed),
            (Some(Slot::Live(context)), Ok(_)) if callback == Callback::Done => {
                self.filters.close(self.exchanges, context)
            }
            _ => {}
        }
    }

    /// Notes what deadlines are measured from.
    fn note_times(&mut self) {
        let now = self.exchanges.now;
        let Some(exchange) = self.exchange() else { return };
        let paused = exchange.request.waits_for_filter() || exchange.response.waits_for_filter();
        exchange.paused_since = if paused { exchange.paused_since.or(Some(now)) } else { None };
        if exchange.has_effects(Direction::Request) || exchange.has_effects(Direction::Response) {
            exchange.last_progress = now;
        }
    }
}

impl Exchange {
    fn exports(&self, index: FilterIndex, export: Export) -> bool {
        self.filter(index).is_some_and(|filter| filter.exports.has(export))
    }

    /// Whether the filter is alive and exports the callback.
    fn listens(&self, index: FilterIndex, export: Export) -> bool {
        self.exports(index, export) && self.slots.get(index) != Some(&Slot::Failed)
    }
}
