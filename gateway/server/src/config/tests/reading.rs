//! What workers get from a configuration that is right.

use std::time::Duration;

use http::{HeaderMap, Method};
use portcullis_core::admission::Underscores;
use portcullis_core::path::Slashes;
use portcullis_core::route::{Match, Request};

use super::super::shape;
use super::super::snapshot::{Balance, FilterIndex, OnFailure, Protocol, Snapshot, TenantIndex};
use super::super::written::FORMATS;
use super::{BASE, Folder, read};
use expect_test::expect;

fn find(snapshot: &Snapshot, host: &str, path: &str) -> String {
    let request = Request { host, path, query: None, method: &Method::GET, headers: &HeaderMap::new() };
    match snapshot.router.find(&request) {
        Match::Route(index) => snapshot.route(index).name.to_string(),
        Match::NoRoute(tenant) => {
            format!("none of {:?}", tenant.map(|tenant| snapshot.tenant(tenant).name.to_string()))
        }
        Match::UnknownHost => "unknown".to_owned(),
    }
}

#[test]
fn the_least_there_is_gets_every_default() {
    let snapshot = read(&format!("{BASE}routes: [ {{ name: all, match: {{ path: '/*' }}, upstream: origin }} ]\n"));
    let [upstream] = snapshot.gateway.upstreams.as_slice() else { panic!("{:?}", snapshot.gateway) };
    assert_eq!((upstream.balance, upstream.protocol), (Balance::RoundRobin, Protocol::Http1));
    assert_eq!((upstream.endpoints[0].host.as_str(), upstream.endpoints[0].port), ("127.0.0.1", 9001));
    let seconds = [upstream.timeouts.connect, upstream.timeouts.response, upstream.timeouts.idle].map(|t| t.as_secs());
    assert_eq!(seconds, [5, 15, 60]);
    assert_eq!(snapshot.gateway.routes[0].times.response, Duration::from_secs(15));
    assert_eq!(&*snapshot.gateway.routes[0].pattern, "/*");
    assert!(snapshot.admin.is_none() && snapshot.gateway.chain.is_empty());
    assert_eq!(find(&snapshot, "any.test", "/x"), "all");
}

#[test]
fn an_empty_optional_value_counts_as_absent() {
    let snapshot = read(&format!("{BASE}filters:\nplugins:\ntenants:\nadmin:\n"));
    assert!(snapshot.filters().next().is_none() && snapshot.admin.is_none());
}

const TENANTS: &str = "
version: 1
admin: { bind: '127.0.0.1:0' }
listeners: { public: { bind: '127.0.0.1:0', trusted_proxies: [10.0.0.0/8, 192.0.2.1] } }
upstreams: { origin: { endpoints: ['a:1', '[::1]:2'], balance: least_requests, protocol: http2, timeouts: { response: 2s } } }
plugins:
  auth: { module: 'file:a.wasm' }
  limit: { module: 'file:a.wasm', limits: { memory: 1MiB, cpu: 5ms }, on_failure: open }
policies:
  signed-in: [ { plugin: auth, config: { issuer: here } }, { plugin: limit } ]
filters:
  - { plugin: limit, config: text, optional: true }
  - { plugin: auth, name: outer }
tenants:
  acme:
    hosts: [acme.test, '*.acme.test']
    limits: { requests: 500/s, in_flight: 3, cpu: 100ms/s, memory: 64MiB }
    upstreams: { own: { endpoints: ['own:1'] }, origin: { endpoints: ['shadow:1'] } }
    plugins: { auth: { module: 'file:b.wasm' } }
    filters: [ { policy: signed-in, optional: true }, { plugin: auth } ]
    routes:
      - { name: a, match: { path: /a }, upstream: origin, skip: [signed-in, limit], timeout: 1s }
      - { name: b, match: { path: /a, hosts: [api.acme.test] }, filters: [ { plugin: auth } ], upstream: own }
  globex:
    hosts: [globex.test]
    filters: [ { policy: signed-in } ]
    routes: [ { name: a, match: { path: '/*' }, upstream: origin } ]
routes: [ { name: status, match: { path: /status }, upstream: origin } ]
";

fn tenants() -> Snapshot {
    let folder = Folder::new(&[("a.yaml", TENANTS), ("a.wasm", "a"), ("b.wasm", "b")]);
    folder.load(&["a.yaml"]).unwrap().0
}

fn chain(snapshot: &Snapshot, chain: &[FilterIndex]) -> String {
    let show = |index: &FilterIndex| {
        let filter = snapshot.filter(*index);
        let plugin = snapshot.plugin(filter.plugin);
        let owner = |tenant: Option<TenantIndex>| tenant.map_or("", |tenant| &*snapshot.tenant(tenant).name).to_owned();
        let config = String::from_utf8_lossy(&filter.config);
        format!("{}/{}({config}) for '{}'", owner(plugin.tenant), plugin.name, owner(filter.tenant))
    };
    chain.iter().map(show).collect::<Vec<_>>().join("\n") + "\n"
}

#[test]
fn filters_stand_in_the_order_gateway_tenant_route_with_the_skipped_ones_left_out() {
    let snapshot = tenants();
    let mut said = String::new();
    for (_, route) in snapshot.routes() {
        said += &format!("-- {}\n{}", route.name, chain(&snapshot, &route.filters));
    }
    for tenant in snapshot.tenants.iter() {
        said += &format!("-- no route of {}\n{}", tenant.name, chain(&snapshot, &tenant.share.chain));
    }
    expect![[r#"
        -- status
        /limit(text) for ''
        /auth() for ''
        -- a
        /auth() for ''
        acme/auth() for 'acme'
        -- b
        /limit(text) for ''
        /auth() for ''
        /auth({"issuer":"here"}) for 'acme'
        /limit() for 'acme'
        acme/auth() for 'acme'
        acme/auth() for 'acme'
        -- a
        /limit(text) for ''
        /auth() for ''
        /auth({"issuer":"here"}) for 'globex'
        /limit() for 'globex'
        -- no route of acme
        /limit(text) for ''
        /auth() for ''
        /auth({"issuer":"here"}) for 'acme'
        /limit() for 'acme'
        acme/auth() for 'acme'
        -- no route of globex
        /limit(text) for ''
        /auth() for ''
        /auth({"issuer":"here"}) for 'globex'
        /limit() for 'globex'
    "#]]
    .assert_eq(&said);
}

#[test]
fn requests_go_to_the_routes_of_the_hosts_owner() {
    let snapshot = tenants();
    for (host, path, want) in [
        ("acme.test", "/a", "a"),
        ("api.acme.test", "/a", "b"),
        ("acme.test", "/status", "none of Some(\"acme\")"),
        ("globex.test", "/status", "a"),
        ("other.test", "/status", "status"),
        ("other.test", "/", "none of None"),
    ] {
        assert_eq!(find(&snapshot, host, path), want, "{host}{path}");
    }
}

#[test]
fn a_tenant_sees_its_own_upstreams_before_the_shared_ones_and_no_others() {
    let snapshot = tenants();
    let acme = Some(TenantIndex(0));
    let host = |tenant, name: &str| {
        let mut visible = snapshot.visible_upstreams(tenant).filter(|(known, _)| *known == name);
        let found = visible.next().map(|(_, index)| snapshot.upstream(index).endpoints[0].host.clone());
        assert!(visible.next().is_none(), "`{name}` is one upstream");
        found
    };
    assert_eq!(host(acme, "origin").as_deref(), Some("shadow"));
    assert_eq!(host(acme, "own").as_deref(), Some("own"));
    assert_eq!(host(None, "origin").as_deref(), Some("a"));
    assert_eq!(host(None, "own"), None);
    assert_eq!(host(Some(TenantIndex(1)), "own"), None);
    assert_eq!(snapshot.upstream(snapshot.tenant(TenantIndex(0)).share.routes[0].upstream).endpoints[0].host, "shadow");
}

#[test]
fn what_is_written_is_what_is_read() {
    let snapshot = tenants();
    let limit = snapshot.plugins().map(|(_, plugin)| plugin).find(|plugin| &*plugin.name == "limit").unwrap();
    assert_eq!((limit.limits.memory, limit.limits.cpu), (1 << 20, Duration::from_millis(5)));
    assert_eq!((limit.on_failure, &*limit.code), (OnFailure::Open, &b"a"[..]));
    assert_eq!(limit.digest[..2], [0xca, 0x97]);
    let acme = &snapshot.tenant(TenantIndex(0)).limits;
    assert_eq!((acme.requests.unwrap().0, acme.in_flight, acme.memory), (500, Some(3), Some(64 << 20)));
    assert_eq!(snapshot.listeners[0].trusted_proxies[1].to_string(), "192.0.2.1/32");
    let timeouts: Vec<_> = snapshot.routes().map(|(_, route)| (&*route.name, route.times.response.as_secs())).collect();
    assert_eq!(timeouts, [("status", 2), ("a", 1), ("b", 15), ("a", 2)]);
}

#[test]
fn the_dump_shows_references_to_secrets_and_the_snapshot_holds_them() {
    let folder = Folder::new(&[
        (
            "a.yaml",
            &format!(
                "{BASE}plugins: {{ p: {{ module: 'file:key' }} }}
filters: [ {{ plugin: p, config: {{ key: 'k=${{file:key}}', as-is: '$${{env:X}} ${{x}}' }} }} ]
"
            ),
        ),
        ("key", "hunter2\n"),
    ]);
    let (snapshot, _) = folder.load(&["a.yaml"]).unwrap();
    let config = String::from_utf8_lossy(&snapshot.gateway.filters[0].config).into_owned();
    expect![[r#"{"as-is":"${env:X} ${x}","key":"k=hunter2"}"#]].assert_eq(&config);
    let dump = snapshot.dump().to_string();
    assert!(dump.contains("k=${file:key}") && !dump.contains("hunter"), "{dump}");
}

#[test]
fn a_tenants_own_files_add_to_what_the_gateway_says_of_it() {
    let gateway = format!("{BASE}tenants: {{ acme: {{ hosts: [acme.test], include: tenants/acme/ }} }}\n");
    let folder = Folder::new(&[
        ("gateway.yaml", &gateway),
        ("tenants/acme/filters.yaml", "filters: [ { plugin: p, config: '${file:key}' } ]\n"),
        (
            "tenants/acme/plugins.yaml",
            "plugins: { p: { module: 'file:p.wasm' } }\nupstreams: { own: { endpoints: ['own:1'] } }\n",
        ),
        ("tenants/acme/routes-1.yaml", "routes: [ { name: a, match: { path: /a }, upstream: own } ]\n"),
        ("tenants/acme/routes-2.yaml", "routes: [ { name: b, match: { path: /b }, upstream: origin } ]\n"),
        ("tenants/acme/key", "k"),
        ("tenants/acme/p.wasm", "code"),
    ]);
    let (snapshot, _) = folder.load(&["gateway.yaml"]).unwrap();
    assert_eq!(snapshot.routes().count(), 2);
    let share = &snapshot.tenant(TenantIndex(0)).share;
    assert_eq!((&*share.filters[0].config, &*share.plugins[0].code), (&b"k"[..], &b"code"[..]));
}

#[test]
fn the_examples_of_the_design_load_as_they_are() {
    for (name, modules, counts) in [
        ("minimal", &[][..], [1, 0, 0]),
        ("one-filter", &["mine.wasm"], [1, 1, 0]),
        ("tenants", &["tenants/acme/policy.wasm", "tenants/globex/policy.wasm"], [2, 2, 2]),
    ] {
        let text = match name {
            "minimal" => include_str!("examples/minimal.yaml"),
            "one-filter" => include_str!("examples/one-filter.yaml"),
            _ => include_str!("examples/tenants.yaml"),
        };
        let modules = modules.iter().map(|module| (*module, "code"));
        let files: Vec<_> = modules.chain([("gateway.yaml", text)]).collect();
        let (snapshot, _) = Folder::new(&files).load(&["gateway.yaml"]).unwrap();
        assert_eq!([snapshot.routes().count(), snapshot.filters().count(), snapshot.tenants.len()], counts, "{name}");
    }
}

#[test]
fn the_schema_uses_no_keyword_that_the_check_does_not_read() {
    fn visit(schema: &serde_json::Value) {
        let Some(schema) = schema.as_object() else { return };
        for (keyword, value) in schema {
            match keyword.as_str() {
                "properties" | "$defs" => value.as_object().unwrap().values().for_each(visit),
                "items" | "additionalProperties" => visit(value),
                "anyOf" => value.as_array().unwrap().iter().for_each(visit),
                "x-format" => assert!(FORMATS.iter().any(|format| format.name == value), "{value}"),
                "oneOf" => assert!(
                    value.as_array().unwrap().iter().all(|one| one.get("const").or(one.get("required")).is_some())
                ),
                known => assert!(shape::KEYWORDS.contains(&known), "{known}"),
            }
        }
    }
    visit(&super::super::schema());
}

#[test]
fn the_schema_shows_units_and_defaults() {
    let schema = super::super::schema();
    let timeouts = schema.pointer("/$defs/Upstream/properties/timeouts").unwrap();
    expect![[r##"
        {
          "$ref": "#/$defs/Timeouts",
          "default": {
            "connect": "5s",
            "idle": "60s",
            "response": "15s",
            "stream": "300s"
          },
          "description": "How long to wait for them."
        }
    "##]]
    .assert_eq(&format!("{timeouts:#}\n"));
}

#[test]
fn a_listener_is_strict_unless_told_otherwise() {
    let rules = |keys: &str| {
        let rules = read(&BASE.replace("\"127.0.0.1:0\"", &format!("\"127.0.0.1:0\"{keys}"))).listeners[0].rules;
        (rules.underscores, rules.slashes)
    };
    assert_eq!(rules(""), (Underscores::Drop, Slashes::Reject));
    assert_eq!(rules(", underscores_in_headers: reject, encoded_slashes: keep"), (Underscores::Reject, Slashes::Keep));
    assert_eq!(
        rules(", underscores_in_headers: allow, encoded_slashes: decode"),
        (Underscores::Allow, Slashes::Decode)
    );
}
