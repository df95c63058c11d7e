//! Client certificates, from the handshake to what the upstream is told.

use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::Origin;
use portcullis_tests::pki::{Authority, Files, Use};
use portcullis_tests::tls::Dialer;

const CONFIGURATION: &str = "version: 1
listeners:
  main:
    bind: '127.0.0.1:0'
    tls:
      certificates: [ { cert: '{f}/a.pem', key: '{f}/a.key' } ]
      client_auth: { ca: '{f}/clients.pem', mode: optional }
upstreams: { origin: { endpoints: ['{origin}'] } }
plugins: { auth: { module: 'builtin:auth' } }
routes:
  - name: all
    match: { path: '/*' }
    filters:
      - plugin: auth
        config:
          consumers:
            - { id: billing, roles: [ops], certificates: [ { uri: 'spiffe://test/billing' } ] }
            - { id: legacy, certificates: [ { subject: 'CN=legacy.test' } ] }
          rules:
            - { path: /status, anonymous: true }
            - { path: /admin, roles: [ops] }
            - { path: '/admin/*', roles: [ops] }
            - {}
          forward_claims: { consumer: x-consumer }
    upstream: origin
";

#[test]
fn a_client_is_known_by_the_certificate_that_the_listener_has_checked() {
    let (servers, clients, others) = (Authority::new("servers"), Authority::new("clients"), Authority::new("others"));
    let (files, origin) = (Files::default(), Origin::plain());
    files.put_pair("a", &servers.issue(&["a.test"], Use::Server));
    files.put("clients.pem", &clients.pem());
    let gateway = Gateway::start(CONFIGURATION, &[("f", &files), ("origin", &origin)]);
    let showing = |names: &[&str]| Dialer::showing(&servers, &clients.issue(names, Use::Client));
    let billing = ["orders.test", "spiffe://test/billing"];
    for (dialer, path, want) in [
        (showing(&billing), "/admin/users", Ok(Some("billing"))),
        (showing(&["legacy.test"]), "/orders", Ok(Some("legacy"))),
        (showing(&["legacy.test"]), "/admin/users", Err((403, "role_missing"))),
        (showing(&["x.test", "spiffe://test/billing/2"]), "/orders", Err((403, "certificate_unknown"))),
        (Dialer::new(&servers), "/orders", Err((401, "token_missing"))),
        (Dialer::new(&servers), "/status", Ok(None)),
    ] {
        let fields =
            [("host", "a.test"), ("x-consumer", "billing"), ("x-forwarded-client-cert", "URI=spiffe://test/billing")];
        let answer = dialer.connect(gateway.address(), "a.test").ask("GET", path, &fields, "");
        match want {
            Ok(consumer) => {
                assert_eq!((answer.status(), origin.last().get("x-consumer")), (200, consumer), "{path}");
            }
            Err((status, code)) => {
                assert_eq!(answer.status(), status, "{path} {code}: {}", answer.text());
                assert!(answer.text().contains(&format!("\"{code}\"")), "{path}: {}", answer.text());
            }
        }
    }
    let forged = Dialer::showing(&servers, &others.issue(&billing, Use::Client));
    assert!(forged.is_let_in(gateway.address(), "a.test").is_err(), "its issuer is not one that the listener trusts");
}
