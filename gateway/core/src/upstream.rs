//! Endpoints of an upstream, and choosing one for an exchange.
//!
//! A worker holds one [`Balancer`] per upstream and tells it what becomes of each choice; workers do not compare notes.
//! An endpoint that fails is ejected for a while that doubles with each failure, then tried with one exchange before it
//! is used freely again. When every endpoint is ejected all are used: refusing would turn a guess into an outage.
//!
//! Connecting, pooling and retrying are the server's. Nothing here allocates after [`Balancer::new`].
//!
//! **Invariants:** every `started` is met by one `finished`; an endpoint on trial has an exchange in flight.

use crate::time::Time;
use std::time::Duration;

/// How long an endpoint is left alone after its first failure. About what a process takes to restart.
pub const FIRST_EJECTION: Duration = Duration::from_secs(1);
/// The longest an endpoint is left alone, however often it failed.
pub const LONGEST_EJECTION: Duration = Duration::from_secs(30);
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
    endpoints: Box<[Endpoint]>,
    /// Where the next search begins.
    next: usize,
    random: Random,
}

#[derive(Clone, Debug, Default)]
struct Endpoint {
    in_flight: u32,
    health: Health,
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
    pub fn new(balance: Balance, endpoints: usize, seed: u64) -> Self {
        let mut random = Random(seed);
        // Or every worker would open its first connection to the same endpoint.
        let next = if endpoints == 0 { 0 } else { random.below(endpoints) };
        Self { balance, endpoints: vec![Endpoint::default(); endpoints].into(), next, random }
    }

    /// Chooses an endpoint; none only if the upstream has none.
    ///
    /// Ejected endpoints are passed over unless all are ejected.
    pub fn choose(&mut self, now: Time) -> Option<EndpointIndex> {
        let chosen = self.pick(|endpoint| endpoint.is_usable(now)).or_else(|| self.pick(|_| true))?;
        self.next = (chosen + 1) % self.endpoints.len();
        self.check();
        Some(EndpointIndex(chosen))
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

    /// The endpoint sent a response head: it is good, whatever it was before.
    pub fn answered(&mut self, index: EndpointIndex) {
        self.endpoint(index).health = Health::Good;
        self.check();
    }

    /// The endpoint could not be connected to, or dropped the connection before it answered.
    ///
    /// Ejects it; failures that arrive while it is ejected are the same outage and change nothing. A kept connection
    /// that turns out to be closed is no failure of the endpoint. `finished` is still to be called.
    pub fn failed(&mut self, index: EndpointIndex, now: Time) {
        let endpoint = self.endpoint(index);
        let times = match endpoint.health {
            Health::Good => 1,
            Health::Ejected { until, .. } if now < until => return,
            Health::Ejected { times, .. } | Health::OnTrial { times } => times.saturating_add(1),
        };
        endpoint.health = Health::Ejected { until: now + ejection(times), times };
        self.check();
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

    fn pick(&mut self, usable: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        match self.balance {
            Balance::RoundRobin => self.first_from(self.next, usable),
            Balance::LeastRequests if self.endpoints.len() <= FEW => self.least(usable),
            Balance::LeastRequests => self.better_of_two(usable),
        }
    }

    /// The first usable endpoint at or after a position, going round.
    fn first_from(&self, start: usize, usable: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        self.round(start).find(|(_, endpoint)| usable(endpoint)).map(|(index, _)| index)
    }

    fn least(&self, usable: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        let usable = self.round(self.next).filter(|(_, endpoint)| usable(endpoint));
        // The first of equals, so that going round spreads them.
        usable.min_by_key(|(_, endpoint)| endpoint.in_flight).map(|(index, _)| index)
    }

    /// A draw that hits an unusable endpoint moves on to the next one, which then is drawn more often than its share:
    /// of no weight while few are ejected, and their minimum is still taken.
    fn better_of_two(&mut self, usable: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        let (start, step) = (self.random.below(self.endpoints.len()), self.random.below(self.endpoints.len()));
        let one = self.first_from(start, &usable)?;
        let rest = self.round(one + 1 + step).filter(|(index, _)| *index != one);
        let two = rest.filter(|(_, endpoint)| usable(endpoint)).map(|(index, _)| index).next().unwrap_or(one);
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
    fn is_usable(&self, now: Time) -> bool {
        match self.health {
            Health::Good => true,
            Health::Ejected { until, .. } => until <= now,
            Health::OnTrial { .. } => false,
        }
    }
}

fn ejection(times: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(times.saturating_sub(1));
    FIRST_EJECTION.saturating_mul(doubled).min(LONGEST_EJECTION)
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

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time::from_nanos(1_000_000_000_000);

    fn after(ms: u64) -> Time {
        START + Duration::from_millis(ms)
    }

    /// Starts that many exchanges and counts where they went.
    fn start(balancer: &mut Balancer, exchanges: usize, now: Time) -> Vec<usize> {
        let mut counts = vec![0; balancer.endpoints.len()];
        for _ in 0..exchanges {
            let index = balancer.choose(now).unwrap();
            balancer.started(index);
            counts[index.get()] += 1;
        }
        counts
    }

    /// One exchange with an endpoint that fails.
    fn fail(balancer: &mut Balancer, index: usize, now: Time) {
        balancer.started(EndpointIndex(index));
        balancer.failed(EndpointIndex(index), now);
        balancer.finished(EndpointIndex(index));
    }

    /// Which endpoints are chosen at all when nothing starts.
    fn in_use(balancer: &mut Balancer, now: Time) -> Vec<usize> {
        let mut chosen: Vec<_> = (0..100).map(|_| balancer.choose(now).unwrap().get()).collect();
        chosen.sort_unstable();
        chosen.dedup();
        chosen
    }

    #[test]
    fn an_upstream_without_endpoints_has_none_to_choose() {
        for balance in [Balance::RoundRobin, Balance::LeastRequests] {
            assert_eq!(Balancer::new(balance, 0, 1).choose(START), None);
        }
    }

    #[test]
    fn round_robin_takes_each_in_turn_and_skips_the_ejected() {
        let mut balancer = Balancer::new(Balance::RoundRobin, 4, 1);
        let first = balancer.choose(START).unwrap().get();
        let turns: Vec<_> = (0..4).map(|_| balancer.choose(START).unwrap().get()).collect();
        assert_eq!(turns, [1, 2, 3, 4].map(|step| (first + step) % 4));
        fail(&mut balancer, 2, START);
        assert_eq!(in_use(&mut balancer, START), [0, 1, 3]);
    }

    #[test]
    fn least_requests_finds_the_true_minimum_among_few() {
        let mut balancer = Balancer::new(Balance::LeastRequests, 5, 1);
        assert_eq!(start(&mut balancer, 50, START), [10; 5]);
        for _ in 0..3 {
            balancer.finished(EndpointIndex(4));
        }
        assert_eq!(start(&mut balancer, 3, START), [0, 0, 0, 0, 3]);
    }

    #[test]
    fn least_requests_takes_equals_in_turn() {
        let mut balancer = Balancer::new(Balance::LeastRequests, 3, 1);
        let turns: Vec<_> = (0..6).map(|_| balancer.choose(START).unwrap().get()).collect();
        let first = turns[0];
        assert_eq!(turns, [0, 1, 2, 3, 4, 5].map(|step| (first + step) % 3));
    }

    #[test]
    fn least_requests_stays_near_even_among_many_and_shuns_the_loaded_one() {
        for seed in 0..50 {
            let mut balancer = Balancer::new(Balance::LeastRequests, 50, seed);
            for _ in 0..100 {
                balancer.started(EndpointIndex(7));
            }
            let counts = start(&mut balancer, 49 * 20, START);
            assert_eq!(counts[7], 0, "seed {seed}: {counts:?}");
            let others = counts.iter().enumerate().filter(|(index, _)| *index != 7);
            assert!(others.clone().all(|(_, count)| (14..=26).contains(count)), "seed {seed}: {counts:?}");
        }
    }

    #[test]
    fn draws_among_many_pass_over_the_ejected() {
        let mut balancer = Balancer::new(Balance::LeastRequests, 20, 3);
        for index in 0..18 {
            fail(&mut balancer, index, START);
        }
        assert_eq!(in_use(&mut balancer, START), [18, 19]);
        fail(&mut balancer, 18, START);
        assert_eq!(in_use(&mut balancer, START), [19]);
    }

    #[test]
    fn an_ejection_doubles_with_each_failed_trial_up_to_its_limit() {
        let mut balancer = Balancer::new(Balance::RoundRobin, 2, 1);
        let mut now = START;
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            fail(&mut balancer, 0, now);
            let back = now + Duration::from_secs(seconds);
            assert_eq!(in_use(&mut balancer, now), [1]);
            assert_eq!(in_use(&mut balancer, Time::from_nanos(back.as_nanos() - 1)), [1]);
            assert_eq!(in_use(&mut balancer, back), [0, 1]);
            now = back;
        }
        balancer.answered(EndpointIndex(0));
        fail(&mut balancer, 0, now);
        assert_eq!(in_use(&mut balancer, now + FIRST_EJECTION), [0, 1]);
    }

    #[test]
    fn one_exchange_tries_an_endpoint_that_was_ejected_before_others_follow() {
        let mut balancer = Balancer::new(Balance::RoundRobin, 2, 1);
        fail(&mut balancer, 0, START);
        let now = after(1000);
        assert_eq!(start(&mut balancer, 20, now), [1, 19]);
        balancer.answered(EndpointIndex(0));
        assert_eq!(start(&mut balancer, 20, now), [10, 10]);
    }

    #[test]
    fn a_trial_that_ends_without_an_answer_is_followed_by_another() {
        let mut balancer = Balancer::new(Balance::RoundRobin, 2, 1);
        fail(&mut balancer, 0, START);
        assert_eq!(start(&mut balancer, 20, after(1000)), [1, 19]);
        balancer.finished(EndpointIndex(0));
        assert_eq!(start(&mut balancer, 20, after(1001)), [1, 19]);
    }

    #[test]
    fn failures_of_one_outage_count_once() {
        let mut balancer = Balancer::new(Balance::RoundRobin, 2, 1);
        assert_eq!(start(&mut balancer, 20, START), [10, 10]);
        for ms in 0..10 {
            balancer.failed(EndpointIndex(0), after(ms));
            balancer.finished(EndpointIndex(0));
        }
        assert_eq!(in_use(&mut balancer, after(999)), [1]);
        assert_eq!(in_use(&mut balancer, after(1000)), [0, 1]);
    }

    #[test]
    fn with_every_endpoint_ejected_all_are_used() {
        for (balance, endpoints) in
            [(Balance::RoundRobin, 3), (Balance::LeastRequests, 3), (Balance::LeastRequests, 12)]
        {
            let mut balancer = Balancer::new(balance, endpoints, 1);
            for index in 0..endpoints {
                fail(&mut balancer, index, START);
            }
            let all: Vec<_> = (0..endpoints).collect();
            assert_eq!(in_use(&mut balancer, START), all, "{balance:?}");
            balancer.answered(EndpointIndex(1));
            assert_eq!(in_use(&mut balancer, START), [1], "{balance:?}");
        }
    }
}
