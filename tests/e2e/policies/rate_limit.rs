//! Limits, exact whoever asks and over however many workers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::Origin;

const LIMITED: &str = r#"
workers: 2
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins: { limit: {guest:rate-limit} }
filters:
  - plugin: limit
    config:
      limits:
        - { name: all, rate: 1000/d, key: host }
        - { name: quota, quota: 2000/month, key: host }
        - { name: each, rate: 600/d, key: { header: x-key } }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#;

/// Many clients on all workers at once, with two keys of which neither may have all: exactly what is allowed passes, and what one
/// limit refuses costs the others nothing.
#[test]
fn what_all_workers_admit_together_is_exact() {
    const CLIENTS: usize = 8;
    let origin = Origin::plain();
    let gateway = Gateway::start(LIMITED, &[("origin", &origin)]);
    let admitted = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let refused = AtomicUsize::new(0);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (mut connection, admitted, refused) = (gateway.client(), &admitted, &refused);
            scope.spawn(move || {
                let key = client % 2;
                while refused.load(Ordering::Relaxed) < 500 {
                    let fields = [("host", "a.test"), ("x-key", ["a", "b"][key])];
                    match connection.ask("GET", "/", &fields, "").status() {
                        200 => admitted[key].fetch_add(1, Ordering::Relaxed),
                        429 => refused.fetch_add(1, Ordering::Relaxed),
                        other => panic!("{other}"),
                    };
                }
            });
        }
    });
    let admitted = admitted.map(AtomicUsize::into_inner);
    assert_eq!(admitted.iter().sum::<usize>(), 1000, "{admitted:?}");
    assert!(admitted.iter().all(|count| *count <= 600), "{admitted:?}");
    assert_eq!(origin.begun(), 1000);
}
