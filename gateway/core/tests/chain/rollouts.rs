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
