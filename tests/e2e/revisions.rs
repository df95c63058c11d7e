//! Changes of revision while requests are served.

use std::net::TcpStream;

use portcullis_tests::client::Client;
use portcullis_tests::eventually;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::pieces::Gate;

const STAMPED: &str = r#"
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins: { banner: {guest:banner} }
filters: [{ plugin: banner, config: { header: x-revision, value: "{stamp}" } }]
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#;

#[test]
fn requests_after_a_change_see_all_of_it_and_those_before_none() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::start(move |seen| {
        let answer = Answer::ok("ok");
        if seen.target() == "/slow" { answer.after(&held) } else { answer }
    });
    let gateway = Gateway::start(STAMPED, &[("origin", &origin), ("stamp", &"one")]);
    let mut kept = gateway.client();
    assert_eq!(kept.get("/").get("x-revision"), Some("one"));
    let mut slow = gateway.client();
    slow.send("GET /slow HTTP/1.1\r\nhost: test\r\n\r\n");
    origin.wait_for(2);

    assert_eq!(gateway.apply(STAMPED, &[("origin", &origin), ("stamp", &"two")]), Ok(2));
    eventually("the worker has switched", || gateway.get("/").get("x-revision") == Some("two"));
    assert_eq!(kept.get("/").get("x-revision"), Some("two"), "a connection outlives a revision");
    assert_eq!(gateway.metric("portcullis_filter_instances", &["banner"]), 2.0, "the old VM still has an exchange");
    gate.open();
    assert_eq!(slow.answer().get("x-revision"), Some("one"), "an exchange does not");
    eventually("the old VM is gone", || gateway.metric("portcullis_filter_instances", &["banner"]) == 1.0);
    assert!(gateway.metric("portcullis_filter_calls_total", &["banner"]) >= 4.0, "what it counted is not forgotten");
}

#[test]
fn what_does_not_change_goes_on_running() {
    let origin = Origin::plain();
    let text = r#"
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins: { banner: {guest:banner} }
filters: [{ plugin: banner, config: { header: x-banner, value: "hello" } }]
routes: [{ name: all, match: { path: "{path}" }, upstream: origin }]
"#;
    let gateway = Gateway::start(text, &[("origin", &origin), ("path", &"/a")]);
    assert_eq!(gateway.get("/a").status(), 200);
    for (path, revision) in [("/b", 2), ("/c", 3), ("/b", 4)] {
        assert_eq!(gateway.apply(text, &[("origin", &origin), ("path", &path)]), Ok(revision));
        eventually("the worker has switched", || gateway.get(path).status() == 200);
    }
    assert_eq!(gateway.get("/a").status(), 404);
    assert_eq!(gateway.metric("portcullis_filter_starts_total", &["banner"]), 1.0, "the VM was carried over");
    assert!(origin.seen().iter().all(|seen| seen.connection == 1), "so was the connection to the origin");
    assert!(gateway.page("/config").text().contains("\"/b\""));
}

#[test]
fn a_revision_that_cannot_run_changes_nothing() {
    let origin = Origin::plain();
    let gateway = Gateway::start(STAMPED, &[("origin", &origin), ("stamp", &"one")]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = format!("listeners: {{ other: {{ bind: \"{}\" }} }}\n{STAMPED}", taken.local_addr().unwrap());
    let broken = STAMPED.replace("upstream: origin }", "upstream: orign }");
    let unhappy = STAMPED
        .replace("{guest:banner}", "{guest:probe}")
        .replace("{ header: x-revision, value: \"{stamp}\" }", "fail@configure");
    for (text, hint) in [(elsewhere.as_str(), "cannot listen"), (&broken, "`orign`"), (&unhappy, "banner")] {
        let why = gateway.apply(text, &[("origin", &origin), ("stamp", &"two")]).unwrap_err();
        assert!(why.contains(hint), "{hint}: {why}");
        assert_eq!(gateway.get("/").get("x-revision"), Some("one"));
    }
    assert_eq!(gateway.apply(STAMPED, &[("origin", &origin), ("stamp", &"three")]), Ok(2));
    eventually("a good one still can", || gateway.get("/").get("x-revision") == Some("three"));
}

#[test]
fn listeners_come_and_go_and_the_others_do_not_notice() {
    let origin = Origin::plain();
    let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (first, second) = (port(), port());
    let text = |listeners: &str| {
        format!(
            "listeners: {listeners}\nupstreams: {{ origin: {{ endpoints: [\"{origin}\"] }} }}\n\
             routes: [{{ name: all, match: {{ path: \"/*\" }}, upstream: origin }}]\n"
        )
    };
    let gateway = Gateway::start(&text(&format!("{{ a: {{ bind: \"{first}\" }} }}")), &[]);
    let mut kept = Client::connect(first);
    assert_eq!(kept.get("/").status(), 200);
    let both = format!("{{ renamed: {{ bind: \"{first}\" }}, b: {{ bind: \"{second}\" }} }}");
    gateway.apply(&text(&both), &[]).unwrap();
    assert_eq!(Client::connect(second).get("/").status(), 200);
    assert_eq!(Client::connect(first).get("/").status(), 200);

    let only_second = format!("{{ b: {{ bind: \"{second}\" }} }}");
    let (mut idle, mut busy) = (Client::connect(first), Client::connect(first));
    assert_eq!(idle.get("/").status(), 200);
    let before = origin.begun();
    busy.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\nab");
    eventually("its request has begun", || origin.begun() > before);
    gateway.apply(&text(&only_second), &[]).unwrap();
    eventually("nobody listens there any more", || TcpStream::connect(first).is_err());
    assert_eq!(Client::connect(second).get("/").status(), 200);
    busy.send("cd");
    let last = busy.answer();
    assert_eq!((last.status(), last.get("connection")), (200, Some("close")), "it ends, with a word of farewell");
    assert!(idle.0.message().is_err(), "nobody waits for what may never come");
}
