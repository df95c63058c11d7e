//! What a filter of connections can still ask for when it is told to log: the same on both sides.

use std::fmt::Write as _;
use std::fs;

use portcullis_tests::client::Client;
use portcullis_tests::eventually;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::guests::{Guest, with_strings};
use portcullis_tests::origin::Origin;
use portcullis_tests::raw::RawOrigin;

use super::Exported;

const CONFIG: &str = r#"
version: 1
access_log: off
admin: { bind: "127.0.0.1:0" }
listeners: { bytes: { bind: "127.0.0.1:0", protocol: tcp, upstream: echo, filters: [{ plugin: tells }] } }
upstreams:
  echo: { endpoints: ["ECHO"], protocol: tcp }
  origin: { endpoints: ["ORIGIN"] }
plugins: { tells: { module: "file:GUEST" } }
"#;

/// Properties, and whether their values are compared: some are a host's own.
const ASKED: [(&str, bool); 28] = [
    ("plugin_name", true),
    ("source.address", false),
    ("source.port", false),
    ("destination.address", false),
    ("connection.id", false),
    ("connection.mtls", true),
    ("connection.tls_version", true),
    ("connection.requested_server_name", true),
    ("connection.termination_details", true),
    ("upstream.address", false),
    ("upstream.port", false),
    ("upstream.num_endpoints", true),
    ("upstream.request_attempt_count", true),
    ("upstream.cx_pool_ready_duration", false),
    ("upstream.transport_failure_reason", true),
    ("xds.cluster_name", true),
    ("xds.listener_direction", false),
    ("request.path", true),
    ("request.protocol", true),
    ("request.time", false),
    ("request.duration", false),
    ("request.size", true),
    ("request.total_size", true),
    ("response.code", true),
    ("response.code_details", true),
    ("response.flags", true),
    ("response.size", true),
    ("response.backend_latency", false),
];

/// A guest that asks for all of them when it logs, and tells an upstream what it was answered: a status, the value, and a full stop.
fn tells() -> Guest {
    let head = pairs(&[(":method", "POST"), (":path", "/told"), (":authority", "told")]);
    let ask = |(name, shown): &(&str, bool)| {
        let show = u8::from(*shown);
        format!("(call $ask '{}' (i32.const {show}))", name.replace('.', "\\00"))
    };
    let asks: String = ASKED.iter().map(ask).collect();
    Guest::of_text(&with_strings(&format!(
        r#"(module
        (import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_http_call" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 3)
        (global $end (mut i32) (i32.const 131072))
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) (i32.const 65536))
        (func $put (param $byte i32)
            (i32.store8 (global.get $end) (local.get $byte))
            (global.set $end (i32.add (global.get $end) (i32.const 1))))
        (func $ask (param $path i32) (param $len i32) (param $show i32)
            (local $status i32)
            (local.set $status (call $get (local.get $path) (local.get $len) (i32.const 32) (i32.const 36)))
            (call $put (i32.add (i32.const 48) (local.get $status)))
            (if (i32.and (local.get $show) (i32.eqz (local.get $status)))
                (then
                    (memory.copy (global.get $end) (i32.load (i32.const 32)) (i32.load (i32.const 36)))
                    (global.set $end (i32.add (global.get $end) (i32.load (i32.const 36))))))
            (call $put (i32.const 46)))
        (func (export "proxy_on_downstream_data") (param i32 i32 i32) (result i32) (i32.const 0))
        (func (export "proxy_on_log") (param i32)
            {asks}
            (drop (call $call 'origin' '{head}'
                (i32.const 131072) (i32.sub (global.get $end) (i32.const 131072)) '' (i32.const 5000) (i32.const 40)))))"#
    )))
}

/// A list of pairs as the ABI has it, in the escapes of the text format.
fn pairs(pairs: &[(&str, &str)]) -> String {
    let number = |number: usize| u32::try_from(number).unwrap().to_le_bytes();
    let mut bytes = number(pairs.len()).to_vec();
    pairs.iter().for_each(|(name, value)| bytes.extend([number(name.len()), number(value.len())].concat()));
    pairs.iter().for_each(|(name, value)| bytes.extend(format!("{name}\0{value}\0").into_bytes()));
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "\\{byte:02x}").unwrap();
        text
    })
}

#[test]
fn what_a_filter_of_connections_reads_when_it_logs_is_the_same() {
    let echo = RawOrigin::start(|wire, _| {
        while let Ok(bytes) = wire.some() {
            if bytes.is_empty() || wire.write(bytes).is_err() {
                return;
            }
        }
    });
    let (origin, guest) = (Origin::plain(), tells());
    let config = CONFIG.replace("ECHO", &echo.to_string()).replace("ORIGIN", &origin.to_string());
    let config = config.replace("GUEST", guest.path().to_str().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("portcullis.yaml");
    fs::write(&file, &config).unwrap();
    let Some(exported) = Exported::start(&file) else { return };
    let gateway = Gateway::start(&config, &[]);
    let told = [gateway.address(), exported.address()].map(|address| {
        let before = origin.seen().len();
        let mut client = Client::connect(address);
        client.send("hello");
        assert_eq!(client.0.exactly(5).unwrap(), b"hello");
        client.0.finish_sending();
        assert_eq!(client.0.rest(), b"");
        eventually("the filter tells what it reads", || origin.seen().len() > before);
        origin.last().body
    });
    let [ours, theirs] = told.map(|told| {
        let mut answers: Vec<String> = Vec::new();
        let mut rest = &told[..];
        for (name, _) in ASKED {
            // Numbers have zeros behind them, and no value has a full stop.
            let end = rest.iter().position(|byte| *byte == b'.').unwrap();
            answers.push(format!("{name} {}", rest[..end].escape_ascii()));
            rest = &rest[end + 1..];
        }
        answers
    });
    let differ: Vec<_> = std::iter::zip(&ours, &theirs).filter(|(ours, theirs)| ours != theirs).collect();
    assert!(differ.is_empty(), "here, on Envoy: {differ:#?}");
}
