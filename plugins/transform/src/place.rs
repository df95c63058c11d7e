//! Places that settings name: one, by JSON Pointer (RFC 6901), or all that a JSONPath query (RFC 9535) finds.
//!
//! A rule that finds nothing to act on leaves the document as it is: documents differ, and a rule is not a schema.

use serde_json::Value;

use crate::jsonpath::{Query, TooCostly};
use crate::location::{self, Location, Step};
use crate::pointer::Pointer;

/// A place, or several.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Pointer(Pointer),
    Query(Query),
}

impl Place {
    /// # Errors
    /// Says how a place is written.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.chars().next() {
            Some('$') => Query::parse(text).map(Self::Query),
            Some('/') => Pointer::parse(text).map(Self::Pointer),
            _ => Err(format!(
                "`{text}` is neither a JSON Pointer such as /user/name nor a JSONPath such as $.users[*].name"
            )),
        }
    }

    /// What is there.
    pub(crate) fn locations(&self, document: &Value) -> Result<Vec<Location>, TooCostly> {
        match self {
            Self::Pointer(pointer) => Ok(pointer.location(document).into_iter().collect()),
            Self::Query(query) => query.locations(document),
        }
    }

    /// Puts a value there, whether there was one or not. A query that ends with a name puts it into all objects that it leads
    /// to, any other in the place of what it finds.
    pub(crate) fn set(&self, document: &mut Value, value: &Value) -> Result<(), TooCostly> {
        let Some((objects, name)) = self.query_parents() else {
            match self {
                Self::Pointer(pointer) => _ = pointer.set(document, value.clone()),
                Self::Query(query) => {
                    for at in query.locations(document)? {
                        if let Some(place) = location::get_mut(document, &at) {
                            value.clone_into(place);
                        }
                    }
                }
            }
            return Ok(());
        };
        for at in objects.locations(document)? {
            if let Some(Value::Object(fields)) = location::get_mut(document, &at) {
                fields.insert(name.to_owned(), value.clone());
            }
        }
        Ok(())
    }

    /// Puts a value where there is none.
    pub(crate) fn default(&self, document: &mut Value, value: &Value) -> Result<(), TooCostly> {
        match (self, self.query_parents()) {
            (_, Some((objects, name))) => {
                for at in objects.locations(document)? {
                    if let Some(Value::Object(fields)) = location::get_mut(document, &at) {
                        fields.entry(name).or_insert_with(|| value.clone());
                    }
                }
            }
            (Self::Pointer(pointer), None) if pointer.location(document).is_none() => {
                pointer.set(document, value.clone());
            }
            (Self::Pointer(_) | Self::Query(_), None) => {}
        }
        Ok(())
    }

    /// Whether [`Self::default`] could ever do something.
    pub(crate) fn can_default(&self) -> bool {
        matches!(self, Self::Pointer(_)) || self.query_parents().is_some()
    }

    fn query_parents(&self) -> Option<(Query, &str)> {
        match self {
            Self::Pointer(_) => None,
            Self::Query(query) => query.parents(),
        }
    }

    /// What is there, as a copy: one value by a pointer, a list of all by a query.
    pub(crate) fn copied(&self, document: &Value) -> Result<Option<Value>, TooCostly> {
        let found = self.locations(document)?;
        let copy = |at: &[Step]| location::get(document, at).cloned();
        Ok(match self {
            Self::Pointer(_) => found.first().and_then(|at| copy(at)),
            Self::Query(_) => Some(Value::Array(found.iter().filter_map(|at| copy(at)).collect())),
        })
    }
}
