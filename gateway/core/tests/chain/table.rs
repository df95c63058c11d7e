//! The table of exchanges: a name is for one life, and a place is used again.

use std::sync::Arc;

use http::HeaderMap;
use portcullis_core::chain;
use portcullis_core::event::{Direction, Effect, End, Event, Part};
use portcullis_core::exchange::Exchanges;
use portcullis_core::filter::Chain;
use portcullis_core::headers::{Headers, Scheme};
use portcullis_core::reply::Failure;

use crate::fake::Fakes;
use crate::world::facts;

fn request(method: http::Method) -> Event {
    let path = "/".parse().expect("a path");
    Event::Request(Part::Head(Headers::request(method, Scheme::Http, path, HeaderMap::new()), End::Yes))
}

#[test]
fn a_stale_name_never_touches_its_successor() {
    let (mut exchanges, mut fakes) = (Exchanges::default(), Fakes::new(Vec::new()));
    let chain = Arc::new(Chain::default());
    let first = exchanges.open(chain.clone(), facts());
    chain::feed(&mut exchanges, &mut fakes, first, request(http::Method::GET));
    chain::end(&mut exchanges, &mut fakes, first, None, |_| ());
    assert!(exchanges.get(first).is_none());

    let second = exchanges.open(chain, facts());
    assert_eq!(second.index(), first.index(), "the place is used again");
    assert_ne!(second, first);
    chain::feed(&mut exchanges, &mut fakes, first, Event::Deadline(Failure::Idle));
    chain::feed(&mut exchanges, &mut fakes, first, request(http::Method::GET));
    exchanges.orphan(first, 0);
    chain::end(&mut exchanges, &mut fakes, first, Some(Failure::ClientGone), |_| panic!("it has ended before"));
    assert!(exchanges.get_mut(first).is_none());
    assert!(exchanges.next_woken().is_none());
    let exchange = exchanges.get_mut(second).expect("it lives");
    assert!(exchange.details().is_none());
    assert!(exchange.next_effect(Direction::Request).is_none() && exchange.next_effect(Direction::Response).is_none());
    assert_eq!(exchanges.len(), 1);
}

#[test]
fn a_place_forgets_everything_of_its_last_exchange() {
    let (mut exchanges, mut fakes) = (Exchanges::default(), Fakes::new(Vec::new()));
    let chain = Arc::new(Chain::default());
    let first = exchanges.open(chain.clone(), facts());
    chain::feed(&mut exchanges, &mut fakes, first, request(http::Method::HEAD));
    chain::feed(&mut exchanges, &mut fakes, first, Event::UpstreamFailed(Failure::UpstreamConnect));
    chain::end(&mut exchanges, &mut fakes, first, None, |_| ());
    assert_eq!(Arc::strong_count(&chain), 1, "a free place keeps no revision alive");

    let second = exchanges.open(chain, facts());
    // A reply before its request is known: nothing of the HEAD before it may shape it.
    chain::feed(&mut exchanges, &mut fakes, second, Event::Deadline(Failure::Idle));
    let exchange = exchanges.get_mut(second).expect("it lives");
    assert!(matches!(exchange.next_effect(Direction::Response), Some(Effect::Send(Part::Head(_, End::No)))));
    assert!(matches!(exchange.next_effect(Direction::Response), Some(Effect::Send(Part::Body(_, End::Yes)))));
    assert_eq!(exchange.body_bytes(Direction::Request), (0, 0));
}

#[test]
fn places_are_counted_and_reused() {
    let (mut exchanges, mut fakes) = (Exchanges::default(), Fakes::new(Vec::new()));
    let chain = Arc::new(Chain::default());
    for _ in 0..3 {
        let ids: Vec<_> = (0..4).map(|_| exchanges.open(chain.clone(), facts())).collect();
        assert_eq!(exchanges.len(), 4);
        for id in ids {
            assert!(id.index() < 4);
            chain::end(&mut exchanges, &mut fakes, id, None, |_| ());
            chain::end(&mut exchanges, &mut fakes, id, None, |_| ());
        }
        assert!(exchanges.is_empty());
    }
}
