//! What `/metrics` says: that others can read it, that it is what the documentation lists, and that guests cannot spoil it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use portcullis_tests::eventually;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::guests::{Guest, target};
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::pki::{Authority, Files, Use};
use portcullis_tests::tls::Dialer;

const DOCUMENT: &str = include_str!("../../docs/observability.md");

/// Counts requests, twice each, under odd names.
const COUNTING: &str = r#"(module
    (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_increment_metric" (func $increment (param i32 i64) (result i32)))
    (import "env" "proxy_record_metric" (func $record (param i32 i64) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 1024) "seen \"by\" us\nlevel\ff\\xffms")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 4096))
    (func $named (param $kind i32) (param $name i32) (param $len i32) (result i32)
        (drop (call $define (local.get $kind) (local.get $name) (local.get $len) (i32.const 16)))
        (i32.load (i32.const 16)))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (drop (call $increment (call $named (i32.const 0) (i32.const 1024) (i32.const 12)) (i64.const 2)))
        (drop (call $record (call $named (i32.const 1) (i32.const 1037) (i32.const 6)) (i64.const 7)))
        (drop (call $record (call $named (i32.const 1) (i32.const 1043) (i32.const 4)) (i64.const 8)))
        (drop (call $record (call $named (i32.const 2) (i32.const 1047) (i32.const 2)) (i64.const 9)))
        (i32.const 0)))"#;

/// Everything that has metrics.
const CONFIG: &str = r#"
workers: 2
access_log: "off"
tracing: { sample: 1 }
otlp: { upstream: collector }
services: { rate_limit: { store: { redis: { endpoints: ["{nobody}"] } } } }
listeners:
  main: { bind: "127.0.0.1:0" }
  tls: { bind: "127.0.0.1:0", tls: { certificates: [{ cert: "{f}/a.pem", key: "{f}/a.key" }] } }
upstreams:
  origin: { endpoints: ["{origin}"], retries: { attempts: 1, statuses: [503] } }
  nobody: { endpoints: ["{nobody}"], timeouts: { connect: 300ms } }
  collector: { endpoints: ["{collector}"] }
plugins:
  probe: {guest:probe}
  counting: {counting}
filters: [{ plugin: counting }]
tenants:
  acme:
    hosts: [acme.test]
    plugins: { own: {guest:probe} }
    filters: [{ plugin: own, config: "headers" }]
    routes: [{ name: all, match: { path: "/{rest}" }, upstream: origin }]
routes:
  - { name: all, match: { path: "/*" }, upstream: origin }
  - { name: trap, match: { path: /trap }, filters: [{ plugin: probe, config: trap }], upstream: origin }
  - { name: nobody, match: { path: /nobody }, upstream: nobody }
"#;

/// A gateway that has served all kinds of requests.
fn busy() -> (Gateway, Files) {
    let (authority, files) = (Authority::new("servers"), Files::default());
    files.put_pair("a", &authority.issue(&["a.test"], Use::Server));
    let origin = Origin::start(|seen| if seen.target() == "/busy" { Answer::status(503) } else { Answer::ok("ok") });
    let (collector, nobody) = (Origin::always(Answer::ok("")), portcullis_tests::process::free_address());
    let counting = Guest::of_text(COUNTING);
    let places: [(&str, &dyn std::fmt::Display); 5] =
        [("f", &files), ("origin", &origin), ("nobody", &nobody), ("collector", &collector), ("counting", &counting)];
    let gateway = Gateway::start(CONFIG, &places);
    for (path, status) in [("/", 200), ("/busy", 503), ("/trap", 503), ("/nobody", 503), ("/trap", 503)] {
        assert_eq!(gateway.get(path).status(), status, "{path}");
    }
    assert_eq!(gateway.ask("GET", "/x", &[("host", "acme.test")], "").status(), 200);
    assert_eq!(gateway.h2().get("/").status, 200);
    let mut encrypted = Dialer::new(&authority).connect(gateway.listeners()[1], "a.test");
    assert_eq!(encrypted.ask("GET", "/", &[("host", "a.test")], "").status(), 200);
    eventually("spans are sent", || gateway.metric("portcullis_otlp_items_total", &["\"sent\""]) > 0.0);
    (gateway, files)
}

/// Debian's `promtool`, where `cargo xtask test` has put it, or on the path.
pub(crate) fn promtool() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = target().join("tools/prometheus/usr/bin/promtool");
    let all = std::env::split_paths(&path).map(|folder| folder.join("promtool")).chain([own]);
    let found = all.into_iter().find(|program| program.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: promtool is not installed");
    }
    found
}

#[test]
fn promtool_finds_nothing_wrong() {
    let Some(promtool) = promtool() else { return };
    let (gateway, _files) = busy();
    let page = gateway.page("/metrics").body;
    let mut command = Command::new(promtool);
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&page).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

/// Each metric's kind and labels.
type Families = BTreeMap<String, (String, BTreeSet<String>)>;

/// Those on the page. Labels are the ones that were seen.
fn shown(page: &str) -> Families {
    let mut families = Families::new();
    let mut last = String::new();
    for line in page.lines().filter(|line| !line.starts_with("# HELP")) {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').unwrap();
            last = name.to_owned();
            families.insert(last.clone(), (kind.to_owned(), BTreeSet::new()));
            continue;
        }
        let labels = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |(labels, _)| labels);
        let names = labels.split("=\"").filter_map(|piece| piece.rsplit([',', '"']).next());
        let (_, own) = families.get_mut(&last).unwrap();
        own.extend(names.filter(|name| !name.is_empty() && *name != "le").map(str::to_owned));
    }
    families
}

/// Those in the table.
fn documented() -> Families {
    let rows = DOCUMENT.lines().filter_map(|line| line.strip_prefix("| `"));
    let metrics = rows.filter_map(|row| {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [name, kind, labels, ..] = cells[..] else { return None };
        let names = labels.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let is_metric = ["counter", "gauge", "histogram", "summary"].contains(&kind);
        is_metric.then(|| (name.trim_end_matches('`').to_owned(), (kind.to_owned(), names)))
    });
    metrics.collect()
}

#[test]
fn the_documentation_lists_every_metric_and_no_other() {
    let (gateway, _files) = busy();
    let (shown, documented) = (shown(&gateway.page("/metrics").text()), documented());
    let names = |families: &Families| families.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&shown), names(&documented));
    for (name, (kind, labels)) in &shown {
        let (told_kind, told_labels) = &documented[name];
        assert_eq!(kind, told_kind, "{name}");
        assert!(labels.is_subset(told_labels), "{name}: {labels:?}, and not only {told_labels:?}");
    }
}

#[test]
fn what_filters_do_is_counted_by_phase_and_outcome() {
    let origin = Origin::plain();
    let gateway = Gateway::start(
        r#"
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins: { probe: {guest:probe} }
routes:
  - { name: all, match: { path: "/*" }, filters: [{ plugin: probe, config: headers }], upstream: origin }
  - { name: reply, match: { path: /reply }, filters: [{ plugin: probe, config: reply }], upstream: origin }
  - { name: pause, match: { path: /pause }, filters: [{ plugin: probe, config: "callout=origin" }], upstream: origin }
  - { name: trap, match: { path: /trap }, filters: [{ plugin: probe, config: trap }], upstream: origin }
"#,
        &[("origin", &origin)],
    );
    for (path, status) in [("/", 200), ("/", 200), ("/reply", 418), ("/pause", 200), ("/trap", 503)] {
        assert_eq!(gateway.get(path).status(), status, "{path}");
    }
    let calls = |phase: &str, outcome: &str| {
        let with = [&*format!("phase=\"{phase}\""), &*format!("outcome=\"{outcome}\"")];
        gateway.metric("portcullis_filter_calls_total", &with)
    };
    let count = || {
        [("request", "reply"), ("request", "pause"), ("request", "fail"), ("background", "next"), ("create", "next")]
            .map(|(phase, outcome)| calls(phase, outcome))
    };
    // One VM, since all have the same module: an exchange's context for each request, and the answer to the callout.
    eventually("all are counted", || count() == [1.0, 1.0, 1.0, 1.0, 5.0]);
    assert!(calls("request", "next") >= 2.0 && calls("response", "next") >= 3.0 && calls("end", "next") >= 4.0);
    let vms = |state: &str| gateway.metric("portcullis_filter_instances", &[&format!("\"{state}\"")]);
    assert_eq!([vms("running"), vms("failed"), vms("resting")], [0.0, 1.0, 0.0]);
    assert_eq!(gateway.metric("portcullis_filter_traps_total", &["cause=\"panic\""]), 1.0);
    assert_eq!(gateway.get("/").status(), 200);
    assert_eq!([vms("running"), vms("failed")], [1.0, 0.0]);
    assert!(gateway.metric("portcullis_filter_memory_bytes", &["probe"]) >= 65536.0);
}

#[test]
fn processor_time_of_guests_is_about_what_they_take() {
    let spin = Guest::of_text(
        r#"(module
        (import "env" "proxy_get_current_time_nanoseconds" (func $now (param i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 4096))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (local $until i64)
            (drop (call $now (i32.const 16)))
            (local.set $until (i64.add (i64.load (i32.const 16)) (i64.const 2000000)))
            (loop $l
                (drop (call $now (i32.const 16)))
                (br_if $l (i64.lt_u (i64.load (i32.const 16)) (local.get $until))))
            (i32.const 0)))"#,
    );
    let origin = Origin::plain();
    let gateway = Gateway::start(
        r#"
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins: { spin: {spin} }
filters: [{ plugin: spin }]
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", &origin), ("spin", &spin)],
    );
    let mut client = gateway.client();
    for _ in 0..100 {
        assert_eq!(client.get("/").status(), 200);
    }
    // Two milliseconds each on the wall, of which a busy machine may have left it less, and never more.
    let spent = gateway.metric("portcullis_filter_cpu_seconds_total", &["spin"]);
    assert!((0.02..0.25).contains(&spent), "{spent}");
}

#[test]
fn guests_metrics_are_shown_once_with_their_names() {
    let (gateway, _files) = busy();
    let page = gateway.page("/metrics").text();
    // One VM on each of two workers.
    let requests = gateway.metric("portcullis_filter_calls_total", &["counting", "\"request\""]);
    assert_eq!(requests, 8.0);
    for (sample, want) in [
        (r#"portcullis_guest_events_total{plugin="counting",name="seen \"by\" us"}"#, 2.0 * requests),
        (r#"portcullis_guest_level{plugin="counting",name="level\\xff"}"#, 7.0),
        (r#"portcullis_guest_level{plugin="counting",name="\\\\xff"}"#, 8.0),
        (r#"portcullis_guest_values_bucket{plugin="counting",name="ms",le="5"}"#, 0.0),
        (r#"portcullis_guest_values_bucket{plugin="counting",name="ms",le="10"}"#, requests),
        (r#"portcullis_guest_values_sum{plugin="counting",name="ms"}"#, 9.0 * requests),
    ] {
        let mut found = page.lines().filter_map(|line| line.strip_prefix(sample)?.trim().parse::<f64>().ok());
        assert_eq!((found.next(), found.next()), (Some(want), None), "{sample}\n{page}");
    }
}

#[test]
fn the_page_for_people_says_what_is_wrong() {
    let (gateway, _files) = busy();
    let page = gateway.page("/stats").text();
    for said in ["revision 1 (", "ROUTE", "/nobody", "acme", "counting", "nobody"] {
        assert!(page.contains(said), "{said}\n{page}");
    }
    assert!(page.contains("× probe: panic in proxy_on_request_headers, "), "{page}");
    assert!(page.lines().count() < 50 && page.lines().all(|line| line.chars().count() < 160), "{page}");
}

/// What the answer to such a request says of times.
fn times(gateway: &Gateway, fields: &[(&str, &str)]) -> String {
    gateway.ask("GET", "/", fields, "").get("server-timing").unwrap_or_default().to_owned()
}

#[test]
fn times_are_told_to_those_who_ask_and_may() {
    let origin = Origin::plain();
    let gateway = |listener: &str| {
        Gateway::start(
            r#"
listeners: { main: { bind: "127.0.0.1:0", {listener} } }
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins: { probe: {guest:probe} }
filters: [{ plugin: probe, config: headers }]
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
            &[("origin", &origin), ("listener", &listener)],
        )
    };
    let (asks, test) = (("x-server-timing", "1"), ("host", "test"));
    let trusting = gateway("trusted_proxies: [127.0.0.1], server_timing: {}");
    let told = times(&trusting, &[test, asks]);
    for part in
        ["total;dur=", ", upstream;dur=", ", filter-0;desc=\"probe request next\";dur=", "\"probe response next\""]
    {
        assert!(told.contains(part), "{told}");
    }
    assert_eq!(origin.last().get("x-server-timing"), None, "it goes no further");
    assert_eq!(times(&trusting, &[test]), "");
    assert_eq!(times(&gateway("server_timing: {}"), &[test, asks]), "", "a stranger");
    let any = gateway("server_timing: { header: x-how-long, from: any }");
    assert!(times(&any, &[test, ("x-how-long", "")]).starts_with("total;dur="));
    assert_eq!((times(&any, &[test, asks]), times(&gateway("trusted_proxies: []"), &[test, asks])), Default::default());
}

/// A guest that defines as many metrics as it may, with names as long as they may be, in two tenants.
#[test]
fn a_flood_of_metrics_leaves_room_for_the_others() {
    let greedy = Guest::of_text(
        r#"(module
        (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_increment_metric" (func $increment (param i32 i64) (result i32)))
        (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 4096))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
            (local $number i32)
            (memory.fill (i32.const 1024) (i32.const 120) (i32.const 1024))
            (loop $next
                (i32.store (i32.const 1024)
                    (i32.add (i32.const 0x61616161) (i32.or
                        (i32.and (local.get $number) (i32.const 15))
                        (i32.or
                            (i32.shl (i32.and (local.get $number) (i32.const 240)) (i32.const 4))
                            (i32.shl (i32.and (local.get $number) (i32.const 3840)) (i32.const 8))))))
                (drop (call $define (i32.rem_u (local.get $number) (i32.const 3)) (i32.const 1024) (i32.const 1024) (i32.const 16)))
                (local.set $number (i32.add (local.get $number) (i32.const 1)))
                (br_if $next (i32.lt_u (local.get $number) (i32.const 1500))))
            (i32.const 1)))"#,
    );
    let (origin, counting) = (Origin::plain(), Guest::of_text(COUNTING));
    let gateway = Gateway::start(
        r#"
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins: { counting: {counting} }
filters: [{ plugin: counting }]
tenants:
  one:
    hosts: [one.test]
    plugins: { greedy: {greedy} }
    filters: [{ plugin: greedy }]
    routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
  two:
    hosts: [two.test]
    plugins: { greedy: {greedy} }
    filters: [{ plugin: greedy }]
    routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", &origin), ("counting", &counting), ("greedy", &greedy)],
    );
    assert_eq!(gateway.get("/").status(), 200);
    for host in ["one.test", "two.test"] {
        assert_eq!(gateway.ask("GET", "/", &[("host", host)], "").status(), 200);
    }
    let page = gateway.page("/metrics").text();
    assert!(page.len() < 1_000_000, "{}", page.len());
    for own in ["one", "two"] {
        assert!(page.contains(&format!("tenant=\"{own}\",name=\"")), "{own} has some of its own");
    }
    assert!(
        page.contains(r#"portcullis_guest_events_total{plugin="_overflow",tenant="_overflow",name="_overflow"} 0"#)
    );
    assert_eq!(gateway.metric("portcullis_guest_events_total", &["counting", "seen"]), 6.0);
}
