//! What filters and upstreams are told of a client's certificate, and that no client can say it itself.

use portcullis_tests::gateway::Gateway;
use portcullis_tests::guests::Guest;
use portcullis_tests::origin::Origin;
use portcullis_tests::pki::{Authority, Files, Use};
use portcullis_tests::tls::Dialer;

use super::{MUTUAL, ONE, Scene, usual};

const FIELD: &str = "x-forwarded-client-cert";
const FORGED: (&str, &str) = (FIELD, "Hash=0;Subject=\"CN=admin\"");

fn mutual() -> (Authority, Authority, Files) {
    let ((servers, files), clients) = (usual(), Authority::new("clients"));
    files.put("clients.pem", &clients.pem());
    (servers, clients, files)
}

#[test]
fn a_filter_reads_who_the_client_is() {
    let (servers, clients, files) = mutual();
    let origin = Origin::plain();
    let tls = MUTUAL.replace("{mode}", "mode: optional");
    let issued = clients.issue(&["orders.test", "spiffe://test/orders"], Use::Client);
    let (known, unknown) = (Dialer::showing(&servers, &issued), Dialer::new(&servers));
    let old = Dialer::of_versions(&servers, &[&rustls::version::TLS12], Some(&issued));
    let read = |dialer: &Dialer, property: &str| {
        let script = format!("property=connection.{property}");
        let gateway = Scene { script: &script, ..Scene::new(&files, &origin, &tls) }.start();
        let mut client = dialer.connect(gateway.address(), "a.test");
        let answer = client.ask("GET", "/", &[("host", "a.test")], "");
        answer.get("x-probe-property").unwrap_or("none").to_owned()
    };
    let fields = [
        ("requested_server_name", "a.test", "a.test"),
        ("tls_version", "TLSv1.3", "TLSv1.3"),
        ("subject_local_certificate", "CN=a.test", "CN=a.test"),
        ("dns_san_local_certificate", "a.test", "a.test"),
        ("uri_san_local_certificate", "spiffe://test/gateway", "spiffe://test/gateway"),
        ("subject_peer_certificate", "CN=orders.test", "-"),
        ("dns_san_peer_certificate", "orders.test", "-"),
        ("uri_san_peer_certificate", "spiffe://test/orders", "-"),
    ];
    for (property, of_known, of_unknown) in fields {
        assert_eq!(read(&known, property), of_known, "{property}");
        assert_eq!(read(&unknown, property), of_unknown, "{property} without a certificate");
    }
    assert_eq!(read(&old, "tls_version"), "TLSv1.2");
    let digest = read(&known, "sha256_peer_certificate_digest");
    assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()), "{digest}");
    assert!(read(&known, "peer_certificate").starts_with("-----BEGIN%20CERTIFICATE-----%0AMII"));
}

/// Answers 200, or 201 when `connection.mtls` is true: that is one byte, which no header field can hold.
const MTLS: &str = r#"(module
    (import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_send_local_response" (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 1024) "connection\00mtls")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 2048))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (drop (call $get (i32.const 1024) (i32.const 15) (i32.const 16) (i32.const 20)))
        (drop (call $reply (i32.add (i32.const 200) (i32.load8_u (i32.load (i32.const 16)))) (i32.const 0) (i32.const 0)
            (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const -1)))
        (i32.const 1)))"#;

#[test]
fn a_filter_reads_whether_the_client_has_shown_a_certificate() {
    let (servers, clients, files) = mutual();
    let text = r#"
listeners:
  main:
    bind: "127.0.0.1:0"
    tls: { certificates: [{ cert: "{f}/a.pem", key: "{f}/a.key" }], client_auth: { ca: "{f}/clients.pem", mode: optional } }
plugins: { guest: {wat} }
filters: [{ plugin: guest }]
"#;
    let gateway = Gateway::start(text, &[("f", &files), ("wat", &Guest::of_text(MTLS))]);
    let status = |dialer: Dialer| {
        dialer.connect(gateway.address(), "a.test").ask("GET", "/", &[("host", "a.test")], "").status()
    };
    assert_eq!(status(Dialer::new(&servers)), 200);
    assert_eq!(status(Dialer::showing(&servers, &clients.issue(&["x"], Use::Client))), 201);
}

#[test]
fn a_forged_certificate_is_removed_and_the_verified_one_put_in_its_place() {
    let (servers, clients, files) = mutual();
    let origin = Origin::plain();
    let tls = MUTUAL.replace("{mode}", "mode: optional");
    let issued = clients.issue(&["orders.test", "spiffe://test/orders"], Use::Client);
    let own = "By=spiffe://test/gateway;Hash=";
    let rest = ";Subject=\"CN=orders.test\";URI=spiffe://test/orders;DNS=orders.test";
    for (more, with, without) in [
        ("", None, None),
        ("forward_client_certificate: { mode: strip }", None, None),
        ("forward_client_certificate: { mode: keep }", None, None),
        ("forward_client_certificate: { mode: set }", Some((own, rest)), None),
        ("forward_client_certificate: { mode: append }", Some((own, rest)), None),
        (
            "trusted_proxies: [127.0.0.1], forward_client_certificate: { mode: append }",
            Some(("Hash=0;Subject=\"CN=admin\",By=spiffe://test/gateway;Hash=", rest)),
            Some(FORGED.1),
        ),
        (
            "trusted_proxies: [127.0.0.1], forward_client_certificate: { mode: keep }",
            Some((FORGED.1, "")),
            Some(FORGED.1),
        ),
        ("trusted_proxies: [127.0.0.1], forward_client_certificate: { mode: set }", Some((own, rest)), None),
        ("trusted_proxies: [127.0.0.1]", None, None),
    ] {
        let gateway = Scene { more, ..Scene::new(&files, &origin, &tls) }.start();
        let seen = |dialer: Dialer| {
            let fields = [("host", "a.test"), FORGED, ("X-Forwarded-Client-Cert", "Hash=1")];
            dialer.connect(gateway.address(), "a.test").ask("GET", "/", &fields[..2], "");
            let first = origin.last().get(FIELD).map(str::to_owned);
            dialer.h2(gateway.address(), "a.test").ask("GET", "/", &fields[..2], []).unwrap();
            assert_eq!(origin.last().get(FIELD).map(str::to_owned), first, "{more}: HTTP/2 and HTTP/1.1 differ");
            first
        };
        let got = seen(Dialer::showing(&servers, &issued));
        match with {
            Some((start, end)) => {
                assert!(
                    got.as_ref().is_some_and(|got| got.starts_with(start) && got.ends_with(end)),
                    "{more}: {got:?}"
                );
            }
            None => assert_eq!(got, None, "{more}"),
        }
        assert_eq!(seen(Dialer::new(&servers)).as_deref(), without, "{more}, without a certificate");
    }
}

#[test]
fn the_whole_certificate_is_told_where_that_is_asked_for() {
    let (servers, clients, files) = mutual();
    let origin = Origin::plain();
    let tls = MUTUAL.replace("{mode}", "mode: required");
    let more = "forward_client_certificate: { mode: set, pem: true }";
    let gateway = Scene { more, ..Scene::new(&files, &origin, &tls) }.start();
    let issued = clients.issue(&["orders.test"], Use::Client);
    Dialer::showing(&servers, &issued).is_let_in(gateway.address(), "a.test").unwrap();
    let seen = origin.last().get(FIELD).unwrap().to_owned();
    let pem = seen.split("Cert=\"").nth(1).unwrap().split('"').next().unwrap();
    let pem = pem.replace("%20", " ").replace("%0A", "\n").replace("%2B", "+").replace("%2F", "/").replace("%3D", "=");
    assert_eq!(pem, issued.pem().replace("\r\n", "\n"));
}

#[test]
fn a_forged_certificate_does_not_pass_a_listener_in_the_clear_either() {
    let origin = Origin::plain();
    let gateway = Gateway::in_front_of(&origin, "[]");
    let _answer = gateway.ask("GET", "/", &[FORGED], "");
    assert_eq!(origin.last().get(FIELD), None);
    let ((servers, files), origin) = (usual(), Origin::plain());
    let gateway = Scene::new(&files, &origin, ONE).start();
    Dialer::new(&servers).connect(gateway.address(), "a.test").ask("GET", "/", &[("host", "a.test"), FORGED], "");
    assert_eq!(origin.last().get(FIELD), None);
}
