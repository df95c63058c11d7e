//! Requests and responses that pass without filters: heads, connections, what is said about the client.

use portcullis_tests::client::request;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::pieces::{Gate, Piece};

/// A gateway without filters.
fn plain(origin: &Origin) -> Gateway {
    Gateway::in_front_of(origin, "[]")
}

#[test]
fn requests_pass_whole_over_either_protocol_on_either_side() {
    let origin = Origin::start(|seen| Answer::ok(format!("{} {:?}", seen.method, seen.body)).header("x-own", "A b"));
    let gateway = plain(&origin);
    let (mut h1, h2) = (gateway.client(), gateway.h2());
    for (method, path, body) in [
        ("GET", "/a/b?c=d&e=%20", ""),
        ("GET", "/", ""),
        ("POST", "/a", "hello"),
        ("PUT", "/a", "x"),
        ("PATCH", "/a", "y"),
        ("DELETE", "/a", ""),
        ("OPTIONS", "/a", ""),
        ("BREW", "/pot", "z"),
    ] {
        for (prefix, version) in [("", http::Version::HTTP_11), ("/h2", http::Version::HTTP_2)] {
            let path = format!("{prefix}{path}");
            let want = format!("{method} b{body:?}");
            let answer = h1.ask(method, &path, &[("x-mine", "v")], body);
            assert_eq!((answer.status(), answer.text(), answer.get("x-own")), (200, want.clone(), Some("A b")));
            let seen = origin.last();
            assert_eq!((seen.target(), seen.version, seen.get("x-mine")), (path.as_str(), version, Some("v")));
            let pieces = (!body.is_empty()).then(|| Piece::Data(body.into()));
            let answer = h2.ask(method, &path, &[("x-mine", "v")], pieces).unwrap();
            assert_eq!((answer.status, answer.text(), answer.get("x-own")), (200, want, Some("A b")));
            let seen = origin.last();
            assert_eq!((seen.target(), seen.version, seen.get("x-mine")), (path.as_str(), version, Some("v")));
        }
    }
}

#[test]
fn the_host_a_client_asked_for_reaches_the_origin() {
    let origin = Origin::plain();
    let gateway = plain(&origin);
    let host = [("host", "api.test:8080")];
    let authority = |seen: &portcullis_tests::origin::Seen| {
        seen.uri.authority().map(ToString::to_string).or_else(|| seen.get("host").map(str::to_owned))
    };
    for path in ["/", "/h2/"] {
        assert_eq!(gateway.ask("GET", path, &host, "").status(), 200);
        assert_eq!(authority(&origin.last()).as_deref(), Some("api.test:8080"), "{path} from HTTP/1.1");
        assert_eq!(gateway.h2().ask("GET", path, &host, []).unwrap().status, 200);
        assert_eq!(authority(&origin.last()).as_deref(), Some("api.test:8080"), "{path} from HTTP/2");
    }
    let absolute = "GET http://other.test/x HTTP/1.1\r\nhost: test\r\n\r\n";
    let mut client = gateway.client();
    client.send(absolute);
    assert_eq!(client.answer().status(), 200);
    assert_eq!((origin.last().get("host"), origin.last().target()), (Some("other.test"), "/x"), "RFC 9112 §3.2.2");
}

#[test]
fn responses_without_a_body_leave_the_connection_in_step() {
    let origin = Origin::start(|seen| match seen.uri.path() {
        "/h2/204" | "/204" => Answer::status(204),
        "/h2/304" | "/304" => Answer::status(304).header("etag", "\"a\""),
        _ => Answer::ok("0123456789"),
    });
    let gateway = plain(&origin);
    let (mut h1, h2) = (gateway.client(), gateway.h2());
    for prefix in ["", "/h2"] {
        let head = h1.ask("HEAD", &format!("{prefix}/x"), &[], "");
        assert_eq!((head.status(), head.get("content-length")), (200, Some("10")));
        let none = h1.get(&format!("{prefix}/204"));
        assert_eq!((none.status(), none.get("content-length"), none.body.len()), (204, None, 0));
        let same = h1.get(&format!("{prefix}/304"));
        assert_eq!((same.status(), same.get("etag"), same.body.len()), (304, Some("\"a\""), 0));
        assert_eq!(h1.get("/x").text(), "0123456789");
        let head = h2.ask("HEAD", &format!("{prefix}/x"), &[], []).unwrap();
        assert_eq!((head.status, head.get("content-length"), head.body.len()), (200, Some("10"), 0));
        assert_eq!(h2.get(&format!("{prefix}/204")).status, 204);
        assert_eq!(h2.get(&format!("{prefix}/304")).status, 304);
        assert_eq!(h2.get("/x").text(), "0123456789");
    }
}

#[test]
fn connections_are_kept_on_both_sides() {
    let origin = Origin::plain();
    let gateway = plain(&origin);
    let mut client = gateway.client();
    for _ in 0..5 {
        assert_eq!(client.get("/").status(), 200);
    }
    assert_eq!(client.ask("POST", "/", &[], "body").status(), 200);
    assert_eq!(gateway.get("/").status(), 200, "another client");
    let connections: Vec<_> = origin.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [1; 7]);
}

#[test]
fn a_client_that_asks_for_it_has_its_connection_closed() {
    let origin = Origin::plain();
    let gateway = plain(&origin);
    let mut client = gateway.client();
    assert_eq!(client.ask("GET", "/", &[("connection", "close")], "").status(), 200);
    assert!(client.0.is_closed());
    let mut old = gateway.client();
    old.send("GET / HTTP/1.0\r\nhost: test\r\n\r\n");
    let answer = old.answer();
    assert_eq!((answer.status(), answer.text().as_str(), answer.complete), (200, "ok", true));
    assert!(old.0.is_closed(), "HTTP/1.0 keeps no connection");
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let origin = Origin::start(|seen| Answer::ok(seen.uri.path().to_owned()));
    let gateway = plain(&origin);
    let mut client = gateway.client();
    let posts = request("POST", "/b", &[], "with a body");
    client.send(
        [request("GET", "/a", &[], ""), posts, request("GET", "/h2/c", &[], ""), request("GET", "/d", &[], "")]
            .concat(),
    );
    let answers: Vec<_> = (0..4).map(|_| client.answer().text()).collect();
    assert_eq!(answers, ["/a", "/b", "/h2/c", "/d"]);
}

#[test]
fn streams_of_one_http2_connection_do_not_wait_for_each_other() {
    let gate = Gate::default();
    let origin = Origin::start(move |seen| match seen.uri.path() {
        "/h2/slow" | "/slow" => Answer::ok("slow").after(&gate),
        "/h2/quick" => {
            gate.open();
            Answer::ok("quick")
        }
        _ => Answer::ok("ok"),
    });
    let gateway = plain(&origin);
    assert_eq!(gateway.get("/h2/first").status(), 200);
    let answers = gateway.h2().get_at_once(&["/h2/slow", "/slow", "/h2/quick"]);
    let texts: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().text()).collect();
    assert_eq!(texts, ["slow", "slow", "quick"]);
    let over_h2 = origin.seen().into_iter().filter(|seen| seen.version == http::Version::HTTP_2);
    let mut connections: Vec<_> = over_h2.map(|seen| seen.connection).collect();
    connections.dedup();
    assert_eq!(connections.len(), 1, "one connection carries them all");
}

#[test]
fn headers_of_one_connection_stay_on_it() {
    let origin = Origin::always(
        Answer::ok("ok")
            .header("connection", "x-private, keep-alive")
            .header("x-private", "1")
            .header("keep-alive", "timeout=5"),
    );
    let gateway = plain(&origin);
    let sent = [
        ("connection", "x-secret, keep-alive, te"),
        ("x-secret", "1"),
        // A second line of the same field counts like the first.
        ("connection", "x-hidden"),
        ("x-hidden", "1"),
        ("keep-alive", "300"),
        ("proxy-connection", "keep-alive"),
        ("te", "trailers"),
        ("upgrade", "websocket"),
        ("x-kept", "1"),
    ];
    let answer = gateway.ask("GET", "/", &sent, "");
    let seen = origin.last();
    for name in ["x-secret", "x-hidden", "keep-alive", "proxy-connection", "upgrade", "connection", "transfer-encoding"]
    {
        assert_eq!(seen.get(name), None, "{name} reached the origin");
    }
    assert_eq!((seen.get("x-kept"), seen.get("te")), (Some("1"), Some("trailers")));
    for name in ["x-private", "keep-alive"] {
        assert_eq!(answer.get(name), None, "{name} reached the client");
    }
}

#[test]
fn the_origin_learns_who_asked_from_us_and_from_no_stranger() {
    let origin = Origin::plain();
    let gateway = plain(&origin);
    let spoofed = [
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.test"),
        ("forwarded", "for=1.2.3.4"),
    ];
    assert_eq!(gateway.ask("GET", "/", &spoofed, "").status(), 200);
    let seen = origin.last();
    let told = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"].map(|name| seen.get(name));
    assert_eq!(told, [Some("127.0.0.1"), Some("http"), None, None]);
}

#[test]
fn a_trusted_proxys_claims_are_kept_and_added_to() {
    let origin = Origin::plain();
    let gateway = Gateway::start(
        r#"
listeners: { main: { bind: "127.0.0.1:0", trusted_proxies: ["127.0.0.0/8"] } }
upstreams: { origin: { endpoints: ["{origin}"] } }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", &origin)],
    );
    let claims = [("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https")];
    assert_eq!(gateway.ask("GET", "/", &claims, "").status(), 200);
    let seen = origin.last();
    assert_eq!(
        (seen.get("x-forwarded-for"), seen.get("x-forwarded-proto")),
        (Some("1.2.3.4, 127.0.0.1"), Some("https"))
    );
}

#[test]
fn every_request_has_an_id_of_its_own_unless_the_client_gave_one() {
    let origin = Origin::plain();
    let gateway = plain(&origin);
    let id = |fields: &[(&str, &str)]| {
        assert_eq!(gateway.ask("GET", "/", fields, "").status(), 200);
        origin.last().get("x-request-id").unwrap_or_default().to_owned()
    };
    let (one, two) = (id(&[]), id(&[]));
    assert!(one.len() >= 16 && two.len() >= 16 && one != two, "{one} {two}");
    assert_eq!(id(&[("x-request-id", "mine-7")]), "mine-7");
    let long = "x".repeat(4096);
    assert_ne!(id(&[("x-request-id", &long)]), long);
}

#[test]
fn repeated_fields_and_odd_values_pass_unchanged() {
    let origin = Origin::always(Answer::ok("ok").header("set-cookie", "a=1").header("set-cookie", "b=2"));
    let gateway = plain(&origin);
    let mut client = gateway.client();
    client
        .send(b"GET / HTTP/1.1\r\nhost: test\r\nX-Twice: one\r\nx-twice: two\r\nx-bytes: \xe9\xff\r\nx-empty:\r\n\r\n");
    let answer = client.answer();
    let seen = origin.last();
    let twice: Vec<_> = seen.headers.get_all("x-twice").iter().collect();
    assert_eq!(twice, ["one", "two"]);
    assert_eq!(seen.headers["x-bytes"].as_bytes(), b"\xe9\xff");
    assert_eq!(seen.get("x-empty"), Some(""));
    assert_eq!(answer.head.all("set-cookie"), ["a=1", "b=2"]);
}
