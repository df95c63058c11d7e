//! What is read again when tenants change, and that it comes to the same as reading all of it.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use http::{HeaderMap, Method};
use portcullis_core::route::{Match, Request};

use super::{Folder, WITH_TENANTS};
use crate::config::snapshot::{FilterIndex, Snapshot, TenantIndex};
use crate::config::standing::{Looking, Refused, Settled, Standing, Unusable, Used};
use crate::config::{Inputs, Node, load};

/// What the gateway says besides [`WITH_TENANTS`].
const MORE: &str = "\
routes: [{ name: outside, match: { path: \"/\" }, upstream: shared }]
tenant_defaults: { grants: { hosts: [\"*.test\"] } }
tenants:
  inline: { hosts: [inline.test], routes: [{ name: all, match: { path: \"/*\" }, upstream: shared }] }
  included: { hosts: [included.test], include: included/ }
";

fn platform() -> String {
    format!("{WITH_TENANTS}{MORE}")
}

/// A tenant in the directory.
fn tenant(name: &str, config: &str) -> String {
    format!(
        "hosts: [{name}.test]\n\
         upstreams: {{ own: {{ endpoints: [\"192.0.2.2:9002\"] }} }}\n\
         plugins: {{ own: {{ module: \"file:own.wasm\" }} }}\n\
         filters: [{{ plugin: own, config: {config} }}, {{ plugin: common, config: {name} }}]\n\
         routes:\n\
         - {{ name: one, match: {{ path: \"/*\" }}, upstream: own }}\n\
         - {{ name: two, match: {{ path: \"/two\" }}, upstream: shared, filters: [{{ plugin: own, config: two }}] }}\n"
    )
}

const INCLUDED: &str =
    "routes: [{ name: all, match: { path: \"/*\" }, upstream: shared, filters: [{ plugin: common }] }]";

fn folder() -> Folder {
    let (acme, globex, initech) = (tenant("acme", "1"), tenant("globex", "1"), tenant("initech", "1"));
    Folder::new(&[
        ("gateway.yaml", &platform()),
        ("module.wasm", "a module"),
        ("included/own.yaml", INCLUDED),
        ("tenants.d/acme/tenant.yaml", &acme),
        ("tenants.d/acme/own.wasm", "of acme"),
        ("tenants.d/globex/tenant.yaml", &globex),
        ("tenants.d/globex/own.wasm", "of globex"),
        ("tenants.d/initech/tenant.yaml", &initech),
        ("tenants.d/initech/own.wasm", "of initech"),
    ])
}

fn paths(folder: &Folder) -> Vec<PathBuf> {
    vec![folder.path("gateway.yaml")]
}

fn settle(standing: &Standing, folder: &Folder, looking: Looking<'_>) -> Settled<Arc<Snapshot>> {
    let use_it = |snapshot: Snapshot, _: &Node| {
        let snapshot = Arc::new(snapshot);
        Ok::<_, Unusable<Infallible>>(Used { made: snapshot.clone(), snapshot })
    };
    standing.settle(&paths(folder), &Inputs::default(), looking, use_it).expect("it is in order")
}

/// All that a snapshot means, whatever its indices are.
fn meaning(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    let chain = |filters: &[FilterIndex]| {
        let one = |index: &FilterIndex| {
            let filter = snapshot.filter(*index);
            let plugin = snapshot.plugin(filter.plugin);
            let name = |tenant: Option<TenantIndex>| tenant.map_or("-", |tenant| &*snapshot.tenant(tenant).name);
            let config = String::from_utf8_lossy(&filter.config).into_owned();
            format!("{}/{}({config}) for {} {:?}", name(plugin.tenant), plugin.name, name(filter.tenant), plugin.code)
        };
        filters.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    let mut tenants: Vec<_> = snapshot.tenants.placed().collect();
    tenants.sort_by_key(|(_, tenant)| tenant.name.clone());
    for (index, tenant) in tenants {
        writeln!(text, "{} {:?}: {}", tenant.name, tenant.hosts, chain(&tenant.share.chain)).unwrap();
        let mut visible: Vec<_> = snapshot.visible_upstreams(Some(index)).collect();
        visible.sort_unstable();
        for (name, index) in visible {
            let upstream = snapshot.upstream(index);
            writeln!(text, "  sees {name}: {}/{} {:?}", upstream.owner, upstream.name, upstream.endpoints).unwrap();
        }
    }
    for host in ["acme.test", "globex.test", "initech.test", "inline.test", "included.test", "other.test"] {
        for path in ["/", "/two"] {
            let request = Request { host, path, query: None, method: &Method::GET, headers: &HeaderMap::new() };
            let Match::Route(route) = snapshot.router.find(&request) else { continue };
            let route = snapshot.route(route);
            let upstream = snapshot.upstream(route.upstream);
            let owner = route.tenant.map_or("-", |tenant| &*snapshot.tenant(tenant).name);
            let to = format!("{}/{}", upstream.owner, upstream.name);
            writeln!(text, "{host}{path} -> {owner}/{} to {to}: {}", route.name, chain(&route.filters)).unwrap();
        }
    }
    writeln!(text, "{}\n{:#}", snapshot.digest(), snapshot.dump()).unwrap();
    text
}

/// How a tenant was written: the very same value where it was taken over.
fn written<'s>(snapshot: &'s Snapshot, tenant: &str) -> &'s Arc<serde_json::Value> {
    &snapshot.tenants.named(tenant).expect("it is there").share.written
}

/// Reads anew where something but globex was changed, and compares with a reading of everything. Returns what stands then.
fn changed(folder: &Folder, before: &Settled<Arc<Snapshot>>, looking: Looking<'_>) -> Settled<Arc<Snapshot>> {
    let settled = settle(&before.standing, folder, looking);
    let (all, _) = load(&paths(folder), &Inputs::default(), &Arc::default()).expect("it is in order");
    assert_eq!(meaning(&settled.made), meaning(&all), "{looking:?}");
    assert!(Arc::ptr_eq(written(&before.made, "globex"), written(&settled.made, "globex")), "{looking:?}");
    settled
}

#[test]
fn what_is_taken_over_means_what_it_meant() {
    let folder = folder();
    let write = |name: &str, text: &str| {
        std::fs::create_dir_all(folder.path(name).parent().unwrap()).unwrap();
        std::fs::write(folder.path(name), text).unwrap();
    };
    let mut stands = settle(&Standing::default(), &folder, Looking::Everywhere);
    for looking in [Looking::At("acme"), Looking::Everywhere] {
        write("tenants.d/acme/tenant.yaml", &tenant("acme", "changed"));
        stands = changed(&folder, &stands, looking);
        write("tenants.d/acme/own.wasm", "another of acme");
        stands = changed(&folder, &stands, looking);
        write("tenants.d/acme/own.wasm", "of acme");
        let zero = "routes:\n- { name: zero, match: { path: \"/0\" }, upstream: own }";
        write("tenants.d/acme/tenant.yaml", &tenant("acme", "1").replace("routes:", zero));
        stands = changed(&folder, &stands, looking);
        std::fs::remove_dir_all(folder.path("tenants.d/acme")).unwrap();
        stands = changed(&folder, &stands, looking);
        write("tenants.d/acme/tenant.yaml", &tenant("acme", "1"));
        write("tenants.d/acme/own.wasm", "of acme");
        stands = changed(&folder, &stands, looking);
    }
    write("included/own.yaml", &INCLUDED.replace("\"/*\"", "\"/two\""));
    write("tenants.d/initech/tenant.yaml", &tenant("initech", "changed"));
    stands = changed(&folder, &stands, Looking::Everywhere);
    let more =
        platform().replace("upstreams: { shared", "upstreams: { first: { endpoints: [\"127.0.0.1:1\"] }, shared");
    write("gateway.yaml", &more);
    let settled = settle(&stands.standing, &folder, Looking::Everywhere);
    let (all, _) = load(&paths(&folder), &Inputs::default(), &Arc::default()).expect("it is in order");
    assert_eq!(meaning(&settled.made), meaning(&all), "the gateway's own files have changed: everything is read");
}

#[test]
fn whoever_is_held_does_not_have_the_others_read() {
    let folder = folder();
    let write = |name: &str, text: &str| std::fs::write(folder.path(name), text).unwrap();
    let before = settle(&Standing::default(), &folder, Looking::Everywhere);
    write("tenants.d/acme/tenant.yaml", "no: tenant");
    let mut stands = settle(&before.standing, &folder, Looking::Everywhere);
    for looking in [Looking::At("initech"), Looking::Everywhere] {
        assert_eq!(stands.held.keys().map(|name| &**name).collect::<Vec<_>>(), ["acme"], "{looking:?}");
        assert!(meaning(&stands.made).contains("acme/own(1)"), "{looking:?}: what it last said is in use");
        assert!(Arc::ptr_eq(written(&before.made, "globex"), written(&stands.made, "globex")), "{looking:?}");
        write("tenants.d/initech/tenant.yaml", &tenant("initech", "changed"));
        stands = settle(&stands.standing, &folder, looking);
        assert!(meaning(&stands.made).contains("initech/own(changed)"), "{looking:?}");
    }
    write("tenants.d/acme/tenant.yaml", &tenant("acme", "mended"));
    let stands = changed(&folder, &stands, Looking::At("initech"));
    assert!(stands.held.is_empty(), "it is tried again with every change");
}

#[test]
fn whoever_has_a_listener_is_made_with_it_and_does_not_have_the_others_read() {
    let folder = folder();
    let platform = platform().replace(
        "127.0.0.1:0\" } }\n",
        "127.0.0.1:0\" }, db: { bind: \"127.0.0.1:0\", protocol: tcp, tenant: acme, upstream: db } }\n",
    );
    let with_db = |name: &str| {
        tenant(name, "1").replace("} }\nplugins", "}, db: { endpoints: [\"192.0.2.3:1\"], protocol: tcp } }\nplugins")
    };
    std::fs::write(folder.path("gateway.yaml"), platform).unwrap();
    std::fs::write(folder.path("tenants.d/acme/tenant.yaml"), with_db("acme")).unwrap();
    let mut stands = settle(&Standing::default(), &folder, Looking::Everywhere);
    for looking in [Looking::At("initech"), Looking::Everywhere] {
        let config = format!("{looking:?}");
        let config = config.split('(').next().unwrap();
        std::fs::write(folder.path("tenants.d/initech/tenant.yaml"), tenant("initech", config)).unwrap();
        stands = changed(&folder, &stands, looking);
        let route = &stands.made.tcp_routes[0];
        assert_eq!(&*stands.made.tenant(route.tenant.unwrap()).name, "acme", "{looking:?}");
        assert_eq!(&*stands.made.upstream(route.upstream).owner, "acme", "{looking:?}");
    }
}

#[test]
fn tenants_that_did_not_change_are_not_read() {
    let folder = folder();
    let standing = settle(&Standing::default(), &folder, Looking::Everywhere).standing;
    // Nobody has said that this one changed.
    std::fs::write(folder.path("tenants.d/globex/tenant.yaml"), "no: tenant").unwrap();
    std::fs::write(folder.path("tenants.d/acme/tenant.yaml"), tenant("acme", "changed")).unwrap();
    let settled = settle(&standing, &folder, Looking::At("acme"));
    assert!(settled.held.is_empty());
    let chain = meaning(&settled.made);
    assert!(chain.contains("acme/own(changed)") && chain.contains("globex/own(1)"), "{chain}");
    // Whoever looks everywhere finds it, and what it last said is still in use.
    let settled = settle(&settled.standing, &folder, Looking::Everywhere);
    assert_eq!(settled.held.keys().map(|name| &**name).collect::<Vec<_>>(), ["globex"]);
    assert!(meaning(&settled.made).contains("globex/own(1)"));
}

/// What is wrong where acme says this.
fn refused(standing: &Standing, folder: &Folder, acme: &str) -> String {
    std::fs::write(folder.path("tenants.d/acme/tenant.yaml"), acme).unwrap();
    let use_it =
        |snapshot: Snapshot, _: &Node| Ok::<_, Unusable<Infallible>>(Used { made: (), snapshot: snapshot.into() });
    let refused = standing.settle(&paths(folder), &Inputs::default(), Looking::At("acme"), use_it);
    let Err(Refused::Problems(problems)) = refused else { panic!("it is refused") };
    super::render(&problems)
}

#[test]
fn a_refusal_has_only_those_read_whom_it_concerns() {
    let folder = folder();
    let standing = settle(&Standing::default(), &folder, Looking::Everywhere).standing;
    // It would be among the problems if it were read.
    std::fs::write(folder.path("tenants.d/globex/tenant.yaml"), "no: tenant").unwrap();
    let good = tenant("acme", "1");
    for (acme, why) in [
        ("hosts: [".to_owned(), "acme/tenant.yaml:1:"),
        (format!("{good}colour: red\n"), "colour"),
        (good.replace("own.wasm", "none.wasm"), "none.wasm"),
        (good.replace("upstream: shared", "upstream: missing"), "upstream `missing`"),
        (good.replace("path: \"/two\"", "path: \"/*\""), "acme/tenant.yaml:7:"),
        (good.replace("[acme.test]", "[acme.test, initech.test]"), "initech/tenant.yaml:1:"),
        (good.replace("[acme.test]", "[acme.test, inline.test]"), "gateway.yaml:"),
    ] {
        let said = refused(&standing, &folder, &acme);
        assert!(said.contains(why) && !said.contains("globex"), "{acme}\n{said}");
    }
    std::fs::write(folder.path("tenants.d/acme/tenant.yaml"), &good).unwrap();
    let mut tries = 0;
    let unusable = standing.settle(&paths(&folder), &Inputs::default(), Looking::At("acme"), |_, _| {
        tries += 1;
        Err::<Used<()>, _>(Unusable { tenant: Some("acme".into()), why: Box::new("it traps"), problems: Vec::new() })
    });
    let Err(Refused::Unusable(Unusable { why, .. })) = unusable else { panic!("it cannot be used") };
    assert_eq!((*why, tries), ("it traps", 1));
}

#[test]
fn a_host_of_somebody_who_did_not_change_cannot_be_had() {
    let folder = folder();
    let standing = settle(&Standing::default(), &folder, Looking::Everywhere).standing;
    let said = refused(&standing, &folder, &tenant("acme", "1").replace("[acme.test]", "[acme.test, globex.test]"));
    assert!(said.contains("belongs to both tenant") && said.contains("globex/tenant.yaml:1:"), "{said}");
}
