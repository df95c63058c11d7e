//! The reply, out of the results of calls.

use std::borrow::Cow;
use std::cell::OnceCell;

use crate::json::text::quoted;
use crate::json::{Clash, Field, Json, field, merge};
use crate::outcome::Outcome;
use crate::plan::{Call, Place, Reply};
use crate::shape::{self, TooLarge};

/// Why there is no reply out of results that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// It would be longer than it may.
    TooLarge,
    /// The result of this call cannot stand where it should: there is no object, or it is none.
    Place(usize),
}

impl From<TooLarge> for Unfit {
    fn from(TooLarge: TooLarge) -> Self {
        Self::TooLarge
    }
}

/// The reply's document, out of what came of the calls; `failed` are the names of those that failed.
pub(crate) fn composed(
    reply: &Reply,
    calls: &[Call],
    outcomes: &[OnceCell<Outcome>],
    failed: &[&str],
) -> Result<String, Unfit> {
    let mut document = placed(calls, outcomes)?;
    shape::apply(&reply.shape, &mut document, reply.max_bytes)?;
    if let (Some(name), false) = (&reply.partial, failed.is_empty())
        && let Json::Object(fields) = document.open()
    {
        let name: Cow<'_, str> = Cow::Owned(quoted(name));
        fields.retain(|field| field.name != name);
        fields.push(Field { name, value: Json::Array(failed.iter().map(|name| Json::string(name)).collect()) });
    }
    // The line's end is one more.
    if document.len() >= reply.max_bytes {
        return Err(Unfit::TooLarge);
    }
    let mut text = document.to_text();
    text.push('\n');
    Ok(text)
}

/// The results at their places.
fn placed<'o>(calls: &'o [Call], outcomes: &'o [OnceCell<Outcome>]) -> Result<Json<'o>, Unfit> {
    let mut document = Vec::new();
    for (at, (call, outcome)) in calls.iter().zip(outcomes).enumerate() {
        let Some(outcome) = outcome.get().filter(|_| call.place != Place::Nowhere) else { continue };
        let Some(result) = outcome.result()? else { continue };
        let mut result = Json::of(result.text());
        match &call.place {
            Place::Nowhere => {}
            Place::Merged => match result.open() {
                Json::Object(fields) => merge(&mut document, std::mem::take(fields), Clash::Replaces),
                Json::Array(_) | Json::Written(_) => return Err(Unfit::Place(at)),
            },
            Place::At(names) => put(&mut document, names, result).ok_or(Unfit::Place(at))?,
        }
    }
    Ok(Json::Object(document))
}

/// Makes the objects that are missing on the way; nothing where something else is in it.
fn put<'t>(fields: &mut Vec<Field<'t>>, names: &'t [String], value: Json<'t>) -> Option<()> {
    let (first, rest) = names.split_first()?;
    if field(fields, first).is_none() {
        fields.push(Field { name: Cow::Borrowed(first), value: Json::Object(Vec::new()) });
    }
    let field = field(fields, first)?;
    if rest.is_empty() {
        field.value = value;
        return Some(());
    }
    match field.value.open() {
        Json::Object(inner) => put(inner, rest, value),
        Json::Array(_) | Json::Written(_) => None,
    }
}
