//! What a process survives, and what it keeps to itself.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use portcullis_tests::eventually;
use portcullis_tests::origin::Origin;
use portcullis_tests::process::{Process, Start, free_address};

const GATEWAY: &str = env!("CARGO_BIN_EXE_gateway");

const PLAIN: &str = r#"
access_log: stdout
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins: { banner: {guest:banner} }
filters: [{ plugin: banner, config: { header: x-revision, value: "{value}" } }]
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#;

#[test]
fn a_process_that_was_killed_serves_again_within_two_seconds() {
    let origin = Origin::plain();
    let mut process = Start::new(GATEWAY, PLAIN, &[("origin", &origin), ("value", &"one")]).start();
    let mut took = Vec::new();
    // A machine that does other things too may make it take longer, and not every time.
    while took.iter().all(|took| *took >= Duration::from_secs(2)) {
        assert!(took.len() < 8, "{took:?}");
        assert_eq!(process.client().get("/").status(), 200);
        let mut busy = process.client();
        busy.send("GET / HTTP/1.1\r\n");
        process.signal("KILL");
        let began = Instant::now();
        process = process.again(GATEWAY).start();
        assert_eq!(process.client().get("/").get("x-revision"), Some("one"));
        took.push(began.elapsed());
    }
}

#[test]
fn a_process_whose_configuration_cannot_be_used_starts_with_the_last_good_one() {
    let origin = Origin::plain();
    let kept = tempfile::tempdir().unwrap();
    let start = Start::new(GATEWAY, PLAIN, &[("origin", &origin), ("value", &"one")]);
    let keep = kept.path().to_str().unwrap();
    let mut process = start.variable("PORTCULLIS_KEEP", keep).start();
    let refused_by_its_plugin = PLAIN.replace("header: x-revision", "header: 'no name'");
    for (number, unusable, why) in [
        (2, "nonsense", "nonsense"),
        (4, &*refused_by_its_plugin, "`banner`"),
        (6, &format!("access_log: {{ file: {keep}/none/of/it }}\n{}", PLAIN.replace("access_log", "# ")), "none/of/it"),
    ] {
        let configure = |process: &Process, number: u32| {
            process.configure(PLAIN, &[("origin", &origin), ("value", &format!("number-{number}"))]);
        };
        let serves = |process: &Process, number: u32| {
            process.client().get("/").get("x-revision") == Some(&format!("number-{number}"))
        };
        configure(&process, number);
        assert_eq!(process.reload().status(), 200);
        eventually("a copy of the new revision is kept", || {
            let copied = Command::new("grep").args(["-rq", &format!("number-{number}")]).arg(kept.path()).status();
            copied.is_ok_and(|status| status.success())
        });
        process.configure(unusable, &[("origin", &origin), ("value", &"none")]);
        process.signal("KILL");
        process = process.again(GATEWAY).variable("PORTCULLIS_KEEP", keep).start();
        assert!(serves(&process, number), "{unusable}");
        assert!(process.log().contains(why), "{}", process.log());
        assert_eq!(process.metric("portcullis_config_last_apply_success"), Some(0.0));
        configure(&process, number + 1);
        eventually("the mended one is served", || serves(&process, number + 1));
        assert_eq!(process.metric("portcullis_config_last_apply_success"), Some(1.0));
    }
}

#[test]
fn outputs_that_cannot_be_written_to_leave_it_serving() {
    let origin = Origin::plain();
    let full = Path::new("/dev/full");
    let mut process = Start::new(GATEWAY, PLAIN, &[("origin", &origin), ("value", &"one")])
        .variable("PORTCULLIS_LOG", "debug")
        .outputs(full, full)
        .start();
    for _ in 0..20 {
        assert_eq!(process.client().get("/").status(), 200);
    }
    eventually("the lines are counted", || process.metric("portcullis_access_log_dropped_total") >= Some(20.0));
    process.configure(PLAIN, &[("origin", &origin), ("value", &"two")]);
    eventually("it can still be changed", || process.client().get("/").get("x-revision") == Some("two"));
    process.configure("nonsense", &[]);
    assert_eq!(process.reload().status(), 422);
    assert_eq!(process.client().get("/").status(), 200);
    process.signal("TERM");
    assert!(process.wait().success());
}

#[test]
fn secrets_are_in_no_page_log_or_error() {
    const TOKEN: &str = "token-5e2f90c1-admin";
    const KEY: &str = "key-8d1b44aa-filter";
    let origin = Origin::plain();
    let admin = free_address();
    let text = format!("admin: {{ bind: \"{admin}\", token: \"${{file:token}}\" }}\n{PLAIN}");
    let places: [(&str, &dyn std::fmt::Display); 2] = [("origin", &origin), ("value", &"${env:FILTER_KEY}")];
    let start = Start::new(GATEWAY, &text, &places).file("token", &format!("{TOKEN}\n"));
    let start = start.variable("FILTER_KEY", KEY).variable("PORTCULLIS_LOG", "trace");
    let mut process = start.admin_at(admin).start();
    let bearer = format!("Bearer {TOKEN}");
    let ask =
        |process: &Process, method: &str, path: &str| process.ask_admin(method, path, &[("authorization", &bearer)]);
    assert_eq!(process.client().get("/").get("x-revision"), Some(KEY), "the filter has its secret");
    let mut said = String::new();
    for path in ["/", "/config", "/metrics", "/revision", "/ready", "/nothing"] {
        assert_eq!(process.page(path).status(), if path == "/ready" { 200 } else { 401 }, "{path}");
        said.push_str(&ask(&process, "GET", path).text());
    }
    assert!(said.contains("${file:token}") && said.contains("${env:FILTER_KEY}"), "they are named: {said}");
    for wrong in ["Bearer token-5e2f90c1-admix", "Basic dG9rZW4="] {
        assert_eq!(process.ask_admin("POST", "/reload", &[("authorization", wrong)]).status(), 401);
    }
    // Where a secret stands where it does not fit, the complaint does not quote it.
    for broken in [
        text.replace("path: \"/*\"", "path: \"${file:token}\""),
        text.replace("[\"{origin}\"]", "[\"${env:FILTER_KEY}\"]"),
        text.replace("name: all", "name: \"${file:token}\"").replace("upstream: origin", "upstream: \"${file:token}\""),
        text.replace(&format!("bind: \"{admin}\""), "bind: \"${file:token}\""),
    ] {
        process.configure(&broken, &places);
        let answer = ask(&process, "POST", "/reload");
        assert_eq!(answer.status(), 422, "{broken}");
        said.push_str(&answer.text());
        said.push_str(&ask(&process, "GET", "/revision").text());
        let mut check = Command::new(GATEWAY);
        let checked = check.arg("check").arg(process.folder().join("portcullis.yaml")).env("FILTER_KEY", KEY);
        said.push_str(&String::from_utf8_lossy(&checked.output().unwrap().stdout));
    }
    process.signal("TERM");
    assert!(process.wait().success());
    said.push_str(&process.log());
    said.push_str(&process.output());
    for secret in [TOKEN, KEY] {
        let found = said.lines().find(|line| line.contains(secret));
        assert_eq!(found, None);
    }
}

/// How often the process has these bytes in its memory.
fn copies(process: &Process, bytes: &[u8]) -> usize {
    let maps = fs::read_to_string(format!("/proc/{}/maps", process.id())).unwrap();
    let memory = fs::File::open(format!("/proc/{}/mem", process.id())).unwrap();
    let mut copies = 0;
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|rights| rights.starts_with("rw"))) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).unwrap());
        // By pieces that overlap by what is looked for; what cannot be read is not in use.
        let (mut at, mut piece) = (from, vec![0; 1 << 20]);
        while at < to {
            let size = piece.len().min(usize::try_from(to - at).unwrap());
            let Ok(read) = memory.read_at(&mut piece[..size], at) else { break };
            copies += memchr::memmem::find_iter(&piece[..read], bytes).count();
            let step = if read < piece.len() { read } else { read - bytes.len() + 1 };
            at += u64::try_from(step.max(1)).unwrap();
        }
    }
    copies
}

#[test]
fn a_secret_leaves_memory_with_the_revision_that_had_it() {
    const KEY: &str = "hmac-key-4f6d2a97-of-forty-characters-xx";
    const WITH: &str = r#"
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins: { auth: {guest:auth} }
filters: [{ plugin: auth, config: { keys: [{ kid: a, alg: HS256, secret: "{value}" }] } }]
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#;
    let origin = Origin::plain();
    let places = |value| [("origin", &origin as &dyn std::fmt::Display), ("value", value)];
    let start = Start::new(GATEWAY, WITH, &places(&"${file:key}")).file("key", KEY);
    let process = start.start();
    assert_eq!(process.client().get("/").status(), 401);
    assert!(copies(&process, KEY.as_bytes()) > 0, "it is in use");
    process.configure(WITH, &places(&"another-key-of-more-than-thirty-two-bytes"));
    assert_eq!(process.reload().status(), 200);
    eventually("nothing of it is left", || copies(&process, KEY.as_bytes()) == 0);
}

#[test]
fn an_admin_address_that_others_can_reach_needs_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("portcullis.yaml");
    fs::write(folder.path().join("token"), "a-token-of-some-length").unwrap();
    let hashed = "sha256:".to_owned() + &"0".repeat(64);
    for (admin, hint) in [
        ("{ bind: \"0.0.0.0:9901\" }", "open to everyone"),
        ("{ bind: \"[::]:9901\" }", "open to everyone"),
        ("{ bind: \"192.0.2.1:9901\" }", "open to everyone"),
        ("{ bind: \"0.0.0.0:9901\", token: \"a-token-of-some-length\" }", "stands in the configuration itself"),
        ("{ bind: \"0.0.0.0:9901\", token: \"${file:nowhere}\" }", "cannot be read"),
        ("{ bind: \"0.0.0.0:9901\", token: \"${file:token}\" }", "ok:"),
        (&format!("{{ bind: \"0.0.0.0:9901\", token: \"{hashed}\" }}"), "ok:"),
        ("{ bind: \"127.0.0.53:9901\" }", "ok:"),
        ("{ bind: \"[::1]:9901\" }", "ok:"),
    ] {
        fs::write(&path, format!("version: 1\nlisteners: {{ a: {{ bind: \"127.0.0.1:1\" }} }}\nadmin: {admin}\n"))
            .unwrap();
        let output = Command::new(GATEWAY).arg("check").arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(hint), "{admin}: {said}");
    }
}
