//! Which route a request takes: host, path, method, headers and query → route.
//!
//! A host belongs to one [`Owner`] (a tenant, or the operator for every host that no tenant claims), found by the most
//! specific host pattern. Only that owner's rules are looked at, so a request for a tenant's host never reaches a global
//! route, nor another tenant's, even when the tenant has nothing for its path.
//!
//! Among the owner's rules the first that matches wins, most specific first:
//! 1. an exact host, then the longest wildcard host, then a rule without hosts;
//! 2. segment by segment from the left: a literal, then a `{template}`, then `*` — so the longest pattern comes first;
//! 3. rules with methods before rules without (`GET` does not include `HEAD`);
//! 4. the more header and query conditions.
//!
//! A rule whose methods or conditions are not met gives way to the next, down to the owner's rules for any host. The
//! order in which rules were given never decides: two rules that are equal in all four points and that one request could
//! meet are refused by [`Router::build`].
//!
//! **Invariant:** a lookup allocates nothing, and what it visits depends on the labels of the host, the segments of the
//! path and the ways to read it as literals and templates, not on how many other routes there are. Only rules that share
//! a host and a path are tried one after another.
//!
//! Left to others: making the path normal before it comes here (the same text must reach filters and the upstream), and
//! what a route means.

mod build;
mod change;
mod conditions;
mod host;
mod listing;
mod path;
#[cfg(test)]
mod random;
mod tree;

pub use build::RouteError;
pub use conditions::Conditions;
pub use host::{HostPattern, HostPatternError};
pub use listing::Listed;
pub use path::{PathPattern, PathPatternError};

pub(crate) use host::HostName;
use std::cell::LazyCell;
use std::sync::Arc;

use host::HostTable;
use http::{HeaderMap, Method};
use tree::Node;

/// Who owns hosts, and the rules for them: a tenant, or the operator with `*` for whatever no tenant claims.
#[derive(Clone, Debug)]
pub struct Owner<O, T> {
    /// How problems name it.
    pub name: String,
    /// What [`Router::find`] answers for its hosts when none of its rules match.
    pub id: O,
    /// Its hosts, and nobody else's. A more specific host inside a wildcard may belong to another owner.
    pub hosts: Vec<HostPattern>,
    /// Its rules, in any order.
    pub rules: Vec<Rule<T>>,
}

/// One match and where it leads.
#[derive(Clone, Debug)]
pub struct Rule<T> {
    /// How problems name it.
    pub name: String,
    /// The hosts it is limited to, all of them its owner's. None, or `*`, means every host of the owner.
    pub hosts: Vec<HostPattern>,
    /// The paths it takes.
    pub path: PathPattern,
    /// What else a request must meet.
    pub conditions: Conditions,
    /// What a lookup answers.
    pub target: T,
}

/// What a lookup reads of a request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The `Host` field or `:authority`; a port and a trailing dot are ignored, empty is a host no pattern names.
    pub host: &'a str,
    /// The normalised path, without its query. One that does not begin with `/` (`OPTIONS *`) meets only `/*`.
    pub path: &'a str,
    /// What follows the `?`, as sent.
    pub query: Option<&'a str>,
    /// The method.
    pub method: &'a Method,
    /// The header fields.
    pub headers: &'a HeaderMap,
}

/// What a lookup found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match<O, T> {
    /// The target of the most specific rule that matches.
    Route(T),
    /// The host is this owner's, but none of its rules match. The owner's filters still apply.
    NoRoute(O),
    /// Nobody owns the host; does not happen where an owner holds `*`.
    UnknownHost,
}

/// Every rule of every owner, ready for lookups. Immutable, and part of a snapshot; one that [`Router::changed`] makes of another
/// shares with it the owners that are in both.
#[derive(Clone, Debug)]
pub struct Router<O, T> {
    owners: HostTable<Arc<Owned<O, T>>>,
}

#[derive(Clone, Debug)]
struct Owned<O, T> {
    id: O,
    /// Leaves hold positions in `rules`, most specific first.
    levels: HostTable<Node>,
    rules: Vec<Choice<T>>,
}

#[derive(Clone, Debug)]
struct Choice<T> {
    conditions: Conditions,
    target: T,
}

impl<O: Copy, T: Copy> Router<O, T> {
    /// Finds the most specific rule that matches.
    pub fn find(&self, request: &Request<'_>) -> Match<O, T> {
        let host = LazyCell::new(|| HostName::read(request.host));
        let Some(owner) = self.owners.levels(&host).next() else { return Match::UnknownHost };
        let mut first_met = |leaf: &[usize]| owner.first_met(leaf, request);
        let target = owner.levels.levels(&host).find_map(|tree| tree.find(request.path, &mut first_met));
        target.map_or(Match::NoRoute(owner.id), Match::Route)
    }
}

impl<O, T: Copy> Owned<O, T> {
    fn first_met(&self, leaf: &[usize], request: &Request<'_>) -> Option<T> {
        let mut choices = leaf.iter().filter_map(|index| self.rules.get(*index));
        choices.find(|choice| choice.conditions.met_by(request)).map(|choice| choice.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    type Global = Router<&'static str, &'static str>;

    /// Words in any order: `/path`, `host`, `METHOD`, `header=value`, `?parameter=value`.
    pub(super) fn rule(name: &'static str, text: &str) -> Rule<&'static str> {
        let mut rule = Rule {
            name: name.into(),
            hosts: Vec::new(),
            path: PathPattern::parse("/").unwrap(),
            conditions: Conditions::default(),
            target: name,
        };
        for word in text.split_whitespace() {
            if let Some((name, value)) = word.strip_prefix('?').and_then(|pair| pair.split_once('=')) {
                rule.conditions.query.push((name.into(), value.into()));
            } else if let Some((name, value)) = word.split_once('=') {
                rule.conditions.headers.push((HeaderName::try_from(name).unwrap(), value.into()));
            } else if word.starts_with('/') {
                rule.path = PathPattern::parse(word).unwrap();
            } else if word.chars().all(|c| c.is_ascii_uppercase()) {
                rule.conditions.methods.push(Method::try_from(word).unwrap());
            } else {
                rule.hosts.push(HostPattern::parse(word).unwrap());
            }
        }
        rule
    }

    fn owner(name: &'static str, hosts: &[&str], rules: &[(&'static str, &str)]) -> Owner<&'static str, &'static str> {
        let hosts = hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect();
        let rules = rules.iter().map(|(name, text)| rule(name, text)).collect();
        Owner { name: name.into(), id: name, hosts, rules }
    }

    fn global(rules: &[(&'static str, &str)]) -> Result<Global, Vec<RouteError>> {
        Router::build(vec![owner("global", &["*"], rules)])
    }

    /// `METHOD host/path?query header=value …` → what is found.
    fn find(router: &Global, request: &str) -> Match<&'static str, &'static str> {
        let mut words = request.split_whitespace();
        let method = Method::try_from(words.next().unwrap()).unwrap();
        let target = words.next().unwrap();
        let slash = target.find('/').unwrap_or(target.len());
        let (host, target) = target.split_at(slash);
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let mut headers = HeaderMap::new();
        for (name, value) in words.map(|word| word.split_once('=').unwrap()) {
            headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
        }
        router.find(&Request { host, path, query, method: &method, headers: &headers })
    }

    fn check(rules: &[(&'static str, &str)], requests: &[(&str, &'static str)]) {
        let router = global(rules).unwrap();
        for (request, want) in requests {
            let want = if want.is_empty() { Match::NoRoute("global") } else { Match::Route(*want) };
            assert_eq!(find(&router, request), want, "{request}");
        }
    }

    #[test]
    fn an_exact_host_beats_the_longest_wildcard_and_that_beats_any_host() {
        check(
            &[
                ("any", "/*"),
                ("short", "*.example.com /*"),
                ("long", "*.acme.example.com /*"),
                ("exact", "api.acme.example.com /*"),
                ("v6", "[2001:db8::1] /*"),
            ],
            &[
                ("GET api.acme.example.com/", "exact"),
                ("GET API.Acme.Example.Com.:8443/", "exact"),
                ("GET www.acme.example.com/", "long"),
                ("GET a.b.acme.example.com/", "long"),
                ("GET acme.example.com/", "short"),
                ("GET example.com/", "any"),
                ("GET notexample.com/", "any"),
                ("GET [2001:DB8:0::1]:80/", "v6"),
                ("GET /", "any"),
            ],
        );
    }

    #[test]
    fn a_literal_beats_a_template_and_a_template_beats_a_star_from_the_left() {
        check(
            &[
                ("rest", "/*"),
                ("orders", "/orders"),
                ("new", "/orders/new"),
                ("order", "/orders/{id}"),
                ("items", "/orders/{id}/items"),
                ("below-order", "/orders/{id}/*"),
                ("any-items", "/{kind}/{id}/items"),
                ("below-v1", "/v1/*"),
                ("below-v1-a", "/v1/a/*"),
            ],
            &[
                ("GET h/orders", "orders"),
                ("GET h/orders/", "rest"),
                ("GET h/orders/new", "new"),
                ("GET h/orders/7", "order"),
                ("GET h/orders/7/items", "items"),
                ("GET h/orders/7/lines", "below-order"),
                ("GET h/orders/new/items", "items"),
                ("GET h/users/7/items", "any-items"),
                ("GET h/v1/a/b", "below-v1-a"),
                ("GET h/v1/b/a", "below-v1"),
                ("GET h/ORDERS", "rest"),
            ],
        );
    }

    #[test]
    fn a_trailing_star_takes_everything_below_it_and_the_path_it_stands_on() {
        check(
            &[("api", "/api/*"), ("one", "/{x}")],
            &[
                ("GET h/api", "api"),
                ("GET h/api/", "api"),
                ("GET h/api/x/y", "api"),
                ("GET h/apis", "one"),
                ("GET h/apis/x", ""),
                ("GET h/", ""),
            ],
        );
        check(
            &[("api", "/api/*"), ("itself", "/api"), ("slash", "/api/")],
            &[("GET h/api", "itself"), ("GET h/api/", "slash"), ("GET h/api/x", "api")],
        );
        check(&[("all", "/*")], &[("GET h/", "all"), ("GET h/a/b", "all"), ("OPTIONS h", "all")]);
        check(&[("one", "/{x}"), ("root", "/")], &[("OPTIONS h", "")]);
    }

    #[test]
    fn methods_come_before_conditions_and_more_conditions_before_fewer() {
        check(
            &[
                ("plain", "/a"),
                ("beta", "/a x-beta=1"),
                ("beta-v2", "/a x-beta=1 ?v=2"),
                ("get", "/a GET"),
                ("get-beta", "/a GET HEAD x-beta=1"),
            ],
            &[
                ("GET h/a", "get"),
                ("GET h/a x-beta=1", "get-beta"),
                ("HEAD h/a x-beta=1", "get-beta"),
                ("HEAD h/a", "plain"),
                ("GET h/a?v=2 x-beta=1", "get-beta"),
                ("PUT h/a?v=2 x-beta=1", "beta-v2"),
                ("PUT h/a x-beta=1", "beta"),
                ("PUT h/a x-beta=2", "plain"),
                ("PUT h/a", "plain"),
            ],
        );
    }

    #[test]
    fn a_rule_whose_conditions_fail_steps_aside_for_less_specific_paths_and_hosts() {
        check(
            &[
                ("literal", "a.test /x/y POST"),
                ("template", "a.test /x/{z} x-beta=1"),
                ("star", "a.test /x/* PUT"),
                ("wildcard", "*.test /x/y DELETE"),
                ("any", "/x/* GET"),
            ],
            &[
                ("POST a.test/x/y", "literal"),
                ("PUT a.test/x/y x-beta=1", "template"),
                ("PUT a.test/x/y", "star"),
                ("DELETE a.test/x/y", "wildcard"),
                ("GET a.test/x/y", "any"),
                ("PATCH a.test/x/y", ""),
            ],
        );
    }

    #[test]
    fn a_request_for_an_owned_host_meets_only_its_owners_rules() {
        let router = Router::build(vec![
            owner("global", &["*"], &[("rest", "/*"), ("status", "status.example.com /*")]),
            owner("acme", &["acme.test", "*.acme.test"], &[("a", "/a"), ("api", "api.acme.test /b")]),
            owner("beta", &["beta.acme.test"], &[("b", "/b")]),
        ])
        .unwrap();
        for (request, want) in [
            ("GET acme.test/a", Match::Route("a")),
            ("GET api.acme.test/a", Match::Route("a")),
            ("GET api.acme.test/b", Match::Route("api")),
            ("GET acme.test/b", Match::NoRoute("acme")),
            ("GET beta.acme.test/b", Match::Route("b")),
            ("GET beta.acme.test/a", Match::NoRoute("beta")),
            ("GET other.test/a", Match::Route("rest")),
            ("GET status.example.com/", Match::Route("status")),
        ] {
            assert_eq!(find(&router, request), want, "{request}");
        }
        let tenants = Router::build(vec![owner("acme", &["acme.test"], &[("a", "/a")])]).unwrap();
        assert_eq!(find(&tenants, "GET other.test/a"), Match::UnknownHost);
    }

    #[test]
    fn rules_that_one_request_could_match_equally_well_are_refused() {
        for (first, second, ties) in [
            ("/a/{x}", "/a/{y}", true),
            ("/a/{x}", "/a/*", false),
            ("/a", "/a/", false),
            ("/a GET PUT", "/a PUT", true),
            ("/a GET", "/a PUT", false),
            ("/a GET", "/a", false),
            ("/a x-a=1", "/a x-b=1", true),
            ("/a x-a=1", "/a ?x-a=1", true),
            ("/a x-a=1", "/a x-a=2", false),
            ("/a x-a=1 ?v=1", "/a x-b=1 ?v=2", false),
            ("/a x-a=1", "/a x-a=1 x-b=1", false),
            ("a.test /a", "b.test /a", false),
            ("a.test b.test /a", "A.TEST. /a", true),
            ("a.test /a", "*.test /a", false),
            ("a.test a.test /a", "/a", false),
        ] {
            let tied = |rules: &[_]| match global(rules) {
                Ok(_) => false,
                Err(problems) => {
                    assert!(matches!(problems.as_slice(), [RouteError::Tie { .. }]), "{problems:?}");
                    true
                }
            };
            assert_eq!(tied(&[("1", first), ("2", second)]), ties, "{first} and {second}");
            assert_eq!(tied(&[("2", second), ("1", first)]), ties, "{second} and {first}");
        }
    }

    #[test]
    fn every_problem_is_named_once() {
        let problems = Router::build(vec![
            owner("acme", &["a.test", "*.a.test"], &[("mine", "a.test b.a.test /"), ("theirs", "b.test /")]),
            owner("beta", &["A.test", "c.a.test"], &[("one", "c.a.test /{x}"), ("two", "c.a.test /{y}")]),
            owner("gamma", &["g.test"], &[("carved", "*.a.test /")]),
        ]);
        let problems: Vec<_> = problems.unwrap_err().iter().map(ToString::to_string).collect();
        expect_test::expect![[r#"
            host `a.test` is claimed by both `acme` and `beta`
            route `theirs` of `acme` names host `b.test`, which belongs to nobody
            routes `one` and `two` of `beta` are equally specific: for `/{y}` on host `c.a.test`, neither names methods and neither has header or query conditions
            route `carved` of `gamma` names host `*.a.test`, which belongs to `acme`"#]]
        .assert_eq(&problems.join("\n"));
    }

    #[test]
    fn a_lookup_visits_no_more_among_a_hundred_thousand_routes_than_among_a_hundred() {
        let visited = |routes: usize| {
            let rules = (0..routes).map(|n| rule("one", &format!("/v1/service{n}/{{id}}/items"))).collect();
            let hosts = vec![HostPattern::ANY];
            let router = Router::build(vec![Owner { name: "global".into(), id: "global", hosts, rules }]).unwrap();
            tree::VISITED.set(0);
            assert_eq!(find(&router, "GET a.test/v1/service7/42/items"), Match::Route("one"));
            assert_eq!(find(&router, "GET a.test/v1/service8/42/nothing"), Match::NoRoute("global"));
            tree::VISITED.get()
        };
        assert_eq!(visited(100), visited(100_000));
    }
}
