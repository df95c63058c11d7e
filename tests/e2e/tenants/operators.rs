//! Who changes tenants, by the certificate that they show; and what a change leaves alone.

use portcullis_tests::client::Client;
use portcullis_tests::eventually;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::pieces::Gate;
use portcullis_tests::pki::{Authority, Files, Use};
use portcullis_tests::process::{Process, Start, free_address};
use portcullis_tests::tls::Dialer;

use super::admin::{GATEWAY, TOKEN, banner, code, tell, tenant};

const CERTIFIED: &str = r#"
workers: 2
admin:
  bind: "{admin}"
  tenants: tenants
  tls:
    certificates: [{ cert: "{f}/admin.pem", key: "{f}/admin.key" }]
    client_auth: { ca: "{f}/operators.pem", mode: optional }
upstreams: { shared: { endpoints: ["{shared}"] } }
"#;

/// Whether the log has a line with all of these.
pub(super) fn has_logged(process: &Process, words: &[&str]) -> bool {
    process.log().lines().any(|line| words.iter().all(|word| line.contains(word)))
}

#[test]
fn whoever_has_a_certificate_of_the_operators_changes_tenants_and_the_log_says_who() {
    let (servers, operators, files) = (Authority::new("servers"), Authority::new("operators"), Files::default());
    files.put_pair("admin", &servers.issue(&["admin.test"], Use::Server));
    files.put("operators.pem", &operators.pem());
    let (shared, admin) = (Origin::always(Answer::ok("shared")), free_address());
    let places: [(&str, &dyn std::fmt::Display); 3] = [("shared", &shared), ("admin", &admin), ("f", &files.text(""))];
    let process = Start::new(GATEWAY, CERTIFIED, &places)
        .admin_at(admin)
        .argument("--no-watch")
        .operated_by(Dialer::showing(&servers, &operators.issue(&["ops"], Use::Client)), "admin.test")
        .start();
    let put = |path: &str, body: &[u8]| process.tell_admin("PUT", path, &[], body);
    let good = tenant("acme.test", "one");
    assert_eq!(put("/v1/tenants/acme/modules/banner.wasm", &banner()).status(), 201);
    assert_eq!(put("/v1/tenants/acme?dry_run=true", good.as_bytes()).status(), 200);
    assert_eq!(put("/v1/tenants/acme", b"hosts: 7").status(), 422);
    assert_eq!(put("/v1/tenants/acme", good.as_bytes()).status(), 201);
    for words in [
        ["module put", "\"dry_run\":false"],
        ["tenant put", "\"dry_run\":true"],
        ["tenant put: refused", "hosts"],
        ["tenant put", "\"dry_run\":false"],
    ] {
        let all = [words[0], words[1], "portcullis::audit", "acme", "127.0.0.1", "CN=ops"];
        eventually("it is in the log", || has_logged(&process, &all));
    }
    for stranger in [Dialer::new(&servers), Dialer::showing(&servers, &servers.issue(&["ops"], Use::Client))] {
        let Ok(mut client) = stranger.try_connect(admin, "admin.test") else { continue };
        client.send("DELETE /v1/tenants/acme HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\n\r\n");
        // With a certificate of another authority the handshake may fail only now.
        if let Ok(head) = client.0.head() {
            let refused = client.0.body(head);
            assert_eq!((refused.status(), code(&refused)), (401, "unauthorized".to_owned()));
        }
    }
    let refused = ["portcullis::audit", "certificate refused", "127.0.0.1", "invalid peer certificate"];
    eventually("that is in the log too", || has_logged(&process, &refused));
    let answer = process.client().ask("GET", "/", &[("host", "acme.test")], "");
    assert_eq!((answer.status(), answer.get("x-of")), (200, Some("one")));
}

const TWO: &str = r#"
workers: 2
admin: { bind: "{admin}", token: "${env:ADMIN_TOKEN}", tenants: tenants }
upstreams: { for-acme: { endpoints: ["{acme}"] }, for-globex: { endpoints: ["{globex}"] } }
"#;

/// Sends a request whose answer the origin holds back, and waits until it has come there.
fn begun(process: &Process, host: &str, origin: &Origin) -> Client {
    let (mut client, before) = (process.client(), origin.begun());
    client.send(format!("GET /slow HTTP/1.1\r\nhost: {host}\r\n\r\n"));
    origin.wait_for(before + 1);
    client
}

#[test]
fn a_change_lets_requests_under_way_and_the_connections_of_others_be() {
    let gates = [Gate::default(), Gate::default()];
    let origins = gates.clone().map(|gate| {
        Origin::start(
            move |seen| if seen.target() == "/slow" { Answer::ok("slow").after(&gate) } else { Answer::ok("") },
        )
    });
    let ([acme, globex], admin) = (&origins, free_address());
    let process = Start::new(GATEWAY, TWO, &[("acme", acme), ("globex", globex), ("admin", &admin)])
        .admin_at(admin)
        .argument("--no-watch")
        .variable("ADMIN_TOKEN", TOKEN.strip_prefix("Bearer ").unwrap())
        .start();
    let says =
        |name: &str, value: &str| tenant(&format!("{name}.test"), value).replace("shared", &format!("for-{name}"));
    let put = |path: &str, body: &[u8]| {
        let answer = tell(&process, "PUT", path, &[], body);
        assert!(answer.status() <= 201, "{path}: {}", answer.text());
    };
    for name in ["acme", "globex"] {
        put(&format!("/v1/tenants/{name}/modules/banner.wasm"), &banner());
        put(&format!("/v1/tenants/{name}"), says(name, "one").as_bytes());
    }
    let mut kept = process.client();
    assert_eq!(kept.ask("GET", "/", &[("host", "globex.test")], "").get("x-of"), Some("one"));
    let mut under_way = [begun(&process, "acme.test", acme), begun(&process, "globex.test", globex)];
    let connections = |origin: &Origin| origin.seen().iter().map(|seen| seen.connection).max();
    let before = connections(globex);

    put("/v1/tenants/acme/modules/banner.wasm", &[&banner()[..], &[0, 3, 1, b'v', 1]].concat());
    put("/v1/tenants/acme", says("acme", "two").as_bytes());
    assert_eq!(process.client().ask("GET", "/", &[("host", "acme.test")], "").get("x-of"), Some("two"));
    assert_eq!(tell(&process, "DELETE", "/v1/tenants/acme", &[], "").status(), 200);
    assert_eq!(process.client().ask("GET", "/", &[("host", "acme.test")], "").status(), 404);

    gates.iter().for_each(Gate::open);
    for client in &mut under_way {
        let answer = client.answer();
        assert_eq!((answer.status(), answer.get("x-of"), answer.text().as_str()), (200, Some("one"), "slow"));
    }
    assert_eq!(kept.ask("GET", "/", &[("host", "globex.test")], "").get("x-of"), Some("one"));
    assert_eq!(connections(globex), before, "its connections to its upstream are those it had");
}
