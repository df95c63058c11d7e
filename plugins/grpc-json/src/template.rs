//! Path templates of `google.api.http`: `/v1/{name=shelves/*/books/*}:publish`.
//!
//! A variable of one segment is decoded whole; one of several keeps its slashes, and `%2F` with them, so that a segment cannot
//! pretend to be two (`google/api/http.proto`, "path template syntax").

use plugin_common::percent;

/// One segment of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    /// `*`
    One,
    /// `**`, the last.
    Rest,
}

/// Where a variable's value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Variable {
    field: String,
    from: usize,
    to: usize,
    /// One segment, whatever is in it.
    is_single: bool,
}

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    segments: Vec<Segment>,
    variables: Vec<Variable>,
    verb: Option<String>,
}

impl Template {
    /// # Errors
    /// What is wrong with it, for the one who wrote it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("the path `{text}` {why}");
        let rest = text.strip_prefix('/').ok_or_else(|| bad("does not begin with `/`"))?;
        let (path, verb) = split_verb(rest);
        let mut template = Self { segments: Vec::new(), variables: Vec::new(), verb: verb.map(str::to_owned) };
        for part in top_segments(path).ok_or_else(|| bad("has a `{` without its `}`"))? {
            let Some(variable) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) else {
                template.push(part).map_err(bad)?;
                continue;
            };
            let (field, pattern) = variable.split_once('=').unwrap_or((variable, "*"));
            if field.is_empty() || template.variables.iter().any(|other| other.field == field) {
                return Err(bad("names a variable twice, or not at all"));
            }
            let from = template.segments.len();
            for part in pattern.split('/') {
                template.push(part).map_err(bad)?;
            }
            let to = template.segments.len();
            template.variables.push(Variable { field: field.to_owned(), from, to, is_single: pattern == "*" });
        }
        Ok(template)
    }

    fn push(&mut self, part: &str) -> Result<(), &'static str> {
        if self.segments.last() == Some(&Segment::Rest) {
            return Err("has something after `**`");
        }
        self.segments.push(match part {
            "" => return Err("has an empty segment"),
            "*" => Segment::One,
            "**" => Segment::Rest,
            _ if part.contains(['{', '}', '*']) => return Err("has a segment that is neither text nor a variable"),
            _ => Segment::Literal(part.to_owned()),
        });
        Ok(())
    }

    /// The fields that it sets.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(|variable| variable.field.as_str())
    }

    /// How closely it describes a path: of two that match, the greater is meant. Literals count before `*`, `*` before `**`.
    pub(crate) fn closeness(&self) -> Vec<u8> {
        let verb = self.verb.iter().map(|_| 3);
        let segments = self.segments.iter().map(|segment| match segment {
            Segment::Literal(_) => 3,
            Segment::One => 2,
            Segment::Rest => 1,
        });
        segments.chain(verb).collect()
    }

    /// The values of its variables, in their order, if the path is one of its.
    pub(crate) fn matches(&self, path: &str) -> Option<Vec<(&str, String)>> {
        let mut path = path.strip_prefix('/')?;
        if let Some(verb) = &self.verb {
            path = path.strip_suffix(verb.as_str())?.strip_suffix(':')?;
        }
        let parts: Vec<&str> = path.split('/').collect();
        let open = self.segments.last() == Some(&Segment::Rest);
        let fits = if open { parts.len() + 1 >= self.segments.len() } else { parts.len() == self.segments.len() };
        let same = |(segment, part): (&Segment, &&str)| match segment {
            Segment::Literal(text) => decoded(part, false).as_deref() == Some(text),
            Segment::One => !part.is_empty(),
            Segment::Rest => true,
        };
        if !fits || !self.segments.iter().zip(&parts).all(same) {
            return None;
        }
        let value = |variable: &Variable| {
            let ends = self.segments.get(variable.to.checked_sub(1)?) == Some(&Segment::Rest);
            let to = if ends { parts.len() } else { variable.to };
            let text = parts.get(variable.from..to)?.join("/");
            decoded(&text, !variable.is_single)
        };
        self.variables.iter().map(|variable| Some((variable.field.as_str(), value(variable)?))).collect()
    }
}

/// The verb after the last colon, if it is not within a variable.
fn split_verb(text: &str) -> (&str, Option<&str>) {
    let last = text.rfind(['/', '}']).map_or(0, |at| at + 1);
    match text.get(last..).and_then(|tail| tail.find(':')) {
        Some(colon) => (text.get(..last + colon).unwrap_or_default(), text.get(last + colon + 1..)),
        None => (text, None),
    }
}

/// Cuts at slashes outside of braces; nothing when braces do not pair.
fn top_segments(text: &str) -> Option<Vec<&str>> {
    let (mut depth, mut from, mut parts) = (0_u32, 0, Vec::new());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.checked_sub(1)?,
            b'/' if depth == 0 => {
                parts.push(text.get(from..at)?);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text.get(from..)?);
    (depth == 0).then_some(parts)
}

fn decoded(text: &str, keep_slashes: bool) -> Option<String> {
    String::from_utf8(percent::decoded(text.as_bytes(), keep_slashes)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_match_what_they_describe() {
        for (template, path, want) in [
            ("/v1/shelves", "/v1/shelves", Some("")),
            ("/v1/shelves", "/v1/shelves/", None),
            ("/v1/shelves/{shelf}", "/v1/shelves/a%2Fb%20c", Some("shelf=a/b c")),
            ("/v1/shelves/{shelf}", "/v1/shelves/", None),
            ("/v1/{name=shelves/*}", "/v1/shelves/7", Some("name=shelves/7")),
            ("/v1/{name=shelves/*}", "/v1/books/7", None),
            ("/v1/{name=shelves/*/books/*}:publish", "/v1/shelves/7/books/8:publish", Some("name=shelves/7/books/8")),
            ("/v1/{name=shelves/*}:publish", "/v1/shelves/7", None),
            ("/v1/{name=shelves/**}", "/v1/shelves/a/b%2Fc/d", Some("name=shelves/a/b%2Fc/d")),
            ("/v1/{name=shelves/**}", "/v1/shelves", Some("name=shelves")),
            ("/v1/{shelf.id}/books/{book.id}", "/v1/3/books/4", Some("shelf.id=3 book.id=4")),
            ("/v1/{shelf}", "/v1/%ff", None),
        ] {
            let template = Template::parse(template).unwrap();
            let got = template.matches(path).map(|values| {
                values.iter().map(|(field, value)| format!("{field}={value}")).collect::<Vec<_>>().join(" ")
            });
            assert_eq!(got.as_deref(), want, "{template:?} {path}");
        }
    }

    #[test]
    fn a_template_that_means_nothing_is_refused() {
        for (template, want) in [
            ("v1", "the path `v1` does not begin with `/`"),
            ("/v1//x", "the path `/v1//x` has an empty segment"),
            ("/{a", "the path `/{a` has a `{` without its `}`"),
            ("/{a}/{a}", "the path `/{a}/{a}` names a variable twice, or not at all"),
            ("/**/x", "the path `/**/x` has something after `**`"),
            ("/x*", "the path `/x*` has a segment that is neither text nor a variable"),
        ] {
            assert_eq!(Template::parse(template).err().as_deref(), Some(want));
        }
    }

    #[test]
    fn a_literal_is_closer_than_a_variable() {
        let closeness = |text| Template::parse(text).unwrap().closeness();
        assert!(closeness("/v1/shelves/first") > closeness("/v1/shelves/{id}"));
        assert!(closeness("/v1/shelves/{id}") > closeness("/v1/shelves/{id=**}"));
        assert!(closeness("/v1/shelves/{id}:go") > closeness("/v1/shelves/{id}"));
    }
}
