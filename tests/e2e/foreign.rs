//! Guests this repository's build knows nothing of, in each language that Proxy-Wasm has an SDK for, loaded from a file.

use std::fs;
use std::path::Path;

use portcullis_tests::eventually;
use portcullis_tests::guests::{entry, target};
use portcullis_tests::languages::Language;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::process::Start;
use portcullis_vm::{CompileLimits, Engine, EngineOptions};

/// Compiles a module into the cache of all tests: Go's runtime may take longer on a busy machine than a process has to become ready.
fn compile(module: &Path, isolation: &str) {
    let cache = target().join("tmp").join("test-modules");
    let options = EngineOptions { cache: Some(cache), max_vms: 1, ..EngineOptions::default() };
    let (engine, wasm) = (Engine::new(options).unwrap(), fs::read(module).unwrap());
    match isolation {
        "vm" => engine.load("guest", &wasm).unwrap(),
        _ => engine.load_copyable("guest", &wasm, &CompileLimits::default()).unwrap(),
    };
}

/// Headers, bodies, a callout, shared data, a timer, a metric and the log, as `tests/guests/foreign/src/lib.rs` says.
fn works(language: Language, isolation: &str) {
    let Some(module) = language.guest() else { return };
    let origin = Origin::start(|seen| match seen.uri.path() {
        "/authorize" => Answer::status(if seen.get("x-token") == Some("good") { 200 } else { 403 }).data("spoken"),
        _ => Answer::ok(format!("got {}", String::from_utf8_lossy(&seen.body))),
    });
    compile(&module, isolation);
    let entry = entry(&module).replace(", limits:", &format!(", isolation: {isolation}, limits:"));
    let start = Start::new(
        env!("CARGO_BIN_EXE_gateway"),
        r#"
workers: 1
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins: { guest: {guest} }
filters: [{ plugin: guest, config: "a greeting" }]
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", &origin), ("guest", &entry)],
    );
    let gateway = start.start();
    let mut client = gateway.client();
    let answer = client.ask("POST", "/some/path", &[("x-token", "good")], "some body");
    let seen = origin.last();
    assert_eq!(seen.body, "ydob emos", "the request's body was held and replaced");
    assert_eq!((seen.get("x-greeting"), seen.get("x-authorized")), (Some("a greeting"), Some("spoken")));
    assert_eq!(answer.text(), "GOT YDOB EMOS");
    let refused = client.ask("GET", "/", &[("x-token", "bad")], "");
    assert_eq!((refused.status(), refused.text().as_str()), (403, "REFUSED"), "its own reply passes its own callbacks");
    let mut client = gateway.client();
    let mut ticks = || {
        let answer = client.ask("GET", "/", &[("x-token", "good")], "");
        answer.get("x-ticks").and_then(|ticks| ticks.parse::<u32>().ok()).unwrap_or_default()
    };
    let before = ticks();
    eventually("its timer ticks, and its ticks are shared data", || ticks() > before);
    eventually("its last callback has written a line", || gateway.log().contains("served /some/path"));
    assert!(!gateway.log().contains("a plugin failed"), "{}", gateway.log());
}

#[test]
fn a_guest_in_rust_works() {
    works(Language::Rust, "vm");
}

#[test]
fn a_guest_in_go_works() {
    works(Language::Go, "vm");
}

#[test]
fn a_guest_in_assembly_script_works() {
    works(Language::AssemblyScript, "vm");
}

#[test]
fn a_guest_in_cpp_works() {
    works(Language::Cpp, "vm");
}

#[test]
fn guests_in_all_languages_work_in_a_vm_for_each_request() {
    Language::ALL.into_iter().for_each(|language| works(language, "request"));
}
