//! A roll-out by itself: who is chosen, and what is decided when.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method};

use super::*;
use crate::headers::Scheme;

fn rollout(rule: Rule) -> Rollout {
    Rollout::new("geo".into(), None, rule, at(0))
}

fn rule(share: u32) -> Rule {
    Rule {
        mode: Mode::Serves,
        share,
        by: By::Header(HeaderName::from_static("x-user")),
        abort_if: Bounds::default(),
        promote_after: None,
    }
}

fn at(seconds: u64) -> Time {
    Time::from_nanos(1_700_000_000_000_000_000 + seconds * 1_000_000_000)
}

fn of(rollout: &Rollout, user: Option<&str>) -> Version {
    let fields = user.map(|user| (HeaderName::from_static("x-user"), HeaderValue::from_str(user).unwrap()));
    let fields: HeaderMap = fields.into_iter().collect();
    let head = Headers::request(Method::GET, Scheme::Http, http::uri::PathAndQuery::from_static("/"), fields);
    rollout.assign(None, Some(&head))
}

#[test]
fn a_share_of_values_is_chosen_and_always_the_same_ones() {
    for share in [0, 500, 5_000, WHOLE] {
        let (one, two) = (rollout(rule(share)), rollout(rule(share)));
        let chosen = |user: &u32| of(&one, Some(&format!("user-{user}"))) == Version::Candidate;
        let count = u32::try_from((0..20_000).filter(chosen).count()).unwrap();
        assert!(count.abs_diff(share * 2) <= 300, "{share}: {count}");
        assert!((0..1000).all(|user| chosen(&user) == (of(&two, Some(&format!("user-{user}"))) == Version::Candidate)));
    }
    assert_eq!(of(&rollout(rule(WHOLE)), None), Version::Current, "who says nothing stays");
    let other = Rollout::new("auth".into(), None, rule(5_000), at(0));
    let same = (0..1000).filter(|user| {
        let user = format!("user-{user}");
        of(&other, Some(&user)) == of(&rollout(rule(5_000)), Some(&user))
    });
    assert!((400..600).contains(&same.count()), "roll-outs choose independently");
}

#[test]
fn what_decides_is_among_what_was_compared() {
    let abort_if = Bounds { disagree: Some(0), ..Bounds::default() };
    let rollout = rollout(Rule { mode: Mode::Shadows, abort_if, ..rule(WHOLE) });
    let took = Duration::from_millis(1);
    assert!(!rollout.compared(Comparison::Agrees, took, at(1)));
    assert!(rollout.compared(Comparison::Disagrees, took, at(2)));
    assert!(!rollout.compared(Comparison::Disagrees, took, at(3)), "it was under way");
    let Counts { exchanges, shadows, .. } = rollout.counts();
    assert_eq!((exchanges, shadows), ([0, 3], [1, 2, 0]));
    assert_eq!(rollout.decision().unwrap().why, Why::Disagrees(1, 2));
}

#[test]
fn what_was_decided_before_holds_until_somebody_says_otherwise() {
    let why = Why::Before("the candidate failed in 1 exchange".into());
    let decision = Decision { state: State::Aborted, at: at(0), why };
    let rollout = rollout(rule(WHOLE)).decided_before(decision.clone());
    assert_eq!((rollout.state(), of(&rollout, Some("a"))), (State::Aborted, Version::Current));
    assert!(!rollout.failed(at(1)), "nothing is decided twice");
    assert_eq!(rollout.decision(), Some(decision));
    rollout.tell(State::Promoted, "an operator", at(2));
    assert_eq!(of(&rollout, Some("a")), Version::Candidate);
    assert_eq!(State::ALL.map(|state| State::named(state.as_str())), State::ALL.map(Some));
}

#[test]
fn more_failures_than_allowed_abort_it_once() {
    let rollout = rollout(Rule { abort_if: Bounds { traps: 2, ..Bounds::default() }, ..rule(WHOLE) });
    assert_eq!([0; 5].map(|_| rollout.failed(at(1))), [false, false, true, false, false]);
    assert_eq!((rollout.state(), of(&rollout, Some("a"))), (State::Aborted, Version::Current));
    assert_eq!(rollout.decision().unwrap().why, Why::Traps(3));
    rollout.tell(State::Promoted, "an operator", at(2));
    assert_eq!((rollout.state(), of(&rollout, None)), (State::Promoted, Version::Candidate));
}

#[test]
fn times_are_compared_when_there_are_enough_of_both() {
    let bounds = Bounds { added_p99: Some(Duration::from_millis(2)), ..Bounds::default() };
    for (added, want) in [(1, State::Running), (5, State::Aborted)] {
        let rollout = rollout(Rule { abort_if: bounds, ..rule(WHOLE) });
        let took = |version, ms: u64| rollout.ended(version, Duration::from_millis(ms), at(1));
        for _ in 0..TIMED {
            took(Version::Current, 1);
        }
        assert!((0..900).all(|_| !took(Version::Candidate, 1 + added)), "too few");
        // A rare slow one of the current version's is no excuse.
        took(Version::Current, 1000);
        let decided = (0..200).filter(|_| took(Version::Candidate, 1 + added)).count();
        assert_eq!((rollout.state(), decided), (want, usize::from(want == State::Aborted)), "{added} ms more");
    }
}

#[test]
fn a_candidate_that_keeps_within_all_bounds_for_its_term_is_promoted() {
    let term = Term { exchanges: Some(10), time: Some(Duration::from_secs(60)) };
    let rollout = Arc::new(rollout(Rule { promote_after: Some(term), ..rule(500) }));
    let ended = |seconds| rollout.ended(Version::Candidate, Duration::ZERO, at(seconds));
    assert!((0..20).all(|_| !ended(59)), "it is too early");
    assert!(!rollout.ended(Version::Current, Duration::ZERO, at(61)) && ended(60));
    assert_eq!((rollout.state(), rollout.decision().unwrap().why), (State::Promoted, Why::Held(21)));
    assert!(!rollout.failed(at(62)), "what was decided stays");

    let untimed = Bounds { added_p99: Some(Duration::from_millis(1)), ..Bounds::default() };
    let hasty = Rule { promote_after: Some(Term { exchanges: Some(1), time: None }), abort_if: untimed, ..rule(500) };
    let hasty = Rollout::new("geo".into(), None, hasty, at(0));
    assert!((0..100).all(|_| !hasty.ended(Version::Candidate, Duration::ZERO, at(1))), "a bound waits to be judged");
}
