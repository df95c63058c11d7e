//! A process whose configuration changes while it serves.

use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use portcullis_tests::eventually;
use portcullis_tests::load::{Load, Refused};
use portcullis_tests::origin::{Answer, Origin, Seen};
use portcullis_tests::process::{Process, Start};
use portcullis_tests::wire::Message;
use serde_json::Value;

const GATEWAY: &str = env!("CARGO_BIN_EXE_gateway");

/// Every part of an exchange says which revision it saw: the request and the response by a filter, the callout and the upstream
/// by where they go.
const STAMPED: &str = r#"
workers: 2
access_log: off
upstreams: { origin: { endpoints: ["{origin}"] }, side: { endpoints: ["{side}"] } }
plugins:
  stamp: { module: "builtin:transform", limits: { cpu: 5s } }
  probe: {guest:probe}
filters:
  - plugin: stamp
    config:
      request: { headers: { set: { x-request-stamp: "{stamp}" } } }
      response: { headers: { set: { x-response-stamp: "{stamp}" } } }
  - { plugin: probe, config: "callout=side" }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#;

const SIMPLE: &str = r#"
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins: { banner: {guest:banner} }
filters: [{ plugin: banner, config: { header: x-revision, value: "{value}" } }]
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#;

fn side(name: &'static str) -> Origin {
    Origin::always(Answer::ok(name))
}

fn main_origin(name: &'static str) -> Origin {
    Origin::start(move |seen: &Seen| {
        let field = |name: &str| seen.get(name).unwrap_or("-").to_owned();
        Answer::ok(format!("{} {} {name}", field("x-request-stamp"), field("x-probe-callout")))
    })
}

/// All four say the same: the response's filter, the request's, the callout, the upstream.
fn is_of_one_revision(answer: &Message) -> Result<(), String> {
    let text = answer.text();
    let stamp = answer.get("x-response-stamp").unwrap_or("none");
    let right = answer.status() == 200 && text == format!("{stamp} 200 {stamp} {stamp}");
    if right { Ok(()) } else { Err(format!("{} {stamp}: {text}", answer.status())) }
}

/// A load generator that is not ours; `None`, and loudly, where it is not installed.
fn generator(program: &str, arguments: &[&str], process: &Process) -> Option<Child> {
    let url = format!("http://{}/", process.address);
    let started = Command::new(program).args(arguments).arg(url).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    if started.is_err() {
        eprintln!("SKIPPED: `{program}` is not installed");
    }
    started.ok()
}

fn said(child: Child) -> String {
    String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).into_owned()
}

#[test]
fn a_hundred_reloads_under_load_fail_no_request_and_mix_no_revisions() {
    let (origins, sides) = (["even", "odd"].map(main_origin), ["even", "odd"].map(side));
    let places = |number: usize| {
        let turn = number % 2;
        (origins[turn].to_string(), sides[turn].to_string(), ["even", "odd"][turn])
    };
    let (origin, side, stamp) = places(0);
    let start = Start::new(GATEWAY, STAMPED, &[("origin", &origin), ("side", &side), ("stamp", &stamp)]);
    // So that it is known how many there will be.
    let process = start.argument("--no-watch").start();
    let load = Load::start(process.address, 2, Refused::IsAFailure, is_of_one_revision);
    let wrk = generator("wrk", &["-t1", "-c4", "-d8"], &process);
    let h2load = generator("h2load", &["-t1", "-c2", "-m4", "-D8"], &process);
    load.more(50);
    let mut resident = 0;
    for number in 1..=100 {
        let (origin, side, stamp) = places(number);
        process.configure(STAMPED, &[("origin", &origin), ("side", &side), ("stamp", &stamp)]);
        let answer = process.reload();
        assert_eq!(answer.status(), 200, "{}", answer.text());
        load.more(3);
        if number == 20 {
            resident = process.resident_kib();
        }
    }
    assert!(load.finish() > 350);
    if let Some(wrk) = wrk {
        let said = said(wrk);
        assert!(!said.contains("Non-2xx") && !said.contains("Socket errors"), "{said}");
    }
    if let Some(h2load) = h2load {
        let said = said(h2load);
        assert!(said.contains(" 0 failed, 0 errored, 0 timeout"), "{said}");
    }
    eventually("old VMs are gone", || {
        let page = process.page("/metrics").text();
        let live = page.lines().filter(|line| line.starts_with("portcullis_filter_instances"));
        live.filter_map(|line| line.rsplit(' ').next()?.parse::<u32>().ok()).sum::<u32>() == 2 * 2
    });
    let grown = process.resident_kib().saturating_sub(resident);
    assert!(grown < 16 << 10, "80 revisions left {grown} KiB behind");
    assert_eq!(process.metric("portcullis_config_applied_total"), Some(101.0));
    assert_eq!(process.metric("portcullis_config_last_apply_success"), Some(1.0));
}

#[test]
fn every_way_to_change_the_files_is_followed() {
    let origin = Origin::plain();
    let process =
        Start::new(GATEWAY, SIMPLE, &[("origin", &origin), ("value", &"${file:word}")]).file("word", "one").start();
    let follows = |word: &str| {
        eventually(&format!("it serves `{word}`"), || process.client().get("/").get("x-revision") == Some(word));
    };
    follows("one");
    // A secret beside the configuration.
    process.write("word", "two");
    follows("two");
    // The configuration, renamed into place.
    process.configure(SIMPLE, &[("origin", &origin), ("value", &"three")]);
    follows("three");
    // Written to where it is.
    let path = process.folder().join("portcullis.yaml");
    let text = fs::read_to_string(&path).unwrap().replace("three", "four");
    fs::write(&path, &text).unwrap();
    follows("four");
    // As Kubernetes does it: a link to a link, of which the middle one is exchanged.
    let at = |name: &str| process.folder().join(name);
    for (folder, word) in [("..1", "five"), ("..2", "six")] {
        fs::create_dir(at(folder)).unwrap();
        fs::write(at(folder).join("portcullis.yaml"), text.replace("four", word)).unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    fs::remove_file(&path).unwrap();
    symlink("..data/portcullis.yaml", &path).unwrap();
    follows("five");
    symlink("..2", at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    follows("six");
}

#[test]
fn a_tenants_directory_and_a_module_are_followed_too() {
    let origin = Origin::plain();
    let text = r#"
upstreams: { origin: { endpoints: ["{origin}"] } }
tenants: { acme: { hosts: [acme.test], include: acme/ } }
"#;
    let own = "plugins: { own: { module: \"file:own.wasm\", limits: { cpu: 5s } } }\n\
               routes: [{ name: all, match: { path: \"/*\" }, upstream: origin, filters: [{ plugin: own }] }]\n";
    let module = |status: u32| {
        format!(
            r#"(module (import "env" "proxy_send_local_response" (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
            (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (drop (call $reply (i32.const {status}) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                    (i32.const 0) (i32.const 0) (i32.const -1))) (i32.const 1)))"#
        )
    };
    let start = Start::new(GATEWAY, text, &[("origin", &origin)]).file("acme/a.yaml", own);
    let module_path = start.folder().join("acme/own.wasm");
    let put = |status: u32| {
        let new = module_path.with_extension("new");
        fs::write(&new, wat::parse_str(module(status)).unwrap()).unwrap();
        fs::rename(new, &module_path).unwrap();
    };
    put(501);
    let process = start.start();
    let ask = |path: &str| process.client().ask("GET", path, &[("host", "acme.test")], "").status();
    assert_eq!(ask("/"), 501);
    put(502);
    eventually("the new module runs", || ask("/") == 502);
    process.write("acme/b.yaml", "routes: [{ name: plain, match: { path: /plain }, upstream: origin }]\n");
    eventually("the new file is read", || ask("/plain") == 200);
}

#[test]
fn a_broken_file_changes_nothing_and_says_why_until_it_is_mended() {
    let origin = Origin::plain();
    let process = Start::new(GATEWAY, SIMPLE, &[("origin", &origin), ("value", &"good")]).start();
    let broken = SIMPLE.replace("upstream: origin }", "upstream: orign }");
    process.configure(&broken, &[("origin", &origin), ("value", &"bad")]);
    eventually("the refusal is counted", || process.metric("portcullis_config_last_apply_success") == Some(0.0));
    let refused: Value = serde_json::from_slice(&process.page("/revision").body).unwrap();
    let why = refused["refused"]["why"].as_str().unwrap();
    for hint in ["`orign`, which does not exist", "portcullis.yaml:", "^^^^^", "`origin` is close"] {
        assert!(why.contains(hint), "{hint}: {why}");
    }
    let checked = Command::new(GATEWAY).arg("check").arg(process.folder().join("portcullis.yaml")).output().unwrap();
    assert!(String::from_utf8_lossy(&checked.stdout).contains(why.trim_end()), "the same as `check` prints");
    assert!(process.log().contains("`orign`, which does not exist"), "{}", process.log());
    assert_eq!(process.client().get("/").get("x-revision"), Some("good"));
    assert_eq!(process.page("/ready").status(), 200);
    assert_eq!(process.metric("portcullis_config_refused_total"), Some(1.0));

    let answer = process.reload();
    assert_eq!(answer.status(), 422);
    let problem: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(problem["code"], "refused");
    assert!(problem["detail"].as_str().unwrap().contains("`orign`"), "{problem}");

    // A plugin that cannot be started is found as late as can be, and still nothing has changed.
    let trapping = SIMPLE.replace("{guest:banner}", "{guest:probe}");
    let trapping = trapping.replace("{ header: x-revision, value: \"{value}\" }", "trap@configure");
    process.configure(&trapping, &[("origin", &origin), ("value", &"bad")]);
    assert_eq!(process.reload().status(), 422);
    assert_eq!(process.client().get("/").get("x-revision"), Some("good"));

    process.configure(SIMPLE, &[("origin", &origin), ("value", &"mended")]);
    eventually("it is served", || process.client().get("/").get("x-revision") == Some("mended"));
    assert_eq!(process.metric("portcullis_config_last_apply_success"), Some(1.0));
}

#[test]
fn a_signal_is_enough_where_files_are_not_watched() {
    let origin = Origin::plain();
    let places: [(&str, &dyn std::fmt::Display); 2] = [("origin", &origin), ("value", &"one")];
    let process = Start::new(GATEWAY, SIMPLE, &places).argument("--no-watch").start();
    process.configure(SIMPLE, &[("origin", &origin), ("value", &"two")]);
    // Longer than the files of others would be looked at: it is the absence of a change that is waited for.
    thread::park_timeout(Duration::from_millis(1500));
    assert_eq!(process.client().get("/").get("x-revision"), Some("one"));
    process.signal("HUP");
    eventually("it is served", || process.client().get("/").get("x-revision") == Some("two"));
}

/// The time that 99 of 100 requests stay below, on one connection, while `meanwhile` goes on beside it.
fn ninety_ninth(process: &Process, meanwhile: impl FnOnce() + Send) -> Duration {
    let mut times = Vec::new();
    let mut client = process.client();
    thread::scope(|scope| {
        let other = scope.spawn(meanwhile);
        while !other.is_finished() || times.len() < 1000 {
            let began = Instant::now();
            assert_eq!(client.get("/r7").status(), 200);
            times.push(began.elapsed());
        }
    });
    times.sort();
    times[times.len() * 99 / 100]
}

#[test]
fn a_thousand_routes_come_and_go_beside_the_requests_and_not_before_them() {
    let origin = Origin::plain();
    let text = |prefix: &str| {
        let route = |n: usize| format!("  - {{ name: {prefix}{n}, match: {{ path: /r{n} }}, upstream: origin }}\n");
        let routes: String = (0..1000).map(route).collect();
        format!(
            "workers: 1\naccess_log: off\nupstreams: {{ origin: {{ endpoints: [\"{origin}\"] }} }}\n\
             plugins: {{ probe: {{guest:probe}} }}\nfilters: [{{ plugin: probe, config: \"\" }}]\nroutes:\n{routes}"
        )
    };
    let process = Start::new(GATEWAY, &text("a"), &[]).argument("--no-watch").start();
    let round = |_| {
        let alone = ninety_ninth(&process, || {});
        let beside = ninety_ninth(&process, || {
            for number in 1..=6 {
                process.configure(&text(["a", "b"][number % 2]), &[]);
                assert_eq!(process.reload().status(), 200);
            }
        });
        println!(
            "99 of 100 requests below {alone:?} alone, below {beside:?} while 1,000 routes are replaced six times"
        );
        // Generous: programs are not optimised here, and share two cores with whoever reads the configuration.
        beside < alone + Duration::from_millis(25)
    };
    // Whatever else the machine does may add to that, and not to every round. Requests that wait for a change do in every round.
    assert!((0..8).any(round));
}
