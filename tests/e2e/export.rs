//! `portcullis export`: what a configuration becomes elsewhere, and that it does the same there.

mod capabilities;
mod demo;
mod documented;
mod kubernetes;
mod tcp;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use portcullis::workshop::envoy::Process as Envoy;
use portcullis_tests::client::Client;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::guests::module;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::pki::{Authority, Files, Use};
use tempfile::TempDir;

use crate::workshop::says;

/// An Envoy that runs what a configuration was exported to.
struct Exported {
    /// Where it listens, by the names of its listeners.
    listeners: Vec<(String, SocketAddr)>,
    _process: Envoy,
    _folder: TempDir,
}

impl Exported {
    /// Exports a configuration and starts an Envoy with it; nothing where there is none.
    fn start(config: &Path) -> Option<Self> {
        let Some(program) = portcullis_tests::envoy::program() else {
            eprintln!("SKIPPED: no Envoy here; `cargo xtask test` installs it, or name one by PORTCULLIS_ENVOY");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        says(folder.path(), &["export", "envoy", config.to_str().unwrap(), "--with-secrets", "--out", "envoy"], true);
        let file = folder.path().join("envoy/envoy.yaml");
        let mut process = Envoy::of_file(&program, &file, &["--log-level", "warning"]).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listeners = runtime.block_on(process.listeners()).unwrap();
        Some(Self { listeners, _process: process, _folder: folder })
    }

    fn address(&self) -> SocketAddr {
        self.listeners[0].1
    }
}

/// Routes that only their order of precedence tells apart, for three owners, each with a filter that says which it was.
const ROUTES: &str = r#"
version: 1
access_log: off
admin: { bind: "127.0.0.1:0" }
listeners: { main: { bind: "127.0.0.1:0" } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
plugins: { banner: { module: "file:BANNER" } }
filters: [{ plugin: banner, name: outer, optional: true, config: { header: x-outer, value: gateway } }]
tenants:
  acme:
    hosts: [acme.test, "*.acme.test"]
    filters: [{ plugin: banner, config: { header: x-of, value: acme } }]
    routes:
      - { name: rest, match: { path: "/*" }, upstream: origin }
      - { name: order, match: { path: "/orders/{id}" }, upstream: origin, skip: [outer] }
      - { name: new, match: { path: /orders/new, methods: [POST, PUT] }, upstream: origin }
      - { name: below, match: { path: "/orders/*", headers: { x-beta: "1" } }, upstream: origin }
      - { name: api, match: { hosts: [api.acme.test], path: /orders/new }, upstream: origin }
  beta:
    hosts: [beta.acme.test]
    routes: [{ name: beta, match: { path: "/only/{one}/*", query: { v: "2" } }, upstream: origin }]
routes:
  - { name: open, match: { path: /open }, upstream: origin }
  - name: status
    match: { hosts: [status.test], path: "/s.t/*" }
    upstream: origin
    filters: [{ plugin: banner, config: { header: x-status, value: yes } }]
"#;

#[test]
fn the_same_routes_and_filters_are_taken() {
    let origin = Origin::start(|seen| Answer::ok(seen.target().to_owned()));
    let config = ROUTES.replace("ORIGIN", &origin.to_string());
    let config = config.replace("BANNER", module("banner").to_str().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("portcullis.yaml");
    fs::write(&file, &config).unwrap();
    let Some(exported) = Exported::start(&file) else { return };
    let gateway = Gateway::start(&config, &[]);
    for (method, host, path, fields, want) in [
        ("GET", "acme.test", "/orders/7", &[][..], (200, None, Some("acme"))),
        ("GET", "acme.test:8080", "/orders/new", &[], (200, None, Some("acme"))),
        ("PUT", "ACME.test", "/orders/new", &[], (200, Some("gateway"), Some("acme"))),
        ("GET", "acme.test", "/orders/7/items", &[("x-beta", "1")], (200, Some("gateway"), Some("acme"))),
        ("GET", "acme.test", "/orders", &[], (200, Some("gateway"), Some("acme"))),
        ("GET", "api.acme.test", "/orders/new", &[], (200, Some("gateway"), Some("acme"))),
        ("GET", "www.acme.test", "/orders/new", &[], (200, None, Some("acme"))),
        ("GET", "beta.acme.test", "/only/a/b?v=2", &[], (200, Some("gateway"), None)),
        ("GET", "beta.acme.test", "/only/a?x=1&v=2", &[], (200, Some("gateway"), None)),
        ("GET", "beta.acme.test", "/only/a/b?v=3", &[], (404, Some("gateway"), None)),
        ("GET", "elsewhere.test", "/open", &[], (200, Some("gateway"), None)),
        ("GET", "elsewhere.test", "/s.t/x", &[], (404, Some("gateway"), None)),
        ("GET", "status.test", "/s.t", &[], (200, Some("gateway"), None)),
        ("GET", "status.test", "/sxt/x", &[], (404, Some("gateway"), None)),
        ("GET", "status.test", "//s.t/./a/../%62", &[], (200, Some("gateway"), None)),
        ("GET", "status.test", "/s.t/a%2Fb", &[], (400, None, None)),
    ] {
        let fields: Vec<(&str, &str)> = [("host", host)].iter().chain(fields).copied().collect();
        let sides = [gateway.address(), exported.address()].map(|address| {
            let answer = Client::connect(address).ask(method, path, &fields, "");
            let said = |name: &str| answer.get(name).map(str::to_owned);
            // What Envoy refuses has no body, as the export says.
            let body = if answer.status() == 400 { String::new() } else { without_id(&answer.text()) };
            (answer.status(), said("x-outer"), said("x-of"), said("x-status"), said("content-type"), body)
        });
        let [here, there] = &sides;
        let got = (here.0, here.1.as_deref(), here.2.as_deref());
        assert_eq!(got, want, "{method} {host} {path} here");
        if here.0 == 400 {
            assert_eq!(there.0, 400, "{host} {path}");
        } else {
            assert_eq!(here, there, "{method} {host} {path}");
        }
    }
}

/// A problem document's members without its request's id, in the order of their names; any other text as it is.
fn without_id(text: &str) -> String {
    let Ok(serde_json::Value::Object(mut problem)) = serde_json::from_str(text) else { return text.to_owned() };
    match problem.remove("request_id") {
        Some(_) => serde_json::Value::from(problem).to_string(),
        None => text.to_owned(),
    }
}

/// A configuration with a bit of everything that Envoy has a word for, and of much that it has not.
const EVERYTHING: &str = include_str!("export/everything.yaml");

/// Writes it with the files that it names.
fn everything() -> Files {
    let files = Files::default();
    let authority = Authority::new("export");
    files.put("ca.pem", &authority.pem());
    files.put_pair("server", &authority.issue(&["a.test"], Use::Server));
    files.put_pair("client", &authority.issue(&["gateway.test"], Use::Client));
    files.put("key", "a-secret-that-nobody-may-see\n");
    for name in ["noop", "banner"] {
        fs::copy(module(name), files.path(&format!("{name}.wasm"))).unwrap();
    }
    files.put("portcullis.yaml", EVERYTHING);
    files
}

#[test]
fn envoy_takes_everything_that_is_written_for_it() {
    let files = everything();
    let folder = files.path("");
    let said = says(&folder, &["export", "envoy", "portcullis.yaml", "--out", "out"], true);
    let notes = fs::read_to_string(files.path("out/NOT-EXPRESSED.txt")).unwrap();
    assert!(said.starts_with(&notes), "{said}");
    assert!(notes.lines().all(|note| note.starts_with("portcullis.yaml:")), "{notes}");
    for lost in [
        "`limits.in_flight`",
        "`limits.cpu`",
        "`limits.callouts`",
        "`limits.log`",
        "`grants.upstreams`",
        "`isolation`",
        "`rollout`",
        "`server_timing`",
        "`admin.token`",
        "its cluster is `acme/a`",
    ] {
        assert!(notes.lines().any(|note| note.contains("lost: ") && note.contains(lost)), "{lost}: {notes}");
    }
    assert!(notes.contains("differs: filters read it, and find its queues, as `acme/shared`"), "{notes}");
    let again = says(&folder, &["export", "envoy", "portcullis.yaml", "--out", "again"], true);
    assert!(again.contains("wrote again/envoy.yaml"), "{again}");
    let read = |name: &str| fs::read_to_string(files.path(name)).unwrap();
    let same = read("out/envoy.yaml").replace(&files.text("out"), &files.text("again"));
    assert_eq!(same, read("again/envoy.yaml"), "the same configuration is exported alike");
    let Some(program) = portcullis_tests::envoy::program() else { return };
    let config = files.path("out/envoy.yaml");
    let mut command = Command::new(program);
    let output = command.args(["--mode", "validate", "--log-level", "warning", "-c"]).arg(config).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    // Of what restricts a module there is no newer form.
    let deprecated = |line: &&str| line.contains("deprecated") && !line.contains("capability_restriction_config");
    assert_eq!(said.lines().find(deprecated), None);
}

#[test]
fn secrets_are_written_only_where_that_is_asked_for() {
    const SECRET: &str = "a-secret-that-nobody-may-see";
    let files = everything();
    let folder = files.path("");
    says(&folder, &["export", "envoy", "portcullis.yaml", "--out", "out"], true);
    let read = |name: &str| fs::read_to_string(files.path(name)).unwrap();
    let (text, notes) = (read("out/envoy.yaml"), read("out/NOT-EXPRESSED.txt"));
    assert!(!text.contains(SECRET) && text.contains("${file:key}"));
    assert_eq!(notes.matches("lost: a secret is left as its reference").count(), 3, "{notes}");
    says(&folder, &["export", "envoy", "portcullis.yaml", "--out", "out", "--with-secrets"], true);
    let file = files.path("out/envoy.yaml");
    assert!(read("out/envoy.yaml").contains(SECRET));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "although it was there before");
    let notes = read("out/NOT-EXPRESSED.txt");
    assert!(!notes.contains(SECRET) && !notes.contains("a secret is left"), "{notes}");
}

#[test]
fn strictly_nothing_may_be_lost() {
    let files = everything();
    let export = |more: &[&str], succeeds| {
        let args = [&["export", "envoy", "portcullis.yaml", "--out", "out"][..], more].concat();
        says(&files.path(""), &args, succeeds)
    };
    export(&["--strict"], false);
    files.put(
        "portcullis.yaml",
        "version: 1\nlisteners: { main: { bind: \"127.0.0.1:0\" } }\nupstreams: { a: { endpoints: [\"127.0.0.1:1\"] } }\n\
         routes: [{ name: all, match: { path: \"/*\" }, upstream: a }]\n",
    );
    let said = export(&["--strict"], true);
    assert!(said.contains("0 modules beside it; 0 lost"), "{said}");
    files.put("portcullis.yaml", "version: 1\nlisteners: {}\n");
    let said = export(&[], false);
    assert!(said.contains("nothing was exported"), "{said}");
}
