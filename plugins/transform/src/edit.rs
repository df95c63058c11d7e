//! Edits of a JSON document.

use plugin_common::template::Template;
use serde_json::{Map, Value};

use crate::jsonpath::TooCostly;
use crate::location::{self, Kept, Location};
use crate::obstacle::Obstacle;
use crate::place::Place;
use crate::pointer::Pointer;
use crate::values::Scope;

/// What stands in the place of what was redacted.
const REDACTED: &str = "***";

/// Edits, made in this order.
#[derive(Debug, Default)]
pub(crate) struct Edit {
    pub(crate) unwrap: Option<Pointer>,
    pub(crate) pick: Option<Vec<Place>>,
    pub(crate) remove: Vec<Place>,
    pub(crate) rename: Vec<(Place, String)>,
    pub(crate) moves: Vec<(Pointer, Pointer)>,
    pub(crate) copy: Vec<(Place, Pointer)>,
    pub(crate) default: Vec<(Place, Content)>,
    pub(crate) set: Vec<(Place, Content)>,
    pub(crate) redact: Vec<Place>,
    /// With how many of the last characters may be seen.
    pub(crate) mask: Vec<(Place, usize)>,
    pub(crate) each: Vec<(Place, Vec<Edit>)>,
    pub(crate) wrap: Option<String>,
}

/// A value to be put somewhere: texts in it may be templates.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Fixed(Value),
    Text(Template),
    List(Vec<Content>),
    Object(Vec<(String, Content)>),
}

impl Content {
    /// The value; none where a template came out empty.
    fn made(&self, scope: &Scope) -> Result<Option<Value>, Obstacle> {
        let inner = |content: &Self| Ok(content.made(scope)?.unwrap_or_else(|| Value::String(String::new())));
        Ok(match self {
            Self::Fixed(value) => Some(value.clone()),
            Self::Text(template) => {
                let text = template.render(&|path| scope.get(path)).map_err(|_| Obstacle::Unfit)?;
                (!text.is_empty()).then_some(Value::String(text))
            }
            Self::List(items) => Some(Value::Array(items.iter().map(inner).collect::<Result<_, Obstacle>>()?)),
            Self::Object(fields) => {
                let field = |(key, content): &(String, Self)| Ok((key.clone(), inner(content)?));
                Some(Value::Object(fields.iter().map(field).collect::<Result<Map<_, _>, Obstacle>>()?))
            }
        })
    }

    /// Whether it is made of values.
    pub(crate) fn has_values(&self) -> bool {
        match self {
            Self::Fixed(_) => false,
            Self::Text(_) => true,
            Self::List(items) => items.iter().any(Self::has_values),
            Self::Object(fields) => fields.iter().any(|(_, content)| content.has_values()),
        }
    }
}

impl From<TooCostly> for Obstacle {
    fn from(_: TooCostly) -> Self {
        Self::Complex
    }
}

impl Edit {
    /// Whether it looks at values of the exchange.
    pub(crate) fn has_values(&self) -> bool {
        self.default.iter().chain(&self.set).any(|(_, content)| content.has_values())
            || self.each.iter().any(|(_, edits)| edits.iter().any(Self::has_values))
    }

    pub(crate) fn apply(&self, document: &mut Value, scope: &Scope) -> Result<(), Obstacle> {
        self.reshape(document)?;
        self.relocate(document)?;
        self.fill(document, scope)?;
        self.conceal(document)?;
        for (place, edits) in &self.each {
            for at in items(document, place.locations(document)?) {
                let Some(item) = location::get_mut(document, &at) else { continue };
                edits.iter().try_for_each(|edit| edit.apply(item, scope))?;
            }
        }
        if let Some(name) = &self.wrap {
            let inner = document.take();
            *document = Value::Object(Map::from_iter([(name.clone(), inner)]));
        }
        Ok(())
    }

    fn reshape(&self, document: &mut Value) -> Result<(), Obstacle> {
        if let Some(inner) = self.unwrap.as_ref().and_then(|pointer| pointer.remove(document)) {
            *document = inner;
        }
        if let Some(places) = &self.pick {
            let mut kept = Kept::default();
            for place in places {
                place.locations(document)?.iter().for_each(|at| kept.insert(at));
            }
            *document = kept.of(document.take());
        }
        let mut gone = Vec::new();
        for place in &self.remove {
            gone.extend(place.locations(document)?);
        }
        location::remove_all(document, gone);
        Ok(())
    }

    fn relocate(&self, document: &mut Value) -> Result<(), Obstacle> {
        for (place, name) in &self.rename {
            // The innermost first: a name on the way to another must not change before that is done.
            let mut found = place.locations(document)?;
            found.sort_unstable();
            found.iter().rev().for_each(|at| location::rename(document, at, name));
        }
        for (from, to) in &self.moves {
            let Some(value) = from.remove(document) else { continue };
            // Where there is no place for it, it stays.
            let place = if to.is_free(document) { to } else { from };
            place.set(document, value);
        }
        for (from, to) in &self.copy {
            if let Some(value) = from.copied(document)? {
                to.set(document, value);
            }
        }
        Ok(())
    }

    fn fill(&self, document: &mut Value, scope: &Scope) -> Result<(), Obstacle> {
        for (place, content) in &self.default {
            if let Some(value) = content.made(scope)? {
                place.default(document, &value)?;
            }
        }
        for (place, content) in &self.set {
            if let Some(value) = content.made(scope)? {
                place.set(document, &value)?;
            }
        }
        Ok(())
    }

    fn conceal(&self, document: &mut Value) -> Result<(), Obstacle> {
        let redacted = |place: &Place| Ok((place.locations(document)?, None));
        let masked = |(place, shown): &(Place, usize)| Ok((place.locations(document)?, Some(*shown)));
        let all: Vec<(Vec<Location>, Option<usize>)> =
            self.redact.iter().map(redacted).chain(self.mask.iter().map(masked)).collect::<Result<_, Obstacle>>()?;
        for (places, shown) in all {
            for at in places {
                let Some(value) = location::get_mut(document, &at) else { continue };
                *value = Value::String(shown.map_or_else(|| REDACTED.to_owned(), |shown| mask(value, shown)));
            }
        }
        Ok(())
    }
}

/// A list stands for its items.
fn items(document: &Value, places: Vec<Location>) -> Vec<Location> {
    let expand = |at: Location| match location::get(document, &at) {
        Some(Value::Array(items)) => {
            let item = |index| at.iter().cloned().chain([location::Step::Index(index)]).collect();
            (0..items.len()).map(item).collect()
        }
        Some(_) => vec![at],
        None => Vec::new(),
    };
    places.into_iter().flat_map(expand).collect()
}

/// A text with stars for all but its last characters; for all of them where no more would be hidden than is shown. What is no
/// text and no number is redacted.
fn mask(value: &Value, shown: usize) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return REDACTED.to_owned(),
    };
    let count = text.chars().count();
    let hidden = if count >= shown.saturating_mul(2) { count - shown } else { count };
    text.chars().enumerate().map(|(index, char)| if index < hidden { '*' } else { char }).collect()
}

#[cfg(test)]
mod tests;
