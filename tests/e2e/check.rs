//! `portcullis check`: what it finds, and where.

use std::fs;

use crate::workshop::says;

const GATEWAY: &str = r#"version: 1
listeners: { public: { bind: "127.0.0.1:0" } }
upstreams: { origin: { endpoints: ["127.0.0.1:9"] } }
plugins:
  limit: { module: "builtin:rate-limit" }
  auth: { module: "builtin:auth" }
filters:
  - plugin: limit
    config:
      limits:
        - { name: a, rate: 5/s }
        - { name: b, rate: 5/y }
  - plugin: limit
    config: { rates: 5/s }
  - { plugin: limit, config: { rate: 1/s } }
routes:
  - name: all
    match: { path: "/*" }
    filters: [{ plugin: auth, config: { issuer: a } }]
    upstream: origin
"#;

/// What `check` says of these plugins, and of nothing else.
fn checked(text: &str, arguments: &[&str], is_good: bool) -> String {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("gateway.yaml"), text).unwrap();
    fs::write(folder.path().join("none.wasm"), "not wasm").unwrap();
    says(folder.path(), &[&["check", "gateway.yaml"], arguments].concat(), is_good)
}

/// Three refuse, two of which share a VM with one that does not.
#[test]
fn what_plugins_say_to_their_settings_is_said_where_these_are() {
    let said = checked(GATEWAY, &[], false);
    for want in [
        "plugin `limit` does not start with these settings",
        "gateway.yaml:12:28",
        "^^^ `limits[1].rate`: `5/y` is not a rate such as 5/s, 100/m or 1000/h",
        "gateway.yaml:14:15",
        "^^^^^ unknown field `rates`, expected one of `key`, `rate`",
        "plugin `auth` does not start with these settings",
        "gateway.yaml:19:39",
        "3 errors; nothing was started or changed",
    ] {
        assert!(said.contains(want), "{want}: {said}");
    }
    assert!(!said.contains("at line 1"), "{said}");
    assert_eq!(checked(GATEWAY, &["--no-start"], true), "ok: 1 route, 4 filters, 0 tenants\n");
    let mended = GATEWAY.replace("5/y", "5/m").replace("rates:", "rate:").replace("builtin:auth", "builtin:rate-limit");
    let mended = mended.replace("{ issuer: a }", "{ rate: 2/s }");
    assert_eq!(checked(&mended, &[], true), "ok: 1 route, 4 filters, 0 tenants\n");
}

#[test]
fn an_upstream_that_a_plugin_names_and_that_there_is_not_is_a_warning() {
    let settings = "{ issuer: \"https://a\", discovery: { upstream: orign } }";
    let said = checked(
        &GATEWAY.replace("5/y", "5/m").replace("rates:", "rate:").replace("{ issuer: a }", settings),
        &[],
        true,
    );
    for want in [
        "warning: plugin `auth` calls upstream `orign`, which does not exist",
        "gateway.yaml:19:85",
        "`origin` is close",
        "ok: 1 route, 4 filters, 0 tenants",
    ] {
        assert!(said.contains(want), "{want}: {said}");
    }
}

#[test]
fn a_module_that_cannot_be_loaded_is_shown_where_it_is_named() {
    let said = checked(&GATEWAY.replace("builtin:auth", "file:none.wasm"), &[], false);
    for want in ["the module of plugin `auth` cannot be loaded", "gateway.yaml:6:19", "1 error; nothing was started"] {
        assert!(said.contains(want), "{want}: {said}");
    }
}

/// A next version's settings are its own or, where it has none, those of each filter.
#[test]
fn what_a_next_version_says_is_shown_where_its_settings_are() {
    let rolled = |first: &str, second: &str| {
        format!(
            "version: 1\n\
             listeners: {{ public: {{ bind: \"127.0.0.1:0\" }} }}\n\
             plugins:\n\
             \x20 one: {{ module: \"builtin:rate-limit\", rollout: {{ candidate: {first}, percent: 5 }} }}\n\
             \x20 two: {{ module: \"builtin:rate-limit\", rollout: {{ candidate: {second}, shadow: true }} }}\n\
             filters: [{{ plugin: one, config: {{ rate: 1/s }} }}, {{ plugin: two, config: {{ rate: 2/s }} }}]\n"
        )
    };
    let own = "{ module: \"builtin:rate-limit\", config: { rate: 5/y } }";
    let said = checked(&rolled(own, "\"builtin:transform\""), &[], false);
    for want in [
        "plugin `one@candidate` does not start with these settings",
        "gateway.yaml:4:110",
        "^^^ `rate`: `5/y` is not a rate",
        "plugin `two@candidate` does not start with these settings",
        "gateway.yaml:6:76",
        "^^^^ unknown field `rate`",
    ] {
        assert!(said.contains(want), "{want}: {said}");
    }
    let said = checked(&rolled("\"file:none.wasm\"", "\"builtin:rate-limit\""), &[], false);
    for want in ["the module of plugin `one@candidate` cannot be loaded", "gateway.yaml:4:62", "1 error; nothing was"] {
        assert!(said.contains(want), "{want}: {said}");
    }
}
