//! When calls are made: as soon as what they wait for is there, and not before.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use portcullis_sdk::{ms, start};
use portcullis_testing::{Gateway, Plugin, Reply, Request, Seen};
use proptest::prelude::*;

use crate::Aggregate;

/// For each call, which earlier ones it waits for, by `after` or by a template, and how long its answer takes.
fn graphs() -> impl Strategy<Value = Vec<(Vec<usize>, bool, u64)>> {
    let call = |at: usize| (prop::collection::vec(0..at.max(1), 0..3), any::<bool>(), 0..50_u64);
    (1..10_usize).prop_flat_map(move |count| (0..count).map(call).collect::<Vec<_>>()).prop_map(|mut calls| {
        // The first has nobody to wait for.
        calls.iter_mut().take(1).for_each(|call| call.0.clear());
        calls
    })
}

fn call(at: usize, after: &[usize], by_template: bool) -> String {
    let names: Vec<String> = after.iter().map(|earlier| format!("\"c{earlier}\"")).collect();
    let places: String = after.iter().map(|earlier| format!("${{calls.c{earlier}.body}}")).collect();
    if by_template {
        format!(r#"{{"name":"c{at}","upstream":"u","path":"/{at}","headers":{{"x-needs":"{places}"}}}}"#)
    } else {
        format!(r#"{{"name":"c{at}","upstream":"u","path":"/{at}","after":[{}]}}"#, names.join(","))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// In whatever order the calls stand in the settings: all are made, each after those that it waits for, and the reply takes as
    /// long as the longest chain of calls.
    #[test]
    fn a_request_takes_as_long_as_its_longest_chain(calls in graphs(), order in any::<prop::sample::Index>()) {
        let mut longest: Vec<u64> = Vec::new();
        for (after, _, takes) in &calls {
            let begins = after.iter().map(|earlier| longest[*earlier]).max().unwrap_or(0);
            longest.push(begins + takes);
        }
        let mut written: Vec<String> =
            calls.iter().enumerate().map(|(at, (after, by_template, _))| call(at, after, *by_template)).collect();
        written.rotate_left(order.index(calls.len()));
        written.reverse();
        let settings = format!("{{\"endpoints\":[{{\"calls\":[{}]}}]}}", written.join(","));
        let delays: Vec<Duration> = calls.iter().map(|(_, _, takes)| ms(*takes)).collect();
        let made: Rc<RefCell<Vec<usize>>> = Rc::default();
        let making = Rc::clone(&made);
        let upstream = move |seen: &Seen| {
            let at: usize = seen.target()[1..].parse().unwrap();
            making.borrow_mut().push(at);
            Reply::ok(at.to_string()).after(delays[at])
        };
        let plugin = Plugin::new("aggregate", start::<Aggregate>).config(&settings);
        let outcome = Gateway::new().upstream("u", upstream).plugin(plugin).start().send(Request::get("/"));
        prop_assert_eq!(outcome.status(), 200, "{}", outcome.reply.text());
        prop_assert_eq!(outcome.took, ms(longest.iter().copied().max().unwrap_or(0)), "{}", settings);
        let made = made.borrow();
        prop_assert_eq!(made.len(), calls.len());
        for (place, call) in made.iter().enumerate() {
            prop_assert!(calls[*call].0.iter().all(|earlier| made[..place].contains(earlier)), "{:?}", made);
        }
        let reply: serde_json::Value = serde_json::from_str(&outcome.reply.text()).unwrap();
        for at in 0..calls.len() {
            prop_assert_eq!(&reply[format!("c{at}")], at);
        }
    }
}
