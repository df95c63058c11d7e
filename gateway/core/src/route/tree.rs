//! The path patterns of one host, as a tree of segments.
//!
//! A node asks at most three questions of a segment: is there a child of that name, a child for a template, a star. So a
//! lookup visits one node per way of reading the front of the path as literals and templates that some pattern begins
//! with: at most one per segment where no template stands beside a literal that the path has.

use super::path::{End, PathPattern, Segment};
use std::collections::HashMap;

/// What is known after some segments of a path. Leaves are lists of rules, which mean nothing here.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    literals: HashMap<Box<str>, Node>,
    template: Option<Box<Node>>,
    /// Rules for exactly this path.
    here: Vec<usize>,
    /// Rules for this path and everything below it.
    or_below: Vec<usize>,
}

#[cfg(test)]
thread_local! {
    /// How many nodes lookups of this thread have visited.
    pub(super) static VISITED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

impl Node {
    /// The list of rules for a pattern, made if it is not there. Patterns that differ in template names share one.
    pub(super) fn leaf(&mut self, pattern: &PathPattern) -> &mut Vec<usize> {
        let node = pattern.segments.iter().fold(self, |node, segment| match segment {
            Segment::Literal(text) => node.literals.entry(text.clone()).or_default(),
            Segment::Template => node.template.get_or_insert_default(),
        });
        match pattern.end {
            End::Here => &mut node.here,
            End::OrBelow => &mut node.or_below,
        }
    }

    /// Offers the leaves that match a path, most specific first, until one is accepted.
    pub(super) fn find<R>(&self, path: &str, accept: &mut impl FnMut(&[usize]) -> Option<R>) -> Option<R> {
        match path.strip_prefix('/') {
            Some(rest) => self.walk(Some(rest), accept),
            None => accept(&self.or_below),
        }
    }

    /// Every rule, in the order in which [`Self::find`] offers them.
    pub(super) fn leaves(&self) -> Vec<usize> {
        let mut literals: Vec<_> = self.literals.iter().collect();
        // No path meets two of them: their order is for readers.
        literals.sort_by_key(|(text, _)| *text);
        let children = literals.into_iter().map(|(_, child)| child).chain(self.template.as_deref());
        children.flat_map(Self::leaves).chain(self.here.iter().chain(&self.or_below).copied()).collect()
    }

    /// `rest` is what comes after the slash that follows this node's segment; none if there is no such slash.
    fn walk<R>(&self, rest: Option<&str>, accept: &mut impl FnMut(&[usize]) -> Option<R>) -> Option<R> {
        #[cfg(test)]
        VISITED.set(VISITED.get() + 1);
        let Some(rest) = rest else {
            return accept(&self.here).or_else(|| accept(&self.or_below));
        };
        let (segment, rest) = rest.split_once('/').map_or((rest, None), |(segment, rest)| (segment, Some(rest)));
        let literal = self.literals.get(segment);
        let template = self.template.as_deref().filter(|_| !segment.is_empty());
        let mut children = literal.into_iter().chain(template);
        children.find_map(|child| child.walk(rest, accept)).or_else(|| accept(&self.or_below))
    }
}
