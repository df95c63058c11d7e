//! Which certificate a client gets, what is spoken, and for which hosts.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use portcullis_tests::client::Client;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::pki::Use;
use portcullis_tests::tls::{Dialer, Session as _};
use serde_json::Value;

use super::{ONE, Scene, usual};

const THREE: &str = r#"certificates: [{ cert: "{f}/a.pem", key: "{f}/a.key" }, { cert: "{f}/b.pem", key: "{f}/b.key" },
    { cert: "{f}/c.pem", key: "{f}/c.key" }]"#;

#[test]
fn the_name_a_client_asks_for_chooses_the_certificate() {
    let ((authority, files), origin) = (usual(), Origin::plain());
    let wild = authority.issue(&["*.b.test"], Use::Server);
    let exact = authority.issue(&["x.b.test", "b.test"], Use::Server);
    let first = authority.issue(&["a.test"], Use::Server);
    files.put_pair("a", &first);
    files.put_pair("b", &wild);
    files.put_pair("c", &exact);
    let gateway = Scene::new(&files, &origin, THREE).start();
    let dialer = Dialer::new(&authority);
    for (name, want) in
        [("a.test", &first), ("y.b.test", &wild), ("x.b.test", &exact), ("b.test", &exact), ("X.B.TEST", &exact)]
    {
        let mut client = dialer.connect(gateway.address(), name);
        assert!(client.certificate() == want.der(), "{name}");
        assert_eq!(client.ask("GET", "/", &[("host", name)], "").status(), 200, "{name}");
    }
    assert!(dialer.clone().nameless().connect(gateway.address(), "a.test").certificate() == first.der());
    // The first one again, which does not have that name.
    for name in ["z.y.b.test", "elsewhere.test"] {
        let error = dialer.try_connect(gateway.address(), name).err().unwrap();
        assert!(error.to_string().contains("not valid for name"), "{error}");
    }
}

#[test]
fn http2_is_spoken_with_those_who_offer_it_and_http1_with_the_rest() {
    let ((authority, files), origin) = (usual(), Origin::plain());
    let gateway = Scene::new(&files, &origin, ONE).start();
    let dialer = Dialer::new(&authority);
    let answer = dialer.h2(gateway.address(), "a.test").ask("GET", "/", &[("host", "a.test")], []).unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    for offer in [&["http/1.1"][..], &[]] {
        let mut client = dialer.clone().offering(offer).connect(gateway.address(), "a.test");
        assert_eq!(client.protocol(), offer.first().copied().unwrap_or_default());
        assert_eq!(client.ask("GET", "/", &[("host", "a.test")], "").status(), 200);
    }
    assert_eq!(dialer.clone().offering(&["http/1.1", "h2"]).connect(gateway.address(), "a.test").protocol(), "h2");
    // RFC 7301 §3.2: who offers only what is not spoken is told so.
    let error = dialer.offering(&["spdy/1"]).try_connect(gateway.address(), "a.test").err().unwrap();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    // Without ALPN there is no HTTP/2, prior knowledge or not.
    let mut client = Dialer::new(&authority).connect(gateway.address(), "a.test");
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert!(!String::from_utf8_lossy(&client.0.rest()).contains("200"));
}

#[test]
fn tls_1_2_is_spoken_unless_it_is_forbidden() {
    let ((authority, files), origin) = (usual(), Origin::plain());
    let old = Dialer::of_versions(&authority, &[&rustls::version::TLS12], None);
    let new = Dialer::of_versions(&authority, &[&rustls::version::TLS13], None);
    let gateway = Scene::new(&files, &origin, ONE).start();
    assert!(old.is_let_in(gateway.address(), "a.test").is_ok() && new.is_let_in(gateway.address(), "a.test").is_ok());
    let only_new = ONE.to_owned() + ", min_version: TLSv1.3";
    let gateway = Scene::new(&files, &origin, &only_new).start();
    let error = old.is_let_in(gateway.address(), "a.test").unwrap_err();
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
    assert!(new.is_let_in(gateway.address(), "a.test").is_ok());
}

#[test]
fn a_host_the_connection_is_not_for_is_misdirected_and_the_connection_goes_on() {
    let ((authority, files), origin) = (usual(), Origin::plain());
    files.put_pair("b", &authority.issue(&["b.test"], Use::Server));
    files.put_pair("c", &authority.issue(&["*.c.test"], Use::Server));
    let gateway = Scene::new(&files, &origin, THREE).start();
    let dialer = Dialer::new(&authority);
    let mut client = dialer.connect(gateway.address(), "a.test");
    let h2 = dialer.h2(gateway.address(), "a.test");
    for (host, want) in [
        ("a.test", 200),
        ("b.test", 421),
        ("A.test:8443", 200),
        ("also-a.test", 200),
        ("x.c.test", 421),
        ("elsewhere.test", 421),
        ("a.test", 200),
    ] {
        let answer = client.ask("GET", "/", &[("host", host)], "");
        assert_eq!(answer.status(), want, "{host}");
        if want == 421 {
            let problem: Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(problem["code"], "misdirected_request");
        }
        assert_eq!(h2.ask("GET", "/", &[("host", host)], []).unwrap().status, want, "{host} over HTTP/2");
    }
    assert_eq!(origin.begun(), 8, "nothing misdirected was sent on");
    // An absolute target says which host is meant, whatever `Host` says.
    client.send("GET http://b.test/ HTTP/1.1\r\nhost: a.test\r\n\r\n");
    assert_eq!(client.answer().status(), 421);
    // Health checks name no host, and ask for an address.
    let mut nameless = dialer.nameless().connect(gateway.address(), "a.test");
    for (host, want) in [("127.0.0.1:8443", 200), ("a.test", 200), ("b.test", 421), ("x.c.test", 421)] {
        assert_eq!(nameless.ask("GET", "/", &[("host", host)], "").status(), want, "{host} without a name");
    }
}

#[test]
fn everybody_is_told_that_the_request_came_encrypted() {
    let ((authority, files), origin) =
        (usual(), Origin::start(|seen| Answer::ok(format!("{:?}", seen.uri.scheme_str()))));
    let scene = Scene { script: "property=request.scheme", ..Scene::new(&files, &origin, ONE) };
    let gateway = scene.start();
    let dialer = Dialer::new(&authority);
    let host = [("host", "a.test"), ("x-forwarded-proto", "http")];
    let answer = dialer.connect(gateway.address(), "a.test").ask("GET", "/", &host, "");
    assert_eq!(answer.get("x-probe-property"), Some("https"));
    assert_eq!(origin.last().get("x-forwarded-proto"), Some("https"));
    let answer = dialer.h2(gateway.address(), "a.test").ask("GET", "/h2/", &host, []).unwrap();
    assert_eq!((answer.get("x-probe-property"), answer.text().as_str()), (Some("https"), "Some(\"https\")"));
}

#[test]
fn who_does_not_finish_a_handshake_is_let_go_and_the_next_one_served() {
    let ((authority, files), origin) = (usual(), Origin::plain());
    let brief = ONE.to_owned() + ", handshake_timeout: 3s";
    let gateway = Scene::new(&files, &origin, &brief).start();
    let silent: Vec<Client> = (0..50).map(|_| gateway.client()).collect();
    for mut client in silent {
        assert!(client.0.is_closed());
    }
    for garbage in [&b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n"[..], &[0x16, 3, 1, 0xff, 0xff], &[0; 4096]] {
        let mut stream = TcpStream::connect(gateway.address()).unwrap();
        stream.write_all(garbage).unwrap();
        let mut wire = portcullis_tests::wire::Wire::new(stream);
        assert!(!wire.rest().starts_with(b"HTTP/"), "an answer in the clear");
    }
    assert!(Dialer::new(&authority).is_let_in(gateway.address(), "a.test").is_ok());
    let failed = gateway.metric("portcullis_tls_handshakes_total", &["failed"]);
    assert!((failed - 53.0).abs() < 0.5, "{failed}");
}

#[test]
fn a_gateway_that_stops_does_not_wait_for_handshakes() {
    let ((_, files), origin) = (usual(), Origin::plain());
    let gateway = Scene::new(&files, &origin, ONE).start();
    let _silent: Vec<Client> = (0..8).map(|_| gateway.client()).collect();
    portcullis_tests::eventually("they are counted", || gateway.metric("portcullis_connections_open", &[]) > 7.5);
    let began = Instant::now();
    gateway.into_inner().stop();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
