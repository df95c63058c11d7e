//! Certificates that are replaced while requests are served.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portcullis_tests::eventually;
use portcullis_tests::origin::Origin;
use portcullis_tests::pki::{Authority, Use};
use portcullis_tests::tls::{Dialer, Session as _};

use super::{ONE, Scene, usual};

#[test]
fn a_new_certificate_is_served_without_a_failed_request() {
    let ((authority, files), origin) = (usual(), Origin::plain());
    let gateway = Scene { workers: 2, ..Scene::new(&files, &origin, ONE) }.start();
    let address = gateway.address();
    let (stop, asked, mut torn) = (AtomicBool::new(false), AtomicUsize::new(0), 0);
    thread::scope(|scope| {
        for _ in 0..3 {
            let dialer = Dialer::new(&authority);
            let (stop, asked) = (&stop, &asked);
            scope.spawn(move || {
                let mut kept = dialer.connect(address, "a.test");
                while !stop.load(Ordering::Relaxed) {
                    let mut fresh = dialer.clone().forgetful().connect(address, "a.test");
                    for client in [&mut kept, &mut fresh] {
                        assert_eq!(client.ask("GET", "/", &[("host", "a.test")], "").status(), 200);
                        asked.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        for round in 0..4 {
            let issued = authority.issue(&["a.test"], Use::Server);
            let began = Instant::now();
            // By renaming, and by writing into the files.
            if round % 2 == 0 {
                files.put_pair("a", &issued);
            } else {
                std::fs::write(files.path("a.pem"), issued.pem()).unwrap();
                std::fs::write(files.path("a.key"), issued.key_pem()).unwrap();
            }
            // Those that do not fit for longer than it takes until they are looked at again are refused, rightly.
            torn += u32::from(began.elapsed() > Duration::from_millis(500));
            eventually("the new certificate is served", || {
                Dialer::new(&authority).connect(address, "a.test").certificate() == issued.der()
            });
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(asked.load(Ordering::Relaxed) > 20);
    assert_eq!(gateway.metric("portcullis_tls_reloads_total", &["\"used\"", "a.pem"]).round(), 4.0);
    assert!(gateway.metric("portcullis_tls_reloads_total", &["\"refused\""]) <= f64::from(torn));
}

#[test]
fn a_secret_swapped_by_kubernetes_is_served() {
    let ((authority, files), origin) = (usual(), Origin::plain());
    for file in ["a.pem", "a.key"] {
        std::fs::remove_file(files.path(file)).unwrap();
    }
    files.swap_pair("a", &authority.issue(&["a.test"], Use::Server));
    let gateway = Scene::new(&files, &origin, ONE).start();
    for _ in 0..2 {
        let issued = authority.issue(&["a.test"], Use::Server);
        files.swap_pair("a", &issued);
        eventually("the new certificate is served", || {
            Dialer::new(&authority).connect(gateway.address(), "a.test").certificate() == issued.der()
        });
    }
    assert_eq!(gateway.metric("portcullis_tls_reloads_total", &["\"refused\""]).round(), 0.0);
}

#[test]
fn a_bad_pair_leaves_the_last_good_one_in_use_and_is_counted() {
    let ((authority, files), origin) = (usual(), Origin::plain());
    let first = authority.issue_until(&["a.test"], Use::Server, 2099);
    files.put_pair("a", &first);
    let gateway = Scene::new(&files, &origin, ONE).start();
    let serves = |want: &portcullis_tests::pki::Issued| {
        let mut client = Dialer::new(&authority).connect(gateway.address(), "a.test");
        client.ask("GET", "/", &[("host", "a.test")], "").status() == 200 && client.certificate() == want.der()
    };
    let refused = || gateway.metric("portcullis_tls_reloads_total", &["\"refused\"", "a.pem"]).round();
    let expiry = || gateway.metric("portcullis_tls_certificate_expiry_seconds", &["main", "a.pem"]);
    assert_eq!(expiry(), 4_102_358_400.0);
    let other = Authority::new("other").issue(&["a.test"], Use::Server);
    for (count, name, bad) in [
        (1.0, "a.key", other.key_pem()),
        (2.0, "a.key", "not a key".to_owned()),
        (3.0, "a.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n".to_owned()),
        (4.0, "a.pem", String::new()),
    ] {
        files.put(name, &bad);
        eventually("the bad file is noticed", || refused() == count);
        assert!(serves(&first), "{name}: {bad}");
    }
    std::fs::remove_file(files.path("a.key")).unwrap();
    eventually("the missing file is noticed", || refused() == 5.0);
    assert!(serves(&first) && expiry() == 4_102_358_400.0);
    let good = authority.issue_until(&["a.test"], Use::Server, 2098);
    files.put_pair("a", &good);
    eventually("the good one is served", || serves(&good));
    assert_eq!(expiry(), 4_070_822_400.0);
}
