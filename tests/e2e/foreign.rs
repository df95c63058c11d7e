//! A guest this repository's build knows nothing of: plain `proxy-wasm`, an older release, loaded from a file.

use std::path::Path;

use portcullis_tests::gateway::Gateway;
use portcullis_tests::guests::{built, entry};
use portcullis_tests::origin::{Answer, Origin};

#[test]
fn a_foreign_guest_works_on_headers_bodies_and_callouts() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests/foreign/Cargo.toml");
    let Some(module) = built(&manifest, "foreign") else { return };
    let origin = Origin::start(|seen| match seen.uri.path() {
        "/authorize" => Answer::status(if seen.get("x-token") == Some("good") { 200 } else { 403 }).data("spoken"),
        _ => Answer::ok(format!("got {}", String::from_utf8_lossy(&seen.body))),
    });
    let gateway = Gateway::start(
        r#"
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins: { foreign: {foreign} }
filters: [{ plugin: foreign, config: "a greeting" }]
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", &origin), ("foreign", &entry(&module))],
    );
    let answer = gateway.ask("POST", "/", &[("x-token", "good")], "some body");
    let seen = origin.last();
    assert_eq!(seen.body, "ydob emos", "the request's body was held and replaced");
    assert_eq!((seen.get("x-greeting"), seen.get("x-authorized")), (Some("a greeting"), Some("spoken")));
    assert_eq!((answer.text().as_str(), answer.get("x-foreign")), ("GOT YDOB EMOS", Some("1")));
    let refused = gateway.ask("GET", "/", &[("x-token", "bad")], "");
    assert_eq!((refused.status(), refused.text().as_str()), (403, "refused"));
}
