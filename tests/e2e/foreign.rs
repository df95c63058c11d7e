//! A guest this repository's build knows nothing of: plain `proxy-wasm`, an older release, loaded from a file.

use std::path::PathBuf;
use std::process::Command;

use portcullis_tests::gateway::Gateway;
use portcullis_tests::guests::{entry, target};
use portcullis_tests::origin::{Answer, Origin};

/// Builds it; nothing, and loudly, where the toolchain or the crate is missing.
fn built() -> Option<PathBuf> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/guests/foreign/Cargo.toml");
    let output = target().join("tmp").join("foreign-guest");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--locked", "--target", "wasm32-wasip1", "--manifest-path", manifest]);
    // From Rust 1.96 on, the linker no longer takes it for granted that the host has what a guest imports.
    command.env("CARGO_TARGET_DIR", &output).env("RUSTFLAGS", "-C link-arg=--allow-undefined");
    command.env_remove("CARGO_ENCODED_RUSTFLAGS");
    let built = command.output().unwrap();
    if built.status.success() {
        return Some(output.join("wasm32-wasip1/release/foreign.wasm"));
    }
    let said = String::from_utf8_lossy(&built.stderr);
    let absent = [
        "target may not be installed",
        "can't find crate for `core`",
        "can't find crate for `std`",
        "failed to download",
        "failed to get",
    ];
    assert!(absent.iter().any(|reason| said.contains(reason)), "{said}");
    eprintln!("SKIPPED: the foreign guest cannot be built here: {said}");
    None
}

#[test]
fn a_foreign_guest_works_on_headers_bodies_and_callouts() {
    let Some(module) = built() else { return };
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
