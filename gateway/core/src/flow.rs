//! One direction's progress: where its head is, what each filter holds back, what is ready to be sent.
//!
//! Every filter has a station per direction. A part travels from station to station; a filter that pauses keeps it at its own,
//! so two filters may hold different things at once. Nothing here calls a guest: [`crate::chain`] does, and moves the parts.
//!
//! Invariants: a station that is open holds nothing; the head is at one place only; after the end nothing is sent.

use std::collections::VecDeque;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, StatusCode};

use crate::buffer::Buffer;
use crate::event::{Effect, End, Part};
use crate::filter::FilterIndex;
use crate::headers::Headers;
use crate::kept::Kept;
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
    /// Whether the filter was told that the upstream's TCP connection has ended.
    pub(crate) told_of_end: bool,
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

    /// Back to the beginning, keeping the memory.
    fn reset(&mut self) {
        (self.gate, self.hold) = (Gate::Open, Hold::Nothing);
        (self.ended, self.trailers, self.resume, self.told_of_end) = (false, false, false, false);
        self.visible.clear();
        self.earlier.clear();
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
    /// The head, until it is sent.
    pub(crate) headers: Option<Headers>,
    /// The head that was sent, if a filter may look back.
    kept: Kept,
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
    /// The length the head declared when it came in, and when it was sent.
    announced: Option<u64>,
    declared: Option<u64>,
    /// It answers HEAD: there is no body, whatever the head declares.
    pub(crate) bodiless: bool,
    pub(crate) out: VecDeque<Effect>,
}

impl Flow {
    /// Makes a flow that was reset ready for `filters` filters.
    pub(crate) fn open(&mut self, filters: usize) {
        self.stations.resize_with(filters, Station::default);
    }

    /// Back to the beginning, keeping the memory.
    pub(crate) fn reset(&mut self) {
        self.stations.iter_mut().for_each(Station::reset);
        self.out.clear();
        self.stage = Stage::Waiting;
        (self.headers, self.trailers, self.new_trailers) = (None, None, None);
        self.kept.clear();
        (self.headers_end, self.modified, self.bodiless) = (false, false, false);
        (self.received, self.sent, self.announced, self.declared) = (0, 0, None, None);
    }

    /// Forgets what is held; nothing more is sent in this direction.
    pub(crate) fn close(&mut self) {
        self.stage = Stage::Closed;
        self.out.clear();
        self.stations.iter_mut().for_each(Station::reset);
    }

    pub(crate) fn station(&mut self, index: FilterIndex) -> Option<&mut Station> {
        self.stations.get_mut(index)
    }

    /// Whether no filter is there to change anything: the wire library has checked what the peer declared.
    fn is_untouched(&self) -> bool {
        self.stations.is_empty()
    }

    /// Takes in a head.
    pub(crate) fn begin(&mut self, headers: Headers, end: End) {
        self.headers_end = end.is_end() || self.bodiless || !may_have_body(&headers);
        self.announced = if self.is_untouched() { None } else { headers.content_length() };
        self.headers = Some(headers);
    }

    /// The head, whether it was sent or not.
    pub(crate) fn head(&self) -> Option<&Headers> {
        self.headers.as_ref().or_else(|| self.kept.head())
    }

    /// Whether the message ends with its head, and this filter, which has the head, may give it a body.
    pub(crate) fn has_no_body_yet(&self, index: FilterIndex) -> bool {
        let may = self.headers.as_ref().is_some_and(may_have_body) && !self.bodiless;
        self.headers_end && may && self.stage == Stage::HeadAt(index)
    }

    /// Bytes held by all stations together.
    pub(crate) fn held(&self) -> usize {
        self.stations.iter().map(Station::held).sum()
    }

    /// Whether it is a filter that must make the next move, not the peer: all of the message that the filter asked for is here.
    pub(crate) fn waits_for_filter(&self) -> bool {
        self.stations.iter().any(|station| match station.gate {
            Gate::Open => false,
            Gate::StopAll(_) | Gate::StopTrailers => true,
            Gate::HoldHead | Gate::StopBody => station.ended || station.trailers || self.headers_end,
        })
    }

    /// Whether more of this direction's message should be read: not while what was read is still here.
    pub(crate) fn wants_more(&self, held_limit: usize) -> bool {
        let stopped = self.stations.iter().any(|station| matches!(station.gate, Gate::StopAll(WhenFull::BackPressure)));
        self.out.is_empty() && !stopped && self.held() <= held_limit
    }

    /// Sends the head, or parks it while a filter may still change how long the body is.
    pub(crate) fn send_head(&mut self, park: bool, keep: bool) {
        let untouched = self.is_untouched();
        let Some(headers) = self.headers.as_mut().filter(|_| !untouched) else { return self.send_head_now(keep) };
        let length = headers.content_length();
        if length.is_some() && !self.headers_end && may_have_body(headers) {
            if park {
                self.stage = Stage::HeadParked;
                return;
            }
            if length != self.announced {
                // The body passes by unseen; a filter cannot know its length better than the peer did.
                headers.fields_mut().remove(header::CONTENT_LENGTH);
            }
        }
        self.send_head_now(keep);
    }

    fn send_head_now(&mut self, keep: bool) {
        let untouched = self.is_untouched();
        let Some(headers) = self.headers.as_mut() else { return };
        let status = headers.status();
        let end = self.headers_end || !may_have_body(headers);
        if status == Some(StatusCode::NO_CONTENT) {
            headers.fields_mut().remove(header::CONTENT_LENGTH);
        } else if end && !untouched && !self.bodiless && status != Some(StatusCode::NOT_MODIFIED) {
            // The receiver would wait for what a filter declared, or a status that was 304 did.
            if headers.content_length().is_some_and(|length| length > 0) {
                headers.fields_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(0));
            }
        }
        let Some(headers) = self.headers.take() else { return };
        if keep {
            self.kept.keep(&headers);
        }
        self.declared = if end || untouched { None } else { headers.content_length() };
        self.stage = if end { Stage::Done } else { Stage::Sent };
        self.out.push_back(Effect::Send(Part::Head(headers, End::from_bool(end))));
    }

    /// Sends a piece of the body, and the parked head before it.
    ///
    /// # Errors
    /// When it is not as long as the head has declared. It is not sent: a receiver would read the surplus as the next message.
    pub(crate) fn send_body(&mut self, data: Bytes, end: End, keep: bool) -> Result<(), Failure> {
        if self.stage == Stage::HeadParked {
            self.settle_length(data.len(), end);
            self.send_head_now(keep);
        }
        if self.stage != Stage::Sent || (data.is_empty() && !end.is_end()) {
            return Ok(());
        }
        self.fits(self.sent + data.len() as u64, end)?;
        self.sent += data.len() as u64;
        if end.is_end() {
            self.stage = Stage::Done;
        }
        self.out.push_back(Effect::Send(Part::Body(data, end)));
        Ok(())
    }

    /// Sends the trailers, which end the message.
    ///
    /// # Errors
    /// When less of the body was sent than the head has declared.
    pub(crate) fn send_trailers(&mut self, keep: bool) -> Result<(), Failure> {
        if self.stage == Stage::HeadParked {
            self.settle_length(0, End::No);
            self.send_head_now(keep);
        }
        if self.stage != Stage::Sent {
            return Ok(());
        }
        self.fits(self.sent, End::Yes)?;
        self.stage = Stage::Done;
        let trailers = if keep { self.trailers.clone() } else { self.trailers.take() };
        let fields = trailers.map_or_else(HeaderMap::new, |trailers| trailers.into_parts().1);
        self.out.push_back(Effect::Send(Part::Trailers(fields)));
        Ok(())
    }

    fn fits(&self, sent: u64, end: End) -> Result<(), Failure> {
        let fits = match self.declared {
            Some(declared) if end.is_end() => sent == declared,
            Some(declared) => sent <= declared,
            None => true,
        };
        if fits { Ok(()) } else { Err(Failure::LengthMismatch) }
    }

    /// A body that is all here has its own length, whatever a filter declared; one that is changed as it streams has none.
    fn settle_length(&mut self, len: usize, end: End) {
        let Some(headers) = self.headers.as_mut() else { return };
        if end.is_end() {
            headers.fields_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(len));
        } else if self.modified || headers.content_length() != self.announced {
            headers.fields_mut().remove(header::CONTENT_LENGTH);
        }
    }

    /// Ends behind what is ready to be sent.
    pub(crate) fn end_after_out(&mut self, failure: Failure) {
        self.stage = Stage::Closed;
        self.stations.iter_mut().for_each(Station::reset);
        self.out.push_back(Effect::Abort(failure));
    }

    /// Breaks the stream off.
    pub(crate) fn abort(&mut self, failure: Failure) {
        self.close();
        self.out.push_back(Effect::Abort(failure));
    }
}

/// Whether a client expects a body after this status, whoever set it.
fn may_have_body(headers: &Headers) -> bool {
    !matches!(headers.status(), Some(StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED))
}
