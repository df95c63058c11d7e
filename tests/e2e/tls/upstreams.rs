//! TLS to upstreams: whom the gateway believes, what it shows them, and what is said when it does not.

use portcullis_tests::eventually;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin, Seen};
use portcullis_tests::pki::{Authority, Files, Use};
use portcullis_tests::tls::origin;
use serde_json::Value;

const GATEWAY: &str = r#"
upstreams:
  origin: { endpoints: ["localhost:{port}"], protocol: {protocol}, tls: { {tls} }, timeouts: { connect: 5s } }
  plain: { endpoints: ["{plain}"] }
plugins: { probe: {guest:probe} }
routes:
  - { name: all, match: { path: "/*" }, upstream: origin }
  - { name: called, match: { path: "/called" }, upstream: plain, filters: [{ plugin: probe, config: "callout=origin" }] }
"#;

struct Scene {
    authority: Authority,
    files: Files,
    plain: Origin,
}

impl Scene {
    fn new() -> Self {
        let (authority, files) = (Authority::new("origins"), Files::default());
        files.put("ca.pem", &authority.pem());
        Self { authority, files, plain: Origin::plain() }
    }

    fn gateway(&self, origin: &Origin, protocol: &str, tls: &str) -> Gateway {
        let tls = tls.replace("{f}", &self.files.to_string());
        let port = origin.address.port();
        let places: [(&str, &dyn std::fmt::Display); 4] =
            [("port", &port), ("protocol", &protocol), ("tls", &tls), ("plain", &self.plain)];
        Gateway::start(GATEWAY, &places)
    }

    fn origin(&self, names: &[&str], protocols: &[&str], clients: Option<&Authority>) -> Origin {
        Origin::encrypted(origin(&self.authority.issue(names, Use::Server), protocols, clients), answer)
    }
}

fn answer(seen: &Seen) -> Answer {
    Answer::ok(format!("{:?} {}", seen.version, seen.get("host").or(seen.uri.host()).unwrap_or("-")))
}

const OWN: &str = r#"ca: "{f}/ca.pem""#;

/// The status and the code word of a request.
fn outcome(gateway: &Gateway) -> (u16, String) {
    let answer = gateway.get("/");
    let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    (answer.status(), problem["code"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn an_upstream_is_believed_when_its_authority_and_its_name_are_right() {
    let scene = Scene::new();
    let refused = (502, "upstream_tls".to_owned());
    let right = scene.origin(&["localhost"], &[], None);
    let gateway = scene.gateway(&right, "http1", OWN);
    let mut client = gateway.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), "HTTP/1.1 test");
    }
    assert_eq!(right.last().connection, 1, "the connection is kept");
    assert_eq!(outcome(&scene.gateway(&right, "http1", "")), refused, "the machine does not trust it");
    assert_eq!(outcome(&scene.gateway(&right, "http1", &format!("{OWN}, server_name: other.test"))), refused);
    let named = scene.origin(&["other.test"], &[], None);
    assert_eq!(outcome(&scene.gateway(&named, "http1", OWN)), refused, "it has another name");
    assert_eq!(outcome(&scene.gateway(&named, "http1", &format!("{OWN}, server_name: other.test"))).0, 200);
    let expired = scene.authority.issue_until(&["localhost"], Use::Server, 2020);
    let expired = Origin::encrypted(origin(&expired, &[], None), answer);
    assert_eq!(outcome(&scene.gateway(&expired, "http1", OWN)), refused, "it has expired");
    let client = scene.authority.issue(&["localhost"], Use::Client);
    let client = Origin::encrypted(origin(&client, &[], None), answer);
    assert_eq!(outcome(&scene.gateway(&client, "http1", OWN)), refused, "it is for clients");
    assert_eq!(outcome(&scene.gateway(&scene.plain, "http1", OWN)), refused, "it does not speak TLS");
    assert_eq!(scene.plain.begun() + expired.begun() + client.begun(), 0);
}

#[test]
fn nothing_of_the_reason_reaches_the_client() {
    let scene = Scene::new();
    let named = scene.origin(&["secret-name.internal"], &[], None);
    let answer = scene.gateway(&named, "http1", OWN).get("/");
    let text = answer.text();
    assert!(answer.status() == 502 && !text.contains("secret-name") && !text.contains("certificate"), "{text}");
}

#[test]
fn an_upstream_that_asks_for_a_certificate_gets_ours() {
    let scene = Scene::new();
    let clients = Authority::new("gateways");
    for protocols in [&["http/1.1"][..], &["h2"]] {
        let protocol = if protocols == ["h2"] { "http2" } else { "http1" };
        let origin = scene.origin(&["localhost"], protocols, Some(&clients));
        let own = format!("{OWN}, certificate: {{ cert: \"{{f}}/own.pem\", key: \"{{f}}/own.key\" }}");
        scene.files.put_pair("own", &clients.issue(&["gateway"], Use::Client));
        assert_eq!(outcome(&scene.gateway(&origin, protocol, &own)).0, 200, "{protocol}");
        assert_eq!(outcome(&scene.gateway(&origin, protocol, OWN)), (502, "upstream_tls".to_owned()), "{protocol}");
        scene.files.put_pair("own", &Authority::new("others").issue(&["gateway"], Use::Client));
        assert_eq!(outcome(&scene.gateway(&origin, protocol, &own)), (502, "upstream_tls".to_owned()), "{protocol}");
        assert_eq!(origin.begun(), 1);
    }
}

#[test]
fn http2_is_spoken_to_upstreams_that_offer_it() {
    let scene = Scene::new();
    for (protocol, offered, want) in [
        ("auto", &["h2", "http/1.1"][..], "HTTP/2.0 test"),
        ("auto", &["http/1.1"], "HTTP/1.1 test"),
        ("auto", &[], "HTTP/1.1 test"),
        ("http1", &["h2", "http/1.1"], "HTTP/1.1 test"),
        ("http2", &["h2", "http/1.1"], "HTTP/2.0 test"),
    ] {
        let origin = scene.origin(&["localhost"], offered, None);
        let gateway = scene.gateway(&origin, protocol, OWN);
        for _ in 0..2 {
            assert_eq!(gateway.get("/").text(), want, "{protocol} {offered:?}");
            let posted = gateway.ask("POST", "/", &[("host", "test")], "body");
            assert_eq!((posted.text().as_str(), &origin.last().body[..]), (want, &b"body"[..]));
        }
    }
    let origin = scene.origin(&["localhost"], &[], None);
    assert_eq!(outcome(&scene.gateway(&origin, "http2", OWN)), (502, "upstream_tls".to_owned()), "it offers no HTTP/2");
}

#[test]
fn a_filter_calls_an_upstream_over_tls_with_the_same_care() {
    let scene = Scene::new();
    let right = scene.origin(&["localhost"], &["h2"], None);
    let answer = scene.gateway(&right, "auto", OWN).get("/called");
    assert_eq!(answer.status(), 200);
    let told = answer.get("x-probe-callout").map(str::to_owned).or(scene
        .plain
        .last()
        .get("x-probe-callout")
        .map(str::to_owned));
    assert!(told.as_ref().is_some_and(|told| told.contains("200") && told.contains("HTTP/2.0")), "{told:?}");
    let wrong = scene.origin(&["other.test"], &[], None);
    let answer = scene.gateway(&wrong, "http1", OWN).get("/called");
    let told = answer.get("x-probe-callout").map(str::to_owned).or(scene
        .plain
        .last()
        .get("x-probe-callout")
        .map(str::to_owned));
    assert!(told.as_ref().is_some_and(|told| told.contains("503") && !told.contains("other.test")), "{told:?}");
    assert_eq!(wrong.begun(), 0);
}

#[test]
fn a_changed_authority_counts_for_new_connections() {
    let scene = Scene::new();
    let origin = scene.origin(&["localhost"], &[], None);
    scene.files.put("ca.pem", &Authority::new("others").pem());
    let gateway = scene.gateway(&origin, "http1", OWN);
    assert_eq!(outcome(&gateway).0, 502);
    scene.files.put("ca.pem", "no certificate");
    eventually("the bad file is counted", || gateway.metric("portcullis_tls_reloads_total", &["refused"]) > 0.5);
    scene.files.put("ca.pem", &scene.authority.pem());
    eventually("the authority is believed", || outcome(&gateway).0 == 200);
}
