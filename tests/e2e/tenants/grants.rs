//! What tenants are granted, as they and their filters meet it.

use std::fs;

use portcullis_tests::guests::module;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::process::{Process, Start, free_address};
use portcullis_tests::wire::Message;

const GATEWAY: &str = env!("CARGO_BIN_EXE_gateway");

const PLATFORM: &str = r#"
workers: 2
upstreams:
  shared: { endpoints: ["{shared}"] }
  billing: { endpoints: ["{billing}"] }
tenant_defaults: { grants: { upstreams: [shared], tighten_only: { timeout: 5s } } }
tenants: { acme: { hosts: [acme.test], include: acme/ } }
"#;

const OWN: &str = r#"
plugins: { probe: { module: "file:probe.wasm" } }
filters: [{ plugin: probe }]
routes: [{ name: all, match: { path: "/*" }, upstream: shared }]
"#;

fn start(origins: &[Origin; 2]) -> Process {
    let [shared, billing] = origins;
    let start = Start::new(GATEWAY, PLATFORM, &[("shared", shared), ("billing", billing)]).argument("--no-watch");
    fs::create_dir(start.folder().join("acme")).unwrap();
    fs::copy(module("probe"), start.folder().join("acme/probe.wasm")).unwrap();
    start.file("acme/a.yaml", OWN).start()
}

fn ask(process: &Process, script: &str) -> Message {
    process.client().ask("GET", "/", &[("host", "acme.test"), ("x-probe", script)], "")
}

#[test]
fn a_tenants_filters_find_only_the_upstreams_that_it_is_granted() {
    let origins = ["shared", "billing"].map(|name| Origin::always(Answer::ok(name)));
    let process = start(&origins);
    let shared = ask(&process, "callout=shared@response_headers");
    assert_eq!((shared.status(), shared.get("x-probe-callout")), (200, Some("200 shared")));
    assert_eq!(
        ask(&process, "callout=billing@response_headers").status(),
        502,
        "for the guest there is no such upstream"
    );
}

#[test]
fn what_is_beyond_a_grant_is_the_tenants_mistake_and_a_grant_in_use_is_not_taken_away() {
    let origins = ["shared", "billing"].map(|name| Origin::always(Answer::ok(name)));
    let process = start(&origins);
    for (beyond, said) in [
        (OWN.replace("upstream: shared", "upstream: billing"), "tenant `acme` is not granted upstream `billing`"),
        (OWN.replace("upstream: shared", "upstream: shared, timeout: 6s"), "`timeout` can be tightened here"),
        (format!("{OWN}upstreams: {{ own: {{ endpoints: [\"127.0.0.1:9901\"] }} }}\n"), "the gateway's own machine"),
    ] {
        process.write("acme/a.yaml", &beyond);
        assert_eq!(process.reload().status(), 200, "{said}");
        let revision = process.page("/revision").text();
        assert!(revision.contains(said) && revision.contains("acme/a.yaml:"), "{revision}");
        assert_eq!(ask(&process, "").text(), "shared", "it stays with what it had");
    }
    process.write("acme/a.yaml", OWN);
    let [shared, billing] = &origins;
    process.configure(&PLATFORM.replace("[shared]", "[billing]"), &[("shared", shared), ("billing", billing)]);
    let answer = process.reload();
    assert_eq!(answer.status(), 422);
    assert!(answer.text().contains("is not granted upstream `shared`"), "{}", answer.text());
    assert_eq!(ask(&process, "").text(), "shared");
}

const DIRECTORY: &str = r#"
workers: 2
admin: { bind: "{admin}", token: "${env:ADMIN_TOKEN}", tenants: tenants }
upstreams:
  shared: { endpoints: ["{shared}"] }
  billing: { endpoints: ["{billing}"] }
tenant_defaults: { grants: { upstreams: [shared] } }
tenant_tiers: { "gold-*": { grants: { hosts: ["*.gold.test"], upstreams: [shared, billing] } } }
routes:
  - { name: welcome, match: { path: "/*" }, upstream: shared }
  - { name: status, match: { path: "/*", hosts: [status.gold.test] }, upstream: shared }
"#;

#[test]
fn tenants_made_over_the_admin_listener_are_granted_what_their_names_say() {
    let [shared, billing] = ["shared", "billing"].map(|name| Origin::always(Answer::ok(name)));
    let admin = free_address();
    let process = Start::new(GATEWAY, DIRECTORY, &[("shared", &shared), ("billing", &billing), ("admin", &admin)])
        .admin_at(admin)
        .argument("--no-watch")
        .variable("ADMIN_TOKEN", "correct-horse-battery-staple")
        .start();
    let put = |name: &str, host: &str, upstream: &str| {
        let text =
            format!("hosts: [{host}]\nroutes: [{{ name: all, match: {{ path: \"/*\" }}, upstream: {upstream} }}]\n");
        let token = [("authorization", "Bearer correct-horse-battery-staple")];
        process.tell_admin("PUT", &format!("/v1/tenants/{name}"), &token, text)
    };
    let says = |host: &str| process.client().ask("GET", "/", &[("host", host)], "").text();
    for (name, host, upstream, said) in [
        ("acme", "acme.test", "shared", ["which route `welcome` of the gateway serves", "for every host"]),
        ("gold-a", "status.gold.test", "shared", ["which route `status` of the gateway names", "for this host"]),
        ("gold-a", "a.test", "shared", ["is not granted host `a.test`", "*.gold.test"]),
        ("silver-a", "a.gold.test", "billing", ["is not granted upstream `billing`", "upstreams: [shared]"]),
    ] {
        let refused = put(name, host, upstream);
        assert_eq!(refused.status(), 422, "{}", refused.text());
        let text = refused.text();
        assert!(said.iter().all(|said| text.contains(said)) && text.contains("tenant.yaml:"), "{said:?}: {text}");
        assert_eq!(says(host), "shared", "{host} is the gateway's, as it was");
    }
    let made = put("gold-a", "a.gold.test", "billing");
    assert_eq!(made.status(), 201, "{}", made.text());
    assert_eq!(says("a.gold.test"), "billing");
    assert_eq!(["b.gold.test", "status.gold.test"].map(says), ["shared", "shared"]);
}
