//! What is said about certificates, keys and authorities.
#![allow(clippy::too_many_lines, reason = "what makes them long is the text that operators read, whole")]

use expect_test::{Expect, expect};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

use super::{Folder, check};

/// A certificate and its key.
fn pair(name: &str, until: i32) -> (String, String) {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// Checks what is said about a file beside which there are certificates.
fn check_beside(text: &str, want: &Expect) {
    let ((a, a_key), (_, b_key), (old, old_key)) = (pair("a.test", 2100), pair("b.test", 2100), pair("old.test", 2020));
    let encrypted = b_key.replace("PRIVATE", "ENCRYPTED PRIVATE");
    let folder = Folder::new(&[
        ("gateway.yaml", text),
        ("a.pem", &a),
        ("a.key", &a_key),
        ("b.key", &b_key),
        ("old.pem", &old),
        ("old.key", &old_key),
        ("encrypted.key", &encrypted),
        ("empty", ""),
        ("torn.key", a_key.get(..100).unwrap()),
    ]);
    let here = format!("{}/", folder.0.path().display());
    let said = match folder.load(&["gateway.yaml"]) {
        Ok((_, warnings)) => format!("{}ok\n", super::render(&warnings).replace(&here, "")),
        Err(said) => said,
    };
    for key in [&a_key, &b_key, &old_key] {
        for line in key.lines().filter(|line| !line.starts_with('-')) {
            assert!(!said.contains(line), "a private key is shown: {said}");
        }
    }
    want.assert_eq(&said);
}

#[test]
fn a_pair_that_cannot_be_used_is_named_with_its_place_and_the_remedy() {
    check_beside(
        "
version: 1
listeners:
  missing: { bind: '127.0.0.1:1', tls: { certificates: [ { cert: nowhere.pem, key: a.key } ] } }
  unkeyed: { bind: '127.0.0.1:2', tls: { certificates: [ { cert: a.pem, key: nowhere.key } ] } }
  other: { bind: '127.0.0.1:3', tls: { certificates: [ { cert: a.pem, key: a.key }, { cert: a.pem, key: b.key } ] } }
  turned: { bind: '127.0.0.1:4', tls: { certificates: [ { cert: a.key, key: a.pem } ] } }
  empty: { bind: '127.0.0.1:5', tls: { certificates: [ { cert: a.pem, key: empty } ] } }
  encrypted: { bind: '127.0.0.1:6', tls: { certificates: [ { cert: a.pem, key: encrypted.key } ] } }
  torn: { bind: '127.0.0.1:7', tls: { certificates: [ { cert: a.pem, key: torn.key } ] } }
  folder: { bind: '127.0.0.1:8', tls: { certificates: [ { cert: ., key: a.key } ] } }
  expired: { bind: '127.0.0.1:9', tls: { certificates: [ { cert: old.pem, key: old.key } ] } }
",
        &expect![[r#"
            error: `nowhere.pem` cannot be used
              ┌ gateway.yaml:4:66
            4 │   missing: { bind: '127.0.0.1:1', tls: { certificates: [ { cert: nowhere.pem, key: a.key } ] } }
              │                                                                  ^^^^^^^^^^^ there is no such file
              = help: paths start from the directory of the file they are written in

            error: `nowhere.key` cannot be used
              ┌ gateway.yaml:5:78
            5 │   unkeyed: { bind: '127.0.0.1:2', tls: { certificates: [ { cert: a.pem, key: nowhere.key } ] } }
              │                                                                              ^^^^^^^^^^^ there is no such file
              = help: paths start from the directory of the file they are written in

            error: `b.key` cannot be used
              ┌ gateway.yaml:6:105
            6 │   other: { bind: '127.0.0.1:3', tls: { certificates: [ { cert: a.pem, key: a.key }, { cert: a.pem, key: b.key } ] } }
              │                                                                                                         ^^^^^ the key does not belong to the certificate
              = help: the first certificate in the file must be the one the key belongs to; intermediates follow it

            error: `a.key` cannot be used
              ┌ gateway.yaml:7:65
            7 │   turned: { bind: '127.0.0.1:4', tls: { certificates: [ { cert: a.key, key: a.pem } ] } }
              │                                                                 ^^^^^ it holds no certificate
              = help: certificates are written in PEM: `-----BEGIN CERTIFICATE-----`

            error: `empty` cannot be used
              ┌ gateway.yaml:8:76
            8 │   empty: { bind: '127.0.0.1:5', tls: { certificates: [ { cert: a.pem, key: empty } ] } }
              │                                                                            ^^^^^ it holds no private key
              = help: keys are written in PEM: `-----BEGIN PRIVATE KEY-----`

            error: `encrypted.key` cannot be used
              ┌ gateway.yaml:9:80
            9 │   encrypted: { bind: '127.0.0.1:6', tls: { certificates: [ { cert: a.pem, key: encrypted.key } ] } }
              │                                                                                ^^^^^^^^^^^^^ its key is encrypted
              = help: decrypt it with `openssl pkey -in KEY -out PLAIN`, and let only the gateway read the file

            error: `torn.key` cannot be used
               ┌ gateway.yaml:10:75
            10 │   torn: { bind: '127.0.0.1:7', tls: { certificates: [ { cert: a.pem, key: torn.key } ] } }
               │                                                                           ^^^^^^^^ its PEM is malformed

            error: `.` cannot be used
               ┌ gateway.yaml:11:65
            11 │   folder: { bind: '127.0.0.1:8', tls: { certificates: [ { cert: ., key: a.key } ] } }
               │                                                                 ^ it is a directory
               = help: paths start from the directory of the file they are written in

            warning: what `old.pem` holds has expired
               ┌ gateway.yaml:12:66
            12 │   expired: { bind: '127.0.0.1:9', tls: { certificates: [ { cert: old.pem, key: old.key } ] } }
               │                                                                  ^^^^^^^ used all the same, until the file is replaced

        "#]],
    );
}

#[test]
fn authorities_and_lists_that_cannot_be_used_are_named() {
    check_beside(
        "
version: 1
listeners:
  missing: { bind: '127.0.0.1:1', tls: { certificates: [ { cert: a.pem, key: a.key } ], client_auth: { ca: nowhere.pem } } }
  crl: { bind: '127.0.0.1:2', tls: { certificates: [ { cert: a.pem, key: a.key } ], client_auth: { ca: a.pem, crl: a.pem } } }
upstreams:
  ca: { endpoints: ['127.0.0.1:9'], tls: { ca: a.key } }
  own: { endpoints: ['127.0.0.1:9'], tls: { ca: a.pem, certificate: { cert: a.pem, key: b.key } } }
  name: { endpoints: ['127.0.0.1:9'], tls: { ca: a.pem, server_name: 'a b' } }
  auto: { endpoints: ['127.0.0.1:9'], protocol: auto }
  nothing: { endpoints: ['127.0.0.1:9'], tls: }
",
        &expect![[r#"
            error: `nowhere.pem` cannot be used
              ┌ gateway.yaml:4:108
            4 │   missing: { bind: '127.0.0.1:1', tls: { certificates: [ { cert: a.pem, key: a.key } ], client_auth: { ca: nowhere.pem } } }
              │                                                                                                            ^^^^^^^^^^^ there is no such file
              = help: paths start from the directory of the file they are written in

            error: `a.pem` cannot be used
              ┌ gateway.yaml:5:116
            5 │   crl: { bind: '127.0.0.1:2', tls: { certificates: [ { cert: a.pem, key: a.key } ], client_auth: { ca: a.pem, crl: a.pem } } }
              │                                                                                                                    ^^^^^ it holds no revocation list
              = help: revocation lists are written in PEM: `-----BEGIN X509 CRL-----`

            error: `a.key` cannot be used
              ┌ gateway.yaml:7:48
            7 │   ca: { endpoints: ['127.0.0.1:9'], tls: { ca: a.key } }
              │                                                ^^^^^ it holds no certificate
              = help: certificates are written in PEM: `-----BEGIN CERTIFICATE-----`

            error: `b.key` cannot be used
              ┌ gateway.yaml:8:89
            8 │   own: { endpoints: ['127.0.0.1:9'], tls: { ca: a.pem, certificate: { cert: a.pem, key: b.key } } }
              │                                                                                         ^^^^^ the key does not belong to the certificate
              = help: the first certificate in the file must be the one the key belongs to; intermediates follow it

            error: `a b` is not a server's name
              ┌ gateway.yaml:9:70
            9 │   name: { endpoints: ['127.0.0.1:9'], tls: { ca: a.pem, server_name: 'a b' } }
              │                                                                      ^^^^^ a DNS name or an IP address is needed

            error: `protocol: auto` needs `tls`
               ┌ gateway.yaml:10:49
            10 │   auto: { endpoints: ['127.0.0.1:9'], protocol: auto }
               │                                                 ^^^^ in the clear an upstream cannot say what it speaks
               = help: write `http1` or `http2`, or encrypt the connection with `tls: {}`

            error: `upstreams.nothing.tls` has no value
               ┌ gateway.yaml:11:42
            11 │   nothing: { endpoints: ['127.0.0.1:9'], tls: }
               │                                          ^^^ a mapping is needed
               = help: How connections to an upstream are encrypted

        "#]],
    );
}

#[test]
fn what_has_no_effect_is_warned_of_and_what_is_right_is_taken() {
    check_beside(
        "
version: 1
listeners:
  a:
    bind: '127.0.0.1:1'
    tls:
      certificates: [ { cert: a.pem, key: a.key }, { cert: old.pem, key: old.key } ]
      min_version: TLSv1.3
    forward_client_certificate: { mode: set }
  b: { bind: '127.0.0.1:2', forward_client_certificate: { mode: keep } }
  c:
    bind: '127.0.0.1:3'
    trusted_proxies: [127.0.0.1]
    tls: { certificates: [ { cert: a.pem, key: a.key } ], client_auth: { ca: a.pem, mode: optional } }
    forward_client_certificate: { mode: append, pem: true }
upstreams:
  ours: { endpoints: ['localhost:9'], protocol: auto, tls: { ca: a.pem, certificate: { cert: a.pem, key: a.key } } }
",
        &expect![[r#"
            warning: what `old.pem` holds has expired
              ┌ gateway.yaml:7:60
            7 │       certificates: [ { cert: a.pem, key: a.key }, { cert: old.pem, key: old.key } ]
              │                                                            ^^^^^^^ used all the same, until the file is replaced

            warning: there is no client certificate to forward
              ┌ gateway.yaml:9:41
            9 │     forward_client_certificate: { mode: set }
              │                                         ^^^ clients are not asked for certificates
              = help: set `tls.client_auth` to ask clients for certificates, `trusted_proxies` to believe others

            warning: there is no client certificate to forward
               ┌ gateway.yaml:10:65
            10 │   b: { bind: '127.0.0.1:2', forward_client_certificate: { mode: keep } }
               │                                                                 ^^^^ no proxy is trusted
               = help: set `tls.client_auth` to ask clients for certificates, `trusted_proxies` to believe others

            ok
        "#]],
    );
}

#[test]
fn a_version_is_chosen_from_those_there_are() {
    check(
        "
version: 1
listeners: { a: { bind: '127.0.0.1:1', tls: { certificates: [], min_version: TLSv1.1 } } }
",
        &expect![[r#"
            error: `listeners.a.tls.certificates` is empty
              ┌ gateway.yaml:3:61
            3 │ listeners: { a: { bind: '127.0.0.1:1', tls: { certificates: [], min_version: TLSv1.1 } } }
              │                                                             ^^ at least one is needed

            error: `listeners.a.tls.min_version` cannot be `TLSv1.1`
              ┌ gateway.yaml:3:78
            3 │ listeners: { a: { bind: '127.0.0.1:1', tls: { certificates: [], min_version: TLSv1.1 } } }
              │                                                                              ^^^^^^^
              = help: `TLSv1.2` is close

        "#]],
    );
}
