//! The request's target: paths that become others, and edits of the query.

use std::rc::Rc;

use plugin_common::pattern::{Captures, Pattern};
use plugin_common::percent;
use plugin_common::template::Template;

use crate::condition::Guard;
use crate::obstacle::Obstacle;
use crate::values::{Scope, Values};

/// A path that becomes another.
#[derive(Debug)]
pub(crate) struct Rewrite {
    pub(crate) guard: Guard,
    pub(crate) from: Pattern,
    pub(crate) to: Template,
    /// Whether it brings a query of its own.
    pub(crate) has_query: bool,
}

impl Rewrite {
    /// The names that a request which it was made for has values of.
    pub(crate) fn captures(&self) -> impl Iterator<Item = &str> {
        self.from.names().chain(self.guard.captures())
    }

    /// The new target of a request, if its path is the old one, and what its names captured.
    pub(crate) fn apply(&self, values: &Rc<Values>) -> Result<Option<(String, Captures)>, Obstacle> {
        let Some(mut scope) = self.guard.scope(values) else { return Ok(None) };
        let Some(mut captures) = self.from.captures(values.path()) else { return Ok(None) };
        captures.append(&mut scope.captures);
        let scope = Scope { values: Rc::clone(values), captures };
        let made = self.to.render(&|path| scope.get(path)).map_err(|_| Obstacle::Unfit)?;
        let query = values.query().filter(|_| !self.has_query).map(|query| format!("?{query}"));
        Ok(Some((made + &query.unwrap_or_default(), scope.captures)))
    }
}

/// Edits of a query, in this order. Names are as decoded.
#[derive(Debug, Default)]
pub(crate) struct QueryRules {
    pub(crate) remove: Vec<String>,
    pub(crate) rename: Vec<(String, String)>,
    pub(crate) set: Vec<(String, Template)>,
    pub(crate) append: Vec<(String, Template)>,
}

impl QueryRules {
    pub(crate) fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.rename.is_empty() && self.set.is_empty() && self.append.is_empty()
    }

    /// The target with another query. What no edit names keeps its bytes.
    pub(crate) fn apply(&self, target: &str, scope: &Scope) -> Result<String, Obstacle> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let mut pairs: Vec<(String, String)> = pairs.map(|pair| (name(pair), pair.to_owned())).collect();
        pairs.retain(|(name, _)| !self.remove.contains(name));
        for (from, to) in &self.rename {
            for (name, pair) in pairs.iter_mut().filter(|(name, _)| name == from) {
                let value = pair.find('=').and_then(|at| pair.get(at..)).unwrap_or_default();
                *pair = encoded(to) + value;
                name.clone_from(to);
            }
        }
        for (name, template) in &self.set {
            let Some(pair) = made(name, template, scope)? else { continue };
            match pairs.iter().position(|(own, _)| own == name) {
                Some(at) => {
                    let mut index = 0;
                    pairs.retain(|(own, _)| {
                        index += 1;
                        own != name || index == at + 1
                    });
                    pairs.iter_mut().filter(|(own, _)| own == name).for_each(|(_, own)| own.clone_from(&pair));
                }
                None => pairs.push((name.clone(), pair)),
            }
        }
        for (name, template) in &self.append {
            pairs.extend(made(name, template, scope)?.map(|pair| (name.clone(), pair)));
        }
        let pairs: Vec<String> = pairs.into_iter().map(|(_, pair)| pair).collect();
        Ok(if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) })
    }
}

/// A parameter as it stands in a query; none where the value came out empty.
fn made(name: &str, template: &Template, scope: &Scope) -> Result<Option<String>, Obstacle> {
    let value = template.render(&|path| scope.get(path)).map_err(|_| Obstacle::Unfit)?;
    Ok((!value.is_empty()).then(|| format!("{}={}", encoded(name), encoded(&value))))
}

/// A text as it stands in a query.
fn encoded(text: &str) -> String {
    let mut made = String::with_capacity(text.len());
    percent::encode(text, &mut made);
    made
}

/// The name of a parameter, decoded.
fn name(pair: &str) -> String {
    decoded(pair.split('=').next().unwrap_or_default())
}

/// A parameter's text: percent escapes and `+` undone.
pub(crate) fn decoded(text: &str) -> String {
    String::from_utf8_lossy(&percent::decoded(text.replace('+', " ").as_bytes(), false)).into_owned()
}
