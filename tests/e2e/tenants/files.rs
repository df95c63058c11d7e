//! The files that tenants keep for themselves: a mistake in them is theirs alone.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::process::Command;

use portcullis_tests::eventually;
use portcullis_tests::guests::module;
use portcullis_tests::load::{Load, Refused};
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::process::{Process, Start};
use serde_json::Value;

const GATEWAY: &str = env!("CARGO_BIN_EXE_gateway");

const PLATFORM: &str = r#"
workers: 2
upstreams: { shared: { endpoints: ["{shared}"] } }
tenants:
  acme: { hosts: [acme.test], include: acme/ }
  globex: { hosts: [globex.test], include: globex/ }
filters: []
"#;

/// A tenant's file, whose responses say which it was.
fn own(value: &str) -> String {
    format!(
        "plugins: {{ banner: {{ module: \"file:banner.wasm\" }} }}\n\
         filters: [{{ plugin: banner, config: {{ header: x-of, value: {value} }} }}]\n\
         routes: [{{ name: all, match: {{ path: \"/*\" }}, upstream: shared }}]\n"
    )
}

fn put_module(folder: &std::path::Path, tenant: &str) {
    fs::copy(module("banner"), folder.join(tenant).join("banner.wasm")).unwrap();
}

fn start(shared: &Origin) -> Start {
    let start = Start::new(GATEWAY, PLATFORM, &[("shared", shared)]).argument("--no-watch");
    ["acme", "globex"].iter().for_each(|tenant| fs::create_dir(start.folder().join(tenant)).unwrap());
    ["acme", "globex"].iter().for_each(|tenant| put_module(start.folder(), tenant));
    start.file("acme/a.yaml", &own("acme-1")).file("globex/a.yaml", &own("globex-1"))
}

/// Status, and what of a tenant's file is in use; or the code of the refusal.
fn seen(process: &Process, host: &str) -> (u16, String) {
    let answer = process.client().ask("GET", "/", &[("host", host)], "");
    let code = || serde_json::from_slice::<Value>(&answer.body).ok()?.get("code")?.as_str().map(str::to_owned);
    let word = answer.get("x-of").map(str::to_owned).or_else(code);
    (answer.status(), word.unwrap_or_default())
}

fn refused_tenants(process: &Process) -> Vec<(String, String)> {
    let revision: Value = serde_json::from_slice(&process.page("/revision").body).unwrap();
    let refused = revision["refused_tenants"].as_object().unwrap();
    refused.iter().map(|(tenant, why)| (tenant.clone(), why.as_str().unwrap().to_owned())).collect()
}

#[test]
fn a_tenants_mistake_leaves_it_as_it_was_and_everybody_else_gets_what_is_new() {
    let shared = Origin::always(Answer::ok("shared"));
    let process = start(&shared).start();
    let both = || [seen(&process, "acme.test"), seen(&process, "globex.test")];
    let of = |acme: &str, globex: &str| [(200, acme.to_owned()), (200, globex.to_owned())];
    assert_eq!(both(), of("acme-1", "globex-1"));
    let mistakes: [(&str, &dyn Fn(), &str); 6] = [
        ("no YAML", &|| process.write("acme/a.yaml", "plugins: {"), "a.yaml:"),
        (
            "an unknown upstream",
            &|| process.write("acme/a.yaml", &own("x").replace("upstream: shared", "upstream: no")),
            "does not exist",
        ),
        (
            "a host of its own",
            &|| process.write("acme/a.yaml", &format!("hosts: [globex.test]\n{}", own("x"))),
            "cannot stand in a tenant's own files",
        ),
        (
            "a file beyond its directory",
            &|| process.write("acme/a.yaml", &own("x").replace("banner.wasm", "../globex/banner.wasm")),
            "may only name files below",
        ),
        (
            "a module that is none",
            &|| {
                process.write("acme/a.yaml", &own("x"));
                process.write("acme/banner.wasm", "not a module");
            },
            "not a WebAssembly module",
        ),
        (
            "a configuration that its module refuses",
            &|| {
                put_module(process.folder(), "acme");
                process.write("acme/a.yaml", &own("x").replace("header: x-of", "no_header: x-of"));
            },
            "no_header",
        ),
    ];
    for (number, (what, make, why)) in (2..).zip(mistakes) {
        make();
        process.write("globex/a.yaml", &own(&format!("globex-{number}")));
        assert_eq!(process.reload().status(), 200, "{what}");
        assert_eq!(both(), of("acme-1", &format!("globex-{number}")), "{what}");
        let refused = refused_tenants(&process);
        assert!(
            matches!(&refused[..], [(tenant, said)] if tenant == "acme" && said.contains(why)),
            "{what}: {refused:?}"
        );
    }
    assert!(process.page("/stats").text().contains("tenant acme: ITS LAST CHANGE WAS REFUSED"));
    let metrics = process.page("/metrics").text();
    let refused = |tenant: &str| format!("portcullis_tenant_configuration_refused{{portcullis_tenant=\"{tenant}\"}}");
    assert!(
        metrics.contains(&format!("{} 1", refused("acme"))) && metrics.contains(&format!("{} 0", refused("globex")))
    );
    process.write("acme/a.yaml", &own("acme-2"));
    assert_eq!(process.reload().status(), 200);
    assert_eq!(both(), of("acme-2", "globex-7"));
    assert!(refused_tenants(&process).is_empty());
}

#[test]
fn what_is_no_file_of_a_tenants_own_is_its_mistake() {
    let shared = Origin::always(Answer::ok("shared"));
    let process = start(&shared).start();
    let folder = process.folder().join("acme");
    assert!(Command::new("mkfifo").arg(folder.join("pipe")).status().unwrap().success());
    // Nothing of it is on the disk.
    File::create(folder.join("large.wasm")).unwrap().set_len((64 << 20) + 1).unwrap();
    let own_upstream = "upstreams: { of: { endpoints: [\"a.test:443\"], tls: { ca: pipe } } }\n";
    let long = format!("# {}\n", "-".repeat(600_000));
    let mistakes: [(&dyn Fn(), &str); 8] = [
        (&|| fs::remove_file(folder.join("a.yaml")).unwrap(), "the directory has no `.yaml` file"),
        (&|| process.write("acme/a.yaml", &own("x").replace("banner.wasm", "large.wasm")), "it is larger than"),
        (&|| process.write("acme/a.yaml", &own("x").replace("banner.wasm", "pipe")), "it is not a file"),
        (&|| process.write("acme/a.yaml", &own("\"${file:pipe}\"")), "it is not a file"),
        (&|| process.write("acme/a.yaml", &format!("{own_upstream}{}", own("x"))), "it is not a file"),
        (&|| process.write("acme/a.yaml", &long.repeat(2)), "it is larger than 1048576 bytes"),
        (
            &|| {
                process.write("acme/a.yaml", &format!("{}{long}", own("x")));
                process.write("acme/b.yaml", &long);
            },
            "a tenant's files have 1048576 bytes at most",
        ),
        (
            &|| {
                process.write("acme/a.yaml", "");
                fs::remove_file(folder.join("b.yaml")).unwrap();
                symlink("../globex/a.yaml", folder.join("link.yaml")).unwrap();
            },
            "leads out of the tenant's directory",
        ),
    ];
    for (number, (make, why)) in (2..).zip(mistakes) {
        make();
        process.write("globex/a.yaml", &own(&format!("globex-{number}")));
        assert_eq!(process.reload().status(), 200, "{why}");
        assert_eq!(seen(&process, "acme.test"), (200, "acme-1".to_owned()), "{why}");
        assert_eq!(seen(&process, "globex.test"), (200, format!("globex-{number}")), "{why}");
        let refused = refused_tenants(&process);
        assert!(matches!(&refused[..], [(tenant, said)] if tenant == "acme" && said.contains(why)), "{refused:?}");
    }
    // A link within the directory is as good as a file.
    process.write("acme/kept", &own("acme-2"));
    fs::remove_file(folder.join("link.yaml")).unwrap();
    symlink("kept", folder.join("link.yaml")).unwrap();
    assert_eq!(process.reload().status(), 200);
    assert_eq!(seen(&process, "acme.test"), (200, "acme-2".to_owned()));
}

#[test]
fn a_mistake_of_the_gateways_own_files_is_everybodys() {
    let shared = Origin::always(Answer::ok("shared"));
    let process = start(&shared).start();
    process.configure(&PLATFORM.replace("filters: []", "filters: [{ plugin: none }]"), &[("shared", &shared)]);
    process.write("acme/a.yaml", &own("acme-2"));
    let answer = process.reload();
    assert_eq!(answer.status(), 422);
    assert!(answer.text().contains("which does not exist"), "{}", answer.text());
    assert_eq!(seen(&process, "acme.test"), (200, "acme-1".to_owned()));
    // What a tenant has in use stands on it: neither the new file nor the one in use would do without.
    process.configure(&PLATFORM.replace("shared:", "renamed:"), &[("shared", &shared)]);
    assert_eq!(process.reload().status(), 422);
    assert_eq!(seen(&process, "acme.test"), (200, "acme-1".to_owned()));
}

#[test]
fn a_tenant_that_never_said_anything_good_is_unavailable_until_it_does() {
    let shared = Origin::always(Answer::ok("shared"));
    let process = start(&shared).file("acme/a.yaml", "plugins: [").start();
    assert_eq!(seen(&process, "acme.test"), (503, "tenant_unavailable".to_owned()));
    assert_eq!(seen(&process, "globex.test"), (200, "globex-1".to_owned()));
    assert!(refused_tenants(&process)[0].1.contains("acme/a.yaml:"), "{:?}", refused_tenants(&process));
    process.write("acme/a.yaml", &own("acme-2"));
    assert_eq!(process.reload().status(), 200);
    assert_eq!(seen(&process, "acme.test"), (200, "acme-2".to_owned()));
}

#[test]
fn what_a_tenant_had_in_use_outlives_the_process() {
    let shared = Origin::always(Answer::ok("shared"));
    let kept = tempfile::tempdir().unwrap();
    let keep = format!("--keep={}", kept.path().display());
    let mut process = start(&shared).argument(&keep).start();
    eventually("a copy is kept", || kept.path().join("current").exists());
    process.write("acme/a.yaml", "plugins: {");
    process.write("globex/a.yaml", &own("globex-2"));
    assert_eq!(process.reload().status(), 200);
    process.signal("TERM");
    process.wait();
    let process = process.again(GATEWAY).argument(&keep).start();
    assert_eq!(seen(&process, "acme.test"), (200, "acme-1".to_owned()));
    assert_eq!(seen(&process, "globex.test"), (200, "globex-2".to_owned()));
    assert_eq!(refused_tenants(&process).len(), 1);
}

#[test]
fn a_tenants_change_disturbs_no_other_tenant() {
    let shared = Origin::always(Answer::ok("shared"));
    let process = start(&shared).start();
    let instances = |tenant: &str| {
        let metrics = process.page("/metrics").text();
        let starts =
            metrics.lines().filter(|line| line.starts_with("portcullis_filter_starts_total") && line.contains(tenant));
        starts.filter_map(|line| line.rsplit(' ').next()?.parse::<u32>().ok()).sum::<u32>()
    };
    let load = Load::start(process.address, 2, Refused::IsAFailure, |answer| {
        if answer.status() == 200 || answer.status() == 404 { Ok(()) } else { Err(answer.status().to_string()) }
    });
    assert_eq!(seen(&process, "globex.test"), (200, "globex-1".to_owned()));
    let before = instances("globex");
    assert_eq!(before, 1);
    for number in 2..12 {
        process.write("acme/a.yaml", &own(&format!("acme-{number}")));
        assert_eq!(process.reload().status(), 200);
        assert_eq!(seen(&process, "acme.test"), (200, format!("acme-{number}")));
        load.more(10);
    }
    assert!(load.finish() >= 100);
    assert_eq!(instances("globex"), before, "its VMs are those it had");
    eventually("acme's old VMs are gone", || {
        let metrics = process.page("/metrics").text();
        let line =
            metrics.lines().find(|line| line.starts_with("portcullis_filter_instances") && line.contains("acme"));
        // One for each worker that has been asked.
        line.is_some_and(|line| line.ends_with(" 1") || line.ends_with(" 2"))
    });
}
