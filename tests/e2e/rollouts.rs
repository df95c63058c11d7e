//! The next version of a plugin on a share of the exchanges: who gets it, what ends it, what makes it the only one.

mod restarts;

use std::collections::HashMap;
use std::fmt::Display;

use portcullis_tests::client::Client;
use portcullis_tests::eventually;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::process::{Process, Start, free_address};
use portcullis_tests::wire::Message;
use serde_json::Value;

use crate::plugins::code;

const GATEWAY: &str = env!("CARGO_BIN_EXE_gateway");

const ROLLED: &str = r#"
workers: 2
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins:
  probe:
    module: "file:{file:probe}"
    rollout: { candidate: { module: "file:{file:probe}", config: "{script}" }, {rollout} }
filters: [{ plugin: probe, config: "headers" }]
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#;

fn rolled(origin: &Origin, script: &str, rollout: &str) -> Gateway {
    Gateway::start(ROLLED, &[("origin", origin), ("script", &script), ("rollout", &rollout)])
}

/// Which version has answered: the candidate of these tests leaves out what the current version writes.
fn version(answer: &Message) -> &'static str {
    match (answer.status(), answer.get("x-probe-response")) {
        (200, Some(_)) => "current",
        (200, None) => "candidate",
        (status, _) => panic!("{status}: {}", answer.text()),
    }
}

fn state(gateway: &Gateway) -> &'static str {
    let is_in = |state: &&str| {
        gateway.metric("portcullis_rollout_state", &["plugin=\"probe\"", &format!("state=\"{state}\"")]) == 1.0
    };
    ["running", "aborted", "promoted"].into_iter().find(is_in).expect("one state")
}

fn ask_as(client: &mut Client, user: &str) -> Message {
    client.ask("GET", "/", &[("host", "test"), ("x-user", user)], "")
}

#[test]
fn a_share_of_users_gets_the_candidate_and_each_stays_with_one_version() {
    let origin = Origin::plain();
    let gateway = rolled(&origin, "", "percent: 20, by: \"header:x-user\"");
    let mut versions: HashMap<String, &str> = HashMap::new();
    for _ in 0..4 {
        // Connections go to either worker.
        let mut client = gateway.client();
        for user in 0..300 {
            let user = format!("user-{user}");
            let got = version(&ask_as(&mut client, &user));
            assert_eq!(*versions.entry(user).or_insert(got), got);
        }
        assert_eq!(version(&client.get("/")), "current", "who does not say who it is");
    }
    let candidates = versions.values().filter(|version| **version == "candidate").count();
    assert!((40..=80).contains(&candidates), "{candidates} of 300");
    let ended = |version: &str| gateway.metric("portcullis_rollout_exchanges_total", &[&format!("\"{version}\"")]);
    let want = candidates as f64 * 4.0;
    eventually("all are counted", || (ended("candidate"), ended("current")) == (want, 1204.0 - want));
    assert_eq!(state(&gateway), "running");
}

#[test]
fn a_candidate_that_traps_is_given_to_nobody_any_more() {
    let origin = Origin::plain();
    let places: [(&str, &dyn Display); 3] =
        [("origin", &origin), ("script", &"trap"), ("rollout", &"percent: 50, by: random")];
    let gateway = Gateway::start(ROLLED, &places);
    let mut client = gateway.client();
    let trapped = (0..200).map(|_| client.get("/")).find(|answer| answer.status() != 200).expect("half of them");
    assert_eq!(code(&trapped), (503, "filter_failed".to_owned()));
    for _ in 0..2 {
        let mut client = gateway.client();
        assert!((0..50).all(|_| version(&client.get("/")) == "current"));
    }
    assert_eq!(state(&gateway), "aborted");
    assert_eq!(gateway.metric("portcullis_rollout_traps_total", &[]), 1.0);
    let stats = gateway.page("/stats").text();
    assert!(stats.contains("rollout of probe: aborted: the candidate failed in 1 exchange;"), "{stats}");

    gateway.apply(ROLLED, &places).unwrap();
    assert_eq!(state(&gateway), "aborted", "it is the same roll-out");
    let changed: [(&str, &dyn Display); 3] = [("origin", &origin), ("script", &""), places[2]];
    gateway.apply(ROLLED, &changed).unwrap();
    assert_eq!(state(&gateway), "running", "another candidate");
    let mut client = gateway.client();
    assert!((0..200).any(|_| version(&client.get("/")) == "candidate"));
}

#[test]
fn a_candidate_that_makes_requests_wait_is_given_up() {
    let origin = Origin::always(Answer::ok("called"));
    let rollout = "percent: 50, by: random, abort_if: { added_p99: 20us }";
    let gateway = rolled(&origin, "callout=origin", rollout);
    let mut client = gateway.client();
    let mut asked = 0;
    while state(&gateway) == "running" {
        assert!((0..100).all(|_| client.get("/").status() == 200));
        asked += 100;
        assert!(asked <= 10_000, "{}", gateway.page("/stats").text());
    }
    assert_eq!(state(&gateway), "aborted");
    assert!(asked > 2000, "not before enough were timed: {asked}");
    // Before there are more.
    let p99 = |version: &str| gateway.metric("portcullis_rollout_p99_seconds", &[&format!("\"{version}\"")]);
    assert!(p99("candidate") > p99("current") + 20e-6, "{} {}", p99("candidate"), p99("current"));
    assert!((0..50).all(|_| version(&client.get("/")) == "current"));
}

#[test]
fn a_candidate_that_keeps_within_its_bounds_becomes_the_only_version() {
    let origin = Origin::plain();
    let gateway = rolled(&origin, "", "percent: 50, by: random, promote_after: { exchanges: 40 }");
    let mut client = gateway.client();
    let mut asked = 0;
    while state(&gateway) == "running" {
        version(&client.get("/"));
        asked += 1;
        assert!(asked <= 1000, "{}", gateway.page("/stats").text());
    }
    assert_eq!(state(&gateway), "promoted");
    assert!(asked > 40);
    let mut other = gateway.client();
    assert!((0..50).all(|_| version(&client.get("/")) == "candidate" && version(&other.get("/")) == "candidate"));
}

/// The candidate is shown copies; the current version changes heads and both bodies.
const SHADOWED: &str = r#"
workers: 2
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins:
  probe:
    module: "file:{file:probe}"
    rollout:
      shadow: true
      candidate: { module: "file:{file:probe}", config: "{script}" }
      abort_if: {bounds}
filters: [{ plugin: probe, config: "{current}" }]
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#;

const CURRENT: &str = "headers upper@request_body upper@response_body";

fn shadowed(origin: &Origin, script: &str, bounds: &str) -> Gateway {
    // What is counted in shared data is counted for shadows apart: they see every number too.
    let current = format!("{CURRENT} count=seen");
    Gateway::start(SHADOWED, &[("origin", origin), ("current", &current), ("script", &script), ("bounds", &bounds)])
}

fn shadows(gateway: &Gateway, outcome: &str) -> f64 {
    gateway.metric("portcullis_rollout_shadows_total", &[&format!("\"{outcome}\"")])
}

/// Asks with a body of this many bytes; the answer must be what the current version makes of it.
fn ask_shadowed(client: &mut Client, bytes: usize) {
    let answer = client.ask("POST", "/", &[("host", "test")], &"b".repeat(bytes));
    assert_eq!((answer.status(), answer.text().as_str()), (200, "FROM THE ORIGIN"));
    assert_eq!(answer.get("x-probe-response"), Some("seen"));
}

#[test]
fn a_shadow_that_does_the_same_agrees_under_load() {
    let origin = Origin::always(Answer::ok("from the origin"));
    let places: [(&str, &dyn std::fmt::Display); 4] =
        [("origin", &origin), ("current", &CURRENT), ("script", &CURRENT), ("bounds", &"{ disagree: 0% }")];
    let gateway = Gateway::start(SHADOWED, &places);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = gateway.client();
                (0..100).for_each(|round| ask_shadowed(&mut client, round * 300));
            });
        }
    });
    eventually("all are compared", || shadows(&gateway, "agreed") + shadows(&gateway, "disagreed") >= 400.0);
    assert_eq!(
        (state(&gateway), shadows(&gateway, "disagreed"), shadows(&gateway, "incomplete")),
        ("running", 0.0, 0.0)
    );
    assert!(origin.seen().iter().all(|seen| seen.body.iter().all(|byte| *byte == b'B')));
}

#[test]
fn a_shadow_that_does_otherwise_is_counted_and_clients_see_only_the_current_version() {
    let origin = Origin::always(Answer::ok("from the origin"));
    for (script, bounds, outcome) in [
        ("headers upper@response_body count=seen", "{ disagree: 10% }", "disagreed"),
        ("headers pause", "{ disagree: 10% }", "disagreed"),
        ("reply=403", "{ disagree: 10% }", "disagreed"),
        ("callout=origin", "{}", "incomplete"),
        ("trap", "{ traps: 2 }", "traps"),
    ] {
        let gateway = shadowed(&origin, script, bounds);
        let mut client = gateway.client();
        let mut asked = 0;
        while state(&gateway) == "running" && asked < 100 {
            ask_shadowed(&mut client, 100);
            asked += 1;
        }
        let want = if outcome == "incomplete" { "running" } else { "aborted" };
        assert_eq!(state(&gateway), want, "{script}: {}", gateway.page("/stats").text());
        match outcome {
            "traps" => assert!(gateway.metric("portcullis_rollout_traps_total", &[]) >= 3.0),
            outcome => eventually("they are counted", || shadows(&gateway, outcome) >= 21.0),
        }
        (0..20).for_each(|_| ask_shadowed(&mut client, 10));
    }
    assert!(origin.seen().iter().all(|seen| seen.target() == "/"), "nobody is called on a shadow's behalf");
}

#[test]
fn a_shadow_that_agrees_for_long_enough_takes_over() {
    let origin = Origin::always(Answer::ok("from the origin"));
    let text = SHADOWED.replace("abort_if: {bounds}", "promote_after: { exchanges: 20 }");
    let script = "upper@request_body upper@response_body";
    let gateway = Gateway::start(&text, &[("origin", &origin), ("current", &CURRENT), ("script", &script)]);
    let mut client = gateway.client();
    eventually("it is promoted", || {
        client.get("/");
        state(&gateway) == "promoted"
    });
    assert_eq!(version(&client.get("/")), "candidate", "without the current version's headers");
}

const ADMIN: &str = r#"
workers: 2
admin: { bind: "{admin}", token: "${env:ADMIN_TOKEN}" }
upstreams: { origin: { endpoints: ["{origin}"] } }
tenants:
  acme:
    hosts: [acme.test]
    plugins:
      probe:
        module: "file:{file:probe}"
        rollout: { candidate: { module: "file:{file:probe}", config: "{script}" }, percent: 100 }
    filters: [{ plugin: probe, config: "headers" }]
    routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#;

const TOKEN: &str = "correct-horse-battery-staple";

fn administered(origin: &Origin, script: &str) -> Process {
    from(ADMIN, origin, script)
}

fn from(text: &str, origin: &Origin, script: &str) -> Process {
    let admin = free_address();
    Start::new(GATEWAY, text, &[("origin", origin), ("admin", &admin), ("script", &script)])
        .admin_at(admin)
        .variable("ADMIN_TOKEN", TOKEN)
        .start()
}

fn tell(process: &Process, method: &str, path: &str) -> (u16, Value) {
    let token = format!("Bearer {TOKEN}");
    let answer = process.tell_admin(method, path, &[("authorization", &token)], "");
    (answer.status(), serde_json::from_slice(&answer.body).unwrap())
}

/// The first line of the log that has all of these, once it is there.
fn logged(process: &Process, words: &[&str]) -> String {
    let mut found = None;
    eventually("the line is in the log", || {
        let log = process.log();
        found = log.lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned);
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn whoever_has_the_token_decides_and_the_log_says_who() {
    let origin = Origin::plain();
    let process = administered(&origin, "");
    let seen = || version(&process.client().ask("GET", "/", &[("host", "acme.test")], ""));
    assert_eq!(seen(), "candidate");
    assert_eq!(process.tell_admin("POST", "/v1/rollouts/probe/abort?tenant=acme", &[], "").status(), 401);
    for (path, want) in [
        ("/v1/rollouts/probe/abort", (404, "no_rollout")),
        ("/v1/rollouts/probe/abort?tenant=globex", (404, "no_rollout")),
        ("/v1/rollouts/probe/abort?tenant=acme&dry_run=true", (400, "bad_query")),
        ("/v1/rollouts/probe/abort?dry_run=true", (400, "bad_query")),
        ("/v1/rollouts/probe/stop?tenant=acme", (404, "not_found")),
        ("/v1/rollouts", (405, "method_not_allowed")),
    ] {
        let (status, told) = tell(&process, "POST", path);
        assert_eq!((status, told["code"].as_str().unwrap()), want, "{path}");
    }
    for (word, now, got) in [("abort", "aborted", "current"), ("promote", "promoted", "candidate")] {
        let (status, told) = tell(&process, "POST", &format!("/v1/rollouts/probe/{word}?tenant=acme"));
        assert_eq!((status, told["state"].as_str()), (200, Some(now)), "{told}");
        assert_eq!(seen(), got);
        logged(&process, &["portcullis::audit", &format!("roll-out {now}"), "acme", "probe", "127.0.0.1"]);
    }
    let (status, told) = tell(&process, "GET", "/v1/rollouts");
    let rollout = &told["rollouts"][0];
    assert_eq!((status, &rollout["plugin"], &rollout["tenant"]), (200, &Value::from("probe"), &Value::from("acme")));
    assert_eq!((&rollout["state"], &rollout["decided"]["why"]), (&"promoted".into(), &"told by 127.0.0.1".into()));
    assert_eq!(rollout["exchanges"]["current"], 1, "{rollout}");
}

#[test]
fn nobody_decides_where_nobody_is_asked_who_they_are() {
    let gateway = rolled(&Origin::plain(), "", "percent: 5");
    let admin = gateway.admin();
    let host = admin.to_string();
    let answer = Client::connect(admin).ask("POST", "/v1/rollouts/probe/promote", &[("host", &host)], "");
    assert_eq!(code(&answer), (403, "no_authorization".to_owned()));
    assert_eq!(state(&gateway), "running");
}

#[test]
fn what_is_decided_by_itself_is_in_the_log_with_its_numbers() {
    let origin = Origin::plain();
    let process = administered(&origin, "trap");
    assert_eq!(process.client().ask("GET", "/", &[("host", "acme.test")], "").status(), 503);
    let line = logged(&process, &["a roll-out was aborted", "the candidate failed in 1 exchange"]);
    for word in ["WARN", "probe", "acme", "traps", "candidate_p99"] {
        assert!(line.contains(word), "{word}: {line}");
    }
    let (_, told) = tell(&process, "GET", "/v1/rollouts");
    assert_eq!(told["rollouts"][0]["decided"]["why"], "the candidate failed in 1 exchange");
}

#[test]
fn what_is_promoted_by_itself_is_in_the_log_among_the_metrics_and_on_the_admin_listener() {
    let origin = Origin::plain();
    let text = ADMIN.replace("percent: 100", "percent: 100, promote_after: { exchanges: 5 }");
    let process = from(&text, &origin, "");
    let mut client = process.client();
    (0..5).for_each(|_| assert_eq!(version(&client.ask("GET", "/", &[("host", "acme.test")], "")), "candidate"));
    let line = logged(&process, &["a candidate was promoted", "kept within all bounds in 5 exchanges"]);
    assert!(["INFO", "probe", "acme"].iter().all(|word| line.contains(word)), "{line}");
    let (_, told) = tell(&process, "GET", "/v1/rollouts");
    let rollout = &told["rollouts"][0];
    assert_eq!(rollout["state"], "promoted", "{told}");
    assert_eq!(rollout["decided"]["why"], "the candidate kept within all bounds in 5 exchanges");
    let token = format!("Bearer {TOKEN}");
    let metrics = process.ask_admin("GET", "/metrics", &[("authorization", &token)]).text();
    let state = r#"portcullis_rollout_state{plugin="probe",tenant="acme",state="promoted"} 1"#;
    assert!(metrics.contains(state), "{metrics}");
}
