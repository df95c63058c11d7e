//! Connections that leave HTTP: who may, and what the other side is told.

mod tunnels;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use portcullis_tests::client::Client;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::Origin;
use portcullis_tests::raw::RawOrigin;
use portcullis_tests::tunnel::{ACCEPT, Connect, Echo, handshake, switched};
use portcullis_tests::wire::{Head, Wire};
use portcullis_tests::{PATIENCE, eventually};

/// Routes with and without upgrades, over both protocols.
pub(crate) const ROUTES: &str = r#"
upstreams:
  origin: { endpoints: ["{origin}"], timeouts: { connect: 1s, response: 10s } }
  h2: { endpoints: ["{origin}"], protocol: http2 }
plugins: { probe: {guest:probe} }
filters: {filters}
routes:
  - { name: plain, match: { path: "/*" }, upstream: origin }
  - { name: ws, match: { path: "/ws/*" }, upstream: origin, upgrades: [websocket, irc/6.9] }
  - { name: h2, match: { path: "/h2/*" }, upstream: h2, upgrades: [websocket] }
  - { name: brief, match: { path: "/brief/*" }, upstream: origin, upgrades: [websocket], tunnel_idle: 3s }
"#;

/// No filter at all, and one that holds bodies to their end and changes them.
const UNWATCHED_AND_WATCHED: [&str; 2] =
    ["[]", "[{ plugin: probe, config: \"headers upper@request_body upper@response_body\" }]"];

fn gateway(origin: &dyn std::fmt::Display, filters: &str) -> Gateway {
    Gateway::start(ROUTES, &[("origin", origin), ("filters", &filters)])
}

fn probed(origin: &dyn std::fmt::Display, script: &str) -> Gateway {
    gateway(origin, &format!("[{{ plugin: probe, config: \"{script}\" }}]"))
}

/// An origin that opens every WebSocket and then does this.
fn opening(then: impl Fn(&mut Wire, Head) + Send + Sync + 'static) -> RawOrigin {
    RawOrigin::start(move |wire, _| {
        let Ok(head) = wire.head() else { return };
        if wire.write(switched("")).is_ok() {
            then(wire, head);
        }
    })
}

fn open(client: &mut Client, path: &str) -> Head {
    client.send(handshake(path, ""));
    let head = client.0.head().unwrap();
    assert_eq!(head.status(), 101, "{head:?}");
    head
}

#[test]
fn bytes_pass_both_ways_once_the_upstream_has_switched() {
    for filters in UNWATCHED_AND_WATCHED {
        let origin = Echo::start();
        let gateway = gateway(&origin, filters);
        for path in ["/ws/a", "/h2/a"] {
            let mut client = gateway.client();
            let head = open(&mut client, path);
            for (name, value) in [
                ("connection", "upgrade"),
                ("upgrade", "websocket"),
                ("sec-websocket-accept", ACCEPT),
                ("x-origin", "echo"),
            ] {
                assert_eq!(head.all(name), [value], "{filters} {path}");
            }
            for framing in ["content-length", "transfer-encoding"] {
                assert_eq!(head.get(framing), None);
            }
            for sent in ["mixed Case", "\r\n\r\nGET / HTTP/1.1\r\n\r\n"] {
                client.send(sent);
                assert_eq!(client.0.exactly(sent.len()).unwrap(), sent.as_bytes(), "{filters} {path}");
            }
            client.0.finish_sending();
            assert_eq!(client.0.rest(), b"", "{filters} {path}");
        }
        assert_eq!(origin.count(), 2);
    }
}

#[test]
fn filters_see_the_head_of_the_answer_and_never_the_bytes() {
    let origin = Echo::start();
    let gateway = probed(&origin, "headers");
    for path in ["/ws/a", "/h2/a"] {
        let mut client = gateway.client();
        assert_eq!(open(&mut client, path).get("x-probe-response"), Some("seen"), "{path}");
        let (_, seen) = origin.last();
        assert_eq!(seen.get("x-probe-request").map(|value| value.as_bytes()), Some(&b"seen"[..]), "{path}");
    }
    // They are asked of what a client over HTTP/1.1 would have sent, whichever way it came.
    let gateway = probed(&origin, "property=request.method");
    let connect = Connect::to(gateway.address()).unwrap();
    let (_, headers, _) = connect.ask("websocket", "/ws/a", &[("sec-websocket-version", "13")]).unwrap();
    assert_eq!(headers.get("x-probe-property").map(|value| value.as_bytes()), Some(&b"GET"[..]));
}

#[test]
fn the_upstream_gets_exactly_the_two_fields_that_ask() {
    let (told, heard) = mpsc::channel();
    let told = Mutex::new(told);
    let origin = opening(move |_, head| _ = told.lock().unwrap().send(head));
    let gateway = gateway(&origin, "[]");
    let mut client = gateway.client();
    client.send(handshake("/ws/a", "keep-alive: 5\r\nhttp2-settings: AAMAAABk\r\nte: gzip\r\nx-a: 1\r\n"));
    assert_eq!(client.0.head().unwrap().status(), 101);
    let seen: Head = heard.recv_timeout(PATIENCE).unwrap();
    assert_eq!((seen.all("connection"), seen.all("upgrade")), (vec!["upgrade"], vec!["websocket"]));
    for gone in ["keep-alive", "http2-settings", "te"] {
        assert_eq!(seen.get(gone), None);
    }
    assert_eq!((seen.get("x-a"), seen.get("sec-websocket-version")), (Some("1"), Some("13")));
}

#[test]
fn a_filter_refuses_or_holds_an_upgrade_before_the_upstream_hears_of_it() {
    let origin = Echo::start();
    let gateway = probed(&origin, "reply=403");
    let mut client = gateway.client();
    client.send(handshake("/ws/a", ""));
    assert_eq!(client.answer().status(), 403);
    assert_eq!(client.get("/next").status(), 403, "the connection still speaks HTTP");
    let connect = Connect::to(gateway.address()).unwrap();
    let (status, ..) = connect.ask("websocket", "/ws/a", &[]).unwrap();
    assert_eq!((status.as_u16(), origin.count()), (403, 0));
    // Whatever a filter replies with, a client over HTTP/2 must not take it for an open tunnel.
    let gateway = probed(&origin, "reply=200");
    let connect = Connect::to(gateway.address()).unwrap();
    let (status, ..) = connect.ask("websocket", "/ws/a", &[]).unwrap();
    assert_eq!((status.as_u16(), origin.count()), (502, 0));
    let authority = Origin::start(|_| portcullis_tests::origin::Answer::ok("yes"));
    let text = ROUTES.replace("upstreams:", "upstreams:\n  authority: { endpoints: [\"{authority}\"] }");
    let filters = "[{ plugin: probe, config: \"callout=authority\" }]";
    let gateway = Gateway::start(&text, &[("origin", &origin), ("authority", &authority), ("filters", &filters)]);
    let mut client = gateway.client();
    open(&mut client, "/ws/a");
    assert_eq!(origin.last().1.get("x-probe-callout").map(|value| value.as_bytes()), Some(&b"200 yes"[..]));
    client.send("x");
    assert_eq!(client.0.exactly(1).unwrap(), b"x");
}

#[test]
fn what_a_route_does_not_allow_is_refused_or_ignored() {
    let origin = Origin::plain();
    let gateway = gateway(&origin, "[]");
    let mut client = gateway.client();
    client.send(handshake("/plain", ""));
    let answer = client.answer();
    assert_eq!(answer.status(), 403);
    assert!(answer.text().contains("\"upgrade_refused\""), "{}", answer.text());
    assert_eq!(origin.begun(), 0);
    // The same connection goes on; an upgrade that is only an offer is answered over HTTP/1.1.
    for (path, offer) in [
        ("/plain", "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"),
        ("/ws/a", "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"),
        ("/plain", "connection: upgrade\r\nupgrade: irc/6.9\r\n"),
        ("/ws/a", "upgrade: websocket\r\n"),
        ("/ws/a", "connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 4\r\n"),
    ] {
        let body = if offer.contains("content-length") { "body" } else { "" };
        client.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n{offer}\r\n{body}"));
        assert_eq!(client.answer().status(), 200, "{path} {offer}");
        let seen = origin.last();
        for gone in ["upgrade", "connection", "http2-settings"] {
            assert_eq!(seen.get(gone), None, "{path} {offer}");
        }
    }
    let mut old = gateway.client();
    old.send(handshake("/ws/a", "").replace("HTTP/1.1", "HTTP/1.0"));
    assert_eq!((old.answer().status(), origin.last().get("upgrade")), (200, None), "HTTP/1.0 has no upgrades");
    let connect = Connect::to(gateway.address()).unwrap();
    for (protocol, path) in [("websocket", "/plain"), ("h2c", "/ws/a"), ("connect-udp", "/ws/a")] {
        let (status, _, tunnel) = connect.ask(protocol, path, &[]).unwrap();
        let body = tunnel.err().unwrap();
        assert_eq!(status, 403, "{protocol} {path}");
        assert!(String::from_utf8_lossy(&body).contains("\"upgrade_refused\""), "{protocol} {path}: {body:?}");
    }
}

#[test]
fn without_any_upgrade_clients_are_not_told_of_extended_connect() {
    let origin = Echo::start();
    let gateway = Gateway::in_front_of(&origin, "[]");
    assert!(Connect::to(gateway.address()).is_none());
}

#[test]
fn what_is_sent_behind_an_upgrade_waits_for_the_answer() {
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: test\r\n\r\n";
    for (answer, status) in [
        (switched(""), 101),
        ("HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n".to_owned(), 426),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(), 200),
    ] {
        let (told, heard) = mpsc::channel();
        let told = Mutex::new(told);
        let origin = RawOrigin::start(move |wire, _| {
            let Ok(head) = wire.head() else { return };
            // Nothing may follow the request while it is unanswered.
            wire.stream().set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let early = wire.some().is_ok();
            wire.stream().set_read_timeout(Some(PATIENCE)).unwrap();
            let _sent = wire.write(&answer);
            let after = wire.some().unwrap_or_default();
            let _test_is_over = told.lock().unwrap().send((head.start, early, after));
        });
        let gateway = gateway(&origin, "[]");
        let mut client = gateway.client();
        client.send(handshake("/ws/a", "") + smuggled);
        assert_eq!(client.0.head().unwrap().status(), status);
        let (start, early, after) = heard.recv_timeout(PATIENCE).unwrap();
        assert_eq!((start.as_str(), early), ("GET /ws/a HTTP/1.1", false), "{status}");
        let after = String::from_utf8(after).unwrap();
        if status == 101 {
            assert_eq!(after, smuggled, "in the tunnel it is bytes like any others");
        } else {
            // It is the client's next request, read and routed as such.
            assert!(after.contains("\r\nx-request-id: "), "{status}: {after}");
        }
    }
}

#[test]
fn an_upstream_that_only_claims_to_have_switched_opens_nothing() {
    let no_proof = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let other = switched("").replace("websocket\r\n", "irc\r\n");
    let wrong = switched("").replace(ACCEPT, "AAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    for (what, answer, request) in [
        ("without proof", no_proof.to_owned(), handshake("/ws/a", "")),
        ("with a wrong proof", wrong, handshake("/ws/a", "")),
        ("to something else", other, handshake("/ws/a", "")),
        // Where no tunnel was asked for, the answer is already out of order as bytes.
        ("to a request without upgrade", switched(""), "GET /ws/a HTTP/1.1\r\nhost: test\r\n\r\n".to_owned()),
        (
            "on a route without upgrades",
            switched(""),
            "GET / HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: irc/6.9\r\n\r\n".to_owned(),
        ),
    ] {
        let code = if request.contains("websocket") { "upgrade_failed" } else { "upstream_protocol" };
        let closed = Arc::new(AtomicUsize::new(0));
        let counted = closed.clone();
        let origin = RawOrigin::start(move |wire, number| {
            let Ok(_) = wire.head() else { return };
            if number > 1 {
                _ = wire.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
                return;
            }
            let _sent = wire.write(format!("{answer}HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison"));
            if wire.is_closed() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        let gateway = gateway(&origin, "[]");
        let mut client = gateway.client();
        client.send(&request);
        let failed = client.answer();
        assert_eq!(failed.status(), 502, "{what}");
        assert!(failed.text().contains(code), "{what}: {}", failed.text());
        eventually("the upstream's connection is closed", || closed.load(Ordering::SeqCst) == 1);
        assert_eq!(client.get("/").status(), 200, "{what}: the next request gets a connection of its own");
        assert_eq!(origin.connections(), 2, "{what}");
    }
}

#[test]
fn for_a_client_over_http2_the_gateway_checks_the_proof() {
    // This origin's proof is for the key of the example, and the gateway makes its own.
    let origin = RawOrigin::start(|wire, number| {
        let Ok(_) = wire.head() else { return };
        let settings = number == 1;
        _ = wire.write(if settings { "HTTP/1.1 204 No Content\r\n\r\n".to_owned() } else { switched("") });
    });
    let gateway = gateway(&origin, "[]");
    let connect = Connect::to(gateway.address()).unwrap();
    let (status, _, tunnel) = connect.ask("websocket", "/ws/a", &[]).unwrap();
    assert_eq!(status, 502);
    assert!(String::from_utf8_lossy(&tunnel.err().unwrap()).contains("\"upgrade_failed\""));
}

#[test]
fn a_refused_upgrade_is_a_response_like_any_other() {
    let origin = Echo::start();
    let gateway = Gateway::start(
        &ROUTES.replace("/ws/*", "/no/*").replace("/h2/*", "/no-h2/*"),
        &[("origin", &origin), ("filters", &"[]")],
    );
    for path in ["/no/a", "/no-h2/a"] {
        let mut client = gateway.client();
        client.send(handshake(path, ""));
        let answer = client.answer();
        assert_eq!((answer.status(), answer.text().as_str()), (403, "not here"), "{path}");
        assert_eq!((answer.get("connection"), answer.get("upgrade")), (None, None), "{path}");
        assert_eq!(client.get("/other").status(), 403, "{path}: the connection still speaks HTTP");
        let connect = Connect::to(gateway.address()).unwrap();
        let (status, _, tunnel) = connect.ask("websocket", path, &[]).unwrap();
        assert_eq!((status.as_u16(), tunnel.err().unwrap().as_ref()), (403, &b"not here"[..]), "{path} from HTTP/2");
    }
}

#[test]
fn websockets_over_http2_reach_upstreams_of_both_protocols() {
    let origin = Echo::start();
    let gateway = gateway(&origin, "[{ plugin: probe, config: \"headers\" }]");
    let connect = Connect::to(gateway.address()).unwrap();
    for (path, method) in [("/ws/a", "GET"), ("/h2/a", "CONNECT")] {
        let (status, headers, tunnel) = connect
            .ask("websocket", path, &[("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat")])
            .unwrap();
        assert_eq!(status, 200, "{path}");
        for gone in ["connection", "upgrade", "sec-websocket-accept"] {
            assert_eq!(headers.get(gone), None, "{path}");
        }
        assert_eq!(headers.get("x-probe-response").map(|value| value.as_bytes()), Some(&b"seen"[..]), "{path}");
        let (came, seen) = origin.last();
        assert_eq!(came.as_str(), method, "{path}");
        assert_eq!(seen.contains_key("sec-websocket-key"), method == "GET", "{path}: RFC 8441 §5");
        assert_eq!(seen.get("sec-websocket-protocol").map(|value| value.as_bytes()), Some(&b"chat"[..]), "{path}");
        let mut tunnel = tunnel.unwrap();
        let piece: Vec<u8> = (0..=255).cycle().take(200_000).collect();
        tunnel.send(&piece[..10_000]);
        assert_eq!(tunnel.exactly(10_000), piece[..10_000], "{path}");
        tunnel.send(&piece[..50_000]);
        tunnel.finish_sending();
        assert_eq!(tunnel.rest(), piece[..50_000], "{path}: what was sent before closing comes back");
    }
    // Its other streams are not touched by any of this.
    assert_eq!(gateway.h2().get("/plain").status, 403);
}

#[test]
fn an_upstream_that_has_not_said_that_it_takes_extended_connect_is_not_asked() {
    let origin = Origin::plain();
    let gateway = gateway(&origin, "[]");
    let mut client = gateway.client();
    for round in 0..2 {
        client.send(handshake("/h2/a", ""));
        let answer = client.answer();
        assert_eq!(answer.status(), 502, "{round}");
        assert!(answer.text().contains("\"upgrade_failed\""), "{round}: {}", answer.text());
        assert_eq!(client.get("/h2/b").status(), 200, "{round}");
    }
    assert_eq!((origin.begun(), origin.last().connection), (2, 1), "nor is its connection touched");
}
