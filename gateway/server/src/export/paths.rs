//! Conditions of routes, in the words that other proxies have for them.

use crate::config::Node;

/// A path pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Path<'p> {
    /// This path.
    Exact(&'p str),
    /// This path and everything below it; empty is everything.
    Below(&'p str),
    /// What this regular expression matches as a whole.
    Like(String),
}

impl<'p> Path<'p> {
    /// What a pattern means, which `core::route` has found good.
    pub(super) fn of(pattern: &'p str) -> Self {
        let (above, below) = match pattern.strip_suffix("/*") {
            Some(above) => (above, true),
            None => (pattern, false),
        };
        match (above.contains('{'), below) {
            (true, below) => {
                let segments = above.split('/').map(|segment| match segment.starts_with('{') {
                    true => "[^/]+".to_owned(),
                    false => literal(segment),
                });
                let end = if below { "(/.*)?" } else { "" };
                Self::Like(segments.collect::<Vec<_>>().join("/") + end)
            }
            (false, true) => Self::Below(above),
            (false, false) => Self::Exact(above),
        }
    }
}

/// A text that a regular expression takes literally.
pub(super) fn literal(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        if !letter.is_ascii_alphanumeric() && !"_-/%~".contains(letter) {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

/// Where a condition of a route stands.
pub(super) fn written<'n>(matched: Option<&'n Node>, section: &str, name: &str) -> Option<&'n Node> {
    let mut entries = matched?.get(section)?.entries();
    entries.find(|(key, _)| key.name.eq_ignore_ascii_case(name)).map(|(_, node)| node)
}
