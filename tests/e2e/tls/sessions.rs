//! Sessions that are resumed: on any worker, by tickets, and not by those who lost our trust.

use portcullis_tests::eventually;
use portcullis_tests::origin::Origin;
use portcullis_tests::pki::{Authority, Use};
use portcullis_tests::tls::{Dialer, Session as _};

use super::{MUTUAL, ONE, Scene, usual};

#[test]
fn a_session_is_resumed_on_whichever_worker_the_next_connection_lands() {
    let ((authority, files), origin) = (usual(), Origin::plain());
    let scene = Scene { workers: 2, ..Scene::new(&files, &origin, ONE) };
    for versions in [&[&rustls::version::TLS13][..], &[&rustls::version::TLS12]] {
        let gateway = scene.start();
        let dialer = Dialer::of_versions(&authority, versions, None);
        let resumed: Vec<bool> = (0..20)
            .map(|_| {
                let mut client = dialer.connect(gateway.address(), "a.test");
                // The ticket of TLS 1.3 comes with the first answer.
                assert_eq!(client.ask("GET", "/", &[("host", "a.test")], "").status(), 200);
                client.resumed()
            })
            .collect();
        assert_eq!(
            (resumed[0], resumed[1..].iter().all(|resumed| *resumed)),
            (false, true),
            "{versions:?}: {resumed:?}"
        );
        let metric = |result: &str| gateway.metric("portcullis_tls_handshakes_total", &[result]);
        assert_eq!((metric("\"full\"").round(), metric("\"resumed\"").round()), (1.0, 19.0));
    }
}

#[test]
fn a_session_of_somebody_revoked_meanwhile_is_not_resumed() {
    let ((servers, files), origin) = (usual(), Origin::plain());
    let clients = Authority::new("clients");
    let (good, bad) = (clients.issue(&["good"], Use::Client), clients.issue(&["bad"], Use::Client));
    files.put("clients.pem", &clients.pem());
    files.put("crl.pem", &clients.revocations(&[], 2100));
    let tls = MUTUAL.replace("{mode}", r#"crl: "{f}/crl.pem""#);
    let gateway = Scene::new(&files, &origin, &tls).start();
    let let_in = |dialer: &Dialer| dialer.is_let_in(gateway.address(), "a.test");
    let (still_good, now_bad) = (Dialer::showing(&servers, &good), Dialer::showing(&servers, &bad));
    for dialer in [&still_good, &now_bad, &still_good, &now_bad] {
        let_in(dialer).unwrap();
    }
    assert_eq!(gateway.metric("portcullis_tls_handshakes_total", &["resumed"]).round(), 2.0);
    files.put("crl.pem", &clients.revocations(&[&bad], 2100));
    eventually("the new list is in use", || let_in(&now_bad).is_err());
    assert!(let_in(&still_good).is_ok() && let_in(&now_bad).is_err());
}
