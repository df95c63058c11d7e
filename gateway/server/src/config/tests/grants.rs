//! What tenants may say in files of their own, and what is said when they say more.
#![allow(clippy::too_many_lines, reason = "what makes them long is the text that operators read, whole")]

use std::time::Duration;

use expect_test::{Expect, expect};
use portcullis_vm::{Capabilities, Isolation};

use super::Folder;
use crate::diagnostic::text;

const BASE: &str = "\
version: 1
listeners: { public: { bind: \"127.0.0.1:0\" } }
upstreams:
  origin: { endpoints: [\"127.0.0.1:9001\"] }
  billing: { endpoints: [\"127.0.0.1:9002\"] }
  shared-a: { endpoints: [\"127.0.0.1:9003\"] }
";

const GRANTS: &str = "
tenant_defaults:
  grants:
    upstreams: [origin, \"shared-*\"]
    networks: [10.0.0.0/8]
    plugins: [\"file:*\"]
    capabilities: [proxy_log, proxy_on_request_headers]
    tighten_only: { timeout: 5s, timeouts: { request: 30s }, limits: { memory: 8MiB, cpu: 5ms } }
";

/// A gateway with one tenant whose own file says this.
fn tenant(gateway: &str, own: &str) -> Folder {
    let gateway = format!("{BASE}tenants: {{ acme: {{ hosts: [acme.test], include: acme/ }} }}\n{gateway}");
    Folder::new(&[("gateway.yaml", &gateway), ("acme/own.yaml", own), ("acme/a.wasm", "\0asm\x01\0\0\0")])
}

fn check(gateway: &str, own: &str, want: &Expect) {
    tenant(gateway, own).check(&["gateway.yaml"], want);
}

#[test]
fn what_is_beyond_a_grant_is_refused_with_both_places() {
    check(
        GRANTS,
        "
upstreams:
  inner: { endpoints: [\"127.0.0.1:9901\"] }
plugins:
  own: { module: \"file:a.wasm\", limits: { memory: 16MiB, cpu: 2ms }, capabilities: [proxy_log, proxy_http_call] }
routes:
  - { name: a, match: { path: /a }, upstream: billing }
  - { name: b, match: { path: /b }, upstream: shared-a, timeout: 6s, timeouts: { request: 1m } }
",
        &expect![[r#"
            error: tenant `acme` is not granted endpoint `127.0.0.1:9901`
               ┌ acme/own.yaml:3:24
             3 │   inner: { endpoints: ["127.0.0.1:9901"] }
               │                        ^^^^^^^^^^^^^^^^ not granted
               ┌ gateway.yaml:12:15
            12 │     networks: [10.0.0.0/8]
               │               ^^^^^^^^^^^^ this is what is granted

            error: `limits.memory` can be tightened here, and not loosened
               ┌ acme/own.yaml:5:51
             5 │   own: { module: "file:a.wasm", limits: { memory: 16MiB, cpu: 2ms }, capabilities: [proxy_log, proxy_http_call] }
               │                                                   ^^^^^ more than 8MiB
               ┌ gateway.yaml:15:80
            15 │     tighten_only: { timeout: 5s, timeouts: { request: 30s }, limits: { memory: 8MiB, cpu: 5ms } }
               │                                                                                ^^^^ this is the most

            warning: plugin `own` is not granted `proxy_on_context_create`, `proxy_on_configure`
              ┌ acme/own.yaml:5:84
            5 │   own: { module: "file:a.wasm", limits: { memory: 16MiB, cpu: 2ms }, capabilities: [proxy_log, proxy_http_call] }
              │                                                                                    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^ most modules do nothing without, and let no request pass
              = help: name them too, or leave `capabilities` out

            error: tenant `acme` is not granted capability `proxy_http_call`
               ┌ acme/own.yaml:5:96
             5 │   own: { module: "file:a.wasm", limits: { memory: 16MiB, cpu: 2ms }, capabilities: [proxy_log, proxy_http_call] }
               │                                                                                                ^^^^^^^^^^^^^^^ not granted
               ┌ gateway.yaml:14:19
            14 │     capabilities: [proxy_log, proxy_on_request_headers]
               │                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ this is what is granted

            error: tenant `acme` is not granted upstream `billing`
               ┌ acme/own.yaml:7:47
             7 │   - { name: a, match: { path: /a }, upstream: billing }
               │                                               ^^^^^^^ not granted
               ┌ gateway.yaml:11:16
            11 │     upstreams: [origin, "shared-*"]
               │                ^^^^^^^^^^^^^^^^^^^^ this is what is granted

            error: `timeout` can be tightened here, and not loosened
               ┌ acme/own.yaml:8:66
             8 │   - { name: b, match: { path: /b }, upstream: shared-a, timeout: 6s, timeouts: { request: 1m } }
               │                                                                  ^^ more than 5s
               ┌ gateway.yaml:15:30
            15 │     tighten_only: { timeout: 5s, timeouts: { request: 30s }, limits: { memory: 8MiB, cpu: 5ms } }
               │                              ^^ this is the most

            error: `timeouts.request` can be tightened here, and not loosened
               ┌ acme/own.yaml:8:91
             8 │   - { name: b, match: { path: /b }, upstream: shared-a, timeout: 6s, timeouts: { request: 1m } }
               │                                                                                           ^^ more than 30s
               ┌ gateway.yaml:15:55
            15 │     tighten_only: { timeout: 5s, timeouts: { request: 30s }, limits: { memory: 8MiB, cpu: 5ms } }
               │                                                       ^^^ this is the most

        "#]],
    );
    check(
        "tenant_defaults: { grants: { plugins: [\"builtin:*\"] } }\n",
        "plugins: { own: { module: \"file:a.wasm\" } }\n",
        &expect![[r#"
            error: tenant `acme` is not granted the module of plugin `own`
              ┌ acme/own.yaml:1:27
            1 │ plugins: { own: { module: "file:a.wasm" } }
              │                           ^^^^^^^^^^^^^ not granted
              ┌ gateway.yaml:8:39
            8 │ tenant_defaults: { grants: { plugins: ["builtin:*"] } }
              │                                       ^^^^^^^^^^^^^ this is what is granted

        "#]],
    );
}

#[test]
fn what_compiling_takes_is_bounded_where_nothing_is_granted_too() {
    let own = "plugins: { own: { module: \"file:a.wasm\", limits: { compile: { cpu: 10h, memory: 1GiB } } } }\n";
    check(
        "",
        own,
        &expect![[r#"
        error: `limits.compile.cpu` can be tightened here, and not loosened
          ┌ acme/own.yaml:1:68
        1 │ plugins: { own: { module: "file:a.wasm", limits: { compile: { cpu: 10h, memory: 1GiB } } } }
          │                                                                    ^^^ more than where nothing is said
          = help: operators let it have more with `tighten_only.limits.compile.cpu` in its grants

    "#]],
    );
    check(
        "tenant_defaults: { grants: { tighten_only: { limits: { compile: { cpu: 20h, memory: 512MiB } } } } }\n",
        own,
        &expect![[r#"
            error: `limits.compile.memory` can be tightened here, and not loosened
              ┌ acme/own.yaml:1:81
            1 │ plugins: { own: { module: "file:a.wasm", limits: { compile: { cpu: 10h, memory: 1GiB } } } }
              │                                                                                 ^^^^ more than 512MiB
              ┌ gateway.yaml:8:85
            8 │ tenant_defaults: { grants: { tighten_only: { limits: { compile: { cpu: 20h, memory: 512MiB } } } } }
              │                                                                                     ^^^^^^ this is the most

        "#]],
    );
}

#[test]
fn a_plugin_that_would_hear_of_nothing_is_warned_of() {
    let said = |granted: &str| {
        let own = format!("plugins: {{ own: {{ module: \"file:a.wasm\", capabilities: [{granted}] }} }}\n");
        let (_, warnings) = tenant("", &own).load(&["gateway.yaml"]).unwrap_or_else(|said| panic!("{said}"));
        text(&warnings).lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(said("proxy_on_context_create, proxy_on_configure"), "");
    assert_eq!(said("proxy_log, proxy_on_configure"), "warning: plugin `own` is not granted `proxy_on_context_create`");
    assert_eq!(
        said("proxy_log"),
        "warning: plugin `own` is not granted `proxy_on_context_create`, `proxy_on_configure`"
    );
}

#[test]
fn without_grants_a_tenant_does_not_reach_the_gateways_own_machine() {
    check(
        "",
        "upstreams: { a: { endpoints: [\"169.254.169.254:80\", \"10.0.0.1:80\", \"[::1]:80\"] } }\n",
        &expect![[r#"
            error: tenant `acme` is not granted endpoint `169.254.169.254:80`
              ┌ acme/own.yaml:1:31
            1 │ upstreams: { a: { endpoints: ["169.254.169.254:80", "10.0.0.1:80", "[::1]:80"] } }
              │                               ^^^^^^^^^^^^^^^^^^^^ on the gateway's own machine or link, or where clouds keep credentials
              = help: whoever runs the gateway can grant networks, under `grants.networks`

            error: tenant `acme` is not granted endpoint `[::1]:80`
              ┌ acme/own.yaml:1:68
            1 │ upstreams: { a: { endpoints: ["169.254.169.254:80", "10.0.0.1:80", "[::1]:80"] } }
              │                                                                    ^^^^^^^^^^ on the gateway's own machine or link, or where clouds keep credentials
              = help: whoever runs the gateway can grant networks, under `grants.networks`

        "#]],
    );
}

#[test]
fn what_a_tenant_does_not_write_is_no_more_than_it_is_granted() {
    let own = "
upstreams: { slow: { endpoints: [\"10.0.0.1:80\"], timeouts: { response: 20s } } }
plugins: { own: { module: \"file:a.wasm\" } }
routes: [{ name: a, match: { path: /a }, upstream: slow, filters: [{ plugin: own }] }]
";
    let (snapshot, _) = tenant(GRANTS, own).load(&["gateway.yaml"]).unwrap_or_else(|said| panic!("{said}"));
    let share = &snapshot.tenants.iter().next().unwrap().share;
    let (plugin, route) = (&share.plugins[0], &share.routes[0]);
    assert_eq!((plugin.limits.memory, plugin.limits.cpu), (8 << 20, Duration::from_millis(5)));
    assert_eq!(plugin.capabilities, Capabilities::only(["proxy_log", "proxy_on_request_headers"]));
    assert_eq!((route.times.response, route.times.request), (Duration::from_secs(5), Duration::from_secs(30)));
    let called: Vec<&str> = snapshot.visible_upstreams(route.tenant).map(|(name, _)| name).collect();
    assert!(called.contains(&"shared-a") && called.contains(&"slow") && !called.contains(&"billing"), "{called:?}");
}

#[test]
fn a_tenants_own_grants_come_before_those_of_all() {
    let gateway = format!(
        "{BASE}{GRANTS}\
         tenants: {{ acme: {{ hosts: [acme.test], include: acme/, grants: {{ upstreams: [billing], \
         tighten_only: {{ timeout: 9s }} }} }} }}\n"
    );
    let own =
        "routes: [{ name: a, match: { path: /a }, upstream: billing, timeout: 8s, timeouts: { request: 20s } }]\n";
    let folder = Folder::new(&[("gateway.yaml", &gateway), ("acme/own.yaml", own)]);
    assert!(folder.load(&["gateway.yaml"]).is_ok());
    let own = "routes: [{ name: a, match: { path: /a }, upstream: origin, timeouts: { request: 31s } }]\n";
    let folder = Folder::new(&[("gateway.yaml", &gateway), ("acme/own.yaml", own)]);
    folder.check(&["gateway.yaml"], &expect![[r#"
        error: tenant `acme` is not granted upstream `origin`
           ┌ acme/own.yaml:1:52
         1 │ routes: [{ name: a, match: { path: /a }, upstream: origin, timeouts: { request: 31s } }]
           │                                                    ^^^^^^ not granted
           ┌ gateway.yaml:15:77
        15 │ tenants: { acme: { hosts: [acme.test], include: acme/, grants: { upstreams: [billing], tighten_only: { timeout: 9s } } } }
           │                                                                             ^^^^^^^^^ this is what is granted

        error: `timeouts.request` can be tightened here, and not loosened
           ┌ acme/own.yaml:1:81
         1 │ routes: [{ name: a, match: { path: /a }, upstream: origin, timeouts: { request: 31s } }]
           │                                                                                 ^^^ more than 30s
           ┌ gateway.yaml:14:55
        14 │     tighten_only: { timeout: 5s, timeouts: { request: 30s }, limits: { memory: 8MiB, cpu: 5ms } }
           │                                                       ^^^ this is the most

    "#]]);
}

#[test]
fn what_the_gateways_files_say_of_a_tenant_needs_no_grant() {
    let gateway = format!(
        "{BASE}{GRANTS}tenants:\n  acme:\n    hosts: [acme.test]\n    upstreams: {{ inner: {{ endpoints: \
         [\"127.0.0.1:9\"] }} }}\n    routes: [{{ name: a, match: {{ path: /a }}, upstream: inner, timeout: 1h }}]\n"
    );
    let (snapshot, _) = Folder::new(&[("gateway.yaml", &gateway)]).load(&["gateway.yaml"]).unwrap();
    assert_eq!(snapshot.tenants.iter().next().unwrap().share.routes[0].times.response, Duration::from_secs(3600));
}

#[test]
fn a_tenant_does_not_grant_itself_anything() {
    check(
        "",
        "grants: { upstreams: [\"*\"] }\n",
        &expect![[r#"
        error: `grants` cannot stand in a tenant's own files
          ┌ acme/own.yaml:1:1
        1 │ grants: { upstreams: ["*"] }
          │ ^^^^^^ only the gateway's files say this
          = help: write it where `include` is, under `tenants.acme`

    "#]],
    );
}

#[test]
fn a_platforms_filter_stays_first_and_cannot_be_skipped() {
    let gateway = "plugins: { guard: { module: \"file:acme/a.wasm\" } }\nfilters: [{ plugin: guard }]\n";
    check(
        gateway,
        "routes: [{ name: a, match: { path: /a }, upstream: origin, skip: [guard] }]\n",
        &expect![[r#"
        error: route `a` skips filter `guard`, which is not optional
          ┌ acme/own.yaml:1:67
        1 │ routes: [{ name: a, match: { path: /a }, upstream: origin, skip: [guard] }]
          │                                                                   ^^^^^ cannot be skipped
          ┌ gateway.yaml:9:21
        9 │ filters: [{ plugin: guard }]
          │                     ^^^^^ used here without `optional: true`
          = help: only who placed a filter can make it optional

    "#]],
    );
    let own = "
plugins: { own: { module: \"file:a.wasm\" } }
filters: [{ plugin: own }, { plugin: guard, config: again }]
routes: [{ name: a, match: { path: /a }, upstream: origin, filters: [{ plugin: own, config: mine }] }]
";
    let (snapshot, _) = tenant(gateway, own).load(&["gateway.yaml"]).unwrap_or_else(|said| panic!("{said}"));
    let chain = |filters: &[super::super::snapshot::FilterIndex]| -> Vec<(String, bool)> {
        let filters = filters.iter().map(|index| snapshot.filter(*index));
        filters.map(|filter| (snapshot.plugin(filter.plugin).name.to_string(), filter.tenant.is_none())).collect()
    };
    let [guard, own, again] =
        [("guard", true), ("own", false), ("guard", false)].map(|(name, is)| (name.to_owned(), is));
    let share = &snapshot.tenants.iter().next().unwrap().share;
    assert_eq!(chain(&share.routes[0].filters), [guard.clone(), own.clone(), again.clone(), own.clone()]);
    assert_eq!(chain(&share.chain), [guard, own, again], "the platform's own runs for nobody's sake");
}

#[test]
fn a_tenant_of_the_directory_claims_granted_hosts_and_sets_itself_less() {
    let gateway = format!(
        "{BASE}admin: {{ bind: \"127.0.0.1:0\", token: \"sha256:{}\", tenants: tenants.d }}
tenant_defaults:
  limits: {{ requests: 20/s, in_flight: 10, cpu: 50ms/s }}
  grants: {{ hosts: [\"*.customers.test\"] }}
",
        "0".repeat(64)
    );
    let good = "hosts: [a.customers.test, \"*.b.customers.test\"]\nlimits: { requests: 10/h, cpu: 20ms/s }\n";
    let folder = Folder::new(&[("gateway.yaml", &gateway), ("tenants.d/good/tenant.yaml", good)]);
    let (snapshot, _) = folder.load(&["gateway.yaml"]).unwrap_or_else(|said| panic!("{said}"));
    let limits = snapshot.tenants.iter().next().unwrap().limits;
    assert_eq!(limits.requests, Some((10, Duration::from_secs(3600))));
    assert_eq!((limits.in_flight, limits.cpu), (Some(10), Some(Duration::from_millis(20))));
    let bad = "
hosts: [customers.test, other.test]
grants: { hosts: [\"*\"] }
limits: { requests: 1000/m, in_flight: 11 }
";
    let folder = Folder::new(&[("gateway.yaml", &gateway), ("tenants.d/bad/tenant.yaml", bad)]);
    folder.check(
        &["gateway.yaml"],
        &expect![[r#"
            error: tenant `bad` is not granted host `customers.test`
               ┌ tenants.d/bad/tenant.yaml:2:9
             2 │ hosts: [customers.test, other.test]
               │         ^^^^^^^^^^^^^^ not granted
               ┌ gateway.yaml:10:20
            10 │   grants: { hosts: ["*.customers.test"] }
               │                    ^^^^^^^^^^^^^^^^^^^^ this is what is granted

            error: tenant `bad` is not granted host `other.test`
               ┌ tenants.d/bad/tenant.yaml:2:25
             2 │ hosts: [customers.test, other.test]
               │                         ^^^^^^^^^^ not granted
               ┌ gateway.yaml:10:20
            10 │   grants: { hosts: ["*.customers.test"] }
               │                    ^^^^^^^^^^^^^^^^^^^^ this is what is granted

            error: `grants` cannot stand in a directory for tenants
              ┌ tenants.d/bad/tenant.yaml:3:1
            3 │ grants: { hosts: ["*"] }
              │ ^^^^^^ a tenant does not grant itself anything

            error: tenant `bad` sets itself more `requests`
              ┌ tenants.d/bad/tenant.yaml:4:21
            4 │ limits: { requests: 1000/m, in_flight: 11 }
              │                     ^^^^^^ it can be tightened here, and not loosened
              ┌ gateway.yaml:9:23
            9 │   limits: { requests: 20/s, in_flight: 10, cpu: 50ms/s }
              │                       ^^^^ this is the most

            error: tenant `bad` sets itself more `in_flight`
              ┌ tenants.d/bad/tenant.yaml:4:40
            4 │ limits: { requests: 1000/m, in_flight: 11 }
              │                                        ^^ it can be tightened here, and not loosened
              ┌ gateway.yaml:9:40
            9 │   limits: { requests: 20/s, in_flight: 10, cpu: 50ms/s }
              │                                        ^^ this is the most

        "#]],
    );
}

#[test]
fn a_tenant_that_must_be_isolated_by_request_is() {
    let gateway = "tenant_defaults: { grants: { tighten_only: { isolation: request } } }\n";
    let own = |says: &str| format!("plugins: {{ own: {{ module: \"file:a.wasm\"{says} }} }}\n");
    for says in ["", ", isolation: request"] {
        let (snapshot, _) = tenant(gateway, &own(says)).load(&["gateway.yaml"]).unwrap_or_else(|said| panic!("{said}"));
        let isolation = snapshot.plugins().map(|(_, plugin)| plugin.isolation).collect::<Vec<_>>();
        assert_eq!(isolation, [Isolation::Request], "{says}");
    }
    check(
        gateway,
        &own(", isolation: vm"),
        &expect![[r#"
            error: `isolation` can be tightened here, and not loosened
              ┌ acme/own.yaml:1:53
            1 │ plugins: { own: { module: "file:a.wasm", isolation: vm } }
              │                                                     ^^ looser than `request`
              ┌ gateway.yaml:8:57
            8 │ tenant_defaults: { grants: { tighten_only: { isolation: request } } }
              │                                                         ^^^^^^^ this is what must be

        "#]],
    );
}
