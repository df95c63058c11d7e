//! The router against the plainest matcher there is: try every rule, sort what matches, take the first.
//!
//! The plain one reads patterns as text and shares nothing with the router but the conditions' own comparison, which has
//! tests of its own.

use super::tests::rule;
use super::*;
use std::cmp::Ordering;
use std::collections::HashSet;

const OWNERS: [(&str, &[&str]); 3] =
    [("global", &["*"]), ("acme", &["a.test", "*.a.test"]), ("beta", &["b.a.test", "*.b.a.test"])];
const HOSTS: [&str; 8] = ["", "test", "a.test", "c.a.test", "b.a.test", "c.b.a.test", "d.c.b.a.test", "other.test"];
const SEGMENTS: [&str; 3] = ["a", "b", "c"];

/// xorshift64: enough to shuffle a test.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound).unwrap()).unwrap()
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }
}

/// A rule as text: hosts (own to its owner), path, and the rest as `tests::rule` reads it.
#[derive(Clone, Debug)]
struct Plain {
    owner: usize,
    hosts: Vec<&'static str>,
    path: String,
    rest: String,
}

impl Plain {
    fn random(random: &mut Random) -> Self {
        let owner = random.below(OWNERS.len());
        let hosts: [&[&str]; 3] = [
            &["other.test", "*.test"],
            &["a.test", "*.a.test", "c.a.test"],
            &["b.a.test", "*.c.b.a.test", "*.b.a.test"],
        ];
        let hosts = (0..random.below(3)).map(|_| random.pick(hosts[owner])).collect();
        let mut path = String::new();
        for n in 0..random.below(4) {
            path += "/";
            path += &if random.chance(3) { format!("{{t{n}}}") } else { random.pick(&SEGMENTS).to_owned() };
        }
        path += if path.is_empty() { random.pick(&["/", "/*"]) } else { random.pick(&["", "", "/", "/*"]) };
        let rest = (0..random.below(3)).map(|_| random.pick(&["GET ", "PUT ", "x-a=1 ", "x-a=2 ", "x-b=1 ", "?v=1 "]));
        Self { owner, hosts, path, rest: rest.collect() }
    }

    fn conditions(&self) -> Conditions {
        rule("", &format!("/ {}", self.rest)).conditions
    }

    /// The host levels of this rule that match, the longest text first, which is also the most specific.
    fn host_level(&self, host: &str) -> Option<(bool, usize)> {
        if self.hosts.is_empty() {
            return Some((false, 0));
        }
        let levels = self.hosts.iter().filter(|pattern| host_matches(pattern, host));
        levels.map(|pattern| (!pattern.starts_with('*'), pattern.len())).max()
    }

    fn matches(&self, request: &Request<'_>) -> bool {
        self.host_level(request.host).is_some()
            && path_matches(&self.path, request.path)
            && self.conditions().met_by(request)
    }

    /// `Less` is more specific.
    fn compare(&self, other: &Self, host: &str) -> Ordering {
        let level = other.host_level(host).cmp(&self.host_level(host));
        let (mine, others) = (self.conditions().rank(), other.conditions().rank());
        level.then_with(|| compare_paths(&self.path, &other.path)).then(others.cmp(&mine))
    }

    fn ties(&self, other: &Self) -> bool {
        let shared = self.hosts.iter().any(|host| other.hosts.contains(host));
        self.owner == other.owner
            && (shared || (self.hosts.is_empty() && other.hosts.is_empty()))
            && shape(&self.path) == shape(&other.path)
            && self.conditions().rank() == other.conditions().rank()
            && self.conditions().overlaps(&other.conditions())
    }
}

fn host_matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => host == pattern,
    }
}

fn owner_of(host: &str) -> usize {
    let owned = |(_, hosts): &(&str, &[&str])| {
        hosts.iter().filter(|p| **p == "*" || host_matches(p, host)).map(|p| (!p.starts_with('*'), p.len())).max()
    };
    (0..OWNERS.len()).max_by_key(|index| owned(&OWNERS[*index])).unwrap()
}

fn path_matches(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), path.split('/').collect());
    let (fixed, star) = match pattern.split_last() {
        Some((&"*", fixed)) => (fixed, true),
        _ => (pattern.as_slice(), false),
    };
    let same = |(p, s): (&&str, &&str)| p == s || (p.starts_with('{') && !s.is_empty());
    let length = if star { path.len() >= fixed.len() } else { path.len() == fixed.len() };
    length && fixed.iter().zip(&path).all(same)
}

fn shape(pattern: &str) -> Vec<&str> {
    pattern.split('/').map(|segment| if segment.starts_with('{') { "{}" } else { segment }).collect()
}

fn compare_paths(these: &str, those: &str) -> Ordering {
    // A pattern that ends sorts with literals: only a star can stand in the same place and match the same path.
    let rank = |segment: Option<&&str>| match segment {
        Some(&"{}") => 1,
        Some(&"*") => 2,
        _ => 0,
    };
    let (these, those) = (shape(these), shape(those));
    let order = (0..these.len().max(those.len())).map(|at| rank(these.get(at)).cmp(&rank(those.get(at))));
    order.fold(Ordering::Equal, Ordering::then)
}

fn build(rules: &[(usize, Plain)]) -> Result<Router<usize, usize>, Vec<RouteError>> {
    let owners = OWNERS.iter().enumerate().map(|(id, (name, hosts))| Owner {
        name: (*name).into(),
        id,
        hosts: hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect(),
        rules: rules
            .iter()
            .filter(|(_, plain)| plain.owner == id)
            .map(|(number, plain)| Rule {
                name: number.to_string(),
                hosts: plain.hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect(),
                path: PathPattern::parse(&plain.path).unwrap(),
                conditions: plain.conditions(),
                target: *number,
            })
            .collect(),
    });
    Router::build(owners.collect())
}

/// Builds a router of random rules, checking that exactly the ties there are were reported, then without the second of
/// each pair.
fn random_router(random: &mut Random) -> (Router<usize, usize>, Vec<(usize, Plain)>) {
    let mut rules: Vec<_> = (0..1 + random.below(40)).map(|number| (number, Plain::random(random))).collect();
    let pairs = rules.iter().flat_map(|one| rules.iter().map(move |other| (one, other)));
    let ties: HashSet<_> = pairs.filter(|(a, b)| a.0 < b.0 && a.1.ties(&b.1)).map(|(a, b)| (a.0, b.0)).collect();
    let found = build(&rules).err().unwrap_or_default().into_iter().map(|problem| match problem {
        RouteError::Tie { first, second, .. } => (first.parse().unwrap(), second.parse().unwrap()),
        other @ (RouteError::HostClaimedTwice { .. } | RouteError::HostNotOwned { .. }) => panic!("{other}"),
    });
    assert_eq!(found.collect::<HashSet<(usize, usize)>>(), ties, "{rules:#?}");
    rules.retain(|(number, _)| !ties.iter().any(|(_, second)| second == number));
    (build(&rules).unwrap(), rules)
}

fn random_path(random: &mut Random) -> String {
    let depth = random.below(5);
    let path: String = (0..depth).map(|_| format!("/{}", random.pick(&SEGMENTS))).collect();
    if path.is_empty() || random.chance(4) { path + "/" } else { path }
}

#[test]
fn the_router_agrees_with_trying_every_rule() {
    let mut routed = 0;
    for seed in 1..=300_u64 {
        let random = &mut Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let (router, rules) = random_router(random);
        for _ in 0..100 {
            let mut headers = HeaderMap::new();
            for (name, value) in [("x-a", "1"), ("x-a", "2"), ("x-b", "1")] {
                if random.chance(3) {
                    headers.append(name, http::HeaderValue::from_static(value));
                }
            }
            let (host, path) = (random.pick(&HOSTS), random_path(random));
            let (method, query) =
                (random.pick(&[&Method::GET, &Method::PUT]), random.pick(&[None, Some("v=1"), Some("v=2")]));
            let request = Request { host, path: &path, query, method, headers: &headers };

            let owner = owner_of(host);
            let matching = rules.iter().filter(|(_, plain)| plain.owner == owner && plain.matches(&request));
            let best = matching.min_by(|(_, a), (_, b)| a.compare(b, host));
            let want = best.map_or(Match::NoRoute(owner), |(number, _)| Match::Route(*number));
            assert_eq!(router.find(&request), want, "seed {seed}: {request:?}\n{rules:#?}");
            routed += usize::from(best.is_some());
        }
    }
    assert!(routed > 10_000, "only {routed} requests met a rule at all");
}

/// Somebody whose hosts and rules change.
fn random_owner(random: &mut Random, id: usize) -> Owner<usize, usize> {
    const CLAIMS: [&str; 8] = ["*", "a.test", "*.a.test", "b.a.test", "*.b.a.test", "c.a.test", "*.test", "other.test"];
    let parse = |text: &str| HostPattern::parse(text).unwrap();
    let hosts: HashSet<_> = (0..random.below(4)).map(|_| random.pick(&CLAIMS)).collect();
    let hosts: Vec<_> = hosts.into_iter().collect();
    let rules = (0..random.below(4)).map(|number| {
        let plain = Plain::random(random);
        let named = if random.chance(3) { vec![random.pick(&CLAIMS)] } else { Vec::new() };
        let named = if random.chance(2) { named } else { hosts.clone() };
        Rule {
            name: number.to_string(),
            hosts: named.into_iter().map(parse).collect(),
            path: PathPattern::parse(&plain.path).unwrap(),
            conditions: plain.conditions(),
            target: 100 * id + number,
        }
    });
    let rules = rules.collect();
    Owner { name: id.to_string(), id, hosts: hosts.iter().map(|text| parse(text)).collect(), rules }
}

/// What is found on every host for some paths and methods, and the whole list.
fn all_found(router: &Router<usize, usize>) -> String {
    let headers = HeaderMap::new();
    let mut found: Vec<String> = router.listed().iter().map(|listed| format!("{listed:?}")).collect();
    for host in HOSTS {
        for path in ["/", "/a", "/a/", "/b/a", "/c/b/a", "/a/b/c/a"] {
            for method in [&Method::GET, &Method::PUT] {
                let request = Request { host, path, query: None, method, headers: &headers };
                found.push(format!("{:?}", router.find(&request)));
            }
        }
    }
    found.join("\n")
}

#[test]
fn a_router_that_was_changed_is_the_one_that_is_built_of_what_is_there() {
    let (mut changed, mut refused) = (0, 0);
    for seed in 1..=100_u64 {
        let random = &mut Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let (mut router, mut there) = (Router::build(Vec::new()).unwrap(), Vec::<Owner<usize, usize>>::new());
        for step in 0..20 {
            let mut next = there.clone();
            let mut gone = Vec::new();
            for _ in 0..random.below(3).min(next.len()) {
                gone.push(next.swap_remove(random.below(next.len())));
            }
            let new: Vec<_> = (0..random.below(3)).map(|number| random_owner(random, 10 * step + number)).collect();
            next.extend(new.iter().cloned());
            let after = router.changed(gone.iter().flat_map(|owner| &owner.hosts), new);
            match (after, Router::build(next.clone())) {
                (Some(after), Ok(built)) => {
                    assert_eq!(all_found(&after), all_found(&built), "seed {seed}, step {step}: {next:#?}");
                    (router, there, changed) = (after, next, changed + 1);
                }
                (None, Err(_)) => refused += 1,
                (after, built) => panic!("seed {seed}, step {step}: {after:?} but {built:?}"),
            }
        }
    }
    assert!(changed > 300 && refused > 300, "{changed} changes and {refused} refusals");
}
