//! One list of filters for many chains: Envoy runs the filters of a listener in one order, and a route says which of them are on.
//!
//! **Invariant:** every chain that was put in is, in its order, a part of the list. A filter stands there more than once where two
//! chains could not be had otherwise.

use std::collections::HashMap;

use crate::config::snapshot::FilterIndex;

/// The list, and what its filters are called.
#[derive(Debug, Default)]
pub(super) struct Order {
    slots: Vec<Slot>,
    taken: HashMap<String, usize>,
}

/// A filter at its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) filter: FilterIndex,
    /// Its name, which is its alone.
    pub(super) name: String,
}

impl Order {
    /// The names by which a chain's filters are switched on: what they are called, made unlike all others.
    pub(super) fn place(&mut self, chain: &[FilterIndex], called: &[String]) -> Vec<String> {
        let mut from = 0;
        let mut names = Vec::new();
        for (filter, called) in chain.iter().zip(called) {
            let ahead = self.slots.iter().skip(from).position(|slot| slot.filter == *filter);
            let at = ahead.map_or(from, |ahead| from + ahead);
            if ahead.is_none() {
                let name = self.free(called.clone());
                self.slots.insert(at, Slot { filter: *filter, name });
            }
            names.extend(self.slots.get(at).map(|slot| slot.name.clone()));
            from = at + 1;
        }
        names
    }

    /// The name, or one like it that nobody has.
    fn free(&mut self, name: String) -> String {
        let count = self.taken.entry(name.clone()).or_default();
        *count += 1;
        if *count == 1 { name } else { format!("{name}#{count}") }
    }

    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(chains: &[&str], want: &str) {
        let mut order = Order::default();
        let placed: Vec<Vec<String>> = chains
            .iter()
            .map(|chain| {
                let filters: Vec<_> =
                    chain.bytes().map(|letter| FilterIndex { owner: None, at: letter.into() }).collect();
                let called: Vec<_> = chain.chars().map(String::from).collect();
                order.place(&filters, &called)
            })
            .collect();
        let names: Vec<&str> = order.slots().iter().map(|slot| slot.name.as_str()).collect();
        assert_eq!(names.join(" "), want, "{chains:?}");
        for (chain, placed) in chains.iter().zip(placed) {
            let on: Vec<&str> = names.iter().copied().filter(|name| placed.iter().any(|one| one == name)).collect();
            assert_eq!(on, placed, "{chain} is in order");
            let plain: String = placed.iter().filter_map(|name| name.chars().next()).collect();
            assert_eq!(plain, **chain);
        }
    }

    #[test]
    fn every_chain_is_a_part_of_the_list_in_its_order() {
        check(&["", "abc", "ac", "b"], "a b c");
        check(&["ab", "ax", "axb"], "a x b");
        check(&["ab", "ba"], "a b a#2");
        check(&["aa", "a"], "a a#2");
        check(&["gx", "gy", "gxz", "g"], "g y x z");
    }
}
