//! Clients with certificates: none, expired, of another authority, for another use, revoked, good.

use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::Origin;
use portcullis_tests::pki::{Authority, Files, Use};
use portcullis_tests::tls::Dialer;

use super::{MUTUAL, Scene, usual};

struct Clients {
    servers: Authority,
    authority: Authority,
    files: Files,
}

impl Clients {
    fn new() -> Self {
        let ((servers, files), authority) = (usual(), Authority::new("clients"));
        files.put("clients.pem", &authority.pem());
        files.put("crl.pem", &authority.revocations(&[], 2100));
        Self { servers, authority, files }
    }

    fn gateway(&self, origin: &Origin, mode: &str) -> Gateway {
        Scene::new(&self.files, origin, &MUTUAL.replace("{mode}", mode)).start()
    }
}

/// Row 32 of the threat model.
#[test]
fn only_a_good_certificate_lets_a_client_in() {
    let (clients, origin) = (Clients::new(), Origin::plain());
    let Clients { servers, authority, files } = &clients;
    let revoked = authority.issue(&["revoked"], Use::Client);
    files.put("crl.pem", &authority.revocations(&[&revoked], 2100));
    let gateway = clients.gateway(&origin, r#"crl: "{f}/crl.pem", mode: required"#);
    let optional = clients.gateway(&origin, r#"crl: "{f}/crl.pem", mode: optional"#);
    let expired = authority.issue_until(&["expired"], Use::Client, 2020);
    let stranger = Authority::new("clients").issue(&["stranger"], Use::Client);
    let server = authority.issue(&["server"], Use::Server);
    let good = authority.issue(&["good"], Use::Client);
    for versions in [&[&rustls::version::TLS13][..], &[&rustls::version::TLS12]] {
        let dialer = |shows| Dialer::of_versions(servers, versions, shows);
        for (what, shows, alert) in [
            ("none", None, "CertificateRequired"),
            ("expired", Some(&expired), "CertificateExpired"),
            ("of another authority with the same name", Some(&stranger), "alert"),
            ("for servers", Some(&server), "alert"),
            ("revoked", Some(&revoked), "CertificateRevoked"),
        ] {
            let error = dialer(shows).is_let_in(gateway.address(), "a.test").expect_err(what).to_string();
            let old = versions[0].version == rustls::ProtocolVersion::TLSv1_2;
            let alert = if old && shows.is_none() { "alert" } else { alert };
            assert!(error.contains(alert), "{what}: {error}");
            assert_eq!(dialer(shows).is_let_in(optional.address(), "a.test").is_ok(), shows.is_none(), "{what}");
        }
        for gateway in [&gateway, &optional] {
            dialer(Some(&good)).is_let_in(gateway.address(), "a.test").unwrap();
        }
    }
    assert_eq!(origin.begun(), 6, "nobody else's request was sent on");
}

#[test]
fn a_client_with_a_certificate_may_ask_only_for_the_host_it_named() {
    let (clients, origin) = (Clients::new(), Origin::plain());
    let gateway = clients.gateway(&origin, "mode: required");
    let good = clients.authority.issue(&["good"], Use::Client);
    let dialer = Dialer::showing(&clients.servers, &good);
    let mut client = dialer.connect(gateway.address(), "a.test");
    let h2 = dialer.h2(gateway.address(), "a.test");
    for (host, want) in [("a.test", 200), ("also-a.test", 421), ("b.test", 421), ("127.0.0.1", 421)] {
        assert_eq!(client.ask("GET", "/", &[("host", host)], "").status(), want, "{host}");
        assert_eq!(h2.ask("GET", "/", &[("host", host)], []).unwrap().status, want, "{host} over HTTP/2");
    }
    let mut nameless = dialer.nameless().connect(gateway.address(), "a.test");
    for (host, want) in [("a.test", 200), ("b.test", 421), ("127.0.0.1", 421)] {
        assert_eq!(nameless.ask("GET", "/", &[("host", host)], "").status(), want, "{host} without a name");
    }
}

#[test]
fn a_revocation_list_that_is_out_of_date_lets_nobody_in() {
    let (clients, origin) = (Clients::new(), Origin::plain());
    clients.files.put("crl.pem", &clients.authority.revocations(&[], 2020));
    let gateway = clients.gateway(&origin, r#"crl: "{f}/crl.pem""#);
    let good = Dialer::showing(&clients.servers, &clients.authority.issue(&["good"], Use::Client));
    assert!(good.is_let_in(gateway.address(), "a.test").is_err());
    assert_eq!(gateway.metric("portcullis_tls_revocation_list_expiry_seconds", &["main"]), 1_609_372_800.0);
    clients.files.put("crl.pem", &clients.authority.revocations(&[], 2100));
    portcullis_tests::eventually("the new list is in use", || good.is_let_in(gateway.address(), "a.test").is_ok());
}

#[test]
fn an_authority_that_is_replaced_loses_its_clients() {
    let (clients, origin) = (Clients::new(), Origin::plain());
    let gateway = clients.gateway(&origin, "mode: required");
    let other = Authority::new("others");
    let old = Dialer::showing(&clients.servers, &clients.authority.issue(&["old"], Use::Client));
    let new = Dialer::showing(&clients.servers, &other.issue(&["new"], Use::Client));
    old.is_let_in(gateway.address(), "a.test").unwrap();
    assert!(new.is_let_in(gateway.address(), "a.test").is_err());
    clients.files.put("clients.pem", &other.pem());
    portcullis_tests::eventually("the new authority is in use", || new.is_let_in(gateway.address(), "a.test").is_ok());
    assert!(old.is_let_in(gateway.address(), "a.test").is_err(), "neither by a certificate nor by a session");
}
