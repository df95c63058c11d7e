//! `portcullis plugin`: from nothing to a module that was tried, as an author would do it.

mod run;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use portcullis_tests::envoy;
use portcullis_tests::guests::{module, target};

fn portcullis(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.current_dir(folder).args(args).env("CARGO_TARGET_DIR", target().join("tmp/workshop")).output().unwrap()
}

/// What a command says; it succeeds or not as expected.
pub(crate) fn says(folder: &Path, args: &[&str], succeeds: bool) -> String {
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
    for want in
        ["sha256 ", "ABI 0.2.1", "mark-it 0.1.0", "runs on Portcullis", "runs on Envoy", "The header that marks them."]
    {
        assert!(said.contains(want), "{want}: {said}");
    }
    // What nobody has a use for is not there to be called.
    for absent in ["proxy_on_log", "proxy_on_request_body", "proxy_on_response_trailers"] {
        assert!(!said.contains(absent), "{said}");
    }
    // Built again it is there again; and one that is no module any more is not the last one.
    says(&plugin, &["plugin", "build"], true);
    let manifest = fs::read_to_string(plugin.join("Cargo.toml")).unwrap();
    fs::write(plugin.join("Cargo.toml"), manifest.replace("[\"cdylib\"]", "[\"rlib\"]")).unwrap();
    let said = says(&plugin, &["plugin", "build"], false);
    assert!(said.contains("the crate needs `crate-type = [\"cdylib\"]` under [lib]"), "{said}");
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
    fs::write(folder.path().join("typed.yaml"), "cases:\n  - { name: a, request: { headers: [] }, expect: {} }")
        .unwrap();
    fs::write(
        folder.path().join("deep.yaml"),
        "cases:\n  - { name: a, request: {}, expect: { upstream: { pth: / } } }",
    )
    .unwrap();
    fs::write(folder.path().join("text.yaml"), "cases: [").unwrap();
    fs::write(folder.path().join("bare.wasm"), wat::parse_str("(module)").unwrap()).unwrap();
    let banner = module("banner");
    for (args, want) in [
        (vec!["new", "Bad_Name"], "use lower-case letters, digits and hyphens"),
        (vec!["new", "a", "--sdk", "/nowhere"], "by --sdk DIR or PORTCULLIS_SDK"),
        (vec!["build"], "see `portcullis plugin new`"),
        (vec!["inspect", "text.wasm"], "give the .wasm file that the plugin's build makes"),
        (vec!["inspect", "gone.wasm"], "cannot read gone.wasm"),
        (vec!["inspect", "builtin:aut"], "`builtin:aut` is no plugin of this binary; there are "),
        (vec!["test", "gone.wasm"], "`portcullis plugin build` makes it"),
        (
            vec!["test", banner.to_str().unwrap(), "--cases", "odd.yaml"],
            "this is not a file of cases: unknown field `expects`",
        ),
        (vec!["test", banner.to_str().unwrap(), "--cases", "odd.yaml"], "odd.yaml:1:33"),
        (vec!["test", banner.to_str().unwrap(), "--cases", "typed.yaml"], "invalid type: sequence"),
        (vec!["test", banner.to_str().unwrap(), "--cases", "typed.yaml"], "typed.yaml:2:36"),
        (vec!["test", banner.to_str().unwrap(), "--cases", "deep.yaml"], "deep.yaml:2:"),
        (vec!["test", banner.to_str().unwrap(), "--cases", "deep.yaml"], "unknown field `pth`"),
        (vec!["test", banner.to_str().unwrap(), "--cases", "text.yaml"], "text.yaml:1:"),
        (vec!["test", banner.to_str().unwrap(), "--cases", "gone.yaml"], "cannot read gone.yaml"),
        (vec!["test", "text.wasm", "--cases", "no.yaml"], "text.wasm: it is not a WebAssembly module"),
        (vec!["test", "bare.wasm", "--cases", "no.yaml"], "build it with a Proxy-Wasm SDK, as a `cdylib` in Rust"),
        (vec!["bench", "bare.wasm"], "build it with a Proxy-Wasm SDK, as a `cdylib` in Rust"),
        (vec!["bench", "gone.wasm"], "`portcullis plugin build` makes it"),
        (vec!["bench", banner.to_str().unwrap(), "--config", "{ header: X }"], "`header`: `X` is not a header name"),
        (
            vec!["test", banner.to_str().unwrap(), "--cases", "no.yaml", "--host", "envoy", "--envoy", "/nowhere"],
            "by --envoy or PORTCULLIS_ENVOY",
        ),
    ] {
        let said = says(folder.path(), &[&["plugin"], &args[..]].concat(), false);
        assert!(said.contains(want), "{args:?}: {said}");
    }
}

fn try_built_ins_on(host: &str, envoy: &Path) {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("plugins");
    for name in ["auth", "rate-limit", "transform", "aggregate", "grpc-json", "jq", "exercise"] {
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
    if let Some(envoy) = envoy::program() {
        try_built_ins_on("envoy", &envoy);
    }
}

#[test]
fn what_fails_on_envoy_is_shown_alike() {
    let Some(envoy) = envoy::program() else { return };
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

#[test]
fn a_bench_tells_what_a_module_costs_and_holds_it_against_a_budget() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("wide.yaml"),
        "{ exchange_ns: 1.0e+12, exchange_instructions: 1e9, vm_memory_bytes: 1e9 }",
    )
    .unwrap();
    fs::write(folder.path().join("tight.yaml"), "{ exchange_instructions: 10, module_bytes: 10 }").unwrap();
    fs::write(folder.path().join("odd.yaml"), "exchange_ms: 1\n").unwrap();
    let cases = "
config: { header: x-banner }
cases:
  - { name: plain, request: { path: /a }, expect: { status: 200 } }
  - { name: with a body, request: { path: /a, body: hello }, expect: { status: 201 } }
  - { name: refused, config: { header: X }, request: {}, expect: {} }
";
    fs::write(folder.path().join("cases.yaml"), cases).unwrap();
    let module = module("banner");
    let bench = |more: &[&str], succeeds: bool| {
        let args = [&["plugin", "bench", module.to_str().unwrap(), "--seconds", "0"], more].concat();
        says(folder.path(), &args, succeeds)
    };
    let said = bench(&["--cases", "cases.yaml", "--budget", "wide.yaml"], true);
    for want in
        ["compiles in", "a VM:", "plain", "with a body", "an exchange ", "proxy_on_request_headers", "instructions"]
    {
        assert!(said.contains(want), "{want}: {said}");
    }
    assert!(said.contains("otherwise than the case expects"), "the second case's status is not 201: {said}");
    assert!(!said.contains("refused"), "what does not start has no exchanges: {said}");
    let shown = bench(&["--config", "{ header: x-banner }", "--json"], true);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let case = &shown["cases"][0];
    assert!(case["exchange_ns"].as_f64().unwrap() > 0.0 && case["exchange_instructions"].as_f64().unwrap() > 100.0);
    let said = bench(&["--budget", "tight.yaml", "--json", "--config", "{ header: x-banner }"], false);
    let same = format!("\"exchange_instructions\": {}", case["exchange_instructions"]);
    assert!(said.contains(&same), "instructions are the same each time, {same}: {said}");
    for want in ["over budget: module_bytes: ", "over budget: exchange_instructions of `GET /`: ", ", at most 10"] {
        assert!(said.contains(want), "{want}: {said}");
    }
    let said = bench(&["--budget", "odd.yaml"], false);
    for want in ["this is not a budget: unknown field `exchange_ms`", "odd.yaml:1:1", "`exchange_ns`"] {
        assert!(said.contains(want), "{want}: {said}");
    }
}

/// What a crossing takes on the host's side, in the processor's instructions: measured for the README.
const CROSSING: f64 = 550.0;
/// What becomes of a WebAssembly instruction, at the most.
const COMPILED: f64 = 1.5;
/// As many of the processor's instructions take 0.3 µs: 3.5 in a nanosecond, by the README's measurements of a filter.
const MOST: f64 = 1050.0;

#[test]
fn a_filter_of_the_sdk_costs_little_more_than_one_of_the_bare_crate() {
    let folder = tempfile::tempdir().unwrap();
    let (sdk, bare) = (module("one-header-sdk"), module("one-header"));
    let args = ["plugin", "bench", sdk.to_str().unwrap(), "--against", bare.to_str().unwrap(), "--json"];
    let shown = says(folder.path(), &args, true);
    let sdk: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let bare = &sdk["against"];
    let more = |figure: fn(&serde_json::Value) -> f64| figure(&sdk["cases"][0]) - figure(&bare["cases"][0]);
    let instructions = more(|case| case["exchange_instructions"].as_f64().unwrap());
    let crossings = more(|case| {
        let callbacks = case["callbacks"].as_array().unwrap();
        callbacks.iter().map(|callback| callback["calls_per_exchange"].as_f64().unwrap()).sum()
    });
    let nanoseconds = more(|case| case["exchange_ns"].as_f64().unwrap());
    let cost = instructions * COMPILED + crossings * CROSSING;
    println!("{instructions:+} instructions, {crossings:+} crossings: {cost:+}; here {nanoseconds:+.0} ns");
    assert!(cost <= MOST, "{cost} instructions more, which take more than 0.3 µs: {shown}");
}

#[test]
fn what_a_compiler_needs_is_said_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    says(folder.path(), &["plugin", "new", "a"], true);
    let without = |variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
        command.current_dir(folder.path()).args(["plugin", "build", "a"]).envs(variables.iter().copied());
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = without(&[("PORTCULLIS_WASM_TOOLCHAIN", "other")]);
    assert!(said.contains("PORTCULLIS_WASM_TOOLCHAIN is `other`; it may be `rustup` or `debian`"), "{said}");
    let nowhere = [("PATH", "/nowhere"), ("RUSTC", "/nowhere/rustc"), ("PORTCULLIS_WASM_TOOLCHAIN", "rustup")];
    let said = without(&nowhere);
    assert!(said.contains("wasm32-wasip1 is not installed; try: rustup target add wasm32-wasip1"), "{said}");
}
