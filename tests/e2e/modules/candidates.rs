//! Next versions of plugins that come from another machine.

use std::fs;

use portcullis_tests::origin::Origin;
use portcullis_tests::process::Start;
use portcullis_tests::registry::{Open, Registry};

use super::{GATEWAY, marked, portcullis, push, said};

const CONFIG: &str = r#"
workers: 2
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins:
  geo:
    module: "{current}"
    rollout: { candidate: { module: "{candidate}", config: { header: x-of, value: candidate } }, percent: 100 }
filters: [{ plugin: geo, config: { header: x-of, value: current } }]
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#;

#[test]
fn a_candidate_comes_from_a_registry_and_stays_while_that_is_away() {
    let Some(mut registry) = Registry::start(Open::ToAll) else { return };
    let (folder, origin) = (tempfile::tempdir().unwrap(), Origin::plain());
    let [current, candidate] = ["current", "candidate"].map(|mark| {
        let tag = format!("oci://{}/acme/geo:{mark}", registry.address);
        push(folder.path(), &marked(folder.path(), mark), &tag);
        tag
    });
    let places = [("origin", &origin as &dyn std::fmt::Display), ("current", &current), ("candidate", &candidate)];
    let start = || Start::new(GATEWAY, CONFIG, &places).argument("--no-watch").cache(&folder.path().join("cache"));
    let of = |start: Start| start.start().client().get("/").get("x-of").map(str::to_owned);
    assert_eq!(of(start()).as_deref(), Some("candidate"));
    assert_eq!(registry.asked_for("/acme/geo/manifests/candidate"), 2, "once to put it there, once to get it");
    registry.kill();
    assert_eq!(of(start()).as_deref(), Some("candidate"), "it is in the cache");
}

#[test]
fn a_candidate_is_locked_like_any_module() {
    let Some(registry) = Registry::start(Open::ToAll) else { return };
    let folder = tempfile::tempdir().unwrap();
    let tag = format!("oci://{}/acme/geo:next", registry.address);
    push(folder.path(), &marked(folder.path(), "next"), &tag);
    let config = format!(
        "version: 1\nlisteners: {{ main: {{ bind: \"127.0.0.1:0\" }} }}\nplugins:\n  geo: {{ module: \"builtin:auth\", \
         rollout: {{ candidate: \"{tag}\", percent: 1 }} }}\n"
    );
    fs::write(folder.path().join("portcullis.yaml"), config).unwrap();
    said(&mut portcullis(folder.path(), &["plugin", "lock", "portcullis.yaml"]), true);
    let lock = fs::read_to_string(folder.path().join("portcullis.lock")).unwrap();
    assert!(lock.contains(&tag), "{lock}");
}
