//! Modules from other machines: pushed, pulled, kept, locked, signed.

mod candidates;
mod faults;
mod signatures;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use portcullis_tests::docs;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::guests::module;
use portcullis_tests::origin::Origin;
use portcullis_tests::process::{Process, Start};
use portcullis_tests::registry::{LOGIN, Open, Registry};

pub(crate) const GATEWAY: &str = env!("CARGO_BIN_EXE_gateway");

/// Every response says that the module has run.
const CONFIG: &str = r#"
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins: { geo: { module: "{module}" } }
filters: [{ plugin: geo, config: { header: x-of, value: here } }]
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#;

/// A command of the gateway's, by nobody that a registry knows.
pub(crate) fn portcullis(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(GATEWAY);
    command.current_dir(folder).args(args).env("DOCKER_CONFIG", folder);
    command
}

/// What a command says; it succeeds or not as expected.
pub(crate) fn said(command: &mut Command, succeeds: bool) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    assert_eq!(status.success(), succeeds, "{command:?}: {said}");
    said
}

/// Pushes a module; returns the reference that names this very artefact.
pub(crate) fn push(folder: &Path, file: &Path, to: &str) -> String {
    let said = said(&mut portcullis(folder, &["plugin", "push", file.to_str().unwrap(), to]), true);
    said.trim().rsplit_once(": ").unwrap().1.to_owned()
}

/// The same module with something behind it that changes its digest and nothing else: a custom section of this name.
pub(crate) fn marked(folder: &Path, mark: &str) -> PathBuf {
    let name = u8::try_from(mark.len()).unwrap();
    let section = [&[0, name + 1, name], mark.as_bytes()].concat();
    let path = folder.join(format!("{mark}.wasm"));
    fs::write(&path, [fs::read(module("banner")).unwrap(), section].concat()).unwrap();
    path
}

fn start(reference: &str, origin: &Origin, folder: &Path) -> Start {
    let start = Start::new(GATEWAY, CONFIG, &[("origin", origin), ("module", &reference)]).argument("--no-watch");
    start.cache(&folder.join("cache"))
}

fn serves(process: &Process) -> bool {
    process.client().get("/").get("x-of") == Some("here")
}

/// The digest of the module that serves, or of what came of it: the same for the same configuration and module.
fn revision(process: &Process) -> String {
    let revision: serde_json::Value = serde_json::from_slice(&process.page("/revision").body).unwrap();
    revision["digest"].to_string()
}

#[test]
fn what_was_pushed_is_served_and_goes_on_while_the_registry_is_away() {
    let Some(mut registry) = Registry::start(Open::ToAll) else { return };
    let (folder, origin) = (tempfile::tempdir().unwrap(), Origin::plain());
    let tag = format!("oci://{}/acme/geo:1", registry.address);
    let pinned = push(folder.path(), &module("banner"), &tag);
    let other =
        push(folder.path(), &marked(folder.path(), "other"), &format!("oci://{}/acme/other:1", registry.address));
    let process = start(&tag, &origin, folder.path()).start();
    assert!(serves(&process));
    assert_eq!(registry.asked_for("/acme/geo/manifests/1"), 2, "once to put it there, once to get it");
    let asked = registry.asked_for("/v2/");
    (0..5).for_each(|_| assert_eq!(process.reload().status(), 200));
    assert_eq!(registry.asked_for("/v2/"), asked, "what it once stood for it stands for");
    registry.kill();
    assert_eq!(process.reload().status(), 200);
    process.signal("TERM");
    let process = process.again(GATEWAY).cache(&folder.path().join("cache")).start();
    assert!(serves(&process), "from the cache");
    process.configure(CONFIG, &[("origin", &origin), ("module", &pinned)]);
    assert_eq!(process.reload().status(), 200, "it is what came by the tag");
    process.configure(CONFIG, &[("origin", &origin), ("module", &other)]);
    let refused = process.reload();
    assert!(refused.status() != 200 && refused.text().contains("cannot be reached"), "{}", refused.text());
    assert!(serves(&process), "what was there");
    registry.again();
    assert_eq!(process.reload().status(), 200);
    assert!(serves(&process));
}

#[test]
fn the_pages_example_is_served() {
    let Some(registry) = Registry::start(Open::ToAll) else { return };
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Origin::plain());
    let (host, origin) = (registry.address.to_string(), upstream.to_string());
    push(folder.path(), &module("banner"), &format!("oci://{host}/plugins/geo:1.4"));
    let printed = &docs::configurations(&docs::page("docs/modules.md"))[0];
    let gateway =
        Gateway::start(&docs::here(printed, &[("registry.example", &host), ("127.0.0.1:9001", &origin)]), &[]);
    assert_eq!(gateway.get("/").get("x-geo"), Some("here"));
}

#[test]
fn a_tag_moves_when_its_answer_is_too_old() {
    let Some(mut registry) = Registry::start(Open::ToAll) else { return };
    let folder = tempfile::tempdir().unwrap();
    let tag = format!("oci://{}/geo:latest", registry.address);
    push(folder.path(), &marked(folder.path(), "one"), &tag);
    // In a tenant's own file, of which nothing changes.
    let platform = "modules: { refresh: 1ms, tenants: { from: [\"oci://{registry}/\"] } }\n\
                    tenants: { acme: { hosts: [acme.test], include: acme/ } }\n";
    let own = format!(
        "plugins: {{ geo: {{ module: \"{tag}\" }} }}\nfilters: [{{ plugin: geo, config: {{ header: x-of }} }}]\n"
    );
    let start = Start::new(GATEWAY, platform, &[("registry", &registry.address)]).file("acme/own.yaml", &own);
    let process = start.argument("--no-watch").cache(&folder.path().join("cache")).start();
    let one = revision(&process);
    assert_eq!(process.reload().status(), 200);
    assert_eq!(revision(&process), one);
    let fetched = registry.asked_for("/geo/blobs/sha256");
    push(folder.path(), &marked(folder.path(), "two"), &tag);
    assert_eq!(process.reload().status(), 200);
    assert_ne!(revision(&process), one);
    assert!(registry.asked_for("/geo/blobs/sha256") > fetched);
    let two = revision(&process);
    registry.kill();
    assert_eq!(process.reload().status(), 200);
    assert_eq!(revision(&process), two);
    assert!(process.log().contains("what came the last time goes on being used"), "{}", process.log());
}

#[test]
fn a_lock_file_holds_a_tag_to_what_it_was() {
    let Some(registry) = Registry::start(Open::ToAll) else { return };
    let (folder, origin) = (tempfile::tempdir().unwrap(), Origin::plain());
    let tag = format!("oci://{}/geo:latest", registry.address);
    push(folder.path(), &marked(folder.path(), "one"), &tag);
    let prepared = start(&tag, &origin, folder.path());
    let (file, lock) = (prepared.folder().join("portcullis.yaml"), prepared.folder().join("portcullis.lock"));
    let file = file.to_str().unwrap();
    let locks = |more: &[&str]| said(&mut portcullis(folder.path(), &[&["plugin", "lock", file], more].concat()), true);
    assert!(locks(&[]).ends_with("portcullis.lock: 1 reference\n"));
    let first = fs::read_to_string(&lock).unwrap();
    assert!(first.contains(&format!("\"{tag}\":")), "{first}");
    push(folder.path(), &marked(folder.path(), "two"), &tag);
    // Nothing is in its cache yet: but for the lock it would get the second one.
    let process = prepared.start();
    let one = revision(&process);
    assert!(locks(&[]).ends_with("1 reference, as before\n"), "what is locked stays so");
    assert_eq!(process.reload().status(), 200);
    assert_eq!(revision(&process), one);
    locks(&["--update"]);
    assert_ne!(fs::read_to_string(&lock).unwrap(), first);
    assert_eq!(process.reload().status(), 200);
    assert_ne!(revision(&process), one);
}

#[test]
fn a_registry_that_asks_who_we_are_is_told() {
    let Some(registry) = Registry::start(Open::ToLogin) else { return };
    let (folder, origin) = (tempfile::tempdir().unwrap(), Origin::plain());
    let tag = format!("oci://{}/geo:1", registry.address);
    let (file, wasm) = (module("banner"), "out.wasm");
    let push = ["plugin", "push", file.to_str().unwrap(), &tag];
    let refused = said(&mut portcullis(folder.path(), &push), false);
    assert!(refused.contains("asks who we are") && refused.contains("PORTCULLIS_REGISTRY_USERNAME"), "{refused}");
    let login = [("PORTCULLIS_REGISTRY_USERNAME", LOGIN.0), ("PORTCULLIS_REGISTRY_PASSWORD", LOGIN.1)];
    said(portcullis(folder.path(), &push).envs(login), true);
    said(portcullis(folder.path(), &["plugin", "pull", &tag, "-o", wasm]).envs(login), true);
    assert_eq!(fs::read(folder.path().join(wasm)).unwrap(), fs::read(file).unwrap());

    let (status, log) = start(&tag, &origin, folder.path()).run_to_end();
    assert!(!status.success() && log.contains("asks who we are"), "{log}");
    assert!(log.contains("under `modules.registries`"), "{log}");
    let registries = |password: &str| {
        let host = registry.address;
        format!(
            "modules: {{ registries: {{ \"{host}\": {{ username: ci, password: \"${{env:{password}}}\" }} }} }}\n{CONFIG}"
        )
    };
    let with = |password: &str| {
        let start = Start::new(GATEWAY, &registries("PASSWORD"), &[("origin", &origin), ("module", &tag)]);
        start.cache(&folder.path().join(password)).variable("PASSWORD", password)
    };
    let (status, log) = with("another").run_to_end();
    assert!(!status.success() && log.contains("it refuses the `username` and `password`"), "{log}");
    assert!(serves(&with(LOGIN.1).start()));
}
