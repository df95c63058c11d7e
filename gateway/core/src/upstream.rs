//! Endpoints of an upstream, and choosing one for an exchange.
//!
//! A worker holds one [`Balancer`] per upstream and tells it what becomes of each choice; workers do not compare notes.
//! An endpoint that fails is ejected for a while that doubles with each failure, then tried with one exchange before it
//! is used freely again; one that only answers with errors, when it has done so several times in a row. When every endpoint is
//! ejected, or too many of them, all are used: refusing would turn a guess into an outage.
//!
//! Endpoints come and go, as names resolve to other addresses. Connecting, pooling and retrying are the server's. Nothing here
//! allocates but for a new endpoint.
//!
//! **Invariants:** every `started` is met by one `finished`; an endpoint on trial has an exchange in flight; an index in use is
//! never given to another endpoint.

#[cfg(test)]
mod tests;

use crate::time::Time;
use std::time::Duration;

/// When endpoints that fail are left alone, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// How many errors in a row eject an endpoint; 0: none do. A connection that fails does at once.
    pub errors: u32,
    /// How long it is left alone at first.
    pub first: Duration,
    /// The longest it is left alone, however often it failed.
    pub longest: Duration,
    /// With fewer usable endpoints than this, in percent, all are used.
    pub panic: u32,
}

impl Default for Ejection {
    /// At first about as long as a process takes to restart.
    fn default() -> Self {
        Self { errors: 5, first: Duration::from_secs(1), longest: Duration::from_secs(30), panic: 0 }
    }
}

/// Up to this many endpoints, looking at each is cheaper than drawing two of them, and never wrong.
const FEW: usize = 8;

/// How to choose among endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// The one with the fewest exchanges in flight, equal ones in turn. Among more than eight, the better of two drawn.
    LeastRequests,
}

/// A position in an upstream's list of endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointIndex(usize);

impl EndpointIndex {
    /// The position, from 0.
    pub fn get(self) -> usize {
        self.0
    }
}

/// Chooses endpoints of one upstream for one worker.
#[derive(Clone, Debug)]
pub struct Balancer {
    balance: Balance,
    ejection: Ejection,
    endpoints: Vec<Endpoint>,
    /// Where the next search begins.
    next: usize,
    random: Random,
}

#[derive(Clone, Debug, Default)]
struct Endpoint {
    in_flight: u32,
    /// Errors in a row.
    errors: u32,
    health: Health,
    standing: Standing,
}

/// What others say of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    #[default]
    Up,
    /// Its health checks fail.
    Down,
    /// It is no longer one of the upstream's.
    Gone,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Health {
    #[default]
    Good,
    /// It failed `times` in a row and is left alone until then.
    Ejected { until: Time, times: u32 },
    /// Ejected `times` in a row; one exchange is finding out whether it is back.
    OnTrial { times: u32 },
}

impl Balancer {
    /// A balancer over that many endpoints, all taken to be good.
    ///
    /// The seed only decides draws among many endpoints; give each worker its own, or they will draw the same.
    pub fn new(balance: Balance, ejection: Ejection, endpoints: usize, seed: u64) -> Self {
        let mut random = Random(seed);
        // Or every worker would open its first connection to the same endpoint.
        let next = if endpoints == 0 { 0 } else { random.below(endpoints) };
        Self { balance, ejection, endpoints: vec![Endpoint::default(); endpoints], next, random }
    }

    /// Another endpoint, taken to be good. It gets the place of one that is gone, if one is free.
    pub fn add(&mut self) -> EndpointIndex {
        let is_free = |endpoint: &Endpoint| endpoint.standing == Standing::Gone && endpoint.in_flight == 0;
        let index = self.endpoints.iter().position(is_free).unwrap_or_else(|| {
            self.endpoints.push(Endpoint::default());
            self.endpoints.len() - 1
        });
        *self.endpoint(EndpointIndex(index)) = Endpoint::default();
        EndpointIndex(index)
    }

    /// The endpoint is no longer one of the upstream's. Exchanges it has in flight go on.
    pub fn remove(&mut self, index: EndpointIndex) {
        self.endpoint(index).standing = Standing::Gone;
    }

    /// What its health checks say of an endpoint. Says whether that is news.
    pub fn set_up(&mut self, index: EndpointIndex, is_up: bool) -> bool {
        let standing = if is_up { Standing::Up } else { Standing::Down };
        let endpoint = self.endpoint(index);
        let is_news = endpoint.standing != Standing::Gone && endpoint.standing != standing;
        if is_news {
            endpoint.standing = standing;
        }
        is_news
    }

    /// Chooses an endpoint; none only if the upstream has none.
    ///
    /// Endpoints in `apart` are passed over while there are others, ejected ones unless all are ejected.
    pub fn choose(&mut self, now: Time, apart: &[EndpointIndex]) -> Option<EndpointIndex> {
        let elsewhere = |index| !apart.contains(&EndpointIndex(index));
        let mut chosen = None;
        if !self.panics(now) {
            if !apart.is_empty() {
                chosen = self.pick(|index, endpoint| endpoint.is_usable(now) && elsewhere(index));
            }
            chosen = chosen.or_else(|| self.pick(|_, endpoint| endpoint.is_usable(now)));
        }
        let chosen = chosen.or_else(|| self.pick(|index, endpoint| endpoint.is_here() && elsewhere(index)));
        let chosen = chosen.or_else(|| self.pick(|_, endpoint| endpoint.is_here()))?;
        // A further try takes nobody's turn: or it would always be the same endpoint's that comes after it.
        if apart.is_empty() {
            self.next = (chosen + 1) % self.endpoints.len();
        }
        self.check();
        Some(EndpointIndex(chosen))
    }

    /// Whether so few endpoints are usable that their being so few would be the next trouble.
    fn panics(&self, now: Time) -> bool {
        if self.ejection.panic == 0 {
            return false;
        }
        let here = self.endpoints.iter().filter(|endpoint| endpoint.is_here());
        let (mut all, mut usable) = (0_u64, 0_u64);
        for endpoint in here {
            all += 1;
            usable += u64::from(endpoint.is_usable(now));
        }
        usable * 100 < all * u64::from(self.ejection.panic)
    }

    /// How many endpoints there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.endpoints.iter().filter(|endpoint| endpoint.is_here()).count()
    }

    /// How many endpoints there are, and how many of them are neither ejected nor down.
    pub fn count(&self, now: Time) -> (usize, usize) {
        let here = || self.endpoints.iter().filter(|endpoint| endpoint.is_here());
        (here().count(), here().filter(|endpoint| endpoint.is_usable(now)).count())
    }

    /// Whether there is a usable endpoint other than these.
    pub fn has_other(&self, now: Time, apart: &[EndpointIndex]) -> bool {
        let mut all = self.endpoints.iter().enumerate();
        all.any(|(index, endpoint)| endpoint.is_usable(now) && !apart.contains(&EndpointIndex(index)))
    }

    /// An exchange was given to this endpoint.
    pub fn started(&mut self, index: EndpointIndex) {
        let endpoint = self.endpoint(index);
        endpoint.in_flight += 1;
        if let Health::Ejected { times, .. } = endpoint.health {
            endpoint.health = Health::OnTrial { times };
        }
        self.check();
    }

    /// The endpoint sent the head of a good response: it is good, whatever it was before.
    pub fn answered(&mut self, index: EndpointIndex) {
        let endpoint = self.endpoint(index);
        (endpoint.health, endpoint.errors) = (Health::Good, 0);
        self.check();
    }

    /// The endpoint answered with an error, or not in time. Says whether that ejects it.
    pub fn erred(&mut self, index: EndpointIndex, now: Time) -> bool {
        let most = self.ejection.errors;
        let endpoint = self.endpoint(index);
        endpoint.errors = endpoint.errors.saturating_add(1);
        match endpoint.health {
            // It was to show that it is better.
            Health::OnTrial { .. } if most > 0 => self.failed(index, now),
            Health::Good if most > 0 && endpoint.errors >= most => self.failed(index, now),
            Health::Good | Health::Ejected { .. } | Health::OnTrial { .. } => false,
        }
    }

    /// The endpoint could not be connected to, or dropped the connection before it answered. Says whether that ejects it.
    ///
    /// It does; but failures that arrive while it is ejected are the same outage and change nothing. A kept connection that
    /// turns out to be closed is no failure of the endpoint. `finished` is still to be called.
    pub fn failed(&mut self, index: EndpointIndex, now: Time) -> bool {
        let Ejection { first, longest, .. } = self.ejection;
        let endpoint = self.endpoint(index);
        let times = match endpoint.health {
            Health::Good => 1,
            Health::Ejected { until, .. } if now < until => return false,
            Health::Ejected { times, .. } | Health::OnTrial { times } => times.saturating_add(1),
        };
        let doubled = first.saturating_mul(2_u32.saturating_pow(times.saturating_sub(1)));
        endpoint.health = Health::Ejected { until: now + doubled.min(longest), times };
        endpoint.errors = 0;
        self.check();
        true
    }

    /// An exchange that `started` here is over, for better or worse.
    pub fn finished(&mut self, index: EndpointIndex) {
        let endpoint = self.endpoint(index);
        debug_assert!(endpoint.in_flight > 0, "finished more often than started");
        endpoint.in_flight = endpoint.in_flight.saturating_sub(1);
        // The trial may have ended without an answer, because the client left: the next exchange is to try again.
        if let Health::OnTrial { times } = endpoint.health {
            endpoint.health = Health::Ejected { until: Time::default(), times };
        }
        self.check();
    }

    /// How many exchanges this endpoint has in flight.
    pub fn in_flight(&self, index: EndpointIndex) -> u32 {
        self.endpoints.get(index.0).map_or(0, |endpoint| endpoint.in_flight)
    }

    fn endpoint(&mut self, index: EndpointIndex) -> &mut Endpoint {
        self.endpoints.get_mut(index.0).expect("an index is used with the balancer that chose it")
    }

    fn pick(&mut self, usable: impl Fn(usize, &Endpoint) -> bool) -> Option<usize> {
        match self.balance {
            Balance::RoundRobin => self.first_from(self.next, usable),
            Balance::LeastRequests if self.endpoints.len() <= FEW => self.least(usable),
            Balance::LeastRequests => self.better_of_two(usable),
        }
    }

    /// The first usable endpoint at or after a position, going round.
    fn first_from(&self, start: usize, usable: impl Fn(usize, &Endpoint) -> bool) -> Option<usize> {
        self.round(start).find(|(index, endpoint)| usable(*index, endpoint)).map(|(index, _)| index)
    }

    fn least(&self, usable: impl Fn(usize, &Endpoint) -> bool) -> Option<usize> {
        let usable = self.round(self.next).filter(|(index, endpoint)| usable(*index, endpoint));
        // The first of equals, so that going round spreads them.
        usable.min_by_key(|(_, endpoint)| endpoint.in_flight).map(|(index, _)| index)
    }

    /// A draw that hits an unusable endpoint moves on to the next one, which then is drawn more often than its share:
    /// of no weight while few are ejected, and their minimum is still taken.
    fn better_of_two(&mut self, usable: impl Fn(usize, &Endpoint) -> bool) -> Option<usize> {
        let (start, step) = (self.random.below(self.endpoints.len()), self.random.below(self.endpoints.len()));
        let one = self.first_from(start, &usable)?;
        let rest = self.round(one + 1 + step).filter(|(index, _)| *index != one);
        let two =
            rest.filter(|(index, endpoint)| usable(*index, endpoint)).map(|(index, _)| index).next().unwrap_or(one);
        [one, two].into_iter().min_by_key(|index| self.in_flight(EndpointIndex(*index)))
    }

    fn round(&self, start: usize) -> impl Iterator<Item = (usize, &Endpoint)> {
        let len = self.endpoints.len();
        let all = self.endpoints.iter().enumerate();
        all.cycle().skip(if len == 0 { 0 } else { start % len }).take(len)
    }

    fn check(&self) {
        debug_assert!(self.next < self.endpoints.len().max(1));
        debug_assert!(
            self.endpoints.iter().all(|e| e.in_flight > 0 || !matches!(e.health, Health::OnTrial { .. })),
            "an endpoint is on trial without an exchange: {self:?}"
        );
    }
}

impl Endpoint {
    fn is_here(&self) -> bool {
        self.standing != Standing::Gone
    }

    fn is_usable(&self, now: Time) -> bool {
        let recovered = match self.health {
            Health::Good => true,
            Health::Ejected { until, .. } => until <= now,
            Health::OnTrial { .. } => false,
        };
        recovered && self.standing == Standing::Up
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): a few instructions, any seed will do, and draws need only be spread.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^= bits >> 31;
        usize::try_from(bits % bound as u64).expect("less than a usize is one")
    }
}
