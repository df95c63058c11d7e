//! Limits that gateways share through Redis: exact, and what becomes of requests when it is away.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portcullis_abi::limit::{Limit, MOST_BURSTS, Quota, Rate, SECOND, Verdict};
use portcullis_tests::bucket::Bucket;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::pki::{Authority, Files, Use};
use portcullis_tests::redis::{self, Redis};
use portcullis_tests::{eventually, within};

use super::rate_limit::{counted_by, is_admitted};

/// A gateway whose filter asks the gateway's own service, whose states are in this store.
fn gateway(origin: &Origin, store: &str, limit: &str, on_store_failure: &str) -> Gateway {
    let gateway = start(origin, store, limit, on_store_failure);
    eventually("the store is connected", || gateway.metric("portcullis_rate_limit_store_connected", &[]) == 1.0);
    gateway
}

/// The same, whether its store can be connected to or not.
fn start(origin: &Origin, store: &str, limit: &str, on_store_failure: &str) -> Gateway {
    let service = format!(
        "workers: 2
services:
  rate_limit: {{ store: {{ redis: {{ {store} }} }}, on_store_failure: {on_store_failure} }}"
    );
    counted_by(&service, "{ service: rate_limit }", origin, limit, "timeout: 30s, on_failure: refuse")
}

/// These servers, given time on a machine that does other things, too.
fn at(servers: &[&Redis]) -> String {
    within_time(servers, "5s")
}

fn within_time(servers: &[&Redis], timeout: &str) -> String {
    let addresses: Vec<String> = servers.iter().map(|server| format!("\"{}\"", server.address)).collect();
    format!("endpoints: [{}], timeout: {timeout}", addresses.join(", "))
}

/// What clients of several gateways were told, and how long the longest waited.
#[derive(Debug, Default)]
struct Tally {
    admitted: AtomicUsize,
    refused: AtomicUsize,
    longest_ms: AtomicUsize,
}

/// Tells clients to stop when it goes.
struct Stops<'s>(&'s AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Tally {
    /// Two clients of each gateway, until told to stop.
    fn load(&self, gateways: &[Gateway], stop: &AtomicBool, meanwhile: impl FnOnce()) {
        thread::scope(|scope| {
            for gateway in gateways.iter().chain(gateways) {
                let mut connection = gateway.client();
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let began = Instant::now();
                        match connection.get("/").status() {
                            200 => self.admitted.fetch_add(1, Ordering::Relaxed),
                            429 => self.refused.fetch_add(1, Ordering::Relaxed),
                            other => panic!("{other}"),
                        };
                        let waited = usize::try_from(began.elapsed().as_millis()).unwrap();
                        self.longest_ms.fetch_max(waited, Ordering::Relaxed);
                    }
                });
            }
            // Also where it panics: the scope waits for all of them.
            let _stops = Stops(stop);
            meanwhile();
        });
    }

    fn admitted(&self) -> usize {
        self.admitted.load(Ordering::Relaxed)
    }

    /// Waits until so many more were admitted or refused.
    fn goes_on(&self) {
        let count = || self.admitted() + self.refused.load(Ordering::Relaxed);
        let before = count();
        eventually("requests are answered", || count() > before + 50);
    }
}

/// The script takes what the arithmetic of all other stores takes, to the nanosecond.
#[test]
fn the_script_decides_as_every_other_store() {
    if !redis::is_here() {
        return;
    }
    let server = Redis::start("");
    let script = include_str!("../../../gateway/server/src/services/rate_limit/take.lua");
    let script = script.replace("redis.call('TIME')", "{ ARGV[#ARGV - 1], ARGV[#ARGV] }");
    let mut random = fastrand::Rng::with_seed(7);
    let start = 1_795_782_896_u64;
    let limits = [
        Limit::Rate(Rate { interval: 333_333_333, burst: 7 }),
        Limit::Rate(Rate { interval: 1000, burst: 100_000 }),
        Limit::Rate(Rate { interval: 86_400 * SECOND / 7, burst: 20 }),
        Limit::Quota(Quota { count: 30, ends: (start + 3600) * SECOND }),
    ];
    for limit in limits {
        let (mut state, mut now) = (None, start * SECOND);
        let key = format!("{limit:?}");
        for _ in 0..60 {
            // A third of them settles, some of what was taken being given back.
            let (settles, cost) =
                if random.u8(0..3) == 0 { (true, random.i64(-9..25)) } else { (false, random.i64(0..12)) };
            let verdict = if settles {
                let after = limit.settle(state, cost, now);
                Verdict { state: Some(after), ..limit.take(Some(after), 0, now) }
            } else {
                limit.take(state, cost.unsigned_abs(), now)
            };
            state = verdict.state.or(state);
            let seconds = (now / SECOND).to_string();
            let micros = (now % SECOND / 1000).to_string();
            let mut arguments = match limit {
                Limit::Rate(rate) => format!("rate {cost} {} {}", rate.interval, rate.burst),
                Limit::Quota(quota) => format!("quota {cost} {} 0 {} 9999999999", quota.count, quota.ends / SECOND),
            };
            let _in_memory = write!(arguments, " {seconds} {micros}");
            let (order, most) = (if settles { "settle" } else { "take" }, MOST_BURSTS.to_string());
            let mut command = vec!["EVAL", &script, "1", &key, order, &most];
            command.extend(arguments.split(' '));
            let answer = server.ask(&command);
            let numbers: Vec<i64> = answer.lines().map(|line| line.parse().expect(&answer)).collect();
            let never = |retry: u64| i64::try_from(retry).unwrap_or(-1);
            let Verdict { remaining, reset, retry, .. } = verdict;
            // Nobody waits for a settlement.
            let retry = if settles { 0 } else { never(retry) };
            let want = [i64::from(verdict.state.is_some()), never(remaining), never(reset), retry];
            assert_eq!(numbers, want, "{limit:?} {cost} at {now}");
            now += random.u64(0..2_000_000) * 1000;
        }
    }
}

/// Row 27: what gateways admit together is the limit's, within 1 %.
#[test]
fn what_gateways_admit_together_is_exact() {
    if !redis::is_here() {
        return;
    }
    let (origin, server) = (Origin::plain(), Redis::start(""));
    let gateways = [(); 2]
        .map(|()| gateway(&origin, &at(&[&server]), "{ name: api, rate: 25/s, burst: 150, key: host }", "refuse"));
    let clients = gateways.iter().chain(&gateways).map(Gateway::client).collect();
    Bucket { rate: 25.0, burst: 150.0 }.exhaust(Duration::from_secs(6), clients, is_admitted).assert_all_but(0.01);
    let counted =
        |gateway: &Gateway| gateway.metric("portcullis_rate_limit_decisions_total", &["counted_by=\"redis\""]);
    assert!(gateways.iter().all(|gateway| counted(gateway) > 100.0));
}

/// Killed, started again with what it wrote, and stopped for a while, all under load: nobody waits for longer than the store's time,
/// and nothing that was taken is given twice.
#[test]
fn a_store_that_is_killed_or_hangs_makes_nobody_wait_and_gives_nothing_twice() {
    const ALL: usize = 1500;
    if !redis::is_here() {
        return;
    }
    let origin = Origin::plain();
    let mut server = Redis::start("appendonly yes\nappendfsync always\n");
    let limit = "{ name: api, quota: 1500/month, key: host }";
    let gateways = [(); 2].map(|()| gateway(&origin, &within_time(&[&server], "200ms"), limit, "refuse"));
    let (tally, stop) = (Tally::default(), AtomicBool::new(false));
    tally.load(&gateways, &stop, || {
        tally.goes_on();
        server.kill();
        tally.goes_on();
        server.again();
        eventually("it is used again", || {
            gateways.iter().all(|gateway| gateway.metric("portcullis_rate_limit_store_connected", &[]) == 1.0)
        });
        tally.goes_on();
        server.signal("STOP");
        eventually("that is noticed", || {
            gateways.iter().all(|gateway| gateway.metric("portcullis_rate_limit_store_connected", &[]) == 0.0)
        });
        server.signal("CONT");
        eventually("all are used up", || {
            let used =
                server.ask(&["GET", "portcullis:{edge}:quota|domain=edge|limit=api|host=test|quota=month@+00:00"]);
            used.ends_with(":1500")
        });
        tally.goes_on();
    });
    let errors = |error: &str| -> f64 {
        gateways.iter().map(|gateway| gateway.metric("portcullis_rate_limit_store_errors_total", &[error])).sum()
    };
    // What a decision took whose answer was lost is nobody's.
    let lost = ALL - tally.admitted();
    assert!(lost as f64 <= errors("timeout") + errors("failed"), "{lost} {tally:?}");
    // Beside the store's 200 ms, a machine that does other things. Whoever hangs does so for the filter's 30 s.
    assert!(tally.longest_ms.load(Ordering::Relaxed) < 15_000, "{tally:?}");
    assert!(errors("away") > 0.0 && errors("timeout") > 0.0);
}

/// What responses turn out to cost is taken from the store, or given back to it.
#[test]
fn what_responses_have_cost_is_settled_in_the_store() {
    if !redis::is_here() {
        return;
    }
    let origin = Origin::start(|seen| {
        let usage = format!(r#"{{"usage":{{"total_tokens":{}}}}}"#, seen.get("x-cost").unwrap_or("0"));
        Answer::ok(usage).header("content-type", "application/json")
    });
    let server = Redis::start("");
    let limit = "{ name: tokens, quota: 1000/month, key: host, cost: 400, settle: { json: /usage/total_tokens } }";
    let gateway = gateway(&origin, &at(&[&server]), limit, "refuse");
    let used = || {
        let state =
            server.ask(&["GET", "portcullis:{edge}:quota|domain=edge|limit=tokens|host=test|quota=month@+00:00"]);
        state.split(':').nth(1).unwrap_or_default().to_owned()
    };
    let mut total = 0;
    // More than is reserved three times would be: each gives the most of it back.
    for (cost, status) in [(10, 200), (500, 200), (0, 200), (700, 200), (1, 429)] {
        assert_eq!(gateway.ask("GET", "/", &[("host", "test"), ("x-cost", &cost.to_string())], "").status(), status);
        total += if status == 200 { cost } else { 0 };
        eventually("it is settled", || used() == total.to_string());
    }
}

/// Over TLS the server has to prove who it is, and asks who we are.
#[test]
fn an_encrypted_store_is_known_and_knows_us() {
    if !redis::is_here() {
        return;
    }
    let (origin, files, authority) = (Origin::plain(), Files::default(), Authority::new("stores"));
    files.put("ca.pem", &authority.pem());
    files.put_pair("server", &authority.issue(&["127.0.0.1"], Use::Server));
    files.put_pair("own", &authority.issue(&["gateway"], Use::Client));
    let others = Authority::new("others");
    files.put("others.pem", &others.pem());
    files.put_pair("stranger", &others.issue(&["gateway"], Use::Client));
    let server = Redis::encrypted(&files);
    let store = |ca: &str, own: &str| {
        let certificate = format!(
            "{{ cert: \"{}\", key: \"{}\" }}",
            files.text(&format!("{own}.pem")),
            files.text(&format!("{own}.key"))
        );
        format!("{}, tls: {{ ca: \"{}\", certificate: {certificate} }}", at(&[&server]), files.text(ca))
    };
    let limit = "{ name: api, rate: 2/h, key: host }";
    let known = gateway(&origin, &store("ca.pem", "own"), limit, "refuse");
    assert_eq!([(); 3].map(|()| known.get("/").status()), [200, 200, 429]);
    // The server has no number for handshakes that fail, but a line for each.
    let failed = || server.log().matches("Error accepting a client connection").count();
    for wrong in [store("others.pem", "own"), store("ca.pem", "stranger")] {
        let before = failed();
        let gateway = start(&origin, &wrong, &limit.replace("api", "other"), "refuse");
        eventually("it has tried several times", || failed() > before + 2);
        assert_eq!(gateway.get("/").status(), 429, "nobody counts");
    }
}

/// While the store is away the declared mode holds.
#[test]
fn a_store_that_is_away_leaves_what_was_declared() {
    if !redis::is_here() {
        return;
    }
    let (origin, mut server) = (Origin::plain(), Redis::start(""));
    let limit = "{ name: api, rate: 2/h, key: host }";
    let gateways = ["local", "allow", "refuse"].map(|on_failure| gateway(&origin, &at(&[&server]), limit, on_failure));
    let answers = || gateways.each_ref().map(|gateway| gateway.get("/").status());
    assert_eq!([answers(), answers()], [[200, 200, 429], [429; 3]]);
    server.kill();
    eventually("they notice", || {
        gateways.iter().all(|gateway| gateway.metric("portcullis_rate_limit_store_connected", &[]) == 0.0)
    });
    assert_eq!([answers(), answers(), answers()], [[200, 200, 429], [200, 200, 429], [429, 200, 429]]);
    server.again();
    eventually("it is used again", || {
        gateways.iter().all(|gateway| gateway.metric("portcullis_rate_limit_store_connected", &[]) == 1.0)
    });
    assert_eq!([answers(), answers()], [[200, 200, 429], [429; 3]]);
}

/// A master that is gone: its replica takes over, and decisions go there.
#[test]
fn sentinels_say_where_the_limits_went() {
    if !redis::is_here() {
        return;
    }
    let (origin, (mut master, replica, sentinels)) = (Origin::plain(), redis::with_sentinels());
    let store = format!("{}, sentinel: {{ master: limits }}", at(&sentinels.each_ref()));
    let gateways = [gateway(&origin, &store, "{ name: api, quota: 100000/month, key: host }", "refuse")];
    let (tally, stop) = (Tally::default(), AtomicBool::new(false));
    tally.load(&gateways, &stop, || {
        eventually("some were admitted", || tally.admitted() > 50);
        eventually("the replica has them", || replica.ask(&["DBSIZE"]) == "1");
        master.kill();
        eventually("nobody is admitted", || gateways[0].get("/").status() == 429);
        // Where the sentinels do not agree at once, they vote again after twice their time for it.
        within(Duration::from_secs(60), "the replica decides", || gateways[0].get("/").status() == 200);
    });
    let key = "portcullis:{edge}:quota|domain=edge|limit=api|host=test|quota=month@+00:00";
    let used: usize = replica.ask(&["GET", key]).split(':').nth(1).unwrap().parse().unwrap();
    assert!(used >= 50, "what was taken before is remembered: {used}");
}

/// The nodes of a Cluster share the domains; a slot that moves is followed.
#[test]
fn a_cluster_is_followed_where_its_slots_go() {
    if !redis::is_here() {
        return;
    }
    let (origin, nodes) = (Origin::plain(), redis::cluster());
    // One node is enough to find the others.
    let store = format!("{}, cluster: true", at(&[&nodes[0]]));
    let gateways = [(); 2].map(|()| gateway(&origin, &store, "{ name: api, quota: 300/month, key: host }", "refuse"));
    let statuses = |count: usize| {
        let mut connections = gateways.each_ref().map(Gateway::client);
        (0..count).map(|n| connections[n % 2].get("/").status()).filter(|status| *status == 200).count()
    };
    assert_eq!(statuses(100), 100);
    let key = "portcullis:{edge}:quota|domain=edge|limit=api|host=test|quota=month@+00:00";
    let slot = nodes[0].ask(&["CLUSTER", "KEYSLOT", key]);
    let holds = |node: &Redis| node.ask(&["CLUSTER", "COUNTKEYSINSLOT", &slot]) == "1";
    let (from, to) = {
        let from = nodes.iter().position(holds).unwrap();
        (&nodes[from], &nodes[(from + 1) % 3])
    };
    let (from_id, to_id) = (from.ask(&["CLUSTER", "MYID"]), to.ask(&["CLUSTER", "MYID"]));
    // Half moved, the old node answers ASK; moved, MOVED.
    assert_eq!(to.ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]), "OK");
    assert_eq!(from.ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]), "OK");
    assert_eq!(from.ask(&["MIGRATE", "127.0.0.1", &to.address.port().to_string(), key, "0", "5000"]), "OK");
    assert_eq!(statuses(100), 100);
    for node in [to, from] {
        assert_eq!(node.ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]), "OK");
    }
    assert_eq!(statuses(200), 100, "what was taken before and meanwhile is remembered");
}
