//! Puts rules in order, and refuses those that have none.
//!
//! **Invariant:** in a router that was built, the rules of one leaf stand in descending rank, and no request meets two of
//! the same rank. So the order in which rules were given cannot matter.

use super::host::HostTable;
use super::tree::Node;
use super::{Choice, Conditions, HostPattern, Owned, Owner, Router, Rule};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Why a set of owners and rules is not a router.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Two rules are equally specific and one request could match both.
    ///
    /// Different methods, different values of one header or parameter, or one more condition tell them apart.
    #[error("routes `{first}` and `{second}` of `{owner}` are equally specific: {why}")]
    Tie {
        /// The owner of both.
        owner: String,
        /// The rule given first.
        first: String,
        /// The rule given second.
        second: String,
        /// Where they meet, and what they have in common.
        why: String,
    },
    /// Two owners claim the same host.
    #[error("host `{host}` is claimed by both `{first}` and `{second}`")]
    HostClaimedTwice {
        /// The host.
        host: HostPattern,
        /// The owner given first.
        first: String,
        /// The owner given second.
        second: String,
    },
    /// A rule names a host that its owner does not own, so that no request could ever reach it.
    #[error("route `{rule}` of `{owner}` names host `{host}`, which belongs to {}", .holder.as_deref().map_or("nobody".into(), |name| format!("`{name}`")))]
    HostNotOwned {
        /// The rule's owner.
        owner: String,
        /// The rule.
        rule: String,
        /// The host it names.
        host: HostPattern,
        /// Whose host that is.
        holder: Option<String>,
    },
}

impl<O, T> Router<O, T> {
    /// Puts the rules in order.
    ///
    /// Fails with every problem there is: each host claimed twice, each rule on a foreign host, each pair of rules that
    /// ties (once per pair, whatever the number of hosts they share).
    pub fn build(owners: Vec<Owner<O, T>>) -> Result<Self, Vec<RouteError>> {
        let mut problems = Vec::new();
        let claims = Claims::of(&owners, &mut problems);
        let mut owned = Vec::with_capacity(owners.len());
        for (index, owner) in owners.into_iter().enumerate() {
            owned.push(Arc::new(own(owner, |host| claims.check(index, host), &mut problems)));
        }
        let owners = claims.table.filter_map(|index| owned.get(index).cloned());
        if problems.is_empty() { Ok(Self { owners }) } else { Err(problems) }
    }
}

/// Who claims which hosts.
struct Claims {
    names: Vec<String>,
    table: HostTable<usize>,
}

impl Claims {
    fn of<O, T>(owners: &[Owner<O, T>], problems: &mut Vec<RouteError>) -> Self {
        let names: Vec<_> = owners.iter().map(|owner| owner.name.clone()).collect();
        let mut table = HostTable::default();
        for (index, owner) in owners.iter().enumerate() {
            for host in &owner.hosts {
                let holder = *table.slot(host, || index);
                if holder != index {
                    let first = names.get(holder).cloned().unwrap_or_default();
                    let (host, second) = (host.clone(), owner.name.clone());
                    problems.push(RouteError::HostClaimedTwice { host, first, second });
                }
            }
        }
        Self { names, table }
    }

    /// Whether a rule of this owner may name the host. `*` is every host of the owner, whoever that is.
    fn check(&self, owner: usize, host: &HostPattern) -> Result<(), Option<String>> {
        let holder = self.table.covering(host);
        if *host == HostPattern::ANY || holder == Some(&owner) {
            return Ok(());
        }
        Err(holder.and_then(|holder| self.names.get(*holder).cloned()))
    }
}

/// Puts one owner's rules in order. `check` says whether it may name a host, or else whose that is.
pub(super) fn own<O, T>(
    owner: Owner<O, T>,
    check: impl Fn(&HostPattern) -> Result<(), Option<String>>,
    problems: &mut Vec<RouteError>,
) -> Owned<O, T> {
    let mut levels = HostTable::default();
    let mut rules: Vec<Choice<T>> = Vec::with_capacity(owner.rules.len());
    let mut names = Vec::with_capacity(owner.rules.len());
    for (position, rule) in owner.rules.into_iter().enumerate() {
        let mut tied = BTreeSet::new();
        for host in levels_of(&rule.hosts) {
            if let Err(holder) = check(host) {
                let (owner, rule, host) = (owner.name.clone(), rule.name.clone(), host.clone());
                problems.push(RouteError::HostNotOwned { owner, rule, host, holder });
                continue;
            }
            let leaf = levels.slot(host, Node::default).leaf(&rule.path);
            for other in place(leaf, position, &rule.conditions, &rules) {
                if tied.insert(other) {
                    let first = names.get(other).cloned().unwrap_or_default();
                    let (owner, second, why) = (owner.name.clone(), rule.name.clone(), why_tied(&rule, host));
                    problems.push(RouteError::Tie { owner, first, second, why });
                }
            }
        }
        names.push(rule.name);
        rules.push(Choice { conditions: rule.conditions, target: rule.target });
    }
    Owned { id: owner.id, levels, rules }
}

/// The host levels a rule stands on: each host once, or the owner's level for any host.
fn levels_of(hosts: &[HostPattern]) -> BTreeSet<&HostPattern> {
    if hosts.is_empty() { BTreeSet::from([&HostPattern::ANY]) } else { hosts.iter().collect() }
}

/// Puts the rule at `position` into its leaf, more specific ones first, and returns those it ties with.
fn place<T>(leaf: &mut Vec<usize>, position: usize, conditions: &Conditions, rules: &[Choice<T>]) -> Vec<usize> {
    let at = |index: &usize| rules.get(*index).map(|choice| &choice.conditions);
    let rank = conditions.rank();
    let ties = |other: &Conditions| other.rank() == rank && other.overlaps(conditions);
    let tied = leaf.iter().copied().filter(|index| at(index).is_some_and(ties)).collect();
    let place = leaf.partition_point(|index| at(index).is_some_and(|other| other.rank() >= rank));
    leaf.insert(place, position);
    tied
}

fn why_tied<T>(rule: &Rule<T>, host: &HostPattern) -> String {
    let host = if *host == HostPattern::ANY { "any host".into() } else { format!("host `{host}`") };
    let (has_methods, conditions) = rule.conditions.rank();
    let methods = if has_methods { "they share a method" } else { "neither names methods" };
    let conditions = match conditions {
        0 => "neither has header or query conditions".into(),
        1 => "one request can meet the one condition of each".into(),
        more => format!("one request can meet the {more} conditions of each"),
    };
    format!("for `{}` on {host}, {methods} and {conditions}", rule.path)
}
