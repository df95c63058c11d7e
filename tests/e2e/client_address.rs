//! Who the client is: what strangers claim is overwritten, what trusted proxies say is believed.

use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::Origin;

fn forwarding(origin: &Origin, listener: &str) -> Gateway {
    Gateway::start(
        r#"
listeners: { main: { bind: "127.0.0.1:0"{listener} } }
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins: { probe: {guest:probe} }
filters: [{ plugin: probe, config: "headers" }]
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", origin), ("listener", &listener)],
    )
}

const CLAIMS: &[(&str, &str)] = &[
    ("x-forwarded-for", "10.9.9.9, 203.0.113.9"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "public.test"),
    ("x-forwarded-port", "443"),
    ("x-real-ip", "10.9.9.9"),
    ("forwarded", "for=10.9.9.9;proto=https"),
];

/// What the origin saw of each of these fields, over both protocols.
fn seen(gateway: &Gateway, origin: &Origin, given: &[(&str, &str)]) -> Vec<(String, String)> {
    let ask = |http2: bool| {
        let status = if http2 {
            gateway.h2().ask("GET", "/", given, []).unwrap().status
        } else {
            gateway.ask("GET", "/", given, "").status()
        };
        assert_eq!(status, 200);
        let last = origin.last();
        let is_told = |name: &str| name.contains("forwarded") || name == "x-real-ip";
        let told = last.headers.iter().filter(|(name, _)| is_told(name.as_str()));
        let mut told: Vec<_> = told.map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect();
        told.sort_unstable();
        told
    };
    let (one, two) = (ask(false), ask(true));
    assert_eq!(one, two);
    one
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_stranger_claims_in_vain() {
    let origin = Origin::plain();
    let gateway = forwarding(&origin, "");
    let want = pairs(&[("x-forwarded-for", "127.0.0.1"), ("x-forwarded-proto", "http")]);
    assert_eq!(seen(&gateway, &origin, CLAIMS), want);
    let gateway = forwarding(&origin, ", forwarding: both");
    let want = pairs(&[
        ("forwarded", "for=127.0.0.1;proto=http;host=test"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
    ]);
    assert_eq!(seen(&gateway, &origin, CLAIMS), want);
}

#[test]
fn a_trusted_proxy_is_believed_as_far_as_it_can_know() {
    let origin = Origin::plain();
    let gateway = forwarding(&origin, ", trusted_proxies: [127.0.0.0/8, 10.0.0.0/8]");
    let want = pairs(&[
        ("x-forwarded-for", "203.0.113.9, 127.0.0.1"),
        ("x-forwarded-host", "public.test"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-proto", "https"),
    ]);
    assert_eq!(seen(&gateway, &origin, CLAIMS), want, "what the client wrote itself goes no further");
    let gateway = forwarding(&origin, ", trusted_proxies: [127.0.0.0/8, 10.0.0.0/8], forwarding: forwarded");
    let want = pairs(&[("forwarded", "for=10.9.9.9;proto=https;host=test, for=127.0.0.1")]);
    assert_eq!(seen(&gateway, &origin, CLAIMS), want, "the other family is not read");
}

/// A client that names a field in `Connection` asks every hop to remove it: also the one that a filter is about to set.
#[test]
fn naming_a_field_in_connection_removes_only_the_clients_own() {
    let origin = Origin::plain();
    let gateway = forwarding(&origin, "");
    let names = "x-forwarded-for, x-forwarded-proto, x-request-id, x-probe-request, x-user, close";
    let mut client = gateway.client();
    client.send(format!(
        "GET / HTTP/1.1\r\nhost: test\r\nconnection: {names}\r\nx-user: admin\r\nx-forwarded-for: 10.0.0.1\r\n\r\n"
    ));
    assert_eq!(client.answer().status(), 200);
    let last = origin.last();
    assert_eq!((last.get("x-user"), last.get("connection")), (None, None));
    assert_eq!((last.get("x-forwarded-for"), last.get("x-forwarded-proto")), (Some("127.0.0.1"), Some("http")));
    assert!(last.get("x-request-id").is_some());
    assert!(last.get("x-probe-request").is_some(), "a filter's field is not the client's to remove: {last:?}");
}
