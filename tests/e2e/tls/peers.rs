//! TLS with programs that others wrote, where this machine has them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Output, Stdio};

use portcullis_tests::eventually;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::pki::{Authority, Use};
use portcullis_tests::process::free_address;

use super::{MUTUAL, ONE, Scene, usual};

/// Runs a program with this on its standard input; nothing where there is none.
fn run(program: &str, args: &[&str], input: &str) -> Option<Output> {
    let spawned =
        Command::new(program).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("SKIPPED: {program} is not installed");
            return None;
        }
        Err(error) => panic!("{program}: {error}"),
    };
    let _gone = child.stdin.take().unwrap().write_all(input.as_bytes());
    Some(child.wait_with_output().unwrap())
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn curl_checks_our_certificate_and_shows_its_own() {
    let ((servers, files), clients) = (usual(), Authority::new("clients"));
    files.put("clients.pem", &clients.pem());
    files.put_pair("own", &clients.issue(&["curl"], Use::Client));
    let origin = Origin::start(|seen| Answer::ok(format!("{} {}", seen.method, seen.target())));
    let tls = MUTUAL.replace("{mode}", "mode: required");
    let gateway = Scene::new(&files, &origin, &tls).start();
    let port = gateway.address().port();
    let (url, resolve) = (format!("https://a.test:{port}/x"), format!("a.test:{port}:127.0.0.1"));
    let (ca, cert, key) = (files.text("ca.pem"), files.text("own.pem"), files.text("own.key"));
    let common = ["-sS", "--max-time", "20", "--noproxy", "*", "--resolve", &resolve, "--cacert", &ca];
    let own = ["--cert", &cert, "--key", &key];
    for (args, want) in [
        (&[][..], "GET /x"),
        (&["--http1.1", "-d", "a=b"], "POST /x"),
        (&["--http2", "-d", "a=b"], "POST /x"),
        (&["--tls-max", "1.2"], "GET /x"),
        (&["--tlsv1.3"], "GET /x"),
    ] {
        let Some(output) = run("curl", &[&common[..], &own, args, &[url.as_str()]].concat(), "") else { return };
        assert!(output.status.success() && text(&output) == want, "{args:?}: {}", text(&output));
    }
    let refused = run("curl", &[&common[..], &[url.as_str()]].concat(), "").unwrap();
    assert!(!refused.status.success() && text(&refused).contains("certificate required"), "{}", text(&refused));
    let elsewhere = run("curl", &[&common[..8], &own, &[url.as_str()]].concat(), "").unwrap();
    assert!(!elsewhere.status.success(), "curl believes a stranger: {}", text(&elsewhere));
    drop(servers);
}

#[test]
fn openssl_resumes_its_session_on_either_worker() {
    let ((_, files), origin) = (usual(), Origin::plain());
    let gateway = Scene { workers: 2, ..Scene::new(&files, &origin, ONE) }.start();
    let address = gateway.address().to_string();
    let (ca, session) = (files.text("ca.pem"), files.text("session"));
    let request = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    for version in ["-tls1_2", "-tls1_3"] {
        let common = [
            "s_client",
            "-connect",
            &address,
            "-servername",
            "a.test",
            "-CAfile",
            &ca,
            "-verify_return_error",
            version,
            "-ign_eof",
        ];
        let first = [&common[..], &["-sess_out", &session]].concat();
        let Some(output) = run("openssl", &first, request) else { return };
        let got = text(&output);
        assert!(got.contains("New, TLSv1") && got.contains("Verify return code: 0") && got.contains("200 OK"), "{got}");
        for _ in 0..6 {
            let again = [&common[..], &["-sess_in", &session]].concat();
            let got = text(&run("openssl", &again, request).unwrap());
            assert!(got.contains("Reused, TLSv1") && got.contains("200 OK"), "{version}: {got}");
        }
    }
}

#[test]
fn openssl_agrees_on_http2_and_is_offered_no_early_data() {
    let ((_, files), origin) = (usual(), Origin::plain());
    let gateway = Scene::new(&files, &origin, ONE).start();
    let (address, ca) = (gateway.address().to_string(), files.text("ca.pem"));
    let common = ["s_client", "-connect", &address, "-CAfile", &ca, "-servername", "a.test"];
    let Some(output) = run("openssl", &[&common[..], &["-alpn", "h2,http/1.1"]].concat(), "Q\n") else { return };
    assert!(text(&output).contains("ALPN protocol: h2"), "{}", text(&output));
    let request = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    let got = text(&run("openssl", &[&common[..], &["-tls1_3", "-ign_eof"]].concat(), request).unwrap());
    assert!(got.contains("Max Early Data: 0") && !got.contains("Early data was accepted"), "{got}");
}

/// A server of OpenSSL's; it ends when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

#[test]
fn openssl_as_an_upstream_demands_our_certificate() {
    let ((servers, files), clients) = (usual(), Authority::new("gateways"));
    files.put_pair("origin", &servers.issue(&["localhost"], Use::Server));
    files.put_pair("own", &clients.issue(&["gateway"], Use::Client));
    files.put("clients.pem", &clients.pem());
    let port = free_address().port();
    let (accept, cert, key, ca) =
        (format!("127.0.0.1:{port}"), files.text("origin.pem"), files.text("origin.key"), files.text("clients.pem"));
    let args = [
        "s_server",
        "-accept",
        &accept,
        "-cert",
        &cert,
        "-key",
        &key,
        "-CAfile",
        &ca,
        "-Verify",
        "1",
        "-verify_return_error",
        "-www",
    ];
    let spawned =
        Command::new("openssl").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let Ok(mut child) = spawned else {
        eprintln!("SKIPPED: openssl is not installed");
        return;
    };
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let _server = Server(child);
    let mut line = String::new();
    while !line.contains("ACCEPT") {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "openssl ended");
    }
    let text = r#"
upstreams:
  with: { endpoints: ["localhost:{port}"], tls: { ca: "{f}/ca.pem", certificate: { cert: "{f}/own.pem", key: "{f}/own.key" } } }
  without: { endpoints: ["localhost:{port}"], tls: { ca: "{f}/ca.pem" } }
routes:
  - { name: with, match: { path: "/*" }, upstream: with }
  - { name: without, match: { path: "/without" }, upstream: without }
"#;
    let gateway = Gateway::start(text, &[("port", &port), ("f", &files)]);
    eventually("openssl serves", || gateway.get("/").status() == 200);
    let answer = gateway.get("/");
    assert!(answer.text().contains("CN = gateway") || answer.text().contains("CN=gateway"), "{}", answer.text());
    assert_eq!(gateway.get("/without").status(), 502);
}
