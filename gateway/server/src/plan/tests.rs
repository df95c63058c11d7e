//! A plan that follows others against one that is made of the same configuration from nothing.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};

use super::{Plan, Table};
use crate::config::standing::{Looking, Standing, Unusable, Used};
use crate::config::tests::WITH_TENANTS;
use crate::config::{Inputs, Node, load};
use crate::supervisor::Options;

/// What the gateway says besides [`WITH_TENANTS`].
const MORE: &str = "\
workers: 1
routes: [{ name: status, match: { path: \"/\", hosts: [status.test] }, upstream: shared }]
";

/// The least that is a plugin; `more` tells one from another.
fn module(more: u8) -> Vec<u8> {
    let sections: [&[u8]; 5] = [
        b"\0asm\x01\0\0\0",
        // Types and functions: () -> () and (i32) -> i32; a memory of one page.
        b"\x01\x09\x02\x60\0\0\x60\x01\x7f\x01\x7f\x03\x03\x02\0\x01\x05\x03\x01\0\x01",
        b"\x07\x2d\x03\x06memory\x02\0\x17proxy_abi_version_0_2_1\0\0\x06malloc\0\x01",
        b"\x0a\x09\x02\x02\0\x0b\x04\0\x41\0\x0b",
        // A custom section.
        b"\0\x06\x04more",
    ];
    [sections.concat(), vec![more]].concat()
}

/// xorshift64: enough to shuffle a test.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Something that a tenant may say.
fn tenant(name: &str, random: &mut Random) -> String {
    let mut text =
        format!("hosts: [{name}.test, \"*.{name}.test\"]\nlimits: {{ in_flight: {} }}\n", 1 + random.below(9));
    let own = random.below(2) == 0;
    if own {
        let port = 9002 + random.below(3);
        writeln!(text, "upstreams: {{ own: {{ endpoints: [\"192.0.2.2:{port}\"] }} }}").unwrap();
        writeln!(text, "plugins: {{ own: {{ module: \"file:own.wasm\" }} }}").unwrap();
    }
    let (upstream, plugin) = if own { ("own", "own") } else { ("shared", "common") };
    writeln!(text, "filters: [{{ plugin: {plugin}, config: {} }}]\nroutes:", random.below(3)).unwrap();
    for route in 0..1 + random.below(3) {
        let filters = format!("[{{ plugin: common, config: {} }}]", random.below(3));
        writeln!(text, "- {{ name: r{route}, match: {{ path: /{route} }}, upstream: {upstream}, filters: {filters} }}")
            .unwrap();
    }
    text
}

/// All that a worker's table means, whatever numbers things have.
fn meaning(plan: &Plan, table: &Table) -> String {
    let mut text = String::new();
    let hosts = ["a", "b", "c", "d", "x.a", "x.b", "status", "other"];
    for (host, path) in hosts.iter().flat_map(|host| ["/", "/0", "/1", "/2"].map(|path| (format!("{host}.test"), path)))
    {
        let host_field = HeaderValue::from_str(&host).unwrap();
        let (spot, target) =
            table.route(&Method::GET, Some(&host_field), &PathAndQuery::from_static(path), &HeaderMap::new());
        let place = &spot.place;
        let target = target.map(|id| {
            let upstreams = plan.shares().flat_map(|share| share.upstreams());
            let all: Vec<_> = upstreams.filter(|(place, _)| *place == id).map(|(_, upstream)| upstream).collect();
            assert_eq!(all.len(), 1, "one upstream has the place");
            format!("{}/{} {:?}", all[0].owner, all[0].name, all[0].endpoints)
        });
        let account = spot.account.is_some();
        write!(text, "{host}{path} -> {}/{} {account} {target:?}:", place.tenant, place.route).unwrap();
        for filter in (0..spot.chain.len()).filter_map(|at| spot.chain.get(at)) {
            let vms = plan.shares().flat_map(|share| share.vms());
            let all: Vec<_> = vms.filter(|(place, _)| *place == filter.vm).map(|(_, vm)| vm).collect();
            assert_eq!(all.len(), 1, "one VM has the place");
            let (vm, root) = (all[0], &all[0].roots[filter.root]);
            let digest = &vm.module.digest()[..2];
            write!(text, " {}({:?}) for {:?} {digest:?}", filter.name, root.configuration, vm.tenant).unwrap();
        }
        text.push('\n');
    }
    text
}

struct Files(tempfile::TempDir);

impl Files {
    fn write(&self, name: &str, content: &[u8]) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Changes something at random; returns whose it is, if it is a tenant's.
    fn change(&self, random: &mut Random) -> Option<&'static str> {
        let name = *["a", "b", "c", "d"].get(usize::try_from(random.below(4)).unwrap()).unwrap();
        let folder = self.0.path().join("tenants.d").join(name);
        match random.below(10) {
            0 => {
                self.write("module.wasm", &module(u8::try_from(random.below(3)).unwrap()));
                return None;
            }
            1 | 2 if folder.is_dir() => fs::remove_dir_all(folder).unwrap(),
            3 | 4 if folder.is_dir() => self.write(&format!("tenants.d/{name}/own.wasm"), &module(10)),
            _ => {
                self.write(&format!("tenants.d/{name}/tenant.yaml"), tenant(name, random).as_bytes());
                self.write(&format!("tenants.d/{name}/own.wasm"), &module(11));
            }
        }
        Some(name)
    }
}

fn settle(standing: &Standing, path: &Path, looking: Looking<'_>) -> Standing {
    let use_it = |snapshot, _: &Node| Ok::<_, Unusable<Infallible>>(Used { made: (), snapshot: Arc::new(snapshot) });
    standing.settle(&[path.to_path_buf()], &Inputs::default(), looking, use_it).unwrap().standing
}

#[test]
fn a_plan_that_follows_others_means_what_one_made_from_nothing_means() {
    let options = Options { max_vms: Some(4), ..Options::default() };
    let mut kept = 0;
    for seed in 1..=3_u64 {
        let random = &mut Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let files = Files(tempfile::tempdir().unwrap());
        let path: PathBuf = files.0.path().join("gateway.yaml");
        files.write("gateway.yaml", format!("{WITH_TENANTS}{MORE}").as_bytes());
        files.write("module.wasm", &module(0));
        let mut standing = settle(&Standing::default(), &path, Looking::Everywhere);
        let mut plan = Plan::new(standing.snapshot().unwrap().clone(), &options).unwrap();
        plan.table(0, None);
        for step in 0..25 {
            let changed = files.change(random);
            standing = settle(&standing, &path, changed.map_or(Looking::Everywhere, Looking::At));
            let next = plan.next(standing.snapshot().unwrap().clone()).unwrap();
            let table = next.table(0, Some(&plan));
            let (whole, _) = load(std::slice::from_ref(&path), &Inputs::default(), &Arc::default()).unwrap();
            let whole = Plan::new(Arc::new(whole), &options).unwrap();
            let want = meaning(&whole, &whole.table(0, None));
            assert_eq!(meaning(&next, &table), want, "seed {seed}, step {step}, {changed:?}");
            let others =
                ["a", "b", "c", "d"].into_iter().filter(|name| changed.is_some_and(|changed| changed != *name));
            for (before, after) in others.filter_map(|name| Some((plan.laid_for(name)?, next.laid_for(name)?))) {
                assert!(Arc::ptr_eq(before, after), "seed {seed}, step {step}, {changed:?}");
                kept += 1;
            }
            plan = next;
        }
    }
    assert!(kept > 50, "only {kept} were kept");
}

#[test]
fn filters_share_a_vm_only_where_its_id_and_its_configuration_are_one() {
    let files = Files(tempfile::tempdir().unwrap());
    let plugins = [("a", "vm_id: x"), ("b", "vm_id: x"), ("c", "vm_id: y"), ("d", "vm_id: x, vm_config: z"), ("e", "")];
    let [mut text, mut filters] = [String::from("plugins:\n"), String::from("filters:\n")];
    for (name, more) in plugins {
        writeln!(text, "  {name}: {{ module: \"file:module.wasm\", {more} }}").unwrap();
        writeln!(filters, "- {{ plugin: {name}, config: {name} }}").unwrap();
    }
    files.write("module.wasm", &module(0));
    files.write(
        "gateway.yaml",
        format!("version: 1\nlisteners: {{ a: {{ bind: \"127.0.0.1:0\" }} }}\n{text}{filters}").as_bytes(),
    );
    let path = files.0.path().join("gateway.yaml");
    let (snapshot, _) = load(&[path], &Inputs::default(), &Arc::default()).unwrap();
    let plan = Plan::new(Arc::new(snapshot), &Options { max_vms: Some(4), ..Options::default() }).unwrap();
    let mut found: Vec<_> = plan
        .shares()
        .flat_map(|share| share.vms())
        .map(|(_, vm)| (&*vm.vm_id, &*vm.configuration, vm.roots.iter().map(|root| &*root.name).collect()))
        .collect();
    found.sort();
    let want: [(&str, &[u8], Vec<&str>); 4] =
        [("", b"", vec!["e"]), ("x", b"", vec!["a", "b"]), ("x", b"z", vec!["d"]), ("y", b"", vec!["c"])];
    assert_eq!(found, want);
}
