//! Row 15 of the threat model: modules are compiled in a process of its own, and what goes wrong there stays there.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use portcullis_tests::origin::Origin;
use portcullis_tests::process::Start;
use portcullis_vm::{Compiler, Engine, EngineOptions, LoadError};

/// The gateway's own program as the compiler, with these limits.
fn engine(cpu_seconds: u64, memory: u64) -> std::sync::Arc<Engine> {
    let compiler = Compiler {
        program: PathBuf::from(env!("CARGO_BIN_EXE_gateway")),
        arguments: vec!["compile".to_owned(), format!("--cpu-seconds={cpu_seconds}"), format!("--memory={memory}")],
        cpu: Duration::from_secs(cpu_seconds),
        memory,
    };
    Engine::new(EngineOptions { max_vms: 4, compiler: Some(compiler), ..EngineOptions::default() }).unwrap()
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
    let engine = engine(30, 2 << 30);
    let module = engine.load("plugin", &wat::parse_str(PLUGIN).unwrap()).unwrap();
    assert_eq!(module.version().as_str(), "0.2.1");
    let mut broken = wat::parse_str(PLUGIN).unwrap();
    broken.truncate(broken.len() - 3);
    assert!(matches!(engine.load("broken", &broken), Err(LoadError::Invalid { .. })));
}

#[test]
fn a_module_that_takes_too_long_or_too_much_to_compile_is_refused_with_the_reason() {
    let began = Instant::now();
    let slow = engine(1, 4 << 30).load("slow", &bomb(4000, 900)).unwrap_err();
    assert!(matches!(slow, LoadError::CompileTime(_)), "{slow}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    // Which of the compiler's many requests for memory is the one that fails is nobody's to say.
    let large = engine(60, 600 << 20).load("large", &bomb(20, 250_000)).unwrap_err();
    assert!(matches!(large, LoadError::CompileMemory(_) | LoadError::Compiler { .. }), "{large}");
}

#[test]
fn too_many_functions_are_refused_before_anything_is_compiled() {
    let began = Instant::now();
    let many = engine(60, 2 << 30).load("many", &bomb(100_000, 1)).unwrap_err();
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
