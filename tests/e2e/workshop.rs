//! `portcullis plugin`: from nothing to a module that was tried, as an author would do it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use portcullis_tests::guests::{module, target};

fn portcullis(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.current_dir(folder).args(args).env("CARGO_TARGET_DIR", target().join("tmp/workshop")).output().unwrap()
}

/// What a command says; it succeeds or not as expected.
fn says(folder: &Path, args: &[&str], succeeds: bool) -> String {
    let output = portcullis(folder, args);
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.success(), succeeds, "{args:?}: {said}");
    said
}

#[test]
fn a_new_plugin_builds_and_passes_at_once() {
    let folder = tempfile::tempdir().unwrap();
    says(folder.path(), &["plugin", "new", "mark-it"], true);
    let plugin = folder.path().join("mark-it");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut tests = Command::new(cargo);
    tests.current_dir(&plugin).arg("test").env("CARGO_TARGET_DIR", target().join("tmp/workshop"));
    let tested = tests.output().unwrap();
    let said = String::from_utf8_lossy(&tested.stdout).into_owned() + &String::from_utf8_lossy(&tested.stderr);
    assert!(tested.status.success() && said.contains("1 passed"), "{said}");
    let built = portcullis(&plugin, &["plugin", "build"]);
    let said = String::from_utf8_lossy(&built.stderr);
    if said.contains("no compiler for wasm32-wasip1 was found") {
        eprintln!("SKIPPED: the module cannot be built here: {said}");
        return;
    }
    assert!(built.status.success(), "{said}");
    let bytes = fs::metadata(plugin.join("mark-it.wasm")).unwrap().len();
    assert!(bytes <= 200_000, "a filter that sets one header each way has {bytes} bytes");
    let said = says(&plugin, &["plugin", "test", "mark-it.wasm"], true);
    assert!(said.contains("1 passed, 0 failed"), "{said}");
    let said = says(&plugin, &["plugin", "inspect", "mark-it.wasm"], true);
    for want in ["ABI 0.2.1", "mark-it 0.1.0", "runs on Portcullis", "runs on Envoy", "The header that marks them."] {
        assert!(said.contains(want), "{want}: {said}");
    }
    // What nobody has a use for is not there to be called.
    for absent in ["proxy_on_log", "proxy_on_request_body", "proxy_on_response_trailers"] {
        assert!(!said.contains(absent), "{said}");
    }
}

#[test]
fn a_case_that_fails_is_shown_with_what_came_instead() {
    let folder = tempfile::tempdir().unwrap();
    let cases = "
config: { header: x-banner }
cases:
  - name: as it is
    request: { path: /a }
    expect: { status: 200, headers: { x-banner: hello }, upstream: { path: /a, headers: { x-banner: hello } } }
  - name: otherwise
    request: { path: /a }
    expect: { status: 201, headers: { x-banner: null }, upstream: false }
  - name: refused
    config: { header: X-Banner }
    request: {}
    expect: {}
";
    fs::write(folder.path().join("cases.yaml"), cases).unwrap();
    let said = says(folder.path(), &["plugin", "test", module("banner").to_str().unwrap()], false);
    for want in [
        "ok    as it is",
        "FAIL  otherwise",
        "- status: 201",
        "+ status: 200",
        "- x-banner: (not there)",
        "+ x-banner: hello",
        "- upstream: nothing",
        "`header`: `X-Banner` is not a header name in lower case",
        "1 passed, 2 failed",
    ] {
        assert!(said.contains(want), "{want}: {said}");
    }
}

#[test]
fn mistakes_are_answered_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("text.wasm"), "text").unwrap();
    fs::write(folder.path().join("no.yaml"), "cases: []").unwrap();
    fs::write(folder.path().join("odd.yaml"), "cases: [{ name: a, request: {}, expects: {} }]").unwrap();
    let banner = module("banner");
    for (args, want) in [
        (vec!["new", "Bad_Name"], "use lower-case letters, digits and hyphens"),
        (vec!["new", "a", "--sdk", "/nowhere"], "by --sdk DIR or PORTCULLIS_SDK"),
        (vec!["build"], "see `portcullis plugin new`"),
        (vec!["inspect", "text.wasm"], "give the .wasm file that the plugin's build makes"),
        (vec!["inspect", "gone.wasm"], "cannot read gone.wasm"),
        (vec!["test", "gone.wasm"], "`portcullis plugin build` makes it"),
        (vec!["test", banner.to_str().unwrap(), "--cases", "odd.yaml"], "unknown field `expects`"),
        (
            vec!["test", banner.to_str().unwrap(), "--cases", "no.yaml", "--host", "envoy", "--envoy", "/nowhere"],
            "by --envoy or PORTCULLIS_ENVOY",
        ),
    ] {
        let said = says(folder.path(), &[&["plugin"], &args[..]].concat(), false);
        assert!(said.contains(want), "{args:?}: {said}");
    }
}

/// What `cargo xtask test` has installed, or whoever runs the tests names.
fn envoy() -> Option<PathBuf> {
    let named = std::env::var_os("PORTCULLIS_ENVOY").map(PathBuf::from);
    let program = named.unwrap_or_else(|| target().join("tools/envoy/bin/envoy"));
    program.is_file().then_some(program)
}

fn try_built_ins_on(host: &str, envoy: &Path) {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("plugins");
    for name in ["auth", "rate-limit", "transform", "aggregate"] {
        let (cases, module) = (plugins.join(name).join("cases.yaml"), module(name));
        let mut args = vec!["plugin", "test", module.to_str().unwrap(), "--cases", cases.to_str().unwrap()];
        args.extend(["--host", host, "--envoy", envoy.to_str().unwrap()]);
        let said = says(&plugins, &args, true);
        assert!(said.to_lowercase().contains(&format!(" 0 failed, on {host}")), "{name}: {said}");
    }
}

#[test]
fn the_cases_of_the_built_in_plugins_pass_on_their_modules() {
    try_built_ins_on("portcullis", Path::new("envoy"));
}

#[test]
fn the_cases_of_the_built_in_plugins_pass_on_envoy() {
    match envoy() {
        Some(envoy) => try_built_ins_on("envoy", &envoy),
        None => eprintln!("SKIPPED: no Envoy here; `cargo xtask test` installs it, or name one by PORTCULLIS_ENVOY"),
    }
}

#[test]
fn what_fails_on_envoy_is_shown_alike() {
    let Some(envoy) = envoy() else {
        eprintln!("SKIPPED: no Envoy here");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let cases = "
config: { header: x-banner }
cases:
  - name: otherwise
    request: { path: /a }
    expect: { status: 201, headers: { x-banner: null }, upstream: false }
  - name: refused
    config: { header: X-Banner }
    request: {}
    expect: { status: 200 }
";
    fs::write(folder.path().join("cases.yaml"), cases).unwrap();
    let module = module("banner");
    let args = ["plugin", "test", module.to_str().unwrap(), "--host", "envoy", "--envoy", envoy.to_str().unwrap()];
    let said = says(folder.path(), &args, false);
    for want in ["- status: 201", "+ status: 200", "- x-banner: (not there)", "+ x-banner: hello", "0 passed, 2 failed"]
    {
        assert!(said.contains(want), "{want}: {said}");
    }
    assert!(said.contains("`X-Banner` is not a header name in lower case"), "the guest's own words: {said}");
}
