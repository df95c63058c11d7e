//! How long clients may take, and which of their connections has taken too long.
//!
//! A connection says where it stands, and since when, by a few stores as bytes pass; whoever keeps house compares that with
//! what its listener allows. So no connection and no request has a timer of its own.

use std::time::Duration;

use crate::time::Time;

/// How long the clients of a listener may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For the head of a request, and for what comes before it on a new connection.
    pub header: Duration,
    /// For the next request on a connection that has none.
    pub idle: Duration,
    /// For the next piece of a body to be sent or taken.
    pub stream_idle: Duration,
    /// For a whole request to come in.
    pub request: Option<Duration>,
}

impl Patience {
    /// A head within 10 s is more than any honest network needs; the others are nginx's (`keepalive_timeout`) and Envoy's
    /// (`stream_idle_timeout`).
    pub const DEFAULT: Self = Self {
        header: Duration::from_secs(10),
        idle: Duration::from_secs(60),
        stream_idle: Duration::from_secs(300),
        request: None,
    };

    /// The shortest there is: how often to look follows from it.
    #[must_use]
    pub fn shortest(&self) -> Duration {
        self.header.min(self.idle).min(self.stream_idle)
    }
}

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The head of a request is awaited, its first byte included on a new connection.
    Head,
    /// There is no request.
    Idle,
    /// The same, and the client has been told that the connection ends.
    Leaving,
    /// At least one request is being served.
    Serving,
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// What it is at.
    pub stage: Stage,
    /// Since when.
    pub since: Time,
    /// Since when the client has taken nothing of what waits to be sent.
    pub stalled: Option<Time>,
    /// Since when an HTTP/2 header block is incomplete, whatever other streams are at.
    pub block: Option<Time>,
    /// Nothing of a request has ever come.
    pub silent: bool,
}

/// When it is a connection's turn to leave for others who need the place: the least comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Turn {
    /// It never asked for anything; opened at this time.
    Silent(Time),
    /// It is idle since then.
    Idle(Time),
}

/// What took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Overdue {
    /// The head of a request.
    Header,
    /// The next request.
    Idle,
    /// The same, but not yet for too long: others need the place.
    IdleEarly,
    /// The first byte of the first request; again, others need the place.
    SilentEarly,
    /// The client's taking what was sent, or sending what it had announced.
    Stream,
}

impl Overdue {
    /// Every kind, for metrics.
    pub const ALL: [Self; 5] = [Self::Header, Self::Idle, Self::IdleEarly, Self::SilentEarly, Self::Stream];

    /// The word for it in metrics and logs: the name of the setting.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Idle => "idle",
            Self::IdleEarly => "idle_early",
            Self::SilentEarly => "silent_early",
            Self::Stream => "stream_idle",
        }
    }
}

/// Why a connection is closed before anything is said on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Its listener has as many as it may.
    ListenerLimit,
    /// The process has as many as it may.
    ProcessLimit,
    /// The last descriptors are kept for upstreams, files and the admin listener.
    Descriptors,
    /// The PROXY protocol header is missing, malformed or too long.
    ProxyProtocol,
    /// Only trusted proxies may connect, and this is none.
    Stranger,
}

impl Refusal {
    /// Whether it would not have happened, had others left.
    #[must_use]
    pub fn is_for_room(self) -> bool {
        match self {
            Self::ListenerLimit | Self::ProcessLimit | Self::Descriptors => true,
            Self::ProxyProtocol | Self::Stranger => false,
        }
    }

    /// Every reason, for metrics.
    pub const ALL: [Self; 5] =
        [Self::ListenerLimit, Self::ProcessLimit, Self::Descriptors, Self::ProxyProtocol, Self::Stranger];

    /// The word for it in metrics and logs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::ListenerLimit => "listener_limit",
            Self::ProcessLimit => "process_limit",
            Self::Descriptors => "descriptors",
            Self::ProxyProtocol => "proxy_protocol",
            Self::Stranger => "stranger",
        }
    }
}

/// How long a client that was told to leave may take to do so.
const LEAVING: Duration = Duration::from_secs(5);

impl Standing {
    /// Whether there is no request, and nothing of an earlier one is left to be written.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.stage == Stage::Idle && self.stalled.is_none()
    }

    /// When it leaves for others, if it may be asked to: not before it has been without a request for longer than it is spared.
    ///
    /// Those that never asked for anything come first, however new: a flood of them must not drive out who was served.
    #[must_use]
    pub fn turn(&self, spared: Duration, now: Time) -> Option<Turn> {
        if now.saturating_since(self.since) <= spared {
            return None;
        }
        match self.stage {
            Stage::Head | Stage::Idle if self.silent => Some(Turn::Silent(self.since)),
            Stage::Idle if self.is_quiet() => Some(Turn::Idle(self.since)),
            // Who has begun a head has the time that a head may take.
            Stage::Head | Stage::Idle | Stage::Leaving | Stage::Serving => None,
        }
    }

    /// What has taken too long by now, if anything has.
    ///
    /// A connection with something left to write is not idle, whatever its requests are at: a slow reader of a long last piece
    /// has all the time it needs as long as it reads at all.
    #[must_use]
    pub fn overdue(&self, patience: &Patience, now: Time) -> Option<Overdue> {
        let over = |since: Time, limit: Duration| now.saturating_since(since) > limit;
        if self.block.is_some_and(|since| over(since, patience.header)) {
            return Some(Overdue::Header);
        }
        if let Some(since) = self.stalled {
            return over(since, patience.stream_idle).then_some(Overdue::Stream);
        }
        match self.stage {
            Stage::Head => over(self.since, patience.header).then_some(Overdue::Header),
            Stage::Idle => over(self.since, patience.idle).then_some(Overdue::Idle),
            Stage::Leaving => over(self.since, LEAVING.min(patience.idle)).then_some(Overdue::Idle),
            Stage::Serving => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        header: Duration::from_secs(10),
        idle: Duration::from_secs(60),
        stream_idle: Duration::from_secs(300),
        request: None,
    };

    fn at(seconds: u64) -> Time {
        Time::default() + Duration::from_secs(seconds)
    }

    fn plain(stage: Stage) -> Standing {
        Standing { stage, since: at(100), stalled: None, block: None, silent: false }
    }

    #[test]
    fn who_never_asked_leaves_before_who_was_served() {
        let silent = |stage, since| Standing { silent: true, since: at(since), ..plain(stage) };
        let idle = |since| Standing { since: at(since), ..plain(Stage::Idle) };
        let spared = Duration::from_secs(1);
        let turns = [idle(10), silent(Stage::Head, 200), idle(20), silent(Stage::Idle, 150)]
            .map(|standing| standing.turn(spared, at(300)));
        let mut sorted = turns;
        sorted.sort_unstable();
        assert_eq!(sorted, [turns[3], turns[1], turns[0], turns[2]]);
        for (what, standing) in [
            ("new", silent(Stage::Head, 299)),
            ("idle for a moment", idle(299)),
            ("a head under way", plain(Stage::Head)),
            ("served", plain(Stage::Serving)),
            ("told to leave", silent(Stage::Leaving, 100)),
            ("reads slowly", Standing { stalled: Some(at(200)), ..plain(Stage::Idle) }),
        ] {
            assert_eq!(standing.turn(spared, at(300)), None, "{what}");
        }
    }

    #[test]
    fn each_stage_has_its_own_limit() {
        for (what, standing, after, want) in [
            ("a head in time", plain(Stage::Head), 10, None),
            ("a head too late", plain(Stage::Head), 11, Some(Overdue::Header)),
            ("idle", plain(Stage::Idle), 60, None),
            ("idle too long", plain(Stage::Idle), 61, Some(Overdue::Idle)),
            ("told to leave", plain(Stage::Leaving), 5, None),
            ("told to leave, and still there", plain(Stage::Leaving), 6, Some(Overdue::Idle)),
            ("served", plain(Stage::Serving), 100_000, None),
            ("reads slowly", Standing { stalled: Some(at(200)), ..plain(Stage::Idle) }, 400, None),
            ("does not read", Standing { stalled: Some(at(200)), ..plain(Stage::Serving) }, 401, Some(Overdue::Stream)),
            ("a block in time", Standing { block: Some(at(200)), ..plain(Stage::Serving) }, 110, None),
            (
                "a block too late",
                Standing { block: Some(at(200)), ..plain(Stage::Serving) },
                111,
                Some(Overdue::Header),
            ),
        ] {
            assert_eq!(standing.overdue(&PATIENCE, at(100 + after)), want, "{what}");
        }
    }
}
