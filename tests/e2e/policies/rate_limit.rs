//! Limits, exact whoever asks and over however many workers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portcullis_tests::bucket::Bucket;
use portcullis_tests::client::Client;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::process::free_address;
use portcullis_tests::{PATIENCE, eventually};

use crate::plugins::code;

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
                let all = || admitted.iter().map(|count| count.load(Ordering::Relaxed)).sum::<usize>();
                let began = Instant::now();
                // One whose turn comes late must have had its part too.
                while refused.load(Ordering::Relaxed) < 500 || all() < 1000 && began.elapsed() < PATIENCE {
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

/// All workers under load, for some time: what passes is the burst and what the rate gives meanwhile, within 1 %.
#[test]
fn what_all_workers_admit_in_a_time_is_the_rate_s() {
    let origin = Origin::plain();
    let config = r#"
workers: 2
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins: { limit: {guest:rate-limit} }
filters: [{ plugin: limit, config: { rate: 25/s, burst: 150 } }]
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#;
    let gateway = Gateway::start(config, &[("origin", &origin)]);
    let clients = (0..4).map(|_| gateway.client()).collect();
    Bucket { rate: 25.0, burst: 150.0 }.exhaust(Duration::from_secs(4), clients, is_admitted).assert_all_but(0.01);
}

/// Whether a request is within the limit.
pub(super) fn is_admitted(client: &mut Client) -> bool {
    match client.get("/").status() {
        200 => true,
        429 => false,
        other => panic!("{other}"),
    }
}

/// Row 27: other spellings of what is counted by are the same.
#[test]
fn a_host_in_capitals_and_an_encoded_path_count_for_the_same_limit() {
    let origin = Origin::plain();
    let gateway = Gateway::start(
        r#"
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins: { limit: {guest:rate-limit} }
filters: [{ plugin: limit, config: { limits: [{ rate: 1/h, keys: [host, path] }] } }]
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", &origin)],
    );
    let status = |host: &str, path: &str| gateway.ask("GET", path, &[("host", host)], "").status();
    assert_eq!(status("a.test", "/a"), 200);
    for (host, path) in [("A.TEST", "/a"), ("a.test:80", "/%61"), ("a.test", "/b/../a"), ("a.test", "/a?x=1")] {
        assert_eq!(status(host, path), 429, "{host} {path}");
    }
    assert_eq!([status("b.test", "/a"), status("a.test", "/A")], [200, 200]);
}

/// A gateway whose limits the service at that address counts.
fn sharing(origin: &Origin, service: SocketAddr, limit: &str, on_failure: &str) -> Gateway {
    let limits = format!(r#"{{ endpoints: ["{service}"], protocol: http2 }}"#);
    counted_by("", &limits, origin, limit, &format!("timeout: 30s, on_failure: {on_failure}"))
}

/// A gateway whose filter has one limit and asks the upstream `limits`, which is this one, about it; `before` stands before all that.
pub(super) fn counted_by(before: &str, limits: &str, origin: &Origin, limit: &str, asked: &str) -> Gateway {
    let config = format!(
        r#"{before}
upstreams:
  origin: {{ endpoints: ["{origin}"] }}
  limits: {limits}
plugins: {{ limit: {{guest:rate-limit}} }}
filters:
  - {{ plugin: limit, config: {{ limits: [{limit}], global: {{ upstream: limits, domain: edge, {asked} }} }} }}
routes: [{{ name: all, match: {{ path: "/*" }}, upstream: origin }}]
"#
    );
    Gateway::start(&config, &[])
}

fn service(bind: SocketAddr, limits: &str) -> Gateway {
    let config = r#"
services: { rate_limit: { bind: "{bind}", limits: {limits} } }
upstreams: { none: { endpoints: ["127.0.0.1:9"] } }
routes: [{ name: all, match: { path: "/*" }, upstream: none }]
"#;
    Gateway::start(config, &[("bind", &bind), ("limits", &limits)])
}

/// Row 27: what two gateways admit together is the limit's, within 1 %.
#[test]
fn two_gateways_share_one_limit() {
    let origin = Origin::plain();
    let limits = r#"[{ domain: edge, entries: { limit: api }, rate: 25/s, burst: 150 }]"#;
    let service = service("127.0.0.1:0".parse().unwrap(), limits);
    let gateways =
        [(); 2].map(|()| sharing(&origin, service.rate_limit_service(), "{ name: api, rate: 1000/s }", "refuse"));
    let clients = gateways.iter().chain(&gateways).map(Gateway::client).collect();
    Bucket { rate: 25.0, burst: 150.0 }.exhaust(Duration::from_secs(3), clients, is_admitted).assert_all_but(0.01);
}

/// The service in the process of its gateway changes with the configuration: limits at once, while what was taken stays taken;
/// where it listens; and whether there is one.
#[test]
fn a_service_changes_with_the_configuration_and_keeps_its_states() {
    let origin = Origin::plain();
    let config = r#"
services: {service}
upstreams:
  origin: { endpoints: ["{origin}"] }
  limits: { service: rate_limit }
plugins: { limit: {guest:rate-limit} }
filters:
  - plugin: limit
    config:
      limits: [{ name: api, rate: 1/h }]
      global: { upstream: limits, domain: edge, timeout: 5s, on_failure: refuse }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#;
    let service = |count: u32, bind: &str| {
        let limit = format!("{{ domain: edge, entries: {{ limit: api }}, quota: {count}/month }}");
        format!("{{ rate_limit: {{ {bind} limits: [{limit}] }} }}")
    };
    let gateway = Gateway::start(config, &[("origin", &origin), ("service", &service(2, ""))]);
    let statuses = || [(); 3].map(|()| gateway.get("/").status());
    let change = |service: String| gateway.apply(config, &[("origin", &origin), ("service", &service)]).unwrap();
    assert_eq!(statuses(), [200, 200, 429]);
    change(service(3, ""));
    assert_eq!(statuses(), [200, 429, 429], "one more, beside the two that were taken");
    let address = free_address();
    assert!(std::net::TcpStream::connect(address).is_err());
    change(service(4, &format!("bind: \"{address}\",")));
    assert_eq!(statuses(), [200, 429, 429]);
    assert!(std::net::TcpStream::connect(address).is_ok());
    change("{}".to_owned());
    assert_eq!(gateway.get("/").status(), 503, "nobody counts");
    eventually("nobody listens", || std::net::TcpStream::connect(address).is_err());
}

/// What a response turns out to cost is told to the service: owed beyond what was reserved, or given back.
#[test]
fn what_responses_have_cost_is_settled_with_the_service() {
    let origin = Origin::start(|seen| Answer::ok("ok").header("x-cost", seen.get("x-cost").unwrap_or("0")));
    let limit = "{ name: tokens, quota: 1000/month, cost: 400, settle: { header: x-cost } }";
    let service = service("127.0.0.1:0".parse().unwrap(), "[]");
    let gateway = sharing(&origin, service.rate_limit_service(), limit, "refuse");
    let ask = |cost: &str| gateway.ask("GET", "/", &[("x-cost", cost)], "");
    // Two reservations fit in, more only after what they did not need was given back.
    for _ in 0..4 {
        eventually("there is room again", || ask("0").status() == 200);
    }
    eventually("there is room for one that costs all", || ask("1000").status() == 200);
    eventually("all is owed", || {
        let refused = ask("0");
        refused.status() == 429 && refused.get("ratelimit").is_some_and(|standing| standing.contains("r=0;"))
    });
}

/// Row 27: while the service is away the declared failure mode holds, nobody hangs, and it is used again when it is back.
#[test]
fn a_service_that_is_away_leaves_what_was_declared() {
    let (origin, address) = (Origin::plain(), free_address());
    let first = service(address, "[]");
    let limit = "{ name: api, rate: 1/h }";
    let gateways = ["local", "allow", "refuse"].map(|on_failure| sharing(&origin, address, limit, on_failure));
    let answers = || {
        let began = Instant::now();
        let answers: Vec<u16> = gateways.iter().map(|gateway| gateway.get("/").status()).collect();
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        answers
    };
    assert_eq!(answers(), [200, 429, 429], "the limit that a gateway brings is shared by all");
    drop(first);
    assert_eq!(answers(), [200, 200, 503]);
    assert_eq!(answers(), [429, 200, 503], "local counts here, with the same limit");
    assert_eq!(code(&gateways[2].get("/")), (503, "rate_limit_unavailable".to_owned()));
    let failures =
        |gateway: &Gateway| gateway.metric("portcullis_guest_events_total", &["rate_limit_service_failures"]);
    assert!(gateways.iter().all(|gateway| failures(gateway) >= 1.0));
    let _second = service(address, "[]");
    eventually("the service is asked again", || gateways[2].get("/").status() != 503);
    eventually("by all", || answers() == [429, 429, 429]);
}
