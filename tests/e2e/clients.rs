//! Clients that others wrote, where this machine has them.

use std::process::{Command, Output};

use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};

/// Runs a program; nothing where there is none.
fn run(program: &str, args: &[&str]) -> Option<Output> {
    match Command::new(program).args(args).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("SKIPPED: {program} is not installed");
            None
        }
        Err(error) => panic!("{program}: {error}"),
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn echoing() -> Origin {
    Origin::start(|seen| Answer::ok(format!("{} {} ", seen.method, seen.target())).data(seen.body.clone()))
}

#[test]
fn curl_gets_posts_and_speaks_both_protocols() {
    let origin = echoing();
    let gateway = Gateway::probed(&origin, "headers upper@response_body");
    let url = format!("http://{}/a?b=c", gateway.address());
    let common = ["-sS", "--max-time", "20", "--noproxy", "*"];
    for (args, want) in [
        (&[][..], "GET /A?B=C "),
        (&["-d", "some=form"], "POST /A?B=C SOME=FORM"),
        (&["-T", "Cargo.toml", "-H", "transfer-encoding: chunked"], "PUT /A?B=C [PACKAGE]"),
        (&["--http2-prior-knowledge"], "GET /A?B=C "),
        (&["--http2-prior-knowledge", "-d", "x"], "POST /A?B=C X"),
    ] {
        let all: Vec<_> = common.iter().chain(args).copied().chain([url.as_str()]).collect();
        let Some(output) = run("curl", &all) else { return };
        let got = text(&output);
        if got.contains("option --http2-prior-knowledge") || got.contains("Unsupported protocol") {
            eprintln!("SKIPPED: this curl has no HTTP/2");
            continue;
        }
        assert!(output.status.success() && got.starts_with(want), "{args:?}: {got}");
    }
    let Some(output) = run("curl", &[&common[..], &["-I", &url]].concat()) else { return };
    assert!(text(&output).starts_with("HTTP/1.1 200") && text(&output).contains("x-probe-response: seen"));
}

#[test]
fn pythons_client_keeps_its_connection() {
    let origin = echoing();
    let gateway = Gateway::in_front_of(&origin, "[]");
    let script = "
import http.client, sys
c = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]), timeout=20)
for method, body in [('GET', None), ('POST', b'x' * 100000), ('POST', iter([b'ab', b'cd'])), ('DELETE', None)]:
    c.request(method, '/p', body=body, encode_chunked=True, headers={} if isinstance(body, (bytes, type(None))) else {'Transfer-Encoding': 'chunked'})
    r = c.getresponse()
    print(r.status, len(r.read()))
";
    let Some(output) = run("python3", &["-c", script, &gateway.address().port().to_string()]) else { return };
    assert_eq!(text(&output), "200 7\n200 100008\n200 12\n200 10\n");
}

#[test]
fn wrk_sees_no_errors() {
    let origin = Origin::plain();
    let gateway = Gateway::probed(&origin, "headers");
    let url = format!("http://{}/", gateway.address());
    let Some(output) = run("wrk", &["-t1", "-c16", "-d2s", &url]) else { return };
    let got = text(&output);
    assert!(got.contains("Requests/sec") && !got.contains("Non-2xx") && !got.contains("Socket errors"), "{got}");
}

#[test]
fn h2load_sees_no_errors() {
    let origin = Origin::plain();
    let gateway = Gateway::probed(&origin, "headers");
    for path in ["/", "/h2/"] {
        let url = format!("http://{}{path}", gateway.address());
        let Some(output) = run("h2load", &["-n", "2000", "-c", "4", "-m", "16", &url]) else { return };
        let got = text(&output);
        assert!(got.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{got}");
    }
}
