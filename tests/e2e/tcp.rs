//! `tcp` listeners, in what they share with those for requests: encryption, the PROXY protocol, endpoints, revisions.

use portcullis_tests::client::{Client, request};
use portcullis_tests::gateway::Gateway;
use portcullis_tests::guests::Guest;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::pki::{Authority, Files, Use};
use portcullis_tests::process::free_address;
use portcullis_tests::raw::RawOrigin;
use portcullis_tests::tls::{Dialer, origin};

fn echo() -> RawOrigin {
    RawOrigin::start(|wire, _| {
        while let Ok(bytes) = wire.some() {
            if wire.write(bytes).is_err() {
                return;
            }
        }
    })
}

const ECHO: &str = r#"
listeners: { bytes: { bind: "127.0.0.1:0", protocol: tcp, upstream: echo, {more} } }
upstreams: { echo: { endpoints: [{endpoints}], protocol: tcp, timeouts: { connect: 5s } } }
plugins: { names: {names} }
routes: []
"#;

/// Puts the client's address in the place of what it says.
const NAMES: &str = r#"(module
    (import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_buffer_bytes" (func $set (param i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 16) "source\00address")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "malloc") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_downstream_data") (param i32 i32 i32) (result i32)
        (drop (call $get (i32.const 16) (i32.const 14) (i32.const 0) (i32.const 4)))
        (call $set (i32.const 2) (i32.const 0) (i32.const -1) (i32.load (i32.const 0)) (i32.load (i32.const 4)))))"#;

fn gateway(endpoints: &str, more: &str) -> (Gateway, Guest) {
    let names = Guest::of_text(NAMES);
    let gateway = Gateway::start(ECHO, &[("endpoints", &endpoints), ("more", &more), ("names", &names)]);
    (gateway, names)
}

#[test]
fn bytes_are_decrypted_and_encrypted_on_their_way() {
    let (authority, files) = (Authority::new("everyone"), Files::default());
    files.put_pair("a", &authority.issue(&["a.test"], Use::Server));
    files.put("ca.pem", &authority.pem());
    let server = origin(&authority.issue(&["localhost"], Use::Server), &[], None);
    let origin = Origin::encrypted(server, |seen| Answer::ok(format!("{} came by itself", seen.uri)));
    let gateway = Gateway::start(
        r#"
listeners:
  bytes:
    bind: "127.0.0.1:0"
    protocol: tcp
    upstream: secret
    tls: { certificates: [{ cert: "{f}/a.pem", key: "{f}/a.key" }] }
upstreams: { secret: { endpoints: ["localhost:{port}"], protocol: tcp, tls: { ca: "{f}/ca.pem" } } }
routes: []
"#,
        &[("f", &files), ("port", &origin.address.port())],
    );
    let mut client = Dialer::new(&authority).connect(gateway.address(), "a.test");
    client.send(request("GET", "/a//b", &[], ""));
    assert_eq!(client.answer().text(), "/a//b came by itself", "what looks like a request is nobody's business");
}

#[test]
fn the_proxy_protocol_says_who_the_client_is() {
    let echo = echo();
    let more = r#"proxy_protocol: required, trusted_proxies: [127.0.0.0/8], filters: [{ plugin: names }]"#;
    let (gateway, _names) = gateway(&format!("\"{echo}\""), more);
    let mut client = gateway.client();
    client.send("PROXY TCP4 192.0.2.7 198.51.100.1 50000 443\r\nwho am I?");
    assert_eq!(client.0.exactly(15).unwrap(), b"192.0.2.7:50000");
    let mut stranger = gateway.client();
    stranger.send("who am I?\r\n");
    assert_eq!(stranger.0.rest(), b"", "without the header there is no connection");
}

#[test]
fn an_endpoint_that_is_not_there_is_passed_over_and_none_closes_the_connection() {
    let nobody = free_address();
    let echo = echo();
    let (some, _names) = gateway(&format!("\"{nobody}\", \"{echo}\""), "filters: []");
    for _ in 0..4 {
        let mut client = some.client();
        client.send("hello");
        assert_eq!(client.0.exactly(5).unwrap(), b"hello");
    }
    let (none, _names) = gateway(&format!("\"{nobody}\""), "filters: []");
    assert_eq!(none.client().0.rest(), b"");
}

#[test]
fn a_change_lets_open_connections_be() {
    let (one, two) = (echo(), RawOrigin::start(|wire, _| _ = wire.write("other")));
    let names = Guest::of_text(NAMES);
    let config = |origin: &RawOrigin| ECHO.replace("{endpoints}", &format!("\"{origin}\""));
    let gateway = Gateway::start(&config(&one), &[("more", &"filters: []"), ("names", &names)]);
    let mut before = gateway.client();
    before.send("hello");
    assert_eq!(before.0.exactly(5).unwrap(), b"hello");
    gateway.apply(&config(&two), &[("more", &"filters: []"), ("names", &names)]).unwrap();
    assert_eq!(Client::connect(gateway.address()).0.rest(), b"other");
    before.send("still");
    assert_eq!(before.0.exactly(5).unwrap(), b"still");
}
