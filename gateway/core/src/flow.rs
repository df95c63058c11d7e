//! One direction's progress: where its head is, what each filter holds back, what is ready to be sent.
//!
//! Every filter has a station per direction. A part travels from station to station; a filter that pauses keeps it at its own,
//! so two filters may hold different things at once. Nothing here calls a guest: [`crate::chain`] does, and moves the parts.
//!
//! Invariants: a station that is open holds nothing; the head is at one place only; after the end nothing is sent.

use std::collections::VecDeque;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http::header::{self, HeaderValue};

use crate::buffer::Buffer;
use crate::event::{Effect, End, Part};
use crate::filter::FilterIndex;
use crate::headers::Headers;
use crate::reply::Failure;

/// What a station lets through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Everything.
    #[default]
    Open,
    /// Nothing, and the filter sees nothing: it paused in its headers callback.
    StopAll(WhenFull),
    /// The head is held, but the filter goes on seeing the body.
    HoldHead,
    /// The filter paused in its body callback; it goes on seeing later chunks.
    StopBody,
    /// The filter paused in its trailers callback, which was its last.
    StopTrailers,
}

/// What happens when a paused station is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenFull {
    /// Nothing more is read until it is resumed.
    BackPressure,
    /// The exchange ends with an error.
    Refuse,
}

/// What a filter that pauses on the body wants done with the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Nothing is held.
    #[default]
    Nothing,
    /// Keep them and show them again, with what is added.
    Buffer,
    /// Keep them, but show only what is new.
    Watermark,
    /// Drop them.
    Drop,
}

/// A filter's place in one direction.
#[derive(Debug, Default)]
pub(crate) struct Station {
    pub(crate) gate: Gate,
    pub(crate) hold: Hold,
    /// What the filter sees as its buffer.
    pub(crate) visible: Buffer,
    /// Held, but no longer shown to the filter.
    pub(crate) earlier: Buffer,
    /// Whether the held bytes are the last of the body.
    pub(crate) ended: bool,
    /// Whether the trailers are here.
    pub(crate) trailers: bool,
    /// The filter asked to be resumed.
    pub(crate) resume: bool,
}

impl Station {
    pub(crate) fn held(&self) -> usize {
        self.visible.len() + self.earlier.len()
    }

    /// Takes everything held, in order.
    pub(crate) fn release(&mut self) -> Bytes {
        self.hold = Hold::Nothing;
        self.earlier.append(&mut self.visible);
        self.earlier.take()
    }
}

/// How far a direction has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing has come in.
    #[default]
    Waiting,
    /// The head is with this filter, in its callback or held.
    HeadAt(FilterIndex),
    /// The head has passed every filter, and waits for the first of the body so that its length can be right.
    HeadParked,
    /// The head has been sent.
    Sent,
    /// The end has been sent.
    Done,
    /// What still comes in is dropped.
    Closed,
}

/// One direction of an exchange.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    pub(crate) stage: Stage,
    /// The head, until it is sent, and afterwards if a filter may look back.
    pub(crate) headers: Option<Headers>,
    /// Whether nothing follows the head.
    pub(crate) headers_end: bool,
    pub(crate) trailers: Option<Headers>,
    /// Trailers a filter made in the last body callback.
    pub(crate) new_trailers: Option<Headers>,
    pub(crate) stations: Vec<Station>,
    /// Some filter changed the body.
    pub(crate) modified: bool,
    /// Body bytes come in, and sent.
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// The length the sent head declared.
    declared: Option<u64>,
    /// The message may have no body, whatever a filter makes of it.
    pub(crate) bodiless: bool,
    pub(crate) out: VecDeque<Effect>,
}

impl Flow {
    /// Back to the beginning, for `filters` filters, keeping the memory.
    pub(crate) fn reset(&mut self, filters: usize) {
        self.stations.clear();
        self.stations.resize_with(filters, Station::default);
        self.out.clear();
        self.stage = Stage::Waiting;
        (self.headers, self.trailers, self.new_trailers) = (None, None, None);
        (self.headers_end, self.modified, self.bodiless) = (false, false, false);
        (self.received, self.sent, self.declared) = (0, 0, None);
    }

    /// Forgets what is held; nothing more is sent in this direction.
    pub(crate) fn close(&mut self) {
        self.stage = Stage::Closed;
        self.out.clear();
        self.stations.iter_mut().for_each(|station| *station = Station::default());
    }

    pub(crate) fn station(&mut self, index: FilterIndex) -> Option<&mut Station> {
        self.stations.get_mut(index)
    }

    /// Bytes held by all stations together.
    pub(crate) fn held(&self) -> usize {
        self.stations.iter().map(Station::held).sum()
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.stations.iter().any(|station| station.gate != Gate::Open)
    }

    pub(crate) fn head_is_sent(&self) -> bool {
        matches!(self.stage, Stage::Sent | Stage::Done)
    }

    /// Whether more of this direction's message should be read: not while what was read is still here.
    pub(crate) fn wants_more(&self, held_limit: usize) -> bool {
        let stopped =
            self.stations.iter().any(|station| matches!(station.gate, Gate::StopAll(WhenFull::BackPressure)));
        self.out.is_empty() && !stopped && (self.held() <= held_limit) && self.stage != Stage::Done
    }

    /// Sends the head, or parks it while a filter may still change how long the body is.
    pub(crate) fn send_head(&mut self, park: bool, keep: bool) {
        let has_length = self.headers.as_ref().is_some_and(|headers| headers.content_length().is_some());
        if park && has_length && !self.headers_end {
            self.stage = Stage::HeadParked;
        } else {
            self.send_head_now(keep);
        }
    }

    fn send_head_now(&mut self, keep: bool) {
        let headers = if keep { self.headers.clone() } else { self.headers.take() };
        let Some(mut headers) = headers else { return };
        if let Some(StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) = headers.status() {
            // Whoever set this status, a client does not expect a body after it.
            self.bodiless = true;
        }
        if headers.status() == Some(StatusCode::NO_CONTENT) {
            headers.fields_mut().remove(header::CONTENT_LENGTH);
        }
        let end = self.headers_end || self.bodiless;
        self.declared = if end { None } else { headers.content_length() };
        self.stage = if end { Stage::Done } else { Stage::Sent };
        self.out.push_back(Effect::Send(Part::Head(headers, End::from_bool(end))));
    }

    /// Sends a piece of the body, and the parked head before it.
    pub(crate) fn send_body(&mut self, data: Bytes, end: End, keep: bool) {
        if self.stage == Stage::HeadParked {
            self.settle_length(data.len(), end);
            self.send_head_now(keep);
        }
        if self.stage != Stage::Sent || (data.is_empty() && !end.is_end()) {
            return;
        }
        self.sent += data.len() as u64;
        let fits = match self.declared {
            Some(declared) if end.is_end() => self.sent == declared,
            Some(declared) => self.sent <= declared,
            None => true,
        };
        if !fits {
            return self.abort(Failure::LengthMismatch);
        }
        if end.is_end() {
            self.stage = Stage::Done;
        }
        self.out.push_back(Effect::Send(Part::Body(data, end)));
    }

    /// Sends the trailers, which end the message.
    pub(crate) fn send_trailers(&mut self, keep: bool) {
        if self.stage == Stage::HeadParked {
            self.settle_length(0, End::No);
            self.send_head_now(keep);
        }
        if self.stage != Stage::Sent {
            return;
        }
        self.stage = Stage::Done;
        let fields = self.trailers.take().map_or_else(HeaderMap::new, |trailers| trailers.into_parts().1);
        self.out.push_back(Effect::Send(Part::Trailers(fields)));
    }

    /// A changed body has a new length if it is all here, and none that can be declared otherwise.
    fn settle_length(&mut self, len: usize, end: End) {
        let Some(headers) = self.headers.as_mut().filter(|_| self.modified) else { return };
        if end.is_end() {
            headers.fields_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(len));
        } else {
            headers.fields_mut().remove(header::CONTENT_LENGTH);
        }
    }

    /// Breaks the stream off.
    pub(crate) fn abort(&mut self, failure: Failure) {
        self.close();
        self.out.push_back(Effect::Abort(failure));
    }
}
