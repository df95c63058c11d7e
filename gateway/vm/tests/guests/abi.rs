//! The ABI's hostcalls, written out from the reference §6 in its order: the host's own table must match.

use crate::harness::{Worker, guest, logged};

/// An argument, with a value that works.
pub(crate) enum Arg {
    /// A number.
    V(i32),
    /// A number of 64 bits.
    L(i64),
    /// An address and a length.
    P(&'static str),
    /// An address the host writes to.
    O,
}

use Arg::{L, O, P, V};

/// `env`'s functions and arguments that make them answer `Ok` in a request-headers callback.
pub(crate) const ENV: &[(&str, &[Arg])] = &[
    ("proxy_log", &[V(2), P("hi")]),
    ("proxy_get_log_level", &[O]),
    ("proxy_get_current_time_nanoseconds", &[O]),
    ("proxy_set_tick_period_milliseconds", &[V(0)]),
    ("proxy_set_effective_context", &[V(0)]),
    ("proxy_done", &[]),
    ("proxy_get_status", &[O, O, O]),
    ("proxy_call_foreign_function", &[P("compress"), P("x"), O, O]),
    ("proxy_get_header_map_value", &[V(0), P(":path"), O, O]),
    ("proxy_get_header_map_pairs", &[V(0), O, O]),
    ("proxy_get_header_map_size", &[V(0), O]),
    ("proxy_set_header_map_pairs", &[V(2), P("\\00\\00\\00\\00")]),
    ("proxy_add_header_map_value", &[V(0), P("x-a"), P("v")]),
    ("proxy_replace_header_map_value", &[V(0), P("x-a"), P("v")]),
    ("proxy_remove_header_map_value", &[V(0), P("x-a")]),
    ("proxy_get_buffer_bytes", &[V(7), V(0), V(100), O, O]),
    ("proxy_get_buffer_status", &[V(7), O, O]),
    ("proxy_set_buffer_bytes", &[V(0), V(0), V(0), P("v")]),
    ("proxy_continue_stream", &[V(0)]),
    ("proxy_close_stream", &[V(2)]),
    ("proxy_continue_request", &[]),
    ("proxy_continue_response", &[]),
    ("proxy_clear_route_cache", &[]),
    ("proxy_send_local_response", &[V(200), P("why"), P("body"), P("\\00\\00\\00\\00"), V(-1)]),
    (
        "proxy_http_call",
        &[
            P("origin"),
            P(
                "\\03\\00\\00\\00\\07\\00\\00\\00\\03\\00\\00\\00\\05\\00\\00\\00\\01\\00\\00\\00\\0a\\00\\00\\00\\01\\00\\00\\00:method\\00GET\\00:path\\00/\\00:authority\\00a\\00",
            ),
            P("body"),
            P("\\00\\00\\00\\00"),
            V(100),
            O,
        ],
    ),
    ("proxy_grpc_call", &[P("origin"), P("s"), P("m"), P("\\00\\00\\00\\00"), P("x"), V(100), O]),
    ("proxy_grpc_stream", &[P("origin"), P("s"), P("m"), P("\\00\\00\\00\\00"), O]),
    ("proxy_grpc_send", &[V(6), P("x"), V(0)]),
    ("proxy_grpc_cancel", &[V(5)]),
    ("proxy_grpc_close", &[V(6)]),
    ("proxy_get_shared_data", &[P("key"), O, O, O]),
    ("proxy_set_shared_data", &[P("key"), P("value"), V(0)]),
    ("proxy_register_shared_queue", &[P("q"), O]),
    ("proxy_resolve_shared_queue", &[P("vm"), P("q"), O]),
    ("proxy_enqueue_shared_queue", &[V(1), P("x")]),
    ("proxy_dequeue_shared_queue", &[V(1), O, O]),
    ("proxy_define_metric", &[V(0), P("m"), O]),
    ("proxy_increment_metric", &[V(4), L(1)]),
    ("proxy_record_metric", &[V(4), L(1)]),
    ("proxy_get_metric", &[V(4), O]),
    ("proxy_get_property", &[P("plugin_name"), O, O]),
    ("proxy_set_property", &[P("p"), P("v")]),
    ("proxy_get_configuration", &[O, O]),
    ("pthread_equal", &[V(1), V(2)]),
    ("emscripten_notify_memory_growth", &[V(0)]),
];

/// WASI's functions of the reference §5 in the order of the host's table, with their types.
const WASI: &[(&str, &str)] = &[
    ("fd_write", "iiii"),
    ("fd_pwrite", "iiiIi"),
    ("clock_time_get", "iIi"),
    ("clock_res_get", "ii"),
    ("random_get", "ii"),
    ("environ_sizes_get", "ii"),
    ("environ_get", "ii"),
    ("args_sizes_get", "ii"),
    ("args_get", "ii"),
    ("proc_exit", "i"),
    ("sched_yield", ""),
    ("poll_oneoff", "iiii"),
    ("fd_fdstat_get", "ii"),
    ("fd_fdstat_set_flags", "ii"),
    ("fd_fdstat_set_rights", "iII"),
    ("fd_close", "i"),
    ("fd_seek", "iIii"),
    ("fd_read", "iiii"),
    ("fd_pread", "iiiIi"),
    ("fd_prestat_get", "ii"),
    ("fd_prestat_dir_name", "iii"),
    ("fd_filestat_get", "ii"),
    ("fd_filestat_set_size", "iI"),
    ("fd_filestat_set_times", "iIIi"),
    ("fd_advise", "iIIi"),
    ("fd_allocate", "iII"),
    ("fd_datasync", "i"),
    ("fd_sync", "i"),
    ("fd_tell", "ii"),
    ("fd_readdir", "iiiIi"),
    ("fd_renumber", "ii"),
    ("path_open", "iiiiiIIii"),
    ("path_filestat_get", "iiiii"),
    ("path_filestat_set_times", "iiiiIIi"),
    ("path_create_directory", "iii"),
    ("path_remove_directory", "iii"),
    ("path_unlink_file", "iii"),
    ("path_link", "iiiiiii"),
    ("path_readlink", "iiiiii"),
    ("path_rename", "iiiiii"),
    ("path_symlink", "iiiii"),
    ("sock_accept", "iii"),
    ("sock_recv", "iiiiii"),
    ("sock_send", "iiiii"),
    ("sock_shutdown", "ii"),
];

/// Every import, for a guest's text: those of `env` by their names.
pub(crate) fn imports() -> String {
    let env = ENV.iter().map(|(name, args)| {
        let types: String = args
            .iter()
            .map(|arg| match arg {
                V(_) | O => " i32",
                L(_) => " i64",
                P(_) => " i32 i32",
            })
            .collect();
        let result = if *name == "emscripten_notify_memory_growth" { "" } else { "(result i32)" };
        format!("(import \"env\" \"{name}\" (func ${name} (param{types}) {result}))\n")
    });
    let wasi = WASI.iter().flat_map(|(name, types)| {
        let types: String = types.chars().map(|c| if c == 'i' { " i32" } else { " i64" }).collect();
        let result = if *name == "proc_exit" { "" } else { "(result i32)" };
        ["wasi_snapshot_preview1", "wasi_unstable"].map(|module| {
            let id = if module == "wasi_unstable" { String::new() } else { format!("${name}") };
            format!("(import \"{module}\" \"{name}\" (func {id} (param{types}) {result}))\n")
        })
    });
    env.chain(wasi).collect()
}

#[test]
fn the_guide_names_every_function() {
    let guide = include_str!("../../../../docs/abi.md");
    let all =
        portcullis_vm::hostcalls().chain(portcullis_vm::wasi_functions()).chain(portcullis_vm::foreign_functions());
    for name in all.chain(portcullis_vm::callbacks().filter(|name| name.starts_with("proxy_on_"))) {
        assert!(guide.contains(&format!("`{name}`")), "docs/abi.md does not name `{name}`");
    }
}

#[test]
fn the_table_is_the_abis_list_in_its_order() {
    let want: Vec<&str> = ENV.iter().map(|(name, _)| *name).chain(WASI.iter().map(|(name, _)| *name)).collect();
    let have: Vec<&str> = portcullis_vm::hostcalls().chain(portcullis_vm::wasi_functions()).collect();
    assert_eq!(have, want);
}

/// A call of `name` with its good arguments, but for the one at `bad`, which is `value`.
pub(crate) fn call(name: &str, args: &[Arg], bad: usize, value: Option<(i32, i32)>) -> String {
    let args = args.iter().enumerate().map(|(index, arg)| match (arg, value) {
        (P(_), Some((address, len))) if index == bad => format!("(i32.const {address}) (i32.const {len})"),
        (O, Some((address, _))) if index == bad => format!("(i32.const {address})"),
        (V(number), _) => format!("(i32.const {number})"),
        (L(number), _) => format!("(i64.const {number})"),
        (P(text), _) => format!("'{text}'"),
        (O, _) => format!("(i32.const {})", 16 + 8 * index),
    });
    let args: String = args.collect();
    format!("(call $text '{name} ') (call $n (call ${name} {args})) (call $n (i32.const {bad})) (call $end)\n")
}

fn in_request_headers(calls: &str) -> String {
    let functions = format!(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (call $proxy_set_shared_data 'key' 'value' (i32.const 0)))
            (drop (call $proxy_define_metric (i32.const 0) 'm' (i32.const 16)))
            (drop (call $proxy_register_shared_queue 'q' (i32.const 16)))
            (drop (call $proxy_enqueue_shared_queue (i32.const 1) 'item'))
            {calls}
            (i32.const 0))"#
    );
    logged(|| {
        Worker::new(&functions).head();
    })
}

#[test]
fn a_pointer_outside_memory_is_an_invalid_memory_access_in_every_hostcall() {
    let (mut calls, mut want) = (String::new(), Vec::new());
    // Memory is two pages: beyond it, across its end, and sums that wrap round.
    for bad in [(0x20_0000, 16), (0x1_ffff, 16), (-1, 16), (-16, 32), (16, -1), (-1, -1)] {
        for (name, args) in ENV {
            for (index, arg) in args.iter().enumerate() {
                let is_out = matches!(arg, O);
                if matches!(arg, P(_)) || (is_out && bad.0 != 16) {
                    calls += &call(name, args, index, Some(bad));
                    want.push(format!("{name} 6 {index} "));
                }
            }
        }
    }
    let log = in_request_headers(&calls);
    let have: Vec<&str> = log.lines().filter(|line| *line != "hi").collect();
    assert_eq!(have.len(), want.len());
    for (have, want) in have.iter().zip(&want) {
        assert_eq!(have, want);
    }
}

#[test]
fn good_arguments_are_answered_as_sdks_expect() {
    let calls: String = ENV
        .iter()
        .filter(|(name, _)| *name != "emscripten_notify_memory_growth")
        .map(|(name, args)| call(name, args, 0, None))
        .collect();
    let log = in_request_headers(&calls);
    let not_ok: Vec<&str> = log.lines().filter(|line| !line.contains(" 0 0 ") && !line.starts_with("# ")).collect();
    assert_eq!(not_ok, ["hi", "proxy_done 1 0 ", "proxy_set_header_map_pairs 2 0 ", "proxy_set_buffer_bytes 2 0 ",]);
}

#[test]
fn a_module_may_import_everything_that_is_offered() {
    portcullis_vm_loads(&guest(""));
}

fn portcullis_vm_loads(text: &str) {
    crate::harness::engine().load("all", &crate::harness::wasm(text)).unwrap();
}
