//! Which modules are taken, which are refused and in which words, and the cache of compiled ones.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use portcullis_vm::{Engine, EngineError, EngineOptions, LoadError};

use crate::harness::{engine, guest, refused, wasm};

const MARKER: &str = r#"(func (export "proxy_abi_version_0_2_1"))"#;
const MEMORY: &str = r#"(memory (export "memory") 1)"#;
const MALLOC: &str = r#"(func (export "malloc") (param i32) (result i32) (i32.const 0))"#;

#[test]
fn what_is_no_plugin_is_refused_with_the_reason() {
    let cases = [
        (format!("{MEMORY}{MALLOC}"), "it exports no `proxy_abi_version_…`"),
        (
            format!("{MEMORY}{MALLOC}{MARKER}(func (export \"proxy_abi_version_0_2_0\"))"),
            "it exports several ABI markers: proxy_abi_version_0_2_1, proxy_abi_version_0_2_0",
        ),
        (
            format!("{MEMORY}{MALLOC}(func (export \"proxy_abi_version_0_3_0\"))"),
            "it speaks a Proxy-Wasm ABI that is not known: `proxy_abi_version_0_3_0`",
        ),
        (format!("{MARKER}{MALLOC}"), "it exports no `memory`"),
        (format!("{MARKER}{MEMORY}"), "it exports neither `proxy_on_memory_allocate` nor `malloc`"),
        (
            format!("{MARKER}{MEMORY}(func (export \"malloc\") (param i64) (result i32) (i32.const 0))"),
            "its export `malloc` is (i64) -> (i32), and should be (i32) -> (i32)",
        ),
        (
            format!("{MARKER}{MEMORY}{MALLOC}(func (export \"proxy_on_request_body\") (param i32))"),
            "its export `proxy_on_request_body` is (i32) -> (), and should be (i32, i32, i32) -> (i32)",
        ),
        (
            format!("{MARKER}{MEMORY}{MALLOC}(global (export \"proxy_on_log\") i32 (i32.const 0))"),
            "its export `proxy_on_log` is no function, and should be (i32) -> ()",
        ),
        (
            format!(
                "(import \"env\" \"proxy_make_coffee\" (func (param i32 i64) (result i32)))
                (import \"env\" \"proxy_log\" (func (param i32)))
                (import \"host\" \"memory\" (memory 1))
                (import \"env\" \"g\" (global i32)){MARKER}{MALLOC}(export \"memory\" (memory 0))"
            ),
            "it imports what this gateway does not offer: `env.proxy_make_coffee` (i32, i64) -> (i32), `env.proxy_log` as \
             (i32) -> (), which is (i32, i32, i32) -> (i32), `host.memory`, a memory, `env.g`, which is no function",
        ),
        (
            format!("{MARKER}{MALLOC}(memory (export \"memory\") i64 1)"),
            "it cannot be compiled: memory64 must be enabled",
        ),
        (
            format!("{MARKER}{MALLOC}(memory (export \"memory\") 1 1 shared)"),
            "it cannot be compiled: threads must be enabled",
        ),
        (format!("{MARKER}{MALLOC}(memory (export \"memory\") 65536)"), "it cannot be compiled: "),
    ];
    for (text, want) in cases {
        let message = refused(&format!("(module {text})")).to_string();
        assert!(message.starts_with(want), "{message}");
    }
}

#[test]
fn what_is_no_module_is_refused_with_the_reason() {
    let component = wasm("(component)");
    let whole = wasm(&guest(""));
    for (bytes, want) in [
        (&b""[..], "it is not a WebAssembly module"),
        (b"\x7fELF\x02\x01\x01\0", "it is not a WebAssembly module"),
        (&component, "it is a WebAssembly component"),
        (&whole[..whole.len() / 2], "it cannot be compiled: "),
    ] {
        let message = engine().load("test", bytes).unwrap_err().to_string();
        assert!(message.starts_with(want), "{message}");
    }
}

#[test]
fn an_engine_that_could_not_work_is_not_made() {
    let make = |max_vms, max_memory| Engine::new(EngineOptions { max_vms, max_memory, ..EngineOptions::default() });
    assert!(matches!(make(0, 1 << 20), Err(EngineError::Vms(0))));
    assert!(matches!(make(16_385, 1 << 20), Err(EngineError::Vms(_))));
    assert!(matches!(make(1, 1000), Err(EngineError::Memory(1000))));
    assert!(matches!(make(1, 5 << 30), Err(EngineError::Memory(_))));
}

/// A directory of this test's own.
fn directory(name: &str) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _not_there = fs::remove_dir_all(&directory);
    directory
}

fn cached(directory: &std::path::Path) -> Arc<Engine> {
    Engine::new(EngineOptions {
        cache: Some(directory.to_owned()),
        max_vms: 4,
        max_memory: 1 << 20,
        ..EngineOptions::default()
    })
    .unwrap()
}

fn load(directory: &std::path::Path, bytes: &[u8]) -> Result<String, LoadError> {
    let mut loaded = Ok(());
    let log = crate::harness::logged(|| loaded = cached(directory).load("test", bytes).map(|_| ()));
    loaded.map(|()| log.split(" path=").next().unwrap_or_default().to_owned())
}

#[test]
fn a_compiled_module_is_kept_and_a_damaged_one_compiled_again() {
    let directory = directory("cache");
    let bytes = wasm(&guest(""));
    assert_eq!(load(&directory, &bytes).unwrap(), "");
    let entries: Vec<PathBuf> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [entry] = entries.as_slice() else { panic!("one entry, and nothing unfinished: {entries:?}") };
    let good = fs::read(entry).unwrap();
    let written = fs::metadata(entry).unwrap().modified().unwrap();

    assert_eq!(load(&directory, &bytes).unwrap(), "");
    assert_eq!(fs::metadata(entry).unwrap().modified().unwrap(), written, "it was taken from the cache");

    let middle = good.len() / 2;
    let mut flipped = good.clone();
    flipped[middle] ^= 1;
    for damaged in [&flipped[..], &good[..middle], &good[..10], b""] {
        fs::write(entry, damaged).unwrap();
        assert_eq!(load(&directory, &bytes).unwrap(), "# a compiled module is damaged; compiling it again");
        assert_eq!(fs::read(entry).unwrap(), good, "and kept again");
    }
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_cache_that_cannot_be_used_is_no_failure() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = directory("open-cache");
    fs::create_dir_all(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(load(&directory, &wasm(&guest(""))).unwrap(), "# the cache of compiled modules is not used");
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    fs::remove_dir_all(&directory).unwrap();
    fs::write(&directory, "a file").unwrap();
    assert_eq!(load(&directory, &wasm(&guest(""))).unwrap(), "# the cache of compiled modules is not used");
    fs::remove_file(&directory).unwrap();
}
