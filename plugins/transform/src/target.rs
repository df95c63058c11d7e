//! The request's target: paths that become others, and edits of the query.

use std::rc::Rc;

use plugin_common::percent;
use plugin_common::template::Template;

use crate::condition::Guard;
use crate::obstacle::Obstacle;
use crate::values::{Scope, Values};

/// The names of a pattern with what they stand for, decoded.
pub(crate) type Captures = Vec<(String, String)>;

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
    decoded_path(&text.replace('+', " "))
}

/// The same of a path, where `+` is a plus. The template encodes it anew.
fn decoded_path(text: &str) -> String {
    String::from_utf8_lossy(&percent::decoded(text.as_bytes(), false)).into_owned()
}

/// A path with names for segments, such as `/v1/orders/{id}`; `*` at the end is the rest, captured as `rest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Text(String),
    Named(String),
    Rest,
}

impl Pattern {
    /// # Errors
    /// What to write instead.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a path such as /v1/orders/{{id}} or /v1/*");
        let path = text.strip_prefix('/').ok_or_else(wrong)?;
        let mut segments: Vec<Segment> = Vec::new();
        for part in path.split('/') {
            if segments.last() == Some(&Segment::Rest) {
                return Err(wrong());
            }
            let name = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
            segments.push(match (part, name) {
                ("*", _) => Segment::Rest,
                (_, Some(name)) if !name.is_empty() => Segment::Named(name.to_owned()),
                (part, None) if !part.contains(['{', '}', '*', '?', '#']) => Segment::Text(part.to_owned()),
                _ => return Err(wrong()),
            });
        }
        Ok(Self(segments))
    }

    /// What its names stand for in a path; nothing where the path is another one.
    pub(crate) fn captures(&self, path: &str) -> Option<Captures> {
        let mut rest = Some(path.strip_prefix('/')?);
        let mut captures = Captures::new();
        for segment in &self.0 {
            let here = rest?;
            if *segment == Segment::Rest {
                captures.push(("rest".to_owned(), decoded_path(here)));
                return Some(captures);
            }
            let (first, after) = here.split_once('/').map_or((here, None), |(first, after)| (first, Some(after)));
            match segment {
                Segment::Text(text) if text == first => {}
                Segment::Named(name) if !first.is_empty() => captures.push((name.clone(), decoded_path(first))),
                Segment::Text(_) | Segment::Named(_) | Segment::Rest => return None,
            }
            rest = after;
        }
        rest.is_none().then_some(captures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_captures_what_its_names_stand_for() {
        let captured = |pattern: &str, path: &str| {
            let captures = Pattern::parse(pattern).unwrap().captures(path)?;
            Some(captures.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "))
        };
        for (pattern, path, want) in [
            ("/v1/orders/{id}", "/v1/orders/7", Some("id=7")),
            ("/v1/orders/{id}", "/v1/orders/a%20b+c", Some("id=a b+c")),
            ("/v1/orders/{id}", "/v1/orders/", None),
            ("/v1/orders/{id}", "/v1/orders/7/lines", None),
            ("/v1/*", "/v1/a/b", Some("rest=a/b")),
            ("/v1/*", "/v1", None),
            ("/{a}/{b}", "/1/2", Some("a=1 b=2")),
            ("/", "/", Some("")),
        ] {
            assert_eq!(captured(pattern, path).as_deref(), want, "{pattern} {path}");
        }
        for wrong in ["v1", "/a*", "/{}", "/*/a", "/a?b", "/{a"] {
            assert!(Pattern::parse(wrong).is_err(), "{wrong}");
        }
    }
}
