//! The roll-out of a plugin's next version: which exchanges the candidate gets, how it fares beside the current version, and
//! what is decided about it.
//!
//! All workers share one [`Rollout`]: a few atomic numbers, of which an exchange touches some at its end, and no lock. What is
//! decided, by a bound that was exceeded, by time, or by an operator, holds from the next exchange on, on every worker.
//! **Invariant:** an exchange keeps the version it was given from its beginning to its end, whatever is decided meanwhile.

mod seen;
mod times;

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderName;

pub(crate) use self::seen::Seen;
use self::times::Times;
use crate::exchange::{ExchangeId, Facts};
use crate::filter::FilterIndex;
use crate::headers::Headers;
use crate::time::Time;

/// Hundredths of a percent in a whole.
pub const WHOLE: u32 = 10_000;
/// So many exchanges of each version are timed before their times are compared: ten then lie above the 99th percentile.
pub const TIMED: u64 = 1000;
/// The times are compared after so many more exchanges of the candidate: adding up a histogram is not for each of them.
const LOOK: u64 = 64;
/// The share of exchanges that disagree is judged as though at least so many had been compared: one among the first is no share.
pub const COMPARED: u64 = 200;

/// Which version of a plugin a filter is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Version {
    /// The one that is in use.
    #[default]
    Current,
    /// The one that may follow it.
    Candidate,
    /// The same, whose effects are compared and not applied.
    Shadow,
}

/// A filter with a candidate, in one exchange: which version that has, and how long it took so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trial {
    pub(crate) filter: FilterIndex,
    pub(crate) version: Version,
    pub(crate) took: Duration,
    /// It has held the exchange back since then.
    pub(crate) paused: Option<Time>,
    /// It has answered the request itself.
    pub(crate) replied: bool,
    pub(crate) shadow: Option<ExchangeId>,
    /// What left the filter, where that is to be compared with what leaves the shadow.
    pub(crate) seen: Seen,
}

/// How a candidate is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it is given.
    pub mode: Mode,
    /// The share of exchanges that it gets, in hundredths of a percent.
    pub share: u32,
    /// Which they are.
    pub by: By,
    /// What ends the trial.
    pub abort_if: Bounds,
    /// When the candidate takes the current version's place; never by itself, if absent.
    pub promote_after: Option<Term>,
}

/// What a candidate is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Exchanges in place of the current version.
    #[default]
    Serves,
    /// Copies of exchanges, which the current version serves.
    Shadows,
}

/// What came of a shadow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The same left it as left the current version.
    Agrees,
    /// Something else did.
    Disagrees,
    /// It could not be compared.
    Incomplete,
    /// There was no room for the candidate.
    NoRoom,
    /// The candidate failed.
    Failed,
}

impl Comparison {
    pub(crate) fn of(current: &Seen, shadow: &Seen) -> Self {
        if current == shadow { Self::Agrees } else { Self::Disagrees }
    }
}

/// What decides which version an exchange gets. Equal values get the same version, on every worker and in every gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// The request's identifier: each request for itself.
    #[default]
    Random,
    /// The client's address.
    Client,
    /// The first value of a field, as the request has it when it comes to the filter. Without it: the current version.
    Header(HeaderName),
}

/// What a candidate may do before it is given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Exchanges in which it failed.
    pub traps: u64,
    /// The share of shadows that disagree, in hundredths of a percent.
    pub disagree: Option<u32>,
    /// How much longer its exchanges take in the filter at the 99th percentile.
    pub added_p99: Option<Duration>,
}

/// How long a candidate is tried. What is absent is not waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Term {
    /// Exchanges that it has had.
    pub exchanges: Option<u64>,
    /// Time since its roll-out began.
    pub time: Option<Duration>,
}

/// Where a roll-out stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The candidate gets its share.
    Running,
    /// The candidate gets nothing any more.
    Aborted,
    /// The candidate gets everything.
    Promoted,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Running, Self::Aborted, Self::Promoted];

    /// The word for it in metrics, logs and the admin listener's answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Aborted => "aborted",
            Self::Promoted => "promoted",
        }
    }

    /// The one that this is the word for.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    fn from_number(number: u8) -> Self {
        Self::ALL.into_iter().find(|state| *state as u8 == number).unwrap_or(Self::Aborted)
    }
}

/// What a roll-out has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Where it stands since.
    pub state: State,
    /// When that was decided.
    pub at: Time,
    /// Why.
    pub why: Why,
}

/// Why it was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The candidate failed in so many exchanges.
    Traps(u64),
    /// So many shadows disagreed, of so many.
    Disagrees(u64, u64),
    /// The 99th percentiles of the time in the filter: the current version's, the candidate's.
    AddedP99(Duration, Duration),
    /// It was tried for as long as it was to be, in so many exchanges, and kept within all bounds.
    Held(u64),
    /// Somebody said so.
    Told(Box<str>),
    /// An earlier process had decided it, for this reason.
    Before(Box<str>),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Traps(1) => write!(f, "the candidate failed in 1 exchange"),
            Self::Traps(failed) => write!(f, "the candidate failed in {failed} exchanges"),
            Self::Disagrees(disagreed, compared) => {
                write!(f, "the candidate did otherwise than the current version in {disagreed} of {compared} exchanges")
            }
            Self::AddedP99(current, candidate) => {
                write!(f, "99 % of exchanges took the candidate up to {candidate:?}, the current version {current:?}")
            }
            Self::Held(exchanges) => write!(f, "the candidate kept within all bounds in {exchanges} exchanges"),
            Self::Told(who) => write!(f, "told by {who}"),
            Self::Before(why) => f.write_str(why),
        }
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Exchanges that have ended, of the current version and of the candidate.
    pub exchanges: [u64; 2],
    /// Exchanges in which the candidate failed.
    pub traps: u64,
    /// Exchanges, or shadows, for whose candidate there was no room: they say nothing about it.
    pub no_room: u64,
    /// Shadows that agreed, that disagreed, and that could not be compared.
    pub shadows: [u64; 3],
    /// The 99th percentile of the time in the filter; nothing before an exchange was timed.
    pub p99: [Option<Duration>; 2],
}

/// The roll-out of one plugin.
#[derive(Debug)]
pub struct Rollout {
    /// The plugin's name. Roll-outs of different plugins choose different callers.
    pub plugin: Arc<str>,
    /// Whose plugin it is; nobody's is the gateway's.
    pub tenant: Option<Arc<str>>,
    /// How the candidate is tried.
    pub rule: Rule,
    /// What it goes by from one configuration, and one process, to the next: the same for the same candidate tried in the same way.
    pub identity: [u8; 32],
    /// When it began.
    pub began: Time,
    state: AtomicU8,
    exchanges: [AtomicU64; 2],
    traps: AtomicU64,
    no_room: AtomicU64,
    shadows: [AtomicU64; 3],
    times: [Times; 2],
    /// Taken when something is decided, and by whoever is shown it: never for an exchange.
    decision: Mutex<Option<Decision>>,
}

impl Rollout {
    /// A roll-out that begins now.
    #[must_use]
    pub fn new(plugin: Arc<str>, tenant: Option<Arc<str>>, rule: Rule, now: Time) -> Self {
        Self {
            plugin,
            tenant,
            rule,
            identity: [0; 32],
            began: now,
            state: AtomicU8::new(State::Running as u8),
            exchanges: Default::default(),
            traps: AtomicU64::new(0),
            no_room: AtomicU64::new(0),
            shadows: Default::default(),
            times: Default::default(),
            decision: Mutex::default(),
        }
    }

    /// The same, going by this.
    #[must_use]
    pub fn known_as(self, identity: [u8; 32]) -> Self {
        Self { identity, ..self }
    }

    /// The same, about which this has been decided.
    #[must_use]
    pub fn decided_before(self, decision: Decision) -> Self {
        Self { state: AtomicU8::new(decision.state as u8), decision: Mutex::new(Some(decision)), ..self }
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        State::from_number(self.state.load(Ordering::Relaxed))
    }

    /// What was decided last, if anything was.
    #[must_use]
    pub fn decision(&self) -> Option<Decision> {
        self.decided().clone()
    }

    fn decided(&self) -> MutexGuard<'_, Option<Decision>> {
        self.decision.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version that an exchange gets.
    #[must_use]
    pub fn assign(&self, facts: Option<&Facts>, request: Option<&Headers>) -> Version {
        match self.state() {
            State::Aborted => Version::Current,
            State::Promoted => Version::Candidate,
            State::Running if self.rule.mode == Mode::Serves && self.chooses(facts, request) => Version::Candidate,
            State::Running => Version::Current,
        }
    }

    /// Whether an exchange gets a shadow.
    #[must_use]
    pub fn shadows(&self, facts: Option<&Facts>, request: Option<&Headers>) -> bool {
        self.rule.mode == Mode::Shadows && self.state() == State::Running && self.chooses(facts, request)
    }

    /// What came of a shadow, and how long it took; whether that has decided anything.
    pub fn compared(&self, comparison: Comparison, took: Duration, now: Time) -> bool {
        let [agreed, disagreed, incomplete] = &self.shadows;
        let count = match comparison {
            Comparison::Failed => return self.failed(now),
            Comparison::NoRoom => {
                self.found_no_room();
                return false;
            }
            Comparison::Incomplete => incomplete,
            Comparison::Agrees => agreed,
            Comparison::Disagrees => disagreed,
        };
        count.fetch_add(1, Ordering::Relaxed);
        if comparison == Comparison::Incomplete {
            return false;
        }
        // Counted before anything is decided: whoever hears of the decision finds the exchange that made it.
        let ended = self.note(Version::Shadow, took);
        let disagreed = disagreed.load(Ordering::Relaxed);
        let compared = disagreed + agreed.load(Ordering::Relaxed);
        let allowed = |share: u32| u64::from(share) * compared.max(COMPARED) / u64::from(WHOLE);
        if self.rule.abort_if.disagree.is_some_and(|share| disagreed > allowed(share)) {
            return self.decide(State::Aborted, Why::Disagrees(disagreed, compared), now);
        }
        self.judge(ended, now)
    }

    fn chooses(&self, facts: Option<&Facts>, request: Option<&Headers>) -> bool {
        let place = match &self.rule.by {
            By::Random => facts.map(|facts| place(&self.plugin, facts.request_id.as_bytes())),
            By::Client => facts.map(|facts| match facts.source.ip().to_canonical() {
                std::net::IpAddr::V4(address) => place(&self.plugin, &address.octets()),
                std::net::IpAddr::V6(address) => place(&self.plugin, &address.octets()),
            }),
            By::Header(name) => {
                request.and_then(|head| head.get(name.as_str().as_bytes())).map(|value| place(&self.plugin, value))
            }
        };
        place.is_some_and(|place| place < self.rule.share)
    }

    /// The candidate failed in an exchange; whether that has decided anything.
    pub fn failed(&self, now: Time) -> bool {
        let failed = self.traps.fetch_add(1, Ordering::Relaxed) + 1;
        failed > self.rule.abort_if.traps && self.decide(State::Aborted, Why::Traps(failed), now)
    }

    /// There was no room for the candidate in an exchange that was to have it: a lack of the gateway's, or of its tenant's, that
    /// decides nothing.
    pub fn found_no_room(&self) {
        self.no_room.fetch_add(1, Ordering::Relaxed);
    }

    /// An exchange has ended, in which the filter took so long; whether that has decided anything.
    pub fn ended(&self, version: Version, took: Duration, now: Time) -> bool {
        let ended = self.note(version, took);
        version != Version::Current && self.judge(ended, now)
    }

    /// Counts an exchange that has ended; how many of its version have.
    fn note(&self, version: Version, took: Duration) -> u64 {
        let ([currents, candidates], [current, candidate]) = (&self.exchanges, &self.times);
        let (count, times) = match version {
            Version::Current => (currents, current),
            Version::Candidate | Version::Shadow => (candidates, candidate),
        };
        times.note(took);
        count.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Judges the candidate after so many of its exchanges; whether that has decided anything.
    fn judge(&self, ended: u64, now: Time) -> bool {
        if self.state() != State::Running {
            return false;
        }
        let term_is_over = self.is_over(ended, now);
        if !term_is_over && !ended.is_multiple_of(LOOK) {
            return false;
        }
        match self.judge_times() {
            Judged::TooLong(current, candidate) => self.decide(State::Aborted, Why::AddedP99(current, candidate), now),
            Judged::Well if term_is_over => self.decide(State::Promoted, Why::Held(ended), now),
            Judged::Well | Judged::NotYet => false,
        }
    }

    /// Whether the candidate has been tried for as long as it was to be.
    fn is_over(&self, ended: u64, now: Time) -> bool {
        self.rule.promote_after.is_some_and(|term| {
            term.exchanges.is_none_or(|wanted| ended >= wanted)
                && term.time.is_none_or(|wanted| now.saturating_since(self.began) >= wanted)
        })
    }

    fn judge_times(&self) -> Judged {
        let Some(bound) = self.rule.abort_if.added_p99 else { return Judged::Well };
        let [current, candidate] = self.times.each_ref().map(Times::p99);
        match (current, candidate) {
            (Some((most, of)), Some((more, and))) if of >= TIMED && and >= TIMED => {
                if more > most + bound {
                    Judged::TooLong(most, more)
                } else {
                    Judged::Well
                }
            }
            _ => Judged::NotYet,
        }
    }

    /// Decides, unless something has been decided; whether this has.
    fn decide(&self, state: State, why: Why, now: Time) -> bool {
        let mut decision = self.decided();
        let is_first = decision.is_none();
        if is_first {
            *decision = Some(Decision { state, at: now, why });
            self.state.store(state as u8, Ordering::Relaxed);
        }
        is_first
    }

    /// Decides as somebody says, whatever was decided before.
    pub fn tell(&self, state: State, who: &str, now: Time) {
        let mut decision = self.decided();
        *decision = Some(Decision { state, at: now, why: Why::Told(who.into()) });
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// What has been counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            exchanges: self.exchanges.each_ref().map(|count| count.load(Ordering::Relaxed)),
            traps: self.traps.load(Ordering::Relaxed),
            no_room: self.no_room.load(Ordering::Relaxed),
            shadows: self.shadows.each_ref().map(|count| count.load(Ordering::Relaxed)),
            p99: self.times.each_ref().map(|times| times.p99().map(|(time, _)| time)),
        }
    }
}

/// What the candidate's times say.
enum Judged {
    NotYet,
    Well,
    TooLong(Duration, Duration),
}

/// Where a value lies among all there could be, in hundredths of a percent. Everything that serves the same configuration puts it
/// there.
fn place(salt: &str, value: &[u8]) -> u32 {
    // FNV-1a, which knows no key that would have to be shared; and the end of SplitMix64, since its own last bytes move little.
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = salt.as_bytes().iter().chain(&[0]).chain(value).fold(0xcbf2_9ce4_8422_2325, step);
    let scaled = (u128::from(seen::mixed(hash)) * u128::from(WHOLE)) >> 64;
    u32::try_from(scaled).unwrap_or(WHOLE)
}

#[cfg(test)]
mod tests;
