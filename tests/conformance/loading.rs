//! §1 and §2, which modules run: versions of the ABI, start functions, allocators.

use portcullis_tests::gateway::Gateway;
use portcullis_tests::guests::Guest;
use portcullis_tests::origin::Origin;

use crate::guest::CONFIG;

const MEMORY: &str =
    r#"(memory (export "memory") 2) (func (export "malloc") (param i32) (result i32) (i32.const 70000))"#;

fn served(text: &str) -> Option<String> {
    let origin = Origin::plain();
    let guest = Guest::of_text(text);
    let gateway = Gateway::start(CONFIG, &[("origin", &origin), ("wat", &guest)]);
    assert_eq!(gateway.get("/").status(), 200);
    origin.last().get("x-a").map(str::to_owned)
}

#[test]
fn all_versions_of_the_abi_run() {
    for version in ["0_1_0", "0_2_0", "0_2_1"] {
        let told = served(&format!(
            r#"(module
            (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
            {MEMORY} (data (i32.const 8) "x-a")
            (func (export "proxy_abi_version_{version}"))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (drop (call $add (i32.const 0) (i32.const 8) (i32.const 3) (i32.const 8) (i32.const 3))) (i32.const 0)))"#
        ));
        assert_eq!(told.as_deref(), Some("x-a"), "{version}");
    }
}

#[test]
fn start_functions_run_first_and_the_right_one() {
    for (exports, want) in [
        (&["_initialize"][..], "i"),
        (&["_start"], "s"),
        (&["_initialize", "_start"], "i"),
        (&["_initialize", "main"], "m"),
        (&[], "-"),
    ] {
        let mut functions = String::new();
        for name in exports {
            let letter = name.trim_start_matches('_').as_bytes()[0];
            let (parameters, result) =
                if *name == "main" { ("(param i32 i32) (result i32)", "(i32.const 0)") } else { ("", "") };
            functions += &format!(
                r#"(func (export "{name}") {parameters} (i32.store8 (i32.const 16) (i32.const {letter})) {result})"#
            );
        }
        let told = served(&format!(
            r#"(module
            (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
            {MEMORY} (data (i32.const 8) "x-a") (data (i32.const 16) "-")
            (func (export "proxy_abi_version_0_2_1"))
            {functions}
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (drop (call $add (i32.const 0) (i32.const 8) (i32.const 3) (i32.const 16) (i32.const 1))) (i32.const 0)))"#
        ));
        assert_eq!(told.as_deref(), Some(want), "{exports:?}");
    }
}

#[test]
fn wasi_is_there_under_both_its_names() {
    for module in ["wasi_snapshot_preview1", "wasi_unstable"] {
        let told = served(&format!(
            r#"(module
            (import "{module}" "proc_exit" (func (param i32)))
            (import "{module}" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (import "{module}" "random_get" (func $random (param i32 i32) (result i32)))
            {MEMORY}
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (if (call $random (i32.const 64) (i32.const 8)) (then unreachable))
                (if (call $write (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 32)) (then unreachable))
                (i32.const 0)))"#
        ));
        assert_eq!(told, None);
    }
}
