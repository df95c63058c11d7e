//! The gateway's own pages, its end, and its access log.

use std::io::Read as _;
use std::process::{Command, Stdio};

use portcullis_tests::client::Client;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::pieces::Gate;
use portcullis_tests::pki::{Authority, Files, Use};
use portcullis_tests::process::{Process, Start, free_address};
use portcullis_tests::tls::{Dialer, Session as _};
use portcullis_tests::{eventually, guests};
use serde_json::Value;

#[test]
fn the_pages_are_there_and_tell_the_truth() {
    let origin = Origin::plain();
    let gateway = Gateway::probed(&origin, "");
    for (path, want) in [("/live", "live\n"), ("/ready", "ready\n")] {
        let page = gateway.page(path);
        assert_eq!((page.status(), page.text().as_str()), (200, want));
    }
    assert_eq!(gateway.page("/nothing").status(), 404);
    for _ in 0..3 {
        assert_eq!(gateway.get("/").status(), 200);
    }
    let count = "http_server_request_duration_seconds_count";
    eventually("the requests are counted", || gateway.metric(count, &["\"200\"", "http_route=\"/*\""]) == 3.0);
    assert!(gateway.metric("portcullis_filter_calls_total", &["probe"]) >= 3.0);
    assert_eq!(gateway.metric("portcullis_filter_instances", &["probe"]), 1.0);
    let config: Value = serde_json::from_slice(&gateway.page("/config").body).unwrap();
    assert!(config.to_string().contains(&origin.address.to_string()), "{config}");
}

#[test]
fn secrets_are_not_on_the_pages() {
    // Any variable serves; this one is always set.
    let Ok(secret) = std::env::var("PATH") else { return };
    let origin = Origin::plain();
    let gateway = Gateway::start(
        r#"
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins: { banner: {guest:banner} }
filters: [{ plugin: banner, config: { header: x-banner, value: "${env:PATH}" } }]
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", &origin)],
    );
    assert_eq!(gateway.get("/").get("x-banner"), Some(secret.as_str()));
    for path in ["/config", "/metrics"] {
        assert!(!gateway.page(path).text().contains(&secret), "{path}");
    }
}

#[test]
fn a_certificate_of_the_operators_opens_the_pages() {
    let (servers, operators, files) = (Authority::new("servers"), Authority::new("operators"), Files::default());
    files.put_pair("admin", &servers.issue(&["admin.test"], Use::Server));
    files.put("operators.pem", &operators.pem());
    let origin = Origin::plain();
    let config = r#"
admin:
  bind: "127.0.0.1:0"
  tls:
    certificates: [{ cert: "{f}/admin.pem", key: "{f}/admin.key" }]
    client_auth: { ca: "{f}/operators.pem", mode: optional }
upstreams: { origin: { endpoints: ["{origin}"] } }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#;
    let gateway = Gateway::start(config, &[("origin", &origin), ("f", &files.text(""))]);
    let ask = |dialer: &Dialer, path: &str| {
        let mut client = dialer.clone().offering(&["h2", "http/1.1"]).connect(gateway.admin(), "admin.test");
        assert_eq!(client.protocol(), "http/1.1");
        client.ask("GET", path, &[("host", "admin.test")], "").status()
    };
    let operator = Dialer::showing(&servers, &operators.issue(&["ops"], Use::Client));
    let nobody = Dialer::new(&servers);
    for (path, to_nobody) in [("/ready", 200), ("/config", 401), ("/metrics", 401)] {
        assert_eq!(ask(&operator, path), 200, "{path}");
        assert_eq!(ask(&nobody, path), to_nobody, "{path}");
    }
    let stranger = Dialer::showing(&servers, &servers.issue(&["ops"], Use::Client));
    stranger.is_let_in(gateway.admin(), "admin.test").expect_err("of another authority");
}

#[test]
fn a_gateway_that_stops_finishes_what_it_has_begun() {
    let gate = Gate::default();
    let origin = Origin::always(Answer::status(200).data("begun").wait(&gate).data(" and done"));
    let gateway = Gateway::in_front_of(&origin, "[]");
    let address = gateway.address();
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
    let head = client.0.head().unwrap();
    let idle = gateway.client();
    let stopping = std::thread::spawn(move || gateway.into_inner().stop());
    eventually("nobody accepts any more", || std::net::TcpStream::connect(address).is_err());
    gate.open();
    let answer = client.0.body(head);
    assert_eq!((answer.text().as_str(), answer.complete), ("begun and done", true));
    stopping.join().unwrap();
    drop(idle);
}

#[test]
fn the_command_writes_a_line_for_each_request_unless_it_is_told_not_to() {
    for access_log in ["stdout", "off"] {
        let origin = Origin::plain();
        let folder = tempfile::tempdir().unwrap();
        let port = free_address();
        let config = folder.path().join("portcullis.yaml");
        let text = format!(
            "version: 1\naccess_log: {access_log}\nlisteners: {{ main: {{ bind: \"{port}\" }} }}\n\
             upstreams: {{ origin: {{ endpoints: [\"{origin}\"] }} }}\n\
             routes: [{{ name: all, match: {{ path: \"/*\" }}, upstream: origin }}]\n"
        );
        std::fs::write(&config, text).unwrap();
        let cache = guests::target().join("tmp").join("test-modules");
        let mut process = Command::new(env!("CARGO_BIN_EXE_gateway"))
            .args(["run".as_ref(), config.as_os_str(), "--cache".as_ref(), cache.as_os_str()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("it listens", || std::net::TcpStream::connect(port).is_ok());
        let answer = Client::connect(port).ask("GET", "/logged?a=b", &[("x-request-id", "id-7")], "");
        assert_eq!(answer.status(), 200);
        let ended = Command::new("kill").arg(process.id().to_string()).status().unwrap();
        assert!(ended.success());
        assert!(process.wait().unwrap().success(), "SIGTERM is a clean end");
        let mut out = String::new();
        process.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        if access_log == "off" {
            assert_eq!(out, "");
            continue;
        }
        let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 1, "{out}");
        for told in ["id-7", "/logged", "via_upstream", "200"] {
            assert!(out.contains(told), "{told}: {out}");
        }
    }
}

#[test]
fn what_is_logged_is_changed_while_it_runs_and_the_refused_change_is_told() {
    let origin = Origin::plain();
    let text = r#"
upstreams: { origin: { endpoints: ["{origin}"] } }
routes: [{ name: all, match: { path: "/*" }, upstream: {upstream} }]
"#;
    let process =
        Start::new(env!("CARGO_BIN_EXE_gateway"), text, &[("origin", &origin), ("upstream", &"origin")]).start();
    let level = || serde_json::from_slice::<Value>(&process.page("/log").body).unwrap()["level"].clone();
    assert_eq!(level(), "info");
    let noisy = |process: &Process| process.log().lines().filter(|line| line.contains("\"DEBUG\"")).count();
    assert_eq!((process.client().get("/").status(), noisy(&process)), (200, 0));
    assert_eq!(process.ask_admin("PUT", "/log?level=portcullis=debug,info", &[]).status(), 200);
    let page = process.page("/stats").text();
    assert!(level().as_str().unwrap().contains("portcullis=debug") && page.contains("portcullis=debug"), "{page}");
    let has_logged = |words: &[&str]| process.log().lines().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(has_logged(&["portcullis::audit", "what is logged is changed", "127.0.0.1", "portcullis=debug"]));
    eventually("connections that end before they have begun are logged", || {
        drop(process.client());
        noisy(&process) > 0
    });
    for wrong in ["/log", "/log?level=", "/log?level=a=b=c", "/log?level=inf"] {
        let answer = process.ask_admin("PUT", wrong, &[]);
        assert_eq!(answer.status(), 400, "{wrong}: {}", answer.text());
    }
    let cross = process.ask_admin("PUT", "/log?level=off", &[("origin", "http://evil.example")]);
    assert_eq!(cross.status(), 403);
    assert_eq!(process.ask_admin("PUT", "/log?level=info", &[]).status(), 200);
    assert_eq!(level(), "info");
    assert_eq!(process.reload().status(), 200);
    process.configure(text, &[("origin", &origin), ("upstream", &"nobody")]);
    assert_eq!(process.reload().status(), 422);
    for words in [["\"reload\"", "revision"], ["\"reload: refused\"", "`nobody`"]] {
        let all = [words[0], words[1], "portcullis::audit", "127.0.0.1"];
        eventually("it is in the audit log", || has_logged(&all));
    }
    assert!(process.page("/stats").text().contains("THE LAST CHANGE WAS REFUSED"));
}
