//! What a module is not granted it does not get on Envoy either.

use std::fs;

use portcullis_tests::client::Client;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::guests::{Guest, with_strings};
use portcullis_tests::origin::Origin;

use super::Exported;

const CONFIG: &str = r#"
version: 1
access_log: off
admin: { bind: "127.0.0.1:0" }
listeners: { main: { bind: "127.0.0.1:0" } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
plugins: { plain: { module: "file:GUEST" }, narrow: { module: "file:GUEST", capabilities: [CAPABILITIES] } }
routes:
  - { name: plain, match: { path: /plain }, upstream: origin, filters: [{ plugin: plain }] }
  - { name: narrow, match: { path: /narrow }, upstream: origin, filters: [{ plugin: narrow }] }
"#;
const CAPABILITIES: &str = "proxy_add_header_map_value, proxy_on_context_create, proxy_on_request_headers";

/// A guest that tells upstreams whether it may ask for the time, and clients that it was called.
fn asks() -> Guest {
    Guest::of_text(&with_strings(
        r#"(module
        (import "env" "proxy_get_current_time_nanoseconds" (func $time (param i32) (result i32)))
        (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 2)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 65536))
        (func (export "proxy_on_context_create") (param i32 i32))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (if (i32.eq (call $time (i32.const 512)) (i32.const 10))
                (then (drop (call $add (i32.const 0) 'x-time' 'refused')))
                (else (drop (call $add (i32.const 0) 'x-time' 'told'))))
            (i32.const 0))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
            (drop (call $add (i32.const 2) 'x-called' 'yes'))
            (i32.const 0)))"#,
    ))
}

#[test]
fn what_a_module_is_not_granted_it_gets_on_neither_side() {
    let (origin, guest) = (Origin::plain(), asks());
    let config = CONFIG.replace("ORIGIN", &origin.to_string()).replace("CAPABILITIES", CAPABILITIES);
    let config = config.replace("GUEST", guest.path().to_str().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("portcullis.yaml");
    fs::write(&file, &config).unwrap();
    let Some(exported) = Exported::start(&file) else { return };
    let gateway = Gateway::start(&config, &[]);
    for (side, address) in [("here", gateway.address()), ("Envoy", exported.address())] {
        for (path, time, called) in [("/plain", "told", Some("yes")), ("/narrow", "refused", None)] {
            let answer = Client::connect(address).ask("GET", path, &[], "");
            assert_eq!((answer.status(), answer.get("x-called")), (200, called), "{side} {path}");
            assert_eq!(origin.last().get("x-time"), Some(time), "{side} {path}");
        }
    }
}
