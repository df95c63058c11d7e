//! Row 15 of the threat model: modules are compiled in a process of its own, and what goes wrong there stays there.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_tests::origin::Origin;
use portcullis_tests::process::Start;
use portcullis_vm::{CompileLimits, Compiler, Engine, EngineOptions, LoadError, Module};

/// What comes of a module with the gateway's own program as the compiler, within these limits.
fn load(cpu_seconds: u64, memory: u64, name: &str, wasm: &[u8]) -> Result<Arc<Module>, LoadError> {
    let compiler = Compiler { program: PathBuf::from(env!("CARGO_BIN_EXE_gateway")) };
    let options = EngineOptions { max_vms: 4, compiler: Some(compiler), ..EngineOptions::default() };
    let limits = CompileLimits { cpu: Duration::from_secs(cpu_seconds), memory };
    Engine::new(options).unwrap().load_within(name, wasm, &limits)
}

fn number(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).unwrap();
        number >>= 7;
        bytes.push(if number > 0 { low | 0x80 } else { low });
        if number == 0 {
            return bytes;
        }
    }
}

fn section(id: u8, contents: &[u8]) -> Vec<u8> {
    [&[id][..], &number(contents.len()), contents].concat()
}

/// A valid module of so many functions, each of so many additions.
fn bomb(functions: usize, additions: usize) -> Vec<u8> {
    let mut body = vec![0x00, 0x20, 0x00];
    (0..additions).for_each(|_| body.extend([0x20, 0x00, 0x6c, 0x20, 0x00, 0x6a]));
    body.push(0x0b);
    let body = [number(body.len()), body].concat();
    let types = [number(functions), vec![0; functions]].concat();
    let code = [number(functions), body.repeat(functions)].concat();
    let head = b"\0asm\x01\0\0\0".to_vec();
    [head, section(1, &[1, 0x60, 1, 0x7f, 1, 0x7f]), section(3, &types), section(10, &code)].concat()
}

const PLUGIN: &str = r#"(module (memory (export "memory") 1)
    (func (export "malloc") (param i32) (result i32) (i32.const 0))
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0)))"#;

#[test]
fn what_the_child_compiles_is_what_the_gateway_runs() {
    let module = load(30, 2 << 30, "plugin", &wat::parse_str(PLUGIN).unwrap()).unwrap();
    assert_eq!(module.version().as_str(), "0.2.1");
    let mut broken = wat::parse_str(PLUGIN).unwrap();
    broken.truncate(broken.len() - 3);
    assert!(matches!(load(30, 2 << 30, "broken", &broken), Err(LoadError::Invalid { .. })));
    let wide = PLUGIN.replace("(module ", "(module (table 70000 funcref) ");
    let wide = load(30, 2 << 30, "wide", &wat::parse_str(wide).unwrap()).unwrap_err();
    assert!(matches!(&wide, LoadError::Invalid { reason } if reason.contains("exceeds the limit of 65536")), "{wide}");
}

#[test]
fn a_module_that_takes_too_long_or_too_much_to_compile_is_refused_with_the_reason() {
    let began = Instant::now();
    let slow = load(1, 4 << 30, "slow", &bomb(4000, 900)).unwrap_err();
    assert!(matches!(slow, LoadError::CompileTime(_)), "{slow}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    // Which of the compiler's many requests for memory is the one that fails is nobody's to say.
    let large = load(60, 600 << 20, "large", &bomb(20, 250_000)).unwrap_err();
    assert!(matches!(large, LoadError::CompileMemory(_) | LoadError::Compiler { .. }), "{large}");
}

#[test]
fn too_many_functions_are_refused_before_anything_is_compiled() {
    let began = Instant::now();
    let many = load(60, 2 << 30, "many", &bomb(100_000, 1)).unwrap_err();
    assert!(many.to_string().starts_with("it has 100000 functions, and modules may have 50000"), "{many}");
    assert!(began.elapsed() < Duration::from_secs(5));
}

/// The whole gateway: a reload with a bomb leaves what is served as it is, and what is asked meanwhile is answered.
#[test]
fn a_bomb_in_a_new_configuration_is_refused_while_the_old_one_serves() {
    let origin = Origin::plain();
    let config = "upstreams: { origin: { endpoints: [\"{origin}\"] } }\n\
                  plugins: { guest: {wat} }\nfilters: [{ plugin: guest, config: \"\" }]\n\
                  routes: [{ name: all, match: { path: \"/*\" }, upstream: origin }]";
    let good = portcullis_tests::guests::Guest::of_text(PLUGIN);
    let bad = portcullis_tests::guests::Guest::of_bytes(&bomb(60_000, 1));
    let process = Start::new(env!("CARGO_BIN_EXE_gateway"), config, &[("origin", &origin), ("wat", &good)]).start();
    assert_eq!(process.client().get("/").status(), 200);
    process.configure(config, &[("origin", &origin), ("wat", &bad)]);
    let answer = process.reload();
    assert!(answer.status() >= 400 && answer.text().contains("it has 60000 functions"), "{}", answer.text());
    assert_eq!(process.client().get("/").status(), 200);
}

/// Each plugin may have its own limits: of two with the same kind of module, the one with less time is refused, by name.
#[test]
fn a_plugins_own_limits_hold_for_its_compilation() {
    let origin = Origin::plain();
    let (good, slow) =
        (portcullis_tests::guests::Guest::of_text(PLUGIN), portcullis_tests::guests::Guest::of_bytes(&bomb(4000, 900)));
    let config = |limits: &str| {
        format!(
            "upstreams: {{ origin: {{ endpoints: [\"{{origin}}\"] }} }}\n\
             plugins: {{ slow: {{ module: \"file:{{slow}}\", limits: {limits} }}, guest: {{wat}} }}\n\
             filters: [{{ plugin: guest, config: \"\" }}]\n\
             routes: [{{ name: all, match: {{ path: \"/*\" }}, upstream: origin, filters: [{{ plugin: slow }}] }}]"
        )
    };
    let path = slow.path().display().to_string();
    let places: [(&str, &dyn std::fmt::Display); 3] = [("origin", &origin), ("slow", &path), ("wat", &good)];
    let limits = "{ compile: { cpu: 1s, memory: 4GiB } }";
    let (status, said) = Start::new(env!("CARGO_BIN_EXE_gateway"), &config(limits), &places).run_to_end();
    let is_told = said.contains("the module of plugin `slow` cannot be loaded")
        && said.contains("compiling it took more than 1 seconds");
    assert!(!status.success() && is_told, "{said}");
}
