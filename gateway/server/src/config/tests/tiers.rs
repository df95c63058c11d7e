//! What tenants in a directory are granted by their names, and which hosts they may claim.

use std::time::Duration;

use expect_test::{Expect, expect};

use super::Folder;

const BASE: &str = "\
version: 1
listeners: { public: { bind: \"127.0.0.1:0\" } }
admin: { bind: \"127.0.0.1:0\", token: \"sha256:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\", tenants: tenants.d }
upstreams: { origin: { endpoints: [\"127.0.0.1:9001\"] }, billing: { endpoints: [\"127.0.0.1:9002\"] } }
";

/// A gateway with these tenants in its directory.
fn folder(gateway: &str, tenants: &[(&str, &str)]) -> Folder {
    let gateway = format!("{BASE}{gateway}");
    let tenants: Vec<_> = tenants.iter().map(|(name, text)| (format!("tenants.d/{name}/tenant.yaml"), *text)).collect();
    let files = tenants.iter().map(|(path, text)| (path.as_str(), *text));
    Folder::new(&files.chain([("gateway.yaml", &*gateway)]).collect::<Vec<_>>())
}

fn check(gateway: &str, tenants: &[(&str, &str)], want: &Expect) {
    folder(gateway, tenants).check(&["gateway.yaml"], want);
}

const TIERS: &str = "\
tenant_defaults: { limits: { requests: 10/s, in_flight: 5 }, grants: { upstreams: [origin], tighten_only: { timeout: 5s } } }
tenant_tiers:
  \"gold-*\": { limits: { requests: 100/s }, grants: { upstreams: [origin, billing] } }
  \"gold-old-*\": { limits: { requests: 50/s } }
  gold-old-acme: { limits: { requests: 70/s }, grants: { tighten_only: { timeout: 9s } } }
";

#[test]
fn a_tenants_name_says_its_tier_and_what_that_leaves_open_is_as_for_all() {
    let names = ["other", "gold-acme", "gold-old-globex", "gold-old-acme"];
    let texts = names.map(|name| {
        format!("hosts: [{name}.test]\nroutes: [{{ name: a, match: {{ path: /a }}, upstream: origin }}]\n")
    });
    let tenants: Vec<_> = names.iter().zip(&texts).map(|(name, text)| (*name, text.as_str())).collect();
    let (snapshot, _) = folder(TIERS, &tenants).load(&["gateway.yaml"]).unwrap_or_else(|said| panic!("{said}"));
    for (name, requests, timeout) in
        [("other", 10, 5), ("gold-acme", 100, 5), ("gold-old-globex", 50, 5), ("gold-old-acme", 70, 9)]
    {
        let tenant = snapshot.tenants.named(name).unwrap();
        assert_eq!(tenant.limits.requests, Some((requests, Duration::from_secs(1))), "{name}");
        assert_eq!(tenant.limits.in_flight, Some(5), "{name}");
        assert_eq!(tenant.share.routes[0].times.response, Duration::from_secs(timeout), "{name}");
    }
}

#[test]
fn what_is_beyond_a_tier_is_refused_with_both_places() {
    let gold = "hosts: [a.test]\nlimits: { requests: 101/s, in_flight: 6 }\nroutes: [{ name: a, match: { path: /a }, upstream: billing }]\n";
    let other =
        "hosts: [b.test]\nlimits: { requests: 10/s }\nroutes: [{ name: a, match: { path: /a }, upstream: billing }]\n";
    check(
        TIERS,
        &[("gold-a", gold), ("other", other)],
        &expect![[r#"
        error: tenant `gold-a` sets itself more `requests`
          ┌ tenants.d/gold-a/tenant.yaml:2:21
        2 │ limits: { requests: 101/s, in_flight: 6 }
          │                     ^^^^^ it can be tightened here, and not loosened
          ┌ gateway.yaml:7:35
        7 │   "gold-*": { limits: { requests: 100/s }, grants: { upstreams: [origin, billing] } }
          │                                   ^^^^^ this is the most

        error: tenant `gold-a` sets itself more `in_flight`
          ┌ tenants.d/gold-a/tenant.yaml:2:39
        2 │ limits: { requests: 101/s, in_flight: 6 }
          │                                       ^ it can be tightened here, and not loosened
          ┌ gateway.yaml:5:57
        5 │ tenant_defaults: { limits: { requests: 10/s, in_flight: 5 }, grants: { upstreams: [origin], tighten_only: { timeout: 5s } } }
          │                                                         ^ this is the most

        error: tenant `other` is not granted upstream `billing`
          ┌ tenants.d/other/tenant.yaml:3:52
        3 │ routes: [{ name: a, match: { path: /a }, upstream: billing }]
          │                                                    ^^^^^^^ not granted
          ┌ gateway.yaml:5:83
        5 │ tenant_defaults: { limits: { requests: 10/s, in_flight: 5 }, grants: { upstreams: [origin], tighten_only: { timeout: 5s } } }
          │                                                                                   ^^^^^^^^ this is what is granted

    "#]],
    );
    check(
        "tenant_tiers: { \"a*b\": {} }\n",
        &[],
        &expect![[r#"
        error: `a*b` is no name for a tier
          ┌ gateway.yaml:5:17
        5 │ tenant_tiers: { "a*b": {} }
          │                 ^^^^^ `*` stands at the end only
          = help: it is a tenant's name, or the beginning of names with `*`

    "#]],
    );
}

const ROUTES: &str = "\
routes:
  - { name: outside, match: { path: \"/\" }, upstream: origin }
  - { name: below, match: { path: \"/\", hosts: [\"*.platform.test\"] }, upstream: origin }
  - { name: status, match: { path: \"/\", hosts: [status.platform.test] }, upstream: origin }
";

#[test]
fn a_host_that_the_gateway_serves_is_claimed_only_where_it_is_granted() {
    check(
        ROUTES,
        &[("acme", "hosts: [acme.test]\n")],
        &expect![[r#"
            error: tenant `acme` claims host `acme.test`, which route `outside` of the gateway serves
              ┌ tenants.d/acme/tenant.yaml:1:9
            1 │ hosts: [acme.test]
              │         ^^^^^^^^^ claimed here
              ┌ gateway.yaml:6:13
            6 │   - { name: outside, match: { path: "/" }, upstream: origin }
              │             ^^^^^^^ it is for every host that no tenant has
              = help: say which hosts tenants may claim, under `tenant_defaults.grants.hosts` or `tenant_tiers.NAME.grants.hosts`

        "#]],
    );
    let only_named = ROUTES.replace("  - { name: outside, match: { path: \"/\" }, upstream: origin }\n", "");
    check(
        &only_named,
        &[("acme", "hosts: [acme.test, a.platform.test]\n")],
        &expect![[r#"
            error: tenant `acme` claims host `a.platform.test`, which route `below` of the gateway serves
              ┌ tenants.d/acme/tenant.yaml:1:20
            1 │ hosts: [acme.test, a.platform.test]
              │                    ^^^^^^^^^^^^^^^ claimed here
              ┌ gateway.yaml:6:48
            6 │   - { name: below, match: { path: "/", hosts: ["*.platform.test"] }, upstream: origin }
              │                                                ^^^^^^^^^^^^^^^^^ it is for this host
              = help: say which hosts tenants may claim, under `tenant_defaults.grants.hosts` or `tenant_tiers.NAME.grants.hosts`

        "#]],
    );
    let granted = format!("{ROUTES}tenant_defaults: {{ grants: {{ hosts: [\"*.test\"] }} }}\n");
    check(
        &granted,
        &[("acme", "hosts: [status.platform.test]\n")],
        &expect![[r#"
            error: tenant `acme` claims host `status.platform.test`, which route `status` of the gateway names
              ┌ tenants.d/acme/tenant.yaml:1:9
            1 │ hosts: [status.platform.test]
              │         ^^^^^^^^^^^^^^^^^^^^ claimed here
              ┌ gateway.yaml:8:49
            8 │   - { name: status, match: { path: "/", hosts: [status.platform.test] }, upstream: origin }
              │                                                 ^^^^^^^^^^^^^^^^^^^^ it is for this host
              = help: a host belongs to one tenant or to the gateway: remove it here or there

        "#]],
    );
    let (snapshot, _) =
        folder(&granted, &[("acme", "hosts: [acme.test, a.platform.test]\n")]).load(&["gateway.yaml"]).unwrap();
    assert_eq!(snapshot.tenants.named("acme").unwrap().hosts.len(), 2);
}
