//! What caches are told of a reply that was put together, and whether a client has it already.

use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

/// An entity tag of these bytes. The same bytes have the same tag on every gateway of one build.
pub(crate) fn etag(body: &str) -> String {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        hasher.write_u8(salt);
        hasher.write(body.as_bytes());
        hasher.finish()
    };
    format!("\"{:016x}{:016x}\"", half(0), half(1))
}

/// Whether `If-None-Match` names this tag: weakly, as RFC 9110 §13.1.2 has it.
pub(crate) fn is_known(if_none_match: &str, etag: &str) -> bool {
    let mut tags = if_none_match.split(',').map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// How long an answer may be kept, and by whom. The smaller says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kept {
    Not,
    /// Only if it is asked for again each time.
    Asking,
    For(Duration),
}

/// One `Cache-Control` out of those of all answers: the reply may be kept no longer, and by no more caches, than each of them
/// (RFC 9111 §5.2.2). Without any directives that is not at all.
pub(crate) fn cache_control(answers: &[Option<String>]) -> String {
    let (mut least, mut private) = (Kept::For(Duration::MAX), false);
    for answer in answers {
        let mut kept = Kept::Not;
        for directive in answer.as_deref().unwrap_or_default().split(',') {
            let (name, value) = directive.trim().split_once('=').unwrap_or((directive.trim(), ""));
            match (name.to_ascii_lowercase().as_str(), value.trim_matches('"').parse()) {
                ("no-store", _) => {
                    kept = Kept::Not;
                    break;
                }
                ("no-cache", _) => kept = Kept::Asking,
                ("max-age", Ok(seconds)) if kept != Kept::Asking => kept = Kept::For(Duration::from_secs(seconds)),
                ("private", _) => private = true,
                _ => {}
            }
        }
        least = least.min(kept);
    }
    let private = if private { "private, " } else { "" };
    match least {
        Kept::For(time) if time < Duration::MAX => format!("{private}max-age={}", time.as_secs()),
        Kept::Asking => format!("{private}no-cache"),
        Kept::Not | Kept::For(_) => "no-store".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_that_of_its_bytes_and_is_found_in_a_list() {
        let tag = etag("{}\n");
        assert_eq!((tag.len(), tag == etag("{}\n"), tag == etag("{}")), (34, true, false));
        for (list, known) in [
            (tag.clone(), true),
            (format!("\"x\", W/{tag}"), true),
            ("*".to_owned(), true),
            ("\"x\"".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(is_known(&list, &tag), known, "{list}");
        }
    }

    #[test]
    fn a_reply_is_kept_no_longer_than_any_of_its_parts() {
        for (answers, want) in [
            (vec![Some("max-age=60"), Some("public, max-age=5")], "max-age=5"),
            (vec![Some("max-age=60, private"), Some("max-age=5")], "private, max-age=5"),
            (vec![Some("max-age=60"), Some("no-cache, max-age=5")], "no-cache"),
            (vec![Some("max-age=60"), Some("max-age=9, No-Store")], "no-store"),
            (vec![Some("max-age=60"), None], "no-store"),
            (vec![Some("max-age=60"), Some("public")], "no-store"),
            (vec![], "no-store"),
        ] {
            let answers: Vec<Option<String>> = answers.into_iter().map(|answer| answer.map(str::to_owned)).collect();
            assert_eq!(cache_control(&answers), want, "{answers:?}");
        }
    }
}
