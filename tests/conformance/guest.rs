//! Guests in text format.
//!
//! `'abc'` stands for the address and the length of that string in the guest's memory; `out` for two addresses where a hostcall
//! may put an address and a length. What [`PRELUDE`] offers: `$add` and `$set` put a field with these words into map `$map`; `$note` appends
//! a letter to a trail in the shared data, which `$tell` puts into the response as `x-trail`.

use std::fmt::Write as _;

use portcullis_tests::guests::{Guest, with_strings};

const PRELUDE: &str = r#"
    (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
    (import "env" "proxy_add_header_map_value" (func $add_value (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_replace_header_map_value" (func $replace_value (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_remove_header_map_value" (func $remove_value (param i32 i32 i32) (result i32)))
    (import "env" "proxy_get_header_map_value" (func $get_value (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_header_map_pairs" (func $set_pairs (param i32 i32 i32) (result i32)))
    (import "env" "proxy_get_header_map_pairs" (func $get_pairs (param i32 i32 i32) (result i32)))
    (import "env" "proxy_get_buffer_bytes" (func $get_buffer (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_buffer_bytes" (func $set_buffer (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
    (import "env" "proxy_close_stream" (func $close (param i32) (result i32)))
    (import "env" "proxy_send_local_response" (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_get_shared_data" (func $get_shared (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_shared_data" (func $set_shared (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_get_property" (func $get_property (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_property" (func $set_property (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_http_call" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
    (import "env" "proxy_set_effective_context" (func $become (param i32) (result i32)))
    (import "env" "proxy_register_shared_queue" (func $register (param i32 i32 i32) (result i32)))
    (import "env" "proxy_enqueue_shared_queue" (func $enqueue (param i32 i32 i32) (result i32)))
    (import "env" "proxy_dequeue_shared_queue" (func $dequeue (param i32 i32 i32) (result i32)))
    (import "env" "proxy_done" (func $done (result i32)))
    (import "env" "proxy_get_status" (func $get_status (param i32 i32 i32) (result i32)))
    (import "env" "proxy_grpc_call"
        (func $grpc_call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_grpc_stream" (func $grpc_stream (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_grpc_send" (func $grpc_send (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_grpc_cancel" (func $grpc_cancel (param i32) (result i32)))
    (import "env" "proxy_grpc_close" (func $grpc_close (param i32) (result i32)))
    (memory (export "memory") 4)
    (global $heap (mut i32) (i32.const 65536))
    (func (export "proxy_abi_version_0_2_1"))
    (func $add (param i32 i32 i32 i32 i32)
        (drop (call $add_value (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4))))
    (func $set (param i32 i32 i32 i32 i32)
        (drop (call $replace_value (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4))))
    (func $remove (param i32 i32 i32) (drop (call $remove_value (local.get 0) (local.get 1) (local.get 2))))
    ;; The last digit of a number as a field of a map.
    (func $digit (param $map i32) (param $name i32) (param $len i32) (param $number i32)
        (i32.store8 (i32.const 64) (i32.add (i32.const 48) (i32.rem_u (local.get $number) (i32.const 10))))
        (call $add (local.get $map) (local.get $name) (local.get $len) (i32.const 64) (i32.const 1)))
    (func $note (param $letter i32)
        (local $size i32)
        (i32.store (i32.const 20) (i32.const 0))
        (drop (call $get_shared 'trail' out (i32.const 24)))
        (local.set $size (i32.load (i32.const 20)))
        (memory.copy (i32.const 8192) (i32.load (i32.const 16)) (local.get $size))
        (i32.store8 (i32.add (i32.const 8192) (local.get $size)) (local.get $letter))
        (drop (call $set_shared 'trail' (i32.const 8192) (i32.add (local.get $size) (i32.const 1)) (i32.const 0))))
    (func $tell (param $map i32)
        (i32.store (i32.const 20) (i32.const 0))
        (drop (call $get_shared 'trail' out (i32.const 24)))
        (call $set (local.get $map) 'x-trail' (i32.load (i32.const 16)) (i32.load (i32.const 20))))
"#;

/// Memory that comes round when it is used up.
const ALLOCATOR: &str = r#"
    (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
        (if (i32.gt_u (i32.add (global.get $heap) (local.get $size)) (i32.const 250000))
            (then (global.set $heap (i32.const 65536))))
        (global.get $heap)
        (global.set $heap (i32.add (global.get $heap) (local.get $size))))
"#;

/// A whole guest around these functions.
pub(crate) fn guest(functions: &str) -> Guest {
    guest_with(ALLOCATOR, functions)
}

/// The same, with an allocator of its own.
pub(crate) fn guest_with(allocator: &str, functions: &str) -> Guest {
    Guest::of_text(&with_strings(&format!("(module {PRELUDE} {allocator} {functions})")))
}

/// Fields as the ABI writes them (reference §4.1), as a string in text format.
pub(crate) fn pairs(fields: &[(&str, &str)]) -> String {
    let number = |number: usize| {
        number.to_le_bytes().iter().take(4).fold(String::new(), |all, byte| all + &format!("\\{byte:02x}"))
    };
    let mut text = number(fields.len());
    for (name, value) in fields {
        text += &number(name.len());
        text += &number(value.len());
    }
    for (name, value) in fields {
        write!(text, "{name}\\00{value}\\00").unwrap();
    }
    text
}

/// A configuration with one filter of this guest before an origin, and `/h2/` over HTTP/2.
pub(crate) const CONFIG: &str = r#"
upstreams:
  origin: { endpoints: ["{origin}"] }
  h2: { endpoints: ["{origin}"], protocol: http2 }
plugins: { guest: {wat} }
filters: [{ plugin: guest, config: "settings" }]
routes:
  - { name: all, match: { path: "/*" }, upstream: origin }
  - { name: h2, match: { path: "/h2/*" }, upstream: h2 }
"#;

/// A gateway with this guest before this origin.
pub(crate) fn gateway(origin: &dyn std::fmt::Display, functions: &str) -> portcullis_tests::gateway::Gateway {
    let guest = guest(functions);
    portcullis_tests::gateway::Gateway::start(CONFIG, &[("origin", origin), ("wat", &guest)])
}
