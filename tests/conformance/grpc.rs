//! §9.3, gRPC that guests speak, with tonic's server on the other side.

use portcullis_tests::eventually;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::Origin;
use portcullis_tests::process::free_address;

use self::notes::Notes;
use crate::guest;

#[allow(dead_code, reason = "the service of the gateway's own gRPC tests, of which these need less")]
#[path = "../e2e/grpc/notes.rs"]
mod notes;

/// A guest that does what the first letter of the path says, writes down what it hears, and answers with that in the end.
///
/// Statuses are digits from `0` on, so that 14 is `>`. `I`, `M`, `T` and `C` stand for the four callbacks.
const SPEAKER: &str = r#"
    (global $id (mut i32) (i32.const 0))
    (global $len (mut i32) (i32.const 0))
    (global $do (mut i32) (i32.const 0))
    (func $say (param $at i32) (param $size i32)
        (memory.copy (i32.add (i32.const 16384) (global.get $len)) (local.get $at) (local.get $size))
        (global.set $len (i32.add (global.get $len) (local.get $size))))
    (func $letter (param $letter i32)
        (i32.store8 (i32.add (i32.const 16384) (global.get $len)) (local.get $letter))
        (global.set $len (i32.add (global.get $len) (i32.const 1))))
    (func $status (param $status i32) (call $letter (i32.add (i32.const 48) (local.get $status))))
    (func $answer
        (drop (call $become (global.get $id)))
        (drop (call $reply (i32.const 200) '' (i32.const 16384) (global.get $len) '' (i32.const -1))))
    (func $unary (param $method i32) (param $method_len i32) (param $text i32) (param $len i32) (param $ms i32)
        (call $status (call $grpc_call 'notes' 'test.Notes' (local.get $method) (local.get $method_len) ''
            (local.get $text) (local.get $len) (local.get $ms) (i32.const 32))))
    (func $stream (param $method i32) (param $method_len i32) (param $text i32) (param $len i32) (param $end i32)
        (call $status (call $grpc_stream 'notes' 'test.Notes' (local.get $method) (local.get $method_len) '' (i32.const 32)))
        (call $status (call $grpc_send (i32.load (i32.const 32)) (local.get $text) (local.get $len) (local.get $end))))
    (func $is (param $letter i32) (result i32) (i32.eq (global.get $do) (local.get $letter)))
    (func (export "proxy_on_request_headers") (param $id i32) (param i32 i32) (result i32)
        (global.set $id (local.get $id)) (global.set $len (i32.const 0))
        (drop (call $get_value (i32.const 0) ':path' out))
        (global.set $do (i32.load8_u (i32.add (i32.load (i32.const 16)) (i32.const 1))))
        (if (call $is (i32.const 115)) (then (call $unary 'Say' '\0a\05hello' (i32.const 0)))) ;; s
        (if (call $is (i32.const 102)) (then (call $unary 'Say' '\0a\04fail' (i32.const 5000)))) ;; f
        (if (call $is (i32.const 119)) (then (call $status (call $grpc_call 'silent' 'test.Notes' 'Say' ''
            '' (i32.const 100) (i32.const 32))))) ;; w
        (if (call $is (i32.const 109)) (then (call $unary 'None' '' (i32.const 5000)))) ;; m
        (if (call $is (i32.const 99)) (then (call $stream 'Count' '\10\03' (i32.const 1)))) ;; c
        (if (call $is (i32.const 101)) (then (call $stream 'Count' '\10\eb\07' (i32.const 1)))) ;; e
        (if (call $is (i32.const 116)) (then (call $stream 'Chat' '\0a\03one' (i32.const 0)))) ;; t
        (if (call $is (i32.const 120)) (then (call $stream 'Count' '' (i32.const 1)))) ;; x
        (if (call $is (i32.const 100)) (then (call $stream 'Chat' '\0a\03one' (i32.const 0)))) ;; d
        (if (call $is (i32.const 112)) (then (call $status (call $grpc_call '\0a\07\0a\05notes' 'test.Notes' 'Say' ''
            '\0a\02pb' (i32.const 5000) (i32.const 32))))) ;; p
        (if (call $is (i32.const 110)) (then (call $status (call $grpc_call 'nobody' 'test.Notes' 'Say' ''
            '' (i32.const 5000) (i32.const 32))))) ;; n
        (if (call $is (i32.const 117)) (then (call $status (call $grpc_stream 'unknown' 'test.Notes' 'Say' ''
            (i32.const 32))) (call $answer))) ;; u
        (i32.const 1))
    (func (export "proxy_on_grpc_receive_initial_metadata") (param $root i32) (param $token i32) (param i32)
        (call $letter (i32.const 73))
        (drop (call $get_value (i32.const 4) 'content-type' out))
        (call $say (i32.load (i32.const 16)) (i32.load (i32.const 20))))
    (func (export "proxy_on_grpc_receive") (param $root i32) (param $token i32) (param $size i32)
        (call $letter (i32.const 77))
        (drop (call $get_buffer (i32.const 5) (i32.const 0) (local.get $size) out))
        (call $say (i32.load (i32.const 16)) (i32.load (i32.const 20)))
        (if (i32.eq (i32.rem_u (local.get $token) (i32.const 4)) (i32.const 1)) (then (call $answer)))
        (if (call $is (i32.const 116)) (then ;; a chat: once more, then the end
            (if (i32.lt_u (global.get $len) (i32.const 40))
                (then (call $status (call $grpc_send (local.get $token) '\0a\03two' (i32.const 0))))
                (else (call $status (call $grpc_close (local.get $token)))
                    (call $status (call $grpc_send (local.get $token) 'x' (i32.const 0)))))))
        (if (call $is (i32.const 120)) (then ;; enough
            (call $status (call $grpc_cancel (local.get $token)))
            (call $status (call $grpc_cancel (local.get $token)))
            (call $answer)))
        (if (call $is (i32.const 100)) (then (unreachable))))
    (func (export "proxy_on_grpc_receive_trailing_metadata") (param $root i32) (param $token i32) (param i32)
        (call $letter (i32.const 84))
        (drop (call $get_value (i32.const 5) 'grpc-status' out))
        (call $say (i32.load (i32.const 16)) (i32.load (i32.const 20))))
    (func (export "proxy_on_grpc_close") (param $root i32) (param $token i32) (param $status i32)
        (call $letter (i32.const 67)) (call $status (local.get $status))
        (if (call $get_status (i32.const 24) out) (then unreachable))
        (if (i32.ne (i32.load (i32.const 24)) (local.get $status)) (then unreachable))
        (call $say (i32.load (i32.const 16)) (i32.load (i32.const 20)))
        (call $answer))
"#;

const CONFIG: &str = r#"
upstreams:
  origin: { endpoints: ["{origin}"] }
  notes: { endpoints: ["{notes}"], protocol: http2 }
  silent: { endpoints: ["{silent}"], protocol: http2 }
  nobody: { endpoints: ["{nobody}"], protocol: http2, timeouts: { connect: 500ms } }
plugins: { guest: {wat} }
filters: [{ plugin: guest, config: "settings" }]
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#;

/// The listener takes connections, and nobody reads what comes.
fn gateway(notes: &Notes, origin: &Origin) -> (Gateway, std::net::TcpListener) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap();
    let nobody = free_address();
    let guest = guest::guest(SPEAKER);
    let places: [(&str, &dyn std::fmt::Display); 5] =
        [("origin", origin), ("notes", notes), ("nobody", &nobody), ("silent", &silent), ("wat", &guest)];
    (Gateway::start(CONFIG, &places), listener)
}

#[test]
fn calls_and_streams_are_told_in_the_abis_callbacks() {
    let (notes, origin) = (Notes::start(), Origin::plain());
    let (gateway, _silent) = gateway(&notes, &origin);
    let refused = "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure";
    let grpc = "application/grpc";
    for (path, want) in [
        ("/say", "0M\n\u{5}HELLO".to_owned()),
        ("/protobuf", "0M\n\u{2}PB".to_owned()),
        ("/fail", "0C9no: é %".to_owned()),
        ("/wait", "0C>upstream request timeout".to_owned()),
        ("/missing", "0C<no such method".to_owned()),
        ("/nobody", format!("0C>{refused}")),
        ("/unknown", "4".to_owned()),
        ("/count", format!("00I{grpc}M\u{10}\u{1}M\u{10}\u{2}M\u{10}\u{3}T0C0")),
        ("/error", format!("00I{grpc}M\u{10}\u{1}M\u{10}\u{2}M\u{10}\u{3}T8C8three is enough")),
        ("/talk", format!("00I{grpc}M\n\u{3}ONE\u{10}\u{1}0M\n\u{3}TWO\u{10}\u{2}0M\n\u{3}TWO\u{10}\u{3}02T0C0")),
        ("/x", format!("00I{grpc}M\u{10}\u{1}01")),
    ] {
        let answer = gateway.get(path);
        assert_eq!((answer.status(), answer.text()), (200, want), "{path}");
    }
    assert!(origin.seen().is_empty());
    eventually("nothing is left of the endless answer", || notes.live() == 0);
}

#[test]
fn what_a_vm_has_under_way_ends_with_it_and_the_next_speaks_again() {
    let (notes, origin) = (Notes::start(), Origin::plain());
    let (gateway, _silent) = gateway(&notes, &origin);
    assert_eq!(gateway.get("/die").status(), 503);
    eventually("the stream was reset", || notes.live() == 0);
    assert_eq!(gateway.get("/say").text(), "0M\n\u{5}HELLO");
}
