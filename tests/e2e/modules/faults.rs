//! Hosts that do not do what they should, played by an origin: nothing of what they send is used, and each is said.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use portcullis_tests::gateway::Gateway;
use portcullis_tests::guests::module;
use portcullis_tests::origin::{Answer, Origin, Seen};
use portcullis_tests::pki::{Authority, Files, Use};
use portcullis_tests::tls;
use serde_json::json;
use sha2::{Digest as _, Sha256};

const LAYER: &str = "application/vnd.module.wasm.content.layer.v1+wasm";

fn digest(content: &[u8]) -> String {
    let hex: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn banner() -> Vec<u8> {
    std::fs::read(module("banner")).unwrap()
}

fn manifest(layer: &[u8]) -> Vec<u8> {
    let layer = json!({ "mediaType": LAYER, "digest": digest(layer), "size": layer.len() });
    json!({ "schemaVersion": 2, "layers": [layer] }).to_string().into_bytes()
}

/// A gateway with this module, or why there is none.
fn try_with(module: &str, more: &str) -> Result<Gateway, String> {
    let text = format!(
        "{more}\nupstreams: {{ origin: {{ endpoints: [\"127.0.0.1:9\"] }} }}\n\
         plugins: {{ geo: {{ module: \"{module}\" }} }}\n\
         routes: [{{ name: all, match: {{ path: \"/*\" }}, upstream: origin }}]\n"
    );
    Gateway::try_start(&text, &[])
}

fn refused(module: &str, more: &str) -> String {
    try_with(module, more).err().expect("a refusal")
}

/// A registry whose blob is answered so.
fn registry(blob: impl Fn(&Seen) -> Answer + Send + 'static) -> Origin {
    Origin::start(move |seen| match seen.target() {
        "/v2/geo/manifests/1" => Answer::ok(manifest(&banner())),
        _ => blob(seen),
    })
}

#[test]
fn what_a_registry_sends_has_the_digest_and_the_size_that_was_said() {
    let one = |answer: fn() -> Answer| registry(move |_| answer());
    let other = || Answer::ok([&banner()[..banner().len() - 1], b"x"].concat());
    for (origin, why) in [
        (one(other), "has the digest sha256:"),
        (one(|| Answer::ok([banner(), banner()].concat())), "is larger than"),
        (one(|| Answer::ok(banner()[..100].to_vec())), "has the digest sha256:"),
        (one(|| Answer::status(200).header("content-length", "100000").data("\0asm").broken()), "breaks off"),
        (one(|| Answer::status(503)), "is answered with 503"),
    ] {
        let said = refused(&format!("oci://{origin}/geo:1"), "");
        assert!(said.contains(why) && said.contains(&format!("oci://{origin}/geo:1")), "{why}: {said}");
    }
    let origin = one(|| Answer::ok(banner()));
    assert!(try_with(&format!("oci://{origin}/geo:1"), "").is_ok());
    let said = refused(&format!("oci://{origin}/geo:1@sha256:{}", "5e".repeat(32)), "");
    assert!(said.contains("404") || said.contains("digest"), "{said}");
}

#[test]
fn a_token_is_asked_for_and_shown_to_nobody_else() {
    let elsewhere = Origin::start(|_| Answer::ok(banner()));
    let to = elsewhere.address;
    let origin = Origin::start(move |seen| {
        let host = seen.get("host").unwrap();
        if seen.uri.path() == "/token" {
            assert_eq!(seen.target(), "/token?service=test&scope=repository:geo:pull");
            return Answer::ok(r#"{"token":"t0ken"}"#);
        }
        if seen.get("authorization") != Some("Bearer t0ken") {
            let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"test\"");
            return Answer::status(401).header("www-authenticate", &challenge);
        }
        match seen.target() {
            "/v2/geo/manifests/1" => Answer::ok(manifest(&banner())),
            _ => Answer::status(307).header("location", &format!("http://{to}/blob")),
        }
    });
    assert!(try_with(&format!("oci://{origin}/geo:1"), "").is_ok());
    let blob = elsewhere.last();
    assert_eq!((blob.target(), blob.get("authorization")), ("/blob", None));
}

#[test]
fn nobody_is_sent_round_in_circles_or_waits_for_ever() {
    let origin = registry(|seen| Answer::status(302).header("location", seen.target()));
    let said = refused(&format!("oci://{origin}/geo:1"), "");
    assert!(said.contains("leads elsewhere too often"), "{said}");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = silent.local_addr().unwrap();
    let said = refused(&format!("oci://{host}/geo:1"), "modules: { timeout: 100ms }");
    assert!(said.contains("has not answered in time") && said.contains("`modules.timeout`"), "{said}");
}

#[test]
fn a_web_server_proves_who_it_is_to_a_private_authority() {
    let authority = Authority::new("Modules");
    let files = Files::default();
    files.put("ca.pem", &authority.pem());
    let issued = authority.issue(&["127.0.0.1"], Use::Server);
    let is_there = Arc::new(AtomicBool::new(true));
    let there = is_there.clone();
    let origin = Origin::encrypted(tls::origin(&issued, &["http/1.1"], None), move |seen| match seen.target() {
        "/geo.wasm" if there.load(Ordering::SeqCst) => Answer::ok(banner()),
        _ => Answer::status(404),
    });
    let url = format!("https://{origin}/geo.wasm");
    let said = refused(&url, "");
    assert!(said.contains("certificate") && said.contains("as `ca` for"), "{said}");
    let ca = format!("modules: {{ registries: {{ \"{origin}\": {{ ca: \"{}\" }} }} }}", files.text("ca.pem"));
    assert!(try_with(&url, &ca).is_ok());
    is_there.store(false, Ordering::SeqCst);
    let said = refused(&url, &ca);
    assert!(
        said.contains("is answered with 404 Not Found") && said.contains("is the reference spelled right?"),
        "{said}"
    );
}

#[test]
fn an_image_that_container_tools_have_made_is_read() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(module("banner"), folder.path().join("plugin.wasm")).unwrap();
    let layer = tar(folder.path());
    let descriptor = json!({
        "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": digest(&layer), "size": layer.len(),
    });
    let manifest = json!({ "schemaVersion": 2, "layers": [descriptor] }).to_string();
    let origin = Origin::start(move |seen| match seen.target() {
        "/v2/geo/manifests/1" => Answer::ok(manifest.clone()),
        _ => Answer::ok(layer.clone()),
    });
    assert!(try_with(&format!("oci://{origin}/geo:1"), "").is_ok());
}

/// What `tar` makes of a folder.
fn tar(folder: &Path) -> Vec<u8> {
    let made = std::process::Command::new("tar").arg("-C").arg(folder).args(["-cz", "."]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    made.stdout
}
