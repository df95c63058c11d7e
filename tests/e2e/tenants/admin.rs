//! Tenants made, changed and removed over the admin listener, while the gateway serves.

use std::fs;
use std::path::Path;
use std::process::Command;

use portcullis_tests::client::{Client, request};
use portcullis_tests::docs;
use portcullis_tests::eventually;
use portcullis_tests::guests::{module, target};
use portcullis_tests::load::{Check, Load, Refused};
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::process::{Process, Start, free_address};
use portcullis_tests::wire::Message;
use serde_json::Value;

use super::operators::has_logged;

pub(super) const GATEWAY: &str = env!("CARGO_BIN_EXE_gateway");
pub(super) const TOKEN: &str = "Bearer correct-horse-battery-staple";

const PLATFORM: &str = r#"
workers: 2
admin: { bind: "{admin}", token: "${env:ADMIN_TOKEN}", tenants: tenants }
upstreams: { shared: { endpoints: ["{shared}"] } }
tenants:
  fixed: { hosts: [fixed.test], routes: [{ name: all, match: { path: "/*" }, upstream: shared }] }
"#;

pub(super) fn tenant(host: &str, value: &str) -> String {
    format!(
        "hosts: [{host}]\n\
         plugins: {{ banner: {{ module: \"file:banner.wasm\" }} }}\n\
         filters: [{{ plugin: banner, config: {{ header: x-of, value: {value} }} }}]\n\
         routes: [{{ name: all, match: {{ path: \"/*\" }}, upstream: shared }}]\n"
    )
}

fn start(shared: &Origin) -> Start {
    let admin = free_address();
    Start::new(GATEWAY, PLATFORM, &[("shared", shared), ("admin", &admin)])
        .admin_at(admin)
        .argument("--no-watch")
        .variable("ADMIN_TOKEN", TOKEN.strip_prefix("Bearer ").unwrap())
}

pub(super) fn tell(
    process: &Process,
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
    body: impl AsRef<[u8]>,
) -> Message {
    let fields: Vec<(&str, &str)> = [("authorization", TOKEN)].iter().chain(fields).copied().collect();
    process.tell_admin(method, path, &fields, body)
}

pub(super) fn code(answer: &Message) -> String {
    let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    problem["code"].as_str().unwrap_or_default().to_owned()
}

pub(super) fn banner() -> Vec<u8> {
    fs::read(module("banner")).unwrap()
}

/// Status and, of a tenant that is served, what it says.
fn seen(process: &Process, host: &str) -> (u16, Option<String>) {
    let answer = process.client().ask("GET", "/", &[("host", host)], "");
    (answer.status(), answer.get("x-of").map(str::to_owned))
}

fn says(value: &str) -> (u16, Option<String>) {
    (200, Some(value.to_owned()))
}

fn listed(process: &Process) -> Vec<(String, String, String)> {
    let list: Value = serde_json::from_slice(&tell(process, "GET", "/v1/tenants", &[], "").body).unwrap();
    let word = |tenant: &Value, name: &str| tenant[name].as_str().unwrap().to_owned();
    let tenants = list["tenants"].as_array().unwrap().iter();
    tenants.map(|tenant| (word(tenant, "name"), word(tenant, "from"), word(tenant, "status"))).collect()
}

#[test]
fn a_tenant_is_made_changed_and_removed_and_outlives_the_process() {
    let shared = Origin::always(Answer::ok("shared"));
    let mut process = start(&shared).start();
    assert_eq!(seen(&process, "acme.test"), (404, None));
    let made = tell(&process, "PUT", "/v1/tenants/acme/modules/banner.wasm", &[], banner());
    assert_eq!(made.status(), 201, "{}", made.text());
    assert_eq!(seen(&process, "acme.test"), (404, None), "a module alone is no tenant");
    let made = tell(&process, "PUT", "/v1/tenants/acme", &[("if-none-match", "*")], tenant("acme.test", "one"));
    assert_eq!(made.status(), 201, "{}", made.text());
    assert_eq!(seen(&process, "acme.test"), says("one"));
    let of = |name: &str, from: &str| (name.to_owned(), from.to_owned(), "served".to_owned());
    assert_eq!(listed(&process), [of("fixed", "files"), of("acme", "directory")]);

    let shown = tell(&process, "GET", "/v1/tenants/acme", &[], "");
    assert_eq!(shown.text(), tenant("acme.test", "one"));
    let tag = shown.get("etag").unwrap().to_owned();
    let next = tenant("acme.test", "two");
    let again = tell(&process, "PUT", "/v1/tenants/acme", &[("if-none-match", "*")], &next);
    assert_eq!((again.status(), code(&again)), (412, "condition".to_owned()));
    let changed = tell(&process, "PUT", "/v1/tenants/acme", &[("if-match", &tag)], &next);
    assert_eq!(changed.status(), 200, "{}", changed.text());
    assert_eq!(seen(&process, "acme.test"), says("two"));
    let late = tell(&process, "PUT", "/v1/tenants/acme", &[("if-match", &tag)], tenant("acme.test", "late"));
    assert_eq!((late.status(), code(&late)), (412, "condition".to_owned()));

    process.signal("TERM");
    process.wait();
    let before = process.log();
    let process = process.again(GATEWAY).variable("ADMIN_TOKEN", TOKEN.strip_prefix("Bearer ").unwrap()).start();
    assert_eq!(seen(&process, "acme.test"), says("two"));
    assert_eq!(tell(&process, "DELETE", "/v1/tenants/acme", &[], "").status(), 200);
    let log = format!("{before}{}", process.log());
    assert_eq!(seen(&process, "acme.test"), (404, None));
    assert_eq!(tell(&process, "DELETE", "/v1/tenants/acme", &[], "").status(), 404);
    assert!(!process.folder().join("tenants/acme").exists());
    for line in ["tenant put", "module put", "tenant deleted"] {
        assert!(
            log.lines()
                .any(|said| ["portcullis::audit", line, "acme", "127.0.0.1"].iter().all(|word| said.contains(word))),
            "{line}: {log}"
        );
    }
}

#[test]
fn what_cannot_be_used_is_refused_with_its_place_and_leaves_no_trace() {
    let shared = Origin::always(Answer::ok("shared"));
    let process = start(&shared).start();
    let put = |path: &str, body: &str| tell(&process, "PUT", path, &[], body);
    assert_eq!(tell(&process, "PUT", "/v1/tenants/acme/modules/banner.wasm", &[], banner()).status(), 201);
    let good = tenant("acme.test", "one");
    for (what, body, why) in [
        ("no YAML", "hosts: [".to_owned(), "tenant.yaml:"),
        ("an unknown key", format!("{good}colour: red\n"), "colour"),
        ("another's host", good.replace("acme.test", "fixed.test"), "belongs to both tenant"),
        ("a module that is not there", good.replace("banner.wasm", "none.wasm"), "there is no such file"),
        (
            "a file beyond its folder",
            good.replace("file:banner.wasm", "file:../../portcullis.yaml"),
            "may only name files below",
        ),
        (
            "the gateway's environment",
            good.replace("value: one", "value: \"${env:ADMIN_TOKEN}\""),
            "may not read the gateway's environment",
        ),
        ("what its module refuses", good.replace("header:", "no_header:"), "no_header"),
    ] {
        let answer = put("/v1/tenants/acme", &body);
        assert_eq!((answer.status(), code(&answer)), (422, "refused".to_owned()), "{what}");
        assert!(answer.text().contains(why), "{what}: {}", answer.text());
        assert!(!process.folder().join("tenants/acme/tenant.yaml").exists(), "{what}");
        assert_eq!(seen(&process, "acme.test"), (404, None), "{what}");
    }
    let rehearsed = put("/v1/tenants/acme?dry_run=true", &good);
    assert_eq!(rehearsed.status(), 200, "{}", rehearsed.text());
    assert_eq!(seen(&process, "acme.test"), (404, None), "it was only tried");
    assert_eq!(put("/v1/tenants/acme", &good).status(), 201);
    let broken = put("/v1/tenants/acme/modules/banner.wasm", "no module");
    assert_eq!((broken.status(), code(&broken)), (422, "refused".to_owned()));
    let needed = tell(&process, "DELETE", "/v1/tenants/acme/modules/banner.wasm", &[], "");
    assert_eq!((needed.status(), code(&needed)), (422, "refused".to_owned()));
    assert_eq!(seen(&process, "acme.test"), says("one"));
    let stored = fs::read(process.folder().join("tenants/acme/banner.wasm")).unwrap();
    assert_eq!(stored, banner());
}

/// What `check` says of the configuration as it stands in the process's folder.
fn checked(process: &Process) -> String {
    let mut check = Command::new(GATEWAY);
    let cache = target().join("tmp").join("test-modules");
    check.arg("check").arg(process.folder().join("portcullis.yaml")).arg("--cache").arg(cache);
    let checked = check.env("ADMIN_TOKEN", TOKEN.strip_prefix("Bearer ").unwrap()).output().unwrap();
    assert!(!checked.status.success());
    String::from_utf8(checked.stdout).unwrap()
}

#[test]
fn what_plugins_say_is_told_as_check_tells_it() {
    let shared = Origin::always(Answer::ok("shared"));
    let process = start(&shared).start();
    let folder = process.folder().join("tenants/acme");
    assert_eq!(tell(&process, "PUT", "/v1/tenants/acme/modules/banner.wasm", &[], banner()).status(), 201);
    fs::write(folder.join("bad.wasm"), "no module").unwrap();
    let good = tenant("acme.test", "one");
    let limit = "plugins: { limit: { module: \"builtin:rate-limit\" }, ";
    let both = good
        .replace("plugins: { ", limit)
        .replace("filters: [", "filters: [{ plugin: limit, config: { rate: 5/y } }, ");
    for (body, places) in [
        (good.replace("header:", "no_header:"), vec!["tenant.yaml:3:39"]),
        (both.replace("header:", "no_header:"), vec!["tenant.yaml:3:44", "tenant.yaml:3:"]),
        (good.replace("banner.wasm", "bad.wasm"), vec!["tenant.yaml:2:30"]),
    ] {
        let answer = tell(&process, "PUT", "/v1/tenants/acme", &[], &body);
        let problem: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status(), problem["code"].as_str()), (422, Some("refused")));
        let detail = problem["detail"].as_str().unwrap();
        assert!(places.iter().all(|place| detail.contains(place)), "{detail}");
        fs::write(folder.join("tenant.yaml"), &body).unwrap();
        let check = checked(&process);
        assert!(check.starts_with(detail.trim_end()), "{check}\nbut over the admin listener\n{detail}");
        // A reload finds the same, and holds it against nobody else.
        assert_eq!(tell(&process, "POST", "/reload", &[], "").status(), 200);
        let revision: Value = serde_json::from_slice(&tell(&process, "GET", "/revision", &[], "").body).unwrap();
        assert_eq!(revision["refused_tenants"]["acme"].as_str(), Some(detail));
        fs::remove_file(folder.join("tenant.yaml")).unwrap();
    }
}

#[test]
fn whoever_may_not_changes_nothing() {
    let shared = Origin::always(Answer::ok("shared"));
    let process = start(&shared).start();
    let good = tenant("acme.test", "one");
    assert_eq!(process.tell_admin("PUT", "/v1/tenants/acme", &[], &good).status(), 401);
    assert_eq!(process.tell_admin("PUT", "/v1/tenants/acme", &[("authorization", "Bearer no")], &good).status(), 401);
    assert_eq!(process.ask_admin("GET", "/v1/tenants?secret=hush", &[]).status(), 401);
    assert_eq!(tell(&process, "GET", "/stats", &[("origin", "http://evil.test")], "").status(), 403);
    for [method, path, why] in [
        ["PUT", "/v1/tenants/acme", "unauthorized"],
        ["GET", "/v1/tenants", "unauthorized"],
        ["GET", "/stats", "cross_site"],
    ] {
        let fields = [("method", method), ("path", path), ("why", why), ("who", "127.0.0.1")];
        let fields = fields.map(|(name, value)| format!("\"{name}\":\"{value}\""));
        let words: Vec<&str> =
            fields.iter().map(String::as_str).chain(["portcullis::audit", "request refused"]).collect();
        eventually("it is in the log", || has_logged(&process, &words));
    }
    for path in [
        "/v1/tenants/..",
        "/v1/tenants/.a",
        "/v1/tenants/A",
        "/v1/tenants/a%2fb",
        "/v1/tenants/acme/modules/..",
        "/v1/tenants/acme/modules/tenant.yaml",
    ] {
        let answer = tell(&process, "PUT", path, &[], &good);
        assert_eq!((answer.status(), code(&answer)), (400, "bad_name".to_owned()), "{path}");
    }
    for (method, path, status) in [
        ("POST", "/v1/tenants", 405),
        ("PATCH", "/v1/tenants/acme", 405),
        ("GET", "/v1/tenants/acme", 404),
        ("GET", "/v1/tenants/acme/modules", 404),
        ("GET", "/v1/tenants/acme/more/of/it", 404),
        ("GET", "/v1/tenantsx", 404),
    ] {
        assert_eq!(tell(&process, method, path, &[], "").status(), status, "{method} {path}");
    }
    let huge = tell(&process, "PUT", "/v1/tenants/acme", &[], vec![b'#'; (1 << 20) + 1]);
    assert_eq!((huge.status(), code(&huge)), (413, "too_large".to_owned()));
    let host = process.admin.to_string();
    let whole = request("PUT", "/v1/tenants/acme", &[("host", &host), ("authorization", TOKEN)], &good);
    let mut client = Client::connect(process.admin);
    client.send(whole.strip_suffix('\n').unwrap());
    client.0.finish_sending();
    let cut = client.answer();
    assert_eq!((cut.status(), code(&cut)), (400, "incomplete".to_owned()));
    assert!(fs::read_dir(process.folder().join("tenants")).map_or(true, |mut there| there.next().is_none()));
    let open = PLATFORM.replace("token: \"${env:ADMIN_TOKEN}\", ", "").replace("{admin}", "127.0.0.1:0");
    let open = Start::new(GATEWAY, &open, &[("shared", &shared)]).run_to_end();
    assert!(open.1.contains("whoever can reach `admin` could change tenants"), "{}", open.1);
}

#[test]
fn a_flood_of_requests_that_are_refused_leaves_few_lines() {
    let shared = Origin::always(Answer::ok("shared"));
    let process = start(&shared).start();
    let mut client = Client::connect(process.admin);
    let host = process.admin.to_string();
    for _ in 0..500 {
        assert_eq!(client.ask("GET", "/v1/tenants", &[("host", &host)], "").status(), 401);
    }
    // What comes later is logged later: then all lines of the flood are there.
    assert_eq!(tell(&process, "DELETE", "/v1/tenants/none", &[], "").status(), 404);
    eventually("it is in the log", || has_logged(&process, &["tenant deleted: refused"]));
    let lines = process.log().lines().filter(|line| line.contains("request refused")).count();
    assert!((20..100).contains(&lines), "{lines}");
}

#[test]
fn a_module_is_swapped_under_load_and_nobody_else_notices() {
    let shared = Origin::always(Answer::ok("shared"));
    let process = start(&shared).start();
    for name in ["acme", "globex"] {
        assert_eq!(
            tell(&process, "PUT", &format!("/v1/tenants/{name}/modules/banner.wasm"), &[], banner()).status(),
            201
        );
        let body = tenant(&format!("{name}.test"), name);
        assert_eq!(tell(&process, "PUT", &format!("/v1/tenants/{name}"), &[], body).status(), 201);
    }
    let checks: [(&str, Check); 2] =
        [("acme.test", |answer| is_right(answer, "acme")), ("globex.test", |answer| is_right(answer, "globex"))];
    let loads = checks.map(|(host, check)| Load::start_for((process.address, host), 1, Refused::IsAFailure, check));
    // The same guest with another digest: a custom section says which.
    let version = |number: u8| [&banner()[..], &[0, 3, 1, b'v', number]].concat();
    let starts = |tenant: &str| starts(&process, tenant);
    loads.iter().for_each(|load| load.more(20));
    let before = starts("globex");
    assert!(before >= 1);
    for number in 0..6 {
        let answer = tell(&process, "PUT", "/v1/tenants/acme/modules/banner.wasm", &[], version(number));
        assert_eq!(answer.status(), 200, "{}", answer.text());
        loads.iter().for_each(|load| load.more(20));
    }
    loads.into_iter().for_each(|load| assert!(load.finish() >= 140));
    assert_eq!(starts("globex"), before);
    assert!(starts("acme") >= 6, "its VM on the worker that has the load, six times: {}", starts("acme"));
    assert_eq!(seen(&process, "fixed.test"), (200, None));
}

fn is_right(answer: &Message, value: &str) -> Result<(), String> {
    match (answer.status(), answer.get("x-of")) {
        (200, Some(of)) if of == value => Ok(()),
        (status, of) => Err(format!("{value}: {status} {of:?}")),
    }
}

fn starts(process: &Process, tenant: &str) -> u32 {
    let metrics = tell(process, "GET", "/metrics", &[], "").text();
    let lines =
        metrics.lines().filter(|line| line.starts_with("portcullis_filter_starts_total") && line.contains(tenant));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u32>().ok()).sum()
}

#[test]
fn a_folder_that_was_put_there_by_hand_is_a_tenant_too() {
    let shared = Origin::always(Answer::ok("shared"));
    let process = start(&shared).start();
    let folder = process.folder().join("tenants/hand");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("banner.wasm"), banner()).unwrap();
    fs::write(folder.join("tenant.yaml"), tenant("hand.test", "hand")).unwrap();
    let reload = |process: &Process| tell(process, "POST", "/reload", &[], "").status();
    assert_eq!(reload(&process), 200);
    assert_eq!(seen(&process, "hand.test"), says("hand"));
    fs::write(folder.join("tenant.yaml"), "hosts: 7").unwrap();
    assert_eq!(reload(&process), 200, "its mistake is its own");
    assert_eq!(seen(&process, "hand.test"), says("hand"));
    assert_eq!(listed(&process)[1].2, "refused");
    put_right(&folder);
    assert_eq!(reload(&process), 200);
    assert_eq!(seen(&process, "hand.test"), says("right"));
}

fn put_right(folder: &Path) {
    fs::write(folder.join("tenant.yaml"), tenant("hand.test", "right")).unwrap();
}

#[test]
fn whoever_claims_a_host_that_is_in_use_is_held_and_nobody_else() {
    let shared = Origin::always(Answer::ok("shared"));
    let process = start(&shared).start();
    let put = |name: &str, host: &str, value: &str| {
        let folder = process.folder().join("tenants").join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("banner.wasm"), banner()).unwrap();
        fs::write(folder.join("tenant.yaml"), tenant(host, value)).unwrap();
    };
    let reload = || tell(&process, "POST", "/reload", &[], "");
    put("owner", "owner.test", "owner");
    assert_eq!(reload().status(), 200);
    for name in ["before", "that"] {
        put(name, "owner.test", name);
        put("other", "other.test", name);
        let answer = reload();
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert_eq!((seen(&process, "owner.test"), seen(&process, "other.test")), (says("owner"), says(name)));
        let status = |of: &str| listed(&process).into_iter().find(|(tenant, ..)| tenant == of).unwrap().2;
        assert_eq!((&*status("owner"), &*status(name)), ("served", "unavailable"));
        let metrics = tell(&process, "GET", "/metrics", &[], "").text();
        let refused = format!("portcullis_tenant_configuration_refused{{portcullis_tenant=\"{name}\"}} 1");
        assert!(metrics.contains(&refused), "{metrics}");
        // It is no less wrong when it has not changed since.
        put("other", "other.test", "again");
        assert_eq!(reload().status(), 200);
        assert_eq!(seen(&process, "other.test"), says("again"));
        fs::remove_dir_all(process.folder().join("tenants").join(name)).unwrap();
    }
}

#[test]
fn the_documentations_walk_through_goes_as_it_is_written() {
    let shared = Origin::always(Answer::ok("shared"));
    let page = docs::page("docs/tenants.md");
    let (_, section) = page.split_once("## Over the admin listener").unwrap();
    let [configuration, tenant] = &docs::blocks(section, "yaml")[..] else { panic!("two blocks of YAML") };
    let [script] = &docs::blocks(section, "sh")[..] else { panic!("one script") };
    let (public, admin) = (free_address(), free_address());
    let here = |text: &str, printed: &str, there: &dyn std::fmt::Display| {
        assert!(text.contains(printed), "{printed} is not in\n{text}");
        text.replace(printed, &there.to_string())
    };
    let configuration = here(configuration, "0.0.0.0:8080", &public);
    let configuration = here(&here(&configuration, "127.0.0.1:9901", &admin), "127.0.0.1:9000", &shared);
    let start = Start::new(GATEWAY, &configuration, &[]).admin_at(admin);
    let process = start.variable("ADMIN_TOKEN", TOKEN.strip_prefix("Bearer ").unwrap()).start();
    fs::write(process.folder().join("policy.wasm"), banner()).unwrap();
    process.write("acme.yaml", tenant);
    let script = here(&here(script, "127.0.0.1:9901", &admin), "127.0.0.1:8080", &public);
    let mut shell = Command::new("bash");
    shell.args(["-e", "-c", &script]).current_dir(process.folder());
    let ran = shell.env("ADMIN_TOKEN", TOKEN.strip_prefix("Bearer ").unwrap()).output().unwrap();
    let (said, wrong) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{said}\n{wrong}");
    for word in ["x-tenant: acme\r", "x-tenant: acme-2\r", "\"status\": \"served\"", "\"dry_run\": true"] {
        assert!(said.contains(word), "{word:?} is not in\n{said}");
    }
    let gone = Client::connect(public).ask("GET", "/", &[("host", "acme.example.com")], "");
    assert_eq!(gone.status(), 404, "it was removed");
}
