//! Gateways that do not start, and what the operator is told.

use portcullis_tests::gateway::Gateway;
use portcullis_tests::guests::Guest;
use portcullis_tests::origin::Origin;

const WITH_GUEST: &str = r#"
upstreams: { origin: { endpoints: ["127.0.0.1:9"] } }
plugins: { sentry: {guest} }
filters: [{ plugin: sentry, config: "{script}" }]
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#;

/// Why a gateway with this guest does not start.
fn refused(guest: &dyn std::fmt::Display, script: &str) -> String {
    match Gateway::try_start(WITH_GUEST, &[("guest", guest), ("script", &script)]) {
        Ok(_) => panic!("it starts"),
        Err(why) => why,
    }
}

#[test]
fn a_plugin_that_refuses_its_configuration_stops_the_start_and_is_named() {
    for (script, hint) in [("fail@configure", "configur"), ("sing", "`sing` is no step"), ("trap@configure", "")] {
        let why = refused(&"{guest:probe}", script);
        assert!(why.contains("sentry") && why.contains(hint), "{script}: {why}");
    }
    let why = refused(&"{guest:auth}", "");
    assert!(why.contains("sentry"), "{why}");
}

#[test]
fn a_module_that_cannot_run_here_says_what_it_lacks() {
    let marked =
        r#"(func (export "proxy_abi_version_0_2_1")) (func (export "malloc") (param i32) (result i32) (i32.const 0))"#;
    let memory = r#"(memory (export "memory") 1)"#;
    for (what, guest, hint) in [
        ("no module", Guest::of_bytes(b"not wasm"), "sentry"),
        (
            "unknown import",
            Guest::of_text(&format!(r#"(module (import "env" "proxy_fly" (func)) {memory} {marked})"#)),
            "proxy_fly",
        ),
        (
            "foreign module",
            Guest::of_text(&format!(r#"(module (import "gods" "own" (func)) {memory} {marked})"#)),
            "gods",
        ),
        ("no marker", Guest::of_text(&format!(r"(module {memory})")), "proxy_abi_version"),
        (
            "unknown version",
            Guest::of_text(&format!(r#"(module {memory} (func (export "proxy_abi_version_9_9_9")))"#)),
            "proxy_abi_version_9_9_9",
        ),
        ("no memory", Guest::of_text(&format!(r"(module {marked})")), "memory"),
        (
            "wrong type",
            Guest::of_text(&format!(
                r#"(module {memory} {marked} (func (export "proxy_on_request_headers") (param f32)))"#
            )),
            "proxy_on_request_headers",
        ),
    ] {
        let why = refused(&guest, "");
        assert!(why.contains("sentry") && why.contains(hint), "{what}: {why}");
    }
}

#[test]
fn a_configuration_with_problems_shows_them_all() {
    let text = r#"
upstreams: { payment: { endpoints: ["127.0.0.1:9"] } }
routes:
  - { name: checkout, match: { path: "/*" }, upstream: payments }
  - { name: other, mtach: { path: "/a" }, upstream: payment }
"#;
    let why = Gateway::try_start(text, &[]).err().unwrap();
    for hint in ["payments", "`payment`", "mtach", "portcullis.yaml:", "^"] {
        assert!(why.contains(hint), "{hint}: {why}");
    }
}

#[test]
fn a_module_that_is_not_the_one_that_was_pinned_is_refused() {
    let text = r#"
upstreams: { origin: { endpoints: ["127.0.0.1:9"] } }
plugins: { sentry: { module: "file:{file:noop}", sha256: "{digest}" } }
filters: [{ plugin: sentry }]
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#;
    let digest = "00".repeat(32);
    let why = Gateway::try_start(text, &[("digest", &digest)]).err().unwrap();
    assert!(why.contains("sentry") && why.contains("digest"), "{why}");
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = "listeners: { main: { bind: \"{address}\" } }";
    let why = Gateway::try_start(text, &[("address", &address)]).err().unwrap();
    assert!(why.contains(&address.to_string()) && why.contains("main"), "{why}");
}

#[test]
fn a_gateway_without_routes_or_plugins_starts() {
    let gateway = Gateway::start("", &[]);
    assert_eq!(gateway.get("/").status(), 404);
}

#[test]
fn one_gateway_has_as_many_listeners_as_it_is_told() {
    let origin = Origin::plain();
    let gateway = Gateway::start(
        r#"
listeners: { a: { bind: "127.0.0.1:0" }, b: { bind: "127.0.0.1:0" } }
upstreams: { origin: { endpoints: ["{origin}"] } }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", &origin)],
    );
    let inner = gateway.into_inner();
    assert_eq!(inner.listeners.len(), 2);
    for (_, address) in &inner.listeners {
        assert_eq!(portcullis_tests::client::Client::connect(*address).get("/").status(), 200);
    }
    inner.stop();
}
