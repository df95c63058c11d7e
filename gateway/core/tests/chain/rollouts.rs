//! A filter with a candidate: who gets it, and that nobody changes over midway.

use expect_test::expect;
use portcullis_core::rollout::{State, Version};

use crate::world::{World, check};

#[test]
fn an_exchange_gets_one_version_from_its_beginning_to_its_end() {
    check(
        "old[life] | tag ~ new[life](set x-new=1)",
        "GET / x-user=a end; 2: GET / end; < 200 end; 2: < 200 end; end; 2: end",
        expect![[r#"
            > GET / x-user=a end
            new.create                  continue
            new.request_headers 4 end   set x-new=1
            tag.request_headers 5 end   continue
                upstream: GET / x-user=a x-new=1 end
            > 2: GET / end
            old#2.create                continue
            old#2.request_headers 3 end continue
            tag#2.request_headers 3 end continue
                upstream#2: GET / end
            > < 200 end
            tag#1.response_headers 1 end continue
            new#1.response_headers 1 end continue
                client#1: 200 end
            > 2: < 200 end
            tag#2.response_headers 1 end continue
            old#2.response_headers 1 end continue
                client#2: 200 end
            > end
            new#1.log                   continue
            new#1.done                  continue
            new#1.delete                continue
                ended: details none, 0 bytes sent
            > 2: end
            old#2.log                   continue
            old#2.done                  continue
            old#2.delete                continue
                ended: details none, 0 bytes sent
        "#]],
    );
}

#[test]
fn a_candidate_that_fails_is_given_to_nobody_any_more() {
    let mut world = World::new("old | tag ~ new(fail)");
    for event in ["1: GET / x-user=a end", "2: GET / x-user=a end"] {
        world.event(event);
    }
    expect![[r#"
        > 1: GET / x-user=a end
        new.request_headers 4 end   fail
            client: 503 content-type=application/problem+json content-length=119
            client: body <filter_failed> end
        > 2: GET / x-user=a end
        old#2.request_headers 4 end continue
        tag#2.request_headers 4 end continue
            upstream#2: GET / x-user=a end
    "#]]
    .assert_eq(&world.transcript());
    let rollout = world.rollout();
    assert_eq!((rollout.state(), rollout.counts().traps), (State::Aborted, 1));
    assert_eq!(world.exchanges.decided.len(), 1);
    let version = |index: usize| world.exchanges.get(world.streams[index].id).unwrap().version(0);
    assert_eq!([version(0), version(1)], [Version::Candidate, Version::Current]);
}

#[test]
fn a_candidate_that_finds_no_room_goes_on_being_tried() {
    let mut world = World::new("old | tag ~ new[crowded]");
    for event in ["1: GET / x-user=a end", "1: end", "2: GET / end"] {
        world.event(event);
    }
    expect![[r#"
        > 1: GET / x-user=a end
            client: 503 content-type=application/problem+json retry-after=1 content-length=108
            client: body <filter_busy> end
        > 1: end
            ended: details filter_busy, 108 bytes sent
        > 2: GET / end
        old#2.request_headers 3 end continue
        tag#2.request_headers 3 end continue
            upstream#2: GET / end
    "#]]
    .assert_eq(&world.transcript());
    let (state, counts) = (world.rollout().state(), world.rollout().counts());
    assert_eq!((state, counts.no_room, counts.traps), (State::Running, 1, 0));
    assert_eq!(counts.exchanges, [0, 0], "it was never tried, and the other has not ended");
    assert!(world.exchanges.decided.is_empty());
}

/// What came of the shadows: those that agreed, disagreed, were incomplete; and those that failed.
fn shadowed(chain: &str, events: &[&str]) -> ([u64; 3], u64) {
    let mut world = World::new(chain);
    events.iter().for_each(|event| world.event(event));
    let counts = world.rollout().counts();
    (counts.shadows, counts.traps)
}

#[test]
fn shadows_are_compared_by_what_leaves_them() {
    let events = ["POST / x-user=a", "body hello", "body you end", "< 200 a=b", "< body hi end", "end", "shadow"];
    for (current, candidate, want) in [
        ("set x-a=1", "set x-a=1", [1, 0, 0]),
        ("set x-a=1", "set x-a=2", [0, 1, 0]),
        // Pieces mean nothing: held back and let go at the end, it is the same body.
        ("request_body: continue", "request_body: pause / continue", [1, 0, 0]),
        ("request_body: replace J", "request_body: replace K", [0, 1, 0]),
        ("response_headers: continue", "response_headers: set x-b=1", [0, 1, 0]),
        ("continue", "pause", [0, 1, 0]),
        ("reply 403 no", "reply 403 no", [1, 0, 0]),
        ("reply 403 no", "reply 403 never", [0, 1, 0]),
        ("continue", "reply 403 no", [0, 1, 0]),
        ("reply 403 no", "continue", [0, 1, 0]),
    ] {
        let chain = format!("old({current}) | tag ~shadow~ new({candidate})");
        assert_eq!(shadowed(&chain, &events), (want, 0), "{chain}");
    }
}

#[test]
fn a_shadow_is_not_compared_where_either_version_finds_no_room() {
    let events = ["GET / x-user=a end", "< 200 end", "end", "shadow"];
    for (chain, want) in [
        ("old(continue) ~shadow~ new[crowded]", ([0, 0, 0], 0, 1)),
        ("old[open crowded] ~shadow~ new(continue)", ([0, 0, 1], 0, 0)),
    ] {
        let mut world = World::new(chain);
        events.iter().for_each(|event| world.event(event));
        let counts = world.rollout().counts();
        assert_eq!((counts.shadows, counts.traps, counts.no_room), want, "{chain}");
        assert_eq!(world.rollout().state(), State::Running, "{chain}");
    }
}

#[test]
fn what_a_stopped_filter_holds_is_shown_to_its_shadow_once() {
    let events = ["POST / x-user=a", "body hello end", "resume old", "< 200 end", "end", "shadow"];
    let chain = "old(pause) | tag ~shadow~ new(continue)";
    assert_eq!(shadowed(chain, &events), ([1, 0, 0], 0));
}

#[test]
fn a_shadow_that_fails_or_is_shown_too_much_changes_nothing() {
    for (candidate, body, want) in [("fail", "body 2 end", ([0, 0, 0], 1)), ("continue", "body 12 end", ([0, 0, 1], 0))]
    {
        let mut world = World::new(&format!("old(continue) ~shadow~ new({candidate})"));
        let events = ["limit 10", "POST / x-user=a", body, "< 200 end", "end", "shadow"];
        events.iter().for_each(|event| world.event(event));
        let counts = world.rollout().counts();
        assert_eq!((counts.shadows, counts.traps), want, "{candidate}");
        assert!(world.exchanges.is_empty(), "{candidate}");
        let transcript = world.transcript();
        assert!(transcript.contains("client: 200 end"), "{transcript}");
    }
}
