//! What the forms for Kubernetes look like. What Envoy takes is tried on Envoy.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use expect_test::{Expect, ExpectFile, expect, expect_file};

use super::{Export, Show, yaml};
use crate::config;

const CONFIG: &str = r#"version: 1
listeners: { main: { bind: "127.0.0.1:8080" } }
upstreams:
  orders: { endpoints: ["10.0.0.1:80", "orders.svc:80"] }
plugins:
  limit: { module: "file:limit.wasm", on_failure: open }
  auth: { module: "file:auth.wasm" }
filters: [{ plugin: limit, name: outer, optional: true, config: { rate: 5/s } }]
tenants:
  acme:
    hosts: [acme.test]
    filters: [{ plugin: auth, config: { issuer: "${env:NO_SUCH_SECRET_OF_TESTS}" } }]
    routes:
      - { name: all, match: { path: "/*" }, upstream: orders }
      - name: Item
        match: { path: "/items/{id}", methods: [GET, PUT], headers: { x-beta: "1" } }
        skip: [outer]
        filters: [{ plugin: limit, config: not a mapping }]
        upstream: orders
routes:
  - { name: status, match: { path: /status }, upstream: orders }
"#;

fn check(resources: impl FnOnce(&mut Export<'_>) -> Vec<serde_json::Value>, want: &ExpectFile, notes: &Expect) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("limit.wasm"), "limit").unwrap();
    fs::write(folder.path().join("auth.wasm"), "auth").unwrap();
    fs::write(folder.path().join("issuer"), "https://idp.test").unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, CONFIG.replace("env:NO_SUCH_SECRET_OF_TESTS", "file:issuer")).unwrap();
    let whole = config::load_whole(&[file], &Arc::default()).unwrap_or_else(|problems| panic!("{problems:?}"));
    let mut export = Export::new(&whole, PathBuf::from("/out"), "registry.test/plugins", Show::References);
    want.assert_eq(&yaml::documents(&resources(&mut export)));
    let place = |note: String| note.rsplit_once("a.yaml:").map_or(note.clone(), |(_, rest)| rest.to_owned());
    notes.assert_eq(&export.notes.iter().map(|note| place(note.to_string()) + "\n").collect::<String>());
}

#[test]
fn every_filter_is_a_wasm_plugin_for_the_gateways_that_it_is_for() {
    check(
        |export| export.wasm_plugins(),
        &expect_file!["./tests/istio.yaml"],
        &expect![[r#"
        1:1: lost: filters that call upstreams find them by the names of clusters there, as `outbound|PORT||HOST`
        1:1: lost: listeners, TLS, the admin listener, access log and traces are those of the mesh or of its Gateway
        1:1: lost: the limits of plugins and tenants, and the tenants' isolation, are not there
        1:1: lost: timeouts, retries, limits, ejection and health checks of upstreams and routes are not written
        6:3: lost: its configuration is no mapping, and only mappings can be passed on
        6:10: differs: push plugins/limit-55ea09e5715d.wasm to oci://registry.test/plugins/limit:55ea09e5715d
        7:9: differs: push plugins/auth-bdf49c3c3882.wasm to oci://registry.test/plugins/auth:bdf49c3c3882
        10:3: differs: give the tenant a Gateway of its own, called `acme`, with its hosts
        12:39: lost: a secret is left as its reference: put its value in where Envoy gets it, or export --with-secrets
        15:9: lost: Istio has no filters for one route: give it a Gateway of its own, called `acme-item`
    "#]],
    );
}

#[test]
fn every_route_is_an_http_route_with_a_policy() {
    check(
        |export| export.gateway_resources(),
        &expect_file!["./tests/envoy-gateway.yaml"],
        &expect![[r#"
        1:1: lost: filters that call upstreams find them by the names of clusters there, as `httproute/NAMESPACE/NAME/rule/0`
        1:1: lost: listeners, TLS, the admin listener, access log and traces are those of the mesh or of its Gateway
        1:1: lost: requests that no route takes pass no filter
        1:1: lost: the limits of plugins and tenants, and the tenants' isolation, are not there
        1:1: lost: timeouts, retries, limits, ejection and health checks of upstreams and routes are not written
        1:1: differs: make a Gateway called `portcullis`: the routes are for it
        6:3: lost: its configuration is no mapping, and only mappings can be passed on
        6:10: differs: push plugins/limit-55ea09e5715d.wasm to oci://registry.test/plugins/limit:55ea09e5715d
        7:9: differs: push plugins/auth-bdf49c3c3882.wasm to oci://registry.test/plugins/auth:bdf49c3c3882
        12:39: lost: a secret is left as its reference: put its value in where Envoy gets it, or export --with-secrets
    "#]],
    );
}
