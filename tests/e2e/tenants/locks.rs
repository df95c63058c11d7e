//! The lock file of a tenant that is changed over the admin listener.

use std::fmt::Display;
use std::fs;

use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::process::{Process, Start, free_address};
use portcullis_tests::registry::{Open, Registry};
use portcullis_tests::wire::Message;
use serde_json::Value;

use super::admin::{GATEWAY, TOKEN, code, tell, tenant};
use crate::modules::{marked, push};

const FETCHING: &str = r#"
workers: 2
admin: { bind: "{admin}", token: "${env:ADMIN_TOKEN}", tenants: tenants }
modules: { refresh: 1ms, tenants: { from: ["oci://{registry}/"] } }
upstreams: { shared: { endpoints: ["{shared}"] } }
"#;

fn start(registry: &Registry, shared: &Origin) -> Process {
    let admin = free_address();
    let places: [(&str, &dyn Display); 3] = [("shared", shared), ("admin", &admin), ("registry", &registry.address)];
    let start = Start::new(GATEWAY, FETCHING, &places).admin_at(admin).argument("--no-watch");
    start.variable("ADMIN_TOKEN", TOKEN.strip_prefix("Bearer ").unwrap()).start()
}

/// A tenant with two plugins, of these references.
fn two(one: &str, other: &str) -> String {
    let plugins = format!("plugins: {{ other: {{ module: \"{other}\" }}, ");
    let filters = "filters: [{ plugin: other, config: { header: x-other, value: two } }, ";
    one_of(one).replace("plugins: { ", &plugins).replace("filters: [", filters)
}

fn one_of(reference: &str) -> String {
    tenant("acme.test", "one").replace("file:banner.wasm", reference)
}

/// What each plugin's reference is said to stand for.
fn stands_for(answer: &Message) -> Vec<String> {
    let told: Value = serde_json::from_slice(&answer.body).unwrap();
    let plugins = told["plugins"].as_object().unwrap_or_else(|| panic!("{}", answer.text()));
    plugins.values().map(|plugin| plugin["sha256"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_tenant_is_locked_as_it_is_put_and_held_to_that() {
    let Some(mut registry) = Registry::start(Open::ToAll) else { return };
    let (folder, shared) = (tempfile::tempdir().unwrap(), Origin::always(Answer::ok("shared")));
    let tag = |name: &str| format!("oci://{}/acme/{name}:latest", registry.address);
    let (geo, other) = (tag("geo"), tag("other"));
    let pushed = |mark: &str, to: &str| push(folder.path(), &marked(folder.path(), mark), to);
    pushed("one", &geo);
    let process = start(&registry, &shared);
    let lock = || tell(&process, "GET", "/v1/tenants/acme/lock", &[], "");
    let put = |query: &str, body: &str| tell(&process, "PUT", &format!("/v1/tenants/acme{query}"), &[], body);

    assert_eq!(put("?lock=missing&dry_run=true", &one_of(&geo)).status(), 200);
    assert_eq!((lock().status(), code(&lock())), (404, "no_lock".to_owned()), "it was only tried");
    for query in ["?lock=yes", "?dry_run=1", "?dryrun=true&lock=all"] {
        let refused = put(query, &one_of(&geo));
        assert_eq!((refused.status(), code(&refused)), (400, "bad_query".to_owned()), "{query}");
    }
    let refused = tell(&process, "PUT", "/v1/tenants/acme/lock?lock=all", &[], "");
    assert_eq!((refused.status(), code(&refused)), (400, "bad_query".to_owned()));
    let made = put("?lock=missing", &one_of(&geo));
    assert_eq!(made.status(), 201, "{}", made.text());
    let first = stands_for(&made);
    let locked = lock().text();
    let words = [format!("\"{geo}\":"), "manifest: sha256:".to_owned(), format!("module: sha256:{}", first[0])];
    assert!(words.iter().all(|word| locked.contains(word)), "{locked}");
    assert_eq!(fs::read_to_string(process.folder().join("tenants/acme/portcullis.lock")).unwrap(), locked);

    // The tag moves, and nothing with it.
    pushed("second", &geo);
    pushed("another", &other);
    assert_eq!(stands_for(&put("", &one_of(&geo))), first);
    assert_eq!(tell(&process, "POST", "/reload", &[], "").status(), 200);
    assert_eq!(stands_for(&tell(&process, "GET", "/v1/tenants/acme/modules", &[], "")), first);

    // What is not locked is not fetched, until it is asked for.
    let refused = put("", &two(&geo, &other));
    assert_eq!((refused.status(), code(&refused)), (422, "refused".to_owned()));
    assert!(refused.text().contains("?lock=missing"), "{}", refused.text());
    let added = put("?lock=missing", &two(&geo, &other));
    assert_eq!(added.status(), 200, "{}", added.text());
    assert_eq!(stands_for(&added)[0], first[0], "what is locked stays so");
    assert!(lock().text().contains(&format!("\"{other}\":")));

    let moved = put("?lock=all", &two(&geo, &other));
    assert_eq!(moved.status(), 200, "{}", moved.text());
    assert_ne!(stands_for(&moved)[0], first[0]);
    assert_eq!(stands_for(&moved)[1], stands_for(&added)[1]);

    // Of a registry that is away nothing is locked; what is goes on.
    let before = lock().text();
    registry.kill();
    let refused = put("?lock=all", &two(&geo, &other));
    assert_eq!((refused.status(), lock().text()), (422, before.clone()), "{}", refused.text());
    assert_eq!(put("", &two(&geo, &other)).status(), 200);
    // One reference less is one line less.
    assert_eq!(put("?lock=missing", &one_of(&geo)).status(), 200);
    assert!(!lock().text().contains(&other) && before.contains(&other), "{}", lock().text());
}

#[test]
fn a_lock_file_can_be_brought_along_and_taken_away() {
    let Some(registry) = Registry::start(Open::ToAll) else { return };
    let (folder, shared) = (tempfile::tempdir().unwrap(), Origin::always(Answer::ok("shared")));
    let tag = format!("oci://{}/acme/geo:latest", registry.address);
    let pinned = push(folder.path(), &marked(folder.path(), "one"), &tag);
    let process = start(&registry, &shared);
    let tell = |method: &str, path: &str, body: &str| tell(&process, method, path, &[], body);
    let first = stands_for(&tell("PUT", "/v1/tenants/acme?dry_run=true", &one_of(&tag)));
    let (_, manifest) = pinned.rsplit_once('@').unwrap();
    let lock = |module: &str| {
        format!(
            "version: 1\nmodules: {{ \"{tag}\": {{ manifest: \"{manifest}\", module: \"sha256:{module}\", size: 9 }} }}\n"
        )
    };
    assert_eq!(tell("PUT", "/v1/tenants/acme/lock", &lock(&first[0])).status(), 201, "before the tenant");
    push(folder.path(), &marked(folder.path(), "second"), &tag);
    let made = tell("PUT", "/v1/tenants/acme", &one_of(&tag));
    assert_eq!((made.status(), stands_for(&made)), (201, first), "{}", made.text());
    for (bad, why) in
        [("modules: [", "lock file"), (&*lock(&"5e".repeat(32)), "sha256"), ("version: 1\nmodules: {}", &tag)]
    {
        let refused = tell("PUT", "/v1/tenants/acme/lock", bad);
        assert_eq!((refused.status(), code(&refused)), (422, "refused".to_owned()), "{bad}");
        assert!(refused.text().contains(why), "{why}: {}", refused.text());
    }
    assert_eq!(tell("DELETE", "/v1/tenants/acme/lock", "").status(), 200);
    assert_eq!(tell("DELETE", "/v1/tenants/acme/lock", "").status(), 404);
    assert_eq!(tell("POST", "/v1/tenants/acme/lock", "").status(), 405);
    let free = tell("PUT", "/v1/tenants/acme", &one_of(&tag));
    assert_eq!(free.status(), 200, "{}", free.text());
}
