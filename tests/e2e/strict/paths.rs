//! One path for routing, filters and the upstream.

use portcullis_tests::gateway::Gateway;

use super::Recorder;

/// A guarded subtree beside an open rest; what is asked of the guard is answered 404 by another origin's absence of a route.
fn guarded(origin: &Recorder, slashes: &str) -> Gateway {
    Gateway::start(
        r#"
listeners: { main: { bind: "127.0.0.1:0", encoded_slashes: {slashes} } }
upstreams: { origin: { endpoints: ["{origin}"] }, gone: { endpoints: ["127.0.0.1:9"], timeouts: { connect: 1s } } }
routes:
  - { name: admin, match: { path: "/admin/*" }, upstream: gone }
  - { name: rest, match: { path: "/*" }, upstream: origin }
"#,
        &[("origin", &origin.origin), ("slashes", &slashes)],
    )
}

/// What becomes of a target: the status, or what the origin was asked for.
fn asked(gateway: &Gateway, origin: &Recorder, target: &str) -> String {
    let status = gateway.ask("GET", target, &[], "").status();
    let over_h2 = !target.contains(['#', '\\']) && target.starts_with('/');
    let again = over_h2.then(|| gateway.h2().ask("GET", target, &[], []).unwrap().status);
    assert!(again.is_none_or(|again| again == status), "{target}: {status} but {again:?} over HTTP/2");
    let targets = origin.targets();
    assert!(targets.iter().all(|seen| seen == &targets[0]), "{target}: {targets:?}");
    targets.first().cloned().unwrap_or_else(|| status.to_string())
}

#[test]
fn no_spelling_of_a_guarded_path_gets_past_its_guard() {
    let origin = Recorder::start();
    let gateway = guarded(&origin, "reject");
    // 503: the guarded upstream is not there, so this is the guard's own answer.
    for (target, want) in [
        ("/admin/x", "503"),
        ("//admin/x", "503"),
        ("/./admin/x", "503"),
        ("/a/../admin/x", "503"),
        ("/%61dmin/x", "503"),
        ("/%2e/admin/x", "503"),
        ("/a/%2E%2e/admin//x", "503"),
        ("/admin", "503"),
        ("/admin/?x", "503"),
        ("http://test//admin/x", "503"),
        ("/admin%2fx", "400"),
        ("/x%2f..%2fadmin", "400"),
        ("/admin\\x", "400"),
        ("/x/..;/admin/x", "400"),
        ("/../admin", "400"),
        ("/%2e%2e/admin", "400"),
        ("/admin%00", "400"),
        ("/admin%0a", "400"),
        ("/admin%", "400"),
        ("/admin%u002f", "400"),
        ("/a#/../admin", "400"),
        ("/", "/"),
        ("/a/b?x=/../admin&y=%2f", "/a/b?x=/../admin&y=%2f"),
        ("/a/./b//c/", "/a/b/c/"),
        ("/caf%c3%a9/%7e", "/caf%C3%A9/~"),
        ("/%2561dmin", "/%2561dmin"),
        ("/Admin/x", "/Admin/x"),
        ("/admin;x/y", "/admin;x/y"),
    ] {
        assert_eq!(asked(&gateway, &origin, target), want, "{target}");
    }
}

#[test]
fn encoded_slashes_are_for_the_listener_to_say() {
    let origin = Recorder::start();
    for (slashes, rows) in [
        (
            "keep",
            [("/a%2fb", "/a%2Fb"), ("/admin%2fx", "/admin%2Fx"), ("/a%2f..%2fadmin/x", "400"), ("/a\\b", "/a%5Cb")],
        ),
        ("decode", [("/a%2fb", "/a/b"), ("/admin%2fx", "503"), ("/a%2f..%2fadmin/x", "503"), ("/a\\b", "/a/b")]),
    ] {
        let gateway = guarded(&origin, slashes);
        for (target, want) in rows {
            assert_eq!(asked(&gateway, &origin, target), want, "{slashes}: {target}");
        }
    }
}

#[test]
fn filters_see_the_path_that_is_routed_and_sent_on() {
    let origin = Recorder::start();
    let gateway = Gateway::probed(&origin.origin, "property=request.path");
    let answer = gateway.get("/x/%2e%2e//a%7eb?q=%2e");
    assert_eq!(answer.get("x-probe-property"), Some("/a~b?q=%2e"), "what the probe was shown");
    let seen = origin.take();
    assert_eq!(seen[0].head.start, "GET /a~b?q=%2e HTTP/1.1");
}
