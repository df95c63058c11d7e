//! All rules, host by host, in the order in which a lookup tries them.
//!
//! For those who write routes down for a proxy that takes the first that matches. [`Router::find`] needs no such list.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::tree::Node;
use super::{Conditions, HostPattern, Router};

/// The rules that requests for a host can meet.
#[derive(Clone, Debug)]
pub struct Listed<'r, O, T> {
    /// The host. Of two that a request's host matches, the more specific one counts.
    pub host: HostPattern,
    /// Whose it is.
    pub owner: O,
    /// What is tried, first to last. Each rule's path is for the target to say.
    pub rules: Vec<(&'r Conditions, T)>,
}

impl<O: Copy, T: Copy> Router<O, T> {
    /// Every host that some rule or owner names, in the order of their names.
    ///
    /// The first rule of a host's list whose path and conditions a request meets is the one that [`Router::find`] answers.
    #[must_use]
    pub fn listed(&self) -> Vec<Listed<'_, O, T>> {
        let mut owned: BTreeMap<_, (_, BTreeSet<HostPattern>)> = BTreeMap::new();
        for (host, owner) in self.owners.patterns() {
            owned.entry(Arc::as_ptr(owner)).or_insert((owner, BTreeSet::new())).1.insert(host);
        }
        let mut all: Vec<Listed<'_, O, T>> = Vec::new();
        for (owner, mut hosts) in owned.into_values() {
            let named = owner.levels.patterns().map(|(host, _)| host);
            hosts.extend(named.filter(|host| *host != HostPattern::ANY));
            for host in hosts {
                let leaves = owner.levels.all_covering(&host).flat_map(Node::leaves);
                let choices = leaves.filter_map(|index| owner.rules.get(index));
                let rules = choices.map(|choice| (&choice.conditions, choice.target)).collect();
                all.push(Listed { host, owner: owner.id, rules });
            }
        }
        all.sort_by(|one, other| one.host.cmp(&other.host));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::rule;
    use super::super::{Owner, Router};
    use super::*;

    /// A name, its hosts, and its rules as `rule` reads them.
    type Owned<'t> = (&'static str, &'t [&'t str], &'t [(&'static str, &'t str)]);

    fn check(owners: &[Owned<'_>], want: &[(&str, &str, &[&str])]) {
        let owners = owners.iter().map(|(name, hosts, rules)| Owner {
            name: (*name).into(),
            id: *name,
            hosts: hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect(),
            rules: rules.iter().map(|(name, text)| rule(name, text)).collect(),
        });
        let router = Router::build(owners.collect()).unwrap();
        let listed = router.listed();
        let got: Vec<(String, &str, Vec<&str>)> = listed
            .iter()
            .map(|listed| {
                let targets = listed.rules.iter().map(|(_, target)| *target).collect();
                (listed.host.to_string(), listed.owner, targets)
            })
            .collect();
        let want: Vec<_> =
            want.iter().map(|(host, owner, rules)| ((*host).to_owned(), *owner, rules.to_vec())).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn rules_stand_in_the_order_in_which_they_are_tried() {
        check(
            &[(
                "all",
                &["*"],
                &[
                    ("rest", "/*"),
                    ("template", "/orders/{id}"),
                    ("below", "/orders/*"),
                    ("put", "/orders/new PUT"),
                    ("new", "/orders/new"),
                    ("beta", "/orders/new PUT x-beta=1"),
                    ("orders", "/orders"),
                    ("slash", "/orders/"),
                ],
            )],
            &[("*", "all", &["slash", "beta", "put", "new", "template", "orders", "below", "rest"])],
        );
    }

    #[test]
    fn a_host_has_its_own_rules_then_those_of_wider_ones_of_the_same_owner() {
        check(
            &[
                ("all", &["*"], &[("any", "/*"), ("status", "status.test /*")]),
                (
                    "acme",
                    &["acme.test", "*.acme.test"],
                    &[("a", "/a"), ("api", "api.acme.test /b"), ("sub", "*.acme.test /c")],
                ),
                ("beta", &["beta.acme.test"], &[]),
            ],
            &[
                ("acme.test", "acme", &["a"]),
                ("api.acme.test", "acme", &["api", "sub", "a"]),
                ("beta.acme.test", "beta", &[]),
                ("status.test", "all", &["status", "any"]),
                ("*.acme.test", "acme", &["sub", "a"]),
                ("*", "all", &["any"]),
            ],
        );
    }
}
