//! The access log: where it goes, what it has, and what it never has.

use std::fs;
use std::path::Path;

use portcullis_tests::client::Client;
use portcullis_tests::eventually;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::pieces::Gate;
use portcullis_tests::process::{Process, Start, free_address};
use portcullis_tests::raw::RawOrigin;

const GATEWAY: &str = env!("CARGO_BIN_EXE_gateway");

const PLAIN: &str = r#"
access_log: {log}
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins: { probe: {guest:probe}, banner: {guest:banner} }
filters: [{ plugin: banner, config: { header: x-own, value: "1" } }, { plugin: probe, config: "" }]
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#;

fn start(origin: &Origin, log: &str) -> Process {
    Start::new(GATEWAY, PLAIN, &[("origin", origin), ("log", &log)]).start()
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn targets(path: &Path) -> Vec<String> {
    lines(path).iter().map(|line| line["target"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_file_that_is_rotated_is_opened_anew_and_no_line_is_lost() {
    let origin = Origin::plain();
    let process = start(&origin, "file:access.log");
    let (path, moved) = (process.folder().join("access.log"), process.folder().join("access.log.1"));
    assert_eq!(process.client().get("/one").status(), 200);
    eventually("it is written", || targets(&path) == ["/one"]);
    fs::rename(&path, &moved).unwrap();
    process.signal("HUP");
    assert_eq!(process.client().get("/two").status(), 200);
    eventually("it is opened anew", || targets(&path) == ["/two"]);
    assert_eq!(targets(&moved), ["/one"]);
    fs::remove_file(&path).unwrap();
    assert_eq!(process.client().get("/three").status(), 200);
    eventually("without being told, too", || targets(&path) == ["/three"]);
}

#[test]
fn a_full_disk_costs_lines_and_nothing_else() {
    let origin = Origin::plain();
    let process = start(&origin, "file:/dev/full");
    for _ in 0..20 {
        assert_eq!(process.client().get("/").status(), 200);
    }
    eventually("the lines are counted", || process.metric("portcullis_access_log_dropped_total") == Some(20.0));
}

#[test]
fn a_file_that_cannot_be_opened_is_said_at_the_start() {
    let origin = Origin::plain();
    let start = Start::new(GATEWAY, PLAIN, &[("origin", &origin), ("log", &"file:nowhere/access.log")]);
    let (status, said) = start.run_to_end();
    assert!(!status.success());
    assert!(said.contains("the access log cannot be written: "), "{said}");
}

#[test]
fn what_is_sampled_out_is_written_when_it_fails() {
    let origin = Origin::start(|seen| Answer::status(if seen.target() == "/bad" { 500 } else { 200 }));
    let process = start(&origin, "{ to: \"file:access.log\", sample: 0 }");
    let path = process.folder().join("access.log");
    for target in ["/good", "/bad", "/good"] {
        assert!(process.client().get(target).status() > 0);
    }
    eventually("it is written", || targets(&path) == ["/bad"]);
}

#[test]
fn chosen_fields_and_what_filters_did_are_in_the_line_and_credentials_are_not() {
    let origin = Origin::always(Answer::ok("ok").header("set-cookie", "id=s3cret").header("x-kind", "plain"));
    let log = "{ to: \"file:access.log\", filters: true, request_headers: [authorization, x-team], \
               response_headers: [set-cookie, x-kind, x-own] }";
    let process = start(&origin, log);
    let path = process.folder().join("access.log");
    let given = [("authorization", "Bearer s3cret"), ("x-team", "blue"), ("cookie", "id=s3cret")];
    assert_eq!(process.client().ask("GET", "/a?key=s3cret", &given, "").status(), 200);
    assert_eq!(process.client().ask("GET", "/refused", &[("x-probe", "reply=403")], "").status(), 403);
    eventually("both are written", || lines(&path).len() == 2);
    assert!(!fs::read_to_string(&path).unwrap().contains("s3cret"));
    let [passed, refused] = &lines(&path)[..] else { panic!() };
    assert_eq!(passed["request_headers"], serde_json::json!({ "authorization": "REDACTED", "x-team": "blue" }));
    let want = serde_json::json!({ "set-cookie": "REDACTED", "x-kind": "plain", "x-own": "1" });
    assert_eq!(passed["response_headers"], want);
    let did = |line: &serde_json::Value| {
        let filters = line["filters"].as_array().unwrap().iter().filter(|did| did["phase"] != "end");
        let word = |did: &serde_json::Value, key: &str| did[key].as_str().unwrap().to_owned();
        filters.map(|did| [word(did, "plugin"), word(did, "phase"), word(did, "outcome")].join(" ")).collect::<Vec<_>>()
    };
    assert!(did(passed).contains(&"probe request next".to_owned()), "{passed}");
    assert!(did(passed).contains(&"banner response next".to_owned()), "{passed}");
    assert!(did(refused).contains(&"probe request reply".to_owned()), "{refused}");
    assert!(passed["filters"].as_array().unwrap().iter().all(|did| did["busy_ms"].as_f64().unwrap() > 0.0), "{passed}");
}

#[test]
fn a_client_that_leaves_while_its_upstream_is_silent_is_logged_with_the_try_that_was_made() {
    let gate = Gate::default();
    let silent = gate.clone();
    let origin = Origin::start(move |_| Answer::ok("late").after(&silent));
    let process = start(&origin, "file:access.log");
    let path = process.folder().join("access.log");
    let mut client = process.client();
    client.send("GET /left HTTP/1.1\r\nhost: test\r\n\r\n");
    origin.wait_for(1);
    drop(client);
    eventually("it is written", || targets(&path) == ["/left"]);
    gate.open();
    let line = &lines(&path)[0];
    assert_eq!((&line["reason"], &line["status"]), (&"client_gone".into(), &serde_json::Value::Null), "{line}");
    assert_eq!(line["attempts"], 1, "{line}");
    assert_eq!(line["upstream_address"], origin.address.to_string(), "{line}");
    assert_eq!(line["upstream_wait_ms"], serde_json::Value::Null, "{line}");
}

#[test]
fn a_connection_of_a_tcp_listener_is_a_line_too() {
    let echo = RawOrigin::start(|wire, _| _ = wire.some().and_then(|bytes| wire.write(bytes)));
    let start = |endpoint: &str| {
        let config = r#"
access_log: file:access.log
listeners: { bytes: { bind: "{address}", protocol: tcp, upstream: echo } }
upstreams: { echo: { endpoints: ["{endpoint}"], protocol: tcp, timeouts: { connect: 5s } } }
routes: []
"#;
        let address = free_address();
        (Start::new(GATEWAY, config, &[("endpoint", &endpoint), ("address", &address)]).start(), address)
    };
    let (process, address) = start(&echo.to_string());
    let mut client = Client::connect(address);
    client.send("hello");
    assert_eq!(client.0.exactly(5).unwrap(), b"hello");
    client.0.finish_sending();
    assert_eq!(client.0.rest(), b"");
    let path = process.folder().join("access.log");
    eventually("it is written", || lines(&path).len() == 1);
    let line = lines(&path).remove(0);
    let (told, sizes) = (["listener", "reason", "upstream", "protocol"], ["request_bytes", "response_bytes"]);
    assert_eq!(told.map(|name| line[name].as_str().unwrap()), ["bytes", "via_upstream", "echo", "TCP"]);
    assert_eq!(sizes.map(|name| line[name].as_u64().unwrap()), [5, 5]);
    assert_eq!(line["upstream_address"].as_str().unwrap(), echo.to_string());

    let gone = echo.address;
    drop(echo);
    let (process, address) = start(&gone.to_string());
    assert_eq!(Client::connect(address).0.rest(), b"");
    let path = process.folder().join("access.log");
    eventually("a connection that went nowhere is written", || lines(&path).len() == 1);
    assert_eq!(lines(&path)[0]["reason"], "upstream_connect");
}
