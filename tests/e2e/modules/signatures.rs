//! Who has signed a module: keys and signatures of OpenSSL's and ours are the same.

use std::fs;
use std::path::Path;
use std::process::Command;

use portcullis_tests::guests::module;
use portcullis_tests::origin::Origin;
use portcullis_tests::process::Start;
use portcullis_tests::registry::{Open, Registry};

use super::{GATEWAY, portcullis, said};

fn openssl(folder: &Path, args: &str) {
    let made = Command::new("openssl").current_dir(folder).args(args.split(' ')).output().unwrap();
    assert!(made.status.success(), "{args}: {made:?}");
}

/// A folder with the keys of two teams and a module.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["acme", "globex"] {
        openssl(folder.path(), &format!("genpkey -algorithm ed25519 -out {name}.key"));
        openssl(folder.path(), &format!("pkey -in {name}.key -pubout -out {name}.pub"));
    }
    fs::copy(module("banner"), folder.path().join("geo.wasm")).unwrap();
    folder
}

#[test]
fn openssl_signs_and_verifies_the_same() {
    let folder = folder();
    let ours = |args: &[&str], succeeds| said(&mut portcullis(folder.path(), &[&["plugin"], args].concat()), succeeds);
    assert!(ours(&["verify", "geo.wasm", "--key", "acme.pub"], false).contains("geo.wasm has no signature"));
    assert_eq!(ours(&["sign", "geo.wasm", "--key", "acme.key"], true), "signed: geo.wasm.sig\n");
    openssl(folder.path(), "pkeyutl -verify -rawin -in geo.wasm -sigfile geo.wasm.sig -pubin -inkey acme.pub");
    openssl(folder.path(), "pkeyutl -sign -rawin -in geo.wasm -inkey globex.key -out geo.wasm.sig");
    let verified = ours(&["verify", "geo.wasm", "--key", "acme.pub", "--key", "globex.pub"], true);
    assert_eq!(verified, "geo.wasm is signed by globex.pub\n");
    let refused = ours(&["verify", "geo.wasm", "--key", "acme.pub"], false);
    assert!(refused.contains("is signed by none of these keys, or was changed since"), "{refused}");
    assert!(ours(&["sign", "geo.wasm", "--key", "acme.pub"], false).contains("it is no private key in PEM"));
}

/// A platform of two tenants, each with its key, and what comes of one module for both.
#[test]
fn each_tenant_runs_what_its_own_key_has_signed() {
    let Some(registry) = Registry::start(Open::ToAll) else { return };
    let (folder, origin) = (folder(), Origin::plain());
    let reference = format!("oci://{}/acme/geo:1", registry.address);
    let push = ["plugin", "push", "geo.wasm", &reference, "--sign", "acme.key"];
    assert!(said(&mut portcullis(folder.path(), &push), true).starts_with("pushed with its signature: oci://"));
    let verify = ["plugin", "verify", &reference, "--key", "acme.pub"];
    assert_eq!(said(&mut portcullis(folder.path(), &verify), true), format!("{reference} is signed by acme.pub\n"));
    let pull = ["plugin", "pull", &reference, "-o", "pulled.wasm"];
    assert!(said(&mut portcullis(folder.path(), &pull), true).contains("pulled.wasm.sig: its signature"));

    let platform = format!(
        "upstreams: {{ shared: {{ endpoints: [\"{origin}\"] }} }}\n\
         modules: {{ tenants: {{ from: [\"oci://{}/\"] }} }}\n\
         tenants:\n  \
           acme: {{ hosts: [acme.test], include: acme/, modules: {{ signed_by: [\"${{file:acme.pub}}\"] }} }}\n  \
           globex: {{ hosts: [globex.test], include: globex/, modules: {{ signed_by: [\"${{file:globex.pub}}\"] }} }}\n",
        registry.address
    );
    let own = format!(
        "plugins: {{ banner: {{ module: \"{reference}\" }} }}\n\
         filters: [{{ plugin: banner, config: {{ header: x-of, value: mine }} }}]\n\
         routes: [{{ name: all, match: {{ path: \"/*\" }}, upstream: shared }}]\n"
    );
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    let start = Start::new(GATEWAY, &platform, &[]).argument("--no-watch").cache(&folder.path().join("cache"));
    let start = start.file("acme.pub", &read("acme.pub")).file("globex.pub", &read("globex.pub"));
    let process = start.file("acme/a.yaml", &own).file("globex/a.yaml", &own).start();
    let of = |host: &str| process.client().ask("GET", "/", &[("host", host)], "");
    assert_eq!(of("acme.test").get("x-of"), Some("mine"));
    assert_eq!(of("globex.test").status(), 503, "it is unavailable: nothing of it was ever good");
    let revision = process.page("/revision").text();
    assert!(revision.contains("its signature is not by the key in `signed_by`"), "{revision}");

    // Signed anew by the other, under another tag.
    let tag = format!("oci://{}/globex/geo:1", registry.address);
    said(&mut portcullis(folder.path(), &["plugin", "push", "geo.wasm", &tag, "--sign", "globex.key"]), true);
    process.write("globex/a.yaml", &own.replace(&reference, &tag));
    // What a tenant says of keys is none of its business.
    process.write("acme/b.yaml", "modules: { signed_by: [] }\n");
    assert_eq!(process.reload().status(), 200);
    assert_eq!(of("globex.test").get("x-of"), Some("mine"));
    let revision = process.page("/revision").text();
    assert!(revision.contains("`modules` cannot stand in a tenant's own files"), "{revision}");
    assert_eq!(of("acme.test").get("x-of"), Some("mine"), "held to what it last said");
}
