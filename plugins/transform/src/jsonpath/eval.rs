//! What a query finds.

use std::borrow::Cow;
use std::cell::Cell;
use std::cmp::Ordering;
use std::rc::Rc;

use serde_json::{Number, Value};

use super::{
    Comparison, From, Inner, Logical, MAX_VISITS, Operand, Pattern, Query, Reach, Segment, Selector, TooCostly,
};
use crate::condition::pattern;
use crate::location::{Location, Step};

impl Query {
    /// Where the values are that it finds, in the document's order; one may be there twice.
    pub(crate) fn locations(&self, document: &Value) -> Result<Vec<Location>, TooCostly> {
        let run = Run { root: document, visits: Cell::new(0) };
        let nodes = run.nodes(Node { value: document, at: None }, &self.0)?;
        Ok(nodes.iter().map(Node::location).collect())
    }
}

/// A value with the way to it. Ways share their beginnings.
#[derive(Clone)]
struct Node<'d> {
    value: &'d Value,
    at: Option<Rc<Way<'d>>>,
}

struct Way<'d> {
    before: Option<Rc<Way<'d>>>,
    step: ByStep<'d>,
}

#[derive(Clone, Copy)]
enum ByStep<'d> {
    Key(&'d str),
    Index(usize),
}

impl<'d> Node<'d> {
    fn child(&self, step: ByStep<'d>, value: &'d Value) -> Self {
        Self { value, at: Some(Rc::new(Way { before: self.at.clone(), step })) }
    }

    fn children(&self) -> Vec<Self> {
        match self.value {
            Value::Object(fields) => fields.iter().map(|(key, value)| self.child(ByStep::Key(key), value)).collect(),
            Value::Array(items) => {
                items.iter().enumerate().map(|(index, value)| self.child(ByStep::Index(index), value)).collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
        }
    }

    fn location(&self) -> Location {
        let mut location = Location::new();
        let mut way = self.at.as_ref();
        while let Some(here) = way {
            location.push(match here.step {
                ByStep::Key(key) => Step::Key(key.to_owned()),
                ByStep::Index(index) => Step::Index(index),
            });
            way = here.before.as_ref();
        }
        location.reverse();
        location
    }
}

struct Run<'d> {
    root: &'d Value,
    visits: Cell<usize>,
}

impl<'d> Run<'d> {
    fn visit(&self, count: usize) -> Result<(), TooCostly> {
        self.visits.set(self.visits.get().saturating_add(count));
        if self.visits.get() > MAX_VISITS { Err(TooCostly) } else { Ok(()) }
    }

    fn nodes(&self, from: Node<'d>, segments: &[Segment]) -> Result<Vec<Node<'d>>, TooCostly> {
        let mut nodes = vec![from];
        for segment in segments {
            let mut found = Vec::new();
            for node in &nodes {
                match segment.reach {
                    Reach::Children => self.select(node, &segment.selectors, &mut found)?,
                    Reach::Descendants => self.descend(node, &segment.selectors, &mut found)?,
                }
            }
            nodes = found;
        }
        Ok(nodes)
    }

    /// A value and all below it, each before what is in it. As deep as the document, which its parser bounds.
    fn descend(&self, node: &Node<'d>, selectors: &[Selector], found: &mut Vec<Node<'d>>) -> Result<(), TooCostly> {
        self.select(node, selectors, found)?;
        let children = node.children();
        self.visit(children.len())?;
        children.iter().try_for_each(|child| self.descend(child, selectors, found))
    }

    fn select(&self, node: &Node<'d>, selectors: &[Selector], found: &mut Vec<Node<'d>>) -> Result<(), TooCostly> {
        for selector in selectors {
            self.visit(1)?;
            match (selector, node.value) {
                (Selector::Name(name), Value::Object(fields)) => {
                    let field = fields.get_key_value(name);
                    found.extend(field.map(|(key, value)| node.child(ByStep::Key(key), value)));
                }
                (Selector::Index(index), Value::Array(items)) => {
                    let at = absolute(*index, items.len());
                    let item = at.and_then(|at| Some((at, items.get(at)?)));
                    found.extend(item.map(|(at, value)| node.child(ByStep::Index(at), value)));
                }
                (Selector::Slice { start, end, step }, Value::Array(items)) => {
                    let slice = slice(*start, *end, *step, items.len());
                    self.visit(slice.len())?;
                    let item = |at: usize| Some(node.child(ByStep::Index(at), items.get(at)?));
                    found.extend(slice.into_iter().filter_map(item));
                }
                (Selector::Wildcard, _) => {
                    let children = node.children();
                    self.visit(children.len())?;
                    found.extend(children);
                }
                (Selector::Filter(test), _) => {
                    for child in node.children() {
                        self.visit(1)?;
                        if self.holds(test, child.value)? {
                            found.push(child);
                        }
                    }
                }
                (Selector::Name(_) | Selector::Index(_) | Selector::Slice { .. }, _) => {}
            }
        }
        Ok(())
    }

    fn holds(&self, test: &Logical, current: &'d Value) -> Result<bool, TooCostly> {
        match test {
            Logical::Or(any) => {
                for test in any {
                    if self.holds(test, current)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Logical::And(all) => {
                for test in all {
                    if !self.holds(test, current)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Logical::Not(test) => Ok(!self.holds(test, current)?),
            Logical::Exists(query) => Ok(!self.inner(query, current)?.is_empty()),
            Logical::Compare(left, comparison, right) => {
                let (left, right) = (self.value(left, current)?, self.value(right, current)?);
                Ok(comparison.holds(left.as_deref(), right.as_deref()))
            }
            Logical::Matches(text, wanted) => self.matches(text, wanted, current),
        }
    }

    fn matches(&self, text: &Operand, wanted: &Pattern, current: &'d Value) -> Result<bool, TooCostly> {
        let text = self.value(text, current)?;
        let Some(text) = text.as_deref().and_then(Value::as_str) else { return Ok(false) };
        match wanted {
            Pattern::Fixed(pattern) => Ok(pattern.is_match(text)),
            Pattern::Found(found, extent) => {
                let found = self.value(found, current)?;
                let found = found.as_deref().and_then(Value::as_str);
                // Read anew for every value, so it counts for more than one.
                self.visit(100)?;
                Ok(found.is_some_and(|found| pattern(&extent.of(found)).is_ok_and(|found| found.is_match(text))))
            }
        }
    }

    fn inner(&self, query: &Inner, current: &'d Value) -> Result<Vec<Node<'d>>, TooCostly> {
        let value = match query.from {
            From::Root => self.root,
            From::Current => current,
        };
        self.nodes(Node { value, at: None }, &query.segments)
    }

    fn value(&self, operand: &Operand, current: &'d Value) -> Result<Option<Cow<'d, Value>>, TooCostly> {
        let number = |count: usize| Some(Cow::Owned(Value::from(count)));
        let only = |nodes: Vec<Node<'d>>| match nodes.as_slice() {
            [node] => Some(Cow::Borrowed(node.value)),
            _ => None,
        };
        Ok(match operand {
            Operand::Literal(value) => Some(Cow::Owned(value.clone())),
            Operand::Query(query) | Operand::Value(query) => only(self.inner(query, current)?),
            Operand::Count(query) => number(self.inner(query, current)?.len()),
            Operand::Length(of) => match self.value(of, current)?.as_deref() {
                Some(Value::String(text)) => number(text.chars().count()),
                Some(Value::Array(items)) => number(items.len()),
                Some(Value::Object(fields)) => number(fields.len()),
                Some(Value::Null | Value::Bool(_) | Value::Number(_)) | None => None,
            },
        })
    }
}

/// An index from the list's beginning, if there is such an item.
fn absolute(index: i64, len: usize) -> Option<usize> {
    let len_signed = i64::try_from(len).ok()?;
    let at = if index < 0 { len_signed + index } else { index };
    usize::try_from(at).ok().filter(|at| *at < len)
}

/// RFC 9535 §2.3.4.2.2.
fn slice(start: Option<i64>, end: Option<i64>, step: i64, len: usize) -> Vec<usize> {
    let Ok(len) = i64::try_from(len) else { return Vec::new() };
    let normal = |index: i64| if index < 0 { len + index } else { index };
    let mut found = Vec::new();
    if step > 0 {
        let mut at = normal(start.unwrap_or(0)).clamp(0, len);
        let end = normal(end.unwrap_or(len)).clamp(0, len);
        while at < end {
            found.extend(usize::try_from(at));
            at = at.saturating_add(step);
        }
    } else if step < 0 {
        let mut at = start.map_or(len - 1, normal).clamp(-1, len - 1);
        let end = end.map_or(-1, |end| normal(end).clamp(-1, len - 1));
        while at > end {
            found.extend(usize::try_from(at));
            at = at.saturating_add(step);
        }
    }
    found
}

impl Comparison {
    /// Nothing equals nothing, and is neither less nor more than anything.
    fn holds(self, left: Option<&Value>, right: Option<&Value>) -> bool {
        let equal = || match (left, right) {
            (None, None) => true,
            (Some(left), Some(right)) => equal(left, right),
            _ => false,
        };
        let order = || match (left?, right?) {
            (Value::Number(left), Value::Number(right)) => compare(left, right),
            (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
            _ => None,
        };
        match self {
            Self::Equal => equal(),
            Self::NotEqual => !equal(),
            Self::Less => order() == Some(Ordering::Less),
            Self::Greater => order() == Some(Ordering::Greater),
            Self::LessOrEqual => order() == Some(Ordering::Less) || equal(),
            Self::GreaterOrEqual => order() == Some(Ordering::Greater) || equal(),
        }
    }
}

/// Whole numbers exactly, others as doubles.
fn compare(left: &Number, right: &Number) -> Option<Ordering> {
    match (left.as_i64(), right.as_i64()) {
        (Some(left), Some(right)) => Some(left.cmp(&right)),
        _ => left.as_f64()?.partial_cmp(&right.as_f64()?),
    }
}

fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => compare(left, right) == Some(Ordering::Equal),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| equal(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            let same = |(key, value): (&String, &Value)| right.get(key).is_some_and(|right| equal(value, right));
            left.len() == right.len() && left.iter().all(same)
        }
        _ => left == right,
    }
}
