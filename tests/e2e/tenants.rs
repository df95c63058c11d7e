//! Tenants: each its own hosts, routes, modules, upstreams and data.

use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};
use serde_json::Value;

mod admin;
mod budgets;
mod bulkhead;
mod files;
mod grants;
mod isolation;
mod locks;
mod operators;
mod references;
mod rest;

const TWO: &str = r#"
workers: 2
upstreams: { shared: { endpoints: ["{shared}"] } }
plugins: { probe: {guest:probe} }
tenants:
  acme:
    hosts: [acme.test, "*.acme.test"]
    upstreams: { own: { endpoints: ["{acme}"] } }
    filters: [{ plugin: probe, config: "count=requests" }]
    routes: [{ name: all, match: { path: "/*" }, upstream: own }]
  globex:
    hosts: [globex.test]
    upstreams: { private: { endpoints: ["{globex}"] } }
    plugins: { banner: {guest:banner} }
    filters:
      - { plugin: probe, config: "count=requests" }
      - { plugin: banner, config: { header: x-of, value: globex } }
    routes:
      - { name: all, match: { path: "/*" }, upstream: private }
      - { name: shared, match: { path: /shared }, upstream: shared }
routes: [{ name: open, match: { path: /open }, upstream: shared }]
"#;

fn origins() -> [Origin; 3] {
    ["acme", "globex", "shared"].map(|name| Origin::always(Answer::ok(name)))
}

fn two([acme, globex, shared]: &[Origin; 3]) -> Gateway {
    Gateway::start(TWO, &[("acme", acme), ("globex", globex), ("shared", shared)])
}

#[test]
fn hosts_decide_whose_routes_apply() {
    let origins = origins();
    let gateway = two(&origins);
    for (host, path, want) in [
        ("acme.test", "/", (200, "acme", None)),
        ("ACME.test:8080", "/", (200, "acme", None)),
        ("deep.sub.acme.test", "/", (200, "acme", None)),
        ("globex.test", "/", (200, "globex", Some("globex"))),
        ("globex.test", "/shared", (200, "shared", Some("globex"))),
        ("elsewhere.test", "/open", (200, "shared", None)),
    ] {
        let answer = gateway.ask("GET", path, &[("host", host)], "");
        assert_eq!((answer.status(), answer.text().as_str(), answer.get("x-of")), want, "{host} {path}");
        let answer = gateway.h2().ask("GET", path, &[("host", host)], []).unwrap();
        assert_eq!((answer.status, answer.text().as_str(), answer.get("x-of")), want, "{host} {path} over HTTP/2");
    }
    for (host, path) in [("elsewhere.test", "/"), ("notacme.test", "/"), ("acme.test.evil.test", "/")] {
        let answer = gateway.ask("GET", path, &[("host", host)], "");
        let problem: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status(), &problem["code"]), (404, &Value::from("no_route")), "{host}");
    }
}

#[test]
fn tenants_share_no_data_though_they_run_the_same_module() {
    let origins = origins();
    let gateway = two(&origins);
    let count = |host: &str| {
        let answer = gateway.ask("GET", "/", &[("host", host)], "");
        answer.get("x-probe-count").unwrap().parse::<u32>().unwrap()
    };
    let acme: Vec<_> = (0..10).map(|_| count("acme.test")).collect();
    assert_eq!(acme, (1..=10).collect::<Vec<_>>(), "over both workers");
    assert_eq!((count("globex.test"), count("acme.test"), count("globex.test")), (1, 11, 2));
}

#[test]
fn a_tenants_guest_calls_its_own_upstreams_and_the_shared_ones_only() {
    let origins = origins();
    let gateway = two(&origins);
    for (host, upstream, want) in [
        ("acme.test", "own", Some("200 acme")),
        ("acme.test", "shared", Some("200 shared")),
        ("acme.test", "private", None),
        ("globex.test", "private", Some("200 globex")),
        ("globex.test", "own", None),
    ] {
        let script = format!("callout={upstream}@response_headers");
        let answer = gateway.ask("GET", "/", &[("host", host), ("x-probe", &script)], "");
        assert_eq!(answer.get("x-probe-callout"), want, "{host} calls {upstream}: {answer:?}");
        assert_eq!(answer.status(), if want.is_some() { 200 } else { 502 }, "{host} calls {upstream}");
    }
}

#[test]
fn metrics_name_the_tenant() {
    let origins = origins();
    let gateway = two(&origins);
    for _ in 0..3 {
        assert_eq!(gateway.ask("GET", "/", &[("host", "acme.test")], "").status(), 200);
    }
    let of = |tenant| gateway.metric("http_server_request_duration_seconds_count", &[tenant]);
    portcullis_tests::eventually("the requests are counted", || of("portcullis_tenant=\"acme\"") == 3.0);
    assert_eq!(of("portcullis_tenant=\"globex\""), 0.0);
}
