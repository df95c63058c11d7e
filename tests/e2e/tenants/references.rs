//! What the references of a tenant's modules stand for: shown to whoever changes the tenant, and held by what was shown.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::process::{Start, free_address};
use portcullis_tests::wire::Message;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::admin::{GATEWAY, TOKEN, banner, code, tell, tenant};

const FETCHING: &str = r#"
workers: 2
admin: { bind: "{admin}", token: "${env:ADMIN_TOKEN}", tenants: tenants }
modules: { tenants: { from: ["http://{web}/"] } }
upstreams: { shared: { endpoints: ["{shared}"] } }
"#;

fn digest(module: &[u8]) -> String {
    Sha256::digest(module).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn told(answer: &Message) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

#[test]
fn what_a_reference_stands_for_is_shown_and_can_be_held() {
    let other = [&banner()[..], &[0, 3, 1, b'v', 1]].concat();
    let (has_moved, moved) = (Arc::new(AtomicBool::new(false)), other.clone());
    let moves = has_moved.clone();
    let web = Origin::start(move |_| Answer::ok(if moves.load(Ordering::Relaxed) { moved.clone() } else { banner() }));
    let (shared, admin) = (Origin::always(Answer::ok("shared")), free_address());
    let process = Start::new(GATEWAY, FETCHING, &[("shared", &shared), ("admin", &admin), ("web", &web)])
        .admin_at(admin)
        .argument("--no-watch")
        .variable("ADMIN_TOKEN", TOKEN.strip_prefix("Bearer ").unwrap())
        .start();
    let put = |path: &str, body: &str| tell(&process, "PUT", path, &[], body);
    let reference = |name: &str| format!("http://{web}/{name}.wasm");
    let says = |module: &str| tenant("acme.test", "one").replace("\"file:banner.wasm\"", module);

    let tried = put("/v1/tenants/acme?dry_run=true", &says(&format!("\"{}\"", reference("a"))));
    assert_eq!(tried.status(), 200, "{}", tried.text());
    let shown = json!({ "banner": { "module": reference("a"), "sha256": digest(&banner()) } });
    assert_eq!(told(&tried)["plugins"], shown);
    assert_eq!(tell(&process, "GET", "/v1/tenants/acme/modules", &[], "").status(), 404, "it was only tried");

    let held = |name: &str, digest: &str| says(&format!("\"{}\", sha256: {digest}", reference(name)));
    let made = put("/v1/tenants/acme", &held("a", &digest(&banner())));
    assert_eq!((made.status(), &told(&made)["plugins"]), (201, &shown), "{}", made.text());
    let used = told(&tell(&process, "GET", "/v1/tenants/acme/modules", &[], ""));
    assert_eq!(used, json!({ "modules": {}, "plugins": shown }));

    has_moved.store(true, Ordering::Relaxed);
    let refused = put("/v1/tenants/acme", &held("b", &digest(&banner())));
    assert_eq!((refused.status(), code(&refused)), (422, "refused".to_owned()));
    assert!(refused.text().contains(&digest(&other)), "{}", refused.text());
    assert_eq!(put("/v1/tenants/acme", &held("b", &digest(&other))).status(), 200);

    // Where there is a lock file, a reference stands for what that says, and what it does not name is not fetched.
    let lock = format!(
        "version: 1\nmodules: {{ \"{}\": {{ module: \"sha256:{}\", size: {} }} }}\n",
        reference("b"),
        digest(&other),
        other.len()
    );
    fs::write(process.folder().join("tenants/acme/portcullis.lock"), lock).unwrap();
    assert_eq!(put("/v1/tenants/acme", &says(&format!("\"{}\"", reference("b")))).status(), 200);
    let refused = put("/v1/tenants/acme", &says(&format!("\"{}\"", reference("c"))));
    assert!(refused.status() == 422 && refused.text().contains("portcullis.lock"), "{}", refused.text());
}
