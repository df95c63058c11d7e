//! Connections that a load balancer passes on with the PROXY protocol's header before them.

use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::Origin;

fn behind(origin: &Origin, proxy_protocol: &str, trusted: &str) -> Gateway {
    Gateway::start(
        r#"
listeners:
  main: { bind: "127.0.0.1:0", proxy_protocol: {mode}, trusted_proxies: [{trusted}], timeouts: { header: 3s } }
upstreams: { origin: { endpoints: ["{origin}"] } }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", origin), ("mode", &proxy_protocol), ("trusted", &trusted)],
    )
}

const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 443\r\n";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";

/// A version 2 header.
fn binary(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend([0x20 | command, family]);
    bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn refused(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric("portcullis_connections_refused_total", &[&format!("reason=\"{reason}\"")])
}

#[test]
fn the_address_in_the_header_is_the_clients() {
    let origin = Origin::plain();
    let gateway = behind(&origin, "required", "127.0.0.0/8");
    let four = [192, 0, 2, 8, 198, 51, 100, 1, 0xc3, 0x50, 1, 0xbb];
    let mut six = [0; 36];
    (six[0], six[1], six[15], six[31]) = (0x20, 1, 9, 1);
    let extended = [&four[..], &[4, 0, 1, 0]].concat();
    for (what, header, client) in [
        ("a line", LINE.to_vec(), "192.0.2.7"),
        ("IPv4", binary(1, 0x11, &four), "192.0.2.8"),
        ("IPv6", binary(1, 0x21, &six), "2001::9"),
        ("extensions", binary(1, 0x11, &extended), "192.0.2.8"),
        ("the proxy itself", binary(0, 0, &[]), "127.0.0.1"),
        ("nobody known", b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
    ] {
        let mut client_side = gateway.client();
        client_side.send([&header[..], REQUEST, REQUEST].concat());
        for _ in 0..2 {
            assert_eq!(client_side.answer().status(), 200, "{what}");
            assert_eq!(origin.last().get("x-forwarded-for"), Some(client), "{what}");
        }
    }
}

/// Byte by byte, so that every read could take too much.
#[test]
fn a_header_may_come_in_pieces() {
    let origin = Origin::plain();
    for mode in ["required", "optional"] {
        let gateway = behind(&origin, mode, "127.0.0.1");
        let mut client = gateway.client();
        for byte in [LINE, REQUEST].concat() {
            client.send([byte]);
        }
        assert_eq!(client.answer().status(), 200);
        assert_eq!(origin.last().get("x-forwarded-for"), Some("192.0.2.7"));
    }
}

#[test]
fn where_it_is_required_nothing_else_is_read() {
    let origin = Origin::plain();
    let gateway = behind(&origin, "required", "127.0.0.1");
    for (what, bytes) in [
        ("no header", REQUEST.to_vec()),
        ("a malformed line", b"PROXY TCP4 192.0.2.7 x 1 2\r\nGET / HTTP/1.1\r\nhost: test\r\n\r\n".to_vec()),
        ("a line without end", [b"PROXY ".as_slice(), &[b'x'; 200]].concat()),
        ("an unknown version", b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0".to_vec()),
        ("a huge header", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".to_vec()),
    ] {
        let mut client = gateway.client();
        client.send(&bytes);
        assert_eq!(client.0.rest(), b"", "{what}");
    }
    assert_eq!((refused(&gateway, "proxy_protocol"), origin.begun()), (5.0, 0));
    let mut slow = gateway.client();
    slow.send(&LINE[..20]);
    assert_eq!(slow.0.rest(), b"", "half a header, and then nothing");
    let mut next = gateway.client();
    next.send([LINE, REQUEST].concat());
    assert_eq!(next.answer().status(), 200);
}

#[test]
fn a_stranger_is_not_believed() {
    let origin = Origin::plain();
    let required = behind(&origin, "required", "10.0.0.0/8");
    let mut client = required.client();
    assert!(client.0.is_closed(), "only trusted proxies may connect");
    assert_eq!(refused(&required, "stranger"), 1.0);
    for (mode, trusted) in [("optional", "10.0.0.0/8"), ("\"off\"", "127.0.0.1")] {
        let gateway = behind(&origin, mode, trusted);
        let mut client = gateway.client();
        client.send([LINE, REQUEST].concat());
        assert_eq!(client.answer().status(), 400, "{mode}");
        assert!(client.0.is_closed());
        assert_eq!(gateway.get("/").status(), 200);
        assert_eq!(origin.last().get("x-forwarded-for"), Some("127.0.0.1"));
    }
}

#[test]
fn where_it_is_optional_trusted_proxies_may_leave_it_out() {
    let origin = Origin::plain();
    let gateway = behind(&origin, "optional", "127.0.0.1");
    for path in ["/", "/again"] {
        assert_eq!(gateway.ask("POST", path, &[], "x").status(), 200);
    }
    assert_eq!(gateway.h2().get("/").status, 200);
    assert_eq!(origin.last().get("x-forwarded-for"), Some("127.0.0.1"));
    let mut client = gateway.client();
    client.send([LINE, REQUEST].concat());
    assert_eq!(client.answer().status(), 200);
    assert_eq!(origin.last().get("x-forwarded-for"), Some("192.0.2.7"));
}

/// A proxy that speaks for another trusted proxy: whose word counts is a question of the address in the header.
#[test]
fn what_the_client_behind_it_claims_counts_only_if_that_is_trusted_too() {
    let origin = Origin::plain();
    let gateway = behind(&origin, "required", "127.0.0.1, 192.0.2.0/24");
    for (from, want) in [("192.0.2.7", "203.0.113.9, 192.0.2.7"), ("198.51.100.7", "198.51.100.7")] {
        let mut client = gateway.client();
        client.send(format!("PROXY TCP4 {from} 127.0.0.1 1 2\r\n"));
        client.send("GET / HTTP/1.1\r\nhost: test\r\nx-forwarded-for: 203.0.113.9\r\n\r\n");
        assert_eq!(client.answer().status(), 200);
        assert_eq!(origin.last().get("x-forwarded-for"), Some(want));
    }
}

#[test]
fn expecting_it_from_nobody_is_refused_at_start() {
    let origin = Origin::plain();
    let text = r#"
listeners: { main: { bind: "127.0.0.1:0", proxy_protocol: required } }
upstreams: { origin: { endpoints: ["{origin}"] } }
"#;
    let Err(why) = Gateway::try_start(text, &[("origin", &origin)]) else { panic!("it starts") };
    assert!(why.contains("trusts no proxy") && why.contains("trusted_proxies"), "{why}");
}
