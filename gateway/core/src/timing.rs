//! What each filter did in an exchange, and how long it took. Kept only where somebody wants to be told: where nobody does, an
//! exchange costs one look.

use std::time::Duration;

use crate::event::Direction;
use crate::filter::{Callback, FilterIndex};
use crate::rollout::Version;
use crate::time::Time;

/// A part of an exchange that a filter takes part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The request passes.
    Request,
    /// The response passes.
    Response,
    /// Both have passed.
    End,
}

impl Phase {
    /// All of them, in the order in which they come.
    pub const ALL: [Self; 3] = [Self::Request, Self::Response, Self::End];

    /// The word for it in logs, traces and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
            Self::End => "end",
        }
    }

    /// What a callback is about.
    #[must_use]
    pub fn of(callback: Callback) -> Self {
        match callback {
            Callback::Headers(direction, ..)
            | Callback::Body(direction, ..)
            | Callback::Trailers(direction, _)
            | Callback::Data(direction, ..) => match direction {
                Direction::Request => Self::Request,
                Direction::Response => Self::Response,
            },
            Callback::NewConnection => Self::Request,
            Callback::Closed(..) | Callback::Log | Callback::Done | Callback::Delete => Self::End,
        }
    }
}

/// What a filter made of a part of an exchange. A later one counts for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It let it pass.
    Next,
    /// It held it back for a while.
    Pause,
    /// It answered in the upstream's place, or broke the stream off.
    Reply,
    /// It failed.
    Fail,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Next, Self::Pause, Self::Reply, Self::Fail];

    /// The word for it in logs, traces and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Pause => "pause",
            Self::Reply => "reply",
            Self::Fail => "fail",
        }
    }
}

/// A filter's share in a part of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Which filter.
    pub filter: FilterIndex,
    /// Which version of it.
    pub version: Version,
    /// Which part.
    pub phase: Phase,
    /// When it was first called.
    pub begun: Time,
    /// When its last call returned.
    pub ended: Time,
    /// How long its calls took together.
    pub busy: Duration,
    /// What it made of it.
    pub outcome: Outcome,
}

/// What all filters did, in the order in which they were first called.
#[derive(Clone, Debug, Default)]
pub struct Timings(Vec<Share>);

impl Timings {
    /// All there is: at most three for each filter.
    #[must_use]
    pub fn shares(&self) -> &[Share] {
        &self.0
    }

    pub(crate) fn note(
        &mut self,
        (filter, version): (FilterIndex, Version),
        (phase, outcome): (Phase, Outcome),
        (begun, ended): (Time, Time),
    ) {
        let busy = ended.saturating_since(begun);
        let known = self.0.iter_mut().find(|share| share.filter == filter && share.phase == phase);
        let Some(share) = known else {
            return self.0.push(Share { filter, version, phase, begun, ended, busy, outcome });
        };
        (share.ended, share.busy) = (ended, share.busy + busy);
        share.outcome = share.outcome.max(outcome);
    }
}
