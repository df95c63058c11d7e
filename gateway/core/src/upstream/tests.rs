//! Who is chosen, and who is left alone.

use super::*;

const START: Time = Time::from_nanos(1_000_000_000_000);

fn after(ms: u64) -> Time {
    START + Duration::from_millis(ms)
}

/// Starts that many exchanges and counts where they went.
fn start(balancer: &mut Balancer, exchanges: usize, now: Time) -> Vec<usize> {
    let mut counts = vec![0; balancer.endpoints.len()];
    for _ in 0..exchanges {
        let index = balancer.choose(now, &[]).unwrap();
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
    let mut chosen: Vec<_> = (0..100).map(|_| balancer.choose(now, &[]).unwrap().get()).collect();
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

#[test]
fn an_upstream_without_endpoints_has_none_to_choose() {
    for balance in [Balance::RoundRobin, Balance::LeastRequests] {
        assert_eq!(Balancer::new(balance, Ejection::default(), 0, 1).choose(START, &[]), None);
    }
}

#[test]
fn round_robin_takes_each_in_turn_and_skips_the_ejected() {
    let mut balancer = Balancer::new(Balance::RoundRobin, Ejection::default(), 4, 1);
    let first = balancer.choose(START, &[]).unwrap().get();
    let turns: Vec<_> = (0..4).map(|_| balancer.choose(START, &[]).unwrap().get()).collect();
    assert_eq!(turns, [1, 2, 3, 4].map(|step| (first + step) % 4));
    fail(&mut balancer, 2, START);
    assert_eq!(in_use(&mut balancer, START), [0, 1, 3]);
}

#[test]
fn least_requests_finds_the_true_minimum_among_few() {
    let mut balancer = Balancer::new(Balance::LeastRequests, Ejection::default(), 5, 1);
    assert_eq!(start(&mut balancer, 50, START), [10; 5]);
    for _ in 0..3 {
        balancer.finished(EndpointIndex(4));
    }
    assert_eq!(start(&mut balancer, 3, START), [0, 0, 0, 0, 3]);
}

#[test]
fn least_requests_takes_equals_in_turn() {
    let mut balancer = Balancer::new(Balance::LeastRequests, Ejection::default(), 3, 1);
    let turns: Vec<_> = (0..6).map(|_| balancer.choose(START, &[]).unwrap().get()).collect();
    let first = turns[0];
    assert_eq!(turns, [0, 1, 2, 3, 4, 5].map(|step| (first + step) % 3));
}

#[test]
fn least_requests_stays_near_even_among_many_and_shuns_the_loaded_one() {
    for seed in 0..50 {
        let mut balancer = Balancer::new(Balance::LeastRequests, Ejection::default(), 50, seed);
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
    let mut balancer = Balancer::new(Balance::LeastRequests, Ejection::default(), 20, 3);
    for index in 0..18 {
        fail(&mut balancer, index, START);
    }
    assert_eq!(in_use(&mut balancer, START), [18, 19]);
    fail(&mut balancer, 18, START);
    assert_eq!(in_use(&mut balancer, START), [19]);
}

#[test]
fn an_ejection_doubles_with_each_failed_trial_up_to_its_limit() {
    let mut balancer = Balancer::new(Balance::RoundRobin, Ejection::default(), 2, 1);
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
    assert_eq!(in_use(&mut balancer, now + Ejection::default().first), [0, 1]);
}

#[test]
fn one_exchange_tries_an_endpoint_that_was_ejected_before_others_follow() {
    let mut balancer = Balancer::new(Balance::RoundRobin, Ejection::default(), 2, 1);
    fail(&mut balancer, 0, START);
    let now = after(1000);
    assert_eq!(start(&mut balancer, 20, now), [1, 19]);
    balancer.answered(EndpointIndex(0));
    assert_eq!(start(&mut balancer, 20, now), [10, 10]);
}

#[test]
fn a_trial_that_ends_without_an_answer_is_followed_by_another() {
    let mut balancer = Balancer::new(Balance::RoundRobin, Ejection::default(), 2, 1);
    fail(&mut balancer, 0, START);
    assert_eq!(start(&mut balancer, 20, after(1000)), [1, 19]);
    balancer.finished(EndpointIndex(0));
    assert_eq!(start(&mut balancer, 20, after(1001)), [1, 19]);
}

#[test]
fn failures_of_one_outage_count_once() {
    let mut balancer = Balancer::new(Balance::RoundRobin, Ejection::default(), 2, 1);
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
    for (balance, endpoints) in [(Balance::RoundRobin, 3), (Balance::LeastRequests, 3), (Balance::LeastRequests, 12)] {
        let mut balancer = Balancer::new(balance, Ejection::default(), endpoints, 1);
        for index in 0..endpoints {
            fail(&mut balancer, index, START);
        }
        let all: Vec<_> = (0..endpoints).collect();
        assert_eq!(in_use(&mut balancer, START), all, "{balance:?}");
        balancer.answered(EndpointIndex(1));
        assert_eq!(in_use(&mut balancer, START), [1], "{balance:?}");
    }
}

/// One exchange with an endpoint that answers with an error.
fn err(balancer: &mut Balancer, index: usize, now: Time) -> bool {
    balancer.started(EndpointIndex(index));
    let ejected = balancer.erred(EndpointIndex(index), now);
    balancer.finished(EndpointIndex(index));
    ejected
}

#[test]
fn errors_in_a_row_eject_an_endpoint_and_one_more_keeps_it_out() {
    let mut balancer = Balancer::new(Balance::RoundRobin, Ejection::default(), 2, 1);
    let ejected: Vec<_> = (0..5).map(|_| err(&mut balancer, 0, START)).collect();
    assert_eq!(ejected, [false, false, false, false, true]);
    assert_eq!(in_use(&mut balancer, after(999)), [1]);
    assert!(err(&mut balancer, 0, after(1000)), "its trial failed");
    assert_eq!(in_use(&mut balancer, after(2999)), [1], "twice as long");
    balancer.started(EndpointIndex(0));
    balancer.answered(EndpointIndex(0));
    balancer.finished(EndpointIndex(0));
    let mut four = || (0..4).any(|_| err(&mut balancer, 0, after(3000)));
    assert!(!four(), "the count begins anew");
    balancer.answered(EndpointIndex(0));
    assert!(!(0..4).any(|_| err(&mut balancer, 0, after(3000))), "a good answer in between");
    let mut patient = Balancer::new(Balance::RoundRobin, Ejection { errors: 0, ..Ejection::default() }, 2, 1);
    assert!(!(0..100).any(|_| err(&mut patient, 0, START)), "errors do not count here");
}

#[test]
fn with_too_few_left_all_are_used() {
    let ejection = Ejection { panic: 50, ..Ejection::default() };
    let mut balancer = Balancer::new(Balance::RoundRobin, ejection, 4, 1);
    fail(&mut balancer, 0, START);
    fail(&mut balancer, 1, START);
    assert_eq!(in_use(&mut balancer, START), [2, 3], "half are enough");
    fail(&mut balancer, 2, START);
    assert_eq!(in_use(&mut balancer, START), [0, 1, 2, 3]);
}

#[test]
fn endpoints_that_are_down_are_passed_over_until_none_is_left() {
    let mut balancer = Balancer::new(Balance::RoundRobin, Ejection::default(), 2, 1);
    balancer.set_up(EndpointIndex(0), false);
    assert_eq!((in_use(&mut balancer, START), balancer.count(START)), (vec![1], (2, 1)));
    balancer.set_up(EndpointIndex(1), false);
    assert_eq!(in_use(&mut balancer, START), [0, 1]);
    balancer.set_up(EndpointIndex(0), true);
    assert_eq!(in_use(&mut balancer, START), [0]);
}

#[test]
fn endpoints_come_and_go_and_no_index_is_given_away_while_it_is_in_use() {
    let mut balancer = Balancer::new(Balance::RoundRobin, Ejection::default(), 0, 1);
    let first = balancer.add();
    let second = balancer.add();
    assert_eq!(in_use(&mut balancer, START), [0, 1]);
    balancer.started(first);
    balancer.remove(first);
    assert_eq!(in_use(&mut balancer, START), [1]);
    let third = balancer.add();
    assert_eq!(third.get(), 2, "the first is still in use");
    balancer.set_up(first, true);
    balancer.failed(first, START);
    balancer.finished(first);
    assert_eq!(balancer.add(), first);
    assert_eq!(in_use(&mut balancer, START), [0, 1, 2], "and without what its predecessor had done");
    [first, second, third].into_iter().for_each(|index| balancer.remove(index));
    assert_eq!(balancer.choose(START, &[]), None);
}

#[test]
fn another_endpoint_is_preferred_to_one_that_has_failed() {
    for balance in [Balance::RoundRobin, Balance::LeastRequests] {
        let mut balancer = Balancer::new(balance, Ejection::default(), 3, 1);
        let apart = [EndpointIndex(0), EndpointIndex(2)];
        assert!(balancer.has_other(START, &apart));
        assert!((0..10).all(|_| balancer.choose(START, &apart) == Some(EndpointIndex(1))), "{balance:?}");
        fail(&mut balancer, 1, START);
        assert!(!balancer.has_other(START, &apart));
        assert!((0..10).all(|_| balancer.choose(START, &apart) != Some(EndpointIndex(1))), "rather one that works");
        let all = [0, 1, 2].map(EndpointIndex);
        assert!(balancer.choose(START, &all).is_some());
    }
}
