//! §1.2 and §2: older versions of the ABI, and modules of other shapes, as text.

use crate::case::{Case, case, post};

const SECTION: &str = "§1.2";

const IMPORTS: &str = r#"
    (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
    (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
"#;

/// What all of these have. `$say` logs a text and a digit behind it.
const COMMON: &str = r#"
    (memory (export "memory") 2)
    (func (export "malloc") (param i32) (result i32) (i32.const 32768))
    (func $say (param $text i32) (param $len i32) (param $digit i32)
        (memory.copy (i32.const 16384) (local.get $text) (local.get $len))
        (i32.store8 (i32.add (i32.const 16384) (local.get $len)) (i32.add (i32.const 48) (local.get $digit)))
        (drop (call $log (i32.const 2) (i32.const 16384) (i32.add (local.get $len) (i32.const 1)))))
    (func (export "proxy_on_delete") (param i32) (drop (call $log (i32.const 2) 'LABEL|gone')))
"#;

const OLDEST: &str = r#"
    (import "env" "proxy_get_configuration" (func $configuration (param i32 i32) (result i32)))
    (import "env" "proxy_continue_request" (func $continue_request (result i32)))
    (import "env" "proxy_continue_response" (func $continue_response (result i32)))
    (import "env" "proxy_clear_route_cache" (func $clear (result i32)))
    (func (export "proxy_abi_version_0_1_0"))
"#;

pub(crate) fn cases() -> Vec<Case> {
    let module = |name: &'static str, imports: &str, functions: &str| {
        case(SECTION, name, "").module(format!("(module {IMPORTS} {imports} {COMMON} {functions})"))
    };
    let newer = |version: &str| format!("(func (export \"proxy_abi_version_{version}\"))");
    vec![
        module(
            "the-oldest-abi-cannot-tell-what-is-absent",
            OLDEST,
            r#"(func (export "proxy_on_request_headers") (param i32 i32) (result i32)
                (call $say 'LABEL|status ' (call $get (i32.const 0) 'x-none' out))
                (call $say 'LABEL|length ' (i32.load (i32.const 20)))
                (call $say 'LABEL|status ' (call $get (i32.const 0) ':method' out))
                (call $say 'LABEL|length ' (i32.load (i32.const 20)))
                (i32.const 0))"#,
        ),
        module(
            "the-oldest-abi-reads-its-configuration",
            OLDEST,
            r#"(global $size (mut i32) (i32.const 0))
            (global $status (mut i32) (i32.const 9))
            (func (export "proxy_on_configure") (param i32 i32) (result i32)
                (global.set $status (call $configuration out))
                (global.set $size (i32.sub (local.get 1) (i32.load (i32.const 20))))
                (i32.const 1))
            (func (export "proxy_on_request_headers") (param i32 i32) (result i32)
                (call $say 'LABEL|status ' (global.get $status))
                (call $say 'LABEL|missing ' (global.get $size))
                (call $say 'LABEL|later ' (call $configuration out))
                (i32.const 0))"#,
        ),
        module(
            "the-oldest-abi-goes-on",
            OLDEST,
            r#"(func (export "proxy_on_request_headers") (param i32 i32) (result i32)
                (call $say 'LABEL|status ' (call $clear))
                (call $say 'LABEL|status ' (call $continue_request)) (i32.const 1))
            (func (export "proxy_on_response_headers") (param i32 i32) (result i32)
                (call $say 'LABEL|status ' (call $continue_response)) (i32.const 1))"#,
        ),
        module(
            "the-second-abi-tells-what-is-absent",
            "",
            &(newer("0_2_0")
                + r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (call $say 'LABEL|status ' (call $get (i32.const 0) 'x-none' out))
                (call $say 'LABEL|end ' (local.get 2)) (i32.const 0))"#),
        )
        .ask(post("body")),
        module(
            "a-module-of-assemblyscript-and-emscripten",
            r#"(import "wasi_unstable" "proc_exit" (func (param i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
            (import "env" "emscripten_notify_memory_growth" (func $grown (param i32)))
            (import "env" "pthread_equal" (func $equal (param i32 i32) (result i32)))"#,
            &(newer("0_2_1")
                + r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (call $grown (i32.const 0))
                (call $say 'LABEL|equal ' (call $equal (i32.const 7) (i32.const 7)))
                (call $say 'LABEL|equal ' (call $equal (i32.const 7) (i32.const 8))) (i32.const 0))"#),
        ),
        module(
            "both-start-functions",
            "",
            &(newer("0_2_1")
                + r#"(global $order (mut i32) (i32.const 0))
                (func (export "_initialize") (global.set $order (i32.const 1)))
                (func (export "main") (param i32 i32) (result i32) (global.set $order (i32.add (global.get $order) (i32.const 2))) (i32.const 0))
                (func (export "_start") (global.set $order (i32.const 9)))
                (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                    (call $say 'LABEL|order ' (global.get $order)) (i32.const 0))"#),
        ),
    ]
}
