//! What is made of a document on its way into the reply: a part of it taken, fields picked, dropped or renamed, nested ones lifted,
//! arrays joined.
//!
//! Steps are made in order, and one that finds nothing to act on leaves the document as it is. Only a join makes a document larger;
//! so it alone has a limit.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::json::{Clash, Field, Json, field, merge};
use crate::pointer::{Pointer, Token};

/// One change to a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The document becomes what is at this place; `null` if nothing is.
    Take(Pointer),
    /// Only what is at these places stays.
    Pick(Vec<Pointer>),
    /// What is at these places goes.
    Drop(Vec<Pointer>),
    /// The field at each place gets another name, in quotes, and keeps its position.
    Rename(Vec<(Pointer, String)>),
    /// An object's fields go up into what holds it; an array of arrays becomes one array.
    Flatten(Pointer),
    /// Every item of an array gets what belongs to it.
    Join(Join),
}

/// A left join: every item of one array gets the item of another that has the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Join {
    /// The array whose items get something.
    pub(crate) into: Pointer,
    /// The key, in each of them.
    pub(crate) by: Pointer,
    /// The array whose items they get.
    pub(crate) from: Pointer,
    /// The key, in each of those.
    pub(crate) key: Pointer,
    /// The field in which they get it, in quotes.
    pub(crate) name: String,
    pub(crate) matches: Matches,
}

/// How many items belong to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Matches {
    /// The first; `null` where there is none.
    First,
    /// An array of all.
    All,
}

/// A join would have added more bytes than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

/// Makes these steps; joins may add so many bytes in all.
pub(crate) fn apply(steps: &[Step], document: &mut Json<'_>, room: usize) -> Result<(), TooLarge> {
    let mut room = room;
    steps.iter().try_for_each(|step| step.apply(document, &mut room))
}

impl Step {
    fn apply(&self, document: &mut Json<'_>, room: &mut usize) -> Result<(), TooLarge> {
        match self {
            Self::Take(place) => *document = place.get(document).unwrap_or(Json::NULL),
            Self::Pick(places) => {
                let places: Vec<&[Token]> = places.iter().map(|place| place.0.as_slice()).collect();
                pick(&places, document);
            }
            Self::Drop(places) => places.iter().for_each(|place| place.change_holder(document, &mut remove)),
            Self::Rename(places) => {
                for (place, name) in places {
                    place.change_holder(document, &mut |holder, last| rename(holder, last, name));
                }
            }
            Self::Flatten(place) => {
                place.change(document, &mut join_arrays);
                place.change_holder(document, &mut lift);
            }
            Self::Join(join) => join.apply(document, room)?,
        }
        Ok(())
    }
}

/// What places lead to stays, and nothing else: where one leads further than the document goes, nothing is there.
fn pick(places: &[&[Token]], value: &mut Json<'_>) {
    if places.iter().any(|place| place.is_empty()) {
        return;
    }
    let stays = |leads: &dyn Fn(&Token) -> bool, value: &mut Json<'_>| {
        let further = places.iter().filter_map(|place| place.split_first().filter(|(first, _)| leads(first)));
        let further: Vec<&[Token]> = further.map(|(_, rest)| rest).collect();
        let stays = !further.is_empty();
        if stays {
            pick(&further, value);
        }
        stays
    };
    match value.open() {
        Json::Object(fields) => {
            fields.retain_mut(|field| {
                let Field { name, value } = field;
                stays(&|token| token.key().is_some_and(|key| key.quoted == *name), value)
            });
        }
        Json::Array(items) => {
            let mut at = 0..;
            items.retain_mut(|item| {
                let here = at.next();
                stays(&|token| token.key().is_none_or(|key| key.index == here), item)
            });
        }
        plain @ Json::Written(_) => *plain = Json::NULL,
    }
}

fn remove(holder: &mut Json<'_>, last: &Token) {
    match (holder, last) {
        (Json::Object(fields), Token::Key(key)) => fields.retain(|field| field.name != key.quoted),
        (Json::Array(items), Token::Key(key)) => {
            if let Some(at) = key.index.filter(|at| *at < items.len()) {
                items.remove(at);
            }
        }
        (Json::Array(items), Token::Every) => items.clear(),
        (_, _) => {}
    }
}

/// The new name is in quotes.
fn rename<'t>(holder: &mut Json<'t>, last: &Token, name: &str) {
    let (Json::Object(fields), Token::Key(key)) = (holder, last) else { return };
    if key.quoted == name || field(fields, &key.quoted).is_none() {
        return;
    }
    fields.retain(|field| field.name != name);
    if let Some(field) = field(fields, &key.quoted) {
        field.name = Cow::Owned(name.to_owned());
    }
}

fn join_arrays(value: &mut Json<'_>) {
    let Json::Array(items) = value.open() else { return };
    for mut item in std::mem::take(items) {
        item.open();
        if let Json::Array(inner) = item {
            items.extend(inner);
        } else {
            items.push(item);
        }
    }
}

/// Fields that are there already stay as they are.
fn lift(holder: &mut Json<'_>, last: &Token) {
    let (Json::Object(fields), Token::Key(key)) = (holder, last) else { return };
    let Some(at) = fields.iter().position(|field| field.name == key.quoted) else { return };
    let Some(Json::Object(inner)) = fields.get_mut(at).map(|field| field.value.open()) else { return };
    let inner = std::mem::take(inner);
    fields.remove(at);
    merge(fields, inner, Clash::Stays);
}

/// The items that have a key, and how long they are as text.
type Same<'t> = Vec<(Json<'t>, usize)>;

impl Join {
    fn apply<'t>(&self, document: &mut Json<'t>, room: &mut usize) -> Result<(), TooLarge> {
        let mut from = self.from.get(document);
        let Some(Json::Array(from)) = from.as_mut().map(Json::open) else { return Ok(()) };
        let mut known: HashMap<Cow<'t, str>, Same<'t>> = HashMap::new();
        for item in from.drain(..) {
            let Some(key) = self.key.get(&item).and_then(Json::into_plain) else { continue };
            let same = known.entry(key).or_default();
            if same.is_empty() || self.matches == Matches::All {
                let size = item.len();
                same.push((item, size));
            }
        }
        let mut result = Ok(());
        self.into.change(document, &mut |array| {
            let Json::Array(items) = array.open() else { return };
            for item in items {
                let key = self.by.get(item).and_then(Json::into_plain);
                let same = key.and_then(|key| known.get(&key));
                let Json::Object(fields) = item.open() else { continue };
                if result.is_ok() {
                    result = self.put(same.map(Vec::as_slice).unwrap_or_default(), fields, room);
                }
            }
        });
        result
    }

    fn put<'t>(
        &self,
        same: &[(Json<'t>, usize)],
        fields: &mut Vec<Field<'t>>,
        room: &mut usize,
    ) -> Result<(), TooLarge> {
        let size: usize = same.iter().map(|(_, size)| *size).sum();
        *room = room.checked_sub(size).ok_or(TooLarge)?;
        let mut found = same.iter().map(|(item, _)| item.clone());
        let value = match self.matches {
            Matches::First => found.next().unwrap_or(Json::NULL),
            Matches::All => Json::Array(found.collect()),
        };
        match field(fields, &self.name) {
            Some(field) => field.value = value,
            None => fields.push(Field { name: Cow::Owned(self.name.clone()), value }),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Pointer {
        Pointer::parse(text).unwrap()
    }

    fn shaped(step: Step, document: &str) -> String {
        let mut document = Json::of(document);
        apply(&[step], &mut document, 1000).unwrap();
        document.to_text()
    }

    #[test]
    fn a_part_is_taken() {
        for (place, want) in
            [("", r#"{"a":[{"b":1.50},{"b":2}]}"#), ("/a/0/b", "1.50"), ("/a/*/b", "[1.50,2]"), ("/z", "null")]
        {
            assert_eq!(shaped(Step::Take(at(place)), r#"{"a":[{"b":1.50},{"b":2}]}"#), want, "{place}");
        }
    }

    #[test]
    fn what_was_not_picked_is_gone() {
        let document = r#"{"a":{"x":1,"y":2},"l":[{"x":1,"y":2},{"y":3},4],"s":5}"#;
        for (places, want) in [
            (vec!["/a/x", "/s"], r#"{"a":{"x":1},"s":5}"#),
            (vec!["/l/*/x"], r#"{"l":[{"x":1},{},null]}"#),
            (vec!["/l/1", "/a"], r#"{"a":{"x":1,"y":2},"l":[{"y":3}]}"#),
            (vec!["/a", "/a/x"], r#"{"a":{"x":1,"y":2}}"#),
            (vec!["/s/x", "/z"], r#"{"s":null}"#),
            (vec![], "{}"),
            (vec![""], document),
        ] {
            let places: Vec<Pointer> = places.into_iter().map(at).collect();
            assert_eq!(shaped(Step::Pick(places.clone()), document), want, "{places:?}");
        }
    }

    #[test]
    fn what_is_dropped_is_gone_and_what_is_renamed_keeps_its_position() {
        let document = r#"{"a":1,"l":[{"x":1,"y":2},{"x":3},4],"b":5}"#;
        for (place, want) in [
            ("/a", r#"{"l":[{"x":1,"y":2},{"x":3},4],"b":5}"#),
            ("/l/*/x", r#"{"a":1,"l":[{"y":2},{},4],"b":5}"#),
            ("/l/0", r#"{"a":1,"l":[{"x":3},4],"b":5}"#),
            ("/l/*", r#"{"a":1,"l":[],"b":5}"#),
            ("/a/z", document),
        ] {
            assert_eq!(shaped(Step::Drop(vec![at(place)]), document), want, "{place}");
        }
        for (place, want) in [
            ("/l/*/x", r#"{"a":1,"l":[{"b":1,"y":2},{"b":3},4],"b":5}"#),
            ("/a", r#"{"b":1,"l":[{"x":1,"y":2},{"x":3},4]}"#),
            ("/b", document),
            ("/z", document),
        ] {
            assert_eq!(shaped(Step::Rename(vec![(at(place), "\"b\"".to_owned())]), document), want, "{place}");
        }
    }

    #[test]
    fn nested_objects_and_arrays_become_flat() {
        for (place, document, want) in [
            ("/a", r#"{"a":{"x":1,"b":2},"b":3}"#, r#"{"b":3,"x":1}"#),
            ("/*/a", r#"[{"a":{"x":1}},{"a":2}]"#, r#"[{"x":1},{"a":2}]"#),
            ("", "[[1,2],3,[[4]]]", "[1,2,3,[4]]"),
            ("/l", r#"{"l":[[1],[2]]}"#, r#"{"l":[1,2]}"#),
            ("", r#"{"a":{"x":1}}"#, r#"{"a":{"x":1}}"#),
        ] {
            assert_eq!(shaped(Step::Flatten(at(place)), document), want, "{place} {document}");
        }
    }

    #[test]
    fn items_get_what_has_their_key() {
        let document = r#"{"o":[{"p":7},{"p":"8"},{"p":9},{},5],"p":[{"i":"7","n":1},{"i":8,"n":2},{"i":7,"n":3},6]}"#;
        let join = |matches| {
            Step::Join(Join {
                into: at("/o"),
                by: at("/p"),
                from: at("/p"),
                key: at("/i"),
                name: "\"q\"".to_owned(),
                matches,
            })
        };
        let first = r#"[{"p":7,"q":{"i":"7","n":1}},{"p":"8","q":{"i":8,"n":2}},{"p":9,"q":null},{"q":null},5]"#;
        let all =
            r#"[{"p":7,"q":[{"i":"7","n":1},{"i":7,"n":3}]},{"p":"8","q":[{"i":8,"n":2}]},{"p":9,"q":[]},{"q":[]},5]"#;
        for (matches, want) in [(Matches::First, first), (Matches::All, all)] {
            let joined = shaped(join(matches), document);
            assert!(joined.starts_with(&format!("{{\"o\":{want},")), "{joined}");
        }
        assert_eq!(
            shaped(join(Matches::First), r#"{"o":[{"p":1}]}"#),
            r#"{"o":[{"p":1}]}"#,
            "there is nothing to join with"
        );
        let mut large = Json::of(document);
        assert_eq!(apply(&[join(Matches::First)], &mut large, 20), Err(TooLarge));
    }
}
